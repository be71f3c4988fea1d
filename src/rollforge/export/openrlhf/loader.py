"""OpenRLHF's own data set classes on a file, with a tokenizer made on the spot. Nothing is imported before it is needed."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from rollforge.errors import UserError
from rollforge.export.loading import compare
from rollforge.export.trial import byte_tokenizer, enough, read_into


def load(kind: str, path: Path) -> str | None:
    """None if OpenRLHF is not installed. Raises what its classes raise, and `UserError` if they drop rows."""
    if importlib.util.find_spec("openrlhf") is None:
        return None
    release = version("openrlhf")
    try:
        import_module("openrlhf.datasets")
    except ImportError as error:
        return f"OpenRLHF {release} is installed, but does not import here: {error}"
    said = io.StringIO()
    with (
        TemporaryDirectory(prefix="rollforge-") as cache,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        data, given = dataset(kind, path, cache)
        rows = len(data)
        for at in range(rows):
            data[at]
    name = type(data).__name__
    tried = enough(path, given)
    if rows < tried:
        raise UserError(f"{path}: OpenRLHF's {name} drops {tried - rows:,} of {tried:,} rows without a word")
    some = "" if given == tried else f", the first {tried} tokenized"
    return f"loaded {given:,} rows with OpenRLHF {release}'s {name}{some}"


def dataset(kind: str, path: Path, cache: str, tokenizer: Any = None) -> tuple[Any, int]:
    """(the data set as OpenRLHF's trainer makes it of the first rows, rows in the file). Raises what it raises."""
    tokenizer = tokenizer or byte_tokenizer()
    classes: Any = import_module("openrlhf.datasets")
    blending: Any = import_module("openrlhf.datasets.utils")
    args = SimpleNamespace(use_ms=False)
    strategy = SimpleNamespace(args=args, print=print, is_rank_0=lambda: False)
    length = 1 << 30
    with read_into(cache):
        rows = blending.blending_datasets(str(path), None, strategy, dataset_split="train")
        compare(path, rows)
        count = len(rows)
        rows = rows.select(range(enough(path, count)))
        keys = _keys(kind, rows)
        # 0.11 reads args.data.input_key, earlier ones args.input_key.
        vars(args).update(keys, data=SimpleNamespace(**keys))
        if kind == "grpo":
            return classes.PromptDataset(rows, tokenizer, strategy), count
        if kind == "dpo":
            return classes.RewardDataset(rows, tokenizer, length, strategy, is_dpo=True, num_processors=None), count
        several = kind == "sft"
        return classes.SFTDataset(rows, tokenizer, length, strategy, multiturn=several, num_processors=None), count


def _keys(kind: str, rows: Any) -> dict[str, Any]:
    """The options that the columns ask for: prompts and labels only where there are any, no chat template for texts."""
    keys = {"apply_chat_template": True, **_KEYS[kind]}
    if "label_key" in keys and "label" not in rows.column_names:
        keys["label_key"] = None
    if kind == "dpo" and len(rows):
        prompt, text = rows[0].get("prompt"), isinstance(rows[0]["chosen"], str)
        keys |= {
            "apply_chat_template": not text,
            "prompt_key": "prompt" if prompt and isinstance(prompt, str) == text else None,
        }
    return keys


_KEYS: dict[str, dict[str, Any]] = {
    "grpo": {"input_key": "prompt", "label_key": "label"},
    "sft": {"input_key": "messages", "output_key": None},
    "sft-simple": {"input_key": "input", "output_key": "output"},
    "dpo": {"prompt_key": "prompt", "chosen_key": "chosen", "rejected_key": "rejected"},
}
