"""The sections and keys of a NeMo RL configuration that must be there, and those that nobody reads.

Sources: `MasterConfig` and the set-up in `nemo_rl/algorithms/{grpo,sft,dpo}.py`, `examples/run_sft.py` (0.6 to August 2026).
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from rollforge.export.nemo_rl.inherit import Found, Values, section

_ALWAYS = ("policy", "data", "logger", "cluster", "checkpointing")
_SECTIONS = {"grpo": ("grpo", "loss_fn", "env", *_ALWAYS), "sft": ("sft", *_ALWAYS), "dpo": ("dpo", *_ALWAYS)}
_OTHERS = ("distillation", "ppo", "rm")
"""Sections of algorithms that read the same data."""
_BASES = {"grpo": "grpo_math_1B", "sft": "sft", "dpo": "dpo"}
_DATA = {
    "grpo": ("max_input_seq_length", "shuffle", "num_workers", "use_multiple_dataloader"),
    "sft": ("max_input_seq_length", "shuffle", "num_workers", "add_bos", "add_eos", "add_generation_prompt"),
    "dpo": ("max_input_seq_length", "shuffle", "num_workers"),
}
"""Keys of `data` that are read without asking whether they are there."""
_ANY = ("dataset_name", "data_path", "processor", "env_name", "prompt_file", "system_prompt_file")
_OF = {
    "ResponseDataset": ("input_key", "output_key", "subset", "split", "split_validation_size", "seed"),
    "openai_format": ("chat_key", "tool_key", "system_key", "system_prompt", "use_preserving_dataset"),
    "NemoGymDataset": ("repeat",),
    "BinaryPreferenceDataset": ("prompt_key", "chosen_key", "rejected_key", "subset", "split"),
    "PreferenceDataset": ("subset", "split"),
}
"""What each data set for local files reads of its entry."""
_SAID = ("split_validation_size", "_override_", "use_preserving_dataset")
"""Which have words of their own, or do no harm."""


def missing(algorithm: str, own: Values, parent: Values | None, values: Values) -> Iterator[Found]:
    """What is read and is nowhere; `parent`: merged, None where there is none or it could not be read."""
    if any(name in values for name in _OTHERS):
        return
    known = parent is not None or "defaults" not in own
    lacking = [name for name in _SECTIONS[algorithm] if name not in values] if known else []
    if lacking:
        yield (
            "",
            "error",
            f"no section {', '.join(lacking)}: NeMo RL stops (Field required); inherit what is not said here: "
            f"defaults: /path/to/RL/examples/configs/{_BASES[algorithm]}.yaml",
        )
    data = section(values, "data")
    lacking = [key for key in _DATA[algorithm] if key not in data]
    if lacking and "train" in data and (known or section(own, "data").get("_override_")):
        why = "; `_override_: true` dropped the parent's" if section(own, "data").get("_override_") else ""
        yield (
            "data",
            "error",
            f"no {', '.join(lacking)}: read without asking (KeyError {lacking[0]!r}){why}; write what is meant",
        )


def loaders(algorithm: str, values: Values) -> Iterator[Found]:
    """A loader for each data set: what it needs beside."""
    data, key = section(values, "data"), "data.use_multiple_dataloader"
    if not data.get("use_multiple_dataloader"):
        return
    lacking = [name for name in ("num_prompts_per_dataloader", "custom_dataloader") if data.get(name) is None]
    if algorithm != "grpo":
        yield key, "error", "only GRPO has a loader for each data set; set it to false"
    elif lacking:
        yield key, "error", f"true without {' and '.join(lacking)} (KeyError {lacking[0]!r}); add it under data"
    elif section(values, "grpo", "async_grpo").get("enabled"):
        yield key, "error", "true with grpo.async_grpo.enabled (NotImplementedError); set one of them to false"


def unread(own: Values, parent: Values | None) -> Iterator[Found]:
    """Keys that NeMo RL keeps and does not read: marks in the wrong place, and names that are nearly those of others."""
    yield from _marks(own, "")
    data = section(own, "data")
    for split in ("train", "validation"):
        given = data.get(split)
        entries = (
            {f"data.{split}[{at}]": one for at, one in enumerate(given)}
            if isinstance(given, list)
            else {f"data.{split}": given}
        )
        for place, entry in entries.items():
            if isinstance(entry, dict):
                yield from _of_entry(entry, place, section(data, "default"))
    yield from _nearly(own, parent or {}, "")


def _marks(values: Values, before: str) -> Iterator[Found]:
    for key, value in values.items():
        if isinstance(value, dict):
            if before and "_override_" in value:
                what = "it drops nothing here, and stays as a key: it works in a section itself (data._override_: true)"
                yield f"{before}{key}._override_", "warning", what
            yield from _marks(value, f"{before}{key}.")


def _of_entry(entry: Values, place: str, default: Values) -> Iterator[Found]:
    name = str(entry.get("dataset_name", default.get("dataset_name")))
    if name not in _OF:
        return
    taken = (*_ANY, *_OF[name])
    for key in entry:
        if key in (*taken, *_SAID) or entry[key] is None:
            continue
        near = get_close_matches(str(key), [one for one in taken if one not in entry], n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"it reads {', '.join(_OF[name])}"
        yield f"{place}.{key}", "warning", f"{name} does not read it, and says nothing; {hint}"


def _nearly(own: Values, parent: Values, before: str) -> Iterator[Found]:
    for key, value in own.items():
        above = parent.get(key)
        if isinstance(value, dict) and isinstance(above, dict) and f"{before}{key}" not in ("data.train", "data.validation"):
            yield from _nearly(value, above, f"{before}{key}.")
        elif before and key not in parent and key != "_override_":
            near = get_close_matches(str(key), [one for one in parent if one not in own], n=1, cutoff=_CLOSE)
            if near and abs(len(near[0]) - len(str(key))) <= _LONGER:
                yield (
                    f"{before}{key}",
                    "warning",
                    f"the parent has no such key, and NeMo RL says nothing of unknown ones: did you mean {near[0]}?",
                )


_CLOSE, _LONGER = 0.85, 2
"""How like a slip is: of NeMo RL's own configurations, which have keys that their parents lack, none is taken for one."""
