"""Payloads on ``contextual.events``."""

from __future__ import annotations

from typing import Literal, TypeAlias

from cep.events.payload import Integer, Name, Number, Payload, Text
from cep.events.registry import register

STREAM = "contextual.events"

ProcessingType: TypeAlias = Literal[
    "text_extraction", "embedding_generation", "metadata_analysis"
]


@register("file.uploaded", stream=STREAM)
class FileUploaded(Payload):
    """A file arrived; ``file_size`` in bytes."""

    file_id: Name
    user_id: Name
    contextual_core_id: Name
    filename: Text
    file_size: Integer
    mime_type: Text
    is_browser_viewable: bool


@register("file.processing.started", stream=STREAM)
class FileProcessingStarted(Payload):
    """A file began to be processed."""

    file_id: Name
    processing_type: ProcessingType
    estimated_duration_ms: Number


@register("file.processing.completed", stream=STREAM)
class FileProcessingCompleted(Payload):
    """A file was processed, or failed to be with an ``error``."""

    file_id: Name
    processing_type: ProcessingType
    processing_time_ms: Number
    extracted_text_length: Integer | None = None
    embedding_model_used: Text | None = None
    success: bool
    error: Text | None = None


@register("embedding.generation.requested", stream=STREAM)
class EmbeddingGenerationRequested(Payload):
    """A text waits for its embedding."""

    text_content: Text
    content_hash: Text
    user_id: Name
    contextual_core_id: Name
    preferred_model: Text | None = None
    priority: Literal["low", "normal", "high"]


@register("embedding.generation.completed", stream=STREAM)
class EmbeddingGenerationCompleted(Payload):
    """An embedding of so many dimensions is there."""

    embedding_id: Name
    content_hash: Text
    model_id: Text
    dimensions: Integer
    generation_time_ms: Number
    cost_usd: Number
    quality_score: Number | None = None
