"""Models by name: `backend[:name]`, or the URL of a model service."""

from __future__ import annotations

from rollforge.models.base import Model, ModelOptions
from rollforge.registry import known, refuse_address, resolve


def load_model(reference: str, options: ModelOptions) -> Model:
    """The model that `reference` names. Raises `UserError` for an unknown backend, or as the backend does.

    A URL is a service of the Responses API that knows which model it has (NeMo Gym's model servers, `rollforge serve`).
    """
    if reference.startswith(("http://", "https://")):
        from rollforge.models.openai import at  # with an HTTP client
        from rollforge.models.service import as_name

        return at(as_name(reference), options)
    backend, _, name = reference.partition(":")
    if backend not in known("model"):
        refuse_address(reference)
    model: Model = resolve("model", backend, "(a model is written backend:name, as in chat:Qwen/Qwen3-8B)")(
        name or None, options
    )
    return model
