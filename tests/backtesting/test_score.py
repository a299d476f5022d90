"""Scores against definitions written out slowly, and against what chance must give."""

import math
import random
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from cep.backtesting.labels import Labels, labels_of
from cep.backtesting.score import Alerts, Span, score, tally
from cep.errors import UsageError

S = 10**9
DAY = 86_400 * S


def make_case(seed, n=40, m=12, length=5000):
    random_ = random.Random(seed)
    keys = ["a", "b", "c"]
    times = sorted(random_.randrange(length) for _ in range(n))
    alerts = Alerts(
        np.array(times, np.int64) * S, [random_.choice(keys) for _ in times]
    )
    starts = [random_.randrange(length) for _ in range(m)]
    ends = [start + random_.randrange(300) for start in starts]
    moments = [random_.randint(a, b) for a, b in zip(starts, ends, strict=True)]
    label_keys = [random_.choice([*keys, None]) for _ in starts]
    labels = Labels(
        *(np.array(x, np.int64) * S for x in (starts, ends, moments)),
        label_keys,
        [None] * m,
    )
    return alerts, labels, Span(0, length * S, frozenset(keys))


def slowly(alerts, labels):
    """Which alerts are right, and the first alert in each label: all pairs."""

    def fits(i, j):
        inside = labels.start_ns[j] <= alerts.time_ns[i] <= labels.end_ns[j]
        return inside and labels.keys[j] in (None, alerts.keys[i])

    right = [any(fits(i, j) for j in range(len(labels))) for i in range(len(alerts))]
    first = [
        min(
            (int(alerts.time_ns[i]) for i in range(len(alerts)) if fits(i, j)),
            default=-1,
        )
        for j in range(len(labels))
    ]
    return right, first


@pytest.mark.parametrize("seed", range(40))
def test_scores_equal_the_definitions_written_out_over_all_pairs(seed):
    alerts, labels, span = make_case(seed, n=seed, m=1 + seed % 13)
    right, first = slowly(alerts, labels)
    got_right, got_first = tally(alerts, labels)
    assert got_right.tolist() == right
    assert got_first.tolist() == first
    one = score("r", alerts, labels, span, draws=99)
    found = [x >= 0 for x in first]
    assert (one.alerts, one.true_alerts) == (len(right), sum(right))
    assert (one.labels, one.found) == (len(first), sum(found))
    recall = sum(found) / len(found)
    assert one.recall.value == recall
    if not right:
        assert math.isnan(one.precision.value)
        assert one.f1.value == 0
        return
    precision = sum(right) / len(right)
    assert one.precision.value == precision
    expected = 2 * precision * recall / (precision + recall) if sum(right) else 0
    assert one.f1.value == pytest.approx(expected)
    assert one.alerts_a_day.value == pytest.approx(len(right) / (5000 / 86_400))
    leads = [
        int(labels.moment_ns[j]) - first[j] for j in range(len(first)) if first[j] >= 0
    ]
    if leads:
        assert one.lead_ns == pytest.approx(np.quantile(leads, [0.1, 0.5, 0.9]))


def test_always_on_is_right_for_the_share_of_the_time_that_labels_cover():
    for seed in range(10):
        alerts, labels, span = make_case(seed)
        seconds = np.arange(5000)
        shares = []
        for key in "abc":
            on = np.zeros(5000, bool)
            for start, end, of in zip(
                labels.start_ns // S, labels.end_ns // S, labels.keys, strict=True
            ):
                if of in (None, key):
                    on |= (seconds >= start) & (seconds < end)
            shares.append(on.mean())
        always = score("r", alerts, labels, span, draws=99).always_on
        assert always.precision == pytest.approx(np.mean(shares))
        assert always.recall == 1


def test_random_alerts_score_what_their_distribution_says():
    # n alerts at even moments: each is right with the share covered, and a label of
    # length d is found unless all n miss it.
    n, length = 20, 10_000
    alerts = Alerts(np.sort(np.linspace(0, length * S, n)).astype(np.int64), ["k"] * n)
    starts = np.array([1000, 4000, 8000]) * S
    lengths = np.array([500, 100, 1000]) * S
    labels = Labels(starts, starts + lengths, starts, ["k"] * 3, [None] * 3)
    one = score("r", alerts, labels, Span(0, length * S), draws=4000, seed=5)
    shares = lengths / (length * S)
    assert one.random.precision == pytest.approx(shares.sum(), abs=0.005)
    assert one.random.recall == pytest.approx((1 - (1 - shares) ** n).mean(), abs=0.01)


def test_p_values_of_alerts_by_chance_are_even_and_those_of_good_ones_small():
    rng = np.random.default_rng(3)
    starts = np.arange(10, 100, 10) * 1000 * S
    labels = Labels(starts, starts + 500 * S, starts, [None] * 9, [None] * 9)
    span = Span(0, 100_000 * S)
    small = 0
    for seed in range(200):
        times = np.sort(rng.integers(0, 100_000 * S, 30))
        one = score("r", Alerts(times, [""] * 30), labels, span, draws=99, seed=seed)
        small += one.p_value <= 0.05
    assert small <= 20  # 5 % of 200 is 10, of ties somewhat fewer
    good = score("r", Alerts(starts + 7 * S, [""] * 9), labels, span, draws=999)
    assert good.p_value == 0.001
    assert (good.precision.value, good.recall.value) == (1, 1)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    # Bursts: of each of 40 stretches either all five alerts are right or none.
    rng = np.random.default_rng(0)
    held, trials = 0, 150
    for seed in range(trials):
        good = rng.random(40) < 0.6
        starts = np.arange(40) * 1000 * S
        labels = Labels(starts, starts + 900 * S, starts, [None] * 40, [None] * 40)
        labels = labels.take(good)
        times = (starts[:, None] + np.arange(5) * 10 * S).ravel()
        one = score(
            "r",
            Alerts(times, [""] * 200),
            labels,
            Span(0, 40_000 * S),
            draws=300,
            seed=seed,
        )
        held += one.precision.low <= 0.6 <= one.precision.high
    assert held / trials > 0.85


def test_labels_too_long_for_the_span_give_no_intervals_and_say_so():
    labels = Labels(*(np.array([x * S]) for x in (0, 500, 0)), [None], [None])
    one = score("r", Alerts(np.array([S]), [""]), labels, Span(0, 1000 * S), draws=99)
    assert one.blocks == 0
    assert math.isnan(one.precision.low)
    assert "no intervals: the labels are too long" in str(one)


def test_labels_outside_the_data_are_told_and_not_counted():
    start = np.array([-50, 10, 2000]) * S
    labels = Labels(start, start + 5 * S, start, [None] * 3, [None] * 3)
    one = score(
        "r", Alerts(np.array([11 * S]), [""]), labels, Span(0, 1000 * S), draws=99
    )
    assert (one.labels, one.found, one.outside) == (1, 1, 2)
    assert "1 of 1 labels found (2 more outside the data)" in str(one)


def at(second):
    return datetime.fromtimestamp(second, UTC)


def test_labels_come_as_windows_points_lists_and_frames():
    windows = labels_of([(at(0), at(10)), (at(20), at(30))])
    assert windows.start_ns.tolist() == [0, 20 * S]
    assert windows.moment_ns.tolist() == [10 * S, 30 * S]
    points = labels_of([at(100)], ("60s", "5s"))
    assert [points.start_ns[0], points.end_ns[0]] == [40 * S, 105 * S]
    frame = pl.DataFrame(
        {"start": [at(0)], "end": [at(9)], "event_time": [at(4)], "key": ["X"]}
    )
    for given in (frame, frame.to_pandas(), frame.to_arrow()):
        one = labels_of(given)
        assert (one.keys, one.rules) == (["X"], [None])
        assert one.moment_ns.tolist() == [4 * S]


@pytest.mark.parametrize(
    ("given", "tolerance", "said"),
    [
        ([], None, "There are no labels"),
        ([at(0)], None, "nothing says how near an alert must be"),
        ([(at(0), at(1))], "5s", "Leave it out, or widen start and end"),
        ([(at(1), at(0))], None, "Label 0 ends before it starts"),
        (pl.DataFrame({"begin": [at(0)]}), None, "Labels have no column 'begin'"),
        (pl.DataFrame({"starts": [at(0)]}), None, "Did you mean 'start'?"),
        (pl.DataFrame({"start": [at(0)]}), None, "Labels say no time"),
        (
            pl.DataFrame({"event_time": ["x"]}),
            "5s",
            "event_time of the labels is of type String",
        ),
        (pl.DataFrame({"event_time": [at(0), None]}), "5s", "with nulls"),
        ([at(0)], ("5s", "5s", "5s"), "Give a pair"),
        (7, "5s", "is no frame"),
        ([at(0), "x"], "5s", "are no labels"),
    ],
)
def test_what_is_no_label_is_refused_with_what_to_write(given, tolerance, said):
    with pytest.raises(UsageError) as caught:
        labels_of(given, tolerance)
    assert said in str(caught.value)
