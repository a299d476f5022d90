"""What a running pipeline tells its operator besides counts."""

from __future__ import annotations

from typing import Literal

Severity = Literal["info", "warning", "error"]


class Note(str):
    """A line of text that also says what it is about.

    Neither the line nor its fields hold payloads or secrets: they go to logs.

    Attributes
    ----------
    event
        What has happened, in one word, such as "gap" or "rule_stopped".
    level
        How bad that is.
    fields
        What it happened to: names, counts, entry ids.

    Examples
    --------
    >>> note = Note("rule x is gone", "rule_gone", rule="x")
    >>> note, note.event, note.level, note.fields
    ('rule x is gone', 'rule_gone', 'info', {'rule': 'x'})
    """

    event: str
    level: Severity
    fields: dict[str, object]

    def __new__(
        cls, text: str, event: str, level: Severity = "info", **fields: object
    ) -> Note:
        """Make a note of a line."""
        note = super().__new__(cls, text)
        note.event, note.level, note.fields = event, level, fields
        return note
