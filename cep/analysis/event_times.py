"""When something happened: what the statistics of events are computed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cep.analysis.columns import checked_columns, time_column_ns
from cep.frames.from_frame import as_polars

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class EventTimes:
    """Instants, several of which may be equal.

    Attributes
    ----------
    name
        What charts and tables call the events.
    time_ns
        Shape ``(n,)``, nanoseconds since the epoch, UTC, never falling.
    absent
        Rows of the frame that held no time and were left out.
    """

    name: str
    time_ns: NDArray[np.int64]
    absent: int = 0

    def __len__(self) -> int:
        return len(self.time_ns)

    def between(self, start_ns: int, end_ns: int) -> EventTimes:
        """Return the part from ``start_ns`` to ``end_ns``, both included."""
        first = np.searchsorted(self.time_ns, start_ns, "left")
        last = np.searchsorted(self.time_ns, end_ns, "right")
        return EventTimes(self.name, self.time_ns[int(first) : int(last)], self.absent)


def event_times(
    frame: Any, *, time: str = "event_time", name: str = "events"
) -> EventTimes:
    """Return the times of a frame's rows, one for each row.

    Parameters
    ----------
    frame
        polars, pandas or Arrow, in any order.
    time
        The column of datetimes (naive means UTC).
    name
        What results call the events.

    Raises
    ------
    UsageError
        If the column is missing or holds no times.

    Examples
    --------
    >>> import polars as pl
    >>> from datetime import datetime, UTC
    >>> frame = pl.DataFrame({"event_time": [datetime(2026, 1, 5, tzinfo=UTC), None]})
    >>> found = event_times(frame)
    >>> len(found), found.absent
    (1, 1)
    """
    rows = as_polars(frame)
    checked_columns(rows, (time,))
    ns = time_column_ns(rows, time)
    known = ns.drop_nulls().sort()
    return EventTimes(name, known.to_numpy(), absent=len(ns) - len(known))
