"""Keys as small integers: one space for each combination of key fields.

Rules and windows with the same key fields share a space, so an event's key is
looked up once. Keys whose state has run empty are given back (`release`), and
their numbers are used again.
"""

from __future__ import annotations

import json
from json.encoder import encode_basestring as _string
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from cep.engine.growth import doubled, grown
from cep.engine.kernels.composite_keys import learn, look_up
from cep.engine.kernels.handle import WORDS, handle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cep.engine.interner import Interner

KeyValue = str | float | int | bool
Key = tuple[KeyValue, ...]


class KeySpace:
    """The keys of one combination of fields.

    ``kinds`` says of each field whether its column holds "str" codes, or
    numbers as "float", "int" or "bool".
    """

    def __init__(
        self, columns: tuple[int, ...], kinds: tuple[str, ...], strings: Interner
    ) -> None:
        self.columns, self.kinds, self.strings = columns, kinds, strings
        self.keys: list[Key | None] = []
        self._numbers: dict[Key, int] = {}
        self._free: list[int] = []
        self._parts = np.zeros((0, len(columns)))
        # For kernels that number the rows: all in one, or by a string.
        self.is_plain = not columns or kinds == ("str",)
        self._facts = np.array([*columns[:1], -1][:1])
        self.handle = np.zeros((2, WORDS), np.int64)
        self._remap = np.zeros(0, np.int64)
        self._forget_table(64)
        self.forget_codes()
        if not columns:
            self.number(())

    def __len__(self) -> int:
        """How many numbers are in use or were; state tables have this length."""
        return len(self.keys)

    @property
    def live(self) -> int:
        """How many keys there are."""
        return len(self._numbers)

    def number(self, key: Key) -> int:
        """Return the number of a key, a new one when it is new."""
        found = self._numbers.get(key)
        if found is None:
            if self._free:
                found = self._free.pop()
                self.keys[found] = key
            else:
                found = len(self.keys)
                self.keys.append(key)
            self._numbers[key] = found
        return found

    def _place(self, code: int, number: int) -> None:
        """Remember that a string's code is the key with that number."""
        if code >= self._remap.size:
            size = max(2 * self._remap.size, code + 1)
            self._remap = grown(self._remap, size, -1)
            self.handle[:] = handle([self._remap, self._facts])
        self._remap[code] = number

    def forget_codes(self) -> None:
        """Ask anew for each string's key, as when codes have changed."""
        self._remap = np.full(64, -1, np.int64)
        self.handle[:] = handle([self._remap, self._facts])
        self._parts = np.zeros((0, len(self.columns)))
        self._stale = True

    def release(self, number: int) -> None:
        """Forget a key; its number may be given to another."""
        key = self.keys[number]
        assert key is not None
        del self._numbers[key]
        self.keys[number] = None
        self._parts[number : number + 1] = np.nan
        self._stale = True
        self._free.append(number)
        if self.kinds == ("str",):
            code = self.strings.knows(str(key[0]))
            if 0 <= code < self._remap.size:
                self._remap[code] = -1

    def number_codes(self, codes: NDArray[np.float64]) -> None:
        """Number the keys of these codes of strings, where they have no number."""
        present = np.unique(codes[~np.isnan(codes)]).astype(np.int64)
        known = present < self._remap.size
        known[known] = self._remap[present[known]] >= 0
        for code in present[~known].tolist():
            self._place(code, self.number((self.strings.text(code),)))

    def number_rows(self, cols: NDArray[np.float64], out: NDArray[np.int64]) -> None:
        """Fill ``out`` with the numbers of the keys in ``cols``.

        A row that lacks a field gets -1.
        """
        parts, at = cols[list(self.columns)], 0
        if self._stale:
            self._forget_table(64)
        while True:
            at = look_up(parts, self._slots, self._slot_parts, out, at)
            if at == out.size:
                return
            if 2 * self._taken >= self._slots.size:
                # Of all that it knew it learns again what still comes.
                self._forget_table(2 * self._slots.size)
            number = self.number(self._key(parts[:, at]))
            learn(parts, at, number, self._slots, self._slot_parts)
            self._taken += 1

    def _forget_table(self, size: int) -> None:
        """Empty the table from values to numbers; ``size`` is a power of two."""
        self._slots = np.full(size, -1, np.int64)
        self._slot_parts = np.zeros((size, len(self.columns)))
        self._taken, self._stale = 0, False

    def _key(self, values: NDArray[np.float64]) -> Key:
        return tuple(
            self._value(value, kind)
            for value, kind in zip(values.tolist(), self.kinds, strict=True)
        )

    def _value(self, value: float, kind: str) -> KeyValue:
        if kind == "str":
            return self.strings.text(int(value))
        if kind == "bool":
            return bool(value)
        return int(value) if value.is_integer() else value

    def columns_of(self, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return keys as `columns` hold them: shape (fields, n)."""
        have = len(self._parts)
        if have < len(self.keys):
            rows = doubled(max(have, 16), len(self.keys))
            self._parts = grown(self._parts, rows, np.nan)
        found = self._parts[numbers]
        new = np.unique(numbers[np.isnan(found).any(axis=1)])
        for number in new.tolist():
            key = self.keys[number]
            assert key is not None
            self._parts[number] = [
                self.strings.code(str(value)) if kind in ("str", "json") else value
                for value, kind in zip(key, self.kinds, strict=True)
            ]
        return (self._parts[numbers] if new.size else found).T

    def parts(self, number: int) -> tuple[str, ...]:
        """Return a key's values as text."""
        return tuple(map(str, self.keys[number] or ()))

    def canonical(self, number: int) -> str:
        """Return a key unmistakably, for ids and state: a JSON array."""
        key = self.keys[number]
        if self.kinds == ("str",) and key is not None:
            return f"[{_string(str(key[0]))}]"
        return json.dumps(key, ensure_ascii=False, separators=(",", ":"))

    def from_canonical(self, text: str) -> int:
        """Return the number of a key written by `canonical`.

        Raises
        ------
        ValueError
            If `canonical` cannot have written it.
        """
        try:
            parts = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            parts = None
        fits = isinstance(parts, list) and len(parts) == len(self.kinds)
        if not fits or not all(map(_is_of, parts, self.kinds)):
            msg = f"{text[:80]!r} is no key of it"
            raise ValueError(msg)
        number = self.number(tuple(parts))
        if self.canonical(number) != text:
            msg = f"{text[:80]!r} is not how its keys are written"
            raise ValueError(msg)
        return number


def _is_of(value: object, kind: str) -> bool:
    if kind in ("str", "json"):
        return isinstance(value, str)
    if kind == "bool":
        return isinstance(value, bool)
    return isinstance(value, (int, float)) and not isinstance(value, bool)
