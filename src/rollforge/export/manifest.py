"""`manifest.json`: what an export was made of, with what, and what came out; every file with its hash."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from rollforge import __version__
from rollforge.bulk.original import Original
from rollforge.export.options import Input
from rollforge.export.result import Done, Exported, reasons
from rollforge.export.writer import LINEAGE, sha256
from rollforge.records.items import Json
from rollforge.records.lossless import dumps


def sources(inputs: Iterable[Input], ends: Iterable[int], hashes: Iterable[str]) -> list[Json]:
    """The files that were read, as far as they were, in the order of the numbers in the lineage."""
    return [
        {
            "source": number,
            "run": one.name,
            "file": str(one.file.resolve()),
            "split": one.split,
            "bytes": end,
            "sha256": digest,
        }
        for number, (one, end, digest) in enumerate(zip(inputs, ends, hashes, strict=True))
    ]


@contextmanager
def hashed(files: list[Original], beside: bool) -> Iterator[Callable[[list[int]], list[str]]]:
    """The files' SHA-256, when called with how much of each was read; computed by a process beside this one meanwhile, or
    then."""
    if not beside:
        yield lambda ends: [sha256(one.path, end) for one, end in zip(files, ends, strict=True)]
        return
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(files, theirs), daemon=True)
    process.start()
    theirs.close()

    def hashes(ends: list[int]) -> list[str]:
        try:
            whole = ours.recv()
        except EOFError:  # somebody ended that process
            whole = [None] * len(files)
        return [
            digest if digest and end == one.size else sha256(one.path, end)
            for one, end, digest in zip(files, ends, whole, strict=True)
        ]

    try:
        yield hashes
    finally:
        process.terminate()
        process.join()
        ours.close()


def _send(files: list[Original], to: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this
    to.send([sha256(one.path, one.size) for one in files])


def manifest(done: Done, all_of_it: Exported, inputs: list[Json]) -> Json:
    files: dict[str, Json] = {}
    for one in done.files:
        files[one.name] = {
            "split": one.split,
            **({"env": one.env} if one.env is not None else {}),
            "rows": one.tally.rows,
            "bytes": one.size,
            "sha256": one.sha256,
            # Of the longest row; of prompts, which are answered anew, without the answer.
            "tokens": one.tally.longest_prompt if done.tasks is not None and done.pairs is None else one.tally.longest,
        }
    return {
        "format": 1,
        "made_by": {"rollforge": __version__},
        "target": done.target.name,
        "kind": done.kind,
        "version": done.made.settings.version or done.target.versions[0],
        "options": all_of_it.options.model_dump(exclude={"workers", "overwrite"}),
        "settings": done.made.settings.model_dump(),
        "inputs": inputs,
        "files": files,
        "beside": done.beside,
        "lineage": {
            "file": LINEAGE,
            "columns": "file, row, then of its rollout (of a pair: chosen, rejected) id, source, byte of the line",
        },
        "counts": counts(done, all_of_it),
    }


def counts(done: Done, all_of_it: Exported) -> Json:
    """Of the rollouts read: what became of them."""
    return {
        "read": dict(all_of_it.read),
        "planned": all_of_it.planned,
        "unusable": reasons(all_of_it.unusable, all_of_it.inputs),
        **done.counts(all_of_it.inputs),
        "rows": {
            split: sum(one.tally.rows for one in done.files if one.split == split)
            for split in dict.fromkeys(one.split for one in done.files)
        },
    }


def dump(value: Any) -> str:
    return dumps(value, indent=True).decode() + "\n"
