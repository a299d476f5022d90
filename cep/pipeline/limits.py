"""Limits and periods of the live runtime.

A commit is cut where the first of its limits is reached, at an entry's or a
step's end, never inside the effects of one event. Bytes are those of outputs and
dead letters. State is not counted: a step changes that of at most as many keys a
rule as it has rows, and of the keys for which a time has come.
"""

from __future__ import annotations

COMMIT_SECONDS = 0.1
COMMIT_BYTES = 1_000_000
STEP_ROWS = 8_000  # rows between looks
FIRST_ROWS = 1_000  # those of the first step, before it is known what comes of one

READ_COUNT = 5_000
ROWS_AHEAD = 5_000  # a stream with so many rows waiting for another is read no further
BLOCK_MS = 250
TICK_SECONDS = 1.0
ROWS_TOLD = 100_000  # rows that wait for one stream, from which on it is named
GAP_SECONDS = 0.25
MEMORY_SECONDS = 0.1
LAG_SECONDS = 1.0
HEARTBEAT_SECONDS = 1.0
LEASE_SECONDS = 10.0  # without a heartbeat, after which an owner counts as gone
LEASE_POLL_SECONDS = 0.2
REPORT_SECONDS = 0.5
BACKOFF_SECONDS = (0.1, 0.2, 0.5, 1.0)
