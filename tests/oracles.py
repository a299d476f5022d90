"""Slow, obvious truths that the engine is held against. Plain Python.

That of patterns is `tests.matcher`.
"""

import math
from fractions import Fraction


def sliding_window(rows, i, length, key=None, where=None):
    """Return the rows in the window of row ``i``: ``(t - length, t]``, itself last.

    ``rows`` are dicts in release order with their time under ``t``. Rows after ``i``
    are not seen, even with the same time. ``where`` limits which rows enter.
    """
    now = rows[i]
    return [
        row
        for row in rows[: i + 1]
        if now["t"] - length < row["t"] <= now["t"]
        and (key is None or row[key] == now[key])
        and (where is None or where(row))
    ]


def last_events(rows, i, n, key=None, where=None):
    """Return the last ``n`` rows of those that enter, up to row ``i``."""
    return sliding_window(rows, i, math.inf, key, where)[-n:]


def hopping_window(rows, i, length, every, key=None, where=None):
    """Return what the earliest window that holds row ``i``'s time holds so far.

    Windows are ``[n * every, n * every + length)``.
    """
    now = rows[i]["t"]
    begin = next(t for t in range(now - length + 1, now + 1) if t % every == 0)
    return sliding_window(rows, i, now - begin + 1, key, where)


def session(rows, i, gap, key=None, where=None):
    """Return the rows since the last pause of ``gap`` or longer, up to row ``i``."""
    found = []
    for row in sliding_window(rows, i, math.inf, key, where):
        if found and row["t"] - found[-1]["t"] >= gap:
            found = []
        found.append(row)
    return found if found and rows[i]["t"] - found[-1]["t"] < gap else []


def closed_windows(rows, length, every, key=None):
    """Return (end, key, begin, rows) of every window that holds a row, by end.

    Windows are ``[n * every, n * every + length)``.
    """
    found = {}
    for row in rows:
        for begin in range(row["t"] - length + 1, row["t"] + 1):
            if begin % every == 0:
                place = (begin + length, row.get(key), begin)
                found.setdefault(place, []).append(row)
    ordered = sorted(found.items(), key=lambda item: item[0][0])
    return [(*place, window) for place, window in ordered]


def closed_sessions(rows, gap, key=None):
    """Return (end, key, begin, rows) of every session; it ends ``gap`` after a row."""
    found = []
    for one in dict.fromkeys(row.get(key) for row in rows):
        held = []
        for row in [row for row in rows if row.get(key) == one]:
            if not held or row["t"] - held[-1][-1]["t"] >= gap:
                held.append([])
            held[-1].append(row)
        found += [(x[-1]["t"] + gap, one, x[0]["t"], x) for x in held]
    return sorted(found, key=lambda window: window[0])


def quantile(values, q):
    """Return a quantile at place ``q * (n - 1)``; None of nothing."""
    if not values:
        return None
    ordered, place = sorted(values), q * (len(values) - 1)
    below = math.floor(place)
    above = min(below + 1, len(values) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def pair_aggregates(window, x, y):
    """Return what is asked of two fields together, exactly, as a float or None."""
    pairs = [
        (Fraction(row[x]), Fraction(row[y]))
        for row in window
        if row.get(x) is not None and row.get(y) is not None
    ]
    n = len(pairs)
    none = dict.fromkeys(["cov", "corr", "slope", "wavg"])
    if not n:
        return none
    mean_x, mean_y = sum(a for a, _ in pairs) / n, sum(b for _, b in pairs) / n
    cov = sum((a - mean_x) * (b - mean_y) for a, b in pairs) / n
    var_x = sum((a - mean_x) ** 2 for a, _ in pairs) / n
    var_y = sum((b - mean_y) ** 2 for _, b in pairs) / n
    weights = sum(b for _, b in pairs)
    return none | {
        "cov": float(cov),
        "slope": float(cov / var_x) if var_x else None,
        "corr": float(cov) / math.sqrt(var_x) / math.sqrt(var_y)
        if var_x and var_y
        else None,
        "wavg": float(sum(a * b for a, b in pairs) / weights) if weights else None,
    }


def aggregates(window, name):
    """Return every aggregate of a field over a window; None is absent.

    Rows that lack the field are passed over, but by ``rows``.
    """
    values = [row[name] for row in window if row.get(name) is not None]
    n = len(values)
    found = {"rows": len(window), "count": n, "sum": math.fsum(values)}
    empty = dict.fromkeys(["avg", "var", "std", "min", "max", "first", "last"])
    if not n:
        return found | empty
    mean = math.fsum(values) / n
    var = math.fsum((v - mean) ** 2 for v in values) / n
    return found | {
        "avg": mean,
        "var": var,
        "std": math.sqrt(var),
        "min": min(values),
        "max": max(values),
        "first": values[0],
        "last": values[-1],
    }


def release_order(rows):
    """Return rows by (event time, stream, entry id).

    A row is a tuple (event time, stream, entry id, ...).
    """
    return sorted(rows, key=lambda row: row[:3])


def cooled_down(times, cooldown):
    """Return which of one key's outputs, at rising times, a cooldown lets pass."""
    passed, last = [], None
    for time in times:
        passed.append(last is None or time - last >= cooldown)
        if passed[-1]:
            last = time
    return passed


def previous(rows, i, name, key=None):
    """Return a field of the row before row ``i`` with the same key; None is absent."""
    for row in reversed(rows[:i]):
        if key is None or row[key] == rows[i][key]:
            return row.get(name)
    return None


def weighted_mean(rows, i, name, half_life, key=None):
    """Return the mean up to row ``i``, in which weights halve each half-life."""
    now = rows[i]
    pairs = [
        (0.5 ** ((now["t"] - row["t"]) / half_life), row[name])
        for row in rows[: i + 1]
        if (key is None or row[key] == now[key]) and row.get(name) is not None
    ]
    if not pairs:
        return None
    # The youngest value weighs 1, so that nothing is lost however old all are.
    most = max(weight for weight, _ in pairs)
    if most == 0.0:
        return pairs[-1][1]
    return math.fsum(w * x for w, x in pairs) / math.fsum(w for w, _ in pairs)


def hayashi_yoshida(time_x, x, time_y, y, lag):
    """Return the covariance of two series of ticks by asking every pair of returns."""
    total = 0.0
    for i in range(1, len(x)):
        for j in range(1, len(y)):
            start = max(time_x[i - 1], time_y[j - 1] - lag)
            if start < min(time_x[i], time_y[j] - lag):
                total += (x[i] - x[i - 1]) * (y[j] - y[j - 1])
    return total
