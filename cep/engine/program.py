"""From expression trees to programs of the stack machine (`kernels.vm`).

Compiling needs to know where values are: which column of the batch a field or
window is in, which captured column of a node a bound field is in. That is the
`Scope`. Everything a program reads is asked of its scope, so compiling is also
how the engine learns what to load.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Protocol

import numpy as np

from cep.engine.kernels import blocks, vm
from cep.engine.kernels.handle import WORDS, handle
from cep.errors import RuleError
from cep.events.timestamps import parse_timestamp
from cep.rules.choices import Choice, Coalesce
from cep.rules.expressions import (
    Binary,
    BoundAggregate,
    BoundField,
    Call,
    Cast,
    Const,
    Expr,
    Field,
    IsIn,
    IsNull,
    Not,
    Python,
    Scoped,
    SincePrevious,
    StringTest,
    TimePart,
    TypeIs,
)
from cep.rules.windows import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from cep.engine.batch import Batch
    from cep.engine.interner import Interner
    from cep.rules.expressions import Scalar
    from cep.rules.types import Kind

_BINARY = {
    "add": vm.ADD,
    "sub": vm.SUB,
    "mul": vm.MUL,
    "div": vm.DIV,
    "mod": vm.MOD,
    "eq": vm.EQ,
    "ne": vm.NE,
    "lt": vm.LT,
    "le": vm.LE,
    "gt": vm.GT,
    "ge": vm.GE,
}
_CALLS = {
    "neg": vm.NEG,
    "abs": vm.ABS,
    "log": vm.LOG,
    "sqrt": vm.SQRT,
    "min2": vm.MIN2,
    "max2": vm.MAX2,
    "exp": vm.EXP,
    "pow": vm.POW,
    "floor": vm.FLOOR,
    "ceil": vm.CEIL,
    "round": vm.ROUND,
    "trunc": vm.TRUNC,
    "sign": vm.SIGN,
}
_TIME_PARTS = {
    "year": vm.YEAR,
    "month": vm.MONTH,
    "day": vm.DAY,
    "weekday": vm.WEEKDAY,
    "hour": vm.HOUR,
    "minute": vm.MINUTE,
    "second": vm.SECOND,
}
_BOUND = {
    "sum": vm.BOUND_SUM,
    "avg": vm.BOUND_AVG,
    "min": vm.BOUND_MIN,
    "max": vm.BOUND_MAX,
    "count": vm.BOUND_PRESENT,
}


Row = tuple[int, int, int]  # op, a, b; jumps are relative to the program's begin


class BlockCode:
    """Programs to run over whole batches; shared by no two threads.

    A `cep.engine.work.Step`; ``argument`` is 1 where they write bits.
    """

    kernel = blocks.fill_blocks

    def __init__(
        self, code: Sequence[Row], consts: NDArray[np.float64], *, writes_bits: bool
    ) -> None:
        self.code = np.array(code, np.int32).reshape(-1, 3)
        self.argument = int(writes_bits)
        self._consts = consts
        self._stack = np.empty((max(1, _depth(code)), blocks.BLOCK))
        self.handle = np.zeros((4, WORDS), np.int64)

    def bind(self, tables: NDArray[np.float64]) -> None:
        """Tell the kernel what the tables of strings are now."""
        self.handle[:] = handle([self.code, self._consts, tables, self._stack])

    def help(self, batch: Batch, at: int, end: int) -> int:
        """Is never asked for: the kernel of programs always gets to the end."""
        raise AssertionError(at, end)


class Scope(Protocol):
    """Where the values of a program are."""

    def column(self, expr: Field | Window | Python | TypeIs | SincePrevious) -> int:
        """Return the batch column that holds ``expr``, or what it is told from."""
        ...

    def variable(self, step: str) -> int:
        """Return the number of a step."""
        ...

    def capture(self, step: str, name: str) -> int:
        """Return the captured column of a bound event's field."""
        ...

    def type_codes(self, types: tuple[str, ...]) -> list[int]:
        """Return the engine's codes of event types."""
        ...

    def kind(self, expr: Expr) -> Kind:
        """Return the kind of a value."""
        ...

    def narrowed(self, types: tuple[str, ...]) -> Scope:
        """Return the scope of a condition on events of ``types``."""
        ...


class Programs:
    """All programs of an engine in one table, equal ones and equal constants once."""

    def __init__(self, strings: Interner) -> None:
        self.strings = strings
        self._code: list[Row] = []
        self._slices: list[tuple[int, int]] = []
        self._numbers: dict[tuple[Row, ...], int] = {}
        self._consts: list[float] = []
        self._lists: dict[tuple[str, ...], int] = {}
        self._tables: dict[tuple[str, str], int] = {}

    def add(self, expr: Expr, scope: Scope) -> int:
        """Compile an expression; returns the program's number."""
        # Gathered apart: asking the scope for a window may compile that
        # window's own programs meanwhile.
        code: list[Row] = []
        self._emit(expr, scope, code)
        deepest = _depth(code)
        if deepest > vm.STACK:
            raise RuleError(
                f"{str(expr)[:80]}...",
                f"the expression nests {deepest} deep, at most {vm.STACK} is possible",
                "group it from the left, or split it over several rules",
            )
        number = self._numbers.setdefault(tuple(code), len(self._slices))
        if number == len(self._slices):
            begin = len(self._code)
            self._code += code
            self._slices.append((begin, len(self._code)))
        return number

    def block_code(
        self, parts: Sequence[tuple[int, Sequence[Row]]], *, writes_bits: bool = False
    ) -> BlockCode:
        """Join programs for `kernels.blocks`, each with what becomes of its value."""
        code: list[Row] = []
        for number, uses in parts:
            program = self._code[slice(*self._slices[number])]
            code += [row for row in program if row[0] not in _JUMPS]
            code += [*uses, (vm.POP, 0, 0)]
        return BlockCode(code, self.consts, writes_bits=writes_bits)

    @property
    def code(self) -> NDArray[np.int32]:
        """Rows (op, a, b)."""
        return np.array(self._code or [(0, 0, 0)], np.int32)

    @property
    def slices(self) -> NDArray[np.int32]:
        """Rows (begin, end) by program number."""
        return np.array(self._slices or [(0, 0)], np.int32)

    @property
    def consts(self) -> NDArray[np.float64]:
        """The constants."""
        return np.array(self._consts or [0.0], np.float64)

    def _listed(self, numbers: Iterable[float]) -> tuple[int, int]:
        """Return where these constants begin, and how many they are."""
        values = list(numbers)
        # By their names: of equal numbers, 0.0 and -0.0 are two.
        begin = self._lists.setdefault(tuple(map(repr, values)), len(self._consts))
        if begin == len(self._consts):
            self._consts += values
        return begin, len(values)

    def _const(self, value: Scalar) -> Row:
        return (vm.CONST, self._listed([self._number(value)])[0], 0)

    def _number(self, value: Scalar) -> float:
        if isinstance(value, str):
            return float(self.strings.code(value))
        number = float(value)
        return math.nan if math.isinf(number) else number

    def _emit(self, expr: Expr, scope: Scope, code: list[Row]) -> None:
        if isinstance(expr, Const):
            code.append(self._const(expr.value))
        elif isinstance(expr, (Field, Window, Python)):
            code.append((vm.COL, scope.column(expr), 0))
        elif isinstance(expr, Scoped):
            self._emit(expr.operand, scope.narrowed(expr.types), code)
        elif isinstance(expr, TypeIs):
            code.append((vm.COL, scope.column(expr), 0))
            codes = scope.type_codes(expr.types)
            code.append((vm.IN, *self._listed(map(float, codes))))
        elif isinstance(expr, SincePrevious):
            code.append((vm.COL, scope.column(expr), 0))
            code.append((vm.BOUND_TIME, 0, 0))
            code.append((vm.SUB, 0, 0))
            code.append(self._const(expr.length_ns / 1_000_000))
            code.append((vm.LT, 0, 0))
        elif isinstance(expr, BoundField):
            op = vm.BOUND_FIRST if expr.which == "first" else vm.BOUND_LAST
            code.append(
                (op, scope.variable(expr.step), scope.capture(expr.step, expr.name))
            )
        elif isinstance(expr, BoundAggregate):
            variable = scope.variable(expr.step)
            if expr.name is None:
                code.append((vm.BOUND_COUNT, variable, 0))
            else:
                capture = scope.capture(expr.step, expr.name)
                code.append((_BOUND[expr.function], variable, capture))
        elif isinstance(expr, Binary) and expr.op in _BINARY:
            self._emit(expr.left, scope, code)
            self._emit(expr.right, scope, code)
            code.append((_BINARY[expr.op], 0, 0))
        elif isinstance(expr, Binary):
            self._emit(expr.left, scope, code)
            jump = vm.JUMP_IF_FALSE if expr.op == "and" else vm.JUMP_IF_TRUE
            at = len(code)
            code.append((jump, 0, 0))
            self._emit(expr.right, scope, code)
            code.append((vm.AND if expr.op == "and" else vm.OR, 0, 0))
            code[at] = (jump, len(code), 0)
        elif isinstance(expr, Not):
            self._emit(expr.operand, scope, code)
            code.append((vm.NOT, 0, 0))
        elif isinstance(expr, Call) and expr.function == "round" and expr.args[1:]:
            self._emit(_rounded(*expr.args), scope, code)
        elif isinstance(expr, Cast):
            self._emit(expr.operand, scope, code)
            kind = scope.kind(expr.operand)
            if kind == "str":
                code.append((vm.TABLE, self._table(f"as_{expr.to}", ""), 1))
            elif expr.to == "int":
                code.append((vm.TRUNC, 0, 0))
        elif isinstance(expr, TimePart):
            self._emit(expr.operand, scope, code)
            code.append((vm.TIME_PART, _TIME_PARTS[expr.part], 0))
        elif isinstance(expr, Choice):
            for part in expr.children():
                self._emit(part, scope, code)
            code.append((vm.SELECT, 0, 0))
        elif isinstance(expr, Coalesce):
            self._emit(expr.values[0], scope, code)
            for value in expr.values[1:]:
                self._emit(value, scope, code)
                code.append((vm.COALESCE, 0, 0))
        elif isinstance(expr, Call):
            for arg in expr.args:
                self._emit(arg, scope, code)
            code.append((_CALLS[expr.function], 0, 0))
        elif isinstance(expr, IsNull):
            self._emit(expr.operand, scope, code)
            code.append((vm.IS_NULL, 0, 0))
        elif isinstance(expr, IsIn):
            self._emit(expr.operand, scope, code)
            code.append((vm.IN, *self._listed(map(self._number, expr.values))))
        else:
            assert isinstance(expr, StringTest)
            self._emit(expr.operand, scope, code)
            code.append((vm.TABLE, self._table(expr.test, expr.text), 0))

    def _table(self, test: str, text: str) -> int:
        row = self._tables.get((test, text))
        if row is None:
            row = self.strings.add_table(_table_of(test, text))
            self._tables[test, text] = row
        return row


_JUMPS = (vm.JUMP_IF_FALSE, vm.JUMP_IF_TRUE)
_PUSHES = {vm.CONST, vm.COL, vm.BOUND_COUNT, vm.BOUND_LAST, vm.BOUND_FIRST}
_PUSHES |= {vm.BOUND_TIME, *_BOUND.values()}
_POPS = {*_BINARY.values(), vm.MIN2, vm.MAX2, vm.POW, vm.AND, vm.OR, vm.COALESCE}
_POPS.add(vm.POP)


def _depth(code: Iterable[Row]) -> int:
    """Return the deepest the stack gets in a block, where nothing jumps."""
    depth = deepest = 0
    for op, _, _ in code:
        depth += (op in _PUSHES) - (op in _POPS) - 2 * (op == vm.SELECT)
        deepest = max(deepest, depth)
    return deepest


def _rounded(value: Expr, digits: Expr) -> Expr:
    """Round to a number of digits as polars does: times a power of ten, and back."""
    assert isinstance(digits, Const)
    scale = Const(10.0 ** int(digits.value))
    whole = Call("round", (Binary("mul", value, scale),))
    return Binary("div", whole, scale)


_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"[+-]?[0-9]+")


def _as_float(text: str) -> float:
    return float(text) if _NUMBER.fullmatch(text) else math.nan


def _as_int(text: str) -> float:
    # float and not int, which refuses very many digits.
    return float(text) if _WHOLE.fullmatch(text) else math.nan


def _as_time(text: str) -> float:
    time = parse_timestamp(text)
    return math.nan if time is None else float(time)


_READERS = {"as_float": _as_float, "as_int": _as_int, "as_time": _as_time}


def _table_of(name: str, text: str) -> Callable[[str], float]:
    if name in _READERS:
        return _READERS[name]
    if name == "starts_with":
        return lambda value: value.startswith(text)
    if name == "ends_with":
        return lambda value: value.endswith(text)
    return lambda value: text in value
