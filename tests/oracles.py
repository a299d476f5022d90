"""Slow, obvious truths that the engine is held against. Plain Python."""

import math


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
