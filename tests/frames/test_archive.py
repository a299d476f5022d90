"""Archives beside redis-py's XRANGE, pyarrow's own reading, and damage by hand."""

import random
import re
import threading
from pathlib import Path

import live
import numpy as np
import polars as pl
import pyarrow.dataset
import pytest
from polars.testing import assert_frame_equal
from pyarrow import parquet

from cep.bus.page import Entries
from cep.bus.raw import iterate_entries
from cep.errors import ArchiveError, UsageError
from cep.frames import load
from cep.frames.archive import layout
from cep.frames.archive.entries import (
    COLUMNS,
    NAMES,
    digest,
    iterate_pairs,
    to_entries,
    to_table,
)
from cep.frames.archive.layout import all_parts, parsed, parts_of
from cep.frames.archive.prune import Reader, carry_out, plan
from cep.frames.archive.restore import restore
from cep.frames.archive.verify import verify
from cep.frames.archive.write import Archiver, stream_info

MARKET, AI = live.MARKET, live.AI
HOUR = 3_600_000
ODD = [
    ("1700010000000-0", ["x", b"\xff\0", "id", "", "id2", "5"]),
    ("1700010000000-1", ["id", "a", "id", "b", "type", "\0"]),
    ("1700010000000-18446744073709551615", ["", ""]),
    ("1800000000000-0", [word for name in reversed(NAMES) for word in (name, name)]),
    ("18446744073709551615-18446744073709551614", ["far", "away"]),
]


def words(redis, stream):
    """All entries as the server gives them, repeated names included."""
    connection = redis.connection_pool.get_connection()
    try:
        connection.send_command("XRANGE", stream, "-", "+")
        return [(entry, flat) for entry, flat in connection.read_response()]
    finally:
        redis.connection_pool.release(connection)


def archived(root, stream):
    return [
        (entry, [word for pair in pairs for word in pair])
        for part in parts_of(root, stream)
        for entry, pairs in iterate_pairs(part.table())
    ]


def write(redis, n=900, seed=0, odd=True):
    live.write(redis, live.traffic(seed, n))
    for entry_id, flat in ODD if odd else ():
        redis.execute_command("XADD", MARKET, entry_id, *flat)


def archive(redis, root, streams=(MARKET, AI), **options):
    with Archiver(redis, root, streams, **options) as archiver:
        archiver.catch_up()
        return archiver


@pytest.fixture
def root(tmp_path):
    return tmp_path / "archive"


def test_every_entry_is_kept_byte_for_byte(redis, root):
    write(redis)
    archive(redis, root)
    for stream in (MARKET, AI):
        assert archived(root, stream) == words(redis, stream)
    assert [found.problems for found in verify(root)] == [[], []]


def test_entries_come_back_from_a_table_as_they_were(redis):
    write(redis)
    for entries in iterate_entries(redis, MARKET, "-", count=97):
        table = to_table(entries)
        assert to_table(to_entries(table)).equals(table)
        part = table.slice(13, 31)
        again = to_table(to_entries(part))
        assert again.equals(part)
        assert digest(again) == digest(part) != digest(table)


def test_a_digest_tells_where_one_value_ends_and_the_next_begins():
    pairs = [
        [(b"a", b"bc"), (b"d", b"")],
        [(b"ab", b"c"), (b"d", b"")],
        [(b"a", b"bc"), (b"", b"d")],
        [(b"a", b"bc")],
        [(b"id", b""), (b"type", b"x")],
        [(b"type", b""), (b"id", b"x")],
    ]
    tables = [to_table(Entries.of([(b"1-1", one)])) for one in pairs]
    assert len({digest(table) for table in tables}) == len(pairs)


def test_pyarrow_and_polars_read_the_files(redis, root):
    write(redis)
    archive(redis, root)
    found = pyarrow.dataset.dataset(root, partitioning="hive").to_table()
    assert len(found) == redis.xlen(MARKET) + redis.xlen(AI)
    assert set(COLUMNS) < set(found.column_names)
    market = pl.scan_parquet(root, hive_partitioning=True).filter(stream=MARKET)
    ids = market.sort("entry_ms", "entry_seq").select("id").collect()["id"].to_list()
    assert ids == [fields.get(b"id") for _, fields in first_values(redis, MARKET)]
    at = found.filter(pyarrow.compute.field("id") == b"id")
    assert [at["date"][0].as_py(), at["hour"][0].as_py()] == ["2027-01-15", 8]


def first_values(redis, stream):
    for entry, flat in words(redis, stream):
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
        yield entry, dict(reversed(pairs))


def test_an_archive_goes_on_where_its_last_file_ends(redis, root):
    entries = live.traffic(1, 500)
    for at in range(0, 500, 60):
        live.write(redis, entries[at : at + 60])
        archive(redis, root)
        archive(redis, root)
    assert archived(root, MARKET) == words(redis, MARKET)
    assert len(parts_of(root, MARKET)) == 9
    assert verify(root)[1].problems == []


def test_files_are_cut_at_hours_and_joined_when_an_hour_is_over(redis, root):
    for hour in range(3):
        for minute in range(0, 60, 7):
            entry_id = f"{hour * HOUR + minute * 60_000 + 1}-0"
            redis.xadd(MARKET, {"n": minute}, id=entry_id)
            archive(redis, root)
    parts = parts_of(root, MARKET)
    assert all_parts(root, MARKET) == parts
    assert [part.path.parent.name for part in parts] == [
        "hour=00",
        "hour=01",
        *["hour=02"] * 9,
    ]
    assert archived(root, MARKET) == words(redis, MARKET)
    assert verify(root)[0].problems == []


def test_what_a_dead_writer_left_does_not_count_and_is_cleared(redis, root):
    live.write(redis, live.traffic(1, 100))
    archive(redis, root)
    [part] = parts_of(root, MARKET)
    half = root / layout.WRITING / part.path.name
    half.write_bytes(part.path.read_bytes()[:100])
    joined = part.table()
    small = layout.write_part(root, MARKET, joined.slice(0, 10), after=(0, 0))
    assert parts_of(root, MARKET) == [part]
    assert all_parts(root, MARKET) == [part, small]
    assert len(archived(root, MARKET)) == redis.xlen(MARKET)
    archive(redis, root)
    assert all_parts(root, MARKET) == [part]
    assert not half.exists()


def test_one_process_writes_an_archive(redis, root):
    with Archiver(redis, root, [MARKET]), pytest.raises(ArchiveError) as caught:
        Archiver(redis, root, [AI]).__enter__()
    assert "Another process writes the archive" in str(caught.value)


def test_a_stream_that_is_another_one_is_refused(redis, root):
    redis.xadd(MARKET, {"a": "b"}, id="7-0")
    archive(redis, root)
    redis.delete(MARKET)
    redis.xadd(MARKET, {"a": "b"}, id="5-0")
    with pytest.raises(ArchiveError, match="ends at 5-0, its archive at 7-0"):
        archive(redis, root)


def test_entries_that_were_trimmed_unseen_are_counted_and_told(redis, root):
    for number in range(1, 11):
        redis.xadd(MARKET, {"n": number}, id=f"{number}-0")
    redis.xtrim(MARKET, minid="3-0", approximate=False)
    archive(redis, root)
    for number in range(11, 21):
        redis.xadd(MARKET, {"n": number}, id=f"{number}-0")
    redis.xtrim(MARKET, minid="14-0", approximate=False)
    notes = []
    archive(redis, root, note=notes.append)
    assert [part.footer().missing for part in parts_of(root, MARKET)] == [2, 3]
    assert len(notes) == 1
    assert "3 entries after 10-0 were trimmed or deleted before they" in notes[0]
    # What was archived may go without anyone missing it.
    redis.xtrim(MARKET, minid="18-0", approximate=False)
    redis.xadd(MARKET, {"n": 21}, id="21-0")
    archive(redis, root, note=notes.append)
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("flip", "cannot be read|hash"),
        ("cut", "cannot be read"),
        ("lose", "one is missing"),
        ("rename", "it holds 1-0 to"),
        ("forge", "hash"),
        ("swap", "not where entries"),
    ],
)
def test_damage_is_found(redis, root, damage, says):
    for number in range(1, 40):
        redis.xadd(
            MARKET, {"n": random.Random(number).randbytes(100)}, id=f"{number}-0"
        )
        if number % 13 == 0:
            archive(redis, root)
    parts = parts_of(root, MARKET)
    path = parts[1 if damage == "lose" else 0].path
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 3] ^= 4
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-20])
    elif damage == "lose":
        path.unlink()
    elif damage == "rename":
        path.rename(path.with_name(path.name.replace("1-0_", "0-1_")))
    elif damage == "swap":
        other = path.parent.parent / "hour=07" / path.name
        other.parent.mkdir()
        path.rename(other)
    else:
        table = parquet.read_table(path)
        table = table.set_column(1, "entry_seq", pyarrow.array([0] * 12 + [1], "u8"))
        footer = parquet.ParquetFile(path).schema_arrow.metadata
        parquet.write_table(table.replace_schema_metadata(footer), path)
    [found] = verify(root)
    assert found.problems
    assert re.search(says, " ".join(found.problems))


# Joined with what is live -----------------------------------------------------


def test_archive_and_tail_give_what_the_stream_alone_gave(redis, redis_url, root):
    write(redis, 1500)
    whole = load(MARKET, url=redis_url, envelope=True)
    bad = load(MARKET, url=redis_url, with_bad=True)[1]
    for cut in ("1700000003000-0", "1700010000000-0", "9999999999999-0"):
        piece = to_archive_up_to(redis, root, cut)
        redis.xtrim(MARKET, minid=cut, approximate=False)
        found, beside = load(
            MARKET, url=redis_url, archive=root, envelope=True, with_bad=True
        )
        assert_frame_equal(found, whole)
        assert_frame_equal(beside, bad)
        assert piece
    alone = load(MARKET, archive=root, live=False, envelope=True)
    assert_frame_equal(alone, whole)


def to_archive_up_to(redis, root, cut):
    """Archive what comes before an entry id."""
    rest = [
        one for one in words(redis, MARKET) if parsed(one[0].decode()) >= parsed(cut)
    ]
    redis.execute_command("RENAME", MARKET, "aside")
    try:
        for entry, flat in words(redis, "aside"):
            if parsed(entry.decode()) < parsed(cut):
                redis.execute_command("XADD", MARKET, entry, *flat)
        archive(redis, root)
    finally:
        redis.execute_command("RENAME", "aside", MARKET)
    return len(rest) < redis.xlen(MARKET) or cut.startswith("9")


def test_spans_and_limits_cross_the_seam(redis, redis_url, root):
    live.write(redis, live.traffic(3, 600))
    archive(redis, root)
    live.write(redis, [one for one in live.traffic(3, 1200)[600:] if one[0] == MARKET])
    redis.xtrim(MARKET, minid="1700000002500-0", approximate=False)
    whole = load(MARKET, url=redis_url, archive=root)
    ids = whole["entry_id"].to_list()
    for start, end in [(10, 800), (390, 460), (0, 5), (500, 799)]:
        some = load(MARKET, url=redis_url, archive=root, start=ids[start], end=ids[end])
        assert some["entry_id"].to_list() == ids[start : end + 1]
    some = load(MARKET, url=redis_url, archive=root, limit=len(ids) - 3)
    assert some["entry_id"].to_list() == ids[:-3]


def test_no_gap_and_no_duplicate_while_archived_pruned_and_loaded(
    redis, redis_url, root
):
    entries = [one for one in live.traffic(5, 2000, bad=0) if one[0] == MARKET]
    live.write(redis, entries[:500])
    expected = [entry_id for _, entry_id, _ in entries]
    done = threading.Event()

    def work():
        dice = random.Random(1)
        at = 500
        with Archiver(redis, root, [MARKET], rows_per_file=150) as archiver:
            while at < len(entries):
                more = dice.randrange(1, 200)
                live.write(redis, entries[at : at + more])
                at += more
                archiver.catch_up()
                carry_out(redis, plan(redis, root, MARKET))
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    loads = 0
    while not done.is_set() or loads < 3:
        found = load(MARKET, url=redis_url, archive=root)["entry_id"].to_list()
        assert found == expected[: len(found)]
        loads += 1
    thread.join()
    assert len(load(MARKET, url=redis_url, archive=root)) == len(expected)
    assert redis.xlen(MARKET) == 0


def test_a_name_that_neither_has_is_refused(redis_url, root):
    root.mkdir()
    with pytest.raises(UsageError, match=r"Did you mean 'market.events'"):
        load("market.event", url=redis_url, archive=root)
    with pytest.raises(UsageError, match=r"has no stream 'market.event'. It has none"):
        load("market.event", archive=root, live=False)


# Prune -----------------------------------------------------------------------


def numbered(redis, n, first=1):
    for number in range(first, first + n):
        redis.xadd(MARKET, {"n": number}, id=f"{number}-0")


def test_only_what_is_archived_and_read_by_all_goes(redis, root):
    numbered(redis, 20)
    archive(redis, root)
    numbered(redis, 5, first=21)
    found = plan(redis, root, MARKET)
    assert (found.before, found.entries, found.left) == ((20, 1), 20, 5)
    assert found.kept_for == "the rest is not archived"
    redis.xgroup_create(MARKET, "g", id="0")
    assert plan(redis, root, MARKET).entries == 0
    redis.xreadgroup("g", "c", {MARKET: ">"}, count=15)
    redis.xack(MARKET, "g", *[f"{n}-0" for n in range(1, 9)])
    found = plan(redis, root, MARKET)
    assert (found.before, found.entries) == ((9, 0), 8)
    assert found.kept_for == "group 'g' has not read the rest"
    found = plan(redis, root, MARKET, [Reader("pipeline p", (4, 0))])
    assert (found.entries, found.kept_for) == (3, "pipeline p has not read the rest")
    assert carry_out(redis, found) == 3
    assert words(redis, MARKET)[0][0] == b"4-0"
    assert redis.xlen(MARKET) == 22


def test_the_newest_are_kept_as_long_as_asked(redis, root):
    numbered(redis, 3)
    now = redis.time()[0] * 1000
    redis.xadd(MARKET, {"n": 1}, id=f"{now - 100_000}-0")
    redis.xadd(MARKET, {"n": 1}, id=f"{now}-0")
    archive(redis, root)
    found = plan(redis, root, MARKET, keep_ms=60_000)
    assert (found.entries, found.left) == (4, 1)
    assert plan(redis, root, MARKET, keep_ms=10**9).entries == 3


def test_nothing_goes_that_the_archive_does_not_hold_as_it_is(redis, root):
    numbered(redis, 10)
    archive(redis, root)
    numbered(redis, 10, first=11)
    archive(redis, root)
    redis.xdel(MARKET, "3-0", "14-0")
    assert plan(redis, root, MARKET).entries == 18
    redis.delete(MARKET)
    for number in range(1, 21):
        redis.xadd(MARKET, {"n": number if number != 15 else "?"}, id=f"{number}-0")
    found = plan(redis, root, MARKET)
    assert (found.before, found.entries) == ((10, 1), 10)
    assert "it is not what market.events holds from 11-0 on" in found.problem
    path = parts_of(root, MARKET)[0].path
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1
    path.write_bytes(content)
    assert plan(redis, root, MARKET).entries == 0
    assert redis.xlen(MARKET) == 20


def test_nothing_archived_nothing_goes(redis, root):
    numbered(redis, 3)
    assert plan(redis, root, MARKET).kept_for == "nothing of it is archived"
    assert plan(redis, root, AI).kept_for == "it is empty"


# Restore ---------------------------------------------------------------------


def test_restored_streams_have_the_same_entries_and_counts(redis, root):
    write(redis)
    redis.xtrim(MARKET, minid="1700000000100-0", approximate=False)
    archive(redis, root)
    before = {
        name: (words(redis, name), stream_info(redis, name)) for name in (MARKET, AI)
    }
    redis.flushall()
    for stream, (entries, info) in before.items():
        assert restore(redis, root, stream) == len(entries)
        assert words(redis, stream) == entries
        now = stream_info(redis, stream)
        for name in ("length", "last-generated-id", "entries-added"):
            assert now[name] == info[name]


def test_a_target_that_is_not_empty_is_refused_unless_told(redis, root):
    write(redis, 300, odd=False)
    archive(redis, root)
    before = words(redis, MARKET)
    with pytest.raises(UsageError, match=r"market.events is not empty: \d+ entries"):
        restore(redis, root, MARKET)
    with pytest.raises(UsageError, match=r"holds nothing of 'market.event'"):
        restore(redis, root, "market.event")
    assert restore(redis, root, MARKET, resume=True) == 0
    assert (
        restore(redis, root, MARKET, into="copy", last=parsed(before[99][0].decode()))
        == 100
    )
    assert restore(redis, root, MARKET, into="copy", resume=True) == len(before) - 100
    assert words(redis, "copy") == before


def test_a_restore_that_meets_damage_says_what_it_has_written(redis, root):
    for number in range(1, 40):
        redis.xadd(MARKET, {"n": str(number)}, id=f"{number}-0")
        if number % 13 == 0:
            archive(redis, root)
    path = parts_of(root, MARKET)[1].path
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArchiveError, match="13 entries were written to copy before"):
        restore(redis, root, MARKET, into="copy")
    assert redis.xlen("copy") == 13


def test_a_part_of_an_archive_can_be_restored(redis, root):
    numbered(redis, 30)
    archive(redis, root)
    assert restore(redis, root, MARKET, into="some", first=(11, 0), last=(20, 0)) == 10
    assert [entry for entry, _ in words(redis, "some")] == [
        b"%d-0" % n for n in range(11, 21)
    ]
    assert stream_info(redis, "some")["entries-added"] == 20


def test_hostile_stream_names_stay_in_the_archive(redis, root):
    names = ["../../up", "a/b", "%2e%2e", "x\ny", "Ω é"]
    for name in names:
        redis.xadd(name, {"a": "b"}, id="1-1")
    archive(redis, root, names)
    assert layout.streams_in(root) == sorted(names)
    assert all(found.problems == [] and found.rows == 1 for found in verify(root))
    files = list(root.parent.rglob("*.parquet"))
    assert len(files) == len(names)
    assert all(len(Path(path).relative_to(root).parts) == 4 for path in files)


def test_ids_are_found_among_rows_that_share_milliseconds():
    rng = np.random.default_rng(0)
    ids = sorted({(int(a), int(b)) for a, b in rng.integers(0, 9, (60, 2))})
    table = to_table(Entries.of((b"%d-%d" % one, []) for one in ids))
    for first in [(0, 0), (3, 4), (8, 8), (9, 0)]:
        for last in [(0, 0), (3, 4), (5, 2**64 - 1), (2**63 - 1, 2**64 - 1)]:
            found = layout.between(table, first, last)
            expected = [one for one in ids if first <= one <= last]
            assert [layout.id_at(found, row) for row in range(len(found))] == expected
