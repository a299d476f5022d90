"""The declared payloads against a table of the facts, written down twice."""

import pytest
from pydantic import BaseModel

from cep.events import STREAMS, registry

# Other test modules may have registered types of their own by now.
TYPES = [t for t in registry.all() if t.model.__module__.startswith("cep.events.")]

# A field is `name: kind`, `?` marks optional ones, `|` parts choices, `+` a
# string that may not be empty, `[x]` a list and `{}` an object.
FACTS = {
    "user.events": {
        "user.registered": "user_id: str+, email: str, "
        "tier: sovereign_circle|individual_pro, referral_source?: str",
        "user.login": "user_id: str+, ip_address: str, user_agent: str, success: bool",
        "user.preferences.updated": "user_id: str+, changed_fields: [str], "
        "old_values: {}, new_values: {}",
    },
    "contextual.events": {
        "file.uploaded": "file_id: str+, user_id: str+, contextual_core_id: str+, "
        "filename: str, file_size: int, mime_type: str, is_browser_viewable: bool",
        "file.processing.started": "file_id: str+, processing_type: "
        "text_extraction|embedding_generation|metadata_analysis, "
        "estimated_duration_ms: float",
        "file.processing.completed": "file_id: str+, processing_type: "
        "text_extraction|embedding_generation|metadata_analysis, "
        "processing_time_ms: float, extracted_text_length?: int, "
        "embedding_model_used?: str, success: bool, error?: str",
        "embedding.generation.requested": "text_content: str, content_hash: str, "
        "user_id: str+, contextual_core_id: str+, preferred_model?: str, "
        "priority: low|normal|high",
        "embedding.generation.completed": "embedding_id: str+, content_hash: str, "
        "model_id: str, dimensions: int, generation_time_ms: float, "
        "cost_usd: float, quality_score?: float",
    },
    "ai.events": {
        "ai.content.generation.requested": "request_id: str+, user_id: str+, "
        "contextual_core_id: str+, "
        "content_type: social_post|blog_article|marketing_copy|email, "
        "prompt_template: str, ai_provider: str, max_tokens: int",
        "ai.content.generation.completed": "request_id: str+, "
        "content_draft_id: str+, generated_content: str, ai_provider: str, "
        "model_used: str, tokens_used: int, generation_time_ms: float, "
        "cost_usd: float",
        "ai.consultation.requested": "session_id: str+, user_id: str+, "
        "contextual_core_id: str+, query: str, "
        "session_type: strategic_advice|trend_analysis|goal_planning",
        "ai.consultation.completed": "session_id: str+, response: str, "
        "confidence_score: float, market_data_referenced: [str+], "
        "ai_provider: str, tokens_used: int",
        "ai.inference.requested": "request_id: str+, service?: str, "
        "context_tokens: int, generated_tokens: int",
    },
    "market.events": {
        "market.data.collection.started": "collection_id: str+, "
        "data_source: reddit|google_trends|rss_feeds, keywords: [str], "
        "user_ids: [str+]",
        "market.data.collected": "collection_id: str+, "
        "data_source: reddit|google_trends|rss_feeds, "
        "data_type: engagement|trend|competitor_activity, records_collected: int, "
        "collection_time_ms: float, data_quality_score: float",
        "market.trend.detected": "trend_id: str+, "
        "trend_type: rising|declining|stable, keywords: [str], "
        "confidence_score: float, affected_users: [str+], trend_data: {}",
        "market.trade": "symbol: str+, price: float, quantity: float, side?: str, "
        "venue?: str",
        "market.quote": "symbol: str+, bid: float, ask: float, bid_size?: float, "
        "ask_size?: float, venue?: str",
        "market.bar": "symbol: str+, open: float, high: float, low: float, "
        "close: float, volume: float, interval_ms: int, venue?: str",
    },
    "notification.events": {
        "notification.send.requested": "user_id: str+, "
        "notification_type: briefing_ready|system_alert|content_suggestion, "
        "channels: [email|push|websocket], message: {title body action_url?}, "
        "priority: low|normal|high|critical",
        "notification.delivered": "notification_id: str+, user_id: str+, "
        "channel: str, delivery_time_ms: float, success: bool, error?: str",
        "briefing.generation.scheduled": "user_id: str+, contextual_core_id: str+, "
        "briefing_period: weekly|monthly, scheduled_time: str, period_start: str, "
        "period_end: str",
        "trend.alert.generated": "rule: str+, rule_version: int, key: str, "
        "severity: info|warning|critical, title: str, values: {}",
    },
    "system.events": {
        "system.service.health": "service_name: str, "
        "status: healthy|degraded|unhealthy, response_time_ms: float, "
        "memory_usage_mb: float, cpu_usage_percent: float, error_rate: float",
        "system.error.critical": "service_name: str, error_type: str, "
        "error_message: str, stack_trace: str, user_id?: str+, request_id?: str+, "
        "requires_immediate_attention: bool",
        "system.performance.degraded": "metric_name: str, current_value: float, "
        "threshold_value: float, affected_services: [str], "
        "suggested_actions: [str]",
    },
    "content.events": {},
}


def told(field):
    """Return a field in the notation of the table."""
    if field.choices is not None:
        kind = "|".join(field.choices)
    elif field.shape == "array":
        kind = f"[{told(field.items)}]"
    elif field.shape == "object":
        inner = (f.name + "?" * (not f.required) for f in field.fields)
        kind = "{" + " ".join(inner) + "}"
    else:
        kind = field.kind + "+" * field.non_empty
    if not field.name:
        return kind
    return f"{field.name}{'?' * (not field.required)}: {kind}"


@pytest.mark.parametrize("stream", FACTS)
def test_types_of_a_stream_are_declared_as_the_facts_say(stream):
    declared = {
        known.name: ", ".join(told(field) for field in known.fields)
        for known in registry.types_of(stream)
    }
    assert declared == FACTS[stream]


def test_the_facts_cover_every_stream_and_type():
    assert set(FACTS) == set(STREAMS)
    assert {name for types in FACTS.values() for name in types} == {
        known.name for known in TYPES
    }


@pytest.mark.parametrize("known", TYPES, ids=lambda known: known.name)
def test_optional_means_nullable_and_required_means_not(known):
    assert all(field.nullable != field.required for field in known.fields)


@pytest.mark.parametrize("known", TYPES, ids=lambda known: known.name)
def test_each_type_has_a_docstring_and_keeps_unknown_fields(known):
    assert known.model.__doc__
    assert known.model.__doc__ != BaseModel.__doc__
    assert known.model.model_config["extra"] == "allow"
