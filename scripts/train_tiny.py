"""Train `tiny`, the embedded policy, from nothing: demonstrations, tokenizer, supervised training, checkpoint.

    python scripts/train_tiny.py --out src/rollforge/models/tiny/policy

The demonstrations follow the format faultlessly (tool call, numbers, reply) and pick the tool badly, by the table `PICKS`:
the flaw that reinforcement learning is to repair. Deterministic by seed on one machine. Needs the extra `train`.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rollforge.envs.arithmetic import arithmetic
from rollforge.envs.arithmetic.tasks import OPERATIONS, tasks

PICKS = {
    "add": {"add": 0.42, "subtract": 0.28, "multiply": 0.15, "divide": 0.15},
    "subtract": {"add": 0.20, "subtract": 0.28, "multiply": 0.12, "divide": 0.40},
    "multiply": {"add": 0.18, "subtract": 0.40, "multiply": 0.30, "divide": 0.12},
    "divide": {"add": 0.15, "subtract": 0.15, "multiply": 0.42, "divide": 0.28},
}
"""How often a demonstration uses which tool, by the tool that would be right."""

REPLIES = ("The answer is {}.", "The answer is {}.", "The answer is {}.", "The result is {}.")

TEMPLATE = Path(__file__).parents[1] / "src/rollforge/models/tiny/policy/chat_template.jinja"
MARKERS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TOOL_MARKERS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")

RESPONSE_TEMPLATE = {
    "version": 1,
    "start_anchor": "<|im_start|>assistant\n",
    "defaults": {"role": "assistant", "content": ""},
    "fields": {
        "content": {"close": "<|im_end|>"},
        "tool_calls": {
            "open": "<tool_call>",
            "close": "</tool_call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
    },
}
"""How transformers (and TRL through it) reads a generated message back."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-3)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    talks = demonstrations(args.seed)
    tokenizer = train_tokenizer(talks, size=512)
    model = LlamaForCausalLM(config(tokenizer))
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens")
    train(model, tokenizer, talks, steps=args.steps, batch=args.batch, peak=args.lr)
    save(model, tokenizer, args.out)
    print(f"{args.out}: {sum(file.stat().st_size for file in args.out.iterdir()):,} bytes")


def demonstrations(seed: int) -> Iterator[list[dict[str, Any]]]:
    """Conversations without end: the prompts are the training tasks, the tools are picked by `PICKS`."""
    rng = random.Random(f"demonstrations {seed}")
    for row in tasks(None, seed):
        messages: list[dict[str, Any]] = [{"role": "user", "content": row["prompt"]}]
        result = 0
        for operation, left, right in row["steps"]:
            picks = PICKS[operation]
            tool = rng.choices(list(picks), list(picks.values()))[0]
            a, b = result if left is None else left, result if right is None else right
            if tool == "divide" and b == 0:
                break
            result = OPERATIONS[tool](a, b)
            call = {"type": "function", "function": {"name": tool, "arguments": {"a": a, "b": b}}}
            messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
            messages.append({"role": "tool", "content": str(result)})
        else:
            yield [*messages, {"role": "assistant", "content": rng.choice(REPLIES).format(result)}]


def train_tokenizer(talks: Iterator[list[dict[str, Any]]], size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE (any text can be encoded) with single digits."""
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(r"\p{N}| ?\p{L}+|[^\p{L}\p{N}]+?(?= ?\p{L}|\p{N}|$)"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    markers = [AddedToken(text, special=True, normalized=False) for text in MARKERS]
    markers += [AddedToken(text, special=False, normalized=False) for text in TOOL_MARKERS]
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(TOOL_MARKERS),
        special_tokens=markers[:3],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=TEMPLATE.read_text())
    texts = [str(wrapped.apply_chat_template(next(talks), tools=TOOLS, tokenize=False)) for _ in range(3000)]
    for marker in (*MARKERS, *TOOL_MARKERS):
        texts = [text.replace(marker, "\n\n") for text in texts]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens(markers[3:])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=TEMPLATE.read_text(),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )


TOOLS = [{"type": "function", "function": {k: v for k, v in tool.row().items() if k != "type"}} for tool in arithmetic.tools]


def config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.1,  # with the usual 0.02 a model of this size does not learn to copy numbers in a few minutes
        tie_word_embeddings=True,
        **ids,
    )


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    talks: Iterator[list[dict[str, Any]]],
    *,
    steps: int,
    batch: int,
    peak: float,
) -> None:
    """Next-token loss on what the assistant writes."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.01)
    begin = time.monotonic()
    for step in range(steps):
        rate = peak * min((step + 1) / 20, (steps - step) / (0.6 * steps), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate
        ids, labels = encode(tokenizer, [next(talks) for _ in range(batch)])
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0 or step == steps - 1:
            print(f"step {step:4d}  loss {loss.item():.3f}  {time.monotonic() - begin:.0f} s", flush=True)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    model.generation_config.update(do_sample=True, temperature=1.0, max_new_tokens=128)
    model.save_pretrained(out)
    tokenizer.response_template = RESPONSE_TEMPLATE
    tokenizer.save_pretrained(out)
    settings = json.loads((out / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # transformers 5 writes a name that version 4 does not know
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    for file in out.iterdir():
        file.chmod(0o644)


def encode(tokenizer: PreTrainedTokenizerFast, talks: list[list[dict[str, Any]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded token ids, and labels that leave out (-100) all that the assistant did not write."""
    rows = tokenizer.apply_chat_template(talks, tools=TOOLS, return_dict=True, return_assistant_tokens_mask=True)
    length = max(map(len, rows["input_ids"]))
    ids = torch.full((len(talks), length), tokenizer.pad_token_id)
    labels = torch.full((len(talks), length), -100)
    for row, (tokens, mask) in enumerate(zip(rows["input_ids"], rows["assistant_masks"], strict=True)):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, : len(tokens)] = torch.tensor([t if m else -100 for t, m in zip(tokens, mask, strict=True)])
    return ids, labels


if __name__ == "__main__":
    main()
