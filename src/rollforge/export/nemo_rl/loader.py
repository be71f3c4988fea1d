"""NeMo RL's own data sets and configuration loader, where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from pathlib import Path

_CLASS = {
    "grpo": "response_datasets.response_dataset:ResponseDataset",
    "nemo-gym": "response_datasets.nemogym_dataset:NemoGymDataset",
    "sft": "response_datasets.oai_format_dataset:OpenAIFormatDataset",
    "sft-simple": "response_datasets.response_dataset:ResponseDataset",
    "dpo": "preference_datasets.binary_preference_dataset:BinaryPreferenceDataset",
    "dpo-messages": "preference_datasets.preference_dataset:PreferenceDataset",
}


def load(kind: str, path: Path) -> str | None:
    """Reads a data file with the class that the kind is for. None where NeMo RL (0.6 or later) is not installed."""
    inside, _, name = _CLASS[kind].partition(":")
    module = f"nemo_rl.data.datasets.{inside}"
    if importlib.util.find_spec("nemo_rl") is None or importlib.util.find_spec(module) is None:
        return None
    reader = getattr(importlib.import_module(module), name)
    if "data_path" not in inspect.signature(reader).parameters:
        return None
    keys = {"use_preserving_dataset": True} if kind == "sft" else {}
    rows = len(reader(data_path=str(path.absolute()), **keys).dataset)
    version = getattr(importlib.import_module("nemo_rl.package_info"), "__version__", "?")
    return f"loaded {rows} rows with NeMo RL {version} ({name})"
