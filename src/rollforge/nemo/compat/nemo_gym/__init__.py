"""The names that servers written for NeMo Gym import, on rollforge.

Written from the contract of its wire protocol and configuration. What only its own infrastructure uses (Ray, virtual
environments, sandboxes, captures) is not here: importing it fails with the name of what is missing.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from rollforge import __version__

__package_name__ = "nemo_gym"
PARENT_DIR = Path(os.environ.get("ROLLFORGE_NEMO_ROOT") or os.getcwd())
"""Where `resources_servers/` and its like are: the working directory, or what the command was told."""
ROOT_DIR = WORKING_DIR = PARENT_DIR
CACHE_DIR = PARENT_DIR / "cache"
RESULTS_DIR = PARENT_DIR / "results"

_WHERE = {
    "base_resources_server": (
        *("BaseResourcesServerConfig", "BaseRunRequest", "BaseSeedSessionRequest", "BaseSeedSessionResponse"),
        *("BaseVerifyRequest", "BaseVerifyResponse", "BaseMultiRewardVerifyResponse", "SimpleResourcesServer"),
    ),
    "base_responses_api_agent": ("BaseResponsesAPIAgentConfig", "SimpleResponsesAPIAgent"),
    "base_responses_api_model": ("BaseResponsesAPIModelConfig", "SimpleResponsesAPIModel"),
    "openai_utils": (
        *("NeMoGymAsyncOpenAI", "NeMoGymResponse", "NeMoGymResponseCreateParamsNonStreaming"),
        *("NeMoGymChatCompletion", "NeMoGymChatCompletionCreateParamsNonStreaming"),
    ),
    "server_utils": ("SESSION_ID_KEY", "ServerClient", "get_response_json", "raise_for_status"),
}


def __getattr__(name: str) -> Any:
    for module, names in _WHERE.items():
        if name in names:
            return getattr(importlib.import_module(f".{module}", __name__), name)
    raise AttributeError(f"rollforge's nemo_gym has no {name!r}")


__all__ = ["CACHE_DIR", "PARENT_DIR", "RESULTS_DIR", "ROOT_DIR", "WORKING_DIR", "__version__"]
