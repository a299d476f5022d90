"""Payloads on ``notification.events``, among them the alerts that rules raise."""

from __future__ import annotations

from typing import Literal, TypeAlias

from cep.events.payload import Integer, JsonObject, Name, Number, Payload, Text
from cep.events.registry import register

STREAM = "notification.events"

Channel: TypeAlias = Literal["email", "push", "websocket"]


class Message(Payload):
    """What a notification says."""

    title: Text
    body: Text
    action_url: Text | None = None


@register("notification.send.requested", stream=STREAM)
class NotificationSendRequested(Payload):
    """A message is to be sent to somebody."""

    user_id: Name
    notification_type: Literal["briefing_ready", "system_alert", "content_suggestion"]
    channels: list[Channel]
    message: Message
    priority: Literal["low", "normal", "high", "critical"]


@register("notification.delivered", stream=STREAM)
class NotificationDelivered(Payload):
    """A message was delivered, or failed to be with an ``error``."""

    notification_id: Name
    user_id: Name
    channel: Text
    delivery_time_ms: Number
    success: bool
    error: Text | None = None


@register("briefing.generation.scheduled", stream=STREAM)
class BriefingGenerationScheduled(Payload):
    """A briefing on a period is to be written at a time."""

    user_id: Name
    contextual_core_id: Name
    briefing_period: Literal["weekly", "monthly"]
    scheduled_time: Text
    period_start: Text
    period_end: Text


@register("trend.alert.generated", stream=STREAM)
class TrendAlertGenerated(Payload):
    """A rule found its pattern; ``key`` is "" for a rule without one."""

    rule: Name
    rule_version: Integer
    key: Text
    severity: Literal["info", "warning", "critical"]
    title: Text
    values: JsonObject
