"""How columns of one shape go into a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cep.engine.kernels import loading
from cep.engine.kernels.handle import handle
from cep.engine.kernels.rows import ROWS, TYPE
from cep.rules.types import ENVELOPE, payload_kinds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cep.engine.plan import Plan
    from cep.events.columns import Column, EventColumns

MOST_TEXTS = 256  # of a dictionary that is taken up whole for however few rows
_DTYPES = np.array([id(dtype) for dtype in loading.DTYPES])
_ROWS = {
    "time_ms": np.int64,
    "entry_ms": np.int64,
    "entry_seq": np.int64,
    "id_hi": np.uint64,
    "id_lo": np.uint64,
    "type_code": np.int32,
}


class Loading:
    """Loads columns whose types and fields are named alike.

    Parameters
    ----------
    columns
        Some of that shape.
    """

    def __init__(self, plan: Plan, columns: EventColumns) -> None:
        self._plan = plan
        self._envelope: list[tuple[int, str, bool]] = []
        self._payload: list[tuple[int, str, bool, bool]] = []
        for number, column in plan.inputs.items():
            name, is_text = column.name, column.kind == "str"
            if name in ("@type", "@time") or name in ENVELOPE:
                self._envelope.append((number, name, is_text))
                continue
            names = [x for x in columns.fields if x.rpartition(":")[2] == name]
            self._payload += [(number, x, is_text, x != names[0]) for x in names]
        code_of = {name: code for code, name in enumerate(plan.types)}
        filled = {number for number, *_ in self._payload}
        fields = np.zeros((len(self._payload), loading.FIELD_WIDTH), np.int64)
        for row, (number, _, is_text, over) in enumerate(self._payload):
            fields[row, loading.F_COLUMN] = number
            fields[row, loading.F_TEXT], fields[row, loading.F_OVER] = is_text, over
        self._fields = fields
        # The kernel takes a certain number at once, and rows with the first.
        missing = -len(fields) % loading.FIELDS if len(fields) else loading.FIELDS
        self._padding = [0] * (2 * missing)
        self._wanted = [
            (row, name, is_text)
            for row, (_, name, is_text, _) in enumerate(self._payload)
        ]
        # Of each text field: its dictionary, and the codes of as many texts.
        self._texts: list[list[str] | None] = [None] * len(fields)
        self._lengths = [0] * len(fields)
        self._codes = [np.zeros(0)] * len(fields)
        self._coding = plan.strings.texts
        self._tables = [
            np.array([i for i in range(plan.column_count) if i not in filled], int),
            np.array([code_of.get(t, -1) for t in columns.types] or [-1], int),
            fields,
            _DTYPES,
        ]
        self._handle = handle(self._tables)
        self._address = self._handle.ctypes.data

    def load(
        self, columns: EventColumns, stream: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the tables of a batch."""
        n = len(columns.time_ms)
        ints = np.empty((ROWS, n), np.int64)
        cols = np.empty((self._plan.column_count, n))
        given = self._given(columns)
        if given is None or not self._load(ints, cols, stream, columns, given):
            given = [0] * (2 * len(self._payload)) + self._padding
            columns = _plain(columns)
            self._load(ints, cols, stream, columns, given)
            for number, name, is_text, over in self._payload:
                self._fill(cols[number], columns.fields[name], is_text, over=over)
        for number, name, is_text in self._envelope:
            self._load_envelope(cols[number], name, is_text, columns, ints[TYPE])
        return ints, cols

    def _load(
        self,
        ints: NDArray[np.int64],
        cols: NDArray[np.float64],
        stream: int,
        columns: EventColumns,
        given: list[int],
    ) -> bool:
        """Let the kernel load what is ``given``; False if it does not read it."""
        for first in range(0, len(given) // 2, loading.FIELDS):
            at_once = given
            if len(given) > 2 * loading.FIELDS:
                at_once = given[2 * first : 2 * (first + loading.FIELDS)]
            if not loading.load(
                self._address,
                id(ints),
                id(cols),
                stream,
                id(columns.time_ms),
                id(columns.entry_ms),
                id(columns.entry_seq),
                id(columns.id_hi),
                id(columns.id_lo),
                id(columns.type_code),
                first,
                *at_once,
            ):
                return False
        return True

    def _given(self, columns: EventColumns) -> list[int] | None:
        """Return values and masks of the fields as objects.

        None where not all are as the plan has them.
        """
        given: list[int] = []
        fields, strings = columns.fields, self._plan.strings
        if self._coding is not strings.texts:
            self._coding = strings.texts
            self._texts = [None] * len(self._texts)
        for row, name, is_text in self._wanted:
            column = fields[name]
            values, texts = column.values, column.texts
            if is_text:
                if texts is None:
                    return None
                known = texts is self._texts[row] and len(texts) == self._lengths[row]
                if not known and not self._learn(row, texts, len(values)):
                    return None
            elif texts is not None:
                return None
            valid = column.valid
            given += id(values), 0 if valid is None else id(valid)
        return given + self._padding

    def _learn(self, row: int, texts: list[str], n: int) -> bool:
        """Get the codes of a field's texts, unless they are many for so few rows."""
        if not texts or len(texts) > max(MOST_TEXTS, 2 * n):
            return False
        codes = self._plan.strings.dictionary(texts).astype(np.float64)
        self._codes[row], self._fields[row, loading.F_CODES] = codes, id(codes)
        self._texts[row], self._lengths[row] = texts, len(texts)
        return True

    def _load_envelope(
        self,
        out: NDArray[np.float64],
        name: str,
        is_text: bool,
        columns: EventColumns,
        types: NDArray[np.int64],
    ) -> None:
        strings = self._plan.strings
        if name == "@type":
            out[:] = types
            return
        if name == "@time":
            out[:] = columns.time_ms
            return
        if is_text and name in ("correlation_id", "user_id"):
            envelope = columns.fields.get(f"@{name}")
            if envelope is not None:
                self._fill(out, envelope, is_text, absent="")
        if name == "event_time":
            out[:] = columns.time_ms
        elif name == "type":
            out[:] = strings.codes(columns.types)[columns.type_code]
        elif name == "stream":
            out[:] = strings.code(columns.stream)
        # Where a type has the field in its payload, that one is meant, or nothing.
        for code, event_type in enumerate(self._plan.types):
            if name in payload_kinds(event_type):
                out[types == code] = np.nan
        for field_name, column in columns.fields.items():
            if field_name.rpartition(":")[2] == name:
                self._fill(out, column, is_text)

    def _fill(
        self,
        out: NDArray[np.float64],
        column: Column,
        is_text: bool,
        *,
        absent: str | None = None,
        over: bool = True,
    ) -> None:
        """Load a column; one of the other kind is another type's: without values.

        ``over`` whether rows without a value stay as they are.
        """
        texts, values = column.texts, column.values
        if (texts is not None) != is_text or texts == []:
            if not over:
                out[:] = np.nan
            return
        valid: Any = True if column.valid is None else column.valid
        if texts is not None:
            if absent in texts:
                valid = (values != texts.index(absent)) & valid
            # Only the texts that are there are taken up.
            used, places = np.unique(values, return_inverse=True)
            codes = self._plan.strings.codes([texts[code] for code in used.tolist()])
            values = codes[places]
        if not over:
            out[:] = np.nan
        np.copyto(out, values, where=valid)


def _plain(columns: EventColumns) -> EventColumns:
    """Return the columns with contiguous arrays of the very dtypes."""
    arrays = {
        name: np.ascontiguousarray(getattr(columns, name)).astype(dtype)
        for name, dtype in _ROWS.items()
    }
    return type(columns)(
        columns.stream, types=columns.types, fields=columns.fields, **arrays
    )
