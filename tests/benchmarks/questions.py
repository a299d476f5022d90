"""The questions, answered from their definitions: slow, obvious, exact.

Each function takes a `Stream` and returns its matches as (start seq, end seq),
symbol by symbol, for any seed, volatility and constants. "Later" means later in
the order of (event time, arrival), which is the order of the stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from tests.benchmarks.streams import COMPLETED, TICK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.streams import Stream

    Pairs = list[tuple[int, int]]
    Answer = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Constants:
    """What the questions compare with; the default is that of the workloads."""

    notional: float = 1500.0
    window_ms: int = 60_000
    least: int = 100
    sigmas: float = 2.5
    hop_ms: int = 1_000
    spread: float = 0.008
    drop: float = 0.0005
    rebound: float = 1.005
    amount: float = 5.0
    within_ms: int = 10_000
    rises: int = 3
    latency: float = 2000.0
    move: float = 0.00125
    soon_ms: int = 5_000


CONSTANTS = Constants()


def answer(pairs: Pairs) -> Answer:
    """Return how many matches there are, the sum of starts and that of ends."""
    return len(pairs), sum(a for a, _ in pairs), sum(b for _, b in pairs)


def by_symbol(
    stream: Stream, names: str, *, ticks_only: bool = True
) -> Iterator[list[list]]:
    """Yield each symbol's columns as lists."""
    rows = np.arange(len(stream))
    if ticks_only:
        rows = rows[stream.kind == TICK]
    rows = rows[np.argsort(stream.sym[rows], kind="stable")]
    ends = np.cumsum(np.bincount(stream.sym[rows]))
    for part in np.split(rows, ends[:-1]):
        yield [getattr(stream, name)[part].tolist() for name in names.split()]


def w1(stream: Stream, c: Constants = CONSTANTS) -> Pairs:
    """Ticks with price * qty over the notional, 1500."""
    return [
        (seq, seq)
        for seqs, prices, amounts in by_symbol(stream, "seq price qty")
        for seq, price, amount in zip(seqs, prices, amounts, strict=True)
        if price * amount > c.notional
    ]


def w2(stream: Stream, c: Constants = CONSTANTS) -> Pairs:
    """Ticks over 2.5 standard deviations off the mean of their last 60 s.

    Of at least 100 ticks; a window is (t - 60 s, t] and ends at the tick itself.
    Prices are whole numbers of 1e-4, so that nothing rounds: with n of them, sum s
    and sum of squares q, |x - s/n| > 2.5 sqrt(q/n - (s/n)^2), times n and squared.
    """
    pairs, factor = [], Fraction(c.sigmas) ** 2
    for seqs, times, prices in by_symbol(stream, "seq time_ms price"):
        units = [round(price * 10_000) for price in prices]
        first = total = squares = 0
        for i, (time, x) in enumerate(zip(times, units, strict=True)):
            total, squares = total + x, squares + x * x
            while times[first] <= time - c.window_ms:
                total, squares = total - units[first], squares - units[first] ** 2
                first += 1
            n = i + 1 - first
            off, spread = (n * x - total) ** 2, n * squares - total**2
            if n >= c.least and (off * factor.denominator > spread * factor.numerator):
                pairs.append((seqs[i], seqs[i]))
    return pairs


def w2h(stream: Stream, c: Constants = CONSTANTS) -> Pairs:
    """Windows of 60 s, a new one each second, with a spread over 0.8 % of the mean.

    Of at least 100 ticks. A window is [begin, begin + 60 s), and a match is its last
    tick's seq with its end in ms. Exact as `w2`: sqrt(q/n - (s/n)^2) > f s/n, times n
    and squared.
    """
    pairs, factor = [], Fraction(c.spread) ** 2
    for seqs, times, prices in by_symbol(stream, "seq time_ms price"):
        units = [round(price * 10_000) for price in prices]
        first = after = total = squares = 0
        end = (times[0] // c.hop_ms + 1) * c.hop_ms
        while first < len(times):
            while after < len(times) and times[after] < end:
                total += units[after]
                squares += units[after] ** 2
                after += 1
            while first < after and times[first] < end - c.window_ms:
                total -= units[first]
                squares -= units[first] ** 2
                first += 1
            n = after - first
            spread = n * squares - total**2
            large = spread * factor.denominator > total**2 * factor.numerator
            if n >= c.least and large:
                pairs.append((seqs[after - 1], end))
            end += c.hop_ms
    return pairs


def w3(stream: Stream, c: Constants = CONSTANTS) -> Pairs:
    """A drop, then the first rebound, then the first large tick, within 10 s.

    The earliest start wins; the next match starts after the large tick.
    """
    return _drops(stream, c, skip=True)


def w3n(stream: Stream, c: Constants = CONSTANTS) -> Pairs:
    """The same as `w3` without skipping: every drop that completes counts."""
    return _drops(stream, c, skip=False)


def _drops(stream: Stream, c: Constants, *, skip: bool) -> Pairs:
    pairs, names = [], "seq time_ms price prev qty"
    for seqs, times, prices, before, amounts in by_symbol(stream, names):
        n, taken = len(seqs), -1
        for i in range(n):
            if (skip and i <= taken) or not prices[i] < before[i] * (1 - c.drop):
                continue
            end = times[i] + c.within_ms
            target = prices[i] * c.rebound
            j = i + 1
            while j < n and times[j] < end and not prices[j] > target:
                j += 1
            j += 1
            while j < n and times[j] < end and not amounts[j] > c.amount:
                j += 1
            if j < n and times[j] < end:
                pairs.append((seqs[i], seqs[j]))
                taken = j
    return pairs


def w4(stream: Stream, c: Constants = CONSTANTS) -> Pairs:
    """A tick, 3 rises or more and a fall, all neighbours.

    The earliest start wins, with all its rises; the next starts after the fall.
    """
    pairs = []
    for seqs, prices in by_symbol(stream, "seq price"):
        n, i = len(seqs), 0
        while i < n:
            j = i + 1
            while j < n and prices[j] > prices[j - 1]:
                j += 1
            if j - i > c.rises and j < n and prices[j] < prices[j - 1]:
                pairs.append((seqs[i], seqs[j]))
                i = j
            i += 1
    return pairs


def w5(stream: Stream, c: Constants = CONSTANTS) -> Pairs:
    """A completion after over 2 s, then the first tick that moves, in under 5 s."""
    pairs, names = [], "kind seq time_ms price prev latency"
    for columns in by_symbol(stream, names, ticks_only=False):
        kinds, seqs, times, prices, before, latencies = columns
        n = len(seqs)
        for i in range(n):
            if kinds[i] != COMPLETED or not latencies[i] > c.latency:
                continue
            for j in range(i + 1, n):
                if times[j] >= times[i] + c.soon_ms:
                    break
                move = abs(prices[j] - before[j])
                if kinds[j] == TICK and before[j] > 0 and move > c.move * before[j]:
                    pairs.append((seqs[i], seqs[j]))
                    break
    return pairs


QUESTIONS = {"W1": w1, "W2": w2, "W2h": w2h, "W3": w3, "W3n": w3n, "W4": w4, "W5": w5}
