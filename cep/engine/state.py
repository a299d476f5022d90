"""State as bytes: what is stored of each key, how it is packed, what is refused.

A field is two bytes of version, four of checksum (CRC-32), then msgpack. State
comes back from a server that others can write to, so that it is data to be
checked like any payload: kernels follow the indices in it without looking.
What finds something wrong raises Contradiction; `unpack` and `Operator.restore` make
that a StateVersionError which names the field.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import numpy as np

from cep.engine.kernels import sums
from cep.errors import StateVersionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

STATE_VERSION = 5
ENGINE_FIELD = "engine"  # the name of the one field that belongs to no key
# Rows of a window that are stored together.
CHUNK_ROWS = 64

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
T = TypeVar("T")


class EngineState(msgspec.Struct):
    """What belongs to no key: the number of events so far, and rules that tripped.

    ``tripped`` maps a rule's identity to the event time at which it stopped, and why,
    ``errors`` to the event times at which its functions failed lately.
    Windows that ended by ``closed_ns`` have been told of.
    """

    order: Int64
    tripped: dict[str, tuple[Int64, Int64]] = {}
    closed_ns: Int64 = -(2**63)
    errors: dict[str, list[Int64]] = {}


def added(state: Mapping[str, bytes], other: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return what must be added to a snapshot to have what another one holds as well.

    That is all of the rules and windows that the first has nothing of, and a field
    for the engine that goes for both; the other one is of events that came before.
    """
    known = {_owner(name) for name in state}
    found = {name: blob for name, blob in other.items() if _owner(name) not in known}
    ours = unpack(ENGINE_FIELD, state[ENGINE_FIELD], EngineState)
    theirs = unpack(ENGINE_FIELD, other[ENGINE_FIELD], EngineState)
    ours.order = max(ours.order, theirs.order)
    ours.tripped = theirs.tripped | ours.tripped
    ours.errors = theirs.errors | ours.errors
    return found | {ENGINE_FIELD: pack(ours)}


def _owner(name: str) -> tuple[str, str]:
    """Return the rule or windows that a field belongs to."""
    kind, _, rest = name.partition("|")
    return "w" if kind == "c" else kind, rest.partition("|")[0]


class WindowRows(msgspec.Struct, array_like=True):
    """Rows of one key in one group of windows, from row ``first`` on.

    ``names`` says which values the columns of ``rows`` hold; values that are strings
    are places in ``texts``.
    """

    first: Int64
    times: bytes  # int64, ns
    rows: bytes  # float64, (rows, values)
    names: list[str]
    texts: list[str]


class WindowState(msgspec.Struct, array_like=True):
    """One key's window in one group, and the sums as they stood.

    It holds the rows from ``begin`` up to ``end``. The latest are here, those before
    in chunks of `CHUNK_ROWS`, fields of their own that are written once, so that what
    is written anew does not grow with the window. ``pairs`` says which pairs of values
    have sums. ``order`` says which of the engine's events was the last that entered.
    Where steps take the windows when they close, ``closing`` is the last event's id in
    two words and when its session began; else it is empty.
    """

    begin: Int64
    end: Int64
    latest: WindowRows
    sums: bytes  # float64, (values, SUMS_WIDTH)
    pair_sums: bytes  # float64, (pairs, PAIRS_WIDTH)
    order: Int64
    pairs: list[str]
    closing: list[Int64]

    def check(self) -> None:
        """Require what does not depend on the rows."""
        need(0 <= self.begin < self.end < 2**62)
        need(self.latest.first == max(self.begin, self.end - self.end % CHUNK_ROWS))
        need(len(self.sums) == 8 * sums.SUMS_WIDTH * len(self.latest.names))
        need(len(self.pair_sums) == 8 * sums.PAIRS_WIDTH * len(self.pairs))
        need(len(self.closing) in (0, 3))


class SlotState(msgspec.Struct, array_like=True):
    """What one key's slots hold: previous values and weighted means.

    ``names`` says which slots there are; of those whose value is a string, the
    first number is a place in ``texts``. ``order`` says which of the engine's
    events was the key's last.
    """

    values: bytes  # float64, (slots, 2)
    last_ns: Int64
    order: Int64
    names: list[str]
    texts: list[str]

    def array(self) -> NDArray[np.float64]:
        """Return the slots' values."""
        return _table(self.values, np.float64, 2, len(self.names))


class MatchState(msgspec.Struct, array_like=True):
    """One key's partial and held matches of one rule, and its last output's time."""

    live: Int64
    waiting: Int64
    partials: bytes  # int64, (live + waiting, PARTIAL_WIDTH)
    watched: bytes  # float64, (live + waiting,)
    nodes: bytes  # int64, (nodes, NODE_WIDTH)
    values: bytes  # float64, (nodes, captures); strings are places in `texts`
    held: bytes  # float64, (live + waiting, leaves); likewise
    texts: list[str]
    emitted_ns: Int64
    emitted_timeout_ns: Int64
    last_ns: Int64


_ENCODER = msgspec.msgpack.Encoder()
_VERSION = STATE_VERSION.to_bytes(2, "big")


def pack(value: msgspec.Struct) -> bytes:
    """Return a state as bytes."""
    body = _ENCODER.encode(value)
    return _VERSION + zlib.crc32(body).to_bytes(4, "big") + body


def unpack(name: str, blob: bytes, kind: type[T]) -> T:
    """Return the state in ``blob``; raise StateVersionError, naming the field."""
    version = int.from_bytes(blob[:2], "big")
    if len(blob) < 6 or version != STATE_VERSION:
        raise StateVersionError(name, f"version {version}", f"version {STATE_VERSION}")
    body = blob[6:]
    if zlib.crc32(body) != int.from_bytes(blob[2:6], "big"):
        raise damaged(name, "its checksum is wrong")
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise damaged(name, "it holds something else") from error


def damaged(name: str, why: str) -> StateVersionError:
    """Return the error for a field that cannot have been written by this code."""
    return StateVersionError(
        name,
        f"damaged ({why})",
        "an undamaged one",
        "Start anew under another pipeline name, or restore a backup.",
    )


class Contradiction(ValueError):
    """Parts of a state that do not fit together."""


def need(holds: bool) -> None:
    """Raise Contradiction where something does not hold."""
    if not holds:
        msg = "its parts contradict each other"
        raise Contradiction(msg)


def places(values: NDArray[np.float64], end: int) -> NDArray[np.int64]:
    """Return values as the places below ``end`` that they must be."""
    need(_places(values, end))
    return values.astype(np.int64)


def _table(
    raw: bytes, dtype: type[Any], width: int, rows: int | None = None
) -> NDArray[Any]:
    """Return bytes as a table; ``rows`` must be given where ``width`` may be 0."""
    need(len(raw) % (8 * width) == 0 if width else not raw)
    flat = np.frombuffer(raw, dtype)
    table = flat.reshape(-1, width) if width else np.zeros((rows or 0, 0), dtype)
    need(rows is None or len(table) == rows)
    return table


def _places(values: NDArray[np.float64], end: int) -> bool:
    present = values[~np.isnan(values)]
    inside = (present >= 0) & (present < end) & (present == np.floor(present))
    return bool(inside.all())
