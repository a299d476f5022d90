"""What a pipeline writes to streams: outputs and dead letters, as entry fields.

A dead letter, or row, says why and from where, in these fields:

==============  =============================================================
``kind``        what became of it, see below
``reason``      why: of kind quarantine one of `cep.events.reasons.Reason`, or
                ``poison``; of kinds rule and output ``rule_error``; otherwise
                the kind again
``stream``      the input stream; of an output the stream it was meant for
``entry_id``    the entry; of lost ones the last that was read before them
``rule``        the rule, of kinds rule and output
``detail``      in words; foreign data, like ``raw``
``raw``         the first 4 kB of the entry, each field as ``name=value``, joined
                by newlines; with its whole ``raw_length`` and ``sha256``
``pipeline``    its name
``missing``     of kind gap: how many entries
==============  =============================================================

==============  =============================================================
kind            the entry
==============  =============================================================
``quarantine``  is no event of ours, or killed the process
``late``        came below its stream's watermark
``duplicate``   has the id of an earlier one
``gap``         was lost before it was read or processed
``rule``        was processed, but not by one rule, which failed on it
``output``      was derived, but its type's model refuses it
``rollback``    none: the server had lost commits
==============  =============================================================
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from cep.events.codec import encode
from cep.events.columns import BadRow
from cep.events.envelope import Event
from cep.events.timestamps import format_timestamp, from_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cep.engine.derive import DerivedEvent

NS_PER_MS = 1_000_000


def output_fields(derived: DerivedEvent) -> list[bytes]:
    """Return a derived event as the words of an entry: field, value, field...

    Raises
    ------
    InvalidPayloadError
        If a required field of its type is absent in this match.
    """
    event = Event.new(
        derived.type,
        derived.data,
        id=derived.id,
        stream=derived.stream,
        timestamp=from_ms(derived.time_ns // NS_PER_MS),
        correlation_id=derived.correlation_id or None,
        metadata=derived.metadata(),
    )
    return [word for pair in encode(event).items() for word in pair]


def dead_letter(
    pipeline: str, kind: str, row: BadRow, *, rule: str = ""
) -> list[bytes]:
    """Return a row that was given up on as the words of an entry."""
    fields: dict[str, bytes | str] = {
        "kind": kind,
        "reason": row.reason,
        "stream": row.stream,
        "entry_id": row.entry_id,
        "rule": rule,
        "detail": row.detail,
        "raw": row.raw,
        "raw_length": str(row.raw_length),
        "sha256": row.sha256,
        "pipeline": pipeline,
    }
    return _words(fields)


def late_letter(pipeline: str, raw: BadRow, event_ms: int) -> list[bytes]:
    """Return a late event, given by its bytes, as the words of an entry."""
    detail = (
        f"its event time {format_timestamp(event_ms)} was below the "
        "stream's watermark when it arrived"
    )
    return dead_letter(pipeline, "late", replace(raw, reason="late", detail=detail))


def duplicate_letter(pipeline: str, raw: BadRow, event_id: str) -> list[bytes]:
    """Return a copy of an event, given by its bytes, as the words of an entry."""
    detail = f"an earlier entry of the stream has its id {event_id}"
    row = replace(raw, reason="duplicate", detail=detail)
    return dead_letter(pipeline, "duplicate", row)


def poison_letter(pipeline: str, raw: BadRow) -> list[bytes]:
    """Return an entry that kills the process, given by its bytes, as words."""
    detail = "the process died again and again while it was read or processed"
    row = replace(raw, reason="poison", detail=detail)
    return dead_letter(pipeline, "quarantine", row)


def failure_letter(pipeline: str, raw: BadRow, rule: str, what: str) -> list[bytes]:
    """Return an event that a rule failed on, given by its bytes, as words."""
    row = replace(raw, reason="rule_error", detail=what)
    return dead_letter(pipeline, "rule", row, rule=rule)


def refused_output(pipeline: str, derived: DerivedEvent, problem: str) -> list[bytes]:
    """Return an output that its own type's model refuses as the words of an entry."""
    raw = repr(derived.data).encode()
    row = BadRow(
        derived.stream,
        "",
        "rule_error",
        f"event {derived.id}: {problem}",
        raw[:4096],
        len(raw),
        hashlib.sha256(raw).hexdigest(),
    )
    return dead_letter(pipeline, "output", row, rule=derived.rule)


def vanished(
    pipeline: str, stream: str, first: str, last: str, missing: int
) -> list[bytes]:
    """Return entries that were read but are gone when they are needed again.

    ``missing`` of those from ``first`` to ``last``, which become one entry.
    """
    was = "was" if missing == 1 else "were"
    detail = f"{was} read, then trimmed or deleted before being processed"
    if first != last:
        detail = f"of the entries from {first} to {last} {missing} {detail}"
    row = BadRow(stream, first, "gap", detail, b"", 0, hashlib.sha256().hexdigest())
    return [*dead_letter(pipeline, "gap", row), b"missing", b"%d" % missing]


def rollback_letter(pipeline: str, found: int, known: int) -> list[bytes]:
    """Return commits that the server has lost as the words of an entry."""
    detail = (
        f"the server has lost {known - found} commits: it holds commit {found}, and "
        f"had acknowledged commit {known}"
    )
    row = BadRow("", "", "rollback", detail, b"", 0, hashlib.sha256().hexdigest())
    return [
        *dead_letter(pipeline, "rollback", row),
        b"missing",
        b"%d" % (known - found),
    ]


def gap_letter(
    pipeline: str, stream: str, after_id: str, missing: int, detail: str
) -> list[bytes]:
    """Return entries that were lost unread as the words of one entry.

    ``entry_id`` is the last one that was read before them, ``missing`` how many.
    """
    row = BadRow(stream, after_id, "gap", detail, b"", 0, hashlib.sha256().hexdigest())
    return [*dead_letter(pipeline, "gap", row), b"missing", b"%d" % missing]


def _words(fields: Mapping[str, bytes | str]) -> list[bytes]:
    words: list[bytes] = []
    for name, value in fields.items():
        words.append(name.encode())
        words.append(
            value
            if isinstance(value, bytes)
            else value.encode("utf-8", "backslashreplace")
        )
    return words
