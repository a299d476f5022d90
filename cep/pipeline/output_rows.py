"""What rules put out, from columns to the words of stream entries.

A derived event is the same whichever way it is written: `output_fields` makes an
event of it, asks its type's model and writes that; here the same entry is written
column by column. What the columns are put between is learned from `output_fields`,
once for each output of a rule: it writes a sample whose values are marks, and the
text around the marks is kept. So the order of fields, the escapes and the verdict
of the type's model are its own. What the sample cannot answer for goes through
`output_fields`, row by row: values that are absent where the type needs one, that
are not finite, or not integers of 64 bits; texts that are empty where they may not
be; rows that are very large; outputs of which a mark does not come out as it went in
(as where a model changes values), and those of types with models of your own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from cep.bus.link import Words
from cep.bus.ulid_columns import ulid_texts
from cep.engine.derive import (
    DerivedEvent,
    derived_events,
    filled_fields,
    filled_title,
    key_text,
    leaf_value,
)
from cep.errors import CepError
from cep.events.codec import FIELDS, MAX_ENTRY_BYTES
from cep.events.registry import registry
from cep.events.timestamps import END_MS
from cep.pipeline.entries import NS_PER_MS, output_fields
from cep.rules.emission import ALERT, OPEN_FIELD, Emission

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from cep.engine.matches import Matches, Outputs
    from cep.engine.plan import CompiledRule

    Row = tuple[str, Words] | DerivedEvent

_OWN_MODELS: Final = "cep.events.models."
_NESTED: Final = 16  # with so few brackets a JSON value surely nests not too deep
_TEXTS_KEPT: Final = 65_536
_INT_LIMIT: Final = float(2**63)
_DATE: Final = np.dtype("datetime64[ms]")
_encode: Final = msgspec.json.encode

# Marks, each of a kind, that no rule's own text holds.
_MARK: Final = "mark-5f0c1e7a93"
_TITLE_MARK: Final = f"{_MARK}-title"
_CAUSE: Final = 0x5F0C1E7A93
_FLOAT_MARK: Final = 1.5071973e-91
_INT_MARK: Final = 6_507_197_391_000_000_000


class OutputRows:
    """Writes what rules put out; keeps what it learned of each output.

    Attributes
    ----------
    slow
        How many rows were left to `output_fields`.
    """

    def __init__(self) -> None:
        self._templates: dict[str, list[_Template | None]] = {}
        self._texts = _JsonTexts()
        self.slow = 0

    def of(self, outputs: Outputs) -> Iterator[Row]:
        """Yield the entries of what a step found, in the order of `Outputs.events`.

        An entry is a stream and its packed words. Where `output_fields`
        has to judge, the derived event itself comes in its place.
        """
        times: list[int] = []
        rows: list[Row] = []
        for matches in outputs.matches:
            for time_ns, found in zip(
                matches.time_ns.tolist(), self._of_rule(matches), strict=True
            ):
                rows += found
                times += [time_ns] * len(found)
        if len(outputs.matches) < 2:
            yield from rows
        else:
            yield from (rows[at] for at in np.argsort(times, kind="stable").tolist())

    def _of_rule(self, matches: Matches) -> Iterator[list[Row]]:
        """Yield the entries of each match."""
        rule = matches.compiled.rule
        templates = self._templates.get(rule.name)
        if templates is None:
            templates = _templates(matches.compiled)
            self._templates[rule.name] = templates
        cause = _Cause.of(matches, self._texts)
        written: list[list[Words | None]] = []
        for index, template in enumerate(templates):
            wanted = matches.timeout == (index >= len(rule.emissions))
            if template is None or not wanted.any():
                written.append([None] * len(matches))
            else:
                written.append(template.rows(matches, index, cause, self._texts))
        streams = [t.stream if t is not None else "" for t in templates]
        split = len(rule.emissions)
        for j, timeout in enumerate(matches.timeout.tolist()):
            first, last = (split, len(templates)) if timeout else (0, split)
            rows = [written[index][j] for index in range(first, last)]
            slow: list[DerivedEvent] = []
            if None in rows:
                slow = matches.take([j]).events
                self.slow += rows.count(None)
            yield [
                slow[at] if row is None else (streams[first + at], row)
                for at, row in enumerate(rows)
            ]


@dataclass(slots=True)
class _Cause:
    """What the outputs of a match have in common, for each match."""

    times: list[bytes]
    keys: list[str]
    key_json: list[bytes]
    parts: list[tuple[str, ...]]
    lineage: list[bytes]

    @classmethod
    def of(cls, matches: Matches, texts: _JsonTexts) -> _Cause:
        known = {k: parts for k, (parts, _) in matches.keys.items()}
        joined = {k: key_text(parts) for k, parts in known.items()}
        as_json = {k: texts.of(text) for k, text in joined.items()}
        keys = matches.key.tolist()
        moments = (matches.time_ns // NS_PER_MS).astype(_DATE)
        ids = ulid_texts(matches.id_hi.view(np.uint64), matches.id_lo.view(np.uint64))
        offsets = matches.offsets.tolist()
        return cls(
            [
                text + b"Z"
                for text in np.datetime_as_string(moments).astype("S23").tolist()
            ],
            [joined[k] for k in keys],
            [as_json[k] for k in keys],
            [known[k] for k in keys],
            [
                b'["' + b'","'.join(ids[a:b]) + b'"]' if b > a else b"[]"
                for a, b in pairwise(offsets)
            ],
        )


@dataclass(slots=True)
class _Leaf:
    """One of an output's values: its column, its kind, whether it may be null."""

    column: int
    kind: str
    may_be_null: bool


@dataclass(slots=True)
class _Json:
    """A JSON text with holes; what goes into each of them by name."""

    text: bytes
    holes: list[str]

    def filled(self, columns: dict[str, list[bytes]], rows: int) -> list[bytes]:
        """Return the texts of all rows."""
        if not self.holes:
            return [self.text % ()] * rows
        text = self.text
        parts = [columns[hole] for hole in self.holes]
        return [text % row for row in zip(*parts, strict=True)]

    @classmethod
    def learned(cls, written: bytes, marks: dict[bytes, str]) -> _Json:
        """Return the text around marks."""
        longest_first = sorted(marks, key=len, reverse=True)
        pattern = b"|".join(re.escape(mark) for mark in longest_first)
        parts = re.split(b"(" + pattern + b")", written)
        text = b"%b".join(part.replace(b"%", b"%%") for part in parts[::2])
        return cls(text, [marks[mark] for mark in parts[1::2]])


@dataclass(slots=True)
class _Template:
    """An output of a rule: the words of its entries, with holes."""

    emission: Emission
    stream: str
    words: bytes  # packed, with holes
    has_key: bool  # as its correlation id
    leaves: list[_Leaf]
    data: _Json
    metadata: _Json

    def rows(
        self, matches: Matches, index: int, cause: _Cause, texts: _JsonTexts
    ) -> list[Words | None]:
        """Return the words of each match's entry, None where they are not sure."""
        n = len(matches)
        time_ms = matches.time_ns // NS_PER_MS
        sure = (time_ms >= 0) & (time_ms < END_MS)
        if not sure.all():
            return [None] * n
        ids = ulid_texts(*matches.derived_ids(index))
        columns = {
            "id": [b'"' + one + b'"' for one in ids],
            "key": cause.key_json,
            "lineage": cause.lineage,
        }
        for hole in self.data.holes:
            if hole.startswith("part"):
                part = int(hole[4:])
                columns[hole] = [texts.of(parts[part]) for parts in cause.parts]
        for number, leaf in enumerate(self.leaves):
            fragments = _fragments(
                leaf, matches.values[:, leaf.column], matches.texts, texts
            )
            for at in [at for at, one in enumerate(fragments) if not one]:
                sure[at] = False
            columns[f"leaf{number}"] = fragments
        if "title" in self.data.holes:
            columns["title"] = self._titles(matches, cause, texts)
        data = self.data.filled(columns, n)
        metadata = self.metadata.filled(columns, n)
        owners = [k.encode() for k in cause.keys] if self.has_key else [b""] * n
        sizes = zip(map(len, owners), map(len, data), map(len, metadata), strict=True)
        text = self.words
        rows: list[Words | None] = [
            Words(
                2 * len(FIELDS),
                text % (event_id, when, a, owner, b, payload, c, about),
            )
            for event_id, when, owner, payload, about, (a, b, c) in zip(
                ids, cause.times, owners, data, metadata, sizes, strict=True
            )
        ]
        most = MAX_ENTRY_BYTES // 4
        large = [len(a) + len(b) > most for a, b in zip(data, metadata, strict=True)]
        if any(large) or not sure.all():
            for at in np.flatnonzero(np.array(large) | ~sure).tolist():
                rows[at] = None
        return rows

    def _titles(
        self, matches: Matches, cause: _Cause, texts: _JsonTexts
    ) -> list[bytes]:
        title = self.emission.title or ""
        titles = []
        for row, key in zip(matches.values.tolist(), cause.keys, strict=True):
            values = (
                leaf_value(row[leaf.column], leaf.kind, matches.texts)
                for leaf in self.leaves
            )
            named = {**filled_fields(self.emission, values), "key": key}
            titles.append(texts.of(filled_title(title, named)))
        return titles


def _fragments(
    leaf: _Leaf, values: NDArray[np.float64], texts: Sequence[str], cache: _JsonTexts
) -> list[bytes]:
    """Return a column's values as JSON, b"" where that is not sure."""
    null = b"null" if leaf.may_be_null else b""
    numbers = values.tolist()
    if leaf.kind == "float" and np.isfinite(values).all():
        return _encode(numbers)[1:-1].split(b",")
    if leaf.kind == "int" and (np.abs(values) < _INT_LIMIT).all():
        return _encode(values.astype(np.int64).tolist())[1:-1].split(b",")
    found = []
    for number in numbers:
        value = None if number == np.inf or number == -np.inf else number
        if value is None or (leaf.kind in ("int", "any") and abs(value) >= _INT_LIMIT):
            found.append(b"")
            continue
        value = leaf_value(value, leaf.kind, texts)
        if value is None:
            found.append(null)
        elif isinstance(value, str):
            found.append(cache.of(value) if value or leaf.may_be_null else b"")
        else:
            text = _encode(value)
            found.append(text if text.count(b"[") + text.count(b"{") < _NESTED else b"")
    return found


class _JsonTexts:
    """JSON of texts; most columns repeat few."""

    def __init__(self) -> None:
        self._known: dict[str, bytes] = {}

    def of(self, text: str) -> bytes:
        """Return a text as JSON, b"" if it is not Unicode."""
        found = self._known.get(text)
        if found is None:
            try:
                found = _encode(text)
            except UnicodeEncodeError:
                found = b""
            if len(self._known) >= _TEXTS_KEPT:
                self._known.clear()
            self._known[text] = found
        return found


# Learning --------------------------------------------------------------------


def _templates(compiled: CompiledRule) -> list[_Template | None]:
    """Return what is learned of each output of a rule, None where that is nothing."""
    rule = compiled.rule
    found: list[_Template | None] = []
    column = 0
    for index, emission in enumerate((*rule.emissions, *rule.timeouts)):
        leaves = _leaves(compiled, emission, column)
        column += len(leaves)
        try:
            found.append(_learned(compiled, emission, index, leaves))
        except CepError:
            found.append(None)
    return found


def _leaves(compiled: CompiledRule, emission: Emission, first: int) -> list[_Leaf]:
    known = set() if emission.type == ALERT else compiled.emitted_fields[emission.type]
    found: list[_Leaf] = []
    for name, value in emission.fields.items():
        for _ in Emission("", {name: value}).leaves():
            column = first + len(found)
            found.append(_Leaf(column, compiled.leaf_kinds[column], name not in known))
    return found


def _learned(
    compiled: CompiledRule, emission: Emission, index: int, leaves: list[_Leaf]
) -> _Template | None:
    known = registry.get(emission.type)
    if not known.model.__module__.startswith(_OWN_MODELS):
        return None
    marks: dict[bytes, str] = {}
    values: list[Any] = [None] * len(compiled.leaf_kinds)
    for number, leaf in enumerate(leaves):
        if not leaf.may_be_null and leaf.kind not in ("float", "int", "str"):
            return None
        mark = _mark(leaf.kind, number)
        marks[_encode(mark)] = f"leaf{number}"
        values[leaf.column] = mark
    sample = _sample(compiled, index, values)
    parts = _key_marks(compiled)
    marks |= {_encode(part): f"part{at}" for at, part in enumerate(parts)}
    if parts:
        marks[_encode(key_text(parts))] = "key"
    marks[_encode(sample.id)] = "id"
    marks[_encode(sample.lineage)] = "lineage"
    if emission.title is not None:
        marks[_encode(_TITLE_MARK)] = "title"
        if emission.type == ALERT:
            sample.data["title"] = _TITLE_MARK
        elif emission.type in OPEN_FIELD:
            sample.data[OPEN_FIELD[emission.type]]["title"] = _TITLE_MARK
    words = output_fields(sample)
    fields = dict(zip(words[::2], words[1::2], strict=True))
    data = _Json.learned(fields[b"data"], marks)
    metadata = _Json.learned(fields[b"metadata"], marks)
    expected = [f"leaf{number}" for number in range(len(leaves))]
    came = [hole for hole in data.holes if hole.startswith("leaf")]
    if sorted(came) != sorted(expected) or "lineage" in data.holes:
        return None
    assert tuple(fields) == tuple(name.encode() for name in FIELDS)
    return _Template(
        emission,
        sample.stream,
        _words_with_holes(fields),
        bool(sample.correlation_id),
        leaves,
        data,
        metadata,
    )


def _words_with_holes(fields: dict[bytes, bytes]) -> bytes:
    """Return an entry's words packed, with holes for what differs between rows."""
    out = b""
    for name, value in fields.items():
        out += _packed(name)
        if name in (b"id", b"timestamp"):
            out += b"$%d\r\n%%b\r\n" % len(value)
        elif name in (b"correlation_id", b"data", b"metadata"):
            out += b"$%d\r\n%b\r\n"
        else:
            out += _packed(value)
    return out


def _packed(word: bytes) -> bytes:
    return Words.of([word]).data.replace(b"%", b"%%")


def _mark(kind: str, number: int) -> str | float:
    if kind == "float":
        return _FLOAT_MARK * (1.0 + number / 4096)
    return _INT_MARK + number if kind == "int" else f"{_MARK}-{number}"


def _key_marks(compiled: CompiledRule) -> list[str]:
    return [f"{_MARK}-key-{at}" for at in range(len(compiled.rule.key))]


def _sample(compiled: CompiledRule, index: int, values: list[Any]) -> DerivedEvent:
    """Return what an output makes of a match whose values are marks."""
    timeout = index >= len(compiled.rule.emissions)
    events: Iterable[DerivedEvent] = derived_events(
        compiled,
        time_ns=NS_PER_MS,
        key_parts=_key_marks(compiled),
        key_canonical="",
        ids=[(_CAUSE, _CAUSE)],
        steps=compiled.variables[:1],
        times=[NS_PER_MS],
        values=values,
        timeout=timeout,
    )
    at = index - len(compiled.rule.emissions) if timeout else index
    return list(events)[at]
