"""The questions as a good Python programmer would write them by hand.

One pass over the events in order, a little state per symbol, fields as lists made
beforehand: what the engine is measured against. Each loop takes the fields that it
is given by name in `FIELDS` and returns its matches as (start seq, end seq), or for
W1 the projected rows.
"""

from __future__ import annotations

from collections import defaultdict, deque
from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

from tests.benchmarks.streams import COMPLETED, TICK

if TYPE_CHECKING:
    from tests.benchmarks.questions import Constants, Pairs
    from tests.benchmarks.streams import Stream

FIELDS = {
    "W1": ("kind", "seq", "sym", "price", "qty"),
    "W2": ("kind", "seq", "sym", "time_ms", "price"),
    "W2h": ("kind", "seq", "sym", "time_ms", "price"),
    "W3": ("kind", "seq", "sym", "time_ms", "price", "prev", "qty"),
    "W3n": ("kind", "seq", "sym", "time_ms", "price", "prev", "qty"),
    "W4": ("kind", "seq", "sym", "price"),
    "W5": ("kind", "seq", "sym", "time_ms", "price", "prev", "latency"),
}


def lists(stream: Stream, name: str) -> list[list]:
    """Return the fields that a loop reads."""
    return [getattr(stream, field).tolist() for field in FIELDS[name]]


def w1(
    kinds, seqs, symbols, prices, amounts, c: Constants
) -> list[tuple[int, int, float]]:
    notional = c.notional
    return [
        (seq, symbol, price * amount)
        for kind, seq, symbol, price, amount in zip(
            kinds, seqs, symbols, prices, amounts, strict=True
        )
        if kind == TICK and price * amount > notional
    ]


def w2(kinds, seqs, symbols, times, prices, c: Constants) -> Pairs:
    pairs, states = [], {}
    length, least, factor = c.window_ms, c.least, c.sigmas**2
    for kind, seq, symbol, time, price in zip(
        kinds, seqs, symbols, times, prices, strict=True
    ):
        if kind != TICK:
            continue
        state = states.get(symbol)
        if state is None:
            # Sums of distances from the first price keep their digits.
            state = states[symbol] = [deque(), 0.0, 0.0, price]
        window, total, squares, origin = state
        x = price - origin
        window.append((time, x))
        total += x
        squares += x * x
        horizon = time - length
        while window[0][0] <= horizon:
            old = window.popleft()[1]
            total -= old
            squares -= old * old
        state[1], state[2] = total, squares
        n = len(window)
        if n >= least:
            mean = total / n
            distance = x - mean
            # Sums that go on for ever gather errors: equal prices leave a rest.
            if distance * distance > factor * (squares / n - mean * mean) + 1e-12:
                pairs.append((seq, seq))
    return pairs


def w2h(kinds, seqs, symbols, times, prices, c: Constants) -> Pairs:
    pairs, states = [], {}
    length, hop, least, factor = c.window_ms, c.hop_ms, c.least, c.spread**2

    def close(state, until):
        window, total, squares, origin, end, last = state
        while window and end <= until:
            horizon = end - length
            while window and window[0][0] < horizon:
                old = window.popleft()[1]
                total -= old
                squares -= old * old
            n = len(window)
            if n >= least:
                mean = total / n
                variance = squares / n - mean * mean
                if variance > factor * (mean + origin) ** 2:
                    pairs.append((last, end))
            end += hop
        state[1], state[2], state[4] = total, squares, end

    for kind, seq, symbol, time, price in zip(
        kinds, seqs, symbols, times, prices, strict=True
    ):
        if kind != TICK:
            continue
        state = states.get(symbol)
        if state is None:
            # Sums of distances from the first price keep their digits.
            state = states[symbol] = [deque(), 0.0, 0.0, price, 0, seq]
        if time >= state[4]:
            close(state, time)
            state[4] = (time // hop + 1) * hop
        x = price - state[3]
        state[0].append((time, x))
        state[1] += x
        state[2] += x * x
        state[5] = seq
    for state in states.values():
        close(state, inf)
    return pairs


def w3n(kinds, seqs, symbols, times, prices, before, amounts, c: Constants) -> Pairs:
    pairs = []
    low, high, large, within = 1 - c.drop, c.rebound, c.amount, c.within_ms
    dropped, rebounded = defaultdict(list), defaultdict(list)
    for kind, seq, symbol, time, price, last, amount in zip(
        kinds, seqs, symbols, times, prices, before, amounts, strict=True
    ):
        if kind != TICK:
            continue
        if amount > large and (waiting := rebounded[symbol]):
            pairs += [(start, seq) for end, start in waiting if time < end]
            waiting.clear()
        # Lowest target first: one look says that none is reached.
        heap = dropped[symbol]
        while heap and price > heap[0][0]:
            _, end, start = heappop(heap)
            if time < end:
                rebounded[symbol].append((end, start))
        if price < last * low:
            heappush(heap, (price * high, time + within, seq))
    return pairs


def w3(kinds, seqs, symbols, times, prices, before, amounts, c: Constants) -> Pairs:
    complete = defaultdict(list)
    low, high, large, within = 1 - c.drop, c.rebound, c.amount, c.within_ms
    dropped, rebounded = defaultdict(list), defaultdict(list)
    for row, (kind, symbol, time, price, last, amount) in enumerate(
        zip(kinds, symbols, times, prices, before, amounts, strict=True)
    ):
        if kind != TICK:
            continue
        if amount > large and (waiting := rebounded[symbol]):
            complete[symbol] += [(start, row) for end, start in waiting if time < end]
            waiting.clear()
        heap = dropped[symbol]
        while heap and price > heap[0][0]:
            _, end, start = heappop(heap)
            if time < end:
                rebounded[symbol].append((end, start))
        if price < last * low:
            heappush(heap, (price * high, time + within, row))
    pairs = []
    for matches in complete.values():
        taken = -1
        for start, end in sorted(matches):
            if start > taken:
                pairs.append((seqs[start], seqs[end]))
                taken = end
    return pairs


def w4(kinds, seqs, symbols, prices, c: Constants) -> Pairs:
    pairs, least = [], c.rises
    last, rises, starts = defaultdict(lambda: inf), defaultdict(int), {}
    for kind, seq, symbol, price in zip(kinds, seqs, symbols, prices, strict=True):
        if kind != TICK:
            continue
        before = last[symbol]
        if price > before:
            rises[symbol] += 1
        elif price < before and rises[symbol] >= least:
            pairs.append((starts[symbol], seq))
            rises[symbol] = 0
            price = inf  # the next match starts after this tick
        else:
            rises[symbol] = 0
            starts[symbol] = seq
        last[symbol] = price
    return pairs


def w5(kinds, seqs, symbols, times, prices, before, latencies, c: Constants) -> Pairs:
    pairs, slow = [], defaultdict(list)
    limit, least, soon = c.latency, c.move, c.soon_ms
    for kind, seq, symbol, time, price, last, latency in zip(
        kinds, seqs, symbols, times, prices, before, latencies, strict=True
    ):
        if kind == TICK:
            waiting = slow.get(symbol)
            if waiting and last > 0 and abs(price - last) > least * last:
                pairs += [(start, seq) for end, start in waiting if time < end]
                waiting.clear()
        elif kind == COMPLETED and latency > limit:
            slow[symbol].append((time + soon, seq))
    return pairs


LOOPS = {"W1": w1, "W2": w2, "W2h": w2h, "W3": w3, "W3n": w3n, "W4": w4, "W5": w5}
