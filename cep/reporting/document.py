"""A page in the making: its parts in order, its figures, its tables as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cep.frames.csv import write_csv
from cep.reporting.html import place_of, write_page
from cep.reporting.markup import Markup, element, joined
from cep.reporting.tables import MAX_ROWS, table_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import plotly.graph_objects as go
    import polars as pl


class Document:
    """What a page will hold; every text given is foreign and escaped.

    Parameters
    ----------
    path
        The page's file. Tables go to files beside it, named after it.
    title
        Its title, and first heading.
    """

    def __init__(self, path: str | Path, title: str) -> None:
        self.path, self.title = Path(path), title
        self.tables: dict[str, Path] = {}
        self._frames: dict[str, pl.DataFrame] = {}
        self._parts: list[Markup] = [element("h1", title)]
        self._figures: list[go.Figure] = []

    @property
    def file_names(self) -> list[str]:
        """The names of the files that tables go to."""
        return [self._file(name).name for name in self._frames]

    def heading(self, text: str, *, level: int = 2) -> None:
        """Add a heading."""
        self._parts.append(element(f"h{level}", text))

    def text(self, *words: object, class_: str | None = None) -> None:
        """Add a paragraph."""
        self._parts.append(element("p", *words, class_=class_))

    def items(self, texts: Iterable[object]) -> None:
        """Add a list, if there is anything to list."""
        if rows := [element("li", text) for text in texts]:
            self._parts.append(element("ul", *rows))

    def facts(self, pairs: Iterable[tuple[str, object]]) -> None:
        """Add names with what is said of them."""
        rows = [
            element("tr", element("th", name, scope="row"), element("td", value))
            for name, value in pairs
        ]
        table = element("table", element("tbody", *rows), class_="facts")
        self._parts.append(element("div", table, class_="scroll"))

    def table(
        self, name: str, frame: pl.DataFrame, *, show: pl.DataFrame | None = None
    ) -> None:
        """Add a table, and write it to a file beside the page.

        ``name`` is the file's last word; ``show`` is what the page shows of it.
        """
        shown = frame if show is None else show
        file = self._file(name)
        self._frames[name] = frame
        self._parts.append(table_of(shown, rest=file.name))
        if len(shown) <= MAX_ROWS:
            whole = f"All {len(frame):,} rows" if len(shown) < len(frame) else "As file"
            self.text(f"{whole}: {file.name}", class_="aside")

    def figure(self, figure: go.Figure) -> None:
        """Add a figure."""
        self._parts.append(place_of(figure, len(self._figures)))
        self._figures.append(figure)

    def add(self, part: Markup) -> None:
        """Add what is HTML already."""
        self._parts.append(part)

    def write(self) -> Path:
        """Write the page and its tables; return the page's path."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for name, frame in self._frames.items():
            self.tables[name] = write_csv(frame, self._file(name))
        body = joined(self._parts, "\n")
        return write_page(self.path, self.title, body, self._figures)

    def _file(self, name: str) -> Path:
        return self.path.with_name(f"{self.path.stem}-{name}.csv")


def code(text: Any) -> Markup:
    """Return text in a fixed-width font."""
    return element("code", text)
