"""Runs expression programs: a stack machine over one event and one match.

A program is a slice of rows ``(op, a, b)`` in postfix order. Values are
doubles; absent is NaN, false and true are 0 and 1, strings are codes. The
columns of the batch are ``cols[column, row]``. What a match has bound is a
chain of nodes, each pointing to the one before it (see `nodes`).

Arithmetic whose result is no finite number is absent. A value counts as true
if it is neither absent nor zero, which is ``abs(x) > 0.0``.

Conditions that read only the event are run for many events at a time by
`cep.engine.kernels.blocks`, with the same results to the last bit.
"""

from __future__ import annotations

import math

import numpy as np

from cep.engine.kernels.jit import inlined, inner

# In the order of the conditions at the end of `run`.
CONST, COL = 0, 1
ADD, SUB, MUL, DIV = 2, 3, 4, 5
EQ, NE, LT, LE, GT, GE = 6, 7, 8, 9, 10, 11
JUMP_IF_FALSE, JUMP_IF_TRUE = 12, 13
AND, OR = 14, 15  # end what a jump began; a block has not jumped
NOT, IS_NULL, NEG, ABS = 16, 17, 18, 19
IN, TABLE, SELECT, COALESCE = 20, 21, 22, 23
BOUND_LAST, BOUND_FIRST, BOUND_COUNT, BOUND_TIME = 24, 25, 26, 27
BOUND_SUM, BOUND_AVG, BOUND_MIN, BOUND_MAX, BOUND_PRESENT = 28, 29, 30, 31, 32
LOG, SQRT, EXP, FLOOR, CEIL, ROUND, TRUNC, SIGN = 33, 34, 35, 36, 37, 38, 39, 40
TIME_PART = 41
MIN2, MAX2, MOD, POW = 42, 43, 44, 45
# Only in programs of blocks: where the value on top goes.
STORE, BIT, POP = 46, 47, 48

# What TIME_PART takes out of milliseconds since the epoch, in UTC.
YEAR, MONTH, DAY, WEEKDAY, HOUR, MINUTE, SECOND = 0, 1, 2, 3, 4, 5, 6
_LAST_MS = 8.64e15  # some 270,000 years from the epoch: calendars end there

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


@inlined
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


@inlined
def finite(x):
    """Return ``x``, absent where it is no finite number."""
    return x if abs(x) < math.inf else math.nan


@inlined
def divide(x, y):
    """Return ``x / y``; by zero, absent."""
    return finite(x / y) if y != 0.0 else math.nan


@inlined
def listed(x, consts, a, b):
    """Whether ``x`` is one of the ``b`` constants from ``a``."""
    found = 0.0
    for j in range(a, a + b):
        if x == consts[j]:
            found = 1.0
    return found


@inlined
def looked_up(x, tables, a, b):
    """Return what table ``a`` says of the string with code ``x``.

    Of none, ``b`` decides: absent if 1, false if 0.
    """
    if 0.0 <= x < tables.shape[1]:
        return tables[a, np.int64(x)]
    return math.nan if b else 0.0


@inner
def time_part(ms, part):
    """Take a part of the calendar out of milliseconds since the epoch, UTC.

    Source of the date: H. Hinnant, "chrono-compatible low-level date
    algorithms", civil_from_days: years begin in March and are counted in eras
    of 400, which have 146,097 days.
    """
    if not abs(ms) <= _LAST_MS:
        return math.nan
    days = np.floor(ms / 86_400_000.0)
    rest = ms - days * 86_400_000.0
    if part == HOUR:
        return np.floor(rest / 3_600_000.0)
    if part == MINUTE:
        return np.fmod(np.floor(rest / 60_000.0), 60.0)
    if part == SECOND:
        return np.fmod(np.floor(rest / 1_000.0), 60.0)
    day = np.int64(days)
    if part == WEEKDAY:
        return float((day + 3) % 7 + 1)
    day += 719_468
    of_era = day % 146_097
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    if part == DAY:
        return float(of_year - (153 * month + 2) // 5 + 1)
    month = month + 3 if month < 10 else month - 9
    if part == MONTH:
        return float(month)
    return float(year + day // 146_097 * 400 + (month <= 2))


@inner
def unary(op, x, a):
    """Return what the less common operations make of one number."""
    if op == LOG:
        return math.log(x) if x > 0.0 else math.nan
    if op == SQRT:
        return math.sqrt(x)
    if op == EXP:
        return finite(math.exp(x))
    if op == FLOOR:
        return np.floor(x)
    if op == CEIL:
        return np.ceil(x)
    if op == ROUND:
        return np.rint(x)
    if op == TRUNC:
        return np.trunc(x)
    if op == SIGN:
        return 1.0 if x > 0.0 else -1.0 if x < 0.0 else x
    return time_part(x, a)


@inner
def binary(op, x, y):
    """Return what the less common operations make of two numbers."""
    if x != x or y != y:
        return math.nan
    if op == MIN2:
        return y if y < x else x
    if op == MAX2:
        return y if y > x else x
    if op == MOD:
        return np.fmod(x, y) if y != 0.0 else math.nan
    return finite(math.pow(x, y))


@inlined
def run(code, lo, hi, consts, tables, cols, row, nodes, vals, node, stack):
    """Run program rows ``lo`` to ``hi`` and return the value on top."""
    # One flat chain of equality tests, which becomes a table of jumps.
    top = np.int64(-1)
    pc = lo
    while pc < hi:
        op = code[pc, 0]
        a = np.int64(code[pc, 1])
        b = np.int64(code[pc, 2])
        pc += 1
        if op == COL:
            top += 1
            stack[top] = cols[a, row]
        elif op == CONST:
            top += 1
            stack[top] = consts[a]
        elif op == ADD:
            top -= 1
            stack[top] = finite(stack[top] + stack[top + 1])
        elif op == SUB:
            top -= 1
            stack[top] = finite(stack[top] - stack[top + 1])
        elif op == MUL:
            top -= 1
            stack[top] = finite(stack[top] * stack[top + 1])
        elif op == DIV:
            top -= 1
            stack[top] = divide(stack[top], stack[top + 1])
        elif op == EQ:
            top -= 1
            stack[top] = 1.0 if stack[top] == stack[top + 1] else 0.0
        elif op == NE:
            top -= 1
            x, y = stack[top], stack[top + 1]
            stack[top] = 1.0 if x < y or x > y else 0.0
        elif op == LT:
            top -= 1
            stack[top] = 1.0 if stack[top] < stack[top + 1] else 0.0
        elif op == LE:
            top -= 1
            stack[top] = 1.0 if stack[top] <= stack[top + 1] else 0.0
        elif op == GT:
            top -= 1
            stack[top] = 1.0 if stack[top] > stack[top + 1] else 0.0
        elif op == GE:
            top -= 1
            stack[top] = 1.0 if stack[top] >= stack[top + 1] else 0.0
        elif op == JUMP_IF_FALSE:
            if abs(stack[top]) > 0.0:
                top -= 1
            else:
                stack[top] = 0.0
                pc = lo + a
        elif op == JUMP_IF_TRUE:
            if abs(stack[top]) > 0.0:
                stack[top] = 1.0
                pc = lo + a
            else:
                top -= 1
        elif op in (AND, OR):
            stack[top] = 1.0 if abs(stack[top]) > 0.0 else 0.0
        elif op == NOT:
            stack[top] = 0.0 if abs(stack[top]) > 0.0 else 1.0
        elif op == BOUND_LAST:
            found = latest(nodes, node, a)
            top += 1
            stack[top] = vals[found, b] if found >= 0 else math.nan
        elif op == BOUND_FIRST:
            found = latest(nodes, node, a)
            top += 1
            stack[top] = vals[nodes[found, FIRST], b] if found >= 0 else math.nan
        elif op == BOUND_COUNT:
            found = latest(nodes, node, a)
            top += 1
            stack[top] = float(nodes[found, COUNT]) if found >= 0 else 0.0
        elif op == BOUND_TIME:
            # Of the event bound last, in milliseconds: event times are whole ones.
            top += 1
            stack[top] = float(nodes[node, TIME] // 1_000_000)
        elif op == NEG:
            stack[top] = -stack[top]
        elif op == ABS:
            stack[top] = abs(stack[top])
        elif op == IS_NULL:
            x = stack[top]
            stack[top] = 1.0 if x != x else 0.0
        elif op == IN:
            stack[top] = listed(stack[top], consts, a, b)
        elif op == TABLE:
            stack[top] = looked_up(stack[top], tables, a, b)
        elif op == SELECT:
            top -= 2
            holds = abs(stack[top]) > 0.0
            stack[top] = stack[top + 1] if holds else stack[top + 2]
        elif op == COALESCE:
            top -= 1
            x = stack[top]
            stack[top] = x if x == x else stack[top + 1]
        elif op <= BOUND_PRESENT:
            top += 1
            stack[top] = bound_aggregate(op, nodes, vals, node, a, b)
        elif op <= TIME_PART:
            stack[top] = unary(op, stack[top], a)
        else:
            top -= 1
            stack[top] = binary(op, stack[top], stack[top + 1])
    return finite(stack[top])
