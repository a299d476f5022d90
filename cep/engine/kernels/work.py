"""Does with a batch all that an engine does with it, in one call from Python.

A call from Python costs some microseconds where it hands over many arrays, and an
engine takes many steps: keys are numbered, columns computed, windows and rules
fed. So the steps are rows of a table (`PLAN`), each the address of a kernel and of
the handle of what that works on, and `run` takes one after the other. All steps
have one signature::

    step(h, w, argument, at, end, until) -> reached

``h`` is the step's own handle, ``w`` that of the work: the batch, and tables for
what the steps tell each other of its rows. A step takes in the rows from ``at`` to
``end``. If it returns something else than ``end`` it needs help from Python, which
then goes on from there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import cgutils, types
from numba.core.types import float64, int64
from numba.extending import intrinsic

from cep.engine.kernels.handle import hold2, table
from cep.engine.kernels.jit import STEP, plain_kernel, step_kernel
from cep.engine.kernels.rows import TIME

# Tables of the work. Those of keys, bits and following events begin with the row
# that is the first of the call.
INTS = np.int64(0)
COLS = np.int64(1)
KEYS = np.int64(2)  # (spaces, n): each row's key
BITS = np.int64(3)  # (rules, n): which conditions it satisfies
FOLLOWING = np.int64(4)  # (n,): for one rule to note which row is its key's next
PLAN = np.int64(5)
FACTS = np.int64(6)
TABLES = 7

P_FUNCTION, P_HANDLE, P_ARGUMENT = 0, 1, 2
PLAN_WIDTH = 3

# Facts: the first row of the call, the place of row 0 among all events, the time of
# the last event taken in, whether there are outputs, and the row reached.
FIRST, ORDER, LAST_TIME, FOUND, REACHED = range(5)
FACTS_WIDTH = 5

ints_of, cols_of = table(INTS, int64, 2), table(COLS, float64, 2)
keys_of, bits_of = table(KEYS, int64, 2), table(BITS, int64, 2)
following_of = table(FOLLOWING, int64)
plan_of = table(PLAN, int64, 2, width=PLAN_WIDTH)
facts_of = table(FACTS, int64)

remap_of, space_of = table(0, int64), table(1, int64)
S_COLUMN = 0  # of `space_of`: the column of codes, -1 where all rows have one key


@intrinsic
def call(
    typingctx: Any, f: Any, h: Any, w: Any, argument: Any, at: Any, end: Any, until: Any
) -> Any:
    """Call the step at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.call_conv.get_function_type(STEP.return_type, STEP.args)
        result = cgutils.alloca_once(builder, kind.args[0].pointee)
        error = cgutils.alloca_once(builder, kind.args[1].pointee)
        function = builder.inttoptr(args[0], kind.as_pointer())
        builder.call(function, [result, error, *args[1:]])
        return builder.load(result)

    return types.int64(*[types.int64] * 7), codegen


@step_kernel
def check_order(h, w, argument, at, end, until):
    """Return the first row whose time is before that of the row before, or ``end``."""
    times, facts = ints_of(w)[TIME, at:end], facts_of(w)
    if times.size == 0:
        return end
    if times[0] < facts[LAST_TIME]:
        return at
    # Whether any falls, by the processor's vectors; which, only then.
    after, falls = times[1:], 0
    for i in range(after.size):
        falls |= after[i] < times[i]
    if falls:
        for i in range(after.size):
            if after[i] < times[i]:
                return at + 1 + i
    facts[LAST_TIME] = times[times.size - 1]
    return end


@step_kernel
def number(h, w, row, at, end, until):
    """Number the keys of rows; return the first row whose key has no number yet.

    ``row`` is where they go, -1 if they are there already.
    """
    if row < 0:
        return end
    keys, cols, remap = keys_of(w), cols_of(w), remap_of(h)
    column, first = space_of(h)[S_COLUMN], facts_of(w)[FIRST]
    for i in range(at, end):
        k = np.int64(0)
        if column >= 0:
            x = cols[column, i]
            k = np.int64(-1)
            if x == x:
                code = np.int64(x)
                if code >= remap.size or remap[code] < 0:
                    return i
                k = remap[code]
        keys[row, i - first] = k
    return end


@plain_kernel
def run(w, ints, cols, order, first, at, end, step, last, until):
    """Take steps ``step`` to ``last`` over the rows from ``first`` to ``end``.

    The first of them begins with row ``at``, for it may have got that far before.
    ``ints`` and ``cols`` are the batch's tables as objects (`handle.hold2`).

    Returns ``last``, or ``-1 - last`` where there are outputs; else the step that
    needs help, having reached the row in `REACHED`.
    """
    hold2(w, INTS, ints)
    hold2(w, COLS, cols)
    facts, plan = facts_of(w), plan_of(w)
    facts[FIRST], facts[ORDER] = first, order
    while step < last:
        reached = call(
            plan[step, P_FUNCTION],
            plan[step, P_HANDLE],
            w,
            plan[step, P_ARGUMENT],
            at,
            end,
            until,
        )
        if reached != end:
            facts[REACHED] = reached
            return step
        at = first
        step += 1
    if facts[FOUND] != 0:
        facts[FOUND] = 0
        return -1 - last
    return last
