"""Event ids: ULIDs made in order, and ULIDs derived from their cause.

A ULID is 128 bits: 48 bits of milliseconds since 1970 in UTC, then 80 bits of
randomness, written as 26 characters of Crockford's base 32. We read and write
only the canonical form: upper case, none of I, L, O, U, first character at
most ``7``. In that form texts, 128-bit numbers and ``(hi, lo)`` pairs of
64-bit words sort alike.

Source: github.com/ulid/spec.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from typing import Final

from cep.errors import InvalidIdError

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH: Final = 26
MAX_TIME_MS: Final = 2**48 - 1
_RANDOM_BITS: Final = 80
_MAX_RANDOM: Final = 2**_RANDOM_BITS - 1
_WORD: Final = 2**64 - 1
# int(text, 32) knows 0-9 a-v, so one translation makes the builtin do the work.
_TO_PYTHON: Final = str.maketrans(ALPHABET, "0123456789ABCDEFGHIJKLMNOPQRSTUV")
_PAIRS: Final = [a + b for a in ALPHABET for b in ALPHABET]
_KNOWN: Final = frozenset(ALPHABET)


def ulid_to_int(text: str) -> int:
    """Return a ULID as its 128-bit number, or raise InvalidIdError."""
    problem = ulid_problem(text)
    if problem:
        raise InvalidIdError(text, problem)
    return int(text.translate(_TO_PYTHON), 32)


def ulid_problem(text: str) -> str:
    """Return what keeps a text from being a canonical ULID, "" if nothing does."""
    if len(text) != LENGTH:
        return f"it has {len(text)} characters"
    if not _KNOWN.issuperset(text):
        wrong = next(char for char in text if char not in _KNOWN)
        return f"it has the character {wrong!r}"
    return "it is more than 128 bits" if text[0] > "7" else ""


def int_to_ulid(number: int) -> str:
    """Return a number of at most 128 bits as a ULID."""
    if not 0 <= number < 2**128:
        msg = f"a ULID is a number of 128 bits, got {number!r}"
        raise ValueError(msg)
    return "".join(_PAIRS[(number >> shift) & 1023] for shift in range(120, -1, -10))


def ulid_to_words(text: str) -> tuple[int, int]:
    """Return the upper and lower 64 bits of a ULID, or raise InvalidIdError.

    >>> ulid_to_words("00000000000000000000000010")
    (0, 32)
    """
    number = ulid_to_int(text)
    return number >> 64, number & _WORD


def words_to_ulid(hi: int, lo: int) -> str:
    """Return the ULID of two 64-bit words; numpy integers are fine.

    >>> words_to_ulid(0, 32)
    '00000000000000000000000010'
    """
    return int_to_ulid((int(hi) << 64) | int(lo))


def ulid_time_ms(text: str) -> int:
    """Return the time part of a ULID, milliseconds since 1970 in UTC."""
    return ulid_to_int(text) >> _RANDOM_BITS


def derived_ulid(time_ms: int, parts: bytes) -> str:
    """Return the id that belongs to a cause: same cause, same id, for ever.

    Parameters
    ----------
    time_ms
        The completing event's time, milliseconds since 1970 in UTC, 48 bits.
    parts
        The cause, encoded so that different causes give different bytes
        (lengths before texts). Its 80-bit BLAKE2b hash is the random part.

    Examples
    --------
    >>> derived_ulid(1469918176385, b"rule 1")
    '01ARYZ6S419WM4ATHMZVXYX4QJ'
    """
    if not 0 <= time_ms <= MAX_TIME_MS:
        msg = f"time_ms must be 0 to 2**48 - 1 milliseconds, got {time_ms!r}"
        raise ValueError(msg)
    random = int.from_bytes(random_part(parts), "big")
    return int_to_ulid((time_ms << _RANDOM_BITS) | random)


def random_part(parts: bytes) -> bytes:
    """Return the last 10 bytes of the id that belongs to a cause."""
    return hashlib.blake2b(parts, digest_size=_RANDOM_BITS // 8).digest()


class MonotonicUlids:
    """Makes ULIDs that rise strictly, in one process, from any thread.

    Within a millisecond each is the last plus one. If the clock goes back,
    the last millisecond is kept, so ids still rise. When the 80 random bits
    are used up, the next id takes the next millisecond.

    >>> ids = MonotonicUlids()
    >>> ids.next() < ids.next() < ids.next()
    True
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._time_ms = -1
        self._random = 0

    def next(self, ms: int | None = None) -> str:
        """Return the next id, of time ``ms`` (milliseconds since 1970) or now."""
        wanted = time.time_ns() // 1_000_000 if ms is None else ms
        if not 0 <= wanted <= MAX_TIME_MS:
            msg = f"ms must be 0 to 2**48 - 1 milliseconds, got {wanted!r}"
            raise ValueError(msg)
        with self._lock:
            if wanted > self._time_ms:
                self._start(wanted)
            elif self._random < _MAX_RANDOM:
                self._random += 1
            else:
                self._start(self._time_ms + 1)
            number = (self._time_ms << _RANDOM_BITS) | self._random
        return int_to_ulid(number)

    def _start(self, time_ms: int) -> None:
        self._time_ms = time_ms
        self._random = int.from_bytes(os.urandom(_RANDOM_BITS // 8), "big")
