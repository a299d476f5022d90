"""Columns of payload fields, checked as a whole and written as JSON.

The verdict is that of `Event.new` on each row, but for a known type with plain
fields it is reached column by column. A user's own model may hold checks that
`FieldSpec` does not know, so its rows also pass through the model, one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from cep.bus.row_template import Hole, Texts
from cep.errors import InvalidPayloadError, Problem, UsageError, shown
from cep.events.json_text import dump_object, plain
from cep.events.publishing import publishable_payload
from cep.events.schema import (
    INT_MAX,
    INT_MIN,
    FieldSpec,
    allowed,
    check_value,
    missing_field,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from cep.events.registry import EventType

PROBLEMS_SHOWN: Final = 10
_TEXTS_KEPT: Final = 65_536
_INT_LIMIT: Final = float(2**63)
_OWN_MODELS: Final = "cep.events.models."
_encode: Final = msgspec.json.encode


@dataclass(slots=True)
class PayloadColumn:
    """The values of one field: a numeric array, or a list with None for null."""

    field: FieldSpec
    values: NDArray[Any] | list[Any]
    has_nulls: bool = False

    @property
    def may_be_absent(self) -> bool:
        """Whether some rows leave this field out."""
        return self.has_nulls and not (self.field.required and self.field.nullable)


class Payloads:
    """The payloads of many events of one type, valid as a whole.

    Parameters
    ----------
    event_type
        What they are.
    columns
        Field name to values: numpy arrays, lists, or anything with
        ``to_list``, ``to_pylist`` or ``tolist`` (polars, pandas, Arrow). None,
        and where pandas or polars say null, leaves an optional field out. NaN
        in a numpy array or a list is a wrong number, not a null.

    Raises
    ------
    UsageError
        If columns differ in length.
    InvalidPayloadError
        Naming the first problems of all columns, as ``data.price[17]``.
    """

    def __init__(self, event_type: EventType, columns: Mapping[str, Any]) -> None:
        self.event_type = event_type
        read = {str(name): read_column(data) for name, data in columns.items()}
        self.rows = _common_length({name: len(one) for name, one in read.items()})
        self.columns: list[PayloadColumn] = []
        self._texts = _JsonTexts()
        self._rows: list[bytes] | None = None
        if event_type.model.__module__.startswith(_OWN_MODELS):
            problems = self._check_by_column(read)
        else:
            problems = self._check_by_row(read)
        if problems:
            raise InvalidPayloadError(event_type.name, problems[:PROBLEMS_SHOWN])
        # Fields that each row has come first, so that commas are constant.
        self.columns.sort(key=lambda column: column.may_be_absent)
        self._template = _template(self.columns)

    def _check_by_column(
        self, read: dict[str, NDArray[Any] | list[Any]]
    ) -> list[Problem]:
        event_type = self.event_type
        specs = {field.name: field for field in event_type.fields}
        problems = [
            missing_field(field, read, event_type.fields, "data")
            for field in event_type.fields
            if field.required and field.name not in read
        ]
        for name, values in read.items():
            field = specs.get(name) or _stranger(name, values)
            self.columns.append(_checked(field, values, problems))
        return problems

    def _check_by_row(self, read: dict[str, NDArray[Any] | list[Any]]) -> list[Problem]:
        must = {field.name for field in self.event_type.fields if field.required}
        lists = [
            one if isinstance(one, list) else one.tolist() for one in read.values()
        ]
        self._rows = []
        problems: list[Problem] = []
        for index in range(self.rows):
            payload = {
                name: values[index]
                for name, values in zip(read, lists, strict=True)
                if values[index] is not None or name in must
            }
            try:
                written = publishable_payload(self.event_type, payload)
            except InvalidPayloadError as error:
                problems += [_in_row(problem, index) for problem in error.problems]
                if len(problems) >= PROBLEMS_SHOWN:
                    break
            else:
                self._rows.append(dump_object(written))
        return problems

    def encode(self, start: int, stop: int) -> list[bytes]:
        """Return the JSON texts of rows ``start`` to ``stop`` (exclusive)."""
        if self._rows is not None:
            return self._rows[start:stop]
        if not self.columns:
            return [b"{}"] * (stop - start)
        parts = [self._fragments(column, start, stop) for column in self.columns]
        template = self._template
        rows = [template % row for row in zip(*parts, strict=True)]
        if self.columns[0].may_be_absent:
            # No field is sure to be there: each brings its own comma.
            rows = [b"{" + row[2:] if row[1:2] == b"," else row for row in rows]
        return rows

    def parts(self) -> list[bytes | Hole]:
        """Return what a payload is made of; `texts` says what goes into the holes."""
        if self._rows is not None or self._may_leave_out or not self.columns:
            return [Hole("data")]
        found: list[bytes | Hole] = []
        for column in self.columns:
            key = _encode(column.field.name)
            found += [
                b"," if found else b"{",
                key,
                b":",
                Hole("data." + column.field.name),
            ]
        return [*found, b"}"]

    def texts(self, start: int, stop: int) -> dict[str, Texts]:
        """Return what fills the holes of rows ``start`` to ``stop`` (exclusive)."""
        if self.parts() == [Hole("data")]:
            return {"data": Texts.of(self.encode(start, stop))}
        return {
            "data." + column.field.name: self._texts_of(column, start, stop)
            for column in self.columns
        }

    def _texts_of(self, column: PayloadColumn, start: int, stop: int) -> Texts:
        if isinstance(column.values, np.ndarray):
            return Texts.between_commas(_encode(column.values[start:stop].tolist()))
        return Texts.of(self._fragments(column, start, stop))

    @property
    def _may_leave_out(self) -> bool:
        return any(column.may_be_absent for column in self.columns)

    def longest_text(self) -> int:
        """Return the characters of the longest text or nested value."""
        longest = max(map(len, self._rows or ()), default=0)
        for column in self.columns:
            if isinstance(column.values, list):
                kept = [one for one in column.values if one is not None]
                if kept and column.field.kind == "str":
                    longest = max(longest, *map(len, kept))
                elif kept and column.field.kind == "json":
                    longest = max(longest, *(len(_encode(one)) for one in kept))
        return longest

    def _fragments(self, column: PayloadColumn, start: int, stop: int) -> list[bytes]:
        values = column.values[start:stop]
        if isinstance(values, np.ndarray):
            found = _encode(values.tolist())[1:-1].split(b",") if len(values) else []
        elif column.field.kind == "str":
            found = list(map(self._texts.__getitem__, values))
        elif column.field.kind == "json":
            found = [_encode(value) for value in values]
        else:
            found = _encode(values)[1:-1].split(b",") if values else []
        if column.may_be_absent:
            key = b"," + _encode(column.field.name) + b":"
            found = [b"" if text == b"null" else key + text for text in found]
        return found


def read_column(data: Any) -> NDArray[Any] | list[Any]:
    """Return a column as a numeric or boolean array, or as a list with None."""
    if isinstance(data, np.ndarray):
        array = data
    elif isinstance(data, list | tuple):
        return list(data)
    elif callable(getattr(data, "null_count", None)) and hasattr(data, "to_list"):
        # polars: to_numpy would turn nulls into NaN.
        array = np.asarray(data.to_list() if data.null_count() else data.to_numpy())
        if data.null_count() or array.dtype.kind not in "fiub":
            return list(data.to_list())
    elif hasattr(data, "isna") and hasattr(data, "to_numpy"):
        null = np.asarray(data.isna())
        array = data.to_numpy()
        if null.any() or array.dtype.kind not in "fiub":
            return [
                None if gone else value
                for value, gone in zip(data.tolist(), null.tolist(), strict=True)
            ]
    elif hasattr(data, "to_pylist"):
        return list(data.to_pylist())
    elif isinstance(data, str | bytes) or not hasattr(data, "__iter__"):
        raise UsageError(
            f"{shown(data)} is not a column.",
            "Pass one value per event: a list, an array or a Series.",
        )
    else:
        return list(data)
    if array.ndim != 1:
        raise UsageError(
            f"A column has the shape {array.shape}.", "Pass one value per event."
        )
    if array.dtype.kind in "fiub":
        return array
    if array.dtype.kind == "O":
        return list(array)
    return list(array.tolist())


def _common_length(lengths: dict[str, int]) -> int:
    if len(set(lengths.values())) > 1:
        shown_lengths = ", ".join(f"{name}: {n}" for name, n in lengths.items())
        raise UsageError(
            f"The columns differ in length ({shown_lengths}).",
            "Pass one value per event in each.",
        )
    return next(iter(lengths.values()), 0)


def _stranger(name: str, values: NDArray[Any] | list[Any]) -> FieldSpec:
    """Return how to check a field that the type does not declare."""
    if isinstance(values, list) and set(map(type, values)) <= {str, type(None)}:
        return FieldSpec(name, "str", required=False)
    return FieldSpec(name, "json", required=False)


def _checked(
    field: FieldSpec, values: NDArray[Any] | list[Any], problems: list[Problem]
) -> PayloadColumn:
    room = PROBLEMS_SHOWN - len(problems)
    if isinstance(values, np.ndarray):
        found: list[Problem] = []
        array, wrong = _check_array(field, values)
        for index in wrong[: max(room, 1)].tolist():
            value = values[index].item()
            found.append(_told(field, value, f"data.{field.name}[{index}]"))
        problems += found
        return PayloadColumn(field, array)
    return _checked_list(field, values, problems)


def _check_array(
    field: FieldSpec, values: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the array as it is written, and the rows whose value is wrong."""
    kind = values.dtype.kind
    none = np.zeros(0, np.intp)
    wanted = field.kind
    if wanted == "json" and field.shape == "any" and field.items is None:
        wanted = {"f": "float", "b": "bool"}.get(kind, "int")  # type: ignore[assignment]
    if wanted == "float" and kind in "fiu":
        if kind == "f":
            values = values.astype(np.float64)
            return values, np.flatnonzero(~np.isfinite(values))
        return values, none
    if wanted == "int" and kind in "iu":
        return values, np.flatnonzero(values > INT_MAX) if kind == "u" else none
    if wanted == "int" and kind == "f":
        exact = values.astype(np.float64)
        good = np.isfinite(exact) & (exact >= -_INT_LIMIT) & (exact < _INT_LIMIT)
        good &= exact == np.floor(exact)
        return np.where(good, exact, 0).astype(np.int64), np.flatnonzero(~good)
    if wanted == "bool" and kind == "b":
        return values, none
    return values, np.arange(len(values))


def _checked_list(
    field: FieldSpec, values: list[Any], problems: list[Problem]
) -> PayloadColumn:
    has_nulls = None in values
    column = PayloadColumn(field, values, has_nulls)
    kept = [value for value in values if value is not None] if has_nulls else values
    if has_nulls and field.required and not field.nullable:
        index = values.index(None)
        problems.append(_told(field, None, f"data.{field.name}[{index}]"))
    elif not _plainly_good(field, kept):
        column.values = _check_one_by_one(field, values, problems)
    return column


def _plainly_good(field: FieldSpec, kept: list[Any]) -> bool:
    """Return whether all values are at once seen to be good (most ever are)."""
    types = set(map(type, kept))
    if field.kind == "str":
        return types <= {str} and _good_texts(field, set(kept))
    if field.kind == "bool":
        return types <= {bool}
    if field.kind == "int" and types <= {int}:
        return not kept or INT_MIN <= min(kept) <= max(kept) <= INT_MAX
    if field.kind == "float" and types <= {float, int}:
        try:
            return bool(np.isfinite(np.array(kept, np.float64)).all())
        except OverflowError:
            return False
    return False


def _good_texts(field: FieldSpec, texts: set[str]) -> bool:
    if field.non_empty and "" in texts:
        return False
    if field.choices is not None and not texts.issubset(field.choices):
        return False
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_one_by_one(
    field: FieldSpec, values: list[Any], problems: list[Problem]
) -> list[Any]:
    written = []
    for index, value in enumerate(values):
        if value is not None:
            if isinstance(value, np.generic):
                value = value.item()
            path = f"data.{field.name}[{index}]"
            found: list[Problem] = []
            value = plain(value, path, found, depth=2)
            found = found or check_value(field, value, path, closed_choices=True)
            problems += found
            if len(problems) >= PROBLEMS_SHOWN:
                break
            if field.kind == "int" and not found:
                value = int(value)
        written.append(value)
    return written


def _told(field: FieldSpec, value: object, path: str) -> Problem:
    return Problem(path, shown(value), allowed(field))


def _in_row(problem: Problem, index: int) -> Problem:
    head, _, rest = problem.path.partition(".")
    name, separator, inner = rest.partition(".")
    path = f"{head}.{name}[{index}]{separator}{inner}" if rest else f"{head}[{index}]"
    return problem._replace(path=path)


def _template(columns: Sequence[PayloadColumn]) -> bytes:
    out = b""
    for column in columns:
        if column.may_be_absent:
            out += b"%b"
        else:
            key = _encode(column.field.name).replace(b"%", b"%%")
            out += (b"," if out else b"") + key + b":%b"
    return b"{" + out + b"}"


class _JsonTexts(dict[str | None, bytes]):
    """JSON of texts; most columns repeat few."""

    def __init__(self) -> None:
        super().__init__()
        self[None] = b"null"

    def __missing__(self, text: str) -> bytes:
        found = _encode(text)
        if len(self) < _TEXTS_KEPT:
            self[text] = found
        return found


def dump_metadata(metadata: Mapping[str, Any] | None, event_type: str) -> bytes:
    """Return metadata as JSON, or raise InvalidPayloadError."""
    problems: list[Problem] = []
    about = plain(dict(metadata or {}), "metadata", problems)
    if problems:
        raise InvalidPayloadError(event_type, problems)
    return dump_object(about)


def texts_of(name: str, data: Any, rows: int, event_type: str) -> list[bytes] | bytes:
    """Return an envelope field as one text for all rows, or one for each.

    None and ``''`` mean that there is none.
    """
    if data is None or isinstance(data, str):
        return _utf8(data or "", name, event_type)
    values = read_column(data)
    _common_length({"the columns": rows, name: len(values)})
    return [
        _utf8(value or "", f"{name}[{index}]", event_type)
        for index, value in enumerate(_as_iterable(values))
    ]


def _as_iterable(values: NDArray[Any] | list[Any]) -> Iterable[Any]:
    return values if isinstance(values, list) else values.tolist()


def _utf8(value: Any, path: str, event_type: str) -> bytes:
    problems: list[Problem] = []
    if not isinstance(value, str):
        problems.append(Problem(path, shown(value), "a string or null"))
    else:
        plain(value, path, problems)
    if problems:
        raise InvalidPayloadError(event_type, problems)
    return str(value).encode()
