"""Kernels against the slow path on random input: ``python -m tests.fuzz``.

Payloads of all known types, written oddly and then mutated, in entries whose other
fields are now and then mutated too, are decoded both ways: verdicts, reasons and
values must be the same to the bit. Then random and mutated bytes go through the reader
of replies, cut anywhere: it must come to an end, with the entries that hiredis finds
or with an error.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter

import hiredis

from cep.bus.kernels import reply as scan
from cep.events.registry import registry
from tests.random_entries import (
    STREAM,
    Scan,
    assert_same,
    entry,
    mutated,
    reply_of,
    written,
)

ROWS = 200  # of a page
TEXTS = [
    "",
    "a",
    "BTC",
    "é",
    "Ω/|{é}",
    'q"\\',
    "\n\t\x1f",
    "x" * 200,
    "\U0001f600",
    "0",
]


def payload(known, rnd):
    """Return a payload of a type, in most cases one that it takes."""
    found = {
        field.name: _value(field, rnd)
        for field in known.fields
        if field.required or rnd.random() < 0.5
    }
    if rnd.random() < 0.1:
        found[rnd.choice(TEXTS)] = _anything(rnd, 3)
    if found and rnd.random() < 0.1:
        found[rnd.choice(list(found))] = _anything(rnd, 2)
    if found and rnd.random() < 0.05:
        del found[rnd.choice(list(found))]
    return found


def _value(field, rnd):
    if field.nullable and rnd.random() < 0.2:
        return None
    if field.choices is not None:
        return rnd.choice(field.choices)
    if field.kind == "str":
        return rnd.choice(TEXTS)
    if field.kind == "json":
        if field.shape == "array":
            texts = field.items is not None and field.items.kind == "str"
            size = rnd.randrange(4)
            return [rnd.choice(TEXTS) if texts else _anything(rnd, 2)] * size
        if field.fields:
            return {inner.name: _value(inner, rnd) for inner in field.fields}
        return {rnd.choice(TEXTS): _anything(rnd, 3) for _ in range(rnd.randrange(3))}
    return _number(rnd) if field.kind != "bool" else rnd.random() < 0.5


def _number(rnd):
    return rnd.choice(
        [
            lambda: rnd.randrange(-1000, 1000),
            lambda: rnd.randrange(-(2**64), 2**64),
            lambda: round(rnd.uniform(0, 1e5), rnd.randrange(6)),
            lambda: rnd.uniform(-1, 1) * 10.0 ** rnd.randrange(-320, 309),
            lambda: rnd.choice([0.0, -0.0, 5e-324, 1.7976931348623157e308, 2.0**53]),
        ]
    )()


def _anything(rnd, depth):
    kind = rnd.randrange(6 if depth else 4)
    if kind == 4:
        return [_anything(rnd, depth - 1) for _ in range(rnd.randrange(3))]
    if kind == 5:
        return {rnd.choice(TEXTS): _anything(rnd, depth - 1) for _ in range(2)}
    return [None, rnd.random() < 0.5, _number(rnd), rnd.choice(TEXTS)][kind]


def row(types, rnd):
    """Return the fields of an entry."""
    known = rnd.choice(types)
    raw = written(payload(known, rnd), rnd).encode("utf-8", "surrogatepass")
    fields = entry(known, mutated(raw, rnd, rnd.choice([0, 0, 0, 1, 1, 3])))
    if rnd.random() < 0.1:
        at = rnd.randrange(len(fields))
        name, value = fields[at]
        fields[at] = name, mutated(value, rnd, 1)
    return fields


def payloads(count, rnd):
    """Decode pages of random payloads both ways; return how many had which end."""
    ends: Counter[str] = Counter()
    types = registry.all()
    done = 0
    while done < count:
        # Few types in a page, so that neighbours are alike.
        some = rnd.sample(types, rnd.choice([1, 2, len(types)]))
        page = assert_same([row(some, rnd) for _ in range(min(ROWS, count - done))])
        ends.update(str(bad.reason) for bad in page.bad)
        ends["good"] += len(page.columns)
        done += page.entries_read
    return ends


def replies(count, rnd):
    """Scan mutated replies cut anywhere; return how many had which end."""
    ends: Counter[str] = Counter()
    names = {scan.DONE: "done", scan.MORE: "more", scan.NOT_RESP: "not RESP"}
    one = Scan()
    for _ in range(count):
        entries = [
            (
                b"%d-%d" % (rnd.randrange(10**13), i),
                [rnd.randbytes(rnd.randrange(9))] * 4,
            )
            for i in range(rnd.randrange(6))
        ]
        raw = reply_of([(STREAM.encode(), entries)] * rnd.randrange(3))
        raw = mutated(raw, rnd, rnd.choice([0, 1, 1, 3]))
        if rnd.random() < 0.1:
            raw = rnd.randbytes(rnd.randrange(60))
        one.state[:] = 0
        end, status = 0, scan.MORE
        while status == scan.MORE and end < len(raw):
            end = min(len(raw), end + rnd.choice([1, 5, 40, 1000]))
            status = one.on(raw[:end])
        if status == scan.DONE:
            expected = _by_hiredis(raw[: one.state[scan.POSITION]])
            assert expected is None or one.found(raw) == expected
        ends[names.get(status, "error reply")] += 1
    return ends


def _by_hiredis(raw):
    reader = hiredis.Reader()
    reader.feed(raw)
    try:
        found = reader.gets()
    except hiredis.ProtocolError:
        return None  # it takes no length with leading zeros
    return [[k, [(i, flat or []) for i, flat in rows or []]] for k, rows in found or []]


def main(words=None):
    """Fuzz as the command line says; an assertion fails at the first difference."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--payloads", type=int, default=200_000)
    parser.add_argument("--replies", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(words)
    seed = time.time_ns() if given.seed is None else given.seed
    print(f"seed {seed}", file=sys.stderr)
    rnd = random.Random(seed)
    ends = {
        "payloads": dict(payloads(given.payloads, rnd).most_common()),
        "replies": dict(replies(given.replies, rnd).most_common()),
    }
    if given.json:
        print(json.dumps({"seed": seed, **ends}))
        return 0
    for what, counts in ends.items():
        told = ", ".join(f"{name} {n:,}" for name, n in counts.items())
        print(f"{sum(counts.values()):,} {what}, the same both ways: {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
