# ruff: noqa: E501 (messages are easier to compare where they break alike)
"""What a rule cannot mean is refused where it is written, in words that help."""

import copy
import datetime as dt
import pickle

import pytest

from cep.errors import (
    CepError,
    InvalidDurationError,
    RuleError,
    UnknownEventTypeError,
    UnknownFieldError,
)
from cep.rules import (
    AfterMatch,
    Limits,
    avg,
    build_rule,
    count,
    e,
    emit,
    ewm,
    first,
    last,
    log,
    m,
    max,
    min,
    on,
    prev,
    py,
    rule,
    seq,
    std,
    sum,
    var,
    when,
)
from tests import streams

assert streams  # registers test.tick, test.tack (alike) and test.tock

tick = on("test.tick", name="a")
tack = on("test.tack", name="b")
tock = on("test.tock", name="c")


def made(pattern, *emissions, **options):
    return build_rule("r", pattern, emissions or [emit()], **options)


def where(condition):
    return made(tick.where(condition))


def then_where(condition):
    return made(seq(tick).then(tack.where(condition)))


def loop():
    return on("test.tick", name="up").one_or_more()


def deep(n):
    expr = e.x
    for _ in range(n):
        expr = expr + 1
    return expr > 0


def listing(*values):
    return [*values]


# Each case: what is written, and the whole message it must give.
TEXTS = {
    # Fields, types and steps.
    "field with a near miss": (
        lambda: where(e.kye == "a"),
        (
            "rule 'r', step 'a': test.tick has no field 'kye'. Did you mean 'key'? Its "
            "fields are: key, x, y, n, flag, text, number_key, user_id, tags, event_time, "
            "type, stream, correlation_id, user_id."
        ),
    ),
    "field of one of two types": (
        lambda: made(on("test.tick", "test.tock", name="a").where(e.only_tock > 1)),
        (
            "rule 'r', step 'a': test.tick has no field 'only_tock'. Its fields are: key, "
            "x, y, n, flag, text, number_key, user_id, tags, event_time, type, stream, "
            "correlation_id, user_id."
        ),
    ),
    "field of several kinds": (
        lambda: made(on("test.tick", "test.tock", name="a").where(e.text == "x")),
        (
            "rule 'r', step 'a': e.text: text has several kinds: int, str in test.tick, "
            "test.tock. Split the step into one step per type"
        ),
    ),
    "event type": (
        lambda: made(on("test.tik")),
        (
            "Event type 'test.tik' is not known. Did you mean 'test.tick' or 'test.tock'"
            " or 'test.tack'? Register your own types with cep.events.register(type, "
            "stream=...) in a module that is imported first; cep.events.registry.names() "
            "lists the known ones."
        ),
    ),
    "key field": (
        lambda: made(tick, key="kei"),
        (
            "rule 'r', key: test.tick has no field 'kei'. Did you mean 'key'? Its fields "
            "are: key, x, y, n, flag, text, number_key, user_id, tags, event_time, type, "
            "stream, correlation_id, user_id."
        ),
    ),
    "window by": (
        lambda: where(count().over("1s", by="kei") > 1),
        (
            "rule 'r', step 'a': count().over('1s', by=['kei']): test.tick has no field "
            "'kei'. Did you mean 'key'? Its fields are: key, x, y, n, flag, text, "
            "number_key, user_id, tags, event_time, type, stream, correlation_id, user_id."
        ),
    ),
    "step": (
        lambda: made(seq(on("test.tick", name="up")).then(tack.where(e.x > m.upp.x))),
        (
            "rule 'r', step 'b': m.upp: there is no step named 'upp'. Did you mean m.up? "
            'the steps are: up; name one with on(..., name="upp")'
        ),
    ),
    "step that comes later": (
        lambda: made(seq(tick.where(e.x > m.b.x)).then(tack)),
        (
            "rule 'r', step 'a': m.b: that step comes later in the pattern. Name a step "
            "that comes before"
        ),
    ),
    "the step's own event": (
        lambda: where(e.x > m.a.x),
        (
            "rule 'r', step 'a': m.a: a step cannot read its own event through m. Name a "
            "step that comes before"
        ),
    ),
    "what must not come": (
        lambda: made(seq(tick).not_next(tack).then(tock), emit(x=m.b.x)),
        (
            "rule 'r': m.b: that step must not come, so it binds nothing. Name a step that "
            "comes before"
        ),
    ),
    "skip target": (
        lambda: made(seq(tick).then(tack), after_match=("to_last", "bb")),
        (
            "rule 'r', after_match=to_last(bb): there is no step named 'bb'. Did you mean "
            "'b'?"
        ),
    ),
    "skip strategy": (
        lambda: made(tick, after_match="past_last_evnt"),
        (
            "after_match='past_last_evnt': unknown strategy 'past_last_evnt'. Did you mean "
            "'past_last_event'?"
        ),
    ),
    "skip strategy without its step": (
        lambda: made(tick, after_match="to_first"),
        (
            "after_match=to_first: to_first and to_last name a step, the others do not. "
            'Write after_match=("to_last", "up") or after_match="past_last_event"'
        ),
    ),
    "a strategy made by hand": (
        lambda: AfterMatch("to_nxt"),
        "after_match='to_nxt': unknown strategy 'to_nxt'. Did you mean 'to_next'?",
    ),
    "a target that none is meant for": (
        lambda: made(tick, after_match=AfterMatch("to_next", "a")),
        (
            "after_match=to_next(a): to_first and to_last name a step, the others do not. "
            'Write after_match=("to_last", "up") or after_match="past_last_event"'
        ),
    ),
    "a strategy that is no name": (
        lambda: made(tick, after_match=("to_last", "a", "trip")),
        (
            "after_match=('to_last', 'a', 'trip'): takes a strategy's name, or a pair of it "
            'and a step\'s name. Write after_match=("to_last", "up") or '
            'after_match="past_last_event"'
        ),
    ),
    "a policy for missing targets": (
        lambda: AfterMatch("to_last", "a", on_missing="stop"),
        (
            "after_match='to_last', on_missing='stop': there is no such policy. Use one of "
            "ignore, trip"
        ),
    ),
    "a missing target where there is none": (
        lambda: AfterMatch("to_next", on_missing="trip"),
        (
            "after_match='to_next', on_missing='trip': only to_first and to_last have a "
            "target that may be missing. Leave on_missing out"
        ),
    ),
    # Kinds.
    "a string and a number": (
        lambda: where(e.key > 5),
        (
            "rule 'r', step 'a': (e.key > 5): compares a str with a number. Compare values "
            "of one kind; strings and truth values with == or != only"
        ),
    ),
    "a number and a string": (
        lambda: where(e.x == "5"),
        (
            "rule 'r', step 'a': (e.x == '5'): compares a number with a str. Compare values"
            " of one kind; strings and truth values with == or != only"
        ),
    ),
    "order of strings": (
        lambda: where(e.key < "b"),
        (
            "rule 'r', step 'a': (e.key < 'b'): strings have no order here. Compare values "
            "of one kind; strings and truth values with == or != only"
        ),
    ),
    "order of truth values": (
        lambda: where(e.flag > False),
        (
            "rule 'r', step 'a': (e.flag > False): truth values have no order. Compare "
            "values of one kind; strings and truth values with == or != only"
        ),
    ),
    "a nested value": (
        lambda: where(e.tags == "x"),
        (
            "rule 'r', step 'a': (e.tags == 'x'): a nested value (list or object) cannot be"
            " compared. Compare values of one kind; strings and truth values with == or != "
            "only"
        ),
    ),
    "a list of the wrong kind": (
        lambda: where(e.key.is_in(["a", 5])),
        (
            "rule 'r', step 'a': e.key.is_in([5, 'a']): compares a str with a number. "
            "Compare values of one kind; strings and truth values with == or != only"
        ),
    ),
    "arithmetic with a string": (
        lambda: where(e.key + 1 > 0),
        (
            "rule 'r', step 'a': e.key: arithmetic takes numbers in (e.key + 1), this is a "
            "string. Make it a number: e.key.as_float(), or of a time e.key.as_time()"
        ),
    ),
    "a condition that is a number": (
        lambda: where(e.x),
        (
            "rule 'r', step 'a': e.x: a condition is true or false, this is a number. "
            "Compare it first: e.x > 0, or ~e.x.is_null()"
        ),
    ),
    "and of numbers": (
        lambda: where((e.x > 1) & e.y),
        (
            "rule 'r', step 'a': e.y: & and | take conditions in ((e.x > 1) & e.y), this is"
            " a number. Compare it first: e.y > 0, or ~e.y.is_null()"
        ),
    ),
    "not of a number": (
        lambda: where(~e.x),
        (
            "rule 'r', step 'a': e.x: ~ takes a condition, this is a number. Compare it "
            "first: e.x > 0, or ~e.x.is_null()"
        ),
    ),
    "a function of a string": (
        lambda: where(log(e.key) > 1),
        (
            "rule 'r', step 'a': e.key: log takes numbers, this is a string. Make it a "
            "number: e.key.as_float(), or of a time e.key.as_time()"
        ),
    ),
    "a string test of a number": (
        lambda: where(e.x.contains("1")),
        (
            "rule 'r', step 'a': e.x: contains takes a string, this is a number. Name a field"
            " that is a string, or compare the number, as e.x == 1"
        ),
    ),
    "a string test with an expression": (
        lambda: e.key.starts_with(e.text),
        (
            "e.key.starts_with: takes a fixed string, got e.text. Give the text as a Python"
            " string"
        ),
    ),
    "sum of strings": (
        lambda: where(sum(e.key).over("1s") > 1),
        (
            "rule 'r', step 'a': sum(e.key).over('1s'): sum takes numbers, e.key is a str. "
            "Aggregate a number, or use count"
        ),
    ),
    "sum of a step's strings": (
        lambda: then_where(sum(m.a.key) > 1),
        (
            "rule 'r', step 'b': sum(m.a.key): sum takes numbers, key is a str. Aggregate a"
            " number, or use count"
        ),
    ),
    "count of a condition": (
        lambda: where(count(e.x > 5).over("1s") > 1),
        (
            "rule 'r', step 'a': count((e.x > 5)).over('1s'): counts the events where the "
            "condition can be asked, which are all: it is false where a field is absent. "
            "Write count().where((e.x > 5)).over(...)"
        ),
    ),
    # Python's own words.
    "and": (
        lambda: (e.x > 1) and (e.y > 2),
        (
            "(e.x > 1): an expression has no truth value while the rule is being built. "
            "Combine conditions with & | ~ and put each comparison in parentheses: (a > 1) "
            "& (b < 2), not `a > 1 and b < 2`; write (1 < a) & (a < 2), not `1 < a < 2`; "
            "`~cond`, not `not cond`"
        ),
    ),
    "a step's truth": (
        lambda: m.up and e.x,
        (
            "m.up: a step has no truth value while the rule is being built. Ask count(m.up)"
            " > 0"
        ),
    ),
    "in": (
        lambda: "a" in e.key,
        (
            "e.key: `in` does not work on an expression. Use .is_in([...]) for a value in a"
            " list, .contains('...') for a substring"
        ),
    ),
    "iteration": (
        lambda: listing(*e.tags),
        (
            "e.tags: an expression cannot be iterated over. To aggregate, use count, sum, "
            "avg, min, max, first, last"
        ),
    ),
    "None": (
        lambda: e.x == None,  # noqa: E711
        (
            "None: nothing equals an absent value, so None cannot be compared. Ask for "
            "absence with .is_null(), for presence with ~....is_null()"
        ),
    ),
    "endless number": (
        lambda: e.x < float("inf"),
        (
            "inf: is no finite number, so no comparison with it could hold. Leave the "
            "comparison out, or use a number within 1.8e308"
        ),
    ),
    "endless integer": (
        lambda: e.x < 10**309,
        (
            f"{10**309!r:.40}: is no finite number, so no comparison with it could hold. "
            "Leave the comparison out, or use a number within 1.8e308"
        ),
    ),
    "a foreign value": (
        lambda: e.event_time > dt.timedelta(1),
        (
            "datetime.timedelta(days=1): a timedelta cannot be part of an expression. "
            "Times are numbers of milliseconds: write 86400000"
        ),
    ),
    "a datetime": (
        lambda: e.event_time > dt.datetime(2026, 1, 5, tzinfo=dt.UTC),
        (
            "datetime.datetime(2026, 1, 5, 0, 0, tzinfo=datetime.timezone.utc): a datetime "
            "cannot be part of an expression. A time is a number of milliseconds since "
            "1970: write datetime(...).timestamp() * 1000"
        ),
    ),
    "a time as a text": (
        lambda: where(e.event_time > "2026-01-05"),
        (
            "rule 'r', step 'a': (e.event_time > '2026-01-05'): compares a number with a "
            "str. A time is a number of milliseconds since 1970: write 1767571200000"
        ),
    ),
    "a condition that is a text": (
        lambda: where("price > 3"),
        (
            "rule 'r', step 'a': 'price > 3': a condition is true or false, this is a "
            "string. Write a condition with e, as e.price > 3"
        ),
    ),
    "a slip in a strategy": (
        lambda: made(tick, after_match="past_last"),
        (
            "after_match='past_last': unknown strategy 'past_last'. Did you mean "
            "'past_last_event'?"
        ),
    ),
    "a repetition that its limits never let complete": (
        lambda: made(tick.times(1000)),
        (
            "rule 'r', step 'a': it can never match: before the first match is complete a "
            "key has 499,500 events in its partial matches, and at most 100,000 are "
            "allowed. Count over a window instead, count().over(events=...), or raise the "
            "limit: limits=Limits(bindings_per_key=499500)"
        ),
    ),
    "a step as a value": (
        lambda: e.x > m.up,
        (
            "m.up: a step is not a value. Name a field (m.up.price) or aggregate it "
            "(count(m.up))"
        ),
    ),
    "is_in of a string": (
        lambda: e.key.is_in("abc"),
        (
            "e.key: is_in takes a list of values, got the single string 'abc'. Write "
            "is_in(['abc']) or contains('abc')"
        ),
    ),
    "is_in of a number": (
        lambda: e.x.is_in(5),
        "e.x: is_in takes a list of values, got 5. Write is_in([...])",
    ),
    "is_in of expressions": (
        lambda: e.x.is_in([1, e.y]),
        (
            "e.x: is_in takes fixed values, not expressions. Compare one by one: (a == b) |"
            " (a == c)"
        ),
    ),
    "too deep": (
        lambda: where(deep(150)),
        (
            "rule 'r', step 'a': an expression: nests 152 deep, at most 100 is possible. "
            "Split it over several emitted fields or rules"
        ),
    ),
    "a method": (
        lambda: e.x.is_nul(),
        "e.x.is_nul: there is no such method. Did you mean 'is_null'?",
    ),
    "a method of a comparison": (
        lambda: (e.x > 1).isin([True]),
        "(e.x > 1).isin: there is no such method. Did you mean 'is_in'?",
    ),
    "a method that is a function": (
        lambda: e.x.sqrt(),
        "e.x.sqrt: there is no such method. Write sqrt(e.x)",
    ),
    "a method that there is nowhere": (
        lambda: e.key.lower(),
        (
            "e.key.lower: there is no such method. There are is_in, is_null, starts_with, "
            "ends_with, contains, as_float, as_int, as_time, dt"
        ),
    ),
    "a window of a field": (
        lambda: e.x.over("1s"),
        "e.x.over: only an aggregate has a window. Write avg(e.x).over(...)",
    ),
    "a part of a time": (
        lambda: e.event_time.dt.hours(),
        "e.event_time.dt.hours: there is no such part of a time. Did you mean 'hour'?",
    ),
    "a part of a time that there is not": (
        lambda: e.event_time.dt.zone(),
        (
            "e.event_time.dt.zone: there is no such part of a time. Use year, month, day, "
            "weekday, hour, minute, second"
        ),
    ),
    "a window of prev": (
        lambda: prev(e.x).over("1s"),
        (
            "prev(e.x).over: prev looks back by itself and takes no window. Leave "
            ".over(...) out, or aggregate: avg(e.x).over(...)"
        ),
    ),
    "a window of a window": (
        lambda: avg(e.x).over("1s").where(e.x > 1),
        (
            "avg(e.x).over('1s').where: has its window already. Leave .where(...) out; "
            ".where and .of go before the window"
        ),
    ),
    "a window of a step's aggregate": (
        lambda: avg(m.u.x).over("1s"),
        (
            "avg(m.u.x).over: is over the events that the step has bound, not over a "
            "window. Leave .over(...) out, or write avg(e.x).over(...)"
        ),
    ),
    "a window of a step's count": (
        lambda: count(m.u).over("1s"),
        (
            "count(m.u).over: is over the events that the step has bound, not over a "
            "window. Leave .over(...) out, or write count().over(...)"
        ),
    ),
    "a choice without its rest, compared": (
        lambda: when(e.x > 1).then(1) > 0,
        (
            "when((e.x > 1)).then(1): does not say what the rest is. Write when((e.x > "
            "1)).then(1).otherwise(...)"
        ),
    ),
    "a choice without its rest, equal": (
        lambda: when(e.x > 1).then(1) == 0,
        (
            "when((e.x > 1)).then(1): does not say what the rest is. Write when((e.x > "
            "1)).then(1).otherwise(...)"
        ),
    ),
    "a choice without its rest, as a number": (
        lambda: when(e.x > 1).then(1).as_float(),
        (
            "when((e.x > 1)).then(1): does not say what the rest is. Write when((e.x > "
            "1)).then(1).otherwise(...)"
        ),
    ),
    "a choice without its value": (
        lambda: when(e.x > 1) & e.flag,
        (
            "when((e.x > 1)): has no value yet. Write when((e.x > "
            "1)).then(...).otherwise(...)"
        ),
    ),
    "a mean without its half-life": (
        lambda: ewm(e.x),
        (
            "ewm(e.x): does not say how fast values lose weight. Write ewm(e.x, "
            'half_life="10s")'
        ),
    ),
    "a string test of a truth value": (
        lambda: where(e.flag.starts_with("1")),
        (
            "rule 'r', step 'a': e.flag: starts_with takes a string, this is a bool. Name "
            "a field that is a string"
        ),
    ),
    "the event as a value": (
        lambda: count(e),
        (
            "e: the event is not a value. Name a field of it, as e.price; count() without "
            "anything counts events"
        ),
    ),
    "the match as a value": (
        lambda: e.x > m,
        (
            "m: the match is not a value. Name a field of a step (m.up.price) or aggregate "
            "one (count(m.up))"
        ),
    ),
    "precedence of or": (
        lambda: e.x > 1 | e.x < 3,
        (
            "1 | e.x: | takes conditions, 1 is a number; it binds stronger than a "
            "comparison. Put each comparison in parentheses: (e.price < 1) | (e.price > 3)"
        ),
    ),
    "precedence of and": (
        lambda: (e.x > 1) & 2 < e.y,
        (
            "(e.x > 1) & 2: & takes conditions, 2 is a number; it binds stronger than a "
            "comparison. Put each comparison in parentheses: (e.price < 1) & (e.price > 3)"
        ),
    ),
    "is_in of nothing": (
        lambda: e.key.is_in([]),
        (
            "e.key.is_in([]): nothing is in an empty list, so the condition never holds. "
            "Give at least one value, or leave the condition out"
        ),
    ),
    # Aggregates and windows.
    "no window": (
        lambda: where(avg(e.x) > 5),
        (
            "rule 'r', step 'a': avg(e.x): the aggregate has no window yet. Say over what: "
            'avg(e.x).over("60s"); or let the step take windows: '
            'on(...).tumbling("60s").where(...)'
        ),
    ),
    "no window in an output": (
        lambda: made(tick, emit(mean=avg(e.x))),
        (
            "rule 'r': avg(e.x): the aggregate has no window yet. Say over what: "
            'avg(e.x).over("60s"); or let the step take windows: '
            'on(...).tumbling("60s").where(...)'
        ),
    ),
    "no window in a function": (
        lambda: where(abs(avg(e.x) - 1) > 2),
        (
            "rule 'r', step 'a': avg(e.x): the aggregate has no window yet. Say over what: "
            'avg(e.x).over("60s"); or let the step take windows: '
            'on(...).tumbling("60s").where(...)'
        ),
    ),
    "no window before %": (
        lambda: where(sum(e.x) % 2 == 0),
        (
            "rule 'r', step 'a': sum(e.x): the aggregate has no window yet. Say over what: "
            'sum(e.x).over("60s"); or let the step take windows: '
            'on(...).tumbling("60s").where(...)'
        ),
    ),
    "aggregate of a whole step": (
        lambda: avg(m.up),
        "avg(m.up): avg needs a field of the step. Write avg(m.up.price)",
    ),
    "deviation of a step": (
        lambda: std(m.up.x),
        (
            "std(m.up.x): there is no std of what a step has bound. Take std of a field of "
            "e, over a window"
        ),
    ),
    "variance of a whole step": (
        lambda: var(m.up),
        (
            "var(m.up): there is no var of what a step has bound. Take var of a field of e,"
            " over a window"
        ),
    ),
    "last of a step's field": (
        lambda: last(m.up.x),
        "last(m.up.x): there is no last of what a step has bound. Write last(m.up).x",
    ),
    "a step in a window in a window": (
        lambda: then_where(avg(max(e.x + m.a.x).over("1s")).over("1s") > 1),
        (
            "rule 'r', step 'b': max((e.x + m.a.x)).over('1s'): a window cannot hold "
            "m.a.x. Aggregate fields of e and arithmetic on them"
        ),
    ),
    "a step in a window": (
        lambda: then_where(count().where(e.x > m.a.x).over("1s") > 1),
        (
            "rule 'r', step 'b': count().where((e.x > m.a.x)).over('1s'): a window cannot "
            "hold m.a.x. Aggregate fields of e and arithmetic on them"
        ),
    ),
    "what py reads": (
        lambda: py(abs, reads=[e.x + 1]),
        (
            "py(abs): reads may hold fields of e only, got (e.x + 1). List plain fields: "
            "reads=[e.price, e.quantity]"
        ),
    ),
    # Patterns.
    "an absence without an end": (
        lambda: made(seq(tick).not_then(tack)),
        (
            "rule 'r': an absence in last place needs a time after which it is certain. Add"
            ' .within("30s") to the sequence, counted from its first event, or '
            '.within_previous("30s"), counted from its last'
        ),
    ),
    "an event that no event completes": (
        lambda: made(seq(tick).not_then(tack).within("1s"), emit(x=e.x)),
        (
            "rule 'r': e.x: there is no completing event: the match is released by time. "
            "Use a field of a step: m.<step>.<field>"
        ),
    ),
    "a window where no event completes": (
        lambda: made(seq(tick).not_then(tack).within("1s"), emit(n=count().over("1s"))),
        (
            "rule 'r': count().over('1s'): there is no completing event: the match is "
            "released by time. Use a field of a step: m.<step>.<field>"
        ),
    ),
    "two absences at the end": (
        lambda: made(seq(tick).not_then(tack).not_then(tock).within("1s")),
        (
            "rule 'r': an absence has no step after it, and is not the last element. Put "
            '.not_next before .not_then, and join two absences in one step: on("a", '
            '"b").where((...) | (...))'
        ),
    ),
    "an absence before a strict one": (
        lambda: made(seq(tick).not_then(tack).not_next(tock).within("1s")),
        (
            "rule 'r': an absence has no step after it, and is not the last element. Put "
            '.not_next before .not_then, and join two absences in one step: on("a", '
            '"b").where((...) | (...))'
        ),
    ),
    "an absence at a group's end": (
        lambda: made(seq(seq(tick).not_then(tack)).then(tock)),
        (
            "rule 'r', sequence of step 'a', step 'b': an absence at the end of a group has"
            " no step after it. Put it behind the group: seq(...).then(seq(...))."
            "not_then(...)"
        ),
    ),
    "a gap limit given twice": (
        lambda: tick.within_previous("1s").within_previous("2s"),
        "step 'a': has a gap limit already: 1s. Keep one .within_previous(...)",
    ),
    "a gap limit of the whole given twice": (
        lambda: seq(tick).within_previous("1s").within_previous("2s"),
        (
            "sequence of step 'a': has a gap limit already: 1s. Keep one "
            ".within_previous(...)"
        ),
    ),
    "a gap longer than the whole": (
        lambda: made(seq(tick).then(tack.within_previous("2s")).within("1s")),
        (
            "rule 'r', step 'b': 2s between two events is longer than the 1s of a whole "
            "match. Make .within_previous shorter than 1s, or leave it out: .within bounds "
            "it already"
        ),
    ),
    "a gap of all steps longer than the whole": (
        lambda: made(seq(tick).then(tack).within("1s").within_previous("1500ms")),
        (
            "rule 'r', sequence of step 'a', step 'b': 1s500ms between two events is longer"
            " than the 1s of a whole match. Make .within_previous shorter than 1s, or leave"
            " it out: .within bounds it already"
        ),
    ),
    "a gap in a group longer than an element's time": (
        lambda: made(
            seq(tick.within("1s")).then(seq(tack.within_previous("2s")).next(tock))
        ),
        (
            "rule 'r', step 'b': 2s between two events is longer than the 1s of a whole "
            "match. Make .within_previous shorter than 1s, or leave it out: .within bounds "
            "it already"
        ),
    ),
    "a gap limit on an absence in the middle": (
        lambda: made(seq(tick).not_then(tack.within_previous("1s")).then(tock)),
        (
            "rule 'r', step 'b': .within_previous means nothing on an absence that a step "
            "follows. Put it on the step that follows, or .within on the sequence"
        ),
    ),
    "an unknown field in a group's end": (
        lambda: made(
            seq(tick).then(seq(tack).then(tock).one_or_more().until(e.xx > 1))
        ),
        None,
    ),
    "a later step in a group's end": (
        lambda: made(
            seq(seq(tick).then(tack).one_or_more().until(m.c.x > m.a.x)).then(tock)
        ),
        (
            "rule 'r', sequence of step 'a', step 'b', until: m.c: that step comes later in "
            "the pattern. Name a step that comes before"
        ),
    ),
    "a later step outside of a repeated group": (
        lambda: made(seq(seq(tick.where(m.c.x > 1)).then(tack).times(2)).then(tock)),
        (
            "rule 'r', step 'a': m.c: that step comes later in the pattern. Name a step "
            "that comes before"
        ),
    ),
    "a timeout that never comes": (
        lambda: made(seq(tick).then(tack), on_timeout=emit(x=m.a.x)),
        (
            "rule 'r', on_timeout: no partial match of this rule ever runs out of time. Add "
            '.within("30s") or .within_previous("30s") to the sequence'
        ),
    ),
    "an event at a timeout": (
        lambda: made(seq(tick).then(tack).within("1s"), on_timeout=emit(x=e.x)),
        (
            "rule 'r', on_timeout: e.x: there is no event: a partial match ran out of time."
            " Use a field of a step: m.<step>.<field>"
        ),
    ),
    "a window at a timeout": (
        lambda: made(
            seq(tick).then(tack).within("1s"), on_timeout=emit(n=count().over("1s"))
        ),
        (
            "rule 'r', on_timeout: count().over('1s'): there is no event: a partial match "
            "ran out of time. Use a field of a step: m.<step>.<field>"
        ),
    ),
    "an unknown step at a timeout": (
        lambda: made(seq(tick).then(tack).within("1s"), on_timeout=emit(x=m.bb.x)),
        (
            "rule 'r', on_timeout: m.bb: there is no step named 'bb'. Did you mean m.b? the "
            'steps are: a, b; name one with on(..., name="bb")'
        ),
    ),
    "a timeout that is no emission": (
        lambda: made(seq(tick).within("1s"), on_timeout="late"),
        (
            "rule 'r': an output must come from emit(...), got 'late'. Write "
            "on_timeout=emit(...)"
        ),
    ),
    "a group's condition": (
        lambda: made(seq(tick).then(seq(tack).then(tock).where(e.x > 1))),
        (
            "rule 'r', sequence of step 'b', step 'c': .where of a group is not possible. "
            "Put .where on the whole sequence, or .where on its steps"
        ),
    ),
    "an empty repetition": (
        lambda: made(seq(seq(tick.optional()).one_or_more()).then(tack)),
        (
            "rule 'r', sequence of step 'a': every step in this repeated group is optional,"
            " so that it could match nothing for ever. Make one of the group's steps "
            "required"
        ),
    ),
    "combinations without end": (
        lambda: made(seq(loop().any_combination()).then(tack)),
        (
            "rule 'r', step 'up': all combinations of an unbounded repetition double with "
            "every event. Add .within(...) or .until(...), write .between(1, n), or accept "
            "it with limits=Limits(partials_per_key=...)"
        ),
    ),
    "going on after a repetition of all": (
        lambda: seq(tick).then(tack).times(2).then(tock),
        (
            "sequence of step 'a', step 'b': is repeated as a whole (.times(2)) and cannot "
            "go on. Make it a group of its own: seq(seq(...).times(2)).then(...)"
        ),
    ),
    "two repetitions": (
        lambda: loop().times(2),
        (
            "step 'up': has a repetition already: .one_or_more(). Keep one of times, "
            "between, at_least, one_or_more"
        ),
    ),
    "a repetition that is no number": (
        lambda: tick.times("2"),
        "step 'a': a repetition is a whole number, got '2'. Give an int",
    ),
    "half a repetition": (
        lambda: tick.between(1, 2.5),
        "step 'a': a repetition is a whole number, got 2.5. Give an int",
    ),
    "an empty range": (
        lambda: tick.between(3, 2),
        (
            "step 'a': cannot be taken between 3 and 2 times. Use 1 <= least <= most; least"
            " 0 means optional"
        ),
    ),
    "at least nothing": (
        lambda: tick.at_least(0),
        "step 'a': at_least(0) asks for nothing. Write .one_or_more().optional()",
    ),
    "no repetition at all": (
        lambda: tick.times(0),
        (
            "step 'a': cannot be taken 0 times. Leave it out, write .optional() if it may be "
            "missing, or .not_then(...) if it must be"
        ),
    ),
    "optional twice": (
        lambda: tick.optional().optional(),
        "step 'a': is optional already. Remove one .optional()",
    ),
    "greedy once": (
        lambda: tick.greedy(),
        (
            "step 'a': greedy needs a repetition. Put .times, .between, .at_least or "
            ".one_or_more before .greedy()"
        ),
    ),
    "greedy group": (
        lambda: seq(tick).one_or_more().greedy(),
        (
            "sequence of step 'a': a group cannot be greedy. Make a step in it greedy, or "
            "repeat it without .greedy()"
        ),
    ),
    "greedy combinations": (
        lambda: loop().any_combination().greedy(),
        (
            "step 'up': greedy and any_combination contradict each other. Remove one of "
            "them"
        ),
    ),
    "combinations, greedy": (
        lambda: loop().greedy().any_combination(),
        (
            "step 'up': greedy and any_combination contradict each other. Remove one of "
            "them"
        ),
    ),
    "until of a bounded repetition": (
        lambda: tick.times(3).until(e.x > 1),
        (
            "step 'a': until needs a repetition without an upper bound. Put .one_or_more() "
            "or .at_least(n) before .until(...)"
        ),
    ),
    "optional after greedy": (
        lambda: seq(loop().greedy()).then(tack.optional()),
        (
            "step 'b': what is optional cannot follow the greedy step 'up'. Remove "
            ".greedy() from step 'up', put a step that must come between them, or write "
            ".between(0, 1)"
        ),
    ),
    "a repeated absence": (
        lambda: seq(tick).not_next(tack.times(2)),
        (
            "step 'b': what must not come cannot be repeated or optional. Remove .times(2) "
            "from the step in .not_next"
        ),
    ),
    "an absent group": (
        lambda: seq(tick).not_then(seq(tack)),
        ".not_then: a group cannot be negated. Negate a single step",
    ),
    "an absence after what may be absent": (
        lambda: seq(tick.optional()).not_then(tack),
        (
            "step 'b': a negation cannot follow the optional step 'a'. Put a step that must"
            " come between them"
        ),
    ),
    "no step": (
        lambda: seq(tick).then("test.tack"),
        (
            ".then('test.tack'): takes a step or a group, got a str. Build a step with "
            'on("event.type") and a group with seq(...)'
        ),
    ),
    "no first step": (
        lambda: seq(e.x > 1),
        (
            "seq((e.x > 1)): takes a step or a group, got a Binary. Build a step with "
            'on("event.type")'
        ),
    ),
    "no type": (
        lambda: on(),
        'on(): takes the names of event types. Write on("market.trade")',
    ),
    "a type that is no name": (
        lambda: on(e.x),
        'on(e.x): takes the names of event types. Write on("market.trade")',
    ),
    "a step's name": (
        lambda: on("test.tick", name="two words"),
        (
            "on(..., name='two words'): a step's name must be a Python identifier. Use "
            "letters, digits and underscores, so that m.<name> works"
        ),
    ),
    "the same name twice": (
        lambda: made(seq(tick).then(on("test.tack", name="a"))),
        "rule 'r': two steps are named 'a'. Give each step a name of its own",
    ),
    "two time bounds": (
        lambda: seq(tick).within("1s").within("2s"),
        "sequence of step 'a': has a time bound already: 1s. Keep one .within(...)",
    ),
    "a repetition that is none at all": (
        lambda: seq(tick).times(0),
        (
            "sequence of step 'a': cannot be taken 0 times. Leave it out, write "
            ".optional() if it may be missing, or .not_then(...) if it must be"
        ),
    ),
    "a step's name that is a keyword": (
        lambda: on("test.tick", name="class"),
        (
            "on(..., name='class'): m.class cannot be written, as class is a word of "
            'Python. Use another name, such as name="class_"'
        ),
    ),
    "a step's name that is no text": (
        lambda: on("test.tick", name=5),
        (
            "on(..., name=5): a step's name must be a Python identifier. Use letters, "
            "digits and underscores, so that m.<name> works"
        ),
    ),
    # Emissions.
    "missing fields": (
        lambda: made(tick, emit("system.performance.degraded", current_value=e.x)),
        (
            "rule 'r', emit('system.performance.degraded'): system.performance.degraded "
            "also requires metric_name, threshold_value, affected_services, "
            "suggested_actions. Give them in emit(...), or leave the type out to emit the "
            "standard alert, which takes any fields"
        ),
    ),
    "a field that the type lacks": (
        lambda: made(tick, emit("market.trade", symbol=e.key, prise=e.x)),
        (
            "rule 'r', emit('market.trade'): market.trade has no field 'prise'. Did you "
            "mean 'price'?"
        ),
    ),
    "a field of another kind": (
        lambda: made(tick, emit("market.trade", symbol=e.x, price=e.x, quantity=1)),
        (
            "rule 'r', emit('market.trade'): symbol is a str, e.x is a float. Emit that "
            "kind"
        ),
    ),
    "a constant of another kind": (
        lambda: made(tick, emit("market.trade", symbol="a", price="9", quantity=1)),
        "rule 'r', emit('market.trade'): price is '9' (str). Allowed: a finite number",
    ),
    "a constant that is no choice": (
        lambda: made(
            tick,
            emit("market.trend.detected", trend_type="up", confidence_score=1),
        ),
        (
            "rule 'r', emit('market.trend.detected'): trend_type is 'up' (str). Allowed: "
            "one of 'rising', 'declining', 'stable'"
        ),
    ),
    "a nested field that is missing": (
        lambda: made(
            tick,
            emit(
                "notification.send.requested",
                user_id=e.user_id,
                notification_type="system_alert",
                channels=["email"],
                message={"title": e.key},
                priority="low",
            ),
        ),
        (
            "rule 'r', emit('notification.send.requested'): message.body is missing. "
            "Allowed: a string"
        ),
    ),
    "an output type": (
        lambda: made(tick, emit("file.uplodaed", filename=e.key)),
        (
            "Event type 'file.uplodaed' is not known. Did you mean "
            "'file.uploaded'? Register your own types with cep.events.register("
            "type, stream=...) in a module that is imported first; "
            "cep.events.registry.names() lists the known ones."
        ),
    ),
    "what cannot be emitted": (
        lambda: emit(when=dt.date(2024, 1, 1)),
        (
            "emit(... datetime.date(2024, 1, 1) ...): a date cannot be emitted. Emit "
            "numbers, strings, expressions, lists and dicts of those"
        ),
    ),
    "a title's format for a string": (
        lambda: made(tick, emit(title="p {s:.2f}", s=e.key)),
        (
            "rule 'r', emit(title='p {s:.2f}'): {s:.2f} cannot be applied to a string. "
            "Write {s}, or such as {s:>10}"
        ),
    ),
    "a title's format that there is not": (
        lambda: made(tick, emit(title="{x:zz}", x=e.x)),
        (
            "rule 'r', emit(title='{x:zz}'): {x:zz} cannot be applied to a number. Write "
            "{x}, or such as {x:,.2f}"
        ),
    ),
    "a title's format for a whole number": (
        lambda: made(tick, emit(title="{n:.3}", n=e.n)),
        (
            "rule 'r', emit(title='{n:.3}'): {n:.3} cannot be applied to a whole number. "
            "Write {n}, or such as {n:,}"
        ),
    ),
    "a title's format for a nested value": (
        lambda: made(tick, emit(title="{tags:>9}", tags=e.tags)),
        (
            "rule 'r', emit(title='{tags:>9}'): {tags:>9} cannot be applied to a nested "
            "value (list or object). Write {tags}"
        ),
    ),
    "a title's format for a constant": (
        lambda: made(tick, emit(title="{of:d}", of="x")),
        (
            "rule 'r', emit(title='{of:d}'): {of:d} cannot be applied to a string. Write "
            "{of}, or such as {of:>10}"
        ),
    ),
    "a character of a number": (
        lambda: made(tick, emit(title="{n:c}", n=e.n)),
        (
            "rule 'r', emit(title='{n:c}'): {n:c} cannot be applied to a whole number. "
            "Write {n}, or such as {n:,}"
        ),
    ),
    "a title's format for the key": (
        lambda: made(tick, emit(title="{key:.1f}"), key="key"),
        (
            "rule 'r', emit(title='{key:.1f}'): {key:.1f} cannot be applied to a string. "
            "Write {key}, or such as {key:>10}"
        ),
    ),
    "a time-out's title": (
        lambda: made(
            seq(tick).then(tack).within("1s"), on_timeout=emit(title="{s:d}", s=m.a.key)
        ),
        (
            "rule 'r', on_timeout, emit(title='{s:d}'): {s:d} cannot be applied to a "
            "string. Write {s}, or such as {s:>10}"
        ),
    ),
    "a title's width": (
        lambda: emit(title="{x:>100000000}", x=e.x),
        (
            "emit(title='{x:>100000000}'): {x:>100000000} asks for 100000000 characters. "
            "At most 200 are possible"
        ),
    ),
    "a title's precision": (
        lambda: emit(title="{x:.201f}", x=e.x),
        (
            "emit(title='{x:.201f}'): {x:.201f} asks for 201 characters. At most 200 are "
            "possible"
        ),
    ),
    "a field in a title's format": (
        lambda: emit(title="{x:{n}}", x=e.x, n=e.n),
        (
            "emit(title='{x:{n}}'): {x:{n}} has a field in its format. Write the format "
            "out, as {x:10.2f}"
        ),
    ),
    "a title of what is not emitted": (
        lambda: emit(title="{foo}"),
        (
            "emit(title='{foo}'): {foo} is not emitted. Write emit(..., foo=...); a title "
            "may name key"
        ),
    ),
    "a title that is no text": (
        lambda: emit(title=e.key),
        (
            'emit(title=e.key): a title is a text. Write title="{x}" and emit the field '
            "x=..."
        ),
    ),
    "the severity of an alert": (
        lambda: emit(severity="critical"),
        (
            "emit(severity='critical'): an alert says its severity by itself, beside its "
            'values. Say it of the rule: @rule(..., severity="critical")'
        ),
    ),
    "the rule of an alert": (
        lambda: emit(rule="spikes"),
        (
            "emit(rule='spikes'): an alert says its rule by itself, beside its values. "
            "Leave it out, or give the value another name"
        ),
    ),
    "the rule's version of an alert": (
        lambda: emit(rule_version=2),
        (
            "emit(rule_version=2): an alert says its rule_version by itself, beside its "
            "values. Leave it out, or give the value another name"
        ),
    ),
    "the key of an alert": (
        lambda: emit(key=e.key),
        (
            "emit(key=e.key): an alert says its key by itself, beside its values. Say it "
            'of the rule: @rule(..., key="symbol"); or give the value another name'
        ),
    ),
    # The rule itself.
    "name": (
        lambda: build_rule("two words", tick, [emit()]),
        (
            "rule 'two words': a rule's name is made of letters, digits, '-', '_' and '.'. "
            "Rename the rule"
        ),
    ),
    "no name": (
        lambda: rule(lambda: (tick, emit())),
        None,  # the function's address is in it
    ),
    "version": (
        lambda: made(tick, version=0),
        "rule 'r': version is 0. Give a whole number from 1",
    ),
    "severity": (
        lambda: made(tick, severity="high"),
        "rule 'r': severity is 'high'. Use info, warning or critical",
    ),
    "no output": (
        lambda: build_rule("r", tick, []),
        "rule 'r': nothing is emitted. Return (pattern, emit(...))",
    ),
    "a function that returns nothing": (
        lambda: rule("r")(lambda: None),
        (
            "rule 'r': the function must return a pattern and an emission, got None. Return"
            " seq(...) or on(...), then emit(...)"
        ),
    ),
    "an output that is none": (
        lambda: rule("r")(lambda: (tick, {"x": 1})),
        (
            "rule 'r': an output must come from emit(...), got {'x': 1}. Return (pattern, "
            "emit(...))"
        ),
    ),
    "limit": (
        lambda: Limits(partials_per_key=0),
        (
            "Limits(partials_per_key=0): a limit is a whole number from 1. Give the number "
            "that one key may hold, or one event put out"
        ),
    ),
    "limit policy": (
        lambda: Limits(policy="drop_newest"),
        (
            "Limits(policy='drop_newest'): there is no such policy. Did you mean "
            "'drop_new'?"
        ),
    ),
    "limits that are none": (
        lambda: made(tick, limits=5),
        "rule 'r': limits is 5. Write limits=Limits(partials_per_key=...)",
    ),
    "a time-out that is none": (
        lambda: made(seq(tick).then(tack).within("1s"), on_timeout=5),
        (
            "rule 'r': an output must come from emit(...), got 5. Write "
            "on_timeout=emit(...)"
        ),
    ),
    "a key that names a field twice": (
        lambda: made(tick, key=["key", "key"]),
        (
            "rule 'r': key is ['key', 'key'], which names a field twice. Name each field "
            "once"
        ),
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_the_message_says_what_is_wrong_the_value_and_what_to_do(case):
    write, text = TEXTS[case]
    with pytest.raises(CepError) as caught:
        write()
    if text is not None:
        assert str(caught.value) == text
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)


def test_unknown_fields_and_types_are_errors_of_their_own():
    with pytest.raises(UnknownFieldError) as caught:
        where(e.kye == "a")
    assert isinstance(caught.value, RuleError)
    assert isinstance(caught.value, LookupError)
    assert (caught.value.field, caught.value.near) == ("kye", ["key"])
    with pytest.raises(UnknownEventTypeError):
        made(on("test.tik"))


def test_a_decorator_without_parentheses_is_refused():
    with pytest.raises(RuleError, match=r"name\. Write @rule\(\"price-spike\"\) above"):

        @rule
        def forgotten():
            return tick, emit()


@pytest.mark.parametrize(
    "length", ["-5s", "5", 5, 5.0, "5 s", "", True, dt.timedelta(-1), "500us", "1.5ms"]
)
@pytest.mark.parametrize(
    "use",
    [
        lambda length: count().over(length),
        lambda length: seq(tick).within(length),
        lambda length: seq(tick).within_previous(length),
        lambda length: tick.within_previous(length),
        lambda length: made(tick, cooldown=length),
    ],
    ids=["over", "within", "within_previous", "step's within_previous", "cooldown"],
)
def test_what_is_no_duration_is_refused(use, length):
    with pytest.raises(InvalidDurationError, match="is not a duration"):
        use(length)


def test_only_a_cooldown_may_be_zero():
    assert made(tick, cooldown="0s").cooldown_ns == 0
    with pytest.raises(InvalidDurationError, match="it is zero"):
        count().over("0s")
    with pytest.raises(InvalidDurationError, match="it is zero"):
        seq(tick).within("0s")


@pytest.mark.parametrize(
    "condition",
    [
        lambda: 1 < e.x < 5,
        lambda: not e.x > 5,
        lambda: e.x > 5 or e.y > 5,
        lambda: bool(e.flag),
        lambda: 5 if e.flag else 6,
    ],
    ids=["chained", "not", "or", "bool", "if"],
)
def test_every_truth_test_of_an_expression_teaches_the_operators(condition):
    with pytest.raises(RuleError, match=r"Combine conditions with & \| ~"):
        condition()


@pytest.mark.parametrize(
    "operator",
    [
        lambda a: a + 1,
        lambda a: 1 + a,
        lambda a: a - 1,
        lambda a: 1 - a,
        lambda a: a * 2,
        lambda a: 2 * a,
        lambda a: a / 2,
        lambda a: 2 / a,
        lambda a: a % 2,
        lambda a: 2 % a,
        lambda a: -a,
        lambda a: ~a,
        lambda a: abs(a),
        lambda a: a < 1,
        lambda a: a <= 1,
        lambda a: a > 1,
        lambda a: a >= 1,
        lambda a: a == 1,
        lambda a: a != 1,
        lambda a: a & (e.x > 1),
        lambda a: a | (e.x > 1),
        lambda a: e.x > a,
        lambda a: e.x + a,
        lambda a: min(e.x, a),
    ],
)
def test_an_aggregate_without_a_window_is_refused_behind_every_operator(operator):
    with pytest.raises(RuleError, match=r"Say over what: avg\(e\.x\)\.over"):
        made(tick, emit(value=operator(avg(e.x))))


def test_an_aggregate_without_a_window_has_no_truth_value_either():
    with pytest.raises(RuleError, match=r"Combine conditions with & \| ~"):
        bool(avg(e.x))


def test_attributes_that_python_and_notebooks_look_for_are_simply_not_there():
    for expr in (e.x, e.event_time.dt, when(e.x > 1), when(e.x > 1).then(2)):
        assert not hasattr(expr, "_repr_html_")
        assert not hasattr(expr, "shape")
        assert repr(copy.deepcopy(expr)) == repr(pickle.loads(pickle.dumps(expr)))
    with pytest.raises(AttributeError, match="left"):
        str(object.__new__(type(e.x > 1)))


def test_a_title_may_format_what_may_be_of_the_kind():
    number = py(abs, reads=[e.x])
    for title in ("{n:d}", "{n:.2f}", "{key:>9}", "{flag:d}", "{none:.2f}"):
        fields = {"n": number, "flag": e.flag, "none": None}
        assert made(tick, emit(title=title, **fields)).emissions[0].title == title


def test_python_builtins_still_work_on_plain_values():
    assert (sum([1, 2]), sum([1], 5), min(3, 2), max([4, 5])) == (3, 6, 2, 5)
    assert max([], default=7) == 7
    assert str(first(m.up).x) == "first(m.up).x"


def test_what_would_grow_without_bound_is_refused():
    step = on("market.trade", name="a")
    with pytest.raises(RuleError, match="at most 1,000"):
        step.times(10**9)
    doubled = e.price
    for _ in range(30):
        doubled = doubled + doubled
    with pytest.raises(RuleError, match="more than 10,000 parts"):
        build_rule("r", on("market.trade").where(doubled > 0), [emit()])


def test_nested_repetitions_have_a_limit_together():
    from cep.engine.operator import Operator

    inner = seq(on("market.trade", name="a").times(500)).times(500)
    limits = Limits(bindings_per_key=10**6)
    made = build_rule("r", seq(inner), [emit()], limits=limits)
    with pytest.raises(RuleError, match="10,000 states"):
        Operator([made])


def test_a_repetition_is_only_refused_where_no_match_can_be_within_limits():
    assert made(tick.times(447))
    assert made(tick.times(1000), limits=Limits(policy="drop_new"))
    assert made(tick.times(1000), limits=Limits(bindings_per_key=499_500))
    assert made(tick.where((count(m.a) == 0) | (e.x > 1)).times(1000))
    assert made(tick.times(1000).optional())
    assert made(seq(tack).then(tick.times(1000)))
    with pytest.raises(RuleError, match="it can never match"):
        made(seq(tack).then(tick.times(9)), limits=Limits(bindings_per_key=8))


@pytest.mark.parametrize("key", [1, ["symbol", 2], e.symbol])
def test_a_key_is_the_name_of_fields(key):
    with pytest.raises(RuleError, match='key="symbol"'):
        build_rule("r", on("market.trade"), [emit()], key=key)


def test_a_window_is_split_by_fields():
    with pytest.raises(RuleError, match="split by fields"):
        count().over("1m", by=5)
