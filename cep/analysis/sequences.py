"""Which types of events follow which, which come together, and which runs repeat.

====================  ========================================================
`follows`             of each pair of types, how often one follows the other
                      within a time, beside streams that have their own rhythm
`co_occurrence`       of each pair of types, in how many groups (requests,
                      users, sessions) both are, beside independent types
`frequent_sequences`  runs of types that groups go through
====================  ========================================================

Lift is how many times as often as expected; 1 is chance. Each table carries
p-values and, over all its rows, q-values.

Sources: lift, S. Brin, R. Motwani, J. D. Ullman, S. Tsur, "Dynamic Itemset
Counting and Implication Rules for Market Basket Data", SIGMOD 1997 (there
"interest"); sequences and their support, R. Agrawal, R. Srikant, "Mining
Sequential Patterns", ICDE 1995.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from cep.analysis import figures
from cep.analysis.coincidence import event_coincidence
from cep.analysis.columns import checked_columns, time_column_ns
from cep.analysis.event_times import EventTimes
from cep.analysis.extras import stats_library
from cep.analysis.grid import MIN_EVENTS
from cep.analysis.inference import enough_draws, q_values
from cep.analysis.lag_curve import LEVEL
from cep.analysis.result import Result
from cep.clock import duration_ns, format_duration
from cep.errors import UsageError
from cep.frames.from_frame import as_polars

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    import plotly.graph_objects as go
    from numpy.typing import NDArray

MAX_TYPES: Final = 40
_DRAWN: Final = 25
_MAX_LENGTH: Final = 10
_MOST_RUNS: Final = 2**62


@dataclass(frozen=True, slots=True, repr=False)
class TypePairs(Result):
    """What `follows` and `co_occurrence` found: a row for each pair of types.

    Attributes
    ----------
    table
        ``first``, ``second``, ``count``, ``of``, ``expected``, ``lift``,
        ``p_value``, ``q_value``, by q-value.
    question
        What was counted, in words.
    left_out
        Types of too few events to say anything.
    """

    table: pl.DataFrame
    question: str
    left_out: tuple[str, ...]

    def to_polars(self) -> pl.DataFrame:
        """Return ``table``."""
        return self.table

    def plot(self) -> go.Figure:
        """Return lifts as coloured cells, each with its number; stars for q < 0.05."""
        rows = sorted(self.table["first"].unique().to_list())
        columns = sorted(self.table["second"].unique().to_list())
        lifts = np.full((len(rows), len(columns)), np.nan)
        texts = np.full(lifts.shape, "", object)
        for row in self.table.iter_rows(named=True):
            at = rows.index(row["first"]), columns.index(row["second"])
            lifts[at] = row["lift"]
            star = " *" if row["q_value"] < LEVEL else ""
            texts[at] = f"{row['lift']:.2f}{star}"
        return figures.heatmap(
            columns,
            rows,
            lifts,
            title="Lift of pairs of types",
            said=f"{self.question}; * where q < {LEVEL}",
            x_title="second",
            y_title="first",
            unit="lift",
            texts=texts,
            middle=1.0,
        )

    def __str__(self) -> str:
        related = self.table.filter(pl.col("q_value") < LEVEL)
        of = f"{len(related)} of {len(self.table)} pairs of types"
        said = [f"{of} differ from chance (q < {LEVEL}): {self.question}"]
        said += [
            f"  {row['first']} -> {row['second']}: {row['count']:,} of {row['of']:,}, "
            f"{row['lift']:.2f} times as often as by chance (q = {row['q_value']:.3g})"
            for row in related.head(10).iter_rows(named=True)
        ]
        if self.left_out:
            said.append(f"  too few events: {', '.join(self.left_out)}")
        return "\n".join(said)


@dataclass(frozen=True, slots=True, repr=False)
class Sequences(Result):
    """What `frequent_sequences` found.

    Attributes
    ----------
    table
        ``sequence`` (a list of types), ``count`` (how often it stands in all
        groups), ``groups`` (in how many), ``support`` (their share),
        ``expected``, ``lift``, ``p_value``, ``q_value``; by support and length.
    groups
        How many groups there are.
    """

    table: pl.DataFrame
    groups: int

    def to_polars(self) -> pl.DataFrame:
        """Return ``table`` with each sequence as one text."""
        return self.table.with_columns(pl.col("sequence").list.join(" > "))

    def plot(self) -> go.Figure:
        """Return the support of the most frequent sequences."""
        drawn = self.to_polars().head(_DRAWN)
        return figures.bars(
            drawn["sequence"].to_list(),
            {"support": drawn["support"].to_numpy()},
            title="Frequent sequences of types",
            said=f"The {len(drawn)} most frequent of {len(self.table)}, in "
            f"{self.groups:,} groups",
            x_title="Share of the groups",
        )

    def __str__(self) -> str:
        said = [f"{len(self.table)} sequences in {self.groups:,} groups"]
        said += [
            f"  {row['sequence']}: in {row['support']:.1%}, {row['count']:,} times, "
            f"lift {row['lift']:.2f} (q = {row['q_value']:.3g})"
            for row in self.to_polars().head(10).iter_rows(named=True)
        ]
        return "\n".join(said)


def follows(
    frame: Any,
    *,
    within: str | timedelta = "5s",
    column: str = "type",
    time: str = "event_time",
    shape: str | timedelta | None = None,
    draws: int | None = None,
    seed: int = 0,
) -> TypePairs:
    """Return of each two types how often the second follows the first.

    Parameters
    ----------
    frame
        polars, pandas or Arrow, in any order, of one stream or several.
    within
        How much later at most; events of one instant follow each other.
    column, time
        The columns of types and of times. Rows without either are passed over.
    shape, draws, seed
        As in `event_coincidence`, whose trigger rate and p-value each row is; as
        many draws as let one relation among all pairs be seen if None.

    Returns
    -------
    A row for each ordered pair of different types: ``count`` of the ``of``
    events of the first type have one of the second within the time.

    Raises
    ------
    UsageError
        If fewer than two types have twenty events, or more than forty do.
    """
    times = _times_by_type(frame, column, time)
    kept, left_out = _frequent({name: len(at) for name, at in times.items()})
    if draws is None:
        draws = enough_draws(len(kept) * (len(kept) - 1))
    rows = []
    for first, second in product(kept, kept):
        if first == second:
            continue
        x, y = (EventTimes(name, times[name]) for name in (first, second))
        try:
            rate = event_coincidence(
                x, y, window=within, shape=shape, draws=draws, seed=seed
            ).trigger
        except UsageError:
            # Two types that share too little time say nothing of each other.
            continue
        rows.append(
            (first, second, rate.count, rate.of, rate.expected, rate.lift, rate.p_value)
        )
    within_text = format_duration(duration_ns(within))
    return TypePairs(_ranked(rows), f"second within {within_text} of first", left_out)


def co_occurrence(
    frame: Any,
    *,
    by: str = "correlation_id",
    column: str = "type",
) -> TypePairs:
    """Return of each two types in how many groups both are.

    Parameters
    ----------
    frame
        polars, pandas or Arrow.
    by
        The column whose equal values make a group: a request, a user, a session.
        The groups must have nothing to do with each other. Null and "" are none.
    column
        The column of types.

    Returns
    -------
    A row for each unordered pair: ``count`` of the ``of`` groups have both. The
    p-value is two-sided, of Fisher's exact test.

    Notes
    -----
    A group without any event is not in the frame. If many groups are left out so,
    types seem to avoid each other; keep an event that every group has.

    Raises
    ------
    UsageError
        If fewer than two types are in twenty groups, or more than forty are.
    MissingExtraError
        If scipy is not installed.
    """
    rows = as_polars(frame)
    checked_columns(rows, (by, column))
    member = (
        rows.select(
            group=pl.col(by).cast(pl.String), type=pl.col(column).cast(pl.String)
        )
        .drop_nulls()
        .filter(pl.col("group") != "")
        .unique(maintain_order=True)
    )
    of = member["group"].n_unique()
    groups = {
        str(name): set(part["group"].to_list())
        for (name,), part in member.group_by("type", maintain_order=True)
    }
    kept, left_out = _frequent({name: len(ids) for name, ids in groups.items()})
    exact = stats_library("scipy.stats").fisher_exact
    found = []
    for first, second in combinations(kept, 2):
        a, b = len(groups[first]), len(groups[second])
        both = len(groups[first] & groups[second])
        expected = a * b / of
        p = exact([[both, a - both], [b - both, of - a - b + both]]).pvalue
        found.append((first, second, both, of, expected, both / expected, float(p)))
    return TypePairs(_ranked(found), f"both in one {by}", left_out)


def frequent_sequences(
    frame: Any,
    *,
    by: str = "correlation_id",
    column: str = "type",
    time: str = "event_time",
    length: int = 3,
    min_support: float = 0.05,
    draws: int = 199,
    seed: int = 0,
) -> Sequences:
    """Return the runs of types that many groups go through.

    Parameters
    ----------
    frame
        polars, pandas or Arrow, in any order; events of one instant count in the
        order in which they stand.
    by, column, time
        The columns of groups (null and "" are none), of types and of times.
    length
        The longest run; runs are of two types or more, one right after another.
    min_support
        The least share of groups that a run must stand in.
    draws, seed
        Of orders: what is expected, and the p-value, come from putting the
        events of every group into a random order, which keeps what each group
        holds. One-sided, for more often.

    Raises
    ------
    UsageError
        If the length is not 2 to 10, or there is no group.
    """
    if not 2 <= length <= _MAX_LENGTH:
        raise UsageError(
            f"A length of {length} is none.", f"Take one from 2 to {_MAX_LENGTH}."
        )
    codes, starts, names = _ordered(frame, by, column, time)
    if len(names) ** length > _MOST_RUNS:
        raise UsageError(
            f"{len(names)} types make too many sequences of {length}.",
            "Filter the frame first, or look at shorter ones.",
        )
    groups = len(starts) - 1
    of_group = np.repeat(np.arange(groups), np.diff(starts))
    rng = np.random.default_rng(seed)
    mixed = [
        codes[np.lexsort((rng.random(len(codes)), of_group))] for _ in range(draws)
    ]
    rows: list[tuple[Any, ...]] = []
    for n in range(2, length + 1):
        run, group = _runs(codes, of_group, n, len(names))
        held = np.unique(np.column_stack([run, group]), axis=0)[:, 0]
        kept, support = np.unique(held, return_counts=True)
        enough = support >= min_support * groups
        kept, support = kept[enough], support[enough]
        count = _counted(run, kept)
        drawn = np.array(
            [_counted(_runs(one, of_group, n, len(names))[0], kept) for one in mixed]
        )
        expected = drawn.mean(axis=0)
        p = (1 + (drawn >= count).sum(axis=0)) / (draws + 1)
        for k, code in enumerate(kept.tolist()):
            sequence = [names[i] for i in _decoded(code, n, len(names))]
            lift = count[k] / expected[k] if expected[k] else float("inf")
            share = support[k] / groups
            rows.append(
                (sequence, count[k], support[k], share, expected[k], lift, p[k])
            )
    return Sequences(_with_q(rows), groups)


def _counted(run: NDArray[np.int64], kept: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how often each of ``kept``, which rise, stands in ``run``."""
    known = run[np.isin(run, kept)]
    return np.bincount(np.searchsorted(kept, known), minlength=len(kept))


def _ordered(
    frame: Any, by: str, column: str, time: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str]]:
    """Return types as codes by group and time, where groups begin, and the names."""
    rows = as_polars(frame)
    checked_columns(rows, (by, column, time))
    table = (
        pl.DataFrame(
            {
                "group": rows[by].cast(pl.String),
                "type": rows[column].cast(pl.String),
                "ns": time_column_ns(rows, time),
            }
        )
        .drop_nulls()
        .filter(pl.col("group") != "")
        .sort("group", "ns", maintain_order=True)
    )
    if not len(table):
        raise UsageError(
            f"No row has a {by}, a {column} and a time.", "Name the column with by=..."
        )
    names = sorted(table["type"].unique().to_list())
    lengths = table.group_by("group", maintain_order=True).len()["len"].to_numpy()
    codes = np.searchsorted(np.array(names, object), table["type"].to_numpy())
    starts = np.concatenate([[0], np.cumsum(lengths.astype(np.int64))])
    return codes.astype(np.int64), starts, names


def _runs(
    codes: NDArray[np.int64], of_group: NDArray[np.int64], n: int, base: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a number for each run of ``n`` events of one group, and its group."""
    last = max(0, len(codes) - n + 1)
    run = np.zeros(last, np.int64)
    for k in range(n):
        run = run * base + codes[k : k + last]
    inside = of_group[:last] == of_group[len(codes) - last :]
    return run[inside], of_group[:last][inside]


def _decoded(code: int, n: int, base: int) -> list[int]:
    digits = []
    for _ in range(n):
        code, digit = divmod(code, base)
        digits.append(digit)
    return digits[::-1]


def _times_by_type(frame: Any, column: str, time: str) -> dict[str, NDArray[np.int64]]:
    rows = as_polars(frame)
    checked_columns(rows, (column, time))
    table = pl.DataFrame(
        {"type": rows[column].cast(pl.String), "ns": time_column_ns(rows, time)}
    )
    return {
        str(name): part["ns"].to_numpy()
        for (name,), part in table.drop_nulls().sort("ns").group_by("type")
    }


def _frequent(counts: dict[str, int]) -> tuple[list[str], tuple[str, ...]]:
    """Return the types that are frequent enough, and the others, by name."""
    kept = sorted(name for name, n in counts.items() if n >= MIN_EVENTS)
    if not 2 <= len(kept) <= MAX_TYPES:
        raise UsageError(
            f"{len(kept)} types are there {MIN_EVENTS} times or more.",
            f"Load or filter so that 2 to {MAX_TYPES} are.",
        )
    return kept, tuple(sorted(counts.keys() - set(kept)))


def _ranked(rows: Sequence[tuple[Any, ...]]) -> pl.DataFrame:
    names = ("first", "second", "count", "of", "expected", "lift", "p_value")
    table = _table(rows, names, {"first": pl.String, "second": pl.String})
    return table.sort("q_value", "first", "second")


def _with_q(rows: Sequence[tuple[Any, ...]]) -> pl.DataFrame:
    names = ("sequence", "count", "groups", "support", "expected", "lift", "p_value")
    table = _table(rows, names, {"sequence": pl.List(pl.String)})
    by = [pl.col("support"), pl.col("sequence").list.len()]
    return table.sort(by, descending=True, maintain_order=True)


def _table(
    rows: Sequence[tuple[Any, ...]], names: Sequence[str], texts: dict[str, Any]
) -> pl.DataFrame:
    """Return rows with their q-values; what is neither text nor count is a float."""
    kinds = dict.fromkeys(("count", "of", "groups"), pl.Int64)
    columns = {
        name: pl.Series(
            name, [row[k] for row in rows], {**kinds, **texts}.get(name, pl.Float64)
        )
        for k, name in enumerate(names)
    }
    table = pl.DataFrame(columns)
    return table.with_columns(q_value=q_values(table["p_value"].to_numpy()))
