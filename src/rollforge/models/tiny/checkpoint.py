"""Reading a checkpoint directory in Hugging Face format: configuration, weights, tokenizer, chat template.

A checkpoint is untrusted input: nothing in it is executed except the chat template, which runs in a sandbox (`chat`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from tokenizers import Tokenizer

from rollforge.errors import UserError
from rollforge.models.chat_format import ChatFormat
from rollforge.models.template import lacking, read_json, special_tokens, template_text
from rollforge.models.tiny.llama import Array, Config, Layer, Linear, Llama


@dataclass(frozen=True, slots=True)
class Checkpoint:
    name: str
    model: Llama
    tokenizer: Tokenizer
    template: str
    special_tokens: dict[str, str]
    """Their texts by role, as the template sees them: eos_token, bos_token, ..."""
    eos_ids: frozenset[int]
    """Tokens that end an answer."""
    defaults: dict[str, Any]
    """`generation_config.json`: what holds where a request says nothing (temperature, top_p, top_k, max_new_tokens)."""

    def chat(self) -> ChatFormat:
        return ChatFormat(self.template, self.tokenizer, self.special_tokens, self.eos_ids, self.model.config.vocab)

    def model_of(self, weights: Mapping[str, Array]) -> Llama:
        """The same model with other weights, by the names of the checkpoint's tensors. Raises `UserError` if one is missing
        or of another shape."""
        return _model(self.model.config, weights, self.name)


def read_checkpoint(directory: Path, dtype: type[np.floating[Any]] = np.float64) -> Checkpoint:
    """Raises `UserError` saying what the directory lacks, or what of it this engine does not know."""
    if not directory.is_dir():
        wanted = "a directory with config.json, model.safetensors, tokenizer.json and a chat template"
        raise UserError(f"there is no directory {str(directory)!r}; `tiny:DIR` takes {wanted}")
    raw = read_json(directory / "config.json")
    config = read_config(raw, str(directory / "config.json"))
    defaults = read_json(directory / "generation_config.json", {})
    tokenizer_config = read_json(directory / "tokenizer_config.json", {})
    tokenizer = _tokenizer(directory / "tokenizer.json")
    if tokenizer.get_vocab_size() > config.vocab:
        sizes = f"the tokenizer has {tokenizer.get_vocab_size()} tokens, the model {config.vocab}"
        raise UserError(f"{directory}: {sizes}: they do not belong together")
    special = special_tokens(tokenizer_config)
    eos = {*_ids(raw.get("eos_token_id")), *_ids(defaults.get("eos_token_id"))}
    eos |= _ids(tokenizer.token_to_id(special.get("eos_token", "")))
    if not eos:
        raise UserError(f"{directory} names no eos token: no answer would end (eos_token_id in generation_config.json)")
    template = template_text(directory, tokenizer_config)
    if template is None:
        raise lacking(directory)
    return Checkpoint(
        name=directory.resolve().name,
        model=_model(config, _weights(directory, dtype), str(directory)),
        tokenizer=tokenizer,
        template=template,
        special_tokens=special,
        eos_ids=frozenset(eos),
        defaults=defaults,
    )


def read_config(raw: Mapping[str, Any], where: str) -> Config:
    """Raises `UserError` for another architecture than Llama, and for the parts of it that are not supported."""
    if raw.get("model_type") != "llama":
        raise UserError(f"{where}: model_type is {raw.get('model_type')!r}; tiny runs 'llama' (use `vllm` for the others)")
    if raw.get("hidden_act", "silu") != "silu":
        raise UserError(f"{where}: hidden_act is {raw['hidden_act']!r}; tiny knows only 'silu'")
    rope = {**(raw.get("rope_scaling") or {}), **(raw.get("rope_parameters") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise UserError(f"{where}: rope scaling of type {kind!r} is not supported by tiny (use `vllm`)")
    try:
        heads = int(raw["num_attention_heads"])
        return Config(
            vocab=int(raw["vocab_size"]),
            hidden=int(raw["hidden_size"]),
            layers=int(raw["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(raw.get("num_key_value_heads") or heads),
            head_dim=int(raw.get("head_dim") or raw["hidden_size"] // heads),
            context=int(raw.get("max_position_embeddings", 2048)),
            epsilon=float(raw.get("rms_norm_eps", 1e-6)),
            theta=float(rope.get("rope_theta") or raw.get("rope_theta") or 10_000.0),
            tied=bool(raw.get("tie_word_embeddings", False)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: not a usable Llama configuration ({type(error).__name__}: {error})") from error


def _tokenizer(path: Path) -> Tokenizer:
    if not path.exists():
        raise UserError(
            f"{path} is missing: tiny reads only tokenizers in that format (save_pretrained of a fast tokenizer)"
        )
    try:
        return Tokenizer.from_str(path.read_text("utf-8"))
    except Exception as error:  # the library raises plain Exception
        raise UserError(f"{path} is not a tokenizer: {error}") from error


def _ids(value: Any) -> set[int]:
    return {value} if isinstance(value, int) else set(value or ())


WIDEN = {"F64": np.float64, "F32": np.float32, "F16": np.float16}


def _weights(directory: Path, dtype: type[np.floating[Any]]) -> dict[str, Array]:
    """Every tensor in that type, from one file or from the shards that an index lists."""
    index = directory / "model.safetensors.index.json"
    files: Iterable[str] = ["model.safetensors"]
    if index.exists() and not (directory / "model.safetensors").exists():
        files = sorted({Path(name).name for name in read_json(index).get("weight_map", {}).values()})
    weights: dict[str, Array] = {}
    for path in (directory / name for name in files):
        try:
            tensors = safetensors.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        except safetensors.SafetensorError as error:
            raise UserError(f"{path} is no safetensors file: {error}") from error
        weights |= {name: _widened(tensor, dtype, f"{path}: {name}") for name, tensor in tensors}
    return weights


def _widened(tensor: Mapping[str, Any], wanted: type[np.floating[Any]], where: str) -> Array:
    dtype, data = tensor["dtype"], tensor["data"]
    if dtype == "BF16":  # the upper half of a float32, which numpy has no type for
        flat = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif dtype in WIDEN:
        flat = np.frombuffer(data, WIDEN[dtype])
    else:
        raise UserError(f"{where} is of type {dtype}; tiny reads {', '.join(WIDEN)} and BF16 (no quantised weights)")
    return flat.astype(wanted).reshape(tensor["shape"])


def _model(config: Config, weights: Mapping[str, Array], where: str) -> Llama:
    c = config

    def take(name: str, *shape: int) -> Array:
        tensor = weights.get(name)
        if tensor is None:
            raise UserError(f"{where}: the weights lack {name}")
        if shape and tensor.shape != shape:
            raise UserError(f"{where}: {name} has shape {list(tensor.shape)}, the configuration says {list(shape)}")
        return tensor

    def linear(prefix: str, sizes: Mapping[str, int], width: int) -> Linear:
        """Several projections of the same input as one matrix, and their biases if there are any."""
        matrices = [take(f"{prefix}.{name}.weight", size, width) for name, size in sizes.items()]
        biases = [weights.get(f"{prefix}.{name}.bias", np.zeros(size, matrices[0].dtype)) for name, size in sizes.items()]
        biased = any(f"{prefix}.{name}.bias" in weights for name in sizes)
        return np.ascontiguousarray(np.concatenate(matrices).T), np.concatenate(biases) if biased else None

    def layer(number: int) -> Layer:
        prefix = f"model.layers.{number}"
        inner = len(take(f"{prefix}.mlp.gate_proj.weight"))
        keys = c.kv_heads * c.head_dim
        projections = {"q_proj": c.heads * c.head_dim, "k_proj": keys, "v_proj": keys}
        return Layer(
            before_attention=take(f"{prefix}.input_layernorm.weight", c.hidden),
            qkv=linear(f"{prefix}.self_attn", projections, c.hidden),
            out=linear(f"{prefix}.self_attn", {"o_proj": c.hidden}, c.heads * c.head_dim),
            before_mlp=take(f"{prefix}.post_attention_layernorm.weight", c.hidden),
            gate_up=linear(f"{prefix}.mlp", {"gate_proj": inner, "up_proj": inner}, c.hidden),
            down=linear(f"{prefix}.mlp", {"down_proj": c.hidden}, inner),
        )

    embedding = take("model.embed_tokens.weight", c.vocab, c.hidden)
    head = embedding if c.tied else take("lm_head.weight", c.vocab, c.hidden)
    layers = tuple(layer(number) for number in range(c.layers))
    return Llama(c, embedding, layers, take("model.norm.weight", c.hidden), np.ascontiguousarray(head.T))
