"""The steps that an engine takes with a batch, and what they write meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cep.engine.growth import doubled
from cep.engine.kernels import work
from cep.engine.kernels.handle import WORDS, handle
from cep.errors import OutOfOrderError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cep.engine.batch import Batch
    from cep.engine.operator import Operator

# A large batch is taken in in parts of so many rows, which fit in the cache.
PART_ROWS = 16_384


class Step(Protocol):
    """Something that takes in rows by a kernel.

    ``handle`` stays where it is: what changes is what it says.
    """

    kernel: Any
    handle: NDArray[np.int64]
    argument: int

    def help(self, batch: Batch, at: int, end: int) -> int:
        """Do what the kernel cannot, at row ``at``; returns where it goes on."""
        ...


class Work:
    """Takes steps over the rows of batches; see `cep.engine.kernels.work`.

    Attributes
    ----------
    keys
        ``(spaces, n)``: the keys of the rows, from the first of the last call on.
    found
        Whether a rule has put something out since this was last cleared.
    """

    def __init__(self, steps: Sequence[Step], spaces: int, rules: int) -> None:
        self._steps = steps
        self._plan = np.zeros((len(steps), work.PLAN_WIDTH), np.int64)
        self._ready = 0  # how many steps have an address: they compile when needed
        self._facts = np.zeros(work.FACTS_WIDTH, np.int64)
        self._facts[work.LAST_TIME] = np.iinfo(np.int64).min
        self._handle = np.zeros((work.TABLES, WORDS), np.int64)
        self._address = self._handle.ctypes.data
        self.found = False
        self._spaces, self._rules = spaces, rules
        self._make_room(64)

    def _make_room(self, rows: int) -> None:
        """Make room for what is said of so many rows."""
        self.keys = np.empty((self._spaces, rows), np.int64)
        self._bits = np.empty((self._rules, rows), np.int64)
        self._following = np.empty(rows, np.int64)
        self._room = rows
        nothing = np.zeros((0, 0), np.int64)
        tables = [nothing, nothing, self.keys, self._bits, self._following]
        self._handle[:] = handle([*tables, self._plan, self._facts])

    def _prepare(self, steps: int) -> None:
        for number in range(self._ready, steps):
            step = self._steps[number]
            address = step.handle.ctypes.data
            self._plan[number] = step.kernel.address(), address, step.argument
        self._ready = steps

    def set_keys(self, space: int, keys: NDArray[np.int64]) -> None:
        """Say what the keys of the rows are, from the first of the next call on."""
        if len(keys) > self._room:
            self._make_room(doubled(self._room, len(keys)))
        self.keys[space, : len(keys)] = keys

    @property
    def last_ns(self) -> int:
        """The time of the last event of all that were taken in, in order."""
        return self._facts.item(work.LAST_TIME)

    def key_of(self, space: int, row: int) -> int:
        """Return the key of a row of the batch that is being taken in."""
        return int(self.keys[space, row - self._facts[work.FIRST]])

    def run(
        self,
        batch: Batch,
        rows: tuple[int, int, int],
        steps: tuple[int, int],
        order: int,
        until_ns: int,
    ) -> None:
        """Take some steps over rows of a batch, and let time pass.

        Parameters
        ----------
        rows
            The first row that keys and conditions are kept of, that from which on
            rows are taken in, and the one behind the last.
        steps
            The first, and the one behind the last.
        order
            The place of the batch's row 0 among all events.
        """
        first, at, end = rows
        step, last = steps
        if end - first > self._room:
            self._make_room(doubled(self._room, end - first))
        if last > self._ready:
            self._prepare(last)
        ints, cols = id(batch.ints), id(batch.cols)
        while True:
            step = work.run(
                self._address, ints, cols, order, first, at, end, step, last, until_ns
            )
            if step == last:
                return
            if step < 0:
                self.found = True
                return
            reached = self._facts.item(work.REACHED)
            at = self._steps[step].help(batch, reached, end)


class Order:
    """Refuses rows that are not in the order of their times; a `Step`."""

    kernel = work.check_order
    handle = np.zeros((0, WORDS), np.int64)
    argument = 0

    def __init__(self, operator: Operator) -> None:
        self._operator = operator

    def help(self, batch: Batch, at: int, end: int) -> int:
        """Say which times they are."""
        times = batch.time
        before = int(times[at - 1]) if at else self._operator.last_ns
        raise OutOfOrderError("Operator.step", int(times[at]), before)


class KeyNumbers:
    """Numbers the keys of one space; a `Step`.

    It takes no step where no kernel can number them.
    """

    kernel = work.number

    def __init__(self, operator: Operator, number: int) -> None:
        self._operator = operator
        self._space = operator.plan.keyspaces[number]
        self.handle = self._space.handle
        self.argument = number if self._space.is_plain else -1

    def help(self, batch: Batch, at: int, end: int) -> int:
        """Give numbers to new keys, and room to what keeps something of each."""
        self._space.number_codes(batch.cols[self._space.columns[0], at:end])
        self._operator.size_parts()
        return at
