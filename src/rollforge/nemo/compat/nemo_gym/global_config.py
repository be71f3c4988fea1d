"""The resolved configuration of this process, for code that asks for it, and the names of its keys and of a row's."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

CONFIG_PATHS_KEY_NAME = "config_paths"
ENTRYPOINT_KEY_NAME = "entrypoint"
DEFAULT_HOST_KEY_NAME = "default_host"
HEAD_SERVER_KEY_NAME = "head_server"
DISALLOWED_PORTS_KEY_NAME = "disallowed_ports"
HF_TOKEN_KEY_NAME = "hf_token"
DRY_RUN_KEY_NAME = "dry_run"
CACHE_DIR_KEY_NAME = "cache_dir"
RESULTS_DIR_KEY_NAME = "results_dir"
OBSERVABILITY_ENABLED_KEY_NAME = "observability_enabled"
SKIP_VERIFICATION_KEY_NAME = "skip_verification"
SKIP_VERIFICATION_REWARD_KEY_NAME = "skip_verification_reward"
NEMO_GYM_CONFIG_DICT_ENV_VAR_NAME = "NEMO_GYM_CONFIG_DICT"
NEMO_GYM_CONFIG_PATH_ENV_VAR_NAME = "NEMO_GYM_CONFIG_PATH"
POLICY_BASE_URL_KEY_NAME = "policy_base_url"
POLICY_API_KEY_KEY_NAME = "policy_api_key"
POLICY_MODEL_NAME_KEY_NAME = "policy_model_name"
POLICY_MODEL_KEY_NAME = "policy_model"
TASK_INDEX_KEY_NAME = "_ng_task_index"
ROLLOUT_INDEX_KEY_NAME = "_ng_rollout_index"
ATTEMPT_INDEX_KEY_NAME = "_ng_attempt_index"
ROLLOUT_ID_KEY_NAME = "_ng_rollout_id"
RESPONSES_CREATE_PARAMS_KEY_NAME = "responses_create_params"
RESPONSE_KEY_NAME = "response"
AGENT_REF_KEY_NAME = "agent_ref"
SKILLS_REF_KEY_NAME = "skills_ref"
DEFAULT_HEAD_SERVER_PORT = 11000


class Block(dict[str, Any]):
    """A mapping whose keys are attributes too, all the way down."""

    def __init__(self, found: Mapping[str, Any] = {}) -> None:
        super().__init__({key: _block(value) for key, value in found.items()})

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the configuration has no {name!r}; it has {', '.join(self) or 'nothing'}") from None


DictConfig = Block


def _block(value: Any) -> Any:
    if isinstance(value, Mapping):
        return value if isinstance(value, Block) else Block(value)
    return [_block(item) for item in value] if isinstance(value, list) else value


_current: Block | None = None


def set_global_config_dict(config: Mapping[str, Any]) -> None:
    """What `get_global_config_dict` gives from here on. rollforge calls it before it loads servers."""
    global _current
    _current = Block(config)


def maybe_get_global_config_dict() -> Block | None:
    return _current


def get_global_config_dict(*_: Any, **__: Any) -> Block:
    if _current is None:
        raise RuntimeError("no configuration is loaded: start the server with ng_run or rollforge.nemo.servers")
    return _current


def get_first_server_config_dict(global_config_dict: Mapping[str, Any], top_level_path: str) -> Any:
    """The innermost block of a server: below its name, its type and its directory."""
    found: Any = global_config_dict[top_level_path]
    for _ in range(2):
        found = next(iter(found.values()))
    return found


def get_hf_token() -> str | None:
    return None if _current is None else _current.get(HF_TOKEN_KEY_NAME)


def find_open_port(disallowed_ports: list[int] | None = None, max_retries: int = 50) -> int:
    for _ in range(max_retries):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port: int = found.getsockname()[1]
        if port not in (disallowed_ports or ()):
            return port
    raise RuntimeError(f"every port that the system offered is disallowed: {disallowed_ports}")


def __getattr__(name: str) -> Any:
    if name == "GlobalConfigDictParserConfig":  # newer callers look for it here; what it starts imports this module
        from rollforge.nemo.run_helper import GlobalConfigDictParserConfig

        return GlobalConfigDictParserConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
