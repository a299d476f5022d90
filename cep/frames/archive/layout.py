"""Where an archive keeps the entries of streams: folders, file names, footers.

::

    archive/stream=market.events/date=2026-01-05/hour=09/1767605400125-0_1767605403999-2.parquet

A file holds the entries of one stream and one hour (of arrival, UTC) from one entry
id to another, both in its name, sorted by id. What follows from its entries alone is
in its footer (`Footer`), so the files are all that an archive is: where it goes on
is where its last file ends.

A file comes into being whole: it is written in ``.writing``, synced, and renamed.
Files of an hour are later joined into one; until the old ones are gone, they lie
within the new one's range and do not count (`Part.holds`).
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

import pyarrow as pa
from pyarrow import parquet

from cep.errors import ArchiveError, UsageError
from cep.frames.archive.entries import digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cep.frames.span import EntryId

WRITING: Final = ".writing"
_STREAM: Final = "stream="
_FORMAT: Final = 1
_KEY: Final = b"cep.archive"
_NAME: Final = re.compile(r"(\d{1,20})-(\d{1,20})_(\d{1,20})-(\d{1,20})\.parquet")
_HOUR_MS: Final = 3_600_000
_LAST_HOUR: Final = 253402300799_999 // _HOUR_MS  # of the year 9999
_ROWS_PER_GROUP: Final = 16_384


@dataclass(frozen=True, slots=True)
class Footer:
    """What a file says of itself, beside its name.

    Attributes
    ----------
    stream
        The stream's key.
    rows
        How many entries it holds.
    sha256
        `cep.frames.archive.entries.digest` of them.
    after
        The last entry id archived before, ``"0-0"`` if none: files that follow each
        other without one missing between them form a chain.
    missing
        How many entries between ``after`` and this file's first were gone from the
        stream before they were archived, by the server's count.
    """

    stream: str
    rows: int
    sha256: str
    after: str
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """A file, by its name."""

    path: Path
    first: EntryId
    last: EntryId

    def holds(self, other: Part) -> bool:
        """Return whether another file's range lies in this one's."""
        return self.first <= other.first and other.last <= self.last

    def footer(self) -> Footer:
        """Read the footer.

        Raises
        ------
        ArchiveError
            If the file cannot be read or is none of ours.
        FileNotFoundError
            If it is gone.
        """
        return self._footer(self._opened())

    def groups(self, first: EntryId, last: EntryId) -> Iterator[pa.Table]:
        """Yield the entries from one id to another, a row group at a time."""
        file = self._opened()
        for number in range(file.num_row_groups):
            low, high = _bounds(file.metadata.row_group(number))
            if low > last[0] or high < first[0]:
                continue
            try:
                table = file.read_row_group(number, use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise self._broken(error) from error
            yield between(table, first, last)

    def table(self) -> pa.Table:
        """Read all entries."""
        file = self._opened()
        try:
            return file.read(use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise self._broken(error) from error

    def _opened(self) -> parquet.ParquetFile:
        try:
            return parquet.ParquetFile(self.path, page_checksum_verification=True)
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise self._broken(error) from error

    def _footer(self, file: parquet.ParquetFile) -> Footer:
        raw = (file.schema_arrow.metadata or {}).get(_KEY)
        try:
            values: dict[str, Any] = json.loads(raw or b"")
            if values.pop("format") != _FORMAT:
                raise ValueError("it is of another version of the format")
            return Footer(**values)
        except (ValueError, KeyError, TypeError) as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> ArchiveError:
        cause = str(error).partition("\n")[0].rstrip(".")
        return ArchiveError(
            f"{self.path} cannot be read: {cause}.",
            "Run `cep archive verify`, and bring the file back from a copy.",
        )


def _bounds(group: Any) -> tuple[int, int]:
    statistics = group.column(0).statistics
    if statistics is None or not statistics.has_min_max:
        return 0, 2**64
    return int(statistics.min), int(statistics.max)


def between(table: pa.Table, first: EntryId, last: EntryId) -> pa.Table:
    """Return the entries of a table, sorted by id, from one id to another."""
    ms, seq = table["entry_ms"].to_numpy(), table["entry_seq"].to_numpy()
    start = _place(ms, seq, first, "left")
    return table.slice(start, max(0, _place(ms, seq, last, "right") - start))


def _place(ms: Any, seq: Any, entry: EntryId, side: Any) -> int:
    low, high = (
        int(ms.searchsorted(ms.dtype.type(entry[0]), s)) for s in ("left", "right")
    )
    return low + int(seq[low:high].searchsorted(seq.dtype.type(entry[1]), side))


def folder_of(root: Path, stream: str) -> Path:
    """Return the folder of a stream.

    >>> from pathlib import Path
    >>> folder_of(Path("a"), "../x y").as_posix()
    'a/stream=..%2Fx%20y'
    """
    return root / (_STREAM + quote(stream, safe=""))


def hour_of(ms: int) -> int:
    """Return the hour of an arrival, counted from 1970; all beyond 9999 are one."""
    return min(ms // _HOUR_MS, _LAST_HOUR)


def path_of(root: Path, stream: str, first: EntryId, last: EntryId) -> Path:
    """Return where entries from one id to another, of one hour, are.

    >>> from pathlib import Path
    >>> path_of(Path("a"), "s", (3_600_000, 0), (3_600_001, 7)).as_posix()
    'a/stream=s/date=1970-01-01/hour=01/3600000-0_3600001-7.parquet'
    """
    at = datetime.fromtimestamp(hour_of(first[0]) * _HOUR_MS // 1000, UTC)
    name = f"{first[0]}-{first[1]}_{last[0]}-{last[1]}.parquet"
    return folder_of(root, stream) / f"date={at:%Y-%m-%d}" / f"hour={at:%H}" / name


def streams_in(root: Path) -> list[str]:
    """Return the streams of an archive, sorted.

    Raises
    ------
    UsageError
        If there is no such folder.
    """
    if not root.is_dir():
        raise UsageError(f"There is no archive {str(root)!r}.", "Name its folder.")
    return sorted(
        unquote(child.name.removeprefix(_STREAM))
        for child in root.iterdir()
        if child.name.startswith(_STREAM) and child.is_dir()
    )


def parts_of(root: Path, stream: str, after: EntryId = (0, 0)) -> list[Part]:
    """Return in order a stream's files that end after an id, those that count."""
    return counted(all_parts(root, stream, after))


def all_parts(root: Path, stream: str, after: EntryId = (0, 0)) -> list[Part]:
    """Return all files that end after an id, those too that were joined into others."""
    from_hour = datetime.fromtimestamp(hour_of(after[0]) * _HOUR_MS // 1000, UTC)
    from_day = f"date={from_hour:%Y-%m-%d}"
    found = []
    for day in _listed(folder_of(root, stream)):
        if day.startswith("date=") and day >= from_day:
            for hour in _listed(folder_of(root, stream) / day):
                folder = folder_of(root, stream) / day / hour
                found += [part for part in _named(folder) if part.last > after]
    # Of two that begin alike the longer one first.
    found.sort(key=lambda part: (part.first, (-part.last[0], -part.last[1])))
    return found


def counted(parts: Sequence[Part]) -> list[Part]:
    """Return those of sorted files that lie in no other."""
    found: list[Part] = []
    for part in parts:
        if not (found and found[-1].holds(part)):
            found.append(part)
    return found


def _listed(folder: Path) -> list[str]:
    try:
        return [child.name for child in os.scandir(folder)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _named(folder: Path) -> Iterator[Part]:
    for name in _listed(folder):
        match = _NAME.fullmatch(name)
        if match is not None:
            numbers = [int(text) for text in match.groups()]
            first, last = (numbers[0], numbers[1]), (numbers[2], numbers[3])
            yield Part(folder / name, first, last)


def write_part(
    root: Path, stream: str, table: pa.Table, *, after: EntryId, missing: int = 0
) -> Part:
    """Write entries of one hour as a file that is there whole or not at all.

    The same entries after the same id are the same file, whoever writes it again.

    Raises
    ------
    ArchiveError
        If the disk is full or the folder cannot be written.
    """
    first, last = id_at(table, 0), id_at(table, len(table) - 1)
    path = path_of(root, stream, first, last)
    footer = Footer(stream, len(table), digest(table), written(after), missing)
    text = json.dumps({"format": _FORMAT, **asdict(footer)})
    table = table.replace_schema_metadata({_KEY: text.encode()})
    writing = root / WRITING / f"{os.getpid()}-{path.name}"
    try:
        _make_folders(writing.parent, root)
        with writing.open("wb") as file:
            parquet.write_table(
                table,
                file,
                compression="zstd",
                row_group_size=_ROWS_PER_GROUP,
                use_dictionary=[
                    "event_stream",
                    "type",
                    "version",
                    "user_id",
                    "metadata",
                ],
                write_page_checksum=True,
                write_statistics=["entry_ms", "entry_seq", "timestamp", "type"],
            )
            file.flush()
            os.fsync(file.fileno())
        _make_folders(path.parent, root)
        writing.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise ArchiveError(
            f"{path} cannot be written: {error.strerror or error}.",
            "Make room, or let this user write there; it goes on where it was.",
        ) from error
    return Part(path, first, last)


def id_at(table: pa.Table, row: int) -> EntryId:
    """Return the entry id in a row."""
    return table["entry_ms"][row].as_py(), table["entry_seq"][row].as_py()


def written(entry: EntryId) -> str:
    """Return an entry id as Redis writes it."""
    return f"{entry[0]}-{entry[1]}"


def parsed(text: str) -> EntryId:
    """Return the two numbers of an entry id."""
    ms, _, seq = text.partition("-")
    return int(ms), int(seq or 0)


def following(entry: EntryId) -> EntryId:
    """Return the least id that is greater."""
    ms, seq = entry
    return (ms, seq + 1) if seq < 2**64 - 1 else (ms + 1, 0)


def preceding(entry: EntryId) -> EntryId:
    """Return the greatest id that is smaller, ``(0, 0)`` for itself."""
    ms, seq = entry
    if seq:
        return ms, seq - 1
    return (ms - 1, 2**64 - 1) if ms else (0, 0)


def _make_folders(folder: Path, root: Path) -> None:
    """Make folders that outlive a crash of the machine."""
    if folder.is_dir():
        return
    if folder != root:
        _make_folders(folder.parent, root)
    folder.mkdir(parents=True, exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
