"""Strings as small integers, so that kernels compare numbers.

A code is an index in order of first appearance within one engine. Codes never
leave the process: state and outputs carry the texts.

Streams bring ever new strings, so the engine drops those that nothing refers to
any more (`Interner.keep`) when they have become more than twice those that it
kept the time before, and `TEXTS` at least. What is kept gets new codes in the
same order. A batch that was made before then is known by its list of texts, and
`Interner.renew` gives it the codes of now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


TEXTS = 20_000
DICTIONARIES = 32  # of columns, whose codes are kept


class Interner:
    """Texts and their codes, with tables of functions of them.

    >>> strings = Interner()
    >>> strings.code("BTCUSDT"), strings.code("ETHUSDT"), strings.code("BTCUSDT")
    (0, 1, 0)
    >>> strings.text(1)
    'ETHUSDT'
    """

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._dictionaries: dict[int, tuple[list[str], NDArray[np.int64]]] = {}
        self.texts: list[str] = []
        self._functions: list[Callable[[str], float]] = []
        self._tables = np.zeros((1, 64))
        self._filled = 0
        self._fixed = 0
        self._due = TEXTS

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
        known = self._codes
        found = list(map(known.get, texts))
        if None in found:
            pairs = zip(texts, found, strict=True)
            new = dict.fromkeys([text for text, code in pairs if code is None])
            places = range(len(self.texts), len(self.texts) + len(new))
            known.update(zip(new, places, strict=True))
            self.texts += new
            return np.array([known[text] for text in texts], np.int64)
        return np.array(found, np.int64)

    def dictionary(self, texts: list[str]) -> NDArray[np.int64]:
        """Return the codes of a column's dictionary, which only ever grows.

        The parts of one column share their dictionary, however many there are, so
        the codes of the latest few are kept.
        """
        known = self._dictionaries.get(id(texts))
        if known is not None and known[0] is texts and len(known[1]) == len(texts):
            return known[1]
        codes = self.codes(texts)
        if len(self._dictionaries) >= DICTIONARIES:
            del self._dictionaries[next(iter(self._dictionaries))]
        self._dictionaries[id(texts)] = texts, codes
        return codes

    def knows(self, text: str) -> int:
        """Return the code of ``text``, -1 when it has none."""
        return self._codes.get(text, -1)

    def fix(self) -> None:
        """Let the codes given so far, those in programs, stay what they are."""
        self._fixed = len(self.texts)

    @property
    def is_due(self) -> bool:
        """Whether there are so many texts that unused ones should go."""
        return len(self.texts) > self._due

    def keep(self, held: Sequence[NDArray[np.float64]]) -> None:
        """Drop texts whose codes are not in ``held``, which gets the new codes.

        ``held`` are arrays of codes, NaN for none, that are changed in place; codes
        that compare as smaller still do.
        """
        used = np.zeros(len(self.texts), np.bool_)
        used[: self._fixed] = True
        for codes in held:
            used[codes[~np.isnan(codes)].astype(np.int64)] = True
        places = np.cumsum(used) - 1.0
        for codes in held:
            present = ~np.isnan(codes)
            codes[present] = places[codes[present].astype(np.int64)]
        # A new list: who holds the old one still reads the old codes with it.
        self.texts = [self.texts[code] for code in np.flatnonzero(used).tolist()]
        self._codes = {text: code for code, text in enumerate(self.texts)}
        self._dictionaries.clear()
        self._tables = np.zeros((1, 64))
        self._filled = 0
        self._due = max(TEXTS, 2 * len(self.texts))

    def renew(self, codes: NDArray[np.float64], texts: Sequence[str]) -> None:
        """Give codes that mean places in ``texts`` the codes of now, in place."""
        present = ~np.isnan(codes)
        used, inverse = np.unique(codes[present].astype(np.int64), return_inverse=True)
        codes[present] = self.codes([texts[code] for code in used.tolist()])[inverse]

    def add_table(self, function: Callable[[str], float]) -> int:
        """Register a function of texts; returns the row of its table."""
        self._functions.append(function)
        self._filled = 0
        return len(self._functions) - 1

    def tables(self) -> NDArray[np.float64]:
        """Return the functions' values, shape (functions, at least codes).

        Each function sees each text once, when it first appears.
        """
        n = len(self.texts)
        if not self._functions or self._filled == n:
            return self._tables
        rows, width = self._tables.shape
        if rows < len(self._functions) or width < n:
            grown = np.zeros((len(self._functions), max(64, 2 * n)))
            grown[:rows, :width] = self._tables[: len(self._functions)]
            self._tables = grown
        for row, function in enumerate(self._functions):
            for code in range(self._filled, n):
                self._tables[row, code] = function(self.texts[code])
        self._filled = n
        return self._tables
