"""Which of several complete matches goes first where the first one drops the others."""

import itertools

import pytest

from cep.engine.operator import Operator
from cep.events.ids import words_to_ulid
from cep.rules import build_rule, e, emit, on, seq
from tests import streams


def letter(name, *others):
    return on("test.tick", name=name).where(e.text.is_in([name, *others]))


a, b, c = map(letter, "abc")


def go(pattern, word, after_match, cuts=()):
    """Run over a word, a letter an event; a match is the places of its events."""
    rule = build_rule("r", pattern, [emit()], after_match=after_match)
    rows = [{"t": t, "text": x, "id": t} for t, x in enumerate(word)]
    operator, found = Operator([rule]), []
    places = {words_to_ulid(0, i): str(i) for i in range(len(word))}
    for begin, end in itertools.pairwise([0, *cuts, len(word)]):
        batch = streams.ordered(operator, rows[begin:end])
        found += operator.step(batch, streams.ns(end - 1)).events
    return ["".join(places[x] for x in event.lineage) for event in found]


@pytest.mark.parametrize("after", ["to_next", "past_last_event", ("to_last", "c")])
@pytest.mark.parametrize(
    ("pattern", "word", "found"),
    [
        # The one that began first, however short.
        (seq(a).then(b.optional()).then(c), "axac", "03"),
        (seq(letter("a", "b").at_least(2)).then(c), "aabc", "0123"),
        # Of one beginning the longest, however late it took its events.
        (seq(a).then(b.optional()).then(c), "abc", "012"),
        (seq(a).then_any(b.between(1, 2)).then(c), "abbc", "0123"),
        (seq(a).then_any(b.times(2).any_combination()).then(c), "abbbc", "0124"),
        # Of one length that with the lowest entry ids, the first difference decides.
        (seq(a).then_any(b).then(c), "abbbc", "014"),
        (seq(a).then_any(b).then_any(letter("d", "b")).then(c), "abbbc", "0124"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_earliest_then_the_longest_then_the_lowest_goes_first(
    after, pattern, word, found
):
    assert go(pattern, word, after)[:1] == [found]
    every = range(1, len(word))
    assert go(pattern, word, after, every) == go(pattern, word, after)


def test_what_the_first_one_does_not_drop_comes_after_it():
    pattern = seq(a).then_any(b).then(c)
    assert go(pattern, "abbcabbc", "past_last_event") == ["013", "457"]
    assert go(pattern, "aabbc", "to_next") == ["024", "124"]
    assert go(pattern, "aabbc", "no_skip") == ["024", "034", "124", "134"]
    assert go(pattern, "aabbc", ("to_first", "b")) == ["024"]
    # The first event still waits for another b, and holds back what began later.
    assert go(pattern, "aabbc", ("to_last", "a")) == ["024", "034"]
    in_time = pattern.within("9ms")
    assert go(in_time, "aabbcxxxxxx", ("to_last", "a")) == ["024", "034", "124", "134"]
