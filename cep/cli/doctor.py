"""``cep doctor``: is the server fit, and do the rules survive being killed."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cep.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cep.ops.crash_test import Entry, Result
    from cep.ops.doctor import Finding

MOST_ENTRIES = 50_000  # of a stream that a crash test copies, the newest
SUFFICE = 20  # entries a kill


def doctor(
    module: Annotated[
        str | None,
        typer.Argument(help="Python file with rules, to look at its streams."),
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(help="Server, such as redis://127.0.0.1:6379 (CEP_REDIS_URL)."),
    ] = None,
    crash_test: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Run the rules of MODULE under N kills instead.", min=1
        ),
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="Crash test on the bundled sample.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the moments of the kills.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the findings as one JSON object.")
    ] = False,
) -> int:
    """Look at a server and the pipelines on it, and say what to do.

    Checks connection, version, durability, memory, clocks, how long a reader may
    be down before a stream is trimmed, consumer groups that leak, and who runs
    each pipeline. Nothing is written.

    With --crash-test the rules of MODULE are run in a scratch server on copies
    of the newest entries of their streams, or of the bundled sample, and killed
    N times; what came of them is compared with an undisturbed run.

    \b
    Examples:
      cep doctor --redis redis://127.0.0.1:6379
      cep doctor pipelines/market_ai.py --crash-test 25

    Exit codes: 0 nothing is bad, 1 something is, 2 a mistake in the command or
    the module.
    """
    if crash_test is not None:
        if module is None:
            raise UsageError(
                "--crash-test needs the rules to run.",
                "Name their file: cep doctor rules.py --crash-test 25.",
            )
        result = _crash_test(module, redis, crash_test, seed, sample=sample)
        print(json.dumps(result_dict(result)) if as_json else result_text(result))
        return 0 if result.passed else 1
    findings = _examine(module, redis)
    if as_json:
        print(json.dumps({"findings": [asdict(one) for one in findings]}))
    else:
        print(findings_text(findings))
    return 1 if any(one.level == "bad" for one in findings) else 0


def _examine(module: str | None, url: str | None) -> list[Finding]:
    from cep.bus.connection import connect_redis
    from cep.ops.doctor import examine
    from cep.pipeline import load_pipeline

    streams = [s.name for s in load_pipeline(module).streams] if module else []
    with connect_redis(url) as client:
        return examine(client, streams)


def findings_text(findings: Sequence[Finding]) -> str:
    """Return findings as lines, each remedy below what it is for."""
    width = max(len(one.check) for one in findings)
    lines = []
    for one in findings:
        lines.append(f"{one.level:4}  {one.check:{width}}  {one.found}")
        if one.remedy:
            lines.append(f"{'':{width + 8}}-> {one.remedy}")
    bad, warned = (sum(f.level == level for f in findings) for level in ("bad", "warn"))
    lines.append(f"{bad} bad, {warned} to look at, of {len(findings)} findings")
    return "\n".join(lines)


# The crash test -------------------------------------------------------------


def _crash_test(
    module: str, url: str | None, kills: int, seed: int, *, sample: bool
) -> Result:
    from cep.ops.crash_test import crash_test
    from cep.pipeline import load_pipeline

    streams = [one.name for one in load_pipeline(module).streams]
    entries = _sample(streams) if sample else _copied(url, streams)
    where = "the bundled sample" if sample else "the server's streams"
    if len(entries) < SUFFICE * kills:
        raise UsageError(
            f"{where.capitalize()} hold {len(entries):,} entries of "
            f"{', '.join(streams)}; {kills} kills need {SUFFICE * kills:,}.",
            "Kill less often"
            + ("." if sample else ", publish more, or use the bundled --sample."),
        )
    say = _teller()
    say(f"{len(entries):,} entries of {where}, {kills} kills in a scratch server")

    def told(number: int) -> None:
        if number % max(1, kills // 10) == 0:
            say(f"{number} of {kills} kills")

    return crash_test(module, entries, kills, seed=seed, told=told)


def _copied(url: str | None, streams: Sequence[str]) -> list[Entry]:
    """Return the newest entries of some streams, in the order of arrival."""
    from cep.bus.connection import clear_errors, connect_redis

    found: list[Entry] = []
    with connect_redis(url) as client, clear_errors(client):
        for stream in streams:
            newest: Any = client.xrevrange(stream, count=MOST_ENTRIES)
            found += [(stream, one.decode(), fields) for one, fields in newest]
    return sorted(found, key=lambda entry: [int(n) for n in entry[1].split("-")])


def _sample(streams: Sequence[str]) -> list[Entry]:
    from cep import sample
    from cep.bus.embedded import EmbeddedServer
    from cep.bus.publisher import Publisher
    from cep.bus.replay import Track, replay_tracks

    tracks = [Track(n, sample.frame(n)) for n in sample.streams() if n in streams]
    if not tracks:
        return []
    with EmbeddedServer(appendonly=False) as server:
        replay_tracks(Publisher(server.url), tracks)
        return _copied(server.url, [track.stream for track in tracks])


def _teller() -> Any:
    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    return say


def result_dict(result: Result) -> dict[str, object]:
    """Return what a crash test found as plain values."""
    return {
        "kills": len(result.kills),
        "proved": sum(kill.proved for kill in result.kills),
        "lost": result.verdict.lost,
        "duplicated": result.verdict.duplicated,
        "phantom": result.verdict.phantom,
        "entries": result.entries,
        "outputs": result.expected.outputs.total(),
        "dead_letters": result.expected.letters.total(),
        "passed": result.passed,
    }


def result_text(result: Result) -> str:
    """Return what a crash test found as lines."""
    found = result_dict(result)
    return (
        f"{found['kills']} kills ({found['proved']} proved by signal 9 and a commit), "
        f"{found['entries']:,} entries, {found['outputs']:,} outputs, "
        f"{found['dead_letters']:,} dead letters: {result.verdict}"
    )
