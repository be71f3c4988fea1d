"""Names of the files beside a file of rollouts."""

from __future__ import annotations

from pathlib import Path


def failures_path_for(output_jsonl_fpath: str | Path) -> Path:
    found = Path(output_jsonl_fpath)
    return found.with_name(f"{found.stem}_failures{found.suffix}")
