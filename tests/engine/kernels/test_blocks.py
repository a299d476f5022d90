"""Blocks of events and one event at a time give the same results, bit for bit."""

import numba as nb
import numpy as np
import pytest

from cep.engine.kernels import blocks, vm

INFIX = [vm.ADD, vm.SUB, vm.MUL, vm.DIV, vm.MOD, vm.MIN2, vm.MAX2, vm.POW]
INFIX += [vm.EQ, vm.NE, vm.LT, vm.LE, vm.GT, vm.GE, vm.COALESCE]
PREFIX = [vm.NEG, vm.ABS, vm.LOG, vm.SQRT, vm.EXP, vm.SIGN, vm.NOT, vm.IS_NULL]
PREFIX += [vm.FLOOR, vm.CEIL, vm.ROUND, vm.TRUNC]
JUMPS = (vm.JUMP_IF_FALSE, vm.JUMP_IF_TRUE)
CONSTS = np.array([0.0, 1.0, -2.5, 7.0, 1e300, np.nan])
NUMBERS = [0.0, -0.0, 1.0, -1.0, 2.5, 3.5, 1e-300, 1e300, 1.7e12, -8e11, np.nan]


def program(rng, depth):
    """A random program in postfix order; and / or hold their jumps."""
    if depth == 0:
        if rng.random() < 0.3:
            return [(vm.CONST, int(rng.integers(CONSTS.size)), 0)]
        return [(vm.COL, int(rng.integers(3)), 0)]
    left, right = program(rng, depth - 1), program(rng, depth - 1)
    kind = rng.integers(7)
    if kind <= 2:
        right = shifted(right, len(left))
        return [*left, *right, (int(rng.choice(INFIX)), 0, 0)]
    if kind == 3:
        return [*left, (int(rng.choice(PREFIX)), 0, 0)]
    if kind == 4:
        jump, end = [(vm.JUMP_IF_FALSE, vm.AND), (vm.JUMP_IF_TRUE, vm.OR)][
            rng.integers(2)
        ]
        right = shifted(right, len(left) + 1)
        over = len(left) + len(right) + 2
        return [*left, (jump, over, 0), *right, (end, 0, 0)]
    if kind == 5:
        third = program(rng, depth - 1)
        moved = shifted(right, len(left))
        third = shifted(third, len(left) + len(right))
        return [*left, *moved, *third, (vm.SELECT, 0, 0)]
    one = [
        (vm.IN, 0, 3),
        (vm.TABLE, 1, int(rng.integers(2))),
        (vm.TIME_PART, int(rng.integers(7)), 0),
    ]
    return [*left, one[rng.integers(3)]]


def shifted(code, by):
    """Code whose jumps count from ``by`` rows earlier."""
    return [(op, a + by if op in JUMPS else a, b) for op, a, b in code]


@nb.njit(error_model="numpy")
def one_by_one(code, consts, tables, cols, out):
    stack = np.empty(vm.STACK)
    nodes = np.empty((0, vm.NODE_WIDTH), np.int64)
    vals = np.empty((0, 0))
    none = np.int64(-1)
    for i in range(out.size):
        out[i] = vm.run(
            code, 0, len(code), consts, tables, cols, i, nodes, vals, none, stack
        )


@nb.njit(error_model="numpy")
def in_blocks(code, consts, tables, cols, bits, stack, first, end):
    blocks.run_blocks(code, consts, tables, cols, bits, stack, first, first, end)


def example(seed, n):
    rng = np.random.default_rng(seed)
    # Three columns that are read, one that is written.
    cols = rng.choice(NUMBERS, (4, n))
    cols[1] = np.where(rng.random(n) < 0.5, rng.normal(0, 5, n), cols[1])
    tables = np.array([np.zeros(8), [0, 1, np.nan, 2.5, -1, 0, 1, 7]])
    code = program(rng, int(rng.integers(1, 6)))
    if rng.random() < 0.3:  # jumps count from where the program begins
        code = [*code, (vm.NOT, 0, 0)]
    return code, tables, cols


@pytest.mark.parametrize("n", [0, 1, 7, 300])
def test_blocks_equal_single_events_bit_for_bit(n):
    for seed in range(250):
        code, tables, cols = example(seed, n)
        expected = np.empty(n)
        one = np.array(code, np.int32)
        one_by_one(one, CONSTS, tables, cols, expected)
        whole = [row for row in code if row[0] not in JUMPS]
        whole += [(vm.STORE, 3, 0), (vm.BIT, 1, seed % 62), (vm.POP, 0, 0)]
        bits = np.zeros((2, n), np.int64)
        stack = np.full((40, 64), 99.0)
        twice = np.array(whole + whole, np.int32)
        in_blocks(twice, CONSTS, tables, cols, bits, stack, 0, n)
        assert np.array_equal(expected, cols[3], equal_nan=True), (seed, code)
        held = ~np.isnan(expected)
        assert (np.signbit(expected) == np.signbit(cols[3]))[held].all(), seed
        true = held & (expected != 0.0)
        assert bits.tolist() == [[0] * n, (true * (1 << seed % 62)).tolist()]


def test_a_table_is_asked_of_its_own_strings_only():
    cols = np.array([[-5.0, 0.0, 3.0, 4.0, 1e18, np.nan], np.zeros(6)])
    tables = np.array([[9.0, 8.0, 7.0, 6.0]])
    code = [(vm.COL, 0, 0), (vm.TABLE, 0, 0), (vm.STORE, 1, 0), (vm.POP, 0, 0)]
    none = np.zeros((0, 0), np.int64)
    in_blocks(
        np.array(code, np.int32), CONSTS, tables, cols, none, np.empty((1, 4)), 0, 6
    )
    assert cols[1].tolist() == [0.0, 9.0, 6.0, 0.0, 0.0, 0.0]
