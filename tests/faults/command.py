"""Does the faults at full size and prints what came of them, one line each."""

import argparse
import json
import random
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from cep.bus.embedded import EmbeddedServer
from cep.ops.crash_test import Trial, Verdict, crash_test
from tests.faults import archiving, crash_points, outages, soak, work, zombies
from tests.faults.links import IMPATIENT, through_a_proxy

RECONNECT_SECONDS, IDLE_CPU = 2.0, 0.2  # at most
WARM_UP_SECONDS = 30.0  # until the engine has dropped strings for the first time


@dataclass(frozen=True)
class Row:
    """One kind of fault: how often it was done, what it cost.

    ``missed`` is "" unless a fault was not done, or something else is not as it
    should be.
    """

    fault: str
    count: int
    verdict: Verdict
    note: str = ""
    missed: str = ""


def options(words):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description="Does to `cep run` what happens to servers, links and processes.",
        epilog="example: python -m tests.faults --kills 500 --links",
    )
    parser.add_argument("--kills", type=int, default=0, help="how many SIGKILLs")
    parser.add_argument("--points", action="store_true", help="die at certain places")
    parser.add_argument("--links", action="store_true", help="a proxy breaks the link")
    parser.add_argument("--outages", action="store_true", help="kill the server")
    parser.add_argument("--zombies", action="store_true", help="stop and wake up")
    parser.add_argument("--failover", action="store_true", help="kill the primary")
    parser.add_argument(
        "--archive", type=int, default=0, help="how many SIGKILLs of `cep archive run`"
    )
    parser.add_argument("--soak", type=float, default=0, help="so many minutes of load")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser.parse_args(words)


@contextmanager
def trial(n, seed, module=work.MODULE, at_once=10):
    """A trial on a server and in a folder of its own."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cep-faults-"))
        server = stack.enter_context(EmbeddedServer(appendonly=False))
        log = Path(folder, "pipeline.log")
        url = server.url.rpartition("/")[0]
        one = Trial(
            url,
            module,
            work.entries(n, seed),
            log,
            target=work.cep_run,
            at_once=at_once,
        )
        yield stack.enter_context(one)


def kills(count, seed):
    """SIGKILL at random moments while events come in."""
    began = time.monotonic()

    def told(number):
        if number % 50 == 0:
            print(f"{number} kills", file=sys.stderr, flush=True)

    entries = work.entries((count + 1) * 200, seed)
    result = crash_test(
        work.MODULE, entries, count, seed=seed, target=work.cep_run, told=told
    )
    proved = sum(kill.proved for kill in result.kills)
    note = (
        f"{proved} proved by exit -9 and seq, {len(entries):,} entries, "
        f"{result.expected.outputs.total():,} outputs, "
        f"{result.expected.letters.total():,} dead letters, "
        f"{time.monotonic() - began:.0f} s"
    )
    missed = "" if proved == count else "not all kills are proved"
    yield Row("SIGKILL", count, result.verdict, note, missed)


def points(seed, times=3):
    """Processes that die at certain places."""
    for number, (name, point) in enumerate(crash_points.POINTS.items()):
        module = work.TICKING if point.idle else work.MODULE
        with trial(600, seed + number, module, at_once=5) as one:
            codes = crash_points.crash(one, name, times, seed + number)
            missed = "" if codes == [-9] * times else f"ended with {codes}"
            yield Row(f"dies {name}", times, one.finish(), missed=missed)


def links(seed):
    """A proxy between the pipeline and its server."""
    faults = {
        "one reply dropped": (IMPATIENT, lambda link: link.drop_replies(20)),
        "one reply 10 s late": ("", lambda link: link.delay_replies(4, 10)),
        "single bytes": ("", lambda link: link.slice_replies(200)),
        "reset at random": ("", lambda link: link.reset_at_random(30, seed)),
        "dark for 10 s": ("", lambda link: link.go_dark(3, 10)),
    }
    for name, (more, do) in faults.items():
        with trial(6000, seed) as one, through_a_proxy(one, more) as link:
            do(link)
            note = missed = ""
            if link.reconnects:
                slowest, cpu = max(link.reconnects), max(link.idle_cpu)
                note = f"commits again {slowest:.2f} s after healing at the latest, "
                note += f"{100 * cpu:.1f} % of a core while down at most"
                if slowest > RECONNECT_SECONDS or cpu > IDLE_CPU:
                    missed = "slower than 2 s or more than 20 %"
            yield Row(f"link: {name}", link.proxy.cuts, link.finish(), note, missed)


def server_outages(seed, times=10):
    """The server is killed, with all of its data or without the last."""
    with tempfile.TemporaryDirectory(prefix="cep-faults-") as folder:
        verdict = outages.kill_server(Path(folder), times, seed)
    yield Row("server killed and restarted", times, verdict)
    total, told, lost_commits = Verdict(), 0, 0
    for number in range(times):
        with tempfile.TemporaryDirectory(prefix="cep-faults-") as folder:
            dice = random.Random(seed + number)
            verdict, lost, rollbacks = outages.cut_file(
                Path(folder), dice, seed + number
            )
        total = added(total, verdict)
        told += rollbacks == (1 if lost else 0)
        lost_commits += lost
    note = f"{lost_commits} commits lost, reported in {told} of {times}"
    missed = "" if told == times else "a rollback was not reported"
    yield Row("server file cut", times, total, note, missed)


def archiving_killed(count, seed, n=500_000):
    """SIGKILL of a process that archives while entries come in."""
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="cep-faults-") as folder,
        EmbeddedServer(appendonly=False) as server,
    ):
        found = archiving.kill(server.url, Path(folder, "a"), n, count, seed)
    missed = "; ".join(found.problems)
    if found.kills < count:
        missed = "not all kills are proved"
    note = (
        f"{found.archived:,} entries in {found.files:,} files, {found.while_writing} "
        f"killed in the middle of one, {found.pruned:,} trimmed between, all restored, "
        f"{time.monotonic() - began:.0f} s"
    )
    yield Row("SIGKILL of the archive", found.kills, Verdict(), note, missed)


def added(one, other):
    """Return two verdicts as one."""
    return Verdict(
        one.lost + other.lost,
        one.duplicated + other.duplicated,
        one.phantom + other.phantom,
        one.accounted and other.accounted,
    )


def stopped(seed, rounds=6, seconds=20):
    """Two processes of one pipeline, the first of which was stopped for a while."""
    with trial(3000, seed) as one:
        codes, winner = zombies.duel(one, rounds, seconds)
        missed = "" if codes == [3] * rounds else f"losers ended with {codes}"
        yield Row(
            f"zombies, stopped {seconds} s",
            rounds,
            one.finish(lambda: winner),
            "",
            missed,
        )


def failover(times=5):
    """Sentinels make the replica the primary."""
    from tests.faults.test_failover import fail_over

    total, missed = Verdict(), ""
    for _ in range(times):
        with tempfile.TemporaryDirectory(prefix="cep-faults-") as folder:
            verdict, rival, same_owner = fail_over(Path(folder))
        total = added(total, verdict)
        if rival != 3 or not same_owner:
            missed = "two owners"
    yield Row("sentinel failover", times, total, missed=missed)


def under_load(minutes, seed):
    """Load at 70 % of what can be done, and a kill a minute."""
    rate = 0.7 * fastest(seed)
    seconds = 60 * minutes
    with (
        tempfile.TemporaryDirectory(prefix="cep-faults-") as folder,
        EmbeddedServer(appendonly=False) as server,
    ):
        url = server.url.rpartition("/")[0]
        verdict, count, memory = soak.soak(url, folder, seconds, rate, 60, seed)
    slopes = [
        soak.slope_mb_per_minute(looks, WARM_UP_SECONDS)
        for looks in memory
        if looks and looks[-1][0] > WARM_UP_SECONDS + 10
    ]
    largest = max(size for looks in memory for _, size in looks)
    note = f"{rate:,.0f} events/s for {minutes:g} min, RSS at most {largest:.0f} MB, "
    note += f"MB a minute by process: {', '.join(map(str, slopes))}"
    yield Row("soak", count, verdict, note)


def fastest(seed, n=20_000):
    """Return how many events a second come from the feed through the pipeline."""
    with trial(n, seed, at_once=1000) as one:
        process = one.begin()
        one.feed.let(1000)
        one.wait_for_commit(process, 0)
        began = time.monotonic()
        one.finish(lambda: process)
        return (n - 1000) / (time.monotonic() - began)


def main(words):
    """Do what is asked for; 1 if anything was lost, twice or made up."""
    asked = options(words)
    kinds = [
        (asked.kills, lambda: kills(asked.kills, asked.seed)),
        (asked.points, lambda: points(asked.seed)),
        (asked.links, lambda: links(asked.seed)),
        (asked.outages, lambda: server_outages(asked.seed)),
        (asked.zombies, lambda: stopped(asked.seed)),
        (asked.failover, failover),
        (asked.archive, lambda: archiving_killed(asked.archive, asked.seed)),
        (asked.soak, lambda: under_load(asked.soak, asked.seed)),
    ]
    rows = []
    for wanted, do in kinds:
        for row in do() if wanted else ():
            rows.append(row)
            print(line(row), file=sys.stderr, flush=True)
    if asked.json:
        print(json.dumps({"seed": asked.seed, "rows": [asdict(row) for row in rows]}))
    else:
        print(HEAD, *map(line, rows), sep="\n")
    return 0 if all(row.verdict.clean and not row.missed for row in rows) else 1


WIDTH = max(map(len, crash_points.POINTS)) + len("dies ")
HEAD = f"{'fault':{WIDTH}}  count  lost  duplicated  phantom"


def line(row):
    """Return a row as a line of text."""
    end = "  ".join(filter(None, (row.note, row.missed and f"MISSED: {row.missed}")))
    return (
        f"{row.fault:{WIDTH}}  {row.count:5}  {row.verdict.lost:4}"
        f"  {row.verdict.duplicated:10}  {row.verdict.phantom:7}  {end}"
    ).rstrip()
