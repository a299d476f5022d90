"""The automaton of a rule as a Mermaid flowchart.

Mermaid text is drawn by JupyterLab, by GitHub and by most viewers of Markdown.
What comes from a rule is put into quoted labels, with every character that
means something to Mermaid or to HTML as a code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cep.clock import format_duration
from cep.rules.automaton import build_states
from cep.rules.expressions import Const, Expr, Not, TypeIs, conjuncts

if TYPE_CHECKING:
    from cep.rules.automaton import Edge, State
    from cep.rules.rule import Rule

LONGEST = 60  # characters of a condition

_ARROWS = {"take": "==>", "ignore": "-.->", "proceed": "-->"}
_SHAPES = {
    "start": ("([", "])"),
    "normal": ("(", ")"),
    "pending": ("{{", "}}"),
    "stop": ("[/", "/]"),
    "final": ("(((", ")))"),
}
_PLAIN = set(" .,_=+-*/()[]'~!?^:")


@dataclass(frozen=True, slots=True)
class Diagram:
    """A drawing in Mermaid's language."""

    mermaid: str

    def __str__(self) -> str:
        return self.mermaid

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {
            "text/plain": self.mermaid,
            "text/markdown": f"```mermaid\n{self.mermaid}\n```",
            "text/vnd.mermaid": self.mermaid,
        }


def draw(rule: Rule) -> Diagram:
    """Draw the automaton of a rule's pattern."""
    states = _reached(build_states(rule))
    names = {id(state): f"s{i}" for i, state in enumerate(states)}
    lines = ["flowchart LR", f"  subgraph rule[{_label(_heading(rule))}]"]
    lines.append("    direction LR")
    for state in states:
        begin, end = _SHAPES[state.kind]
        text = _label(*_title(state, rule))
        lines.append(f"    {names[id(state)]}{begin}{text}{end}")
    for state in states:
        for edge in state.edges:
            if state.kind == "stop":
                continue
            arrow, text = _ARROWS[edge.action], _label(_action(edge))
            source, target = names[id(state)], names[id(edge.target)]
            lines.append(f"    {source} {arrow}|{text}| {target}")
    return Diagram("\n".join([*lines, "  end"]))


def _reached(start: State) -> list[State]:
    found: dict[int, State] = {}
    waiting = [start]
    while waiting:
        state = waiting.pop(0)
        if id(state) not in found:
            found[id(state)] = state
            waiting += [edge.target for edge in state.edges]
    return list(found.values())


def _heading(rule: Rule) -> str:
    key = f"key {', '.join(rule.key)}" if rule.key else "all events together"
    parts = [f"{rule.name} v{rule.version}", key]
    if rule.pattern.within_ns is not None:
        parts.append(f"within {format_duration(rule.pattern.within_ns)}")
    if rule.timeouts:
        parts.append("time-outs are put out")
    return ", ".join(parts)


def _title(state: State, rule: Rule) -> list[str]:
    if state.kind == "final":
        condition = rule.pattern.condition
        return ["match", *([f"where {condition}"] if condition is not None else [])]
    if state.kind == "stop":
        return [f"{state.variable} came: no match"]
    if state.kind == "pending":
        limit = state.gap_ns or rule.pattern.within_ns or 0
        since = "the event before" if state.gap_ns else "the first event"
        return [
            f"no {state.variable}",
            f"match {format_duration(limit)} after {since}",
        ]
    types = [t for s in rule.steps if s.name == state.variable for t in s.types]
    return [state.variable, *types]


def _action(edge: Edge) -> str:
    others = [x.condition for x in edge.source.edges if x.action != "ignore"]
    text: str = edge.action
    if edge.target.kind == "stop":
        text = f"{edge.target.variable} comes"
    if edge.action == "ignore" and any(_negates(edge.condition, x) for x in others):
        text = "ignore others"
    elif condition := _condition(edge.condition):
        text += f" if {condition}"
    elif edge.action == "ignore":
        text = "ignore any"
    if edge.gap_ns:
        text += f", within {format_duration(edge.gap_ns)} of the event before"
    return text


def _negates(expr: Expr, other: Expr) -> bool:
    return isinstance(expr, Not) and expr.operand.key == other.key


def _condition(expr: Expr) -> str:
    """Return a condition but for the types that a state tells of."""
    parts = []
    for part in conjuncts(expr):
        if isinstance(part, Not) and isinstance(part.operand, TypeIs):
            parts.append("another type")
        elif not isinstance(part, (Const, TypeIs)):
            parts.append(str(part))
    return " & ".join(parts)


def _label(*lines: str) -> str:
    return '"' + "<br/>".join(_escaped(_short(line)) for line in lines) + '"'


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _escaped(text: str) -> str:
    return "".join(c if c.isalnum() or c in _PLAIN else f"#{ord(c)};" for c in text)
