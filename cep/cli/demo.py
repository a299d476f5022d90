"""``cep demo``: the whole thing on the bundled sample."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cep.errors import CepError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis as redis_py

ALERTS = "notification.events"
CHART = "cep-demo.html"
LIMIT_SECONDS = 600.0


class DemoError(CepError, RuntimeError):
    """A part of the demo ended when it should not have."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem, self.remedy = problem, remedy

    def __str__(self) -> str:
        return f"{self.problem} {self.remedy}".strip()


def demo(
    speed: Annotated[
        str,
        typer.Option(metavar="N|max", help="Seconds of the sample per second, or max."),
    ] = "25",
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Leave the server running and print its URL."),
    ] = False,
    chart: Annotated[
        Path, typer.Option(metavar="FILE", help="Where the chart goes.")
    ] = Path(CHART),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON object.")
    ] = False,
) -> int:
    """Run the whole thing on the bundled sample and show what it finds.

    Starts an embedded server, replays six minutes of real trades, quotes and
    inference requests into it, and runs the rules of pipelines/market_ai.py on
    them in a second process. Ends with a summary and a chart. The server's data
    are thrown away unless --keep.

    \b
    Example:
      cep demo --speed max --chart /tmp/demo.html
    """
    from cep.bus.embedded import EmbeddedServer
    from cep.cli.replay import parse_speed

    pace = parse_speed(speed)
    if not chart.absolute().parent.is_dir():
        raise UsageError(
            f"There is no folder {str(chart.absolute().parent)!r} for the chart.",
            "Make it, or name another file with --chart.",
        )
    # Ended in either way, the demo takes its pipeline process with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    say = _teller(as_json)
    folder = Path(tempfile.mkdtemp(prefix="cep-demo-")) if keep else None
    server = EmbeddedServer(folder, detach=keep)
    with server:
        say(f"Server: {server.url} (embedded, {'kept' if keep else 'temporary'})")
        run = _Run(server.url, pace, say)
        try:
            run.start()
            _watch(run, as_json)
            result = run.finish()
        except BaseException:
            run.abort()
            server.stop()
            raise
        alerts = _alerts(run.client)
        _draw(alerts, chart)
        seconds = round(time.monotonic() - began, 1)
        summary: dict[str, Any] = {
            "events": run.published,
            "alerts": {
                name: len(found) for name, found in _by_rule(result, alerts).items()
            },
            "accounting": result["accounting"],
            "seconds": seconds,
            "chart": str(chart.absolute()),
        }
        if keep:
            summary["url"] = server.url
            summary["server_pid"] = server.pid
        if as_json:
            print(json.dumps(summary))
        else:
            print(_text(summary, result, alerts))
        run.client.close()
    return 0


def _teller(as_json: bool) -> Callable[[str], None]:
    """Return what prints a line for people: on stderr when stdout is for JSON."""
    target = sys.stderr if as_json else sys.stdout

    def say(text: str) -> None:
        print(text, file=target, flush=True)

    return say


@dataclass(slots=True)
class _Run:
    """The replay, in a thread, and the pipeline, in a process."""

    url: str
    speed: float
    say: Callable[[str], None]
    client: redis_py.Redis = field(init=False)
    process: subprocess.Popen[str] = field(init=False)
    replay: threading.Thread = field(init=False)
    published: dict[str, int] = field(default_factory=dict)
    failure: BaseException | None = None
    errors: list[str] = field(default_factory=list)
    output: str = ""
    _readers: list[threading.Thread] = field(default_factory=list)

    @property
    def pipeline(self) -> str:
        """The pipeline's name."""
        return "market-ai"

    def start(self) -> None:
        """Start both."""
        from cep import sample
        from cep.bus.connection import connect_redis

        self.client = connect_redis(self.url)
        module = sample.pipeline_path("market_ai")
        command = [sys.executable, "-m", "cep", "run", str(module), "--json"]
        self.process = subprocess.Popen(
            [*command, "--redis", self.url],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.say(f"Pipeline: {Path(module).name}, process {self.process.pid}")
        self.say(f"Note: {sample.ALIGNMENT}")
        for read in (self._read_output, self._read_errors):
            reader = threading.Thread(target=read, daemon=True)
            reader.start()
            self._readers.append(reader)
        self.replay = threading.Thread(target=self._publish, daemon=True)
        self.replay.start()

    def _publish(self) -> None:
        from cep import sample
        from cep.bus.publisher import Publisher
        from cep.bus.replay import Track, replay_tracks
        from cep.pipeline.store import Store

        try:
            tracks = [Track(name, sample.frame(name)) for name in sample.streams()]
            done = replay_tracks(Publisher(self.url), tracks, speed=self.speed)
            self.published = done.events
            # Time stands still after the last event; say that it was the last.
            Store(self.client, self.pipeline).tick("end")
        except BaseException as error:  # handed to the main thread
            self.failure = error

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        self.output = self.process.stdout.read()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("Compiling"):
                self.say(line.rstrip())
            elif not line.startswith("["):
                self.errors.append(line.rstrip())

    def running(self) -> bool:
        """Whether the pipeline still runs; raises what made the replay fail."""
        if self.failure is not None:
            raise self.failure
        return self.process.poll() is None

    def finish(self) -> dict[str, Any]:
        """Return the pipeline's summary."""
        code = self.process.wait()
        for reader in self._readers:
            reader.join()
        if code or self.replay.is_alive():
            said = " ".join(self.errors) or "nothing was said"
            raise DemoError(f"The pipeline ended early with exit code {code}: {said}")
        summary: dict[str, Any] = json.loads(self.output)
        return summary

    def abort(self) -> None:
        """End the pipeline."""
        process = getattr(self, "process", None)
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


@dataclass(slots=True)
class _View:
    """What the live view shows at one moment."""

    seconds: float
    streams: list[tuple[str, int, int, float]]  # name, published, read, rate
    derived: int
    alerts: list[tuple[str, str, str, str]]


def _watch(run: _Run, as_json: bool) -> None:
    """Show rates, lag and the last alerts until the pipeline has ended."""
    from cep import sample

    target = sys.stderr if as_json else sys.stdout
    show = _live_table() if target.isatty() else _plain_lines(run.say)
    before: dict[str, int] = {}
    began = last = time.monotonic()
    try:
        while run.running():
            # Returns at once when the pipeline ends.
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.process.wait(0.4)
            now = time.monotonic()
            if now - began > LIMIT_SECONDS:
                raise DemoError("The demo did not end.", "Try `cep demo --speed max`.")
            raw: Any = run.client.hget(f"cep:{{{run.pipeline}}}:meta", "counts")
            counts = json.loads(raw) if raw else {}
            rows = []
            for name in sample.streams():
                read = counts.get(name, {}).get("processed", 0)
                rate = (read - before.get(name, 0)) / max(now - last, 1e-3)
                before[name] = read
                rows.append((name, int(run.client.xlen(name)), read, rate))
            last = now
            found: Any = run.client.xrevrange(ALERTS, count=6)
            derived: Any = run.client.xlen(ALERTS)
            show(_View(now - began, rows, derived, [_row(f) for _, f in found]))
    finally:
        show(None)


def _row(fields: dict[bytes, bytes]) -> tuple[str, str, str, str]:
    data, meta = json.loads(fields[b"data"]), json.loads(fields[b"metadata"])
    title = data.get("title") or data.get("trend_data", {}).get("title") or ""
    moment = fields[b"timestamp"].decode()[11:23]
    return moment, str(meta.get("severity")), str(meta.get("rule")), str(title)


def _plain_lines(say: Callable[[str], None]) -> Callable[[_View | None], None]:
    told = -2.0

    def show(view: _View | None) -> None:
        nonlocal told
        if view is None or view.seconds - told < 2.0:
            return
        told = view.seconds
        if not any(read for _, _, read, _ in view.streams):
            published = sum(n for _, n, _, _ in view.streams)
            say(f"[{view.seconds:5.1f} s] {published:,} published, pipeline starting")
            return
        parts = [
            f"{name} {rate:,.0f}/s, lag {published - read:,}"
            for name, published, read, rate in view.streams
        ]
        last = f", last: {view.alerts[0][2]}" if view.alerts else ""
        say(f"[{view.seconds:5.1f} s] {'; '.join(parts)}; {view.derived} alerts{last}")

    return show


def _live_table() -> Callable[[_View | None], None]:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    live = Live(console=Console(), refresh_per_second=4, transient=True)
    live.start()
    colour = {"critical": "bold red", "warning": "yellow", "info": "cyan"}

    def show(view: _View | None) -> None:
        if view is None:
            live.stop()
            return
        streams = Table(title=f"cep demo, {view.seconds:.0f} s", title_justify="left")
        streams.add_column("stream")
        for name in ("published", "processed", "lag", "events/s"):
            streams.add_column(name, justify="right")
        for name, published, read, rate in view.streams:
            streams.add_row(
                name,
                f"{published:,}",
                f"{read:,}",
                f"{published - read:,}",
                f"{rate:,.0f}",
            )
        alerts = Table(title=f"last of {view.derived} alerts", title_justify="left")
        for name in ("event time", "rule", "title"):
            alerts.add_column(name, no_wrap=name != "title")
        for moment, severity, rule, title in view.alerts:
            alerts.add_row(
                moment, Text(rule, style=colour.get(severity, "")), Text(title)
            )
        live.update(Group(streams, alerts))

    return show


def _alerts(client: redis_py.Redis) -> list[dict[str, Any]]:
    """Return what the pipeline derived, in the order in which it came."""
    from datetime import datetime

    found: Any = client.xrange(ALERTS)
    alerts = []
    for _, fields in found:
        meta = json.loads(fields[b"metadata"])
        _, severity, rule, title = _row(fields)
        moment = fields[b"timestamp"].decode()
        alerts.append(
            {
                "event_time": datetime.fromisoformat(moment),
                "rule": rule,
                "key": str(meta.get("key")),
                "severity": severity,
                "title": title,
            }
        )
    return alerts


def _by_rule(
    result: dict[str, Any], alerts: list[dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    grouped: dict[str, list[dict[str, Any]]] = {name: [] for name in result["rules"]}
    for alert in alerts:
        grouped.setdefault(alert["rule"], []).append(alert)
    return grouped


def _draw(alerts: list[dict[str, Any]], path: Path) -> None:
    import polars as pl

    from cep import sample
    from cep.reporting.figures import chart

    schema: dict[str, Any] = {
        "event_time": pl.Datetime("ms", "UTC"),
        **dict.fromkeys(["rule", "key", "severity", "title"], pl.String),
    }
    chart(
        {name: sample.frame(name) for name in sample.streams()},
        pl.DataFrame(alerts, schema=schema),
        path,
        note=sample.ALIGNMENT,
        provenance=sample.provenance()[:3],
    )


def _text(
    summary: dict[str, Any], result: dict[str, Any], alerts: list[dict[str, Any]]
) -> str:
    lines = ["", "Events"]
    lines += [f"  {name:15} {n:7,}" for name, n in summary["events"].items()]
    lines += ["", "Alerts by rule, each with its first"]
    grouped = _by_rule(result, alerts)
    width = max(map(len, grouped), default=0)
    for name, found in grouped.items():
        first = found[0] if found else None
        example = (
            f"{first['event_time']:%H:%M:%S} {first['title']}" if first else "none"
        )
        lines.append(f"  {name:{width}} {len(found):4}  {example}")
    a = summary["accounting"]
    accounting = (
        f"  read {a['read']:,} = processed {a['processed']:,} + late {a['late']:,} + "
        f"quarantined {a['quarantined']:,} + duplicate {a['duplicate']:,} + "
        f"buffered {a['buffered']:,}"
    )
    lines += [
        "",
        "Accounting",
        accounting,
        "",
        f"Chart: {summary['chart']}",
        f"Took {summary['seconds']} s.",
    ]
    if "url" in summary:
        lines += [
            "",
            f"The server is still running: {summary['url']}",
            f'  cep.load("market.events", url="{summary["url"]}")',
            f"  end it with: kill {summary['server_pid']}",
        ]
    return "\n".join(lines)
