"""`azure:DEPLOYMENT`: Chat Completions of Azure OpenAI, under either form of its addresses.

https://NAME.openai.azure.com is the resource: a deployment has its own path, with an API version. An endpoint that ends with
/openai/v1 is the newer form, where the deployment is the model and no version is needed.
"""

from __future__ import annotations

import os

from rollforge.errors import UserError
from rollforge.models.base import Model, ModelOptions
from rollforge.models.chat import ChatModel
from rollforge.models.dial import targets
from rollforge.models.transport import endpoint
from rollforge.records.messages import Dialect

API_VERSION = "2024-10-21"
"""The newest one that is not a preview; OPENAI_API_VERSION says another."""


def load(name: str | None, options: ModelOptions) -> Model:
    """Raises `UserError` if the deployment, the endpoint or the key is missing."""
    if not name:
        raise UserError("azure needs the name of a deployment: --model azure:DEPLOYMENT")
    where = endpoint(options, "azure", "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", header="api-key")
    version = os.environ.get("OPENAI_API_VERSION") or API_VERSION
    newer = all(base.endswith("/v1") for base in where.bases)
    path = "/chat/completions" if newer else f"/openai/deployments/{name}/chat/completions?api-version={version}"
    check = where.check("/models" if newer else f"/openai/models?api-version={version}")
    # Its models refuse or know max_tokens depending on their age; all of them know this name.
    dialect = Dialect(max_tokens="max_completion_tokens")
    return ChatModel(name, options, where, targets(where.bases, path), dialect=dialect, check=check)
