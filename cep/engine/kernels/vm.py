"""Runs expression programs: a stack machine over one event and one match.

A program is a slice of rows ``(op, a, b)`` in postfix order. Values are
doubles; absent is NaN, false and true are 0 and 1, strings are codes. The
columns of the batch are ``cols[column, row]``. What a match has bound is a
chain of nodes, each pointing to the one before it (see `nodes`).
"""

from __future__ import annotations

import math

import numpy as np

from cep.engine.kernels.jit import inner, kernel

CONST, COL = 0, 1
ADD, SUB, MUL, DIV, MOD = 2, 3, 4, 5, 6
NEG, ABS, LOG, SQRT, MIN2, MAX2 = 7, 8, 9, 10, 11, 12
EQ, NE, LT, LE, GT, GE = 13, 14, 15, 16, 17, 18
NOT, IS_NULL, TRUTH = 19, 20, 21
IN, TABLE = 22, 23
JUMP_IF_FALSE, JUMP_IF_TRUE = 24, 25
BOUND_COUNT, BOUND_LAST, BOUND_FIRST = 26, 27, 28
BOUND_SUM, BOUND_AVG, BOUND_MIN, BOUND_MAX, BOUND_PRESENT = 29, 30, 31, 32, 33
BOUND_TIME = 34

STACK = 64

# Columns of the node table. A node is one bound event; it is never changed
# once made, so branches of a match share what they have in common.
PREV = 0  # the node bound before, -1 for the first
VARIABLE = 1  # which step bound it
COUNT = 2  # how many events of that step up to here
FIRST = 3  # the first node of that step
REFS = 4  # partial matches and nodes that point here
TIME = 5  # event time, ns
ORDER = 6  # position in the engine's order of events
ID_HI = 7
ID_LO = 8
LENGTH = 9  # nodes in the chain
NODE_WIDTH = 10


@inner
def latest(nodes, node, variable):
    """Return the last node that ``variable`` bound in the chain, or -1."""
    while node >= 0 and nodes[node, VARIABLE] != variable:
        node = nodes[node, PREV]
    return node


@inner
def bound_aggregate(op, nodes, vals, node, variable, capture):
    """Aggregate a captured field over the events that ``variable`` bound."""
    total, carry, n = 0.0, 0.0, 0
    low, high = math.inf, -math.inf
    while node >= 0:
        if nodes[node, VARIABLE] == variable:
            x = vals[node, capture]
            if x == x:
                n += 1
                # Compensated, so that the order of the walk does not show.
                t = total + x
                if abs(total) >= abs(x):
                    carry += (total - t) + x
                else:
                    carry += (x - t) + total
                total = t
                low = min(low, x)
                high = max(high, x)
        node = nodes[node, PREV]
    if op == BOUND_PRESENT:
        return float(n)
    if op == BOUND_SUM:
        return total + carry
    if n == 0:
        return math.nan
    if op == BOUND_AVG:
        return (total + carry) / n
    return low if op == BOUND_MIN else high


@inner
def run(code, lo, hi, consts, tables, cols, row, nodes, vals, node, stack):
    """Run program rows ``lo`` to ``hi`` and return the value on top."""
    top = -1
    pc = lo
    while pc < hi:
        op = code[pc, 0]
        a = np.int64(code[pc, 1])
        pc += 1
        if op == CONST:
            top += 1
            stack[top] = consts[a]
        elif op == COL:
            top += 1
            stack[top] = cols[a, row]
        elif op <= MOD:
            y = stack[top]
            top -= 1
            x = stack[top]
            if op == ADD:
                x = x + y
            elif op == SUB:
                x = x - y
            elif op == MUL:
                x = x * y
            elif y == 0.0:
                x = math.nan
            elif op == DIV:
                x = x / y
            else:
                x = np.fmod(x, y)
            stack[top] = x
        elif EQ <= op <= GE:
            y = stack[top]
            top -= 1
            x = stack[top]
            if op == EQ:
                t = x == y
            elif op == NE:
                t = x < y or x > y
            elif op == LT:
                t = x < y
            elif op == LE:
                t = x <= y
            elif op == GT:
                t = x > y
            else:
                t = x >= y
            stack[top] = 1.0 if t else 0.0
        elif op == JUMP_IF_FALSE:
            x = stack[top]
            if x == x and x != 0.0:
                top -= 1
            else:
                stack[top] = 0.0
                pc = lo + a
        elif op == JUMP_IF_TRUE:
            x = stack[top]
            if x == x and x != 0.0:
                stack[top] = 1.0
                pc = lo + a
            else:
                top -= 1
        elif op == TRUTH:
            x = stack[top]
            stack[top] = 1.0 if x == x and x != 0.0 else 0.0
        elif op == NOT:
            x = stack[top]
            stack[top] = 0.0 if x == x and x != 0.0 else 1.0
        elif op in (BOUND_LAST, BOUND_FIRST):
            found = latest(nodes, node, a)
            if found >= 0 and op == BOUND_FIRST:
                found = nodes[found, FIRST]
            top += 1
            stack[top] = vals[found, code[pc - 1, 2]] if found >= 0 else math.nan
        elif op == BOUND_COUNT:
            found = latest(nodes, node, a)
            top += 1
            stack[top] = float(nodes[found, COUNT]) if found >= 0 else 0.0
        elif op == BOUND_TIME:
            # Of the event bound last, in milliseconds: event times are whole ones.
            top += 1
            stack[top] = float(nodes[node, TIME] // 1_000_000)
        elif op >= BOUND_SUM:
            top += 1
            stack[top] = bound_aggregate(op, nodes, vals, node, a, code[pc - 1, 2])
        elif op == NEG:
            stack[top] = -stack[top]
        elif op == ABS:
            stack[top] = abs(stack[top])
        elif op == LOG:
            x = stack[top]
            stack[top] = math.log(x) if x > 0.0 else math.nan
        elif op == SQRT:
            x = stack[top]
            stack[top] = math.sqrt(x) if x >= 0.0 else math.nan
        elif op in (MIN2, MAX2):
            y = stack[top]
            top -= 1
            x = stack[top]
            if x != x or y != y:
                stack[top] = math.nan
            elif op == MIN2:
                stack[top] = min(x, y)
            else:
                stack[top] = max(x, y)
        elif op == IS_NULL:
            x = stack[top]
            stack[top] = 1.0 if x != x else 0.0
        elif op == IN:
            x = stack[top]
            t = False
            for j in range(a, a + code[pc - 1, 2]):
                if x == consts[j]:
                    t = True
                    break
            stack[top] = 1.0 if t else 0.0
        elif op == TABLE:
            x = stack[top]
            stack[top] = float(tables[a, int(x)]) if x == x else 0.0
    x = stack[top]
    # An overflow is no number: absent, like a division by zero.
    return math.nan if math.isinf(x) else x


@kernel
def run_rows(code, lo, hi, consts, tables, cols, rows, out):
    """Run a program that reads only the event, once for each row in ``rows``."""
    stack = np.empty(STACK)
    nodes = np.empty((0, NODE_WIDTH), np.int64)
    vals = np.empty((0, 0))
    none = np.int64(-1)
    for i in range(rows.size):
        out[i] = run(
            code, lo, hi, consts, tables, cols, rows[i], nodes, vals, none, stack
        )


@kernel
def condition_bits(code, progs, bits_of, consts, tables, cols, rows, out):
    """Evaluate conditions that read only the event: bit j of ``out[i]`` for row i.

    ``progs[bits_of[j]]`` is the slice of the j-th condition's program.
    """
    stack = np.empty(STACK)
    nodes = np.empty((0, NODE_WIDTH), np.int64)
    vals = np.empty((0, 0))
    none = np.int64(-1)
    for i in range(rows.size):
        bits = 0
        for j in range(bits_of.size):
            p = bits_of[j]
            x = run(
                code,
                progs[p, 0],
                progs[p, 1],
                consts,
                tables,
                cols,
                rows[i],
                nodes,
                vals,
                none,
                stack,
            )
            if x == x and x != 0.0:
                bits |= 1 << j
        out[i] = bits
