"""What stands in for NeMo Gym's own folders where they are not: environments and models of this package, and the
configuration files that name them.
"""

from __future__ import annotations

import re

from rollforge.records.items import Json

ENVIRONMENTS = {
    "arc_agi": "arc",
    "bird_sql": "sql",
    "blackjack": "blackjack",
    "calendar": "calendar",
    "citation_if": "citations",
    "code_gen": "coding",
    "comp_coding": "coding",
    "example_multi_step": "multi_step",
    "multineedle": "multi_step",
    "example_session_state_mgmt": "counter",
    "stateful_counter": "counter",
    "example_single_tool_call": "weather",
    "simple_weather": "weather",
    "example_tool_call_multireward": "multi_reward",
    "grl_sokoban": "sokoban",
    "hotpotqa_qa": "qa_f1",
    "instruction_following": "instruction_following",
    "math_advanced_calculations": "calculators",
    "multiverse_math_hard": "calculators",
    "math_with_code": "python_math",
    "python_math_exec": "python_math",
    "math_with_judge": "math_answer",
    "library_judge_math": "math_answer",
    "mcqa": "choice",
    "reasoning_gym": "reasoning_gym",
    "string_match": "string_match",
    "structured_outputs": "structured_outputs",
    "workplace_assistant": "workplace",
    "workbench": "workplace",
    "xlam_fc": "function_calling",
}
"""Resources server, by its names of today and of before, to the environment here that takes its rows. Where the rewards
differ, the README of the environment says how."""
STEPS = {"blackjack": 5, "grl_sokoban": 20}
"""Those that are played by steps, with the model calls of one rollout: their agent is a gymnasium_agent."""
VERSIONS = {"structured_outputs": ("structured_outputs_v3", "structured_outputs_v4")}
"""Further configuration files of a resources server, whose agents are called after them."""

MODELS: dict[str, Json] = {
    "openai_model": {
        "openai_base_url": "${policy_base_url}",
        "openai_api_key": "${policy_api_key}",
        "openai_model": "${policy_model_name}",
    },
    "vllm_model": {
        "base_url": "${policy_base_url}",
        "api_key": "${policy_api_key}",
        "model": "${policy_model_name}",
        "return_token_id_information": False,
    },
    "azure_openai_model": {
        "openai_base_url": "${policy_base_url}",
        "openai_api_key": "${policy_api_key}",
        "openai_model": "${policy_model_name}",
        "default_query": {"api-version": "???"},
    },
    "inference_provider": {
        "base_url": "${policy_base_url}",
        "api_key": "${policy_api_key}",
        "model": "${policy_model_name}",
    },
    "litellm_model": {
        "openai_base_url": "${policy_base_url}",
        "openai_api_key": "${policy_api_key}",
        "openai_model": "${policy_model_name}",
    },
    "rollforge": {"model": "${oc.select:policy_model_name,tiny}"},
}
"""Model servers that run without code of their own. `rollforge` is any model of this package; by default the embedded one,
which needs no endpoint."""

AGENTS = ("simple_agent", "gymnasium_agent")

_PATH = re.compile(r"(?:.*/)?(resources_servers|responses_api_models)/(\w+)/configs/(\w+)\.yaml$")


def built_in(path: str) -> Json | None:
    """The content of a configuration file of NeMo Gym, by its path; None if it is not one that works without NeMo Gym."""
    match = _PATH.match(path)
    if match is None:
        return None
    type, folder, name = match.groups()
    if type == "responses_api_models":
        training = name == "vllm_model_for_training"
        if folder not in MODELS or (name != folder and not training):
            return None
        more = {"return_token_id_information": True} if training else {}
        return {"policy_model": {type: {folder: {"entrypoint": "app.py", **MODELS[folder], **more}}}}
    if folder not in ENVIRONMENTS or name not in (folder, *VERSIONS.get(folder, ())):
        return None
    agent, limit = ("gymnasium_agent", {"max_steps": STEPS[folder]}) if folder in STEPS else ("simple_agent", {})
    return {
        folder: {type: {folder: {"entrypoint": "app.py"}}},
        f"{name}_{agent}": {
            "responses_api_agents": {
                agent: {
                    "entrypoint": "app.py",
                    **limit,
                    "resources_server": {"type": "resources_servers", "name": folder},
                    "model_server": {"type": "responses_api_models", "name": "policy_model"},
                }
            }
        },
    }
