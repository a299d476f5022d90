import math
from datetime import UTC, datetime

import msgspec
import numpy as np
import polars as pl
import pytest

from cep import sample
from cep.bus.publisher import Publisher
from cep.bus.replay import CHUNK_ROWS, Track, replay_tracks
from cep.clock import TestClock
from cep.errors import UnknownEventTypeError, UsageError
from cep.events import registry

START_NS = 1_700_000_000_000_000_000


class Recorder:
    """Stands for a publisher; keeps what is published and when."""

    registry = registry

    def __init__(self, clock=None):
        self.clock = clock
        self.rows = []

    def publish_mixed(self, stream, batches, order):
        queues = [
            (name, list(zip(*(c.to_list() for c in columns.values()), strict=True)))
            for name, columns, _ in batches
        ]
        times = [times.tolist() for *_, times in batches]
        seconds = self.clock.monotonic_ns() / 1e9 if self.clock else 0
        for code in order.tolist():
            name, rows = queues[code]
            self.rows.append((seconds, stream, name, times[code].pop(0), rows.pop(0)))
        return len(order)


def make_track(stream="market.events", kind="market.trade", times_ms=(0, 1000)):
    count = len(times_ms)
    return Track(
        stream,
        pl.DataFrame(
            {
                "event_time": pl.Series(times_ms).cast(pl.Datetime("ms", "UTC")),
                "type": [kind] * count,
                "symbol": [str(i) for i in range(count)],
                "price": np.arange(count, dtype=float),
                "quantity": [1.0] * count,
            }
        ),
    )


def make_requests(times_ms):
    count = len(times_ms)
    return Track(
        "ai.events",
        pl.DataFrame(
            {
                "event_time": pl.Series(times_ms).cast(pl.Datetime("ms", "UTC")),
                "type": ["ai.inference.requested"] * count,
                "request_id": [str(i) for i in range(count)],
                "context_tokens": [1] * count,
                "generated_tokens": [1] * count,
            }
        ),
    )


def test_streams_are_merged_by_event_time_within_a_millisecond_of_pace():
    clock = TestClock(START_NS)
    out = Recorder(clock)
    tracks = [make_track(times_ms=[0, 2000, 4000]), make_requests([1000, 3000])]
    replay_tracks(out, tracks, speed=1.0, clock=clock)
    assert [(s, stream) for s, stream, *_ in out.rows] == [
        (0, "market.events"),
        (1, "ai.events"),
        (2, "market.events"),
        (3, "ai.events"),
        (4, "market.events"),
    ]


@pytest.mark.parametrize(("speed", "seconds"), [(0.5, 20), (1, 10), (10, 1)])
def test_a_replay_takes_its_span_divided_by_the_speed(speed, seconds):
    clock = TestClock(START_NS)
    times = list(range(0, 10_001, 100))
    done = replay_tracks(
        Recorder(clock), [make_track(times_ms=times)], speed=speed, clock=clock
    )
    assert done.seconds == pytest.approx(seconds, abs=0.02)


def test_at_full_speed_nothing_waits():
    clock = TestClock(START_NS)
    done = replay_tracks(
        Recorder(clock), [make_track(times_ms=[0, 10**9])], clock=clock
    )
    assert done.seconds == 0


def test_rows_of_a_stream_keep_their_order_when_event_times_fall():
    times = [1000, 5000, 2000, 3000, 6000]
    out = Recorder(clock := TestClock(START_NS))
    replay_tracks(out, [make_track(times_ms=times)], speed=1.0, clock=clock)
    assert [time for *_, time, _ in out.rows] == times
    assert [seconds for seconds, *_ in out.rows] == pytest.approx([0, 4, 4, 4, 5])


def test_types_of_one_stream_stay_interleaved_and_keep_only_their_fields():
    frame = sample.frame("market.events").head(3 * CHUNK_ROWS)
    out = Recorder()
    replay_tracks(out, [Track("market.events", frame)])
    assert [name for _, _, name, *_ in out.rows] == frame["type"].to_list()
    times = frame["event_time"].dt.epoch("ms").to_list()
    assert [time for *_, time, _ in out.rows] == times
    widths = {name: len(row) for _, _, name, _, row in out.rows}
    assert widths == {"market.trade": 5, "market.quote": 6}


def test_event_times_are_kept_unless_asked():
    out = Recorder()
    replay_tracks(out, [make_track(times_ms=[5, 7])])
    assert [time for *_, time, _ in out.rows] == [5, 7]


@pytest.mark.parametrize("speed", [0.5, 1.0, 4.0, math.inf])
def test_shifted_events_keep_their_gaps_and_are_never_ahead_of_the_clock(speed):
    clock = TestClock(START_NS)
    out = Recorder(clock)
    tracks = [make_track(times_ms=[0, 2000, 8000]), make_requests([1000])]
    replay_tracks(out, tracks, speed=speed, shift_to_now=True, clock=clock)
    times = [time for *_, time, _ in out.rows]
    assert np.diff(times).tolist() == [1000, 1000, 6000] or speed == math.inf
    now = [START_NS // 1_000_000 + seconds * 1000 for seconds, *_ in out.rows]
    assert all(time <= moment for time, moment in zip(times, now, strict=True))
    assert min(m - t for t, m in zip(times, now, strict=True)) < 20


def test_progress_counts_up_to_all():
    seen = []
    track = make_track(times_ms=list(range(2 * CHUNK_ROWS + 1)))
    replay_tracks(Recorder(), [track], progress=lambda *pair: seen.append(pair))
    total = 2 * CHUNK_ROWS + 1
    assert seen == [(CHUNK_ROWS, total), (2 * CHUNK_ROWS, total), (total, total)]


def test_no_tracks_and_empty_tracks_are_done_at_once():
    assert replay_tracks(Recorder(), []).events == {}
    empty = make_track(times_ms=[0]).frame.clear()
    done = replay_tracks(Recorder(), [Track("market.events", empty)])
    assert done.events == {"market.events": 0}


@pytest.mark.parametrize("speed", [0, -1, math.nan])
def test_a_speed_must_be_positive(speed):
    with pytest.raises(UsageError, match="above 0, or 'max'"):
        replay_tracks(Recorder(), [make_track()], speed=speed)


def test_an_unknown_type_is_refused_before_anything_is_published():
    out = Recorder()
    with pytest.raises(UnknownEventTypeError):
        replay_tracks(out, [make_track(), make_track(kind="market.trad")])
    assert out.rows == []


@pytest.mark.redis
@pytest.mark.slow
def test_the_sample_arrives_whole_in_order_and_unchanged(redis):
    tracks = [Track(name, sample.frame(name)) for name in sample.streams()]
    done = replay_tracks(Publisher(redis), tracks)
    for track in tracks:
        entries = redis.xrange(track.stream)
        assert len(entries) == len(track.frame) == done.events[track.stream]
        for (_, entry), row in zip(
            entries, track.frame.iter_rows(named=True), strict=True
        ):
            assert entry[b"type"].decode() == row.pop("type")
            written = datetime.fromisoformat(entry[b"timestamp"].decode())
            assert written.astimezone(UTC) == row.pop("event_time")
            expected = {name: value for name, value in row.items() if value is not None}
            assert msgspec.json.decode(entry[b"data"]) == expected
