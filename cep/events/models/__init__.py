"""Payload models of the known event types, a module for each stream.

Importing this package registers them all. ``content.events`` has no known
types. Required fields have no default; ``| None = None`` marks optional ones.
"""

from __future__ import annotations

from cep.events.models import ai, contextual, market, notification, system, user

__all__ = ["ai", "contextual", "market", "notification", "system", "user"]
