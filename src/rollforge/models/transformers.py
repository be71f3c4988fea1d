"""`transformers:DIR_OR_NAME`: any causal language model of Hugging Face, run in this process by torch.

Token ids and log probabilities as with `tiny`, for every architecture, on the CPU or one GPU. `model_of` samples from a
model that somebody else owns and trains. Tool calls are read in the Hermes form (`<tool_call>`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from rollforge.config import Section, validate
from rollforge.errors import UserError
from rollforge.models.base import Model, ModelOptions
from rollforge.models.chat_format import ChatFormat
from rollforge.models.tokens import TokenModel
from rollforge.models.torch_engine import ROWS, TorchEngine

DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "max_new_tokens")
"""What of `generation_config.json` holds where a request says nothing."""


class Settings(Section):
    """What `extra_body` may say."""

    device: str | None = None
    """As torch writes it: cpu, cuda, cuda:1. The GPU if there is one."""
    dtype: str = "auto"
    """float32, bfloat16 or float16; auto: bfloat16 on a GPU, float32 on the CPU."""
    rows: int = Field(ROWS, ge=1)
    """Sequences side by side at most."""


def load(name: str | None, options: ModelOptions) -> Model:
    """Raises `UserError`: no torch, no such checkpoint or device, weights that are missing, no chat template."""
    if not name:
        raise UserError("transformers needs a checkpoint: transformers:DIR, or a name of Hugging Face's hub")
    settings = validate(Settings, options.extra_body, "model.extra_body")
    path = _where(name)
    device, dtype = _device(settings)
    model, tokenizer = load_checkpoint(f"transformers:{name}", path, device, dtype)
    defaults = {key: getattr(model.generation_config, key, None) for key in DEFAULTS}
    return TorchModel(
        model,
        tokenizer,
        name=f"transformers:{Path(path).resolve().name if Path(path).is_dir() else name}",
        defaults=defaults,
        seconds=options.call_seconds,
        rows=settings.rows,
    )


def model_of(model: Any, tokenizer: Any, *, name: str, seconds: float = 600) -> TokenModel:
    """Sample from a model that somebody else owns (and trains, while no call is under way): every call sees its weights as
    they are. What a request does not say is temperature 1, nothing filtered. Close it with `aclose()`."""
    return TorchModel(model, tokenizer, name=name, seconds=seconds)


def load_checkpoint(name: str, path: str, device: Any, dtype: Any) -> tuple[Any, Any]:
    """The model, in evaluation mode, and the tokenizer. Raises `UserError`, which speaks of `name`, for a checkpoint that
    cannot be loaded or lacks weights."""
    _, transformers = _torch()
    logging = transformers.utils.logging
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        loaded = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype, output_loading_info=True)
        model, info = loaded[0].to(device).eval(), loaded[1]
    except Exception as error:  # a checkpoint can be wrong in any way, and too large
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        raise UserError(f"{name} cannot be loaded: {type(error).__name__}: {first}") from error
    finally:
        if bars:
            logging.enable_progress_bar()
    # transformers fills in random numbers, with a warning.
    lacking = sorted(map(str, {*info["missing_keys"], *info["mismatched_keys"]}))
    if lacking:
        raise UserError(f"{name}: the weights lack {', '.join(lacking[:5])} ({len(lacking)} in all)")
    return model, tokenizer


class TorchModel(TokenModel):
    """Owns an engine, and its thread from the first call until `aclose()`."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        defaults: Mapping[str, Any] | None = None,
        seconds: float = 600,
        rows: int = ROWS,
    ) -> None:
        ends = {*_ids(model.generation_config.eos_token_id), *_ids(tokenizer.eos_token_id)}
        chat = ChatFormat.of(tokenizer, ends)
        self._engine = TorchEngine(model, tokenizer, eos_ids=ends, name=name, rows=rows)
        super().__init__(name, chat, self._engine.generate, defaults=defaults, seconds=seconds)

    async def aclose(self) -> None:
        await asyncio.to_thread(self._engine.close)


def _where(name: str) -> str:
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if path.exists() or name.startswith(("/", ".", "~")):
        raise UserError(f"there is no directory {name!r}; `transformers:DIR` takes one that save_pretrained wrote")
    return name


def _torch() -> tuple[Any, Any]:
    """torch and transformers, untyped."""
    try:
        import torch
        import transformers
    except ImportError as error:
        raise UserError(
            f"transformers:NAME needs torch and transformers ({error}): pip install 'rollforge[train]'"
        ) from error
    return torch, transformers


def _device(settings: Settings) -> tuple[Any, Any]:
    torch, _ = _torch()
    try:
        device = torch.device(settings.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:
        first = str(error).partition("\n")[0]
        raise UserError(f"the device {settings.device!r} cannot be used: {first} (device in model.extra_body)") from error
    known = {"auto": torch.bfloat16 if device.type == "cuda" else torch.float32}
    known |= {name: getattr(torch, name) for name in ("bfloat16", "float16", "float32", "float64")}
    if settings.dtype not in known:
        raise UserError(f"dtype is {settings.dtype!r} (in model.extra_body); known: {', '.join(known)}")
    return device, known[settings.dtype]


def _ids(value: Any) -> set[int]:
    return {value} if isinstance(value, int) else set(value or ())
