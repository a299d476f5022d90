"""``cep quarantine``: what a pipeline has given up on."""

from __future__ import annotations

import base64
import contextlib
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import fields as fields_of_class
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cep.clock import duration_ns
from cep.errors import UsageError
from cep.events.timestamps import format_timestamp

if TYPE_CHECKING:
    from cep.pipeline.quarantine import Quarantine, Row, Which

_AT_ONCE = 10_000  # rows written to a file at once
_SHOWN = 100  # characters of a detail in a list

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="""See, retry, export and remove what a pipeline has given up on.

    Each such entry has a row that says why, with its first 4 kB: of kind quarantine
    (no event of ours, or one that killed the process), late, duplicate, gap (lost
    before it was read), rule (a rule failed on it), output (derived, but refused by
    its type's model), rollback. The oldest rows go when there are more than the
    pipeline's max_dead_letters, 1,000,000 by default; `list` says how many did.

    \b
    Examples:
      cep quarantine list market-ai --redis redis://127.0.0.1:6379
      cep quarantine retry market-ai --reason unknown_type --now
      cep quarantine purge market-ai --kind late --older-than 7d
    """,
)

Name = Annotated[str, typer.Argument(metavar="PIPELINE", help="The pipeline's name.")]
Redis = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Server. By default that of CEP_REDIS_URL."),
]
Kind = Annotated[str | None, typer.Option(help="Only rows of this kind.")]
Reason = Annotated[str | None, typer.Option(help="Only rows of this reason.")]
Stream = Annotated[str | None, typer.Option(help="Only rows about this stream.")]
Rule = Annotated[str | None, typer.Option(help="Only rows about this rule.")]
OlderThan = Annotated[
    str | None,
    typer.Option("--older-than", metavar="DURATION", help="Only older rows, as 7d."),
]
Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID", help="Rows, by the ids that `list` shows."),
]


@app.command("list")
def list_(
    pipeline: Name,
    kind: Kind = None,
    reason: Reason = None,
    stream: Stream = None,
    rule: Rule = None,
    older_than: OlderThan = None,
    rows: Annotated[int, typer.Option(min=0, help="How many of the latest.")] = 20,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object.")
    ] = False,
    redis: Redis = None,
) -> None:
    """Count rows by what is wrong and where, and list the latest.

    \b
    Example:
      cep quarantine list market-ai --kind late --rows 5
    """
    which = _which(kind, reason, stream, rule, older_than)
    counts: Counter[tuple[str, str, str, str]] = Counter()
    lost: Counter[tuple[str, str, str, str]] = Counter()
    latest: deque[Row] = deque(maxlen=rows)
    with _opened(redis, pipeline) as quarantine:
        for row in quarantine.rows(which):
            what = (row.kind, row.reason, row.stream, row.rule)
            counts[what] += 1
            lost[what] += row.missing
            latest.append(row)
        trimmed = quarantine.trimmed()
    if as_json:
        names = ("kind", "reason", "stream", "rule")
        found = {
            "pipeline": pipeline,
            "rows": counts.total(),
            "trimmed": trimmed,
            "counts": [
                {**dict(zip(names, what, strict=True)), "rows": n, "lost": lost[what]}
                for what, n in counts.most_common()
            ],
            "latest": [_plain(row) for row in latest],
        }
        print(json.dumps(found))
        return
    _print_counts(pipeline, counts, lost)
    if trimmed:
        print(f"  {trimmed:9,}  older rows were removed at the limit max_dead_letters")
    _print_rows(latest)


@app.command()
def show(
    pipeline: Name,
    row: Annotated[str, typer.Argument(metavar="ID", help="Id that `list` shows.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object.")
    ] = False,
    redis: Redis = None,
) -> None:
    """Show one row: what is wrong, where, and the bytes.

    \b
    Example:
      cep quarantine show market-ai 1700000000000-0
    """
    from cep.pipeline.quarantine import printable

    with _opened(redis, pipeline) as quarantine:
        found = quarantine.row(row)
    if as_json:
        print(json.dumps(_plain(found)))
        return
    print(f"{'id':10}  {found.id}  ({format_timestamp(found.time_ms)})")
    for name in ("kind", "reason", "stream", "entry_id", "rule", "detail", "sha256"):
        value = getattr(found, name)
        if value:
            print(f"{name:10}  {printable(value)}")
    if found.missing:
        print(f"{'missing':10}  {found.missing:,} entries")
    kept = "all of them" if found.is_whole else f"the first {len(found.raw):,} of them"
    print(f"{'bytes':10}  {found.raw_length:,}" + (f", {kept}:" if found.raw else ""))
    for line in found.raw.split(b"\n") if found.raw else ():
        print(f"  {printable(line)}")


@app.command()
def retry(
    pipeline: Name,
    rows: Ids = None,
    kind: Kind = None,
    reason: Reason = None,
    stream: Stream = None,
    rule: Rule = None,
    older_than: OlderThan = None,
    now: Annotated[
        bool, typer.Option("--now", help="Give the events the present as their time.")
    ] = False,
    redis: Redis = None,
) -> int:
    """Publish events of rows again on their streams, each once.

    They are taken from the stream, or from the row where it holds all bytes, and
    must be good now: register the type, mend the model, then retry. An event that
    would be late is not published without --now. Rows of kind "rule" are kept for
    reading: all other rules have processed those events, and published again they
    would be copies. Exit code 1 if one was not published.

    \b
    Examples:
      cep quarantine retry market-ai 1700000000000-0
      cep quarantine retry market-ai --reason unknown_type --now
    """
    from cep.pipeline.quarantine import printable

    which = _which(kind, reason, stream, rule, older_than)
    published = refused = 0
    with _opened(redis, pipeline) as quarantine:
        for done in quarantine.retry(_meant(quarantine, rows, which), now=now):
            if done.entry_id is None:
                refused += 1
                problem = printable(done.problem)
                print(f"{done.row.id}: not published: {problem}", file=sys.stderr)
            else:
                published += 1
                print(f"{done.row.id}: {printable(done.row.stream)} {done.entry_id}")
    print(f"{published:,} published, {refused:,} not")
    return 1 if refused else 0


@app.command()
def export(
    pipeline: Name,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A .parquet or .jsonl file.")
    ],
    kind: Kind = None,
    reason: Reason = None,
    stream: Stream = None,
    rule: Rule = None,
    older_than: OlderThan = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over a file that is there.")
    ] = False,
    redis: Redis = None,
) -> None:
    """Write rows to a file, bytes included (in .jsonl as base64).

    \b
    Example:
      cep quarantine export market-ai rows.parquet --kind late
    """
    ending = file.suffix.lower()
    if ending not in (".parquet", ".jsonl"):
        raise UsageError(
            f"{file.name!r} is neither a .parquet nor a .jsonl file.",
            "Name one with that ending.",
        )
    if file.exists() and not force:
        raise UsageError(f"{str(file)!r} is there already.", "--force writes over it.")
    which = _which(kind, reason, stream, rule, older_than)
    write = _write_parquet if ending == ".parquet" else _write_jsonl
    with _opened(redis, pipeline) as quarantine:
        try:
            n = write(file, quarantine.rows(which))
        except OSError as error:
            raise UsageError(
                f"{str(file)!r} cannot be written: {error.strerror}.",
                "Name a file in a folder of yours.",
            ) from error
    print(f"{n:,} rows in {file}")


@app.command()
def purge(
    pipeline: Name,
    rows: Ids = None,
    kind: Kind = None,
    reason: Reason = None,
    stream: Stream = None,
    rule: Rule = None,
    older_than: OlderThan = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All rows of the pipeline.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    redis: Redis = None,
) -> None:
    """Remove rows for good.

    \b
    Example:
      cep quarantine purge market-ai --kind late --older-than 7d --yes
    """
    from cep.pipeline.quarantine import Which

    which = _which(kind, reason, stream, rule, older_than)
    if not everything and not rows and which == Which():
        raise UsageError(
            "Which rows?", "Give --kind, --reason, --older-than, or --all."
        )
    with _opened(redis, pipeline) as quarantine:
        n = sum(1 for _ in _meant(quarantine, rows, which))
        if n and not yes:
            if not sys.stdin.isatty():
                raise UsageError(
                    f"{n:,} rows would be removed for good.", "Add --yes to do it."
                )
            typer.confirm(f"Remove {n:,} rows of {pipeline} for good?", abort=True)
        removed = quarantine.purge(_meant(quarantine, rows, which))
    print(f"{removed:,} rows removed")


@contextlib.contextmanager
def _opened(url: str | None, name: str) -> Iterator[Quarantine]:
    from cep.bus.connection import connect_redis
    from cep.pipeline.quarantine import Quarantine

    with connect_redis(url) as client:
        yield Quarantine(client, name)


def _which(
    kind: str | None,
    reason: str | None,
    stream: str | None,
    rule: str | None,
    older_than: str | None,
) -> Which:
    from cep.pipeline.quarantine import Which

    before = None
    if older_than is not None:
        age_ms = duration_ns(older_than, allow_zero=True) // 1_000_000
        before = int(time.time() * 1000) - age_ms
    return Which(kind, reason, stream, rule, before)


def _meant(
    quarantine: Quarantine, ids: list[str] | None, which: Which
) -> Iterable[Row]:
    if not ids:
        return quarantine.rows(which)
    return [row for row in map(quarantine.row, ids) if which.takes(row)]


def _plain(row: Row) -> dict[str, Any]:
    """Return a row as JSON holds it; its bytes as base64."""
    found = {one.name: getattr(row, one.name) for one in fields_of_class(row)}
    found["raw"] = base64.b64encode(row.raw).decode()
    return {**found, "time": format_timestamp(row.time_ms)}


def _print_counts(
    pipeline: str,
    counts: Counter[tuple[str, str, str, str]],
    lost: Counter[tuple[str, str, str, str]],
) -> None:
    from cep.pipeline.quarantine import printable

    print(f"pipeline {printable(pipeline)}: {counts.total():,} rows")
    for what, n in counts.most_common():
        kind, reason, *where = map(printable, what)
        name = kind if reason in ("", kind) else f"{kind} {reason}"
        more = f" ({lost[what]:,} entries lost)" if lost[what] else ""
        print(f"  {n:9,}  {name:32}  {'  '.join(filter(None, where))}{more}")


def _print_rows(rows: Iterable[Row]) -> None:
    from cep.pipeline.quarantine import printable

    for row in rows:
        detail = printable(row.detail)
        if len(detail) > _SHOWN:
            detail = detail[: _SHOWN - 3] + "..."
        where = "  ".join(filter(None, (row.stream, row.entry_id, row.rule)))
        print(f"{row.id}  {printable(row.reason)}  {printable(where)}  {detail}")


def _write_jsonl(path: Path, rows: Iterable[Row]) -> int:
    n = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(_plain(row)) + "\n")
            n += 1
    return n


def _write_parquet(path: Path, rows: Iterable[Row]) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"raw": pa.binary(), "raw_length": pa.int64(), "missing": pa.int64()}
    names = ["id", "kind", "reason", "stream", "entry_id", "rule", "detail", "sha256"]
    schema = pa.schema(
        [("time", pa.timestamp("ms", "UTC"))]
        + [(name, pa.string()) for name in names]
        + list(kinds.items())
    )
    n = 0
    with parquet.ParquetWriter(path, schema) as writer:
        for some in _chunks(rows):
            columns = {
                name: [getattr(r, name) for r in some] for name in schema.names[1:]
            }
            table = {"time": [row.time_ms for row in some], **columns}
            writer.write_table(pa.table(table, schema=schema))
            n += len(some)
    return n


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    some: list[Row] = []
    for row in rows:
        some.append(row)
        if len(some) == _AT_ONCE:
            yield some
            some = []
    if some:
        yield some
