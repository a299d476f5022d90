"""Payloads on ``ai.events``."""

from __future__ import annotations

from typing import Literal

from cep.events.payload import Integer, Name, Number, Payload, Text
from cep.events.registry import register

STREAM = "ai.events"


@register("ai.content.generation.requested", stream=STREAM)
class AiContentGenerationRequested(Payload):
    """Somebody asked for generated content."""

    request_id: Name
    user_id: Name
    contextual_core_id: Name
    content_type: Literal["social_post", "blog_article", "marketing_copy", "email"]
    prompt_template: Text
    ai_provider: Text
    max_tokens: Integer


@register("ai.content.generation.completed", stream=STREAM)
class AiContentGenerationCompleted(Payload):
    """Generated content is there, with its cost in tokens, time and dollars."""

    request_id: Name
    content_draft_id: Name
    generated_content: Text
    ai_provider: Text
    model_used: Text
    tokens_used: Integer
    generation_time_ms: Number
    cost_usd: Number


@register("ai.consultation.requested", stream=STREAM)
class AiConsultationRequested(Payload):
    """Somebody asked for advice."""

    session_id: Name
    user_id: Name
    contextual_core_id: Name
    query: Text
    session_type: Literal["strategic_advice", "trend_analysis", "goal_planning"]


@register("ai.consultation.completed", stream=STREAM)
class AiConsultationCompleted(Payload):
    """Advice was given, from these pieces of market data."""

    session_id: Name
    response: Text
    confidence_score: Number
    market_data_referenced: list[Name]
    ai_provider: Text
    tokens_used: Integer


@register("ai.inference.requested", stream=STREAM)
class AiInferenceRequested(Payload):
    """One request to an inference service: tokens read and tokens written."""

    request_id: Name
    service: Text | None = None
    context_tokens: Integer
    generated_tokens: Integer
