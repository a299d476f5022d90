"""What rules ask of the event alone, evaluated for whole batches at once.

`Columns` computes what windows aggregate and which events enter them, before
the windows run; `Predicates` the conditions of all rules, after them. Each is
one kernel call for a batch, whatever the number of rules, and a program that
several rules share runs once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cep.engine.kernels import vm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cep.engine.batch import Batch
    from cep.engine.interner import Interner
    from cep.engine.program import Programs, Row

_NO_BITS = np.zeros((0, 0), np.int64)


class Columns:
    """Programs whose values become columns of the batch.

    ``places`` are pairs of a program and the column that it fills.
    """

    def __init__(self, programs: Programs, places: Sequence[tuple[int, int]]) -> None:
        self.strings: Interner = programs.strings
        self.code = programs.block_code(
            [(program, [(vm.STORE, column, 0)]) for program, column in places]
        )

    def fill(self, batch: Batch, begin: int, end: int) -> None:
        """Compute the columns for the rows from ``begin`` to ``end``."""
        if len(self.code.code):
            self.code.run(self.strings.tables(), batch.cols, _NO_BITS, begin, end)


class Predicates:
    """The conditions of all rules on the event alone.

    ``conditions`` are the programs of each rule; the j-th is bit j of its word.
    """

    def __init__(self, programs: Programs, conditions: Sequence[Sequence[int]]) -> None:
        self.strings: Interner = programs.strings
        self.words = len(conditions)
        uses: dict[int, list[Row]] = {}
        for word, of_rule in enumerate(conditions):
            for bit, program in enumerate(of_rule):
                uses.setdefault(program, []).append((vm.BIT, word, bit))
        self.code = programs.block_code(list(uses.items()))

    def evaluate(self, batch: Batch, begin: int, end: int) -> NDArray[np.int64]:
        """Return the bits of each rule for rows of a batch, shape (rules, end - begin).

        Rows of types that a rule does not name have bits without meaning.
        """
        bits = np.zeros((self.words, end - begin), np.int64)
        self.code.run(self.strings.tables(), batch.cols, bits, begin, end)
        return bits
