"""Hypothesis strategies: rules over `tests.streams`' types, and rows for them.

Small worlds on purpose: few keys, few distinct values and times, so that equal
times, overlapping matches, running out of time and limits all happen.
"""

import random

from hypothesis import strategies as st

from cep.errors import RuleError
from cep.rules import (
    AfterMatch,
    Limits,
    avg,
    build_rule,
    corr,
    count,
    distinct,
    e,
    emit,
    ewm,
    first,
    last,
    m,
    max,
    on,
    quantile,
    seq,
    slope,
    std,
    sum,
    wavg,
)

TYPES = ("test.tick", "test.tick", "test.tack", "test.tock")


@st.composite
def _windows(draw):
    """A number over a window of any kind."""
    aggregate = draw(
        st.sampled_from(
            [
                count(),
                count().where(e.x > 0),
                sum(e.x),
                avg(e.x),
                max(e.x),
                first(e.x),
                std(e.x),
                slope(e.x),
                quantile(e.x, 0.5),
                distinct(e.key),
                corr(e.x, e.event_time),
                wavg(e.x, e.x + 3),
            ]
        )
    )
    if draw(st.integers(0, 3)) == 0:
        aggregate = aggregate.of(draw(st.sampled_from(["test.tack", "test.tick"])))
    how = draw(st.sampled_from(["time", "events", "tumbling", "hopping", "session"]))
    if how == "time":
        return aggregate.over(draw(st.sampled_from(["1ms", "3ms", "10ms"])))
    if how == "events":
        return aggregate.over(events=draw(st.sampled_from([1, 2, 5])))
    if how == "tumbling":
        return aggregate.tumbling(draw(st.sampled_from(["2ms", "7ms"])))
    if how == "hopping":
        return aggregate.hopping("6ms", every=draw(st.sampled_from(["2ms", "4ms"])))
    return aggregate.session(gap=draw(st.sampled_from(["2ms", "4ms"])))


@st.composite
def _conditions(draw, bound, own):
    """A condition on the event, on a window, or on what is bound."""
    limit = draw(st.integers(-2, 3))
    lengths = st.sampled_from(["1ms", "3ms", "10ms"])
    plain = [
        e.x > limit,
        e.x <= limit,
        e.x.is_null(),
        ~(e.x == limit),
        e.key.is_in(["a", "b"]),
        count().over(draw(lengths), by=draw(st.sampled_from([None, [], "key"]))) >= 2,
        e.x >= avg(e.x).over(draw(lengths)),
        std(e.x).where(e.x > -1).over(draw(lengths)) < 1,
        max(e.x).over(draw(lengths)) - first(e.x).over(draw(lengths)) > limit,
        draw(_windows()) >= limit,
        ewm(e.x, half_life=draw(lengths)) > limit,
    ]
    for name in bound:
        plain += [
            e.x > m[name].x,
            count(m[name]) < limit,
            sum(m[name].x) + e.x > limit,
            first(m[name]).x != e.x,
        ]
    if own:
        plain += [count(m[own]) < 2, (count(m[own]) == 0) | (e.x >= last(m[own]).x)]
    chosen = draw(st.lists(st.sampled_from(plain), min_size=1, max_size=2))
    return chosen[0] if len(chosen) == 1 else chosen[0] | chosen[1]


@st.composite
def _elements(draw, names, bound, depth):
    if depth and draw(st.integers(0, 5)) == 0:
        inner = seq(draw(_elements(names, bound, 0)))
        for _ in range(draw(st.integers(0, 1))):
            how = draw(st.sampled_from(["next", "then", "then_any"]))
            inner = getattr(inner, how)(draw(_elements(names, bound, 0)))
        return draw(_quantified(inner))
    name = f"s{len(names)}"
    names.append(name)
    step = on(
        *draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=2)), name=name
    )
    step = draw(_quantified(step))
    own = name if step.quantifier.repeats else None
    for _ in range(draw(st.integers(0, 1))):
        step = step.where(draw(_conditions(list(bound), own)))
    bound.append(name)
    if draw(st.integers(0, 4)) == 0:
        step = step.within_previous(draw(st.sampled_from(["1ms", "2ms"])))
    return step


@st.composite
def _quantified(draw, element):
    how = draw(st.sampled_from(["", "", "", "times", "between", "loop"]))
    if how == "times":
        element = element.times(draw(st.integers(1, 3)))
    if how == "between":
        element = element.between(draw(st.integers(0, 1)), draw(st.integers(1, 3)))
    if how == "loop":
        element = element.at_least(draw(st.integers(1, 2)))
    if how:
        style = draw(st.sampled_from(["", "", "consecutive", "any", "greedy"]))
        if style == "consecutive":
            element = element.consecutive()
        if style == "any":
            element = element.any_combination()
        if style == "greedy":
            element = element.greedy()
    if how == "loop" and draw(st.booleans()):
        element = element.until(e.x == draw(st.integers(-2, 3)))
    if not element.quantifier.optional and draw(st.integers(0, 5)) == 0:
        element = element.optional()
    return element


@st.composite
def _patterns(draw):
    names, bound = [], []
    pattern = seq(draw(_elements(names, bound, 1)))
    for _ in range(draw(st.integers(0, 3))):
        how = draw(st.sampled_from(["next", "then", "then", "then_any", "not"]))
        if how == "not":
            negation = on(draw(st.sampled_from(TYPES)), name=f"n{len(names)}")
            names.append("")
            negation = negation.where(draw(_conditions(list(bound), None)))
            how = draw(st.sampled_from(["not_next", "not_then"]))
            pattern = getattr(pattern, how)(negation)
        else:
            pattern = getattr(pattern, how)(draw(_elements(names, bound, 1)))
    last_one = pattern.elements[-1][0]
    bounds = draw(st.sampled_from(["", "whole", "whole", "gaps", "both"]))
    if bounds in ("whole", "both") or last_one == "not_then":
        pattern = pattern.within(draw(st.sampled_from(["2ms", "8ms", "50ms"])))
    if bounds in ("gaps", "both"):
        pattern = pattern.within_previous(draw(st.sampled_from(["2ms", "6ms"])))
    if draw(st.integers(0, 3)) == 0:
        pattern = pattern.where(count(m[bound[0]]) >= draw(st.integers(0, 2)))
    return pattern, bound, last_one != "not_then"


@st.composite
def _closing(draw, name):
    """A step that takes windows of any kind when they close."""
    types = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=2))
    step = on(*types, name=name)
    if draw(st.booleans()):
        step = step.where(draw(st.sampled_from([e.x > -1, e.key.is_in(["a", "b"])])))
    how = draw(st.sampled_from(["tumbling", "hopping", "session"]))
    if how == "tumbling":
        step = step.tumbling(draw(st.sampled_from(["2ms", "7ms"])))
    elif how == "hopping":
        step = step.hopping("6ms", every=draw(st.sampled_from(["2ms", "4ms"])))
    else:
        step = step.session(draw(st.sampled_from(["2ms", "4ms"])))
    held = [count() >= 2, sum(e.x) > 0, max(e.x) - first(e.x) < 1, last(e.x).is_null()]
    return step.where(draw(st.sampled_from(held))) if draw(st.booleans()) else step


@st.composite
def _closing_rules(draw, name, key):
    """A rule on windows that close, alone or among steps that take events."""
    window, shape = draw(_closing("w")), draw(st.integers(0, 4))
    if shape == 1:
        window = window.between(1, 2)
    pattern, ends = seq(window), shape != 2
    if shape == 2:
        tick = on("test.tick", name="tick").where(e.x >= 0)
        pattern = pattern.then(tick).within("20ms")
    if shape == 3:
        pattern = seq(on("test.tick", name="tick").where(e.x >= 0)).next(window)
    if shape == 4:
        pattern = pattern.then(draw(_closing("v"))).within("30ms")
    values = {"n": count(m.w), "begin": first(m.w).window_start}
    if ends:
        values |= {"rows": count(), "sum": sum(e.x), "end": e.window_end}
    else:
        values |= {"x": e.x, "mean": draw(_windows())}
    return build_rule(name, pattern, [emit(**values)], key=key)


@st.composite
def rules(draw, name="random"):
    """A rule, or None where the draw made one that is refused."""
    key = draw(st.sampled_from(["key", "key", None]))
    if draw(st.integers(0, 4)) == 0:
        return draw(_closing_rules(name, key))
    after = draw(
        st.sampled_from(["no_skip", "no_skip", "past_last_event", "to_next", "to"])
    )
    try:
        pattern, bound, by_event = draw(_patterns())
        if after == "to":
            kind = draw(st.sampled_from(["to_first", "to_last"]))
            missing = draw(st.sampled_from(["ignore", "ignore", "trip"]))
            after = AfterMatch(kind, draw(st.sampled_from(bound)), missing)
        values = {"n": count(m[bound[0]]), "last_x": m[bound[-1]].x}
        values["who"] = m[bound[0]].key
        if by_event:
            values["x"] = e.x
            values["mean"] = avg(e.x).over("5ms")
            values["window"] = draw(_windows())
        limited = any(x.within_ns or x.gap_ns for x in pattern.walk())
        late = emit(n=count(m[bound[-1]]), first_x=m[bound[0]].x)
        return build_rule(
            name,
            pattern,
            [emit(**values)],
            on_timeout=late if limited and draw(st.booleans()) else None,
            key=key,
            cooldown=draw(st.sampled_from([None, None, "4ms"])),
            after_match=after,
            limits=Limits(
                partials_per_key=draw(st.sampled_from([3, 40])),
                bindings_per_key=draw(st.sampled_from([8, 200])),
                policy=draw(st.sampled_from(["drop_oldest", "drop_new", "trip"])),
                matches_per_event=draw(st.sampled_from([1, 2, 1_000])),
                bindings_per_event=draw(st.sampled_from([3, 10_000])),
            ),
        )
    except RuleError:
        return None


@st.composite
def rows(draw, most=60):
    """Rows in order of arrival, event times rising.

    From a seed, as lists drawn one by one are too short to match anything.
    """
    rng = random.Random(draw(st.integers(0, 2**32)))
    t, made = 0, []
    for _ in range(draw(st.integers(0, most))):
        t += rng.choice([0, 0, 1, 1, 2, 5, 30])
        made.append(
            {
                "t": t,
                "type": rng.choice(TYPES),
                "key": rng.choice(["a", "a", "a", "b", "c", None]),
                "x": rng.choice([None, -2, -1, 0, 1, 2, 3, 0.1]),
            }
        )
    return made
