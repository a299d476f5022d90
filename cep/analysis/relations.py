"""An overview: which of several streams have to do with each other, if any.

Every pair is asked one question that fits what it is, and all answers are
corrected for how many there are:

==================  =============================  ==========================
the two             question                       by
==================  =============================  ==========================
series, series      which moves first              `lead_lag`
events, events      which comes first              `rate_correlation`
events, series      does it move after, or before  `event_study`
==================  =============================  ==========================
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import polars as pl

from cep.analysis import figures
from cep.analysis.event_study import EventStudy, event_study
from cep.analysis.event_times import EventTimes
from cep.analysis.inference import enough_draws, q_values
from cep.analysis.lag_curve import LEVEL, LagCurve, signed
from cep.analysis.lead_lag import lead_lag
from cep.analysis.rates import rate_correlation
from cep.analysis.result import Result
from cep.clock import duration_ns, format_duration
from cep.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

    import plotly.graph_objects as go

    from cep.analysis.grid import Stream

Found: TypeAlias = LagCurve | EventStudy

_STEPS = 50


@dataclass(frozen=True, slots=True)
class Relation:
    """The answer for one pair, or for one direction of it.

    Attributes
    ----------
    x, y
        Names; a lag above 0 says that ``x`` comes first.
    method
        ``"lead-lag"``, ``"rates"``, ``"study, after"`` or ``"study, before"``.
    lag_ns, lag_low_ns, lag_high_ns
        Where the two are most alike, with a 95 % interval; NaN for studies.
    size
        The correlation there; of a study the path at its clearest.
    p_value, q_value
        Of no relation; and corrected for all the answers of the overview. NaN
        if the pair could not be tested.
    statement
        What may be said, going by ``q_value``.
    result
        All of what was found; None if the pair could not be tested.
    """

    x: str
    y: str
    method: str
    lag_ns: float
    lag_low_ns: float
    lag_high_ns: float
    size: float
    p_value: float
    q_value: float
    statement: str
    result: Found | None


@dataclass(frozen=True, slots=True, repr=False)
class Relations(Result):
    """What `relations` found: a row for each question, in the order of the pairs."""

    rows: tuple[Relation, ...]
    max_lag_ns: int

    def to_polars(self) -> pl.DataFrame:
        """Return a row for each question; lags are durations."""
        lags = {
            name: pl.Series([getattr(row, f"{name}_ns") for row in self.rows])
            .cast(pl.Float64)
            .fill_nan(None)
            .round()
            .cast(pl.Int64)
            .cast(pl.Duration("ns"))
            for name in ("lag", "lag_low", "lag_high")
        }
        texts = ("x", "y", "method")
        numbers = ("size", "p_value", "q_value")
        return pl.DataFrame(
            {
                **{name: [getattr(row, name) for row in self.rows] for name in texts},
                **lags,
                **{
                    name: pl.Series(
                        [getattr(row, name) for row in self.rows], dtype=pl.Float64
                    ).fill_nan(None)
                    for name in numbers
                },
                "statement": [row.statement for row in self.rows],
            }
        )

    def plot(self) -> go.Figure:
        """Return the correlations of all pairs as coloured cells, with lag and q."""
        names = list(
            dict.fromkeys(name for row in self.rows for name in (row.x, row.y))
        )
        size = np.full((len(names), len(names)), np.nan)
        texts = np.full(size.shape, "", object)
        for row in self.rows:
            at, to = names.index(row.x), names.index(row.y)
            if row.method == "study, before":
                at, to = to, at
            texts[at, to] = f"q {row.q_value:.2g}"
            if isinstance(row.result, LagCurve):
                size[at, to] = size[to, at] = row.size
                texts[at, to] += f"<br>{signed(int(row.lag_ns))}"
        return figures.heatmap(
            names,
            names,
            size,
            title="Relations",
            said=str(self).partition("\n")[0],
            x_title="second",
            y_title="first, at a lag above 0",
            unit="correlation",
            texts=texts,
        )

    def __str__(self) -> str:
        related = [row for row in self.rows if row.q_value < LEVEL]
        failed = [row for row in self.rows if row.result is None]
        asked = len(self.rows) - len(failed)
        reach = format_duration(self.max_lag_ns)
        of = f"{len(related)} of {asked} questions show a relation (q < {LEVEL})"
        said = [f"{of}, lags up to {reach}"]
        said += [f"  {row.statement} (q = {row.q_value:.3g})" for row in related]
        said += [f"  {row.x}, {row.y}: not tested. {row.statement}" for row in failed]
        if not related:
            said.append(
                "  that is no proof that there is none: it may be slower than what "
                "was looked at, or too weak for so much data"
            )
        return "\n".join(said)


def relations(
    streams: Iterable[Stream],
    *,
    max_lag: str | timedelta = "5s",
    step: str | timedelta | None = None,
    shape: str | timedelta | None = None,
    draws: int | None = None,
    seed: int = 0,
) -> Relations:
    """Return for each pair of streams whether one has to do with the other.

    Parameters
    ----------
    streams
        Two or more, `Series` or `EventTimes`, of different names.
    max_lag, step
        Lags up to this one, by a fiftieth of it if ``step`` is None.
    shape
        For events, what is slower is no relation; see `rate_correlation`.
    draws, seed
        As in `lead_lag`; as many as let one relation among all rows be seen, at
        least 999, if ``draws`` is None.

    Returns
    -------
    A row for each pair, two (after and before) for events and a series. Statements
    go by q-values over all rows, so that looking at many pairs does not make
    relations. A pair with too little data has a row that says so.

    Raises
    ------
    UsageError
        If there are fewer than two streams, or two have one name.
    """
    given = list(streams)
    names = [stream.name for stream in given]
    if len(given) < 2 or len(set(names)) < len(names):
        raise UsageError(
            f"{len(given)} streams named {', '.join(names) or 'nothing'}: a relation "
            "wants two or more, each with a name of its own.",
            "Name them with name=... of series() and event_times().",
        )
    max_ns = duration_ns(max_lag)
    step_ns = max(1, max_ns // _STEPS) if step is None else duration_ns(step)
    reach, cell = f"{max_ns}ns", f"{step_ns}ns"
    pairs = list(combinations(given, 2))
    draws = enough_draws(2 * len(pairs)) if draws is None else draws
    rows: list[Relation] = []
    for x, y in pairs:
        rows += _asked(x, y, reach, cell, shape, draws, seed)
    adjusted = q_values([row.p_value for row in rows])
    return Relations(
        tuple(_judged(row, float(q)) for row, q in zip(rows, adjusted, strict=True)),
        max_ns,
    )


def _asked(
    x: Stream,
    y: Stream,
    reach: str,
    step: str,
    shape: str | timedelta | None,
    draws: int,
    seed: int,
) -> list[Relation]:
    try:
        if isinstance(x, EventTimes) and isinstance(y, EventTimes):
            curve: LagCurve = rate_correlation(
                x, y, max_lag=reach, step=step, shape=shape, draws=draws, seed=seed
            )
            return [_of_curve("rates", curve)]
        if not isinstance(x, EventTimes) and not isinstance(y, EventTimes):
            curve = lead_lag(x, y, max_lag=reach, step=step, draws=draws, seed=seed)
            return [_of_curve("lead-lag", curve)]
        events, series = (x, y) if isinstance(x, EventTimes) else (y, x)
        assert isinstance(events, EventTimes)
        study = event_study(
            events,
            series,
            before=reach,
            after=reach,
            step=step,
            shape=shape,
            draws=draws,
            seed=seed,
        )
        return [_of_study(study, after=after) for after in (True, False)]
    except UsageError as error:
        unknown = (math.nan,) * 6
        return [Relation(x.name, y.name, "not tested", *unknown, str(error), None)]


def _of_curve(method: str, found: LagCurve) -> Relation:
    lag = found.best_lag_ns
    numbers = (lag.value, lag.low, lag.high, found.rho_best, found.p_value, math.nan)
    return Relation(found.x, found.y, method, *numbers, "", found)


def _of_study(found: EventStudy, *, after: bool) -> Relation:
    side = found.offsets_ns > 0 if after else found.offsets_ns < 0
    path = found.path[side]
    size = float(path[int(np.argmax(np.abs(path)))])
    p_value = found.p_after if after else found.p_before
    method = "study, after" if after else "study, before"
    unknown = (math.nan,) * 3
    return Relation(
        found.events, found.y, method, *unknown, size, p_value, math.nan, "", found
    )


def _judged(row: Relation, q_value: float) -> Relation:
    """Return a row with its q-value and what may be said by it."""
    if row.result is None:
        return row
    related = q_value < LEVEL
    if row.method == "study, before":
        often = "has moved" if related else "has not moved"
        said = f"{row.y} {often} before {row.x} more than at any time"
    else:
        said = row.result.statement(related=related)
    return replace(row, q_value=q_value, statement=said)
