"""verl's own data set classes on a file, with a tokenizer made on the spot. Nothing is imported before it is needed."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from importlib import import_module
from importlib.machinery import SourceFileLoader
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from rollforge.export.loading import compare
from rollforge.export.trial import byte_tokenizer, enough, read_into

HERE = Path(__file__).parent


def load(kind: str, path: Path) -> str | None:
    """None if verl is not installed. Raises what its classes raise."""
    if importlib.util.find_spec("verl") is None:
        return None
    release = version("verl")
    try:
        import_module(f"verl.utils.dataset.{_MODULES[kind]}")
    except ImportError as error:
        return f"verl {release} is installed, but does not import here: {error}"
    with TemporaryDirectory(prefix="rollforge-") as cache, contextlib.redirect_stdout(io.StringIO()):
        data = dataset(kind, path, cache)
        rows = len(data)
        some = enough(path, rows)
        for at in range(some):
            data[at]
    tried = "" if rows == some else f", the first {some} tried"
    return f"loaded {rows:,} rows with verl {release}'s {type(data).__name__}{tried}"


def dataset(kind: str, path: Path, cache: str, tokenizer: Any = None) -> Any:
    """The data set as verl's trainer makes it. Raises what verl raises."""
    tokenizer = tokenizer or byte_tokenizer()
    module: Any = import_module(f"verl.utils.dataset.{_MODULES[kind]}")
    if kind in ("rm", "dpo"):
        return module.RMDataset(str(path), tokenizer, max_length=1 << 14, cache_dir=cache)
    conf: Any = import_module("omegaconf").OmegaConf
    length = 1 << 30
    if kind == "sft":
        options = {"max_length": length, "pad_mode": "no_padding", "truncation": "error", "enable_thinking_default": None}
        cls = _beside("gym_sft_dataset").GymSFTDataset if _is_text(path, "messages") else module.MultiTurnSFTDataset
        return cls(str(path), tokenizer, conf.create(options))
    options = {"cache_dir": cache, "filter_overlong_prompts": False}
    cls = _beside("gym_rl_dataset").GymRLHFDataset if _is_text(path, "prompt") else module.RLHFDataset
    with read_into(cache):
        data = cls([str(path)], tokenizer, conf.create(options))
        compare(path, data.dataframe)
        return data


_MODULES = {
    "grpo": "rl_dataset",
    "grpo-parquet": "rl_dataset",
    "sft": "multiturn_sft_dataset",
    "rm": "rm_dataset",
    "dpo": "rm_dataset",
}


def _beside(name: str) -> Any:
    """The module that is written beside the data."""
    loader = SourceFileLoader(f"rollforge_{name}", str(HERE / f"{name}.py.txt"))
    module = ModuleType(loader.name)
    loader.exec_module(module)
    return module


def _is_text(path: Path, name: str) -> bool:
    if path.suffix != ".parquet":
        return False
    parquet: Any = import_module("pyarrow.parquet")
    schema = parquet.read_schema(path)
    return name in schema.names and str(schema.field(name).type) in ("string", "large_string")
