"""The parts of a report, in order: each says what `Findings` holds of one thing."""

from __future__ import annotations

import platform
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from cep import __version__, sample
from cep.reporting.document import Document, code
from cep.reporting.figures import event_rates, match_timeline, price_with_alerts
from cep.reporting.findings import span_text, stream_table, type_table
from cep.reporting.html import sources
from cep.reporting.markup import element
from cep.reporting.relating import study_table

if TYPE_CHECKING:
    from datetime import datetime

    from cep.analysis import Relations
    from cep.reporting.findings import Findings

EXAMPLES: Final = 3
_WENT: Final = ("processed", "late", "duplicate", "buffered")
TIMELINES: Final = 6
STUDIES: Final = 4
_LEADING: Final = ("statement", "q_value")  # what a phone shows
_SAID: Final = (
    "A lag above 0 means that x comes first. Intervals are 95 %, from drawing blocks "
    "of time; q is p adjusted for all questions of the table, and statements go by it."
)


def written(document: Document, found: Findings, made_at: datetime) -> Document:
    """Add all parts to a document and return it."""
    _opening(document, found)
    _provenance(document, found, made_at)
    _coverage(document, found)
    if found.result is not None:
        _alerts(document, found)
    _relations(document, found)
    _limits(document, found)
    if found.is_sample:
        document.add(sources(sample.provenance()[:3]))
    return document


def _opening(document: Document, found: Findings) -> None:
    events = sum(map(len, found.frames.values()))
    said = f"{events:,} events of {_count(len(found.frames), 'stream')}"
    if span := span_text(found.frames):
        said += f", {span}"
    if found.result is not None:
        rules = _count(len(found.request.rules), "rule")
        said += f"; {_count(len(found.result.events), 'alert')} of {rules}"
    document.text(said + ".")
    if found.is_sample:
        document.text(sample.ALIGNMENT, class_="note")


def _provenance(document: Document, found: Findings, made_at: datetime) -> None:
    request = found.request
    document.heading("Where this is from")
    source = "the sample that comes with cep" if found.is_sample else found.source
    document.facts(
        [
            ("Source", source),
            ("Streams", ", ".join(request.streams)),
            ("Entries from", _end(request.start, "the first there is")),
            ("Entries to", _end(request.end, "the last there is")),
            ("Made", f"{made_at:%Y-%m-%d %H:%M:%S} UTC"),
            ("Versions", f"cep {__version__}, Python {platform.python_version()}"),
            ("Seed", str(request.seed)),
        ]
    )
    document.heading("What became of every entry", level=3)
    document.table("accounting", _accounting(found))
    if len(found.bad):
        document.text("Entries that are no events, by reason:")
        document.table("not-events", _bad(found))
    if found.dead_letters is not None:
        name = request.pipeline.name if request.pipeline else ""
        document.text(
            f"What the live pipeline {name} has given up on so far (dead letters; ",
            "gap means entries that were lost before they were read):",
        )
        document.table("dead-letters", found.dead_letters)
    if request.rules:
        document.heading("Rules", level=3)
        document.table("rules", _rules(found))


def _end(end: object, otherwise: str) -> str:
    return otherwise if end is None else str(end)


def _accounting(found: Findings) -> pl.DataFrame:
    """Return of each stream what was read and where it went."""
    bad = dict(found.bad["stream"].value_counts().iter_rows())
    rows = []
    for name, frame in found.frames.items():
        row: dict[str, Any] = {
            "stream": name,
            "entries": len(frame) + bad.get(name, 0),
            "not_events": bad.get(name, 0),
            "events": len(frame),
        }
        if found.result is not None:
            # Nothing is said of a stream that no rule reads.
            given = found.result.accounting.get(name, {})
            row |= {key: given.get(key) for key in _WENT}
        if found.removed:
            row["removed_before"] = found.removed.get(name)
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def _bad(found: Findings) -> pl.DataFrame:
    return (
        found.bad.group_by("stream", "reason", maintain_order=True)
        .agg(
            entries=pl.len().cast(pl.Int64),
            first_entry=pl.col("entry_id").first(),
            said_of_the_first=pl.col("detail").first(),
        )
        .sort("entries", descending=True, maintain_order=True)
    )


def _rules(found: Findings) -> pl.DataFrame:
    assert found.result is not None
    rows = []
    for rule in found.request.rules:
        counts = found.result.counts[rule.name]
        rows.append(
            {
                "rule": rule.name,
                "version": rule.version,
                "hash": rule.hash,
                "severity": rule.severity,
                "alerts": counts.emitted,
                "suppressed": counts.suppressed,
                "timeouts": counts.timeouts,
                "dropped_at_a_limit": counts.dropped_partials + counts.dropped_outputs,
                "failed_on_events": counts.errors,
                "stopped": counts.tripped_why or None,
                "meaning": rule.doc,
            }
        )
    table = pl.DataFrame(rows, infer_schema_length=None)
    quiet = ("timeouts", "dropped_at_a_limit", "failed_on_events", "stopped")
    nothing = [n for n in quiet if not table[n].cast(pl.Boolean, strict=False).any()]
    return table.drop(
        [n for n in nothing if n != "stopped" or table[n].is_null().all()]
    )


def _coverage(document: Document, found: Findings) -> None:
    document.heading("Rates and coverage")
    document.table("streams", stream_table(found.frames))
    document.table("types", type_table(found.frames))
    if any(map(len, found.frames.values())):
        note = sample.ALIGNMENT if found.is_sample else None
        document.figure(event_rates(found.frames, note=note))


def _alerts(document: Document, found: Findings) -> None:
    assert found.result is not None
    alerts, frames = found.result.alerts, found.frames
    document.heading("Alerts")
    if not len(alerts):
        document.text("No rule found anything in these events.")
        return
    priced = [f for f in frames.values() if {"symbol", "price"} <= set(f.columns)]
    if priced:
        others = [name for name in frames if frames[name] is not priced[0]]
        load = frames[others[0]] if len(others) == 1 else None
        figure = price_with_alerts(
            priced[0],
            alerts,
            load=load,
            load_name=others[0] if others else "",
            title="Prices with alerts",
            note=sample.ALIGNMENT if found.is_sample else None,
        )
        document.figure(figure)
    document.text("The first alerts of each rule:")
    listed = alerts.with_columns(events=pl.col("lineage").list.len())
    first = listed.group_by("rule", maintain_order=True).head(EXAMPLES).sort("rule")
    document.table(
        "alerts",
        alerts,
        show=first.select("rule", "event_time", "severity", "key", "title", "events"),
    )
    _timelines(document, found)


def _timelines(document: Document, found: Findings) -> None:
    """Draw the first match of each rule whose matches have several events."""
    assert found.result is not None
    first: dict[str, Any] = {}
    for event in found.result.events:
        if len(event.lineage) > 1 and not event.timeout:
            first.setdefault(event.rule, event)
    if not first:
        return
    document.heading("What matches are made of", level=3)
    document.text("The first match of rules that need several events.")
    for event in islice(first.values(), TIMELINES):
        document.figure(match_timeline(event, found.frames))
    if len(first) > TIMELINES:
        document.text(f"{len(first) - TIMELINES} more rules have such matches.")


def _relations(document: Document, found: Findings) -> None:
    relating = found.relating
    if relating.prices is not None:
        document.heading("Which price moves first")
        document.text(
            "Each pair of prices is compared by the Hayashi-Yoshida correlation of "
            "their ticks; a price is looked at after and before the events of other "
            f"streams. {_SAID}"
        )
        _related(document, "prices", relating.prices)
    if relating.events is not None:
        document.heading("Which events come together")
        document.text(
            "The events of each pair of types are counted in short cells of time; what "
            f"changes slowly, or with the time of day, is taken out. {_SAID}"
        )
        _related(document, "events", relating.events)
    if relating.studies:
        document.heading("What prices do around alerts")
        document.text(
            "The mean path of a price around the alerts that name it, less that around "
            "placebo dates. q is adjusted for the rules in this table. Rules that look "
            "for moves come after moves: what was before an alert is no finding."
        )
        document.table("event-studies", study_table(relating.studies))
        for _, study in relating.studies[:STUDIES]:
            document.figure(study.plot())


def _related(document: Document, name: str, found: Relations) -> None:
    """Add all answers, a picture of them, and the clearest curve of each method."""
    table = found.to_polars().sort("p_value", nulls_last=True, maintain_order=True)
    rest = [column for column in table.columns if column not in _LEADING]
    shown_first = table.select(*_LEADING, *rest)
    document.table(f"relations-{name}", shown_first)
    answered = [row for row in found.rows if row.result is not None]
    if len(answered) > 1:
        document.figure(found.plot())
    shown = set()
    for row in sorted(answered, key=lambda row: (row.p_value, -abs(row.size))):
        kind = type(row.result)
        if row.result is not None and kind not in shown:
            shown.add(kind)
            document.figure(row.result.plot())


def _limits(document: Document, found: Findings) -> None:
    document.heading("What this report does not show")
    said: list[object] = []
    if found.result is not None:
        said.append(
            "Whether alerts are right. That needs labels to compare them with: "
            "cep.backtest."
        )
        said.append(
            "What the rules would find with a past: their windows are empty where "
            "the events begin."
        )
    if found.relating.questions:
        said.append(
            "Causes. Series that move together may both follow a third, and a lead of "
            "a few milliseconds may be that of one feed over another."
        )
        said.append(
            "Other times. Intervals and q-values say how sure these events make one, "
            "and account for the questions of one table, not for others tried before."
        )
    if len(found.bad):
        said.append("The contents of entries that are no events.")
    if any(found.removed.values()):
        said.append("Entries that the server had removed before they were loaded.")
    said += found.skipped
    document.items(said)
    files = [element("li", code(document.path.name), ": this page")]
    files += [element("li", code(name)) for name in document.file_names]
    document.heading("Files")
    document.text("Tables are beside this page, as CSV, times in UTC:")
    document.add(element("ul", *files))


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"
