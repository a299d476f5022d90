"""How often each method is wrong where there is nothing, and right where there is.

`null` and `power` throw streams of which it is known what they have to do with
each other; `hour` takes two real streams of different years laid on one clock.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from cep.analysis import (
    EventTimes,
    Series,
    event_coincidence,
    event_study,
    event_times,
    granger,
    lead_lag,
    q_values,
    rate_correlation,
    series,
    transfer_entropy,
)
from tests.analysis.planted import (
    MS,
    SECOND,
    bursty,
    bursty_walk,
    followed,
    pair_with_lead,
    pushed,
)

BURSTS_S = (1, 3, 10, 30, 100)
LEADS_NS = (50 * MS, SECOND, 60 * SECOND)
SECONDS = 900


@dataclass
class Tally:
    """What methods said in many trials: a list for each method."""

    said: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.said.setdefault(name, []).append(value)


def p_values(x, y, v, w, seed, draws=199):
    """Return the p-value of every method; x, y are events and v, w series."""
    common = {"draws": draws, "seed": seed}
    window = {"before": "5s", "after": "5s", "step": "250ms", **common}
    found = {
        "lead-lag of ticks": lead_lag(v, w, max_lag="2s", step="100ms", **common),
        "rates": rate_correlation(x, y, max_lag="5s", step="250ms", **common),
        "coincidence": event_coincidence(x, y, **common),
        "event study, series": event_study(x, w, **window),
        "event study, events": event_study(x, y, **window),
        "granger, events": granger(x, y, **common),
        "granger, series": granger(x, w, **common),
        "entropy, events": transfer_entropy(x, y, **common),
        "entropy, series": transfer_entropy(x, w, **common),
    }
    return {name: result.p_value for name, result in found.items()}


def null(pairs: int, *, seed: int = 0) -> Tally:
    """Return the p-values of pairs of independent bursty streams."""
    tally = Tally()
    for number in range(pairs):
        rng = np.random.default_rng([seed, number])
        burst = BURSTS_S[number % len(BURSTS_S)]
        x, y = (bursty(rng, SECONDS, name, burst) for name in "xy")
        v, w = (bursty_walk(rng, SECONDS, name, burst) for name in "vw")
        for name, p in p_values(x, y, v, w, number).items():
            tally.add(name, p)
    return tally


def power(runs: int, lead_ns: int, *, seed: int = 0) -> Tally:
    """Return 1 for each run that finds a planted lead with its sign and lag.

    Ticks, ten a second for 15 minutes or more, share half of their variance;
    30 % of 1,100 or more bursty events are
    followed by one more among as many others, or each pushes a walk by three of
    its own steps, of which there are four or more within the lag. The
    lag is right within a fifth.
    """
    tally = Tally()
    scale = lead_ns / SECOND
    burst = max(3.0, scale / 2)
    seconds = max(300, 600 * scale)
    rates = [r * 300 / seconds for r in (0.3, 1, 10)]
    for number in range(runs):
        rng = np.random.default_rng([seed, number])
        common = {"draws": 199, "seed": number}
        x = bursty(rng, seconds, "x", burst, rates)
        noise = bursty(rng, seconds, "y", burst, rates)
        y = followed(rng, x, lead_ns, noise=noise)
        lags = {"max_lag": text(4 * lead_ns), "step": text(lead_ns // 5)}
        v, u = pair_with_lead(rng, lead_ns // MS, int(max(900, 200 * scale)))
        for name, found in (
            ("lead-lag of ticks", lead_lag(v, u, **lags, **common)),
            ("rates", rate_correlation(x, y, **lags, **common)),
        ):
            best = found.best_lag_ns
            near = abs(best.value - lead_ns) <= lead_ns / 5
            tally.add(name, found.p_value < 0.05 and near and best.low > 0)
        around = {"window": text(lead_ns // 5), "lag": text(lead_ns * 9 // 10)}
        ahead = event_coincidence(x, y, **around, **common)
        tally.add("coincidence", ahead.p_value < 0.05)
        step = text(lead_ns // 2)
        ahead, back = (granger(*pair, step=step, **common) for pair in ((x, y), (y, x)))
        tally.add("granger", ahead.p_value < 0.05 and ahead.p_value < back.p_value)
        two_back = {"step": text(lead_ns), **common}
        tally.add("entropy", transfer_entropy(x, y, **two_back).p_value < 0.05)
        often = [r * max(1, 1 / scale) for r in rates]
        walk = pushed(rng, x, lead_ns, push=4e-4, burst_s=burst, rates=often)
        window = {"before": text(4 * lead_ns), "after": text(4 * lead_ns)}
        study = event_study(x, walk, step=step, **window, **common)
        rises = study.path[study.offsets_ns >= 2 * lead_ns].mean() > 0
        tally.add("event study", study.p_after < 0.05 and rises)
    return tally


def hour(folder: Path, shifts: int) -> tuple[pl.DataFrame, Tally]:
    """Return what is said of trades and requests that have nothing in common.

    Parameters
    ----------
    folder
        Where ``20131009_1h_market_trades.parquet`` and ``..._ai_requests`` are.
    shifts
        How many more hours to make of them by turning the requests in time.

    Returns
    -------
    A row for each symbol and method with p and q; and the p-values of the turned
    hours.
    """
    trades = pl.read_parquet(folder / "20131009_1h_market_trades.parquet")
    asked = pl.read_parquet(folder / "20131009_1h_ai_requests.parquet")
    requests = event_times(asked, time="ts", name="requests")
    tokens = series(asked, "context_tokens", time="ts", transform="none", name="tokens")
    parts = trades.partition_by("symbol", as_dict=True)
    rows = []
    markets = []
    for (symbol,), part in sorted(parts.items(), key=lambda one: str(one[0])):
        market = event_times(part, time="ts", name=str(symbol))
        prices = series(part, time="ts", name=str(symbol))
        if len(market) < 1000:
            continue
        markets.append((market, prices))
        for direction, (x, y, v, w) in {
            "market first": (market, requests, prices, tokens),
            "requests first": (requests, market, tokens, prices),
        }.items():
            for name, p in p_values(x, y, v, w, 0, draws=999).items():
                rows.append((str(symbol), direction, name, p))
    table = pl.DataFrame(rows, schema=["symbol", "order", "method", "p"], orient="row")
    table = table.with_columns(q=pl.Series(q_values(table["p"].to_numpy())))
    return table, _turned(markets, requests, tokens, shifts)


def _turned(markets, requests, tokens, shifts) -> Tally:
    tally = Tally()
    rng = np.random.default_rng(0)
    start, end = requests.time_ns[0], requests.time_ns[-1]
    for number in range(shifts):
        by = rng.integers(60 * SECOND, end - start - 60 * SECOND)
        turned = (requests.time_ns - start + by) % (end - start) + start
        order = np.argsort(turned, kind="stable")
        x = EventTimes("requests", turned[order])
        own = (tokens.time_ns - start + by) % (end - start) + start
        times, first = np.unique(own, return_index=True)
        v = Series("tokens", times, tokens.values[first])
        market, prices = markets[number % len(markets)]
        for name, p in p_values(x, market, v, prices, number).items():
            tally.add(name, p)
    return tally


def text(ns: float) -> str:
    return f"{int(ns)}ns"
