import pytest

from cep.bus.keys import dlq_key, meta_key, state_key, ticks_key
from cep.errors import UsageError


def test_keys_of_a_pipeline_share_one_hash_tag():
    keys = [make("p") for make in (meta_key, state_key, ticks_key, dlq_key)]
    assert keys == ["cep:{p}:meta", "cep:{p}:state", "cep:{p}:ticks", "dlq:{p}"]


@pytest.mark.parametrize("name", ["", "a{b", "a}b", "a\nb"])
def test_name_that_would_break_the_tag_is_refused(name):
    with pytest.raises(UsageError, match="cannot name a pipeline"):
        meta_key(name)
