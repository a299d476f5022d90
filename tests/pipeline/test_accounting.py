import pickle

import pytest

from cep.pipeline.accounting import Accounting, AccountingError, Counts


def test_counts_that_add_up_pass_and_read_well():
    counts = Counts(1_234, 1_000, 200, 30, 3, 1)
    counts.check("s")
    assert str(counts) == (
        "read 1,234 = processed 1,000 + late 200 + quarantined 30 + duplicate 3 "
        "+ buffered 1"
    )
    counts.gaps = 7
    counts.check("s")
    assert str(counts).endswith("; lost before reading 7")


@pytest.mark.parametrize(
    "name", ["processed", "late", "quarantined", "duplicate", "buffered", "read"]
)
def test_any_count_that_is_off_by_one_is_an_error_that_shows_all(name):
    counts = Counts(15, 1, 2, 3, 4, 5)
    setattr(counts, name, getattr(counts, name) + 1)
    with pytest.raises(AccountingError) as caught:
        Accounting({"s": {}, "t": vars_of(counts)}).check()
    assert "The counts of t do not add up: read 1" in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def vars_of(counts):
    return {name: getattr(counts, name) for name in Counts.__dataclass_fields__}


def test_the_total_is_the_sum_over_streams():
    accounting = Accounting({"a": {"read": 1, "late": 1}, "b": {"read": 2, "gaps": 5}})
    assert accounting.total() == Counts(read=3, late=1, gaps=5)
    assert accounting["a"].late == 1
