"""One rule with many settings: which is best, and what choosing it is worth.

The best of many settings is best partly by luck. So a sweep says how good the best of
as many random alerts would have been, and `Sweep.walk_forward` what comes of settings
that are always chosen on the past alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from cep.analysis.result import Result
from cep.backtesting.labels import Labels, labels_of
from cep.backtesting.record import keys_of, matches_of, span_of
from cep.backtesting.run import MOST, History, check_count, run_over
from cep.backtesting.score import NS_PER_MS, Alerts, Score, Span, score
from cep.errors import UsageError, near_miss, shown
from cep.events.timestamps import format_timestamp
from cep.rules.rule import Rule

if TYPE_CHECKING:
    from datetime import timedelta

    import plotly.graph_objects as go

    from cep.backtesting.labels import Tolerance

METRICS: Final = ("f1", "precision", "recall")
DRAWS: Final = 199
MOST_SETTINGS: Final = 1000
_AT_ONCE: Final = 16  # rules that run together, sharing what they read


@dataclass(frozen=True, slots=True, repr=False)
class Sweep(Result):
    """What `sweep` found.

    Attributes
    ----------
    settings, scores
        Of each setting its parameters by name, and its `Score`.
    metric
        What "best" means.
    p_value
        Of the best setting's F1: the share of draws in which the best of as many
        random alerts, setting by setting, was as good.
    """

    settings: list[dict[str, Any]]
    scores: list[Score]
    metric: str
    p_value: float
    _alerts: list[Alerts] = field(default_factory=list)
    _labels: Labels | None = None
    _span: Span = field(default_factory=lambda: Span(0, 0))
    _seed: int = 0

    @property
    def best(self) -> int:
        """The place of the best setting; of equal ones the first."""
        return _best(self.scores, self.metric)

    def to_polars(self) -> pl.DataFrame:
        """Return a row for each setting: parameters, then scores, as `score_table`."""
        rows = [
            {name: _cell(value) for name, value in setting.items()}
            | {k: v for k, v in one.row().items() if k not in setting}
            for setting, one in zip(self.settings, self.scores, strict=True)
        ]
        return pl.DataFrame(rows, infer_schema_length=None)

    def plot(self, x: str | None = None, y: str | None = None) -> go.Figure:
        """Return the metric over two parameters (the first two unless said).

        Of several settings in a cell the best is shown.
        """
        from cep.backtesting.figures import heatmap

        names = list(self.settings[0])
        for name in (x, y):
            if name is not None and name not in names:
                raise UsageError(
                    f"There is no parameter {name!r}.", f"There are {', '.join(names)}."
                )
        x = x or next(name for name in names if name != y)
        y = y or next((name for name in names if name != x), None)
        return heatmap(self.to_polars(), x, y, self.metric, self._note())

    def _note(self) -> str:
        n = len(self.settings)
        return (
            f"the best of {n} settings; by chance alone the best of as many random "
            f"alerts is as good with p = {self.p_value:.2g}"
        )

    def __str__(self) -> str:
        best = self.best
        warning = (
            f"{self._note()}. Its score is of data that it was chosen on: expect less "
            "of data to come, and see walk_forward()."
        )
        first = f"best by {self.metric}: {_shown(self.settings[best])}"
        return "\n".join([first, str(self.scores[best]), warning])

    def walk_forward(self, folds: int = 4) -> WalkForward:
        """Choose on the past, score on what comes next, and go on.

        The span is cut into ``folds + 1`` equal parts. For each part but the first the
        setting is chosen that is best on all parts before it, by labels that have ended
        there, and its alerts in the part are kept. Rules run through all of history, as
        live, so a cooldown or a window may reach back before the part.

        Raises
        ------
        UsageError
            If there are fewer than two folds, or the first part has no label.
        """
        if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
            raise UsageError(f"folds is {shown(folds)}.", "Pass a whole number from 2.")
        assert self._labels is not None
        span, labels = self._span, self._labels
        length = span.end_ns - span.start_ns
        cuts = [span.start_ns + length * i // (folds + 1) for i in range(folds + 1)]
        cuts.append(span.end_ns + 1)
        rows, kept = [], []
        for cut, end in pairwise(cuts[1:]):
            past = labels.take((labels.end_ns < cut) & (labels.start_ns >= cuts[0]))
            if not len(past):
                raise UsageError(
                    f"No label ends before {_at(cut)}, where the first part ends.",
                    "Take fewer folds, or more history.",
                )
            ahead = labels.take((labels.start_ns >= cut) & (labels.start_ns < end))
            trained = self._scores(past, cuts[0], cut)
            chosen = _best(trained, self.metric)
            tested = self._score(chosen, ahead, cut, end)
            kept.append(self._alerts[chosen].between(cut, end))
            rows.append(
                {
                    "until": _at(cut),
                    "to": _at(end - 1),
                    **{k: _cell(v) for k, v in self.settings[chosen].items()},
                    f"past_{self.metric}": _value(trained[chosen], self.metric),
                    f"next_{self.metric}": _value(tested, self.metric),
                    "labels": tested.labels,
                    "found": tested.found,
                    "alerts": tested.alerts,
                    "true_alerts": tested.true_alerts,
                }
            )
        together = Alerts(
            np.concatenate([one.time_ns for one in kept]),
            [key for one in kept for key in one.keys],
        )
        ahead = labels.take(labels.start_ns >= cuts[1])
        whole = score(
            self.scores[0].rule,
            together,
            ahead,
            Span(cuts[1], span.end_ns, span.keys),
            draws=DRAWS,
            seed=self._seed,
        )
        return WalkForward(
            pl.DataFrame(rows, infer_schema_length=None), whole, self.metric
        )

    def _scores(self, labels: Labels, start_ns: int, end_ns: int) -> list[Score]:
        places = range(len(self.settings))
        return [self._score(i, labels, start_ns, end_ns) for i in places]

    def _score(self, place: int, labels: Labels, start_ns: int, end_ns: int) -> Score:
        return score(
            self.scores[place].rule,
            self._alerts[place].between(start_ns, end_ns),
            labels,
            Span(start_ns, end_ns, self._span.keys),
            draws=1,
            seed=self._seed,
        )


@dataclass(frozen=True, slots=True, repr=False)
class WalkForward(Result):
    """What comes of settings chosen on the past alone.

    Attributes
    ----------
    folds
        A row for each: until when the past went and to when the test, the setting
        chosen, the metric on the past and on what came next.
    score
        Of all alerts of the tests together.
    """

    folds: pl.DataFrame
    score: Score
    metric: str

    def to_polars(self) -> pl.DataFrame:
        """Return ``folds``."""
        return self.folds

    def plot(self) -> go.Figure:
        """Return the metric on the past and on what came next, fold by fold."""
        from cep.backtesting.figures import past_and_next

        return past_and_next(self.folds, self.metric)

    def __str__(self) -> str:
        lines = [f"settings chosen on the past, tested on what came next: {self.score}"]
        lines += [
            f"until {row['until']}: {self.metric} {row[f'past_{self.metric}']:.2f}, "
            f"then {row[f'next_{self.metric}']:.2f} "
            f"({row['found']} of {row['labels']} labels, {row['alerts']} alerts)"
            for row in self.folds.iter_rows(named=True)
        ]
        return "\n".join(lines)


def sweep(
    factory: Callable[..., Rule],
    grid: Mapping[str, Sequence[Any]],
    data: Any,
    labels: Any,
    *,
    metric: str = "f1",
    tolerance: Tolerance | None = None,
    max_out_of_orderness: str | timedelta = "1s",
    most: int = MOST,
    draws: int = DRAWS,
    seed: int = 0,
) -> Sweep:
    """Score a rule with all combinations of parameters.

    Parameters
    ----------
    factory
        Takes the parameters by name and returns a rule.
    grid
        Of each parameter the values to try; at most 1,000 combinations.
    data, labels, tolerance, max_out_of_orderness, most, seed
        As for `cep.backtest`.
    metric
        What "best" means: ``f1``, ``precision`` or ``recall``.
    draws
        Of random alerts, for each setting.

    Raises
    ------
    UsageError
        If the grid is empty or too large, or the factory makes no rule.

    Examples
    --------
    >>> from cep.backtesting import sweep
    >>> from cep.sample import mentions
    >>> grid = {"sigmas": [4, 6], "window": ["3d", "7d"]}
    >>> found = sweep(mentions.surge, grid, mentions.history(), mentions.labels())
    >>> found.settings[found.best]
    {'sigmas': 6, 'window': '7d'}
    """
    check_count("most", most)
    if metric not in METRICS:
        near = near_miss(str(metric), METRICS)
        raise UsageError(
            f"There is no metric {shown(metric)}.",
            f"Did you mean {near[0]!r}?" if near else f"Use {', '.join(METRICS)}.",
        )
    settings = _settings(grid)
    rules = []
    for place, setting in enumerate(settings):
        made = factory(**setting)
        if not isinstance(made, Rule):
            raise UsageError(
                f"The factory made {shown(made)}, which is no rule.",
                "Return the function that @rule(...) decorates.",
            )
        # They run side by side, so each needs a name of its own.
        rules.append(replace(made, name=f"{made.name}.{place}"))
    name = rules[0].name.rpartition(".")[0]
    wanted = labels_of(labels, tolerance).of_rule(name)
    history = History.of(rules, data)
    streams = history.streams(None, max_out_of_orderness)
    alerts = []
    for at in range(0, len(rules), _AT_ONCE):
        some = rules[at : at + _AT_ONCE]
        run = run_over(some, history, streams, history.edges(None), most=most)
        alerts += [matches_of(run, rule.name) for rule in some]
    history.warn_unsorted(run, stacklevel=2)
    start_ns, end_ns = span_of(history)
    span = Span(start_ns, end_ns, keys_of(rules[0], history))
    scores = [
        score(name, one, wanted, span, draws=draws, seed=seed + place)
        for place, one in enumerate(alerts)
    ]
    return Sweep(
        settings,
        scores,
        metric,
        _p_value(scores),
        alerts,
        wanted,
        span,
        seed,
    )


def _settings(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    for name, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise UsageError(
                f"The values of {name!r} are {shown(values)}.",
                f"Give a list: {{{name!r}: [1, 2]}}.",
            )
    n = int(np.prod([len(values) for values in grid.values()])) if grid else 0
    if not 0 < n <= MOST_SETTINGS:
        raise UsageError(
            f"The grid has {n:,} combinations.",
            f"Give at least one parameter, and at most {MOST_SETTINGS:,} combinations.",
        )
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def _p_value(scores: Sequence[Score]) -> float:
    """Return how often the best of as many random alerts is as good as the best."""
    best = max(one.f1.value for one in scores)
    some = [one.random_f1 for one in scores if one.random_f1.size]
    if not some:
        return 1.0
    draws = min(one.size for one in some)
    tops = np.max([one[:draws] for one in some], axis=0)
    return (int((tops >= best - 1e-12).sum()) + 1) / (draws + 1)


def _best(scores: Sequence[Score], metric: str) -> int:
    return int(np.argmax([np.nan_to_num(_value(x, metric), nan=-1.0) for x in scores]))


def _value(one: Score, metric: str) -> float:
    found: float = getattr(one, metric).value
    return found


def _cell(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)


def _shown(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in setting.items())


def _at(time_ns: int) -> str:
    return format_timestamp(time_ns // NS_PER_MS)
