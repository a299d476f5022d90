"""Live pipelines under test: traffic, rules with many outputs, what came of both.

Traffic is written with entry ids and event ids of its own choice, so that the
same seed gives the same entries on every server.
"""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass

import hiredis

from cep import avg, count, e, emit, last, m, max, min, on, rule, seq, std
from cep.bus.connection import connect_redis
from cep.bus.keys import dlq_key, meta_key, state_key
from cep.clock import TestClock
from cep.events.codec import decode, encode
from cep.events.envelope import Event
from cep.events.ids import derived_ulid
from cep.events.timestamps import from_ms
from cep.pipeline import Pipeline, Runner, stream
from cep.pipeline.store import Store

START_MS = 1_700_000_000_000
MARKET, AI, OUTPUT = "market.events", "ai.events", "notification.events"


def event(number, event_type, data, time_ms, **envelope):
    """An event whose id follows from its number."""
    return Event.new(
        event_type,
        data,
        id=derived_ulid(time_ms, f"{event_type}{number}".encode()),
        timestamp=from_ms(time_ms),
        **envelope,
    )


def trade(number, time_ms, symbol="BTC", price=100.0, quantity=1.0, **envelope):
    data = {"symbol": symbol, "price": price, "quantity": quantity}
    return event(number, "market.trade", data, time_ms, **envelope)


def request(number, time_ms, tokens=10):
    data = {
        "request_id": f"r{number}",
        "context_tokens": tokens,
        "generated_tokens": 1,
        "data_quality_score": 1.0,
    }
    return event(number, "ai.inference.requested", data, time_ms)


def write(redis, entries):
    """Write (stream, entry id, event or raw fields) with a raw client; return ids."""
    with redis.pipeline(transaction=False) as pipe:
        for key, entry_id, what in entries:
            pipe.xadd(key, encode(what) if isinstance(what, Event) else what, entry_id)
        return pipe.execute()


def add(redis, key, words):
    """Write an entry of a commit on its own."""
    redis.execute_command("XADD", key, "*", *words)


def traffic(seed=0, n=600, bad=0.02, late=0.03):
    """Entries of two streams: out of order, some late, some no events at all."""
    random_ = random.Random(seed)
    prices = dict.fromkeys(("BTC", "ETH", "Ω/|{é}"), 100.0)
    entries = []
    for i in range(n):
        arrival = START_MS + 5 * i
        time_ms = arrival - random_.randrange(0, 200, 10)
        if random_.random() < late:
            time_ms -= 1500
        if random_.random() < 0.25:
            key, what = AI, request(i, time_ms, random_.randrange(100))
        else:
            symbol = random_.choice(list(prices))
            prices[symbol] += random_.randrange(-8, 9) / 4
            key, what = (
                MARKET,
                trade(i, time_ms, symbol, prices[symbol], random_.randrange(1, 50)),
            )
        if random_.random() < bad:
            fields = encode(what)
            fields[b"data"] = random_.choice([b"{", b"{}", b"[]", b'{"symbol":"\xff"}'])
            what = fields
        entries.append((key, f"{arrival}-{i % 3}", what))
    return entries


@rule("jump", key="symbol", cooldown="100ms")
def jump():
    mean = avg(e.price).over("1s")
    here = on("market.trade").where((count().over("1s") >= 5) & (e.price > mean))
    return here, emit(
        title="{key} at {price:.2f}",
        price=e.price,
        mean=mean,
        spread=max(e.price).over("1s") - min(e.price).over("1s"),
        deviation=std(e.price).over("1s"),
    )


@rule("run-up", key="symbol", after_match="past_last_event")
def run_up():
    up = (
        on("market.trade", name="up")
        .where((count(m.up) == 0) | (e.price > last(m.up).price))
        .at_least(2)
        .greedy()
    )
    fall = on("market.trade", name="fall").where(e.price <= last(m.up).price)
    return seq(up).next(fall).within("2s"), emit(trades=count(m.up), to=e.price)


@rule("request-then-trade", cooldown="20ms")
def request_then_trade():
    asked = on("ai.inference.requested", name="asked").where(e.context_tokens > 50)
    large = on("market.trade", name="large").where(e.quantity > 40)
    return seq(asked).then(large).within("300ms"), (
        emit(request=m.asked.request_id, symbol=e.symbol)
    )


@rule("quiet", key="symbol")
def quiet():
    large = on("market.trade", name="large").where(e.quantity > 30)
    other = on("market.trade", name="other").where(e.quantity > 25)
    return seq(large).not_then(other).within("200ms"), emit(price=m.large.price)


@rule("large", key="symbol", severity="warning")
def large():
    big = on("market.trade").where(e.quantity > 35)
    return (
        big,
        emit(quantity=e.quantity),
        emit(
            "system.performance.degraded",
            stream="system.events",
            metric_name="quantity",
            current_value=e.quantity,
            threshold_value=35,
            affected_services=[],
            suggested_actions=[],
        ),
    )


@rule("swings", key="symbol")
def swings():
    window = on("market.trade").hopping("500ms", every="100ms")
    wide = max(e.price) - min(e.price) > 12
    return window.where((count() >= 3) & wide), emit(
        begin=e.window_start, mean=avg(e.price), to=last(e.price)
    )


RULES = (jump, run_up, request_then_trade, quiet, large, swings)
STREAMS = (
    stream(MARKET, max_out_of_orderness="250ms", idle=None),
    stream(AI, max_out_of_orderness="250ms", idle=None),
)


def pipeline(name="p", rules=RULES, streams=STREAMS):
    return Pipeline(name, rules, streams)


@dataclass(frozen=True)
class Came:
    """All that a pipeline has put out, ready to be compared with another's."""

    ids: Counter
    entries: dict
    letters: Counter

    @property
    def twice(self):
        return [event_id for event_id, n in self.ids.items() if n > 1]


def came(redis, name="p", outputs=(OUTPUT, "system.events")):
    """Return what came of a pipeline; every output must be readable."""
    ids, entries = Counter(), {}
    for key in outputs:
        for entry_id, fields in redis.xrange(key):
            found = decode(fields, entry_id=entry_id, stream_key=key)
            ids[found.id] += 1
            entries[found.id] = tuple(sorted(fields.items()))
    return Came(ids, entries, Counter(map(_frozen, dead_letters(redis, name))))


def dead_letters(redis, name="p"):
    """Return the rows of entries given up on, without the pipeline's name."""
    rows = []
    for _, fields in redis.xrange(dlq_key(name)):
        row = {k.decode(): v for k, v in fields.items() if k != b"pipeline"}
        rows.append({k: v if k == "raw" else v.decode() for k, v in row.items()})
    return rows


def _frozen(row):
    return tuple(sorted((k, repr(v)) for k, v in row.items()))


def declare_end(redis, name="p"):
    Store(redis, name).tick("end")


def run(url, what=None, **options):
    """Run a pipeline in this process until its input has ended or it is stopped."""
    options.setdefault("clock", TestClock())
    return Runner(what or pipeline(), url, **options).run()


def drained(redis, url, what=None, **options):
    """Run a pipeline to the end of what is there; return its summary."""
    what = what or pipeline()
    declare_end(redis, what.name)
    return run(url, what, **options)


def undisturbed(redis, url, name="control", **definition):
    """Return what comes of the entries there are, and the counts.

    Takes its outputs away again, to make room for those of another pipeline on
    the same entries.
    """
    drained(redis, url, pipeline(name, **definition))
    found = came(redis, name)
    redis.delete(OUTPUT, "system.events")
    return found, counts(redis, name)


def counts(redis, name="p"):
    """Return the counts stored, by stream; they must account for every entry."""
    found = json.loads(redis.hget(meta_key(name), "counts") or "{}")
    for one in found.values():
        where = ("processed", "late", "quarantined", "duplicate", "buffered")
        assert one["read"] == sum(one[name] for name in where)
    return found


def has_ended(redis, name="p"):
    return redis.hget(meta_key(name), "ended") == b"1"


def state_fields(redis, name="p"):
    return sorted(field.decode() for field in redis.hkeys(state_key(name)))


def client(url):
    return connect_redis(url)


def wait_until(condition, seconds=120.0):
    """Return once a condition holds; a machine under load gets its time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def commits(redis, name="p"):
    """Return the number of the last commit."""
    return int(redis.hget(meta_key(name), "seq") or 0)


class Process:
    """``cep run`` in a process of its own; killed when the block is left."""

    def __init__(self, module, url, *options):
        command = [sys.executable, "-m", "cep", "run", str(module), *options]
        self.process = subprocess.Popen(
            [*command, "--redis", url],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.kill()
        self.process.stdout.close()
        self.process.stderr.close()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def send(self, number):
        self.process.send_signal(number)

    def ended(self, seconds=240.0):
        """Wait for the end; return exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err


def once(url, what=None, **options):
    """Read once, commit and stop; return the summary."""
    options.setdefault("clock", TestClock())
    runner = Runner(what or pipeline(), url, **options)
    runner.stop()
    return runner.run()


def entries_of(blocks):
    """Yield stream and words of each entry: what they share and what they do not."""
    for block in blocks:
        varying = iter(_words(block.shape.mask.count(b"v") * block.entries, block.data))
        for _ in range(block.entries):
            shared = iter(_words(*block.shape.constants))
            yield (
                block.stream,
                [next(shared if x == ord("c") else varying) for x in block.shape.mask],
            )
        assert not list(varying)


def _words(number, packed):
    reader = hiredis.Reader()
    reader.feed(b"*%d\r\n%b" % (number, packed))
    return reader.gets()
