"""Streams of which it is known whether they have to do with each other."""

import numpy as np

from cep.analysis import EventTimes, Series

MS = 1_000_000
SECOND = 1000 * MS
RATES = (0.3, 1.0, 10.0)


def bursty(rng, seconds, name="x", burst_s=3.0, rates=RATES):
    """Events whose rate changes by up to 30 times, in stretches of random length."""
    n = int(seconds / burst_s * 4) + 50
    lengths = rng.exponential(burst_s, n)
    counts = rng.poisson(rng.choice(rates, n) * lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    times = starts.repeat(counts) + rng.random(counts.sum()) * lengths.repeat(counts)
    times = np.sort(times[times < seconds])
    return EventTimes(name, (times * SECOND).astype(np.int64))


def bursty_walk(rng, seconds, name="w", burst_s=3.0, rates=RATES):
    """A random walk of fat-tailed steps that ticks in bursts."""
    times = np.unique(bursty(rng, seconds, name, burst_s, rates).time_ns)
    return Series(name, times, np.cumsum(rng.standard_t(4, len(times)) * 1e-4))


def followed(rng, events, lead_ns, share=0.3, jitter=0.05, noise=None, name="y"):
    """Bursty events, and one ``lead_ns`` after a share of the given ones.

    The lead varies by ``jitter`` of itself.
    """
    caused = events.time_ns[rng.random(len(events)) < share]
    spread = rng.normal(0, jitter * lead_ns, len(caused)).astype(np.int64)
    times = np.concatenate([noise.time_ns, caused + lead_ns + spread])
    return EventTimes(name, np.sort(times[times >= 0]))


def pushed(rng, events, lead_ns, name="w", push=3e-4, burst_s=3.0, rates=RATES):
    """A random walk that each event pushes up by ``push``, ``lead_ns`` later."""
    seconds = int(events.time_ns[-1] / SECOND) + 1
    walk = bursty_walk(rng, seconds, name, burst_s, rates)
    pushes = np.searchsorted(events.time_ns + lead_ns, walk.time_ns, "right")
    return Series(name, walk.time_ns, walk.values + push * pushes)


def pair_with_lead(rng, lead_ms, seconds, share=0.5):
    """Two series of about ten ticks a second; y follows x after ``lead_ms``.

    They share ``share`` of the variance of their common driver's steps.
    """
    n = seconds * 100
    driver, own_x, own_y = rng.normal(0, 1e-4, (3, n + lead_ms // 10 + 1))
    shift = lead_ms // 10
    x_path = np.cumsum(np.sqrt(share) * driver + np.sqrt(1 - share) * own_x)
    y_path = np.cumsum(np.sqrt(share) * driver + np.sqrt(1 - share) * own_y)
    at_x = np.flatnonzero(rng.random(n) < 0.1)
    at_y = np.flatnonzero(rng.random(n) < 0.1)
    x = Series("x", (at_x + 1) * 10 * MS, x_path[shift:][at_x])
    return x, Series("y", (at_y + 1) * 10 * MS, y_path[at_y])
