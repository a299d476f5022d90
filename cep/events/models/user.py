"""Payloads on ``user.events``."""

from __future__ import annotations

from typing import Literal

from cep.events.payload import JsonObject, Name, Payload, Text
from cep.events.registry import register

STREAM = "user.events"


@register("user.registered", stream=STREAM)
class UserRegistered(Payload):
    """Somebody opened an account."""

    user_id: Name
    email: Text
    tier: Literal["sovereign_circle", "individual_pro"]
    referral_source: Text | None = None


@register("user.login", stream=STREAM)
class UserLogin(Payload):
    """Somebody tried to log in."""

    user_id: Name
    ip_address: Text
    user_agent: Text
    success: bool


@register("user.preferences.updated", stream=STREAM)
class UserPreferencesUpdated(Payload):
    """Somebody changed settings; old and new values by field."""

    user_id: Name
    changed_fields: list[Text]
    old_values: JsonObject
    new_values: JsonObject
