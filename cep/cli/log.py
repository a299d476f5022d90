"""What a running pipeline tells on stderr: lines of text, or JSON for a collector."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING

from cep.events.timestamps import format_timestamp

if TYPE_CHECKING:
    from cep.pipeline import Pipeline, Summary
    from cep.pipeline.notes import Note, Severity


class LogForm(StrEnum):
    """The choices of ``--log``."""

    text = "text"
    json = "json"


class Log:
    """Writes lines on stderr, without payloads or secrets.

    Parameters
    ----------
    form
        Text, or one JSON object a line: ``time`` (ISO 8601, UTC), ``level`` (info,
        warning or error), ``event`` (one word), ``pipeline`` (null before its module
        is loaded), ``message`` (the line of text) and ``fields``, an object with what
        the event is about.
    quiet
        Without the lines for which nobody need do anything: start and status.
    every_seconds
        How often to write a status at most.
    """

    def __init__(
        self, form: LogForm, *, quiet: bool = False, every_seconds: float = 2.0
    ) -> None:
        self.form, self.quiet, self.every = form, quiet, every_seconds
        self.pipeline: str | None = None
        self.began = self.last = time.monotonic()
        self.last_read = -1

    def tell(
        self, event: str, text: str, level: Severity = "info", **fields: object
    ) -> None:
        """Write a line."""
        if self.form is LogForm.json:
            line = {
                "time": format_timestamp(time.time_ns() // 1_000_000),
                "level": level,
                "event": event,
                "pipeline": self.pipeline,
                "message": " ".join(text.split()),
                "fields": fields,
            }
            text = json.dumps(line)
        print(text, file=sys.stderr, flush=True)

    def compiling(self) -> None:
        """Say that the first start on a machine takes a while."""
        if not self.quiet:
            text = "Compiling kernels, once on this machine (some 40 s of CPU)..."
            self.tell("compiling", text)

    def start(self, pipeline: Pipeline, server: str) -> None:
        """Say what is read, and where; ``server`` is a URL without a password."""
        if self.quiet:
            return
        streams = [stream.name for stream in pipeline.streams]
        rules = [rule.name for rule in pipeline.rules]
        text = f"pipeline {pipeline.name} reads {', '.join(streams)} at {server}"
        self.tell(
            "start",
            f"{self._elapsed()} {text}",
            server=server,
            streams=streams,
            rules=rules,
        )

    def note(self, note: Note) -> None:
        """Pass on a note."""
        self.tell(note.event, note, note.level, **note.fields)

    def status(self, summary: Summary) -> None:
        """Write now and then what was read, what came out, what waits."""
        now = time.monotonic()
        total = summary.total
        if self.last_read < 0:  # what was read by earlier runs, if any
            self.last_read = total.read
        if self.quiet or now - self.last < self.every:
            return
        rate = (total.read - self.last_read) / (now - self.last)
        self.last, self.last_read = now, total.read
        emitted = sum(counts["emitted"] for counts in summary.outputs.values())
        waits = f", waits for {summary.held_back_by}" if summary.held_back_by else ""
        self.tell(
            "status",
            f"{self._elapsed()} {rate:9,.0f} events/s, "
            f"{total.processed:,} processed, {total.buffered:,} buffered{waits}, "
            f"{emitted:,} derived",
            events_per_second=round(rate, 1),
            **asdict(total),
            held_back_by=summary.held_back_by,
            emitted=emitted,
            commits=summary.commits,
        )

    def end(self, summary: Summary) -> None:
        """Write that it has ended in order; as text the summary tells that."""
        if self.form is LogForm.text:
            return
        self.tell(
            "end",
            f"pipeline {summary.pipeline} has ended",
            **asdict(summary.total),
            commits=summary.commits,
            seconds=round(summary.seconds, 3),
            input_ended=summary.ended,
            exit_code=0,
        )

    def error(self, text: str, code: int, kind: str) -> None:
        """Write what ended it; ``kind`` is a class of errors."""
        text = " ".join(text.split())
        if self.form is LogForm.text:
            text = f"error: {text}"
        self.tell("error", text, "error", error=kind, exit_code=code)

    def _elapsed(self) -> str:
        return f"[{time.monotonic() - self.began:6.1f} s]"
