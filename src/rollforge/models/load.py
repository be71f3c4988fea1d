"""Models by name: `backend[:name]`."""

from __future__ import annotations

from rollforge.models.base import Model, ModelOptions
from rollforge.registry import resolve


def load_model(reference: str, options: ModelOptions) -> Model:
    """The model that `reference` names. Raises `UserError` for an unknown backend, or as the backend does."""
    backend, _, name = reference.partition(":")
    model: Model = resolve("model", backend, "(a model is written backend:name, as in chat:Qwen/Qwen3-8B)")(
        name or None, options
    )
    return model
