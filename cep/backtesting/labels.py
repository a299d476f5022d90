"""Labels: when something happened that rules should have found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from cep.clock import duration_ns, format_duration
from cep.errors import UsageError, near_miss, shown
from cep.frames.from_frame import as_polars

if TYPE_CHECKING:
    from datetime import timedelta

    from numpy.typing import NDArray

    Tolerance = str | timedelta | tuple[str | timedelta, str | timedelta]

_COLUMNS: Final = ("start", "end", "event_time", "key", "rule")
_FORMS: Final = (
    "Give windows as columns start and end, or points as event_time; key and rule "
    "where a label is of one key or rule only."
)


@dataclass(frozen=True, slots=True)
class Labels:
    """Windows of time in which an alert is right, n of them.

    Attributes
    ----------
    start_ns, end_ns
        ``(n,)``: the windows, both ends included.
    moment_ns
        ``(n,)``: the moment that a label is about, from which lead is counted; the
        end of a window that says none.
    keys
        Of each the key that an alert must have, None for any.
    rules
        Of each the rule that it is for, None for any.
    """

    start_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    moment_ns: NDArray[np.int64]
    keys: list[str | None]
    rules: list[str | None]

    def __len__(self) -> int:
        return len(self.start_ns)

    def take(self, which: NDArray[np.bool_]) -> Labels:
        """Return the labels at the places of a mask of shape ``(n,)``."""
        places = np.flatnonzero(which).tolist()
        return Labels(
            self.start_ns[which],
            self.end_ns[which],
            self.moment_ns[which],
            [self.keys[i] for i in places],
            [self.rules[i] for i in places],
        )

    def of_rule(self, rule: str) -> Labels:
        """Return the labels that count for a rule."""
        return self.take(np.array([x in (None, rule) for x in self.rules], np.bool_))


def labels_of(given: Any, tolerance: Tolerance | None = None) -> Labels:
    """Return labels from a frame, or from a list of times or of windows.

    Parameters
    ----------
    given
        A frame of polars, pandas or Arrow. Windows have the columns ``start`` and
        ``end`` (both included) and, where the label is about a moment in it,
        ``event_time``; points only have ``event_time``. ``key`` says which key an
        alert must have (as `cep.run_rules` writes it, parts of several fields joined
        by ``/``), ``rule`` which rule is meant; null or no such column: any.
        Or a list of datetimes, or of pairs of them.
    tolerance
        How far from a point an alert may be, such as ``"5m"``, or a pair: how long
        before it, how long after. Points need one, windows take none.

    Raises
    ------
    UsageError
        If a column is missing or no time, a window ends before it starts, or there is
        no label.

    >>> from datetime import UTC, datetime
    >>> labels = labels_of([datetime(2026, 1, 5, 9, 30, tzinfo=UTC)], "5m")
    >>> int(labels.end_ns[0] - labels.start_ns[0]) // 10**9
    600
    """
    table = _table(given)
    for name in table.columns:
        if name not in _COLUMNS:
            near = near_miss(name, _COLUMNS)
            meant = f"Did you mean {near[0]!r}? " if near else ""
            raise UsageError(f"Labels have no column {name!r}.", meant + _FORMS)
    windows = "start" in table.columns or "end" in table.columns
    needed = ("start", "end") if windows else ("event_time",)
    if not len(table) or not set(needed) <= set(table.columns):
        what = "There are no labels." if not len(table) else "Labels say no time."
        raise UsageError(what, _FORMS)
    if windows and tolerance is not None:
        raise UsageError(
            f"tolerance is {shown(tolerance)}, but the labels are windows.",
            "Leave it out, or widen start and end.",
        )
    if windows:
        start, end = _times(table, "start"), _times(table, "end")
        moment = _times(table, "event_time") if "event_time" in table.columns else end
    else:
        before, after = _tolerances(tolerance)
        moment = _times(table, "event_time")
        start, end = moment - before, moment + after
    wrong = np.flatnonzero(end < start)
    if wrong.size:
        raise UsageError(
            f"Label {wrong[0]} ends before it starts.", "Exchange start and end."
        )
    none = pl.lit(None, pl.String)
    texts = table.select(
        (pl.col(name).cast(pl.String) if name in table.columns else none).alias(name)
        for name in ("key", "rule")
    )
    n = len(table)
    keys, rules = (texts[name].to_list() for name in ("key", "rule"))
    # A frame of literals only has one row.
    return Labels(start, end, moment, (keys * n)[:n], (rules * n)[:n])


def _table(given: Any) -> pl.DataFrame:
    if not isinstance(given, Sequence):
        return as_polars(given)
    rows = list(given)
    try:
        if rows and all(isinstance(row, tuple) and len(row) == 2 for row in rows):
            return pl.DataFrame(
                {"start": [a for a, _ in rows], "end": [b for _, b in rows]}
            )
        return pl.DataFrame({"event_time": rows})
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise UsageError(f"{shown(given)} are no labels: {error}", _FORMS) from None


def _times(table: pl.DataFrame, name: str) -> NDArray[np.int64]:
    column = table[name]
    if not isinstance(column.dtype, pl.Datetime) or column.null_count():
        raise UsageError(
            f"{name} of the labels is of type {column.dtype}"
            f"{', with nulls' if column.null_count() else ''}.",
            "Give a time in each row; without a zone it is taken for UTC.",
        )
    return column.dt.epoch("ns").to_numpy().astype(np.int64)


def _tolerances(given: Tolerance | None) -> tuple[int, int]:
    if given is None:
        raise UsageError(
            "The labels are points, and nothing says how near an alert must be.",
            'Pass tolerance="5m", or ("5m", "1m") for before and after.',
        )
    pair = given if isinstance(given, tuple) else (given, given)
    if len(pair) != 2:
        raise UsageError(f"tolerance is {shown(given)}.", 'Give a pair: ("5m", "1m").')
    before, after = (duration_ns(x, allow_zero=True) for x in pair)
    return before, after


def described(labels: Labels) -> str:
    """Return how many labels there are and how long, for people."""
    longest = int((labels.end_ns - labels.start_ns).max(initial=0))
    return f"{len(labels)} labels of up to {format_duration(longest)}"
