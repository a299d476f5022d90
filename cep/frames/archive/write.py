"""Streams to files, each entry once, however often the process dies.

Where to go on is read from the files there are, so a file and the position after it
come into being together, by one rename. What was read and is in no file yet is read
again after a restart. One process writes an archive at a time (a lock on
``.writing/lock``).
"""

from __future__ import annotations

import contextlib
import fcntl
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from cep.bus.connection import clear_errors
from cep.bus.raw import COUNT, iterate_entries
from cep.errors import ArchiveError, UsageError
from cep.frames.archive.entries import to_table
from cep.frames.archive.layout import (
    WRITING,
    Part,
    all_parts,
    counted,
    hour_of,
    parsed,
    parts_of,
    write_part,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Self

    import redis

    from cep.frames.span import EntryId

ROWS_PER_FILE: Final = 250_000
BYTES_PER_FILE: Final = 128 * 1024 * 1024
EVERY_SECONDS: Final = 10.0
BEGINNING: Final = (0, 0)


@dataclass(slots=True)
class Progress:
    """How far one stream has come.

    ``rows`` and ``files`` were written by this process; ``missing`` are entries
    that were gone before they could be archived, found by this process.
    """

    position: EntryId
    kept: int  # entries archived or known to be missing, ever
    rows: int = 0
    files: int = 0
    missing: int = 0


@dataclass(slots=True)
class _Open:
    """Entries of one hour that are in no file yet."""

    tables: list[pa.Table] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0


class Archiver:
    """Writes streams into a folder. Use it as a context: it holds the lock.

    Parameters
    ----------
    client
        Where the streams are.
    root
        The folder, made if it is not there.
    streams
        Their keys; a stream that does not exist yet may come later.
    every_seconds
        How often what came is written to files.
    rows_per_file, bytes_per_file
        What a file holds at most, and so what is held in memory. A single page of
        entries may exceed the bytes.
    note
        Called with a line of text for what an operator should read.

    Raises
    ------
    ArchiveError
        If another process writes there, or files cannot be read or written.
    """

    def __init__(
        self,
        client: redis.Redis,
        root: Path,
        streams: Sequence[str],
        *,
        every_seconds: float = EVERY_SECONDS,
        rows_per_file: int = ROWS_PER_FILE,
        bytes_per_file: int = BYTES_PER_FILE,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.client, self.root, self.streams = client, root, list(streams)
        self.every_seconds = every_seconds
        self.rows_per_file, self.bytes_per_file = rows_per_file, bytes_per_file
        self.note = note or (lambda _: None)
        self.progress: dict[str, Progress] = {}
        self._stopped = threading.Event()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(locked(self.root))
        for stream in self.streams:
            self._clear_joined(stream)
            parts = parts_of(self.root, stream)
            footers = [part.footer() for part in parts]
            kept = sum(footer.rows + footer.missing for footer in footers)
            last = parts[-1].last if parts else BEGINNING
            self.progress[stream] = Progress(last, kept)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def stop(self) -> None:
        """End `run` once what was read is in files; for a signal handler."""
        self._stopped.set()

    def run(self) -> None:
        """Archive what comes until `stop` is called."""
        while not self._stopped.is_set():
            began = time.monotonic()
            self.catch_up()
            self._stopped.wait(max(0.0, began + self.every_seconds - time.monotonic()))

    def catch_up(self) -> int:
        """Archive what there is now; return how many entries that was."""
        before = sum(one.rows for one in self.progress.values())
        for stream in self.streams:
            self._catch_up(stream)
            if self._stopped.is_set():
                break
        return sum(one.rows for one in self.progress.values()) - before

    def _catch_up(self, stream: str) -> None:
        progress = self.progress[stream]
        missing = self._missing(stream, progress)
        held = _Open()
        hour = -1
        start = progress.position
        count = min(COUNT, self.rows_per_file)
        after = f"({written(start)}"
        pages = iterate_entries(self.client, stream, after, count=count)
        with contextlib.closing(pages):
            for entries in pages:
                for now, table in _by_hour(to_table(entries)):
                    full = (
                        held.rows + len(table) > self.rows_per_file
                        or held.bytes + table.nbytes > self.bytes_per_file
                    )
                    if held.rows and (now != hour or full):
                        missing = self._write(stream, held, missing)
                        held = _Open()
                    if now != hour:
                        self._join(stream, hour)
                    hour = now
                    held.tables.append(table)
                    held.rows += len(table)
                    held.bytes += table.nbytes
                if self._stopped.is_set():
                    break
        if held.rows:
            self._write(stream, held, missing)
        if start != BEGINNING and hour not in (-1, hour_of(start[0])):
            self._join(stream, hour_of(start[0]))

    def _write(self, stream: str, held: _Open, missing: int) -> int:
        """Write a file; returns the number missing before the next one, 0."""
        progress = self.progress[stream]
        table = pa.concat_tables(held.tables).combine_chunks()
        part = write_part(
            self.root, stream, table, after=progress.position, missing=missing
        )
        progress.position = part.last
        progress.kept += len(table) + missing
        progress.rows += len(table)
        progress.files += 1
        progress.missing += missing
        return 0

    def _missing(self, stream: str, progress: Progress) -> int:
        """Return how many entries went before we came, as far as can be told.

        The server counts what was ever added. Trimming takes the oldest: what has
        gone and is neither archived nor known to be missing went unseen.
        """
        found = stream_info(self.client, stream)
        if found is None:
            return 0
        last = parsed(found["last-generated-id"].decode())
        if last < progress.position:
            raise ArchiveError(
                f"{stream} ends at {written(last)}, its archive at "
                f"{written(progress.position)}: it is another stream, or has lost "
                "its end.",
                "Restore it (`cep restore`), or archive it to another folder.",
            )
        if not found.get("entries-added") or not found["length"]:
            return 0
        gone = int(found["entries-added"]) - int(found["length"])
        missing = max(0, gone - progress.kept)
        if missing and progress.position != BEGINNING:
            self.note(
                f"{stream}: {missing:,} entries after {written(progress.position)} "
                "were trimmed or deleted before they were archived."
            )
        return missing

    def _join(self, stream: str, hour: int) -> None:
        """Join the files of an hour that is over, as long as they are small."""
        if hour < 0:
            return
        parts = [
            part
            for part in parts_of(self.root, stream, (hour * 3_600_000 - 1, 0))
            if hour_of(part.first[0]) == hour
        ]
        for run in _runs(parts, self.rows_per_file):
            footers = [part.footer() for part in run]
            tables = [part.table() for part in run]
            if sum(table.nbytes for table in tables) > self.bytes_per_file:
                continue
            write_part(
                self.root,
                stream,
                pa.concat_tables(tables).combine_chunks(),
                after=parsed(footers[0].after),
                # Those missing within the run can no longer be told apart.
                missing=sum(footer.missing for footer in footers),
            )
            for part in run:
                part.path.unlink()

    def _clear_joined(self, stream: str) -> None:
        """Remove files of which a joined one is there, left by a process that died."""
        parts = all_parts(self.root, stream)
        for part in set(parts) - set(counted(parts)):
            part.path.unlink()


def _by_hour(table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """Yield the entries of each hour; they are sorted by id."""
    ms = table["entry_ms"].to_numpy()
    start = 0
    while start < len(table):
        hour = hour_of(int(ms[start]))
        stop = start
        # Hours are few in a page, so each one's end is searched for.
        low, high = start, len(table)
        while low < high:
            middle = (low + high) // 2
            if hour_of(int(ms[middle])) == hour:
                low = middle + 1
            else:
                high = middle
        stop = low
        yield hour, table.slice(start, stop - start)
        start = stop


def _runs(parts: Sequence[Part], rows: int) -> Iterator[list[Part]]:
    """Yield neighbours, at least two, that have up to so many rows together."""
    run: list[Part] = []
    total = 0
    for part in parts:
        n = part.footer().rows
        if run and total + n > rows:
            if len(run) > 1:
                yield run
            run, total = [], 0
        run.append(part)
        total += n
    if len(run) > 1:
        yield run


def stream_info(client: redis.Redis, stream: str) -> dict[str, Any] | None:
    """Return what ``XINFO STREAM`` says, None if there is no such stream.

    Raises
    ------
    UsageError
        If the key is of another kind.
    """
    with clear_errors(client):
        kind = client.type(stream)
        if kind == b"none":
            return None
        if kind != b"stream":
            raise UsageError(
                f"The key {stream!r} holds a {kind.decode()}.",  # type: ignore[union-attr]
                "Name a stream.",
            )
        found: Any = client.execute_command("XINFO", "STREAM", stream)  # type: ignore[no-untyped-call]
    if isinstance(found, list):
        found = dict(zip(found[::2], found[1::2], strict=True))
    return {_text(name): value for name, value in found.items()}


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Be the only process that changes an archive; what others left is cleared.

    Raises
    ------
    ArchiveError
        If another process does, or the folder cannot be made.
    """
    folder = root / WRITING
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("a")
    except OSError as error:
        raise ArchiveError(
            f"{folder} cannot be made: {error.strerror}.", "Name another folder."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ArchiveError(
                f"Another process writes the archive {root}.",
                "Stop that one first, or name another folder.",
            ) from error
        for left in folder.glob("*.parquet"):
            left.unlink()
        yield
