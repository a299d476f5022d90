"""Whether the files of an archive are what was written, and all of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cep.errors import ArchiveError
from cep.frames.archive.entries import SCHEMA, digest
from cep.frames.archive.layout import (
    hour_of,
    parsed,
    parts_of,
    path_of,
    streams_in,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pyarrow as pa

    from cep.frames.archive.layout import Footer, Part


@dataclass(slots=True)
class Verified:
    """What one stream's files hold, and what is wrong with them."""

    stream: str
    files: int = 0
    rows: int = 0
    bytes: int = 0
    missing: int = 0
    first: str = ""
    last: str = ""
    problems: list[str] = field(default_factory=list)


def verify(
    root: Path,
    streams: Sequence[str] | None = None,
    *,
    quick: bool = False,
    told: Callable[[int], None] | None = None,
) -> list[Verified]:
    """Read all files of an archive and compare them with what they say of themselves.

    Names, counts, order of ids, hashes, and that no file is missing between two.
    What an archive cannot tell by itself: files lost at its end.

    Parameters
    ----------
    streams
        Which; None: all.
    quick
        Read the footers only, not the entries.
    told
        Called with the number of entries of each file that was read.

    Raises
    ------
    UsageError
        If there is no such folder.
    """
    return [
        _stream(root, stream, quick, told) for stream in streams or streams_in(root)
    ]


def _stream(
    root: Path, stream: str, quick: bool, told: Callable[[int], None] | None
) -> Verified:
    found = Verified(stream)
    parts = parts_of(root, stream)
    before: Part | None = None
    for part in parts:
        found.files += 1
        try:
            footer = part.footer()
            table = None if quick else part.table()
        except (ArchiveError, FileNotFoundError) as error:
            found.problems.append(str(error))
        else:
            found.rows += footer.rows
            found.missing += footer.missing
            found.bytes += part.path.stat().st_size
            wrong = _chain(root, stream, part, before, footer)
            if table is not None:
                wrong += contents(part, footer, table)
                if told is not None:
                    told(len(table))
            found.problems += [f"{part.path}: {problem}" for problem in wrong]
        before = part
    if parts:
        found.first, found.last = written(parts[0].first), written(parts[-1].last)
    return found


def _chain(
    root: Path, stream: str, part: Part, before: Part | None, footer: Footer
) -> list[str]:
    wrong = []
    if (
        footer.stream != stream
        or path_of(root, stream, part.first, part.last) != part.path
    ):
        wrong.append(
            f"it is not where entries {written(part.first)} of {stream} belong"
        )
    after = written(before.last) if before is not None else "0-0"
    if footer.after != after:
        wrong.append(
            f"it follows {footer.after}, the file before it ends at {after}: "
            + (
                "one is missing"
                if parsed(footer.after) > parsed(after)
                else "they overlap"
            )
        )
    return wrong


def contents(part: Part, footer: Footer, table: pa.Table) -> list[str]:
    """Return what is wrong with the entries of a file."""
    if table.schema.remove_metadata() != SCHEMA:
        return ["its columns are others"]
    wrong = []
    if len(table) != footer.rows:
        wrong.append(f"it has {len(table):,} entries and says {footer.rows:,}")
    ms, seq = table["entry_ms"].to_numpy(), table["entry_seq"].to_numpy()
    rises = (ms[1:] > ms[:-1]) | ((ms[1:] == ms[:-1]) & (seq[1:] > seq[:-1]))
    if not rises.all():
        at = int(np.argmin(rises)) + 1
        wrong.append(f"its entry {ms[at]}-{seq[at]} is out of order")
    if len(table):
        ends = [(int(ms[at]), int(seq[at])) for at in (0, -1)]
        if ends != [part.first, part.last] or hour_of(ends[1][0]) != hour_of(
            ends[0][0]
        ):
            wrong.append(f"it holds {written(ends[0])} to {written(ends[1])}")
    if digest(table) != footer.sha256:
        wrong.append("its entries do not have the hash that was written with them")
    return wrong
