"""Entries as other services might write them, and both ways of decoding them."""

import json

import numpy as np

from cep.bus.kernels import reply as scan
from cep.bus.kernels.shape import MOST_FIELDS, new_shapes
from cep.bus.page import SETTLED, Entries, PageDecoder
from cep.events.codec import FIELDS

STREAM = "market.events"
ENVELOPE = ["@version", "@correlation_id", "@user_id", "@metadata"]


class SlowDecoder(PageDecoder):
    """Never asks the kernels."""

    def _decode_envelopes(self, entries, rows):
        pass


class Decoders:
    """Both ways, and how many rows the kernels left to the slow path."""

    def __init__(self, stream=STREAM):
        self.slow = SlowDecoder(stream, envelope=ENVELOPE)
        self.quick = PageDecoder(stream, envelope=ENVELOPE)

    def settled_slowly(self, entries):
        rows = []
        decode = self.quick._page
        self.quick._page = lambda e, r, c: rows.append(r) or decode(e, r, c)
        try:
            self.quick.decode(entries)
        finally:
            del self.quick._page
        return int((rows[0].status == SETTLED).sum())


DECODERS = Decoders()


def as_facts(page):
    """All that a page says, comparable, doubles and signs of zero by their bits."""
    columns = page.columns
    facts = {
        name: getattr(columns, name).tolist()
        for name in ("entry_ms", "entry_seq", "time_ms", "id_hi", "id_lo", "type_code")
    }
    facts |= {"types": columns.types, "bad": page.bad}
    facts |= {"rows": page.rows.tolist(), "bad_rows": page.bad_rows.tolist()}
    facts["fields"] = {
        name: (
            column.kind,
            str(column.values.dtype),
            column.values.tobytes(),
            None if column.valid is None else column.valid.tolist(),
            column.texts,
        )
        for name, column in columns.fields.items()
    }
    return facts


def assert_same(rows):
    entries = Entries.of((b"1900000000000-%d" % i, row) for i, row in enumerate(rows))
    page = DECODERS.quick.decode(entries)
    expected = as_facts(DECODERS.slow.decode(entries))
    assert as_facts(page) == expected
    assert page.entries_read == len(rows) == len(page.columns) + len(page.bad)
    # And as the reader gets them: scanned from a reply, shapes told.
    assert as_facts(DECODERS.quick.decode(scanned(rows))) == expected
    return page


def scanned(rows):
    """Entries as they come out of the scan of a reply."""
    flat = [[word for pair in row for word in pair] for row in rows]
    ids = [b"1900000000000-%d" % i for i in range(len(rows))]
    raw = reply_of([(STREAM.encode(), list(zip(ids, flat, strict=True)))])
    one = Scan(room=9 * len(rows) + MOST_FIELDS)
    assert one.on(raw) == scan.DONE
    data = np.frombuffer(bytearray(raw), np.uint8)
    return Entries(data, one.entries[: one.state[scan.ENTRIES]], one.fields)


def entry(known, payload=b"{}", **changes):
    fields = dict.fromkeys(FIELDS, b"")
    fields |= {
        "id": b"01ARYZ6S419WM4ATHMZVXYX4QJ",
        "stream": STREAM.encode(),
        "type": known.name.encode(),
        "version": b"%d" % known.version,
        "timestamp": b"2023-11-14T22:13:20.123Z",
        "data": payload,
        "metadata": b"{}",
        **changes,
    }
    return [(name.encode(), value) for name, value in fields.items()]


def written(value, rnd, depth=0):
    """Some JSON text of a value: blanks, escapes, number forms, orders differ."""

    def gap():
        return rnd.choice(["", "", "", " ", "\n\t", "\r "])

    if isinstance(value, str):
        return '"' + "".join(_letter(letter, rnd) for letter in value) + '"'
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int | float):
        return _number(value, rnd)
    if isinstance(value, list):
        inner = [gap() + written(one, rnd, depth + 1) + gap() for one in value]
        return "[" + ",".join(inner) + gap() * (not inner) + "]"
    pairs = list(value.items())
    if rnd.random() < 0.3:
        rnd.shuffle(pairs)
    if pairs and rnd.random() < 0.05:
        pairs.append((rnd.choice(pairs)[0], rnd.choice([1, "x", None, [1]])))
    inner = [
        gap()
        + written(key, rnd)
        + gap()
        + ":"
        + gap()
        + written(one, rnd, depth + 1)
        + gap()
        for key, one in pairs
    ]
    return "{" + ",".join(inner) + gap() * (not inner) + "}"


def _letter(letter, rnd):
    short = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "/": "\\/"}
    code = ord(letter)
    if letter in short and (rnd.random() < 0.7 or code < 32 or letter in '"\\'):
        return short[letter]
    if code < 32 or rnd.random() < 0.03:
        units = letter.encode("utf-16-be")
        return "".join(
            f"\\u{int.from_bytes(units[i : i + 2]):04x}"
            for i in range(0, len(units), 2)
        )
    return letter


def _number(value, rnd):
    if isinstance(value, int):
        form = rnd.choice(["{}", "{}", "{}", "{}.0", "{}e0", "{}0e-1", "{}.000E+0"])
        return form.format(value)
    form = rnd.choice(["{!r}", "{!r}", "{:.17g}", "{:.20e}", "{:.3f}", "{:E}"])
    return form.format(value)


TOKENS = [
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"\0", b"\x1f"),
    *(b"0", b"-", b".", b"e", b"E5", b"1e999", b"-0", b"00", b"5", b"null", b"true"),
    *(b"nul", b"\xff", b"\xc3\xa9", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80"),
    *(b"\\u00e9", b"\\ud800", b"\\u12", b'"price":1,', b'"a":{"b":[1]},', b"123456789"),
    *(b"9223372036854775807", b"9223372036854775808", b"18446744073709551616"),
    *(b"[" * 33, b"\x7f", b"NaN", b"Infinity", b"//", b"'", b"\xe2\x80\xa8"),
]


def mutated(raw, rnd, times):
    raw = bytearray(raw)
    for _ in range(times):
        at = rnd.randrange(len(raw) + 1)
        action = rnd.random()
        if action < 0.3:
            del raw[at : at + rnd.choice([1, 1, 2, 8])]
        elif action < 0.7:
            raw[at:at] = rnd.choice(TOKENS)
        elif action < 0.9 and at < len(raw):
            raw[at] = rnd.randrange(256)
        else:
            del raw[at:]
    return bytes(raw)


def reply_of(streams):
    def bulk(raw):
        return b"$%d\r\n%b\r\n" % (len(raw), raw)

    out = b"*%d\r\n" % len(streams)
    for key, entries in streams:
        out += b"*2\r\n" + bulk(key) + b"*%d\r\n" % len(entries)
        for entry_id, flat in entries:
            out += b"*2\r\n" + bulk(entry_id) + b"*%d\r\n" % len(flat)
            out += b"".join(map(bulk, flat))
    return out


class Scan:
    """A scan with tables of its own, fed a part of a reply at a time."""

    def __init__(self, phase=scan.READ_REPLY, room=1):
        self.state = np.zeros(scan.STATE_SIZE, np.int64)
        self.state[scan.PHASE] = phase
        self.streams = np.zeros((room, 4), np.int64)
        self.entries = np.zeros((room, 5), np.int64)
        self.shapes = new_shapes()
        self.fields = np.zeros((room, 4), np.int64)

    def on(self, raw):
        data = np.frombuffer(bytearray(raw or b"\0"), np.uint8)
        while True:
            status = scan.scan_reply(
                data,
                len(raw),
                self.state,
                self.streams,
                self.entries,
                self.fields,
                *self.shapes,
            )
            if status != scan.FULL:
                return status
            for name in ("streams", "entries", "fields"):
                old = getattr(self, name)
                new = np.zeros((2 * len(old), old.shape[1]), np.int64)
                new[: len(old)] = old
                setattr(self, name, new)

    def found(self, raw):
        state = self.state
        fields = [
            (raw[a : a + b], raw[c : c + d])
            for a, b, c, d in self.fields[: state[scan.FIELDS]].tolist()
        ]
        entries = [
            (raw[a : a + b], [word for pair in fields[c : c + d] for word in pair])
            for a, b, c, d, _ in self.entries[: state[scan.ENTRIES]].tolist()
        ]
        return [
            [raw[a : a + b], entries[c : c + d]]
            for a, b, c, d in self.streams[: state[scan.STREAMS]].tolist()
        ]
