"""Random patterns, streams and batchings in the neutral JSON form.

Small worlds on purpose: few names, prices and times, so that matches abound. Only
what the rule API accepts is made, knowingly: `Maker` asks the same questions that
the refused patterns of the recorded cases raise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

NAMES = "aaaabc"
SKIPS = ("no_skip", "to_next", "past_last_event", "to_first", "to_last")


class Maker:
    """Makes one case; ``number(low, high)`` decides everything, low being simplest."""

    def __init__(self, number: Callable[[int, int], int]) -> None:
        self.number = number
        self.leaves = 0
        self.bound: list[str] = []  # what conditions may ask about

    def chance(self, percent: int) -> bool:
        return self.number(0, 99) >= 100 - percent

    def one_of(self, *choices: Any) -> Any:
        return choices[self.number(0, len(choices) - 1)]

    # Conditions.

    def where(self, own: str, *, repeats: bool) -> dict[str, Any] | None:
        if self.chance(12):
            return None if self.chance(50) else {"true": True}
        condition = self.test()
        asked = self.bound + ([own] if repeats else [])
        if asked and self.chance(30):
            extra = self.iterative(self.one_of(*asked))
            return op("and" if self.chance(50) else "or", condition, extra)
        return condition

    def test(self) -> dict[str, Any]:
        name, price = {"field": "name"}, {"field": "price"}
        kind = self.number(0, 19)
        if kind < 11:
            return op("eq", name, {"lit": self.one_of(*NAMES)})
        if kind < 13:
            compare = self.one_of("gt", "le", "ne", "ge", "lt", "eq")
            return op(compare, price, {"lit": self.number(1, 4)})
        if kind == 13:
            return op("not", self.test())
        if kind < 16:
            return op(self.one_of("or", "and"), self.test(), self.test())
        if kind == 16:
            return op(self.one_of("gt", "ne", "le"), {"field": "volume"}, price)
        if kind == 17:
            text = self.one_of("starts_with", "ends_with", "contains")
            return op(text, name, {"lit": self.one_of(*NAMES)})
        calculate = self.one_of("add", "sub", "mul", "div", "mod")
        by = self.one_of({"lit": self.number(0, 3)}, {"field": "volume"})
        compare = self.one_of("gt", "le", "ne")
        return op(compare, op(calculate, price, by), {"lit": self.number(0, 4)})

    def iterative(self, of: str) -> dict[str, Any]:
        compare = self.one_of("ge", "lt", "ne", "eq", "gt", "le")
        function = self.one_of("last", "count", "sum", "first", "min", "max", "avg")
        if function == "count":
            counted = {"agg": "count", "field": None, "of": of}
            return op(compare, counted, {"lit": self.number(0, 3)})
        field = "price" if self.chance(85) else "volume"
        value = {"agg": function, "field": field, "of": of}
        other = {"lit": self.number(1, 6)} if self.chance(30) else {"field": "price"}
        test = op(compare, other, value)
        # The first of a repetition has nothing before it to be compared with.
        begins = op("eq", {"agg": "count", "field": None, "of": of}, {"lit": 0})
        return op("or", begins, test) if self.chance(60) else test

    # The tree.

    def elements(self, depth: int) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        for index in range(self.number(1, 4 if not depth else 3)):
            if self.leaves >= 6:
                break
            made.append(self.element(made, depth, first=not index))
        return made

    def element(
        self, before: list[dict[str, Any]], depth: int, *, first: bool
    ) -> dict[str, Any]:
        contiguity = None
        optional_before = bool(before) and is_optional(before[-1])
        if not first:
            contiguity = self.one_of("followed_by", "next", "followed_by_any")
            if not optional_before and self.chance(28):
                contiguity = self.one_of("not_next", "not_followed_by")
        if depth < 2 and contiguity not in NEGATIONS and self.chance(22):
            return self.group(before, depth, contiguity)
        name = f"p{self.leaves}"
        self.leaves += 1
        negation = contiguity in NEGATIONS
        quantifier = None if negation else self.quantifier(before)
        repeats = quantifier is not None and quantifier["max"] != 1
        made: dict[str, Any] = {"name": name, "contiguity": contiguity}
        made["where"] = self.where(name, repeats=repeats)
        if self.chance(6):
            made["subtype"] = self.one_of("S", "T")
        if quantifier is not None:
            made["quantifier"] = quantifier
        if not first and self.chance(7):
            made["within_kind"] = self.one_of("previous_and_current", "first_and_last")
            made["within_ms"] = self.number(2, 10)
        if not negation:
            self.bound.append(name)
        return made

    def group(
        self, before: list[dict[str, Any]], depth: int, contiguity: str | None
    ) -> dict[str, Any]:
        known = list(self.bound)
        inside = self.elements(depth + 1)
        while inside[-1]["contiguity"] == "not_followed_by":
            inside.pop()
        quantifier = self.quantifier(before, group=True) if self.chance(70) else None
        if quantifier and quantifier["max"] is None and may_be_empty(inside):
            quantifier["max"] = max(quantifier["min"], 2)
            quantifier["until"] = None
        made: dict[str, Any] = {"group": inside, "contiguity": contiguity}
        if quantifier:
            made["quantifier"] = quantifier
        self.bound = known + [leaf for leaf in names(inside) if leaf not in known]
        return made

    def quantifier(
        self, before: list[dict[str, Any]], *, group: bool = False
    ) -> dict[str, Any] | None:
        kind = self.number(0, 9)
        if kind < 4:
            return None
        after_greedy = bool(before) and is_greedy(before[-1])
        least, most, optional = 1, 1, False
        if kind == 4 and not after_greedy:
            optional = True
        elif kind < 7:
            least, most = self.number(1, 2), None
        else:
            least = self.number(0, 3)
            most = least + self.number(0 if least else 1, 2)
        repeats = most != 1 or least != 1
        if repeats and least and not after_greedy:
            optional = self.chance(25)
        made: dict[str, Any] = {
            "min": least,
            "max": most,
            "optional": optional,
            "greedy": repeats and not group and self.chance(25),
            "inner": "skip_till_next",
            "until": None,
            "window_ms": None,
        }
        if repeats:
            inner = self.one_of("skip_till_next", "skip_till_next", "strict", "any")
            made["inner"] = "strict" if made["greedy"] and inner == "any" else inner
            if not group and self.chance(10):
                made["window_ms"] = self.number(2, 8)
        if most is None and self.chance(25):
            made["until"] = self.test()
            if self.bound and self.chance(20):
                made["until"] = self.iterative(self.one_of(*self.bound))
        if not repeats and not optional:
            return None
        return made

    def pattern(self) -> dict[str, Any]:
        elements = self.elements(0)
        within, kind = None, None
        if self.chance(55) or elements[-1]["contiguity"] == "not_followed_by":
            within = self.number(2, 30)
            kind = self.one_of("first_and_last", "previous_and_current")
        pattern = {"elements": elements, "within_ms": within, "within_kind": kind}
        shorten_gaps(pattern)
        return pattern | {"after_match_skip": self.skip(elements)}

    def skip(self, elements: list[dict[str, Any]]) -> dict[str, Any]:
        kind = self.one_of(*SKIPS) if self.chance(50) else "no_skip"
        targets = names(elements)
        aimed = kind in ("to_first", "to_last")
        return {
            "kind": kind,
            "target": self.one_of(*targets) if aimed else None,
            "throw_on_miss": aimed and self.chance(15),
        }

    # The stream.

    def events(self, *, keyed: bool) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        now = 0
        for _ in range(self.number(1, 20)):
            now += self.one_of(1, 0, 0, 1, 1, 2, 5)
            event: dict[str, Any] = {"ts": now}
            event["name"] = self.one_of(*NAMES)
            event["price"] = self.number(1, 4)
            if self.chance(60):
                event["volume"] = self.number(0, 4)
            if self.chance(40):
                event["type"] = self.one_of("S", "T")
            if keyed:
                event["key"] = self.one_of("x", "y")
            made.append(event)
        return made

    def case(self) -> dict[str, Any]:
        pattern = self.pattern()
        keyed = self.chance(15)
        events = self.events(keyed=keyed)
        end: int | str | None = self.one_of("inf", None, "soon")
        if end == "soon":
            end = events[-1]["ts"] + self.number(0, 12)
        case = {"pattern": pattern, "events": events, "end_time": end}
        return case | ({"key_by": "key"} if keyed else {})

    def cuts(self, events: list[dict[str, Any]]) -> list[int]:
        """Return where to cut a stream into batches."""
        percent = self.one_of(25, 10, 50, 100)
        return [i for i in range(1, len(events)) if self.chance(percent)]


NEGATIONS = ("not_next", "not_followed_by")


def op(name: str, *args: dict[str, Any]) -> dict[str, Any]:
    return {"op": name, "args": list(args)}


def names(elements: list[dict[str, Any]]) -> list[str]:
    """Return the elements that may bind events, groups opened."""
    found: list[str] = []
    for element in elements:
        if "group" in element:
            found += names(element["group"])
        elif element["contiguity"] not in NEGATIONS:
            found.append(element["name"])
    return found


def is_optional(element: dict[str, Any]) -> bool:
    quantifier = element.get("quantifier")
    return bool(quantifier) and (quantifier["optional"] or not quantifier["min"])


def is_greedy(element: dict[str, Any]) -> bool:
    return bool(element.get("quantifier")) and element["quantifier"]["greedy"]


def may_be_empty(elements: list[dict[str, Any]]) -> bool:
    return all(
        is_optional(element)
        or ("group" in element and may_be_empty(element["group"]))
        or element["contiguity"] in NEGATIONS
        for element in elements
    )


def walk(elements: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for element in elements:
        yield element
        yield from walk(element.get("group", []))


def shorten_gaps(pattern: dict[str, Any]) -> None:
    """Make no gap limit longer than the window of the pattern, which is refused."""
    limited = [pattern, *walk(pattern["elements"])]
    window = min(
        (
            each["within_ms"]
            for each in limited
            if each.get("within_kind") == "first_and_last"
        ),
        default=None,
    )
    if window is None:
        return
    for each in limited:
        if each.get("within_kind") == "previous_and_current":
            each["within_ms"] = min(each["within_ms"], window)
        quantifier = each.get("quantifier")
        if quantifier and quantifier["window_ms"]:
            quantifier["window_ms"] = min(quantifier["window_ms"], window)
