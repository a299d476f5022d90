"""Trimming of streams down to what is not yet archived, or not yet read.

An entry goes only if it is in the archive, equal byte for byte to what the server
has (compared now, not believed), in a file whose hash is right, and if each reader
that is known has passed it: consumer groups and what is pending in them, and
whatever other readers the caller names, such as pipelines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cep.bus.connection import clear_errors
from cep.bus.raw import iterate_entries
from cep.frames.archive.entries import SCHEMA, digest, entry_ids, to_table
from cep.frames.archive.layout import (
    between,
    following,
    id_at,
    parsed,
    parts_of,
    written,
)
from cep.frames.archive.verify import contents
from cep.frames.archive.write import stream_info

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    import redis

    from cep.frames.archive.layout import Part
    from cep.frames.span import EntryId


@dataclass(frozen=True, slots=True)
class Reader:
    """Someone who still needs a stream from an entry id on."""

    name: str
    needs: EntryId


@dataclass(frozen=True, slots=True)
class Plan:
    """What may go of a stream: ``entries`` of it, all those before ``before``.

    ``kept_for`` says why the rest stays, ``problem`` what is wrong ("" if nothing):
    then what comes before it may still go.
    """

    stream: str
    before: EntryId
    entries: int
    left: int
    kept_for: str
    problem: str = ""


def plan(
    client: redis.Redis,
    root: Path,
    stream: str,
    readers: Sequence[Reader] = (),
    *,
    keep_ms: int = 0,
    ignore: Collection[str] = (),
) -> Plan:
    """Find what may go of a stream; nothing is changed.

    Parameters
    ----------
    readers
        Those who need the stream, beside its consumer groups.
    keep_ms
        How much stays in any case, by arrival before the server's present.
    ignore
        Names of consumer groups that do not count.
    """
    info = stream_info(client, stream)
    parts = parts_of(root, stream)
    length = int(info["length"]) if info else 0
    if not length or not parts:
        why = "it is empty" if not length else "nothing of it is archived"
        return Plan(stream, (0, 0), 0, length, why)
    bounds = [(following(parts[-1].last), "the rest is not archived")]
    bounds += [
        (one.needs, f"{one.name} has not read the rest")
        for one in [*groups(client, stream, ignore), *readers]
    ]
    if keep_ms:
        with clear_errors(client):
            now: Any = client.time()
        seconds, micros = now
        newest = seconds * 1000 + micros // 1000 - keep_ms
        bounds.append(((max(0, newest), 0), "the rest is to be kept"))
    bound, why = min(bounds)
    before: EntryId = (0, 0)
    entries, problem = 0, ""
    for part in parts:
        if part.first >= bound:
            break
        end = min(following(part.last), bound)
        same, problem = _compare(client, stream, part, before, end)
        if problem:
            break
        before, entries = end, entries + same
    if problem:
        why = "the rest is not as it was archived"
    return Plan(stream, before, entries, length - entries, why, problem)


def carry_out(client: redis.Redis, found: Plan) -> int:
    """Trim a stream as planned; return how many entries went."""
    if not found.entries:
        return 0
    with clear_errors(client):
        gone: Any = client.execute_command(  # type: ignore[no-untyped-call]
            "XTRIM", found.stream, "MINID", "=", written(found.before)
        )
    return int(gone)


def groups(
    client: redis.Redis, stream: str, ignore: Collection[str] = ()
) -> list[Reader]:
    """Return the consumer groups of a stream: each needs what it has not acked."""
    readers = []
    with clear_errors(client):
        for group in _rows(client.execute_command("XINFO", "GROUPS", stream)):  # type: ignore[no-untyped-call]
            needs = following(parsed(group["last-delivered-id"].decode()))
            if group["pending"]:
                summary: Any = client.execute_command(  # type: ignore[no-untyped-call]
                    "XPENDING", stream, group["name"]
                )
                least = summary["min"] if isinstance(summary, dict) else summary[1]
                if least:
                    needs = min(needs, parsed(least.decode()))
            name = group["name"].decode("utf-8", "backslashreplace")
            if name in ignore:
                continue
            readers.append(Reader(f"group {name!r}", needs))
    return readers


def _rows(found: Any) -> list[dict[str, Any]]:
    rows = []
    for row in found:
        pairs = (
            row.items()
            if isinstance(row, dict)
            else zip(row[::2], row[1::2], strict=True)
        )
        rows.append({k.decode() if isinstance(k, bytes) else k: v for k, v in pairs})
    return rows


def _compare(
    client: redis.Redis, stream: str, part: Part, start: EntryId, end: EntryId
) -> tuple[int, str]:
    """Return how many live entries from ``start`` to before ``end`` a file holds.

    And what is wrong, "" if each of them is in it. Entries that were deleted from the
    stream may be in the file.
    """
    archived = part.table()
    wrong = contents(part, part.footer(), archived)
    if wrong:
        return 0, f"{part.path}: {wrong[0]}"
    pages = iterate_entries(client, stream, written(start), f"({written(end)}")
    live = pa.concat_tables([SCHEMA.empty_table(), *map(to_table, pages)])
    live = live.combine_chunks()
    if not len(live):
        return 0, ""
    first, last = id_at(live, 0), id_at(live, len(live) - 1)
    same = between(archived, first, last).replace_schema_metadata()
    if len(same) != len(live):
        there = entry_ids(same).is_in(entry_ids(live).implode())
        same = same.filter(pa.array(there.to_numpy()))
    if digest(same) != digest(live):
        return 0, f"{part.path}: it is not what {stream} holds from {written(first)} on"
    return len(live), ""
