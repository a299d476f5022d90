r"""JSON objects in entries: reading foreign ones, writing ours.

What is read is JSON as RFC 8259 has it, in UTF-8 without a byte order mark, as
`msgspec.json.decode` judges it. No NaN, Infinity, comments or trailing commas;
a number beyond the largest double (``1e999``) and an escaped lone surrogate
(``"\ud800"``) make the text malformed; of a key that occurs twice the last
value counts (`repeated_key` finds those that may not). Nesting is limited to 32
levels, the object itself being the first, because every reader after us must be
able to walk it.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from cep.errors import Problem, WireError, shown
from cep.events.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_DEPTH: Final = 32
_MAX_INT_BITS: Final = 13_287
"""Integers to 4,000 digits: Python itself refuses to read longer ones."""

# A whole string (or the rest, if it is not closed), or one bracket.
_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_decoder: Final = msgspec.json.Decoder()
_encoder: Final = msgspec.json.Encoder()


def parse_object(raw: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object in ``raw``; ``where`` is how messages call it.

    Raises
    ------
    WireError
        too_large if brackets outside strings nest deeper than 32, whether or
        not the rest is JSON; malformed_json; not_an_object.
    """
    if is_too_deep(raw):
        raise WireError(
            Reason.TOO_LARGE,
            f"{where} nests deeper than {MAX_DEPTH} levels, which is the most allowed",
        )
    try:
        value = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        detail = f"{where} is {_excerpt(raw)}, allowed: a JSON object ({error})"
        raise WireError(Reason.MALFORMED_JSON, detail) from None
    if not isinstance(value, dict):
        detail = f"{where} is {_excerpt(raw)}, allowed: a JSON object"
        raise WireError(Reason.NOT_AN_OBJECT, detail)
    return value


def is_too_deep(raw: bytes) -> bool:
    """Return whether brackets outside strings nest deeper than 32 levels."""
    if raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH:
        return False
    depth = 0
    for token in _TOKENS.finditer(raw):
        first = raw[token.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif first in b"]}":
            depth -= 1
    return False


def repeated_key(raw: bytes, names: Sequence[str]) -> str | None:
    r"""Return the first of ``names`` that is a key of the object twice, if one is.

    ``raw`` must be a JSON object; only its own keys count, not those inside.

    >>> repeated_key(b'{"a":1,"b":{"a":2}}', ["a"]) is None
    True
    >>> repeated_key(b'{"a":1,"\\u0061":2}', ["a"])
    'a'
    """
    if b"\\" not in raw and all(raw.count(f'"{n}"'.encode()) < 2 for n in names):
        return None
    # The outermost object comes last.
    seen: Counter[str] = Counter()

    def pairs(found: list[tuple[str, Any]]) -> None:
        seen.clear()
        seen.update(key for key, _ in found)

    json.loads(raw, object_pairs_hook=pairs)
    return next((name for name in names if seen[name] > 1), None)


def _excerpt(raw: bytes) -> str:
    return shown(raw.decode("utf-8", "replace"))


def dump_object(obj: dict[str, Any]) -> bytes:
    """Return the compact JSON text of an object that `plain` has returned."""
    return _encoder.encode(obj)


def plain(value: Any, path: str, problems: list[Problem], depth: int = 1) -> Any:
    """Return a value made of exactly JSON's types, adding what is wrong to a list.

    Tuples become lists; subclasses of str, int, float and dict become what they
    refine. Wrong are NaN and infinities, keys that are not strings, text that
    is not Unicode (lone surrogates), integers of more than 4,000 digits, more
    than 32 levels, and every other type.

    >>> problems = []
    >>> plain({"a": (1, float("nan"))}, "data", problems)
    {'a': [1, None]}
    >>> str(problems[0])
    'data.a[1] is nan (float), allowed: a finite number'
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, path, problems)
    if isinstance(value, int):
        if value.bit_length() <= _MAX_INT_BITS:
            return int(value)
        size = f"an integer of {value.bit_length()} bits"
        problems.append(Problem(path, size, "an integer of up to 4,000 digits"))
        return None
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        problems.append(Problem(path, shown(value), "a finite number"))
        return None
    if not isinstance(value, dict | list | tuple):
        problems.append(Problem(path, shown(value), "a JSON value"))
        return None
    if depth > MAX_DEPTH:
        what = f"nested deeper than {MAX_DEPTH} levels"
        problems.append(Problem(path, what, f"up to {MAX_DEPTH} levels"))
        return None
    if isinstance(value, dict):
        return {
            _key(key, path, problems): plain(
                inner, f"{path}.{key}", problems, depth + 1
            )
            for key, inner in value.items()
        }
    return [
        plain(inner, f"{path}[{index}]", problems, depth + 1)
        for index, inner in enumerate(value)
    ]


def _text(value: str, path: str, problems: list[Problem]) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            problems.append(Problem(path, shown(value), "text without lone surrogates"))
    return str(value) if type(value) is str else str.__str__(value)


def _key(key: object, path: str, problems: list[Problem]) -> str:
    if isinstance(key, str):
        return _text(key, f"a key of {path}", problems)
    problems.append(Problem(f"a key of {path}", shown(key), "a string"))
    return ""
