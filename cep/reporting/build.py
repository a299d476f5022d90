"""`report`: one page about streams, and what rules and statistics find in them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cep.errors import UsageError
from cep.reporting.document import Document
from cep.reporting.findings import find, requested
from cep.reporting.markup import element
from cep.reporting.sections import written

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cep.frames.span import End
    from cep.reporting.findings import Findings, Rules


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """A report that was written.

    Attributes
    ----------
    path
        The page.
    tables
        Its tables as CSV files, by name.
    found
        What the page says: frames, alerts, relations.
    """

    path: Path
    tables: dict[str, Path]
    found: Findings

    def __str__(self) -> str:
        size = self.path.stat().st_size / 1e6
        return f"{self.path} ({size:.1f} MB) and {len(self.tables)} tables as CSV"

    def __repr__(self) -> str:
        return f"<Report {self}>"

    def _repr_html_(self) -> str:
        return element("p", "Report: ", element("code", str(self)))


def report(
    path: str | Path,
    *,
    streams: str | Sequence[str] | None = None,
    rules: Rules | None = None,
    url: str | None = None,
    archive: str | Path | None = None,
    live: bool = True,
    start: End | None = None,
    end: End | None = None,
    title: str | None = None,
    max_lag: str = "1s",
    seed: int = 0,
    note: Callable[[str], None] | None = None,
) -> Report:
    """Write a page about streams that needs no network, and its tables as CSV.

    The page holds where the events are from and what became of each, rates, the
    alerts of rules with examples, what has to do with what and comes first, and
    what all that does not show. It carries its figures with it, runs no script but
    those, and shows whatever is in events as text.

    Parameters
    ----------
    path
        The page, ``.html``; CSV files are written beside it, named after it.
    streams
        Which streams; by default those of the rules.
    rules
        A file with rules, a pipeline, or rules; none without.
    url, archive, live, start, end
        As for `cep.load`; ``url="sample"`` needs no server, nor does
        ``archive=FOLDER, live=False``.
    title
        The page's title.
    max_lag
        Up to which lag streams are compared; see `cep.analysis.relations`.
    seed
        Of what is drawn at random; equal seeds give equal numbers.
    note
        Told of each step that is done.

    Raises
    ------
    UsageError
        If neither streams nor rules are given, one of them does not exist, or the
        path is no file to write.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> page = report(mkdtemp() + "/ai.html", streams="ai.events", url="sample")
    >>> page.path.name, sorted(page.tables)
    ('ai.html', ['accounting', 'streams', 'types'])
    """
    target = Path(path)
    if target.is_dir() or target.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{str(target)!r} is no HTML file.", "Name one, as a.html.")
    request = requested(
        streams,
        rules,
        url=url,
        archive=archive,
        live=live,
        start=start,
        end=end,
        max_lag=max_lag,
        seed=seed,
    )
    tell = note or (lambda _: None)
    found = find(request, tell)
    shown = title or f"Report on {', '.join(request.streams)}"
    document = written(Document(target, shown), found, datetime.now(UTC))
    document.write()
    tell(f"{target} written")
    return Report(target, document.tables, found)
