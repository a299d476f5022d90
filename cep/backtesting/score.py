"""How right a rule's alerts are, against labels and against chance.

=============  ============================================================
precision      of the alerts, the share within a label of their key
recall         of the labels, the share with an alert in them, however many
F1             ``2 P R / (P + R)``; 0 where nothing is right
lead           the label's moment minus its first alert; above 0 the alert
               came before
=============  ============================================================

Precision counts alerts and recall labels, so that ten alerts within one label are
ten right ones and one label found. Without alerts there is no precision (NaN).

Both are held against two baselines. *As many random alerts*: for each key as many as
the rule has, each at a moment of the span drawn evenly. *Always on*: an alarm that
never stops finds every label, and is right for the share of the time that labels
cover, over all keys.

Intervals come from the bootstrap of blocks: the span is cut into equal blocks, at least
as long as the longest label and at most 50, and whole blocks are drawn with
replacement, as alerts come in bursts. An alert counts in the block of its time, a label
in that of its middle. With fewer than 8 blocks there are no intervals.

Source: H. R. Künsch, "The jackknife and the bootstrap for general stationary
observations", Annals of Statistics 17(3), 1989 (here with blocks that do not overlap).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from cep.analysis.inference import DRAWS, block_weights
from cep.analysis.lag_curve import Interval
from cep.clock import format_duration

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from cep.backtesting.labels import Labels

MAX_BLOCKS: Final = 50
MIN_BLOCKS: Final = 8
NS_PER_MS: Final = 1_000_000
DAY_MS: Final = 86_400_000
_DRAWN: Final = 5_000_000  # random alerts that one baseline costs
_LEADS: Final = (0.1, 0.5, 0.9)


@dataclass(frozen=True, slots=True)
class Alerts:
    """When a rule's alerts came: ``(n,)`` times in ns, rising, and the key of each."""

    time_ns: NDArray[np.int64]
    keys: list[str]

    def __len__(self) -> int:
        return len(self.keys)

    def between(self, start_ns: int, end_ns: int) -> Alerts:
        """Return those from ``start_ns`` to before ``end_ns``."""
        first, last = np.searchsorted(self.time_ns, [start_ns, end_ns]).tolist()
        return Alerts(self.time_ns[first:last], self.keys[first:last])


@dataclass(frozen=True, slots=True)
class Span:
    """From the first time to the last, in ns, and the keys that there are in it."""

    start_ns: int
    end_ns: int
    keys: frozenset[str] = frozenset()

    @property
    def days(self) -> float:
        """How long it is."""
        return (self.end_ns - self.start_ns) / NS_PER_MS / DAY_MS


@dataclass(frozen=True, slots=True)
class Baseline:
    """What alerts without any sense would score."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Score:
    """The score of one rule; the module says what each number means.

    Attributes
    ----------
    rule
        Its name.
    labels, found, outside
        Labels within the data, those that an alert was in, and labels that the data
        does not reach.
    alerts, true_alerts
        How many, and how many of them within a label.
    precision, recall, f1, alerts_a_day
        With 95 % intervals, NaN where there are none.
    lead_ns
        The 10 %, 50 % and 90 % quantiles of the lead of the labels found.
    first_ns
        ``(labels,)``: the first alert in each label, -1 for none.
    blocks, block_ns
        What the intervals rest on.
    random, always_on
        The baselines; of ``random`` the mean over the draws.
    random_f1
        ``(draws,)``: F1 of each draw.
    p_value
        The share of draws with an F1 of at least the rule's, the rule itself counted.
    """

    rule: str
    labels: int
    found: int
    outside: int
    alerts: int
    true_alerts: int
    precision: Interval
    recall: Interval
    f1: Interval
    alerts_a_day: Interval
    lead_ns: tuple[float, float, float]
    first_ns: NDArray[np.int64] = field(repr=False)
    blocks: int
    block_ns: int
    random: Baseline
    random_f1: NDArray[np.float64] = field(repr=False)
    p_value: float
    always_on: Baseline

    def row(self) -> dict[str, object]:
        """Return the numbers by name, leads in milliseconds."""
        found: dict[str, object] = {
            "rule": self.rule,
            "labels": self.labels,
            "found": self.found,
            "alerts": self.alerts,
            "true_alerts": self.true_alerts,
        }
        for name in ("precision", "recall", "f1", "alerts_a_day"):
            interval: Interval = getattr(self, name)
            found[name] = interval.value
            found[f"{name}_low"], found[f"{name}_high"] = interval.low, interval.high
        for share, lead in zip(_LEADS, self.lead_ns, strict=True):
            found[f"lead_ms_{share * 100:.0f}"] = lead / NS_PER_MS
        for what, baseline in (("random", self.random), ("always_on", self.always_on)):
            for name in ("precision", "recall", "f1"):
                found[f"{what}_{name}"] = getattr(baseline, name)
        return found | {"p_value": self.p_value}

    def __str__(self) -> str:
        outside = f" ({self.outside} more outside the data)" if self.outside else ""
        lines = [
            (
                f"{self.rule}: {self.alerts:,} alerts, {self.true_alerts:,} of them "
                f"right; {self.found} of {self.labels} labels found{outside}"
            ),
            (
                f"precision {_told(self.precision)}, recall {_told(self.recall)}, "
                f"F1 {_told(self.f1)}"
            ),
            f"{_told(self.alerts_a_day)} alerts a day",
        ]
        if self.found:
            low, median, high = (_rounded(ns) for ns in self.lead_ns)
            lines.append(f"lead {median} (median; 10 % below {low}, 10 % above {high})")
        lines += [
            (
                f"as many random alerts: {_baseline(self.random)}; "
                f"p = {self.p_value:.2g} that they are as good as the rule "
                f"({len(self.random_f1):,} draws)"
            ),
            f"always on: {_baseline(self.always_on)}",
            f"intervals: 95 %, from {self.blocks} blocks of {_rounded(self.block_ns)}"
            if self.blocks
            else "no intervals: the labels are too long for so short a span",
        ]
        return "\n  ".join(lines)


def _told(interval: Interval) -> str:
    if np.isnan(interval.low):
        return f"{interval.value:.2f}"
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _baseline(one: Baseline) -> str:
    return f"precision {one.precision:.2f}, recall {one.recall:.2f}, F1 {one.f1:.2f}"


def _rounded(ns: float) -> str:
    """Return a duration without more digits than anybody wants to read."""
    unit = 10**9 if abs(ns) >= 10**10 else NS_PER_MS
    return format_duration(round(ns / unit) * unit)


def score(
    rule: str,
    alerts: Alerts,
    labels: Labels,
    span: Span,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Score:
    """Return the score of alerts.

    Parameters
    ----------
    rule
        Its name.
    alerts, labels
        What came and what should have; labels outside the span are only counted.
    span
        What the alerts were looked for in. Its ``keys`` are those that an always-on
        alarm would be on for; those of alerts and labels are added.
    draws, seed
        Of random alerts and of the bootstrap. Fewer are drawn where a rule has more
        than 5,000 alerts, at least 99.
    """
    reached = (labels.end_ns >= span.start_ns) & (labels.start_ns <= span.end_ns)
    outside = len(labels) - int(reached.sum())
    inside = labels.take(reached)
    right, first_ns = tally(alerts, inside)
    n, true, total = len(alerts), int(right.sum()), len(inside)
    found = first_ns >= 0
    value = _scores(true, n, int(found.sum()), total)
    drawn, blocks, block_ns = _bootstrap(
        alerts, right, inside, found, span, draws, seed
    )
    lead = (inside.moment_ns - first_ns)[found]
    leads = np.quantile(lead, _LEADS).tolist() if lead.size else [np.nan] * 3
    random = _random(alerts, inside, span, draws, seed)
    as_good = int((random[2] >= value[2] - 1e-12).sum())
    covered = _covered(alerts, inside, span)
    rate = n / span.days if span.days else np.nan
    precision, recall, f1, alerts_a_day = (
        _interval(x, many) for x, many in zip((*value, rate), drawn, strict=True)
    )
    return Score(
        rule=rule,
        labels=total,
        found=int(found.sum()),
        outside=outside,
        alerts=n,
        true_alerts=true,
        precision=precision,
        recall=recall,
        f1=f1,
        alerts_a_day=alerts_a_day,
        lead_ns=(leads[0], leads[1], leads[2]),
        first_ns=first_ns,
        blocks=blocks,
        block_ns=block_ns,
        random=Baseline(*(float(np.mean(x)) if x.size else np.nan for x in random)),
        random_f1=random[2],
        p_value=(as_good + 1) / (len(random[2]) + 1),
        always_on=Baseline(covered, 1.0, _f1(covered, 1.0)),
    )


def tally(
    alerts: Alerts, labels: Labels
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which alerts are right, and the first alert in each label or -1."""
    right = np.zeros(len(alerts), np.bool_)
    first = np.full(len(labels), -1, np.int64)
    of_alert, of_label = np.array(alerts.keys, object), np.array(labels.keys, object)
    for key in set(labels.keys):
        mine = np.array([x == key for x in of_label], np.bool_)
        places = (
            np.arange(len(alerts)) if key is None else np.flatnonzero(of_alert == key)
        )
        times, starts, ends = (
            alerts.time_ns[places],
            labels.start_ns[mine],
            labels.end_ns[mine],
        )
        begun = np.searchsorted(np.sort(starts), times, "right")
        right[places] |= begun > np.searchsorted(np.sort(ends), times, "left")
        at = np.searchsorted(times, starts, "left")
        hit = at < np.searchsorted(times, ends, "right")
        own = first[mine]
        own[hit] = times[at[hit]]
        first[mine] = own
    return right, first


def _f1(precision: float, recall: float) -> float:
    both = precision + recall
    return 2 * precision * recall / both if both > 0 else 0.0


def _scores(true: float, alerts: float, found: float, labels: float) -> list[float]:
    precision = true / alerts if alerts else np.nan
    recall = found / labels if labels else np.nan
    return [precision, recall, _f1(precision, recall)]


def _many_scores(
    true: NDArray[np.float64],
    alerts: NDArray[np.float64],
    found: NDArray[np.float64],
    labels: NDArray[np.float64],
) -> list[NDArray[np.float64]]:
    nothing = np.full(len(true), np.nan)
    precision = np.divide(true, alerts, out=nothing.copy(), where=alerts > 0)
    recall = np.divide(found, labels, out=nothing.copy(), where=labels > 0)
    both = np.nan_to_num(precision) + np.nan_to_num(recall)
    product = 2 * np.nan_to_num(precision) * np.nan_to_num(recall)
    f1 = np.divide(product, both, out=np.zeros(len(true)), where=both > 0)
    return [precision, recall, f1]


def _interval(value: float, drawn: NDArray[np.float64]) -> Interval:
    known = drawn[~np.isnan(drawn)]
    if not known.size or np.isnan(value):
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(known, [0.025, 0.975]).tolist()
    return Interval(value, low, high)


def _bootstrap(
    alerts: Alerts,
    right: NDArray[np.bool_],
    labels: Labels,
    found: NDArray[np.bool_],
    span: Span,
    draws: int,
    seed: int,
) -> tuple[list[NDArray[np.float64]], int, int]:
    """Return precision, recall, F1 and alerts a day of each draw; blocks, length."""
    length = span.end_ns - span.start_ns
    longest = int((labels.end_ns - labels.start_ns).max(initial=0))
    blocks = min(MAX_BLOCKS, length // max(longest, 1))
    if blocks < MIN_BLOCKS:
        return [np.zeros(0)] * 4, 0, 0
    block_ns = -(-length // blocks)
    weights = block_weights(blocks, draws=draws, seed=seed)

    def summed(
        time_ns: NDArray[np.int64], of: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        place = np.clip((time_ns[of] - span.start_ns) // block_ns, 0, blocks - 1)
        sums: NDArray[np.float64] = weights @ np.bincount(place, minlength=blocks)
        return sums

    middle = labels.start_ns + (labels.end_ns - labels.start_ns) // 2
    every = np.ones(len(alerts), np.bool_)
    counted = summed(alerts.time_ns, every)
    scores = _many_scores(
        summed(alerts.time_ns, right),
        counted,
        summed(middle, found),
        summed(middle, np.ones(len(labels), np.bool_)),
    )
    return [*scores, counted / span.days], blocks, block_ns


def _random(
    alerts: Alerts, labels: Labels, span: Span, draws: int, seed: int
) -> list[NDArray[np.float64]]:
    """Return precision, recall and F1 of as many random alerts, ``(draws,)`` each."""
    n, total = len(alerts), len(labels)
    if not n or not total:
        return [np.zeros(0)] * 3
    draws = max(99, min(draws, _DRAWN // n))
    rng = np.random.default_rng(seed)
    length = (span.end_ns - span.start_ns) // NS_PER_MS + 1
    # Times of draw d are shifted by d spans: then one sorted array holds them all.
    shift = np.arange(draws, dtype=np.int64) * length
    start = np.clip(-(-(labels.start_ns - span.start_ns) // NS_PER_MS), 0, length)
    end = np.clip((labels.end_ns - span.start_ns) // NS_PER_MS, -1, length - 1)
    true = np.zeros(draws)
    found = np.zeros((draws, total), np.bool_)
    key_of = np.array(labels.keys, object)
    for key in sorted(set(alerts.keys)):
        count = alerts.keys.count(key)
        times = rng.integers(0, length, (draws, count))
        mine = np.array([x in (None, key) for x in key_of], np.bool_)
        begun = np.searchsorted(np.sort(start[mine]), times, "right")
        true += (begun > np.searchsorted(np.sort(end[mine]), times, "left")).sum(axis=1)
        flat = np.sort((times + shift[:, None]).ravel())
        first = np.searchsorted(flat, start[mine] + shift[:, None], "left")
        found[:, mine] |= first < np.searchsorted(
            flat, end[mine] + shift[:, None], "right"
        )
    counts = found.sum(axis=1).astype(float)
    return _many_scores(
        true, np.full(draws, float(n)), counts, np.full(draws, float(total))
    )


def _covered(alerts: Alerts, labels: Labels, span: Span) -> float:
    """Return the share of the span that labels cover, over all keys."""
    keys: Collection[str | None] = (
        span.keys | set(alerts.keys) | ({key for key in labels.keys if key is not None})
    )
    length = span.end_ns - span.start_ns
    if not length:
        return np.nan
    shares = []
    for key in keys or [None]:
        covered, until = 0, span.start_ns
        mine = [
            (start, end)
            for start, end, of in zip(
                labels.start_ns.tolist(),
                labels.end_ns.tolist(),
                labels.keys,
                strict=True,
            )
            if of in (None, key)
        ]
        for start, end in sorted(mine):
            begin, end = max(start, until), min(end, span.end_ns)
            covered += max(0, end - begin)
            until = max(until, end)
        shares.append(covered / length)
    return float(np.mean(shares))
