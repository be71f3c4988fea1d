"""What a trainer computes of tokens: their log probabilities under a checkpoint, by torch where it is installed, else by the
numpy of `tiny`. With the checkpoint's tokenizer and chat template, to read tokens as the sampler's server did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from rollforge.errors import SetupError, UserError
from rollforge.models.chat_format import ChatFormat, read_tool_calls
from rollforge.models.tiny.blas import use_one_thread
from rollforge.models.tiny.checkpoint import read_checkpoint
from rollforge.models.transformers import load_checkpoint
from rollforge.records.items import function_call, user
from rollforge.train.policy import SMALL, checkpoint

CHUNK = 1024
"""Tokens per forward pass: the logits of more would not fit, with a large vocabulary."""


@dataclass(frozen=True, slots=True)
class Forward:
    name: str
    by: str
    """`torch, float32, cpu`."""
    log_probs: Callable[[Sequence[int]], list[float]]
    """Of each token but the first, given those before it, at temperature 1."""
    vocab: int
    context: int | None
    """The longest sequence it takes."""
    tokenizer: Tokenizer
    chat: ChatFormat
    eos: frozenset[int]
    defaults: Mapping[str, Any]
    """`generation_config.json`: how it is sampled from where a request says nothing."""
    reads_calls: bool
    """Whether its template writes tool calls in the form that `ChatFormat` reads."""

    def decode(self, ids: Sequence[int]) -> str:
        """Special tokens included; ids that the tokenizer does not know are nothing."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=False)


def forward(model: str, *, torch: bool | None = None) -> Forward:
    """Of `tiny`, `tiny:DIR`, a Hugging Face directory or name; with or without torch, as it is installed if not said.
    Raises `UserError` if it cannot be read, or needs torch."""
    path = checkpoint(model)
    if torch is None:
        torch = all(find_spec(name) is not None for name in ("torch", "transformers"))
    if torch:
        return _by_torch(model, path)
    try:
        return _by_numpy(model, Path(path))
    except UserError as error:
        raise UserError(
            f"{error}; without torch only a Llama directory can be read: pip install 'rollforge[train]'"
        ) from error


def _by_numpy(name: str, path: Path) -> Forward:
    read = read_checkpoint(path)
    use_one_thread()
    config = read.model.config
    return _forward(
        name,
        "numpy, float64, cpu",
        read.model.log_probs,
        vocab=config.vocab,
        context=config.context,
        tokenizer=read.tokenizer,
        chat=read.chat(),
        eos=read.eos_ids,
        defaults=read.defaults,
    )


def _by_torch(name: str, path: str) -> Forward:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    # float32, whatever the checkpoint is stored in: what is to be measured is the sampler, not this.
    model, tokenizer = load_checkpoint(f"the model {name!r}", path, device, torch.float32)
    defaults = model.generation_config
    given = defaults.eos_token_id if defaults.eos_token_id is not None else model.config.eos_token_id
    eos = {given} if isinstance(given, int) else set(given or ())
    eos |= set() if tokenizer.eos_token_id is None else {tokenizer.eos_token_id}

    if device == "cpu" and model.num_parameters() < SMALL:
        torch.set_num_threads(1)  # threads that wait for each other by spinning cost more than they save

    def log_probs(ids: Sequence[int]) -> list[float]:
        found: list[float] = []
        past = None
        for start in range(0, len(ids) - 1, CHUNK):
            told = torch.tensor(ids[start + 1 : start + CHUNK + 1], device=device)
            inside = torch.tensor([ids[start : start + CHUNK][: len(told)]], device=device)
            with torch.inference_mode():
                answer = model(inside, past_key_values=past, use_cache=len(ids) - 1 > CHUNK)
                past = getattr(answer, "past_key_values", None)
                logits = answer.logits[0].float()
                found += (logits.gather(-1, told[:, None])[:, 0] - logits.logsumexp(-1)).tolist()
        return found

    return _forward(
        name,
        f"torch, float32, {device}",
        log_probs,
        vocab=model.get_input_embeddings().num_embeddings,
        context=getattr(model.config, "max_position_embeddings", None),
        tokenizer=getattr(tokenizer, "backend_tokenizer", None),
        chat=ChatFormat.of(tokenizer, eos),
        eos=frozenset(eos),
        defaults=defaults.to_diff_dict(),
    )


def _forward(name: str, by: str, log_probs: Callable[[Sequence[int]], list[float]], **parts: Any) -> Forward:
    chat: ChatFormat = parts["chat"]
    asked, called = user("?"), function_call("look_up", '{"key": 1}', "call_0")
    try:
        text = chat.render({"input": [asked]}, [asked, called], generation=False)
    except SetupError:  # a template that knows no tools
        text = ""
    return Forward(name, by, log_probs, reads_calls=[one for one, _ in read_tool_calls(text)[1]] == ["look_up"], **parts)
