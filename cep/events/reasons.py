"""Why a stream entry is not one of our events: the closed list of reasons.

A reason is the value of the ``reason`` column of quarantine rows and the label
of their counter, so it never holds anything from the entry itself. Late and
duplicate events are good events and have no reason here.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The reasons for quarantine, in the order in which they are looked for."""

    TOO_LARGE = "too_large"
    NOT_UTF8 = "not_utf8"
    MISSING_ENVELOPE_FIELD = "missing_envelope_field"
    BAD_ID = "bad_id"
    BAD_TIMESTAMP = "bad_timestamp"
    FUTURE_TIMESTAMP = "future_timestamp"
    BAD_VERSION = "bad_version"
    STREAM_MISMATCH = "stream_mismatch"
    UNKNOWN_TYPE = "unknown_type"
    UNKNOWN_VERSION = "unknown_version"
    MALFORMED_JSON = "malformed_json"
    NOT_AN_OBJECT = "not_an_object"
    DUPLICATE_KEY = "duplicate_key"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    RULE_ERROR = "rule_error"
