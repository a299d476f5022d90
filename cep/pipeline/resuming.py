"""Asking that a rule which has stopped go on.

A rule stops when its functions fail on five events within a minute, or by a limit
with the policy "trip". The request is a field of the pipeline's meta hash. The
pipeline looks for it while a rule has stopped, when it starts and twice a second,
and notes in its next commit which request it has followed: each is followed once,
wherever the process dies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cep.bus.connection import clear_errors
from cep.bus.keys import meta_key
from cep.errors import UsageError, near_miss
from cep.pipeline.quarantine import unknown_pipeline

if TYPE_CHECKING:
    import redis

_ASK = """
local time = redis.call('TIME')
local now = string.format('%d%06d', time[1], time[2])
redis.call('HSET', KEYS[1], 'resume:' .. ARGV[1], now)
"""


def ask_to_resume(client: redis.Redis, pipeline: str, rule: str) -> None:
    """Ask that a rule of a pipeline go on.

    Raises
    ------
    UsageError
        If there is no such pipeline or rule, or the rule has not stopped.
    """
    key = meta_key(pipeline)
    with clear_errors(client):
        found: Any = client.hget(key, "outputs")
    if found is None:
        raise unknown_pipeline(client, pipeline)
    rules: dict[str, dict[str, int]] = msgspec.json.decode(found)
    if rule not in rules:
        near = near_miss(rule, rules)
        raise UsageError(
            f"Pipeline {pipeline!r} has no rule {rule[:80]!r}.",
            f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(rules)}.",
        )
    if not rules[rule].get("tripped"):
        stopped = [name for name, counts in rules.items() if counts.get("tripped")]
        raise UsageError(
            f"Rule {rule!r} of pipeline {pipeline!r} has not stopped.",
            f"Those that have: {', '.join(stopped) or 'none'}.",
        )
    with clear_errors(client):
        client.eval(_ASK, 1, key, rule)
