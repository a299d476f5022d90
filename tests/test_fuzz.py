"""A small run of ``python -m tests.fuzz``, the same each time, and that it can fail."""

import random

import pytest

from cep.bus.page import PageDecoder
from tests import fuzz
from tests.random_entries import DECODERS


@pytest.mark.parametrize("seed", range(3))
def test_payloads_and_replies_end_the_same_both_ways(seed):
    rnd = random.Random(seed)
    ends = fuzz.payloads(2_000, rnd)
    assert sum(ends.values()) == 2_000
    assert {"good", "malformed_json", "missing_field", "wrong_type"} <= set(ends)
    assert {"done", "more", "not RESP"} <= set(fuzz.replies(500, rnd))


def test_a_difference_is_found(monkeypatch):
    decode = PageDecoder._decode_payloads

    def one_off(self, *given):
        made = decode(self, *given)
        if self is DECODERS.quick:
            for column in made.values():
                if column.kind == "float":
                    column.values[:1] += 1.0
        return made

    monkeypatch.setattr(PageDecoder, "_decode_payloads", one_off)
    with pytest.raises(AssertionError):
        fuzz.payloads(2_000, random.Random(1))
