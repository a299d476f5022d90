"""A slow, obvious matcher of patterns in their neutral JSON form. Plain Python.

It is what the engine's pattern matching is held against. It compiles nothing: it
walks the pattern's tree. A partial match is the list of what it has bound and the
`Place` in the tree where it waits; for each event `Matcher` asks every place what
may happen there (take the event, pass over it, be stopped by a negation), looking
ahead over whatever may be skipped, and copies the list for each answer.

`match` gives what Apache Flink's CEP library gives, its accidents included: equal
matches are listed once for each way to them. With ``departures=True`` it differs
as the engine is meant to:

* a gap limit bounds every step, and a time limit on a repetition bounds every
  repetition, where Flink's bound some;
* of matches that tie under a skip strategy, the one that began first goes first,
  then the longest, then the one with the lowest positions, then the one whose
  elements come first in the pattern; Flink's heap decides otherwise;
* what runs out runs out in order of time, however far time moves at once, so that
  a match which that releases may drop what would run out later;
* time passes for all keys at once;
* a match is its events, and is listed once: not again for another way to it, nor
  because one more event has come after it and is not what must not come next.

``python -m tests.matcher --triples 20000 --seed 1`` holds the engine against it.
"""

from __future__ import annotations

import argparse
import math
import operator
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

Event = dict[str, Any]

OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": lambda a, b: a / b if b else None,
    "mod": lambda a, b: math.fmod(a, b) if b else None,
    "starts_with": str.startswith,
    "ends_with": str.endswith,
    "contains": operator.contains,
}
MANY = math.inf
NEGATIONS = ("not_next", "not_followed_by")


class TooManyError(Exception):
    """More partial matches live at once than asked for."""


@dataclass(eq=False)
class Node:
    """An element or a group of the pattern, linked to its surroundings."""

    name: str = ""
    contiguity: str | None = None
    where: Any = None
    subtype: str | None = None
    least: int = 1
    most: float = 1
    optional: bool = False
    greedy: bool = False
    inner: str = "skip_till_next"
    until: Any = None
    repetition_ms: int | None = None
    gap_ms: int | None = None
    repeats: bool = False
    children: list[Node] = field(default_factory=list)
    parent: Node | None = None
    index: int = 0

    @property
    def is_negation(self) -> bool:
        return self.contiguity in NEGATIONS

    def sibling(self, step: int) -> Node | None:
        """Return the next (1) or previous (-1) element of the same sequence."""
        assert self.parent is not None
        at = self.index + step
        around = self.parent.children
        return around[at] if 0 <= at < len(around) else None

    @property
    def is_head(self) -> bool:
        """Whether it is the first element of a group."""
        assert self.parent is not None
        return self.parent.parent is not None and self.index == 0


@dataclass(frozen=True)
class Place:
    """Where in the tree a partial match waits.

    ``node`` is the element to bind next; None: nothing is left. ``done`` says for
    each group around it, outermost first, and for itself how many repetitions are
    complete; where there is no upper bound it counts up to the lower one only.
    """

    node: Node | None
    done: tuple[int, ...] = ()
    # It has passed over an event and can no longer skip what it waits for.
    waiting: bool = False
    # Negations that an optional element, when taken, has called off.
    spared: frozenset[str] = frozenset()
    # A greedy element before it was ended by its until condition.
    unguarded: bool = False


END = Place(None)


@dataclass(frozen=True)
class Partial:
    """A partial match: where it is and what it has bound, as (name, position)."""

    place: Place
    bound: tuple[tuple[str, int], ...] = ()
    first_ms: int = 0
    last_ms: int = 0
    complete_ms: float = 0

    @property
    def start(self) -> int:
        return self.bound[0][1]

    def match(self) -> list[Any]:
        found: dict[str, list[int]] = {}
        for name, position in self.bound:
            found.setdefault(name, []).append(position)
        return [[name, positions] for name, positions in found.items()]

    def positions(self) -> list[int]:
        return [position for _, position in self.bound]


def plant(elements: list[dict[str, Any]], parent: Node) -> None:
    """Grow ``parent``'s children from the JSON of a sequence."""
    for index, e in enumerate(elements):
        node = Node(parent=parent, index=index, contiguity=e["contiguity"])
        q = e.get("quantifier")
        if q:
            node.least, node.optional = q["min"] or 1, q["optional"] or q["min"] == 0
            node.most = MANY if q["max"] is None else q["max"]
            node.greedy, node.inner, node.until = q["greedy"], q["inner"], q["until"]
            node.repetition_ms = q["window_ms"]
            node.repeats = (q["min"], q["max"]) != (1, 1) or bool(q.get("explicit"))
        if e.get("within_kind") == "previous_and_current":
            node.gap_ms = e["within_ms"]
        parent.children.append(node)
        if "group" in e:
            plant(e["group"], node)
        else:
            node.name, node.where = e["name"], e["where"]
            node.subtype = e.get("subtype")


def first_to_last_limits(
    elements: list[dict[str, Any]], *, inside: bool = False
) -> list[int]:
    """Return the windows that single elements set for the whole pattern.

    That on the last element inside a group counts for nothing.
    """
    found = []
    for place, e in enumerate(elements, start=1):
        counts = not inside or place < len(elements)
        if e.get("within_kind") == "first_and_last" and e["within_ms"] and counts:
            found.append(e["within_ms"])
        found += first_to_last_limits(e.get("group", []), inside=True)
    return found


class Matcher:
    """The partial matches of one pattern over one key's events."""

    def __init__(
        self,
        pattern: dict[str, Any],
        events: list[Event],
        *,
        departures: bool = False,
        at_most: int = 10**6,
    ) -> None:
        self.events, self.departures, self.at_most = events, departures, at_most
        self.root = Node()
        plant(pattern["elements"], self.root)
        limits = first_to_last_limits(pattern["elements"])
        self.every_gap_ms = None
        if pattern["within_ms"]:
            if pattern["within_kind"] == "first_and_last":
                limits.append(pattern["within_ms"])
            elif departures:
                self.every_gap_ms = pattern["within_ms"]
            else:
                last = self.root.children[-1]
                if not last.repeats and not last.children:
                    last.gap_ms = pattern["within_ms"]
        self.window_ms = min(limits, default=None)
        self.skip = pattern["after_match_skip"] or {"kind": "no_skip"}
        self.beginning = Partial(self.start(self.root.children[0], ()))
        self.partials: list[Partial] = []
        self.completed: list[Partial] = []
        self.known: set[tuple[tuple[str, int], ...]] = set()  # ever complete
        self.timeouts: list[tuple[Partial, int]] = []
        self.error: str | None = None  # as in ``expect.error``

    # Where a partial match goes.

    def start(self, node: Node, around: tuple[int, ...], done: int = 0) -> Place:
        """Return the place before ``node`` after ``done`` repetitions of it."""
        around += (done,)
        while node.children:
            node, around = node.children[0], (*around, 0)
        return Place(node, around)

    def repeated(self, node: Node, around: tuple[int, ...], done: int) -> Place:
        """Return the place after one more repetition, ``done`` of them by now."""
        if done < node.most:
            count = min(done, node.least) if node.most == MANY else done
            return self.start(node, around, count)
        return self.after(node, around)

    def after(self, node: Node, around: tuple[int, ...]) -> Place:
        """Return the place after ``node``, all its repetitions done or skipped."""
        follows = node.sibling(1)
        while follows is not None and follows.contiguity == "not_followed_by":
            following = follows.sibling(1)
            absent = Place(follows, (*around, 0))
            is_last = following is None and self.after(follows, around) is END
            if is_last and (self.window_ms or self.gap_ms(absent)):
                return absent
            follows = following
        if follows is not None:
            return self.start(follows, around)
        assert node.parent is not None
        if node.parent is self.root:
            return END
        return self.repeated(node.parent, around[:-1], around[-1] + 1)

    def leave(self, place: Place, node: Node, level: int) -> Place:
        """Return the place after ``node``, which is at ``level`` of the place."""
        there = self.after(node, place.done[:level])
        spared = place.spared
        taken = place.done[level] > 0
        if taken and node.children and node.most == MANY and node.optional:
            spared |= self.forbidden_before(node)
        return replace(there, spared=spared) if there is not END else END

    # What holds at a place.

    def forbidden_before(self, node: Node) -> frozenset[str]:
        """Return the not_followed_by that precede ``node``, over optional elements."""
        found = set()
        before = node.sibling(-1)
        while before is not None:
            if before.contiguity == "not_followed_by":
                found.add(before.name)
            elif not before.optional:
                break
            before = before.sibling(-1)
        return frozenset(found)

    def forbidden(self, place: Place) -> list[Node]:
        """Return the not_followed_by that stop a partial match which waits here."""
        node, done = place.node, place.done
        assert node is not None
        names: set[str] = set()
        if place.waiting:
            if done[-1] == 0 or node.most != MANY:
                names |= self.forbidden_before(node)
        else:
            at: Node | None = node
            for count in reversed(done):
                assert at is not None
                if count:
                    break
                names |= self.forbidden_before(at)
                if at.index:
                    break
                at = at.parent
        found = [n for n in self.leaves(self.root) if n.name in names]
        found += self.forbidden_between(place)
        return [n for n in found if n.name not in place.spared]

    def forbidden_between(self, place: Place) -> list[Node]:
        """Return the not_followed_by after the repetitions that go on here."""
        at, level = place.node, len(place.done) - 1
        assert at is not None
        while not place.done[level] and at.is_head and not place.waiting:
            assert at.parent is not None
            at, level = at.parent, level - 1
        count = place.done[level]
        if not count or (place.waiting and (at.most != MANY or count < at.least)):
            return []
        if at.children and at.most == MANY and count >= at.least:
            return []
        follows = self.follower(at)
        stops = follows is not None and follows.contiguity == "not_followed_by"
        return [follows] if follows is not None and stops else []

    def follower(self, node: Node) -> Node | None:
        """Return the element after ``node``, or after the group that it ends."""
        while node is not self.root:
            follows = node.sibling(1)
            if follows is not None:
                return follows
            assert node.parent is not None
            node = node.parent
        return None

    def leaves(self, node: Node) -> list[Node]:
        if not node.children:
            return [node]
        return [leaf for child in node.children for leaf in self.leaves(child)]

    def greedy_before(self, place: Place) -> Node | None:
        """Return the greedy element of open range whose end this place follows."""
        node, done = place.node, place.done
        assert node is not None
        if place.waiting or place.unguarded or done[-1]:
            return None
        level = len(done) - 1
        before: Node | None = node.sibling(-1)
        while before is None or before.contiguity == "not_followed_by":
            if before is not None:
                before = before.sibling(-1)
                continue
            node, level = node.parent, level - 1
            if node is self.root or node is None:
                return None
            before = node.children[-1] if done[level] else node.sibling(-1)
        while before is not None and before.children:
            if before.most == MANY and before is not node:
                return None
            before = before.children[-1]
            while before is not None and before.contiguity == "not_followed_by":
                before = before.sibling(-1)
        assert before is not None
        if not before.greedy or before.least == before.most:
            return None
        skipped = before.most == MANY and before.optional and not place.spared
        return None if skipped and self.forbidden_before(before) else before

    def gap_ms(self, place: Place) -> int | None:
        """Return how long after its last event a partial match may wait here."""
        node, done = place.node, place.done[-1]
        assert node is not None
        if self.departures:
            gap = self.runs_out(place, set())
            return self.every_gap_ms if gap == 0 else gap
        if place.waiting or place.spared:
            return None
        if node.repetition_ms:
            bounded = node.least if node.most == MANY else int(node.most) - 1
            return node.repetition_ms if done < bounded else None
        return node.gap_ms if not node.repeats else None

    def limit_ms(self, node: Node) -> int | None:
        """Return the shortest limit on the steps that bind ``node``."""
        limits = [self.every_gap_ms]
        at: Node | None = node
        while at is not None:
            limits += [at.gap_ms, at.repetition_ms]
            at = at.parent
        return shortest(*limits)

    def runs_out(self, place: Place, seen: set[Place]) -> int | None:
        """Return how long something can come of waiting here; None: for ever."""
        node = place.node
        assert node is not None
        if node.contiguity == "not_followed_by":
            return self.limit_ms(node)
        seen.add(place)
        longest = 0
        todo: list[tuple[Place, int | None]] = [(place, None)]
        while todo:
            place, before = todo.pop()
            node = place.node
            if node is None or self.is_shut(place):
                continue
            if node.contiguity == "not_followed_by":
                later = [] if self.is_any(node) else [(place, before)]
            elif node.contiguity == "not_next":
                limit = shortest(before, self.limit_ms(node))
                follows = self.leave(place, node, len(place.done) - 1)
                if self.is_any(node) and not any(g.until for g in self.around(node)):
                    continue
                if follows is END:
                    later = [(END, limit)]
                else:
                    later = []
                    todo.append((follows, limit))
            else:
                later = [(END, shortest(before, self.limit_ms(node)))]
                if self.may_pass(place):
                    later.append((self.passed(place), before))
                todo += [(there, before) for there in self.ahead(place, None, ())]
            for there, limit in later:
                if there in seen:
                    continue
                if there is not END and limit is None:
                    limit = self.runs_out(there, seen)
                if limit is None:
                    return None
                longest = max(longest, limit)
        return longest

    def is_shut(self, place: Place) -> bool:
        """Whether the greedy element before takes every event there can be."""
        greedy = self.greedy_before(place)
        if greedy is None or not self.is_any(greedy):
            return False
        return not any(group.until for group in self.around(greedy))

    def is_any(self, node: Node) -> bool:
        return node.where in (None, {"true": True}) and node.subtype is None

    # Conditions.

    def satisfies(self, node: Node, event: Event, bound: Any) -> bool:
        if node.subtype is not None and event.get("type") != node.subtype:
            return False
        return node.where is None or self.truth(node.where, event, bound)

    def takes(self, node: Node, event: Event, bound: Any) -> bool:
        """Whether an event is taken: untils of a loop or a group speak against it."""
        if self.ended(node, event, bound) or self.ended_around(node, event, bound):
            return False
        return self.satisfies(node, event, bound)

    def goes_on(self, greedy: Node, event: Event, bound: Any) -> bool:
        """Whether an event satisfies a greedy element, its own until aside."""
        if self.ended_around(greedy, event, bound):
            return False
        return self.satisfies(greedy, event, bound)

    def ended(self, node: Node, event: Event, bound: Any) -> bool:
        return bool(node.until) and self.truth(node.until, event, bound)

    def ended_around(self, node: Node, event: Event, bound: Any) -> bool:
        """Whether an until of any group around ``node`` holds."""
        return any(self.ended(group, event, bound) for group in self.around(node))

    def around(self, node: Node) -> list[Node]:
        """Return the groups that ``node`` is in, innermost first."""
        found = []
        while node.parent is not None:
            node = node.parent
            found.append(node)
        return found

    def truth(self, expression: Any, event: Event, bound: Any) -> bool:
        return self.value(expression, event, bound) is True

    def value(self, expression: Any, event: Event, bound: Any) -> Any:
        """Return the value of an expression; None is absent."""
        if "true" in expression:
            return True
        if "lit" in expression:
            return expression["lit"]
        if "agg" in expression:
            return self.aggregate(expression, bound)
        if "field" in expression:
            return event.get(expression["field"])
        op = expression["op"]
        args = [self.value(arg, event, bound) for arg in expression["args"]]
        if op == "not":
            return args[0] is not True
        if op == "and":
            return all(arg is True for arg in args)
        if op == "or":
            return any(arg is True for arg in args)
        arithmetic = op in ("add", "sub", "mul", "div", "mod")
        if any(arg is None for arg in args):
            return None if arithmetic else False
        result = args[0]
        for arg in args[1:]:
            result = OPERATIONS[op](result, arg)
        return result

    def aggregate(self, expression: Any, bound: Any) -> Any:
        events = [self.events[at] for name, at in bound if name == expression["of"]]
        function = expression["agg"]
        if expression.get("field") is None:
            return len(events)
        values = [event.get(expression["field"]) for event in events]
        present = [value for value in values if value is not None]
        if function in ("count", "sum"):
            return len(present) if function == "count" else sum(present)
        if function in ("first", "last"):
            return (values or [None])[0 if function == "first" else -1]
        if not present:
            return None
        if function == "avg":
            return sum(present) / len(present)
        return min(present) if function == "min" else max(present)

    # What may happen at a place.

    def moves(self, partial: Partial, event: Event) -> list[tuple[str, str, Place]]:
        """Return what ``event`` may do, as (what, element, next place).

        What is "take", "pass" or "stop".
        """
        bound, found = partial.bound, []
        since = event["ts"] - partial.last_ms
        todo = [partial.place]
        while todo:
            place = todo.pop()
            node = place.node
            if node is None:
                continue
            limit = self.limit_ms(node) if self.departures and bound else None
            in_time = limit is None or since < limit
            greedy = self.greedy_before(place)
            if greedy is not None and self.goes_on(greedy, event, bound):
                continue
            if node.is_negation:
                if self.takes(node, event, bound):
                    found.append(("stop", "", END))
                elif node.contiguity == "not_followed_by":
                    found.append(("pass", "", place))
                elif not in_time:
                    pass
                elif self.after(node, place.done[:-1]) is END:
                    found.append(("pass", "", END))
                else:
                    todo.append(self.leave(place, node, len(place.done) - 1))
                continue
            if any(self.takes(no, event, bound) for no in self.forbidden(place)):
                found.append(("stop", "", END))
            if in_time and self.takes(node, event, bound):
                found.append(("take", node.name, self.taken(place)))
            if self.passes(place, event, bound):
                found.append(("pass", "", self.passed(place)))
            todo += self.ahead(place, event, bound)
        return found

    def taken(self, place: Place) -> Place:
        node = place.node
        assert node is not None
        there = self.repeated(node, place.done[:-1], place.done[-1] + 1)
        if node.optional and there is not END:
            return replace(there, spared=self.forbidden_before(node))
        return there

    def passed(self, place: Place) -> Place:
        waiting = place.waiting or self.optional_here(place)
        spared = place.spared if not waiting else frozenset()
        return replace(place, waiting=waiting, spared=spared)

    def optional_here(self, place: Place) -> bool:
        """Whether what the place waits for may be left out.

        All repetitions of the first element of an optional group count as such.
        """
        node, done = place.node, place.done[-1]
        assert node is not None
        assert node.parent is not None
        if node.is_head and not place.done[-2] and node.parent.optional:
            return True
        return done >= node.least if done else node.optional

    def contiguity(self, place: Place) -> str:
        """Return how what the place waits for follows what was bound before."""
        node, done = place.node, place.done
        assert node is not None
        assert node.parent is not None
        if node.is_head and (done[-1] or done[-2]):
            return node.parent.inner
        if done[-1]:
            return node.inner
        return str((node.parent if node.is_head else node).contiguity)

    def may_pass(self, place: Place) -> bool:
        """Whether there may be events that are passed over."""
        contiguity, node = self.contiguity(place), place.node
        assert node is not None
        if contiguity in ("strict", "next", "None"):
            return False
        return contiguity in ("any", "followed_by_any") or not self.is_any(node)

    def passes(self, place: Place, event: Event, bound: Any) -> bool:
        """Whether the event may be passed over."""
        node = place.node
        assert node is not None
        if not self.may_pass(place) or self.ended_around(node, event, bound):
            return False
        if place.done[-1] and self.ended(node, event, bound):
            return False
        if self.contiguity(place) in ("any", "followed_by_any"):
            return True
        return not self.satisfies(node, event, bound)

    def ahead(self, place: Place, event: Event | None, bound: Any) -> list[Place]:
        """Return the places that are reached without taking anything.

        Where a condition decides, that is by ``event``; None: all that may be.
        """
        node, done = place.node, place.done
        assert node is not None
        if place.waiting:
            return []
        if node.is_negation:
            follows = self.leave(place, node, len(done) - 1)
            if follows is END or (event and self.takes(node, event, bound)):
                return []
            return [follows]
        found = []
        level = len(done) - 1
        may_leave = done[-1] >= node.least or (not done[-1] and node.optional)
        if may_leave and not self.holds(node, event, bound):
            there = self.leave(place, node, level)
            ended = bool(node.until) and (
                event is None or self.ended(node, event, bound)
            )
            if node.greedy and ended and there is not END:
                there = replace(there, unguarded=True)
            found.append(there)
        while done[level] == 0 and node.is_head:
            node, level = node.parent, level - 1
            assert node is not None
            may_leave = done[level] >= node.least or (not done[level] and node.optional)
            if may_leave and not self.holds(node, event, bound):
                found.append(self.leave(place, node, level))
        return found

    def holds(self, node: Node, event: Event | None, bound: Any) -> bool:
        """Whether the until of a group around keeps ``node`` from being left."""
        return event is not None and self.ended_around(node, event, bound)

    def ends(self, place: Place, event: Event, bound: Any) -> bool:
        """Whether all that is left after taking ``event`` may be left out."""
        todo = [place]
        while todo:
            place = todo.pop()
            if place is END:
                return True
            greedy = self.greedy_before(place)
            if greedy is None or not self.goes_on(greedy, event, bound):
                todo += self.ahead(place, event, bound)
        return False

    # Events and time.

    def take(self, position: int) -> list[Partial]:
        """Process an event and return the matches that it releases."""
        event = self.events[position]
        kept: list[Partial] = []
        matches: list[Partial] = []
        if self.error:
            return []
        for partial in [*self.partials, self.beginning]:
            new: list[Partial] = []
            stopped = False
            for what, name, place in self.moves(partial, event):
                if what == "stop":
                    stopped = True
                elif what == "take":
                    first = partial.first_ms if partial.bound else event["ts"]
                    bound = (*partial.bound, (name, position))
                    taken = Partial(place, bound, first, event["ts"])
                    if place is not END:
                        new.append(taken)
                    if self.ends(place, event, partial.bound):
                        matches.append(replace(taken, complete_ms=event["ts"]))
                elif partial.bound and place is END:
                    matches.append(replace(partial, complete_ms=event["ts"]))
                elif partial.bound and not self.is_late(partial, place, event):
                    new.append(replace(partial, place=place))
            if not stopped:
                kept += new
        self.partials = kept
        if len(self.partials) > self.at_most:
            raise TooManyError
        return self.release(matches)

    def ends_at(self, partial: Partial) -> list[int]:
        """Return when the limits on a partial match run out."""
        ends = []
        gap = self.gap_ms(partial.place)
        if gap:
            ends.append(partial.last_ms + gap)
        if self.window_ms:
            ends.append(partial.first_ms + self.window_ms)
        return ends

    def is_late(self, partial: Partial, place: Place, event: Event) -> bool:
        """Whether waiting at ``place`` would have run out already."""
        if not self.departures:
            return False
        gap = self.gap_ms(place)
        return bool(gap) and event["ts"] >= partial.last_ms + gap

    def advance(self, now: float) -> list[Partial]:
        """Let time pass, and return the matches that it releases."""
        if not self.departures:
            return self.arrive(now)
        released = []
        while not self.error:
            due = [end for p in self.partials for end in self.ends_at(p) if end <= now]
            if not due:
                break
            released += self.arrive(min(due))
        return released

    def arrive(self, now: float) -> list[Partial]:
        """Let what has run out by now go."""
        kept, matches = [], []
        for partial in self.partials:
            over = [end for end in self.ends_at(partial) if end <= now]
            if not over:
                kept.append(partial)
            elif partial.place.node.contiguity == "not_followed_by":
                matches.append(replace(partial, complete_ms=now))
            else:
                self.timeouts.append((partial, over[0]))
        self.partials = kept
        return self.release(matches)

    def release(self, matches: list[Partial]) -> list[Partial]:
        """Add complete matches and return those that no partial match holds back."""
        if self.departures:
            matches = [m for m in matches if m.bound not in self.known]
            self.known |= {m.bound for m in matches}
        if self.skip["kind"] == "no_skip":
            return self.once(matches)
        self.completed += matches
        released = []
        while self.completed:
            if self.departures:
                self.completed.sort(key=self.turn)
            else:
                self.completed.sort(key=lambda m: m.start)
            match = self.completed[0]
            if any(partial.start < match.start for partial in self.partials):
                break
            to = self.skips(match)
            if self.error:
                break
            self.completed = [m for m in self.completed[1:] if m.start >= to]
            self.partials = [p for p in self.partials if p.start >= to]
            released.append(match)
        return self.once(released)

    def once(self, matches: list[Partial]) -> list[Partial]:
        """Drop matches that another way has completed at the same event."""
        if not self.departures:
            return matches
        return list({m.bound: m for m in matches}.values())

    def turn(self, match: Partial) -> Any:
        order = [leaf.name for leaf in self.leaves(self.root)]
        steps = [order.index(name) for name, _ in match.bound]
        return match.start, -len(match.bound), match.positions(), steps

    def skips(self, match: Partial) -> int:
        """Return the position below which nothing may begin any more."""
        kind = self.skip["kind"]
        if kind == "to_next":
            return match.start + 1
        if kind == "past_last_event":
            return match.positions()[-1] + 1
        targets = [at for name, at in match.bound if name == self.skip["target"]]
        throws = self.skip.get("throw_on_miss")
        if not targets:
            if throws:
                self.error = "skip_target_missing"
            return 0
        to = targets[0] if kind == "to_first" else targets[-1]
        if throws and to == match.start:
            self.error = "skip_target_is_first_event"
        return to


def shortest(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit), default=None)


@dataclass
class Found:
    """What a pattern finds in a stream, in the terms of the recorded cases."""

    matches: list[Any] = field(default_factory=list)
    released_at: list[tuple[int | None, str]] = field(default_factory=list)
    timeouts: list[tuple[Any, int]] = field(default_factory=list)
    live_partials: int = 0
    held: int = 0  # complete matches that a skip strategy still holds back
    late: list[int] = field(default_factory=list)
    error: str | None = None

    def released(self) -> list[tuple[Any, tuple[int | None, str]]]:
        return list(zip(self.matches, self.released_at, strict=True))


def steps(case: dict[str, Any], late: list[int]) -> list[tuple[str, float]]:
    """Return what happens in a case: ("event", position) or ("time", ms)."""
    events, end = case["events"], case["end_time"]
    last = math.inf if end == "inf" else end
    if "arrival" not in case:
        happens = [("event", i) for i in range(len(events))]
        return happens if end is None else [*happens, ("time", last)]
    happens, waiting, watermark = [], [], -math.inf
    arrivals = case["arrival"] + ([] if end is None else [{"watermark": last}])
    for arrival in arrivals:
        if "watermark" in arrival:
            watermark = arrival["watermark"]
            waiting.sort(key=lambda i: events[i]["ts"])
            due = [i for i in waiting if events[i]["ts"] <= watermark]
            waiting = [i for i in waiting if events[i]["ts"] > watermark]
            happens += [("event", i) for i in due]
            happens.append(("time", watermark))
        elif events[arrival["event"]]["ts"] <= watermark:
            late.append(arrival["event"])
        else:
            waiting.append(arrival["event"])
    return happens


def match(
    case: dict[str, Any], *, departures: bool = False, at_most: int = 10**6
) -> Found:
    """Return what the pattern of ``case`` finds in its events.

    Raises `TooManyError` if more than ``at_most`` partial matches of a key live.
    """
    found, events = Found(), case["events"]
    matchers: dict[Any, Matcher] = {}

    def matcher(key: Any) -> Matcher:
        if key not in matchers:
            matchers[key] = Matcher(
                case["pattern"], events, departures=departures, at_most=at_most
            )
        return matchers[key]

    def note(matches: list[Partial], at: tuple[int | None, str]) -> None:
        found.matches += [m.match() for m in matches]
        found.released_at += [at] * len(matches)

    for what, at in steps(case, found.late):
        if what == "time":
            for each in matchers.values():
                note(each.advance(at), (None, "time"))
        else:
            position = int(at)
            event = events[position]
            mine = matcher(event.get(case["key_by"]) if case.get("key_by") else None)
            for each in matchers.values() if departures else [mine]:
                note(each.advance(event["ts"]), (position, "time"))
            note(mine.take(position), (position, "event"))
        errors = [each.error for each in matchers.values() if each.error]
        if errors:
            found.error = errors[0]
            break
    for each in matchers.values():
        found.timeouts += [(partial.match(), ms) for partial, ms in each.timeouts]
        found.live_partials += len(each.partials)
        found.held += len(each.completed)
    return found


def main(arguments: list[str]) -> int:
    """Compare with the engine; see `tests.triples`."""
    from tests import triples

    parser = argparse.ArgumentParser(prog="python -m tests.matcher")
    parser.add_argument("--triples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    return int(triples.main(given.triples, given.seed) > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
