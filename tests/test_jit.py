"""What the compiler of kernels leaves out changes nothing that they compute."""

import numba
import numpy as np
import pytest
from numba.core import types
from numba.core.errors import TypingError

from cep.jit import InnerCompiler, KernelCompiler

LEAN = {"error_model": "numpy", "no_rewrites": True}


def kernel(function):
    return numba.njit(**LEAN, pipeline_class=KernelCompiler)(function)


def inner(function):
    return numba.njit(
        **LEAN, pipeline_class=InnerCompiler, no_cpython_wrapper=True, _nrt=False
    )(function)


@inner
def square(x):
    return x * x


@inner
def cube(x):
    return x * square(x)


@kernel
def both(x):
    return square(x) + cube(x)


@kernel
def copy(source, target, indexes):
    """Copy the items at ``indexes`` of arrays of one dimension."""
    for j in range(indexes.size):
        target[indexes[j]] = source[indexes[j]]


@kernel
def copy2(source, target, rows, columns):
    """Copy items of arrays of two dimensions, the second half by a slice."""
    half = rows.size // 2
    for j in range(half):
        target[rows[j], columns[j]] = source[rows[j], columns[j]]
    for j in range(half, rows.size):
        target[rows[j]][columns[j]] = source[rows[j], :][columns[j]]


def test_inner_functions_are_part_of_the_kernels_that_call_them():
    assert [both(2), both(0.5)] == [12, 0.375]
    assert len(cube.signatures) == 2


def test_an_inner_function_has_no_machine_code():
    both(2)
    compiled = square.overloads[square.signatures[0]]
    name = compiled.fndesc.llvm_func_name
    assert name in compiled.library.get_llvm_str()
    assert compiled.library.get_pointer_to_function(name) == 0


@pytest.mark.parametrize("kind", ["f8", "i4", "b1", "c16"])
@pytest.mark.parametrize("step", [1, -2])
@pytest.mark.parametrize("index", ["i8", "u1"])
def test_items_of_arrays_are_those_that_numpy_gives(kind, step, index):
    rng = np.random.default_rng(1)
    source = rng.integers(0, 200, 40).astype(kind)[::step]
    lowest = -source.size if index[0] == "i" else 0
    indexes = rng.integers(lowest, source.size, 15).astype(index)
    expected, got = np.zeros_like(source), np.zeros_like(source)
    expected[indexes] = source[indexes]
    copy(source, got, indexes)
    assert got.tolist() == expected.tolist()


@pytest.mark.parametrize("target", ["f8", "i4", "u1"])
@pytest.mark.parametrize("order", ["C", "F", "A"])
def test_items_of_tables_are_those_that_numpy_gives(order, target):
    rng = np.random.default_rng(2)
    source = np.array(
        rng.integers(0, 200, (14, 10)), order="C" if order == "A" else order
    )
    source = source[::2, 1::3] if order == "A" else source
    rows = rng.integers(-source.shape[0], source.shape[0], 20)
    columns = rng.integers(0, source.shape[1], 20).astype(np.uint32)
    expected, got = np.zeros((2, *source.shape), target)
    expected[rows, columns] = source[rows, columns]
    copy2(source, got, rows, columns)
    assert got.tolist() == expected.tolist()


def test_numba_itself_is_left_as_it_was():
    before = types.Function.get_call_type
    kernel(lambda x: x + 1)(2)
    with pytest.raises(TypingError, match="No implementation of function"):
        kernel(lambda x: x + "1")(2)
    assert types.Function.get_call_type is before
