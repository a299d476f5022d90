"""History published again as events, as fast as possible or at a pace.

Each stream keeps its publish order exactly, rows that arrived late included.
Several streams are merged by their *event clocks*, the largest event time that
each has reached: an event goes out when its stream's clock is next, so that an
event that was late once is late again. At a finite speed it goes out when that
clock, counted from the first event and divided by the speed, has passed.

Event times are kept, or all shifted by one constant so that the replay looks
live: the last event falls on the moment at which it is published (at speeds
below 1 the first does), hence no event is ahead of the clock, which readers
would refuse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cep.clock import Clock, SystemClock
from cep.errors import UsageError
from cep.events.registry import Registry, registry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import polars as pl
    from numpy.typing import NDArray

    from cep.bus.publisher import Publisher

CHUNK_ROWS: Final = 2000
# Rows that fall due within it go out together: more often is only more work.
_TICK_SECONDS: Final = 0.01
_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Track:
    """Events of one stream in publish order.

    ``frame`` has ``event_time`` (Datetime, ms, UTC), ``type`` and the payload
    fields of its types, as `cep.bus.history.as_events` and `cep.sample.frame`
    give it. Columns that a type does not declare are left out of its payloads.
    """

    stream: str
    frame: pl.DataFrame


@dataclass(slots=True)
class Replayed:
    """What a replay wrote: events per stream, and how long it took."""

    events: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def replay_tracks(
    publisher: Publisher,
    tracks: Sequence[Track],
    *,
    speed: float = math.inf,
    shift_to_now: bool = False,
    clock: Clock | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Replayed:
    """Publish tracks, merged by event time; return what was written.

    Parameters
    ----------
    publisher
        Where to.
    tracks
        One per stream.
    speed
        Seconds of event time per second; infinity for as fast as possible.
    shift_to_now
        Shift all event times by one constant, as the module says.
    clock
        Tells the time and waits.
    progress
        Called after each chunk with (events written, all events).

    Raises
    ------
    UsageError
        If the speed is not positive.
    UnknownEventTypeError, InvalidPayloadError
        For the first chunk with such an event; chunks before it are written.
    """
    if not speed > 0:
        raise UsageError(f"The speed is {speed}.", "Give a number above 0, or 'max'.")
    clock = clock or SystemClock()
    parts = [_Part(track, publisher.registry) for track in tracks]
    due, owner = _merged(parts)
    done = Replayed({part.stream: 0 for part in parts})
    start_ns = clock.monotonic_ns()
    if shift_to_now and len(due):
        shift = _shift_ms(parts, speed, clock.now_ns())
        for part in parts:
            part.times_ms += shift
    first = 0
    while first < len(due):
        elapsed = (clock.monotonic_ns() - start_ns) / _NS
        last = _last_due(due, first, elapsed, speed)
        if last == first:
            wait = (due[first] - due[0]) / 1000 / speed - elapsed
            clock.sleep(max(float(wait), _TICK_SECONDS))
            continue
        rows = np.bincount(owner[first:last], minlength=len(parts)).tolist()
        for part, count in zip(parts, rows, strict=True):
            done.events[part.stream] += part.publish(publisher, count)
        first = last
        if progress is not None:
            progress(first, len(due))
    done.seconds = (clock.monotonic_ns() - start_ns) / _NS
    return done


def _last_due(due: NDArray[np.int64], first: int, elapsed: float, speed: float) -> int:
    last = min(first + CHUNK_ROWS, len(due))
    if math.isinf(speed):
        return last
    reached = due[0] + elapsed * speed * 1000
    return first + int(np.searchsorted(due[first:last], reached, side="right"))


def _merged(parts: Sequence[_Part]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Return the event clock of all events in the order they go out, and whose."""
    clocks = [np.maximum.accumulate(part.times_ms) for part in parts]
    if not clocks:
        return np.zeros(0, np.int64), np.zeros(0, np.intp)
    owner = np.repeat(np.arange(len(parts)), [len(one) for one in clocks])
    due = np.concatenate(clocks)
    order = np.argsort(due, kind="stable")
    return due[order], owner[order]


def _shift_ms(parts: Sequence[_Part], speed: float, now_ns: int) -> int:
    times = np.concatenate([part.times_ms for part in parts])
    first, last = int(times.min()), int(times.max())
    now_ms = now_ns // 1_000_000
    if speed < 1:
        return now_ms - first
    return now_ms + math.floor((last - first) / speed) - last


class _Part:
    """One track, taken apart by type, and how far it has been published."""

    def __init__(self, track: Track, known: Registry = registry) -> None:
        frame = track.frame
        self.stream = track.stream
        self.times_ms = frame["event_time"].dt.epoch("ms").to_numpy().copy()
        types = frame["type"].unique(maintain_order=True).to_list()
        self._types = types
        self._codes = np.zeros(len(frame), np.intp)
        self._rows: list[NDArray[np.intp]] = []
        self._columns: list[dict[str, Any]] = []
        for code, name in enumerate(types):
            rows = np.flatnonzero((frame["type"] == name).to_numpy())
            fields = {spec.name for spec in known.get(name).fields}
            self._codes[rows] = code
            self._rows.append(rows)
            self._columns.append(
                {n: frame[n].gather(rows) for n in frame.columns if n in fields}
            )
        self._next = 0
        self._next_of_type = [0] * len(types)

    def publish(self, publisher: Publisher, count: int) -> int:
        """Publish the next ``count`` rows."""
        order = self._codes[self._next : self._next + count]
        batches = []
        for code, name in enumerate(self._types):
            size = int((order == code).sum())
            start = self._next_of_type[code]
            self._next_of_type[code] += size
            rows = self._rows[code][start : start + size]
            columns = {n: c.slice(start, size) for n, c in self._columns[code].items()}
            batches.append((name, columns, self.times_ms[rows]))
        self._next += count
        return publisher.publish_mixed(self.stream, batches, order) if count else 0
