from __future__ import annotations

import hashlib
import json
import multiprocessing
from pathlib import Path

from rollforge import __version__
from rollforge.bulk.original import Original
from rollforge.export.manifest import hashed
from rollforge.export.run import export_rollouts
from tests.export.toy import TOY, row, write


def test_the_manifest_names_everything(tmp_path: Path) -> None:
    rows = [row(f"{n}?", reward=n / 4) for n in range(5)] + ["{"]
    file = write(tmp_path / "a.jsonl", rows)
    for workers in (1, 2):
        result = export_rollouts(
            file,
            [(TOY, "sft")],
            tmp_path / "out",
            min_reward=0.5,
            model="m",
            workers=workers,
            overwrite=True,
            validation=0.0,
        )
        folder = result.targets[0].folder
        made = json.loads((folder / "manifest.json").read_text())
        assert (made["target"], made["kind"], made["version"]) == ("toy", "sft", "2")
        assert made["made_by"] == {"rollforge": __version__}
        assert made["options"]["min_reward"] == 0.5
        assert made["settings"]["model"] == "m"
        assert made["inputs"] == [
            {
                "source": 0,
                "run": str(file),
                "file": str(file),
                "split": None,
                "bytes": file.stat().st_size,
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            }
        ]
        assert made["files"]["train.jsonl"]["rows"] == 3
        hashes = {name: one["sha256"] for name, one in made["files"].items()} | made["beside"]
        assert set(hashes) == {"train.jsonl", "lineage.tsv", "config.yaml", "launch.sh"}
        for name, digest in hashes.items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
        counts = made["counts"]
        assert counts["read"] == {"scored": 5}
        assert counts["left_out"] == {"reward < 0.5 (--min-reward)": 2}
        assert [one["first"] for one in counts["unusable"].values()] == [f"{file}:6"]
        assert counts["rows"] == {"train": 3}


def test_what_the_process_beside_did_not_hash_is_hashed_here(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"rows")
    originals = [Original(file)]
    file.unlink()  # the process finds nothing, and ends
    with hashed(originals, beside=True) as hashes:
        for process in multiprocessing.active_children():
            process.join()
        file.write_bytes(b"rows")
        assert hashes([4]) == [hashlib.sha256(b"rows").hexdigest()]
