"""Runs programs of the event alone over whole batches, block by block.

A program is that of `cep.engine.kernels.vm`, but each place of the stack holds
a block of events, so that an operation is a plain loop that uses the
processor's vectors: 1 ns per event for ``price * quantity > 1500``, where the
machine for one event takes 10. Several programs follow each other in one code;
after each, STORE writes the value on top into a column or BIT sets a bit
where it is true, and POP takes it away.

Every row is computed, also where the event's type has nothing to do with the
program: nobody reads that. Jumps are left out of the code; AND and OR combine
both sides.
"""

from __future__ import annotations

import numpy as np
from numba.core.types import float64, int32

from cep.engine.kernels import work
from cep.engine.kernels.handle import table
from cep.engine.kernels.jit import inner, step_kernel
from cep.engine.kernels.vm import (
    ABS,
    ADD,
    AND,
    BIT,
    COALESCE,
    COL,
    CONST,
    DIV,
    EQ,
    GE,
    GT,
    IN,
    IS_NULL,
    LE,
    LT,
    MUL,
    NE,
    NEG,
    NOT,
    OR,
    POP,
    SELECT,
    STORE,
    SUB,
    TABLE,
    TIME_PART,
    binary,
    divide,
    finite,
    listed,
    looked_up,
    unary,
)

code_of, consts_of = table(0, int32, 2, width=3), table(1, float64)
tables_of, stack_of = table(2, float64, 2), table(3, float64, 2)

BLOCK = 256  # events; a stack of ten such blocks fits the nearest cache


@inner
def run_blocks(code, consts, tables, cols, bits, stack, first, at, end):
    """Run ``code`` over the events from ``at`` to ``end``.

    It writes into ``cols`` and ``bits`` (words, n), which begins with event ``first``
    and is 0 for these; ``stack`` has (depth, block).
    """
    width = stack.shape[1]
    for begin in range(at, end, width):
        m = min(width, end - begin)
        top = np.int64(-1)
        for pc in range(code.shape[0]):
            op = code[pc, 0]
            a = np.int64(code[pc, 1])
            b = np.int64(code[pc, 2])
            if op == COL:
                top += 1
                # Through a view: of `begin + i` the compiler cannot know that
                # it is not negative, and would ask for each event.
                part = cols[a, begin : begin + m]
                for i in range(m):
                    stack[top, i] = part[i]
            elif op == CONST:
                top += 1
                x = consts[a]
                for i in range(m):
                    stack[top, i] = x
            elif op == STORE:
                part = cols[a, begin : begin + m]
                for i in range(m):
                    part[i] = finite(stack[top, i])
            elif op == BIT:
                word = bits[a, begin - first : begin - first + m]
                bit = np.int64(1) << b
                for i in range(m):
                    word[i] |= bit if abs(finite(stack[top, i])) > 0.0 else 0
            elif op == POP:
                top -= 1
            elif op == ADD:
                top -= 1
                for i in range(m):
                    stack[top, i] = finite(stack[top, i] + stack[top + 1, i])
            elif op == SUB:
                top -= 1
                for i in range(m):
                    stack[top, i] = finite(stack[top, i] - stack[top + 1, i])
            elif op == MUL:
                top -= 1
                for i in range(m):
                    stack[top, i] = finite(stack[top, i] * stack[top + 1, i])
            elif op == DIV:
                top -= 1
                for i in range(m):
                    stack[top, i] = divide(stack[top, i], stack[top + 1, i])
            elif op == EQ:
                top -= 1
                for i in range(m):
                    stack[top, i] = 1.0 if stack[top, i] == stack[top + 1, i] else 0.0
            elif op == NE:
                top -= 1
                for i in range(m):
                    x, y = stack[top, i], stack[top + 1, i]
                    stack[top, i] = 1.0 if x < y or x > y else 0.0
            elif op == LT:
                top -= 1
                for i in range(m):
                    stack[top, i] = 1.0 if stack[top, i] < stack[top + 1, i] else 0.0
            elif op == LE:
                top -= 1
                for i in range(m):
                    stack[top, i] = 1.0 if stack[top, i] <= stack[top + 1, i] else 0.0
            elif op == GT:
                top -= 1
                for i in range(m):
                    stack[top, i] = 1.0 if stack[top, i] > stack[top + 1, i] else 0.0
            elif op == GE:
                top -= 1
                for i in range(m):
                    stack[top, i] = 1.0 if stack[top, i] >= stack[top + 1, i] else 0.0
            elif op == AND:
                top -= 1
                for i in range(m):
                    x, y = abs(stack[top, i]), abs(stack[top + 1, i])
                    stack[top, i] = 1.0 if (x > 0.0) & (y > 0.0) else 0.0
            elif op == OR:
                top -= 1
                for i in range(m):
                    x, y = abs(stack[top, i]), abs(stack[top + 1, i])
                    stack[top, i] = 1.0 if (x > 0.0) | (y > 0.0) else 0.0
            elif op == NOT:
                for i in range(m):
                    stack[top, i] = 0.0 if abs(stack[top, i]) > 0.0 else 1.0
            elif op == IS_NULL:
                for i in range(m):
                    x = stack[top, i]
                    stack[top, i] = 1.0 if x != x else 0.0
            elif op == NEG:
                for i in range(m):
                    stack[top, i] = -stack[top, i]
            elif op == ABS:
                for i in range(m):
                    stack[top, i] = abs(stack[top, i])
            elif op == IN:
                for i in range(m):
                    stack[top, i] = listed(stack[top, i], consts, a, b)
            elif op == TABLE:
                for i in range(m):
                    stack[top, i] = looked_up(stack[top, i], tables, a, b)
            elif op == COALESCE:
                top -= 1
                for i in range(m):
                    x = stack[top, i]
                    stack[top, i] = x if x == x else stack[top + 1, i]
            elif op == SELECT:
                top -= 2
                for i in range(m):
                    holds = abs(stack[top, i]) > 0.0
                    x, y = stack[top + 1, i], stack[top + 2, i]
                    stack[top, i] = x if holds else y
            elif op <= TIME_PART:
                for i in range(m):
                    stack[top, i] = unary(op, stack[top, i], a)
            else:
                top -= 1
                for i in range(m):
                    stack[top, i] = binary(op, stack[top, i], stack[top + 1, i])


@step_kernel
def fill_blocks(h, w, argument, at, end, until):
    """Run the code of a handle over the rows of a batch; every rule's bits are new."""
    first, bits = work.facts_of(w)[work.FIRST], work.bits_of(w)
    if argument != 0:
        for word in range(bits.shape[0]):
            for i in range(at - first, end - first):
                bits[word, i] = 0
    code, consts, tables = code_of(h), consts_of(h), tables_of(h)
    cols, stack = work.cols_of(w), stack_of(h)
    run_blocks(code, consts, tables, cols, bits, stack, first, at, end)
    return end
