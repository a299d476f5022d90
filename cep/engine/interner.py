"""Strings as small integers, so that kernels compare numbers.

A code is an index in order of first appearance within one engine. Codes never
leave the process: state and outputs carry the texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


class Interner:
    """Texts and their codes, with tables of string tests over them.

    >>> strings = Interner()
    >>> strings.code("BTCUSDT"), strings.code("ETHUSDT"), strings.code("BTCUSDT")
    (0, 1, 0)
    >>> strings.text(1)
    'ETHUSDT'
    """

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self.texts: list[str] = []
        self._tests: list[Callable[[str], bool]] = []
        self._tables = np.zeros((1, 64), np.uint8)
        self._filled = 0

    def __len__(self) -> int:
        return len(self.texts)

    def code(self, text: str) -> int:
        """Return the code of ``text``, a new one when it is new."""
        found = self._codes.get(text)
        if found is None:
            found = self._codes[text] = len(self.texts)
            self.texts.append(text)
        return found

    def text(self, code: int) -> str:
        """Return the text of a code."""
        return self.texts[code]

    def codes(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the codes of several texts."""
        return np.fromiter(map(self.code, texts), np.int64, len(texts))

    def add_test(self, test: Callable[[str], bool]) -> int:
        """Register a string test; returns the row of its table."""
        self._tests.append(test)
        self._filled = 0
        return len(self._tests) - 1

    def tables(self) -> NDArray[np.uint8]:
        """Return the tests' results, shape (tests, at least codes), 1 for true.

        Each text is tested once, when it first appears.
        """
        n = len(self.texts)
        if not self._tests or self._filled == n:
            return self._tables
        rows, width = self._tables.shape
        if rows < len(self._tests) or width < n:
            grown = np.zeros((len(self._tests), max(64, 2 * n)), np.uint8)
            grown[:rows, :width] = self._tables[: len(self._tests)]
            self._tables = grown
        for row, test in enumerate(self._tests):
            for code in range(self._filled, n):
                self._tables[row, code] = test(self.texts[code])
        self._filled = n
        return self._tables
