"""Streams that are trimmed, deleted or made anew under the reader.

The model below knows every entry, so that it knows what was lost; the real
server then shows that its counters are what the model takes them to be.
"""

import random
import threading
from dataclasses import dataclass, field

import live
import pytest

from cep import e, emit, on, rule
from cep.bus import ColumnarReader
from cep.bus.connection import connect_redis
from cep.cli import main
from cep.errors import GapError, UsageError
from cep.pipeline import Pipeline, Runner, gaps, stream
from cep.pipeline.gaps import Look, Mark, judge

T = live.START_MS


# The model --------------------------------------------------------------------


@dataclass
class Model:
    """A stream, its reader, and what happened to each entry."""

    next_ms: int = 1
    added: int = 0
    entries: list = field(default_factory=list)
    last_generated: tuple = (0, 0)
    position: tuple = (0, 0)
    read: int = 0
    lost: int = 0  # by our count
    truly_lost: int = 0
    taken: set = field(default_factory=set)
    mark: Mark | None = None

    def add(self, n):
        for _ in range(n):
            self.last_generated = (self.next_ms, 0)
            self.entries.append(self.last_generated)
            self.next_ms += 1
        self.added += n

    def remove(self, which):
        self.truly_lost += len(set(which) - self.taken)
        self.entries = [entry for entry in self.entries if entry not in which]

    def trim(self, n):
        self.remove(set(self.entries[:n]))

    def delete(self, anew_at=None):
        self.remove(set(self.entries))
        self.added, self.last_generated, self.taken = 0, (0, 0), set()
        if anew_at is not None:
            self.next_ms = anew_at

    def take(self, n):
        due = [entry for entry in self.entries if entry > self.position][:n]
        self.read += len(due)
        self.taken |= set(due)
        self.position = due[-1] if due else self.position

    def look(self, judge=judge):
        ends = [self.entries[0], self.entries[-1]] if self.entries else [(0, 0)] * 2
        look = Look(self.added, len(self.entries), *ends, self.last_generated)
        found = judge(self.mark, look, self.position, self.read, self.lost)
        self.mark = found.mark
        self.lost += found.missing
        if found.from_beginning:
            self.position = (0, 0)
        return found


def disturbed(seed, model, judge=judge):
    """Add, read, trim and delete at random, looking now and then."""
    random_ = random.Random(seed)
    model.look(judge)
    for _ in range(40):
        act = random_.choice(["add", "add", "take", "take", "trim", "xdel", "look"])
        if act == "add":
            model.add(random_.randrange(1, 9))
        elif act == "take":
            model.take(random_.randrange(1, 6))
        elif act == "trim":
            model.trim(random_.randrange(1, 6))
        elif act == "xdel":
            model.remove(set(random_.sample(model.entries, len(model.entries) // 3)))
        else:
            model.look(judge)
    model.take(1000)
    model.look(judge)


@pytest.mark.parametrize("first", [0, 7])
def test_what_was_lost_is_counted_whatever_happened_between(first):
    lost = 0
    for seed in range(200):
        model = Model()
        model.add(first)
        model.remove(set(model.entries[:3]))
        model.truly_lost = 0  # that was before we came
        disturbed(seed, model)
        assert model.lost == model.truly_lost, seed
        lost += model.lost
    assert lost > 1000


def planted(mark, look, position, read, lost):
    """Of all entries added, those that are not there: counts some that were read."""
    found = judge(mark, look, position, read, lost)
    missing = max(0, look.added - look.length - lost)
    return gaps.Judgement(found.mark, missing)


def test_the_model_notices_a_planted_bug():
    model = Model()
    disturbed(0, model, planted)
    assert model.lost != model.truly_lost


@pytest.mark.parametrize("below", [True, False], ids=["smaller ids", "larger ids"])
@pytest.mark.parametrize("read_of_new", [0, 2])
@pytest.mark.parametrize("lost_of_new", [0, 3])
@pytest.mark.parametrize("size", [4, 10, 30])
def test_a_stream_made_anew_is_read_to_its_end_and_its_own_losses_are_counted(
    below, read_of_new, lost_of_new, size
):
    model = Model(next_ms=100)
    model.look()
    model.add(10)
    model.take(7)
    model.look()
    model.delete(1 if below else 200)
    model.add(size)
    if below and size < 10:
        assert model.position > model.last_generated
    model.take(0 if below else read_of_new)
    model.trim(lost_of_new + (0 if below else read_of_new))
    found = model.look()
    assert found.begun_anew
    assert found.from_beginning == below
    model.take(1000)
    assert not model.look().begun_anew
    assert model.lost == model.truly_lost
    assert model.taken >= set(model.entries)


def test_of_a_stream_that_is_gone_what_was_known_is_counted_once():
    model = Model()
    model.look()
    model.add(10)
    model.take(4)
    model.look()  # knows of six more
    model.add(5)
    model.delete()
    found = model.look()
    assert (found.begun_anew, found.missing) == (True, 6)
    assert model.look() == gaps.Judgement(model.mark)
    model.add(3)
    model.take(1000)
    assert model.look().missing == 0
    model.delete()
    assert model.look().begun_anew


def test_a_stream_that_is_behind_and_deleted_has_lost_what_the_last_look_saw():
    model = Model()
    model.add(10)
    model.look()
    model.delete()
    assert model.look().missing == 10
    assert not model.look().begun_anew


def test_a_stream_that_never_was_has_no_gap_and_counts_from_its_first_entry():
    model = Model()
    for _ in range(2):
        assert model.look() == gaps.Judgement(Mark(0, 0, 0))
    model.add(5)
    model.trim(2)
    assert model.look().missing == 2


# The server -------------------------------------------------------------------


@rule("every")
def every():
    return on("market.trade"), emit(price=e.price)


def pipeline(**options):
    streams = [stream(live.MARKET, max_out_of_orderness="0ms", idle=None)]
    return Pipeline("p", [every], streams, **options)


def write(redis, *numbers, at=T):
    return live.write(
        redis,
        [
            (live.MARKET, f"{at + i}-1", live.trade(i, T + i, price=float(i)))
            for i in numbers
        ],
    )


def gap_rows(redis):
    return [
        row
        for row in live.dead_letters(redis)
        if row["kind"] == "gap" and "read, then" not in row["detail"]
    ]


def trim_to(n):
    return lambda redis: redis.xtrim(live.MARKET, maxlen=n, approximate=False)


def trim_before(n):
    return lambda redis: redis.xtrim(live.MARKET, minid=f"{T + n}-0", approximate=False)


def delete(*numbers):
    return lambda redis: redis.xdel(live.MARKET, *(f"{T + n}-1" for n in numbers))


def trim_while_adding(redis):
    fields = {"a": "b"}
    for n in (10, 11):
        redis.xadd(live.MARKET, fields, f"{T + n}-1", maxlen=3, approximate=False)


def set_id(redis):
    """The last id moves on and no entry with it: nothing is lost."""
    redis.execute_command("XSETID", live.MARKET, f"{T + 500}-1")


def set_id_and_count(redis):
    """The server says so: three entries were added that are not there."""
    counts = "ENTRIESADDED", 13, "MAXDELETEDID", "0-0"
    redis.execute_command("XSETID", live.MARKET, f"{T + 500}-1", *counts)


DISTURBED = {
    "untouched": (lambda redis: None, 0),
    "MAXLEN": (trim_to(2), 3),
    "MAXLEN, all but what was read": (trim_to(5), 0),
    "MAXLEN while adding": (trim_while_adding, 4),
    "all trimmed": (trim_to(0), 5),
    "MINID": (trim_before(7), 2),
    "MINID, all": (trim_before(100), 5),
    "XDEL in the middle": (delete(6, 8), 2),
    "XDEL of entries read": (delete(0, 3), 0),
    "XDEL and MAXLEN": (lambda r: (delete(8)(r), trim_to(2)(r)), 3),
    "XSETID": (set_id, 0),
    "XSETID with a count": (set_id_and_count, 3),
}


@pytest.mark.redis
@pytest.mark.parametrize("what", DISTURBED)
def test_what_a_real_server_lost_is_counted(what, redis, redis_url, limits):
    limits(GAP_SECONDS=0)
    disturb, missing = DISTURBED[what]
    write(redis, *range(5))
    live.once(redis_url, pipeline())
    write(redis, *range(5, 10))
    disturb(redis)
    notes = []
    summary = live.drained(redis, redis_url, pipeline(), note=notes.append)
    assert summary.total.gaps == missing
    assert len(gap_rows(redis)) == len(notes) == bool(missing)
    counts = live.counts(redis)[live.MARKET]
    assert counts["gaps"] == missing
    added = redis.xinfo_stream(live.MARKET)["entries-added"]
    assert counts["read"] + counts["gaps"] == added
    if missing:
        [row] = gap_rows(redis)
        assert row["missing"] == str(missing)
        assert (row["kind"], row["stream"]) == ("gap", live.MARKET)
        in_the_middle = what.startswith("X") and "MAXLEN" not in what
        assert row["entry_id"] == f"{T + (9 if in_the_middle else 4)}-1"
        assert f"lost {missing} entries after" in row["detail"]


@pytest.mark.redis
def test_what_was_trimmed_before_the_pipeline_first_came_is_no_gap(redis, redis_url):
    write(redis, *range(10))
    trim_to(4)(redis)
    assert live.drained(redis, redis_url, pipeline()).total.gaps == 0
    assert live.counts(redis)[live.MARKET]["read"] == 4


@pytest.mark.redis
@pytest.mark.parametrize(
    ("looks", "planted"), [(0, False), (0.02, False), (0.25, False), (0, True)]
)
def test_trimming_under_a_reader_that_reads_ahead_is_counted_exactly(
    looks, planted, redis, redis_url, limits, monkeypatch
):
    """What is on its way to us while the server trims is not lost."""
    limits(GAP_SECONDS=looks, READ_COUNT=5)
    read, entries = ColumnarReader.read, live.traffic(n=300, bad=0, late=0)
    random_ = random.Random(1)

    def disturbed(self, block_ms, **options):
        live.write(redis, entries[:10])
        del entries[:10]
        if not entries and not live.has_ended(redis):
            live.declare_end(redis)
        pages = read(self, block_ms, **({} if planted else options))
        if random_.random() < 0.4:
            redis.xtrim(live.MARKET, maxlen=random_.randrange(12), approximate=False)
        return pages

    monkeypatch.setattr(ColumnarReader, "read", disturbed)
    live.run(redis_url, live.pipeline())
    if planted:
        added = redis.xinfo_stream(live.MARKET)["entries-added"]
        counts = live.counts(redis)[live.MARKET]
        assert counts["read"] + counts["gaps"] != added
        return
    for key, counts in live.counts(redis).items():
        added = redis.xinfo_stream(key)["entries-added"]
        assert counts["read"] + counts["gaps"] == added
        assert (counts["gaps"] > 0) == (key == live.MARKET)
        rows = [row for row in gap_rows(redis) if row["stream"] == key]
        assert sum(int(row["missing"]) for row in rows) == counts["gaps"]


@pytest.mark.redis
@pytest.mark.parametrize("at", [T - 1000, T + 1000], ids=["smaller ids", "larger ids"])
def test_a_stream_that_was_made_anew_is_read_from_its_beginning(at, redis, redis_url):
    write(redis, *range(5))
    live.once(redis_url, pipeline())
    redis.delete(live.MARKET)
    write(redis, *range(20, 27), at=at)
    notes = []
    summary = live.drained(redis, redis_url, pipeline(), note=notes.append)
    assert summary.total.read == 12
    assert summary.total.gaps == 0
    [row] = gap_rows(redis)
    assert f"was deleted after {T + 4}-1 was read" in row["detail"]
    assert row["missing"] == "0"
    assert len(notes) == 1
    assert len(live.came(redis).ids) == 11  # the last one held then is gone


@pytest.mark.redis
def test_a_stream_deleted_and_made_anew_while_running_is_followed(
    redis, redis_url, limits
):
    limits(GAP_SECONDS=0)
    write(redis, *range(5))
    runner, end = Runner(pipeline(), redis_url), []
    threading.Thread(target=lambda: end.append(runner.run()), daemon=True).start()
    live.wait_until(lambda: live.counts(redis).get(live.MARKET, {}).get("read") == 5)
    redis.delete(live.MARKET)
    live.wait_until(lambda: gap_rows(redis))
    write(redis, *range(3), at=1)
    live.wait_until(lambda: live.counts(redis)[live.MARKET]["read"] == 8)
    runner.stop()
    live.wait_until(lambda: end)
    assert [row["missing"] for row in gap_rows(redis)] == ["0"]


# What to do about it ----------------------------------------------------------


def behind(redis, redis_url):
    """Leave a pipeline with a gap of three before its next entry."""
    write(redis, *range(5))
    live.once(redis_url, pipeline())
    write(redis, *range(5, 10))
    trim_to(2)(redis)


@pytest.mark.redis
@pytest.mark.parametrize(
    ("definition", "options", "stops"),
    [
        ({}, {}, False),
        ({"on_gap": "stop"}, {}, True),
        ({"on_gap": "stop"}, {"on_gap": "skip"}, False),
        ({}, {"on_gap": "stop"}, True),
    ],
)
def test_a_gap_stops_the_pipeline_where_that_was_asked_for(
    definition, options, stops, redis, redis_url
):
    behind(redis, redis_url)
    before = live.came(redis)
    if stops:
        with pytest.raises(GapError) as caught:
            live.once(redis_url, pipeline(**definition), **options)
        error = caught.value
        assert (error.stream, error.missing) == (live.MARKET, 3)
        assert error.after_id == f"{T + 4}-1"
        assert live.came(redis) == before
    assert live.once(redis_url, pipeline(), on_gap="skip").total.gaps == 3


@pytest.mark.redis
def test_a_stream_has_its_own_word_about_gaps(redis, redis_url):
    behind(redis, redis_url)
    own = [stream(live.MARKET, max_out_of_orderness="0ms", idle=None, on_gap="stop")]
    with pytest.raises(GapError):
        live.once(redis_url, Pipeline("p", [every], own, on_gap="skip"))


def test_what_cannot_be_done_about_a_gap_is_refused():
    with pytest.raises(UsageError, match=r"'ignore'\. Pass one of stop, skip"):
        stream(live.MARKET, on_gap="ignore")
    with pytest.raises(UsageError, match="on_gap is 'ignore'"):
        pipeline(on_gap="ignore")


MODULE = """
from cep import Pipeline, e, emit, on, rule, stream

@rule("every")
def every():
    return on("market.trade"), emit(price=e.price)

streams = [stream("market.events", max_out_of_orderness="0ms", idle=None)]
pipeline = Pipeline("p", [every], streams)
"""


@pytest.mark.redis
def test_the_command_stops_with_code_5_and_goes_on_when_told_to(
    redis, redis_url, tmp_path, capsys
):
    module = tmp_path / "rules.py"
    module.write_text(MODULE)
    behind(redis, redis_url)
    command = ["run", str(module), "--redis", redis_url, "--quiet", "--drain"]
    assert main([*command, "--on-gap", "stop"]) == 5
    shown = capsys.readouterr().err
    assert f"error: market.events lost 3 entries after {T + 4}-1" in shown
    assert main([*command, "--on-gap", "skip"]) == 0
    assert "lost before reading 3" in capsys.readouterr().out


@pytest.mark.redis
def test_without_the_right_to_look_it_says_so_and_runs(redis, redis_url):
    redis.acl_setuser(
        "u", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-xinfo"]
    )
    write(redis, *range(5))
    notes = []
    url = redis_url.replace("://", "://u:x@")
    summary = live.drained(redis, url, pipeline(), note=notes.append)
    redis.acl_deluser("u")
    assert summary.total.processed == 5
    assert len(notes) == 1
    assert notes[0].startswith("Gaps cannot be seen: ")


@pytest.mark.redis
def test_a_connection_lost_while_looking_is_no_gap(redis_url):
    with connect_redis("redis://127.0.0.1:1") as nowhere:
        looking = gaps.Gaps(nowhere, {})
        with pytest.raises(ConnectionError):
            looking.look([live.MARKET])
