"""Payloads on ``system.events``."""

from __future__ import annotations

from typing import Literal

from cep.events.payload import Name, Number, Payload, Text
from cep.events.registry import register

STREAM = "system.events"


@register("system.service.health", stream=STREAM)
class SystemServiceHealth(Payload):
    """How a service is."""

    service_name: Text
    status: Literal["healthy", "degraded", "unhealthy"]
    response_time_ms: Number
    memory_usage_mb: Number
    cpu_usage_percent: Number
    error_rate: Number


@register("system.error.critical", stream=STREAM)
class SystemErrorCritical(Payload):
    """A service failed."""

    service_name: Text
    error_type: Text
    error_message: Text
    stack_trace: Text
    user_id: Name | None = None
    request_id: Name | None = None
    requires_immediate_attention: bool


@register("system.performance.degraded", stream=STREAM)
class SystemPerformanceDegraded(Payload):
    """A metric crossed its threshold."""

    metric_name: Text
    current_value: Number
    threshold_value: Number
    affected_services: list[Text]
    suggested_actions: list[Text]
