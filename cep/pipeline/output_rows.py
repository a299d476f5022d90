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

import math
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from cep.bus.link import Words
from cep.bus.row_template import Hole, RowTemplate, Texts
from cep.bus.ulid_columns import ulid_letters
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
from cep.pipeline.blocks import Block, Shape
from cep.pipeline.entries import NS_PER_MS, output_fields
from cep.rules.emission import ALERT, OPEN_FIELD, Emission

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from cep.engine.matches import Matches, Outputs
    from cep.engine.plan import CompiledRule

    Row = Block | DerivedEvent

_OWN_MODELS: Final = "cep.events.models."
_NESTED: Final = 16  # with so few brackets a JSON value surely nests not too deep
_TEXTS_KEPT: Final = 65_536
_INT_LIMIT: Final = float(2**63)
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

        Where `output_fields` has to judge, the derived event itself comes between
        the blocks.
        """
        written = [
            one
            for rule, found in enumerate(outputs.matches)
            for one in self._of_rule(rule, found)
        ]
        if len(written) == 1 and (np.diff(written[0].time_ns) >= 0).all():
            yield from written[0].rows(0, len(written[0].match))
            return
        if not written:
            return
        time, match, output = (
            np.concatenate([getattr(one, name) for one in written])
            for name in ("time_ns", "match", "output")
        )
        sizes = [len(one.match) for one in written]
        which = np.repeat(np.arange(len(written)), sizes)
        row = np.concatenate([np.arange(size) for size in sizes])
        rule = np.repeat([one.rule for one in written], sizes)
        order = np.lexsort((output, match, rule, time))
        which, row = which[order], row[order]
        apart = (which[1:] != which[:-1]) | (row[1:] != row[:-1] + 1)
        cuts = [0, *(np.flatnonzero(apart) + 1).tolist(), len(row)]
        for first, end in pairwise(cuts):
            begin = int(row[first])
            yield from written[which[first]].rows(begin, begin + end - first)

    def _of_rule(self, number: int, matches: Matches) -> Iterator[_Written]:
        """Yield the entries of each output of a rule."""
        rule = matches.compiled.rule
        templates = self._templates.get(rule.name)
        if templates is None:
            templates = _templates(matches.compiled)
            self._templates[rule.name] = templates
        split = len(rule.emissions)
        for timeout in (False, True):
            which = np.flatnonzero(matches.timeout == timeout)
            outputs = range(split, len(templates)) if timeout else range(split)
            if not which.size or not outputs:
                continue
            some = matches
            if which.size < len(matches):
                some = matches.take(which.tolist())
            chosen = [templates[index] for index in outputs]
            holes = {x for one in chosen if one is not None for x in one.rows.holes}
            cause = _Cause.of(some, self._texts, holes)
            for index in outputs:
                written = _Written.of(some, which, number, index, outputs[0])
                written.template = templates[index]
                if (template := templates[index]) is not None:
                    template.write(written, cause, self._texts)
                self.slow += int((~written.sure).sum())
                yield written


@dataclass(slots=True)
class _Written:
    """One output of the matches of a rule: its entries packed, as far as they are sure.

    ``match`` is the place of each among the rule's matches, ``output`` its number.
    """

    matches: Matches
    template: _Template | None
    rule: int
    index: int
    first: int  # of the outputs of such a match
    match: NDArray[np.int64]
    output: NDArray[np.int64]
    sure: NDArray[np.bool_]
    data: bytes
    ends: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        matches: Matches,
        which: NDArray[np.int64],
        rule: int,
        index: int,
        first: int,
    ) -> _Written:
        n = which.size
        return cls(
            matches,
            None,
            rule,
            index,
            first,
            which,
            np.full(n, index),
            np.zeros(n, np.bool_),
            b"",
            np.zeros(n, np.int64),
        )

    @property
    def time_ns(self) -> NDArray[np.int64]:
        """When each is put out."""
        return self.matches.time_ns

    def rows(self, begin: int, end: int) -> Iterator[Row]:
        """Yield entries from one to another."""
        template = self.template
        unsure = np.flatnonzero(~self.sure[begin:end]) + begin
        for stop in [*unsure.tolist(), end]:
            if stop > begin and template is not None:
                first = int(self.ends[begin - 1]) if begin else 0
                data = self.data[first : int(self.ends[stop - 1])]
                yield Block(template.stream, template.shape, stop - begin, data)
            if stop < end:
                yield self.matches.take([stop]).events[self.index - self.first]
            begin = stop + 1


@dataclass(slots=True)
class _Cause:
    """What the outputs of a match have in common, for each match."""

    keys: list[str]
    parts: list[tuple[str, ...]]
    texts: dict[str, Texts]

    @classmethod
    def of(cls, matches: Matches, texts: _JsonTexts, holes: set[str]) -> _Cause:
        place = {k: at for at, k in enumerate(matches.keys)}
        places = np.array([place[k] for k in matches.key.tolist()], np.int64)
        parts = [some for some, _ in matches.keys.values()]
        joined = [key_text(some) for some in parts]
        time_ms = np.clip(matches.time_ns // NS_PER_MS, 0, END_MS - 1)
        ids = ulid_letters(matches.id_hi.view(np.uint64), matches.id_lo.view(np.uint64))
        quoted = np.full((len(ids), 29), ord('"'), np.uint8)
        quoted[:, 1:27], quoted[:, 28] = ids, ord(",")
        spans = np.empty((len(matches), 2), np.int64)
        spans[:, 0] = 29 * matches.offsets[:-1]
        spans[:, 1] = np.maximum(29 * np.diff(matches.offsets) - 1, 0)
        found = {
            "time": Texts.of_times(time_ms),
            "lineage": Texts(quoted.reshape(-1), spans),
        }
        of_keys: dict[str, Iterable[bytes]] = {
            "key": map(texts.of, joined),
            "owner": map(str.encode, joined),
        }
        for at in range(len(parts[0])):
            of_keys[f"part{at}"] = (texts.of(some[at]) for some in parts)
        for hole in of_keys.keys() & holes:
            found[hole] = Texts.of(list(of_keys[hole])).take(places)
        return cls([joined[k] for k in places.tolist()], parts, found)


@dataclass(slots=True)
class _Leaf:
    """One of an output's values: its column, its kind, whether it may be null."""

    column: int
    kind: str
    may_be_null: bool


def _learned_json(written: bytes, marks: dict[bytes, str]) -> list[bytes | Hole]:
    """Return the text around marks, and holes in their places."""
    longest_first = sorted(marks, key=len, reverse=True)
    pattern = b"|".join(re.escape(mark) for mark in longest_first)
    parts = re.split(b"(" + pattern + b")", written)
    found: list[bytes | Hole] = []
    for text, mark in zip(parts[::2], [*parts[1::2], b""], strict=True):
        found.append(text)
        if mark:
            name = marks[mark]
            around = {"id": (b'"', b'"'), "lineage": (b"[", b"]")}.get(name, (b"", b""))
            found += [around[0], Hole(name), around[1]]
    return [part for part in found if part]


@dataclass(slots=True)
class _Template:
    """An output of a rule: the words of its entries, with holes."""

    emission: Emission
    stream: str
    shape: Shape
    rows: RowTemplate
    leaves: list[_Leaf]
    has_title: bool

    def write(self, written: _Written, cause: _Cause, cache: _JsonTexts) -> None:
        """Write an output of each match, but where it is not sure."""
        matches = written.matches
        time_ms = matches.time_ns // NS_PER_MS
        sure = (time_ms >= 0) & (time_ms < END_MS)
        if not sure.all():
            return
        ids = ulid_letters(*matches.derived_ids(written.index))
        texts = {**cause.texts, "id": Texts.of_equal_length(ids)}
        texts |= self._floats(matches)
        for number, leaf in enumerate(self.leaves):
            if f"leaf{number}" in texts:
                continue
            values = matches.values[:, leaf.column]
            found = _leaf_texts(leaf, values, matches.texts, cache)
            texts[f"leaf{number}"] = found
            sure &= found.spans[:, 1] > 0
        if self.has_title:
            texts["title"] = self._titles(matches, cause, cache)
        written.data, written.ends = self.rows.fill(texts)
        sure &= np.diff(written.ends, prepend=0) <= MAX_ENTRY_BYTES // 4
        written.sure = sure

    def _floats(self, matches: Matches) -> dict[str, Texts]:
        """Return the texts of all leaves that are floats, if they are finite."""
        floats = [at for at, leaf in enumerate(self.leaves) if leaf.kind == "float"]
        values = matches.values[:, [self.leaves[at].column for at in floats]]
        if not floats or not np.isfinite(values).all():
            return {}
        found = Texts.between_commas(_encode(values.ravel().tolist()))
        spans = found.spans.reshape(*values.shape, 2)
        return {
            f"leaf{number}": Texts(found.data, spans[:, at])
            for at, number in enumerate(floats)
        }

    def _titles(self, matches: Matches, cause: _Cause, cache: _JsonTexts) -> Texts:
        title = self.emission.title or ""
        titles = []
        for row, key in zip(matches.values.tolist(), cause.keys, strict=True):
            values = (
                leaf_value(row[leaf.column], leaf.kind, matches.texts)
                for leaf in self.leaves
            )
            named = {**filled_fields(self.emission, values), "key": key}
            titles.append(cache.of(filled_title(title, named)))
        return Texts.of(titles)


def _leaf_texts(
    leaf: _Leaf, values: NDArray[np.float64], texts: Sequence[str], cache: _JsonTexts
) -> Texts:
    """Return a column's values as JSON, empty where that is not sure."""
    if leaf.kind == "float" and np.isfinite(values).all():
        return Texts.between_commas(_encode(values.tolist()))
    if leaf.kind == "int" and (np.abs(values) < _INT_LIMIT).all():
        return Texts.between_commas(_encode(values.astype(np.int64).tolist()))
    # As bits, of which -0.0 has others than 0.0.
    bits, places = np.unique(
        np.ascontiguousarray(values).view(np.int64), return_inverse=True
    )
    numbers = bits.view(np.float64).tolist()
    return Texts.of([_fragment(leaf, x, texts, cache) for x in numbers]).take(places)


def _fragment(
    leaf: _Leaf, number: float, texts: Sequence[str], cache: _JsonTexts
) -> bytes:
    """Return a value as JSON, b"" if that is not sure."""
    if math.isinf(number) or (
        leaf.kind in ("int", "any") and abs(number) >= _INT_LIMIT
    ):
        return b""
    value = leaf_value(number, leaf.kind, texts)
    if value is None:
        return b"null" if leaf.may_be_null else b""
    if isinstance(value, str):
        return cache.of(value) if value or leaf.may_be_null else b""
    text = _encode(value)
    return text if text.count(b"[") + text.count(b"{") < _NESTED else b""


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
    assert tuple(fields) == tuple(name.encode() for name in FIELDS)
    about = _learned_json(fields[b"metadata"], marks)
    holes: dict[bytes, list[bytes | Hole]] = {
        b"id": [Hole("id")],
        b"timestamp": [Hole("time")],
        b"data": _learned_json(fields[b"data"], marks),
        b"metadata": about,
    }
    if sample.correlation_id:
        holes[b"correlation_id"] = [Hole("owner")]
    in_data = [part for part in holes[b"data"] if isinstance(part, Hole)]
    expected = [f"leaf{number}" for number in range(len(leaves))]
    came = [hole for hole in in_data if hole.startswith("leaf")]
    if sorted(came) != sorted(expected) or "lineage" in in_data:
        return None
    constants: list[bytes] = []
    for name, value in fields.items():
        constants += [name] if name in holes else [name, value]
    mask = b"".join(b"cv" if name in holes else b"cc" for name in fields)
    return _Template(
        emission,
        sample.stream,
        Shape(mask, Words.of(constants)),
        RowTemplate.of([holes[name] for name in fields if name in holes]),
        leaves,
        "title" in in_data,
    )


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
