"""What rules ask of the event alone, evaluated for whole batches at once.

`columns` compute what windows aggregate and which events enter them, before
the windows run; `predicates` the conditions of all rules, after them. Each is
one step for a batch, whatever the number of rules, and a program that several
rules share runs once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cep.engine.kernels import vm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cep.engine.program import BlockCode, Programs, Row


def columns(programs: Programs, places: Sequence[tuple[int, int]]) -> BlockCode:
    """Return the step that fills columns of the batch.

    ``places`` are pairs of a program and the column that it fills.
    """
    return programs.block_code(
        [(program, [(vm.STORE, column, 0)]) for program, column in places]
    )


def predicates(programs: Programs, conditions: Sequence[Sequence[int]]) -> BlockCode:
    """Return the step that says which conditions each row satisfies.

    ``conditions`` are the programs of each rule; the j-th is bit j of its word. Rows
    of types that a rule does not name have bits without meaning.
    """
    uses: dict[int, list[Row]] = {}
    for word, of_rule in enumerate(conditions):
        for bit, program in enumerate(of_rule):
            uses.setdefault(program, []).append((vm.BIT, word, bit))
    return programs.block_code(list(uses.items()), writes_bits=True)
