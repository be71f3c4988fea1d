"""The policy that learns: loaded, sampled from while its weights change, stored.

What samples is the engine of `tiny` where it can run the model (a Llama on the CPU), else the model itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rollforge.errors import UserError
from rollforge.models.base import Model
from rollforge.models.tiny import SHIPPED, Tiny
from rollforge.models.tiny.checkpoint import read_checkpoint
from rollforge.models.transformers import load_checkpoint, model_of
from rollforge.train.config import Lora, TrainConfig

CALL_SECONDS = 600.0
ROWS = 256
"""Sequences that are sampled side by side."""
SMALL = 10_000_000
"""Parameters below which a model learns at the rates of a toy, on one thread."""


class Sampler(Protocol):
    """The policy as a `Model`, with the weights it has at the moment."""

    @property
    def model(self) -> Model: ...
    def sync(self) -> None:
        """Sample from the weights as they are now. Only while no call is under way."""
        ...


@dataclass(frozen=True, slots=True)
class Policy:
    name: str
    """As it was asked for."""
    path: str
    """What transformers loads it from."""
    model: Any
    """A `PreTrainedModel`, or a `PeftModel` around one."""
    tokenizer: Any
    device: str

    @property
    def parameters(self) -> int:
        return sum(weights.numel() for weights in self.model.parameters())

    @property
    def small(self) -> bool:
        return self.parameters < SMALL

    @property
    def as_trained(self) -> Any:
        """The model without what LoRA has put around it."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def save(self, directory: Path) -> None:
        """A checkpoint that `tiny:DIR` and transformers read. LoRA is merged into the weights."""
        model = self.model.merge_and_unload() if hasattr(self.model, "merge_and_unload") else self.model
        model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)


def load_policy(config: TrainConfig) -> Policy:
    """Raises `UserError`: a library is missing, there is no such checkpoint, no chat template, no CUDA."""
    need_for(config)
    import torch

    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, but torch finds no GPU")
    path = checkpoint(config.model)
    model, tokenizer = load_checkpoint(f"the model {config.model!r}", path, device, torch.float32)
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of {config.model!r} has no chat template: a base model needs one to hold a conversation"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if config.lora is not None:
        model = _with_lora(model, config.lora)
    policy = Policy(config.model, path, model.to(device), tokenizer, device)
    threads = config.threads or (min(2, torch.get_num_threads()) if policy.small and device == "cpu" else None)
    if threads:  # of small products more would only wait for each other
        torch.set_num_threads(threads)
    return policy


def checkpoint(model: str) -> str:
    """What transformers is to load for `tiny`, `tiny:DIR`, `transformers:NAME`, a directory or a name."""
    if model == "tiny":
        return str(SHIPPED)
    backend, colon, name = model.partition(":")
    if colon and backend in ("tiny", "transformers"):
        model = name
    elif colon and not Path(model).exists():
        raise UserError(f"{model!r} cannot be trained: name tiny, tiny:DIR, or a Hugging Face model or directory")
    path = Path(model).expanduser()
    if path.is_dir():
        return str(path)
    if model.startswith(("/", ".", "~")):
        raise UserError(f"there is no directory {model!r}")
    return model


def sampler(policy: Policy) -> Sampler:
    if policy.device == "cpu" and policy.as_trained.config.model_type == "llama" and Path(policy.path).is_dir():
        try:
            return _TinySampler(policy)
        except UserError:
            return _OwnSampler(policy)  # a Llama of a kind that tiny does not run
    return _OwnSampler(policy)


class _TinySampler:
    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        # In the type of the weights that are trained: sampling in float64 would take twice as long.
        self._tiny = Tiny(read_checkpoint(Path(policy.path), np.float32), "policy", CALL_SECONDS, rows=ROWS)
        self.model: Model = self._tiny

    def sync(self) -> None:
        self._tiny.load_weights({name: tensor.numpy() for name, tensor in _merged(self._policy.model).items()})


class _OwnSampler:
    def __init__(self, policy: Policy) -> None:
        self.model: Model = model_of(policy.model, policy.tokenizer, name="policy", seconds=CALL_SECONDS)

    def sync(self) -> None:
        """The weights that are trained are those that are sampled from."""


def _merged(model: Any) -> dict[str, Any]:
    """The weights by the names of a checkpoint, LoRA added to them."""
    if not hasattr(model, "merge_adapter"):
        return {name: tensor.detach() for name, tensor in model.state_dict().items()}
    model.merge_adapter()
    try:
        weights = model.get_base_model().state_dict()
        return {
            name.replace(".base_layer.", "."): tensor.detach().clone()
            for name, tensor in weights.items()
            if "lora_" not in name
        }
    finally:
        model.unmerge_adapter()


def _with_lora(model: Any, lora: Lora) -> Any:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(
        model,
        LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.targets,
            task_type="CAUSAL_LM",
        ),
    )


def need_for(config: TrainConfig) -> None:
    """Raises `UserError` with what to install, if a library that this training uses is missing."""
    from importlib.util import find_spec

    lora = ["peft"] if config.lora else []
    used = ["torch", "transformers", "trl", "datasets", "matplotlib", *lora, *config.track]
    missing = [name for name in used if find_spec(name) is None]
    if missing:
        also = " wandb" if "wandb" in missing else ""
        raise UserError(f"training needs {', '.join(missing)}: pip install 'rollforge[train]'{also}")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that wait for each other by spinning take the cores from the sampler, and from whoever else is there.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
