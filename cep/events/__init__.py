"""Events: the envelope, the known payloads, their ids and their form on the wire.

Importing this package registers the known event types.
"""

from __future__ import annotations

from cep.events import models
from cep.events.registry import STREAMS, EventType, Registry, register, registry
from cep.events.schema import FieldSpec, check_payload

__all__ = [
    "STREAMS",
    "EventType",
    "FieldSpec",
    "Registry",
    "check_payload",
    "models",
    "register",
    "registry",
]
