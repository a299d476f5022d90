"""How far a load has come: a bar where somebody looks, nothing elsewhere.

In a notebook tqdm draws it, in a terminal rich, both only once a second has
passed; where stderr is a file or a pipe nothing is written.
"""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Advance = Callable[[int], None]

QUIET_SECONDS: Final = 1.0


@contextlib.contextmanager
def progress(what: str, total: int | None) -> Iterator[Advance]:
    """Give a function to call with how many more entries were read.

    ``total`` is None if nobody knows how many there are.
    """
    bar: AbstractContextManager[Advance]
    if _in_notebook():
        bar = _tqdm_bar(what, total)
    elif sys.stderr.isatty():
        bar = _rich_bar(what, total)
    else:
        bar = contextlib.nullcontext(_nothing)
    with bar as advance:
        yield advance


def _nothing(_: int) -> None:
    pass


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


@contextlib.contextmanager
def _tqdm_bar(what: str, total: int | None) -> Iterator[Advance]:
    try:
        with warnings.catch_warnings():
            # Without ipywidgets it says so and draws with text.
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm
    except ImportError:
        yield _nothing
        return
    with tqdm(
        total=total, desc=what, unit=" entries", delay=QUIET_SECONDS, leave=False
    ) as bar:

        def advance(more: int) -> None:
            bar.update(more)

        yield advance


@contextlib.contextmanager
def _rich_bar(what: str, total: int | None) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(what, total=total)
    begun = time.monotonic()

    def advance(more: int) -> None:
        bar.advance(task, more)
        if not bar.live.is_started and time.monotonic() - begun > QUIET_SECONDS:
            bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()
