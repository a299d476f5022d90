"""Streams made anew from an archive, with the same entry ids and bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import ResponseError

from cep.bus.connection import clear_errors
from cep.bus.link import packed
from cep.errors import ArchiveError, UsageError
from cep.frames.archive.entries import iterate_pairs
from cep.frames.archive.layout import following, parsed, parts_of, preceding
from cep.frames.archive.write import stream_info
from cep.frames.span import FIRST, LAST

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pyarrow as pa
    import redis

    from cep.frames.span import EntryId

_AT_ONCE: Final = 1000


def restore(
    client: redis.Redis,
    root: Path,
    stream: str,
    *,
    into: str | None = None,
    first: EntryId = FIRST,
    last: EntryId = LAST,
    resume: bool = False,
    told: Callable[[int], None] | None = None,
) -> int:
    """Write a stream's archived entries to a server; return how many.

    The stream also gets the count of entries ever added, so that readers which
    count what was trimmed are right.

    Parameters
    ----------
    into
        Key of the stream to write; None: the same.
    first, last
        Which entries, both included.
    resume
        Go on after the last entry that the target has, as after a restore that was
        interrupted. Otherwise a target that is not empty is refused.
    told
        Called with the number of entries written, each thousand or so.

    Raises
    ------
    UsageError
        If the target is not empty, or no stream, or nothing is archived.
    ArchiveError
        If a file cannot be read.
    """
    parts = parts_of(root, stream)
    if not parts:
        raise UsageError(
            f"{root} holds nothing of {stream!r}.", "See `cep archive status`."
        )
    target = into or stream
    if not resume:
        check_target(client, target)
    info = stream_info(client, target)
    end = info["last-generated-id"].decode() if info else "0-0"
    begun = following(parsed(end))
    done = gone = 0
    try:
        for part in parts:
            if part.first > last:
                break
            footer = part.footer()
            gone += footer.missing
            if part.last < first:
                gone += footer.rows
            elif part.first < first:
                gone += sum(map(len, part.groups(FIRST, preceding(first))))
            for table in part.groups(max(first, begun), last):
                for at in range(0, len(table), _AT_ONCE):
                    rows = _add(client, target, table.slice(at, _AT_ONCE))
                    done += rows
                    if told is not None:
                        told(rows)
    except ArchiveError as error:
        if not done:
            raise
        raise ArchiveError(
            error.problem,
            f"{error.remedy} {done:,} entries were written to {target} before this; "
            "--resume goes on after them.",
        ) from error
    if done:
        _set_counts(client, target, gone)
    return done


def check_target(client: redis.Redis, stream: str) -> None:
    """Refuse a stream that has, or has had, entries."""
    info = stream_info(client, stream)
    if info is not None and info["last-generated-id"] != b"0-0":
        raise UsageError(
            f"{stream} is not empty: {info['length']:,} entries, the last "
            f"{info['last-generated-id'].decode()}.",
            "Name another stream or server, or add --resume to go on after it.",
        )


def _add(client: redis.Redis, stream: str, table: pa.Table) -> int:
    """Write entries, all of them or raise."""
    key = stream.encode()
    commands = [
        packed(b"XADD", key, entry_id, *(word for pair in pairs for word in pair))
        for entry_id, pairs in iterate_pairs(table)
    ]
    refused: Exception | None = None
    with clear_errors(client):
        connection: Any = client.connection_pool.get_connection()
        try:
            connection.send_packed_command([b"".join(commands)], check_health=False)
            for _ in commands:
                try:
                    connection.read_response()
                except ResponseError as error:
                    refused = refused or error
        except BaseException:
            connection.disconnect()
            raise
        finally:
            client.connection_pool.release(connection)
    if refused is not None:
        raise ArchiveError(
            f"{stream}: the server refused an entry: {refused}.",
            "Does another process write to it?",
        )
    return len(commands)


def _set_counts(client: redis.Redis, stream: str, gone: int) -> None:
    """Let the server count entries as added that are gone, as it did before."""
    info = stream_info(client, stream)
    if info is None or not info.get("entries-added"):
        return
    words = ["ENTRIESADDED", int(info["length"]) + gone]
    words += ["MAXDELETEDID", info["max-deleted-entry-id"]]
    with clear_errors(client):
        client.execute_command("XSETID", stream, info["last-generated-id"], *words)  # type: ignore[no-untyped-call]
