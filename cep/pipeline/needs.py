"""Which entries of streams the pipelines on a server still need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cep.bus.connection import clear_errors
from cep.bus.keys import meta_key
from cep.errors import StateVersionError
from cep.pipeline.held import decode
from cep.pipeline.store import Absent  # noqa: TC001  msgspec reads it

if TYPE_CHECKING:
    import redis

    EntryId = tuple[int, int]


class _Meta(msgspec.Struct):
    positions: dict[str, str]
    held: dict[str, bytes]
    buffered: dict[str, list[str]]
    absent: dict[str, Absent]


def needed(client: redis.Redis) -> dict[str, dict[str, EntryId]]:
    """Return, of each pipeline, stream to the first entry id that it may still read.

    That is the entry after its position, or an earlier one that it has read and
    holds back until its time has come; a restart reads those again. The pipeline
    need not be running. What is in its dead letters is not counted.

    Raises
    ------
    StateVersionError
        If what a pipeline has stored cannot be read: then nobody knows.
    """
    found = {}
    with clear_errors(client):
        keys: Any = client.scan_iter(match="cep:{*}:meta", count=1000)
        for key in keys:
            name = key.decode("utf-8", "replace")[len("cep:{") : -len("}:meta")]
            raw: Any = client.hgetall(key)
            found[name] = _of(name, raw)
    return found


def _of(name: str, raw: dict[bytes, bytes]) -> dict[str, EntryId]:
    fields = [field.encode() for field in _Meta.__struct_fields__]
    try:
        parts = [b'"%b":%b' % (field, raw.get(field, b"{}")) for field in fields]
        meta = msgspec.json.decode(b"{%b}" % b",".join(parts), type=_Meta)
        needs = {stream: _after(at) for stream, at in meta.positions.items()}
        for stream, one in meta.absent.items():
            needs[stream] = min([_after(one.position), *_first(one.held)])
        for stream, held in meta.held.items():
            needs[stream] = min([needs[stream], *_first(held)])
        for stream, ids in meta.buffered.items():
            needs[stream] = min([needs[stream], *map(_numbers, ids)])
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, KeyError) as error:
        where = f"pipeline {name!r} ({meta_key(name)})"
        raise StateVersionError(where, f"damaged ({error})", "its positions") from None
    return needs


def _first(held: bytes) -> list[EntryId]:
    return [_numbers(run.first) for run in decode(held)]


def _after(text: str) -> EntryId:
    ms, seq = _numbers(text)
    return ms, seq + 1


def _numbers(text: str) -> EntryId:
    ms, _, seq = text.partition("-")
    return int(ms), int(seq or 0)
