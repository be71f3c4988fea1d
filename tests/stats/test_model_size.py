"""How large a model is, by its name."""

from __future__ import annotations

import pytest

from rollforge.stats.model_size import billions


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("Qwen/Qwen2.5-1.5B-Instruct", 1.5),
        ("HuggingFaceTB/SmolLM2-135M", 0.135),
        ("Qwen2.5-7B-Instruct-1M", 7),
        ("qwen3_14b", 14),
        ("internlm2_5-7b-chat", 7),
        ("Qwen3-30B-A3B", 30),
        ("mistralai/Mixtral-8x7B-v0.1", 56),
        ("mistralai/Mixtral-8x22B-v0.1", 176),
        ("/models/70b/Qwen2.5-7B", 7),
        ("/models/Qwen2.5-7B/checkpoint-500", 7),
        ("/models/Llama-3-8b/", 8),
        ("gpt-oss", None),
        ("model-v2-4bit", None),
        ("v1.5beta", None),
    ],
)
def test_a_model_is_as_large_as_its_name_says(model: str, size: float | None) -> None:
    assert billions(model) == size
