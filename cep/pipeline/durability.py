"""How safe what a pipeline commits is once the server has acknowledged it.

========  ==================================================================
``fast``  in the append-only file, on disk within a second
``safe``  on disk before the commit counts as done
``ha``    as ``fast``, and at a replica before the next commit begins
========  ==================================================================

A level is a demand on the server, which `weakness` compares with what is in
force there. Only for ``ha`` the pipeline itself does something: it waits after
each commit. A replica that does not answer in time holds nothing up beyond
that wait, as the commit cannot be taken back; it is counted and told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis as redis_py

from cep.bus.connection import clear_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cep.pipeline.definition import Level

WAIT_MS = 1000


def weakness(client: redis_py.Redis, level: Level) -> str:
    """Return what a server lacks for a level, "" if nothing.

    A managed server may not tell: what it has in force is then unknown.
    """
    try:
        config: Any = client.config_get("append*")
        info: Any = client.info("replication")
    except redis_py.ResponseError:
        return "the server does not tell what is in force (CONFIG GET, INFO)"
    online = [
        one
        for name, one in info.items()
        if name.startswith("slave") and isinstance(one, dict)
        if one.get("state") == "online"
    ]
    return _lacking(config, len(online), level)


def _lacking(config: Mapping[str, str], replicas: int, level: Level) -> str:
    if config.get("appendonly") != "yes":
        return "it writes no append-only file (appendonly no)"
    if config.get("appendfsync") == "no":
        return "it leaves writing to the disk to the system (appendfsync no)"
    if level == "safe" and config.get("appendfsync") != "always":
        return f"it writes to the disk later (appendfsync {config.get('appendfsync')})"
    if level == "ha" and not replicas:
        return "it has no replica"
    return ""


class Replicas:
    """Waits for a replica after each commit; ``short`` counts waits in vain.

    By WAIT, that is until it is in a replica's memory. WAITAOF would wait for
    its next write to the disk as well, which is a second a commit.
    """

    def __init__(self, client: redis_py.Redis) -> None:
        self._client = client
        self.short = 0

    def wait(self) -> bool:
        """Wait until a replica has the last commit; returns whether one has."""
        with clear_errors(self._client):
            acknowledged: Any = self._client.wait(1, WAIT_MS)
        self.short += not acknowledged
        return bool(acknowledged)
