"""Into how many shares NeMo RL divides a training batch: one for each copy of the model, not one for each GPU.

Sources: `nemo_rl/models/policy/lm_policy.py` (copies), the set-up of `nemo_rl/algorithms/grpo.py` (GPUs for other work).
"""

from __future__ import annotations

from rollforge.export.nemo_rl.inherit import Values, number, section


def shares(values: Values, algorithm: str) -> tuple[int, int]:
    """(shares, GPUs of each copy of the model); one share, which anything fits, where it cannot be told."""
    gpus, each = _training(values, algorithm), _copy(values)
    if not gpus or not each or gpus < each or gpus % each:
        return 1, 1
    return gpus // each, each


def _training(values: Values, algorithm: str) -> int | None:
    """GPUs that train; None if not known."""
    gpus, nodes = number(values, "cluster.gpus_per_node"), number(values, "cluster.num_nodes")
    others = section(values, "on_policy_distillation").get("enabled") or "reward_model" in section(values, "env")
    if not gpus or not nodes or others:
        return None
    together = section(values, "policy", "generation", "colocated").get("enabled", True)
    if algorithm != "grpo" or together is True:
        return gpus * nodes
    key = "gpus_per_node" if nodes == 1 else "num_nodes"
    apart = number(values, f"policy.generation.colocated.resources.{key}")
    if together is not False or apart is None:
        return None
    return gpus - apart if nodes == 1 else gpus * (nodes - apart)


def _copy(values: Values) -> int | None:
    """GPUs over which one copy of the model is spread; None if not known."""
    megatron = section(values, "policy", "megatron_cfg").get("enabled")
    backend = "megatron_cfg" if megatron else "dtensor_cfg"
    kinds = ("tensor_model", "pipeline_model", "context") if megatron else ("tensor", "context")
    product = 1
    for kind in kinds:
        size = number(values, f"policy.{backend}.{kind}_parallel_size")
        if not size or size < 0:
            return None
        product *= size
    return product
