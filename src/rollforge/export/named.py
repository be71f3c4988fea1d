"""Whether a configuration trains on the files that are checked: by their paths, else by what stands in them."""

from __future__ import annotations

import filecmp
import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from rollforge.errors import reported
from rollforge.export.target import Problem


def other_data(config: Path, train: Sequence[str], held_out: Sequence[str], files: Sequence[Path]) -> Iterator[Problem]:
    """A warning where none of the files is one that the configuration names. Nothing is said where a name to train on is
    that of a data set in a hub, or nothing stands there on this machine."""
    places = [_found(name, config) for name in train]
    if not files or not places or not all(places):
        return
    named = [file for place in (*places, *(_found(name, config) for name in held_out)) for file in place]
    with reported("cannot compare the data"):
        if any(_same(file, one) for one in files for file in named):
            return
    more = f" and {len(train) - 1} more" if len(train) > 1 else ""
    said = f"it trains on {train[0]}{more}, not on {files[0]}: check that file, or name this one in the configuration"
    yield Problem(str(config), 0, "warning", said)


def _found(name: str, config: Path) -> list[Path]:
    """The files of a name; relative ones are looked for from here and beside the configuration."""
    for place in (name, os.path.join(config.parent, name)) if name else ():
        inside = os.path.join(glob.escape(place), "*") if os.path.isdir(place) else place
        names = glob.glob(inside) if "*" in inside else [place]
        if files := [Path(file) for file in sorted(names) if os.path.isfile(file)]:
            return files
    return []


def _same(one: Path, other: Path) -> bool:
    """Also a copy."""
    return one.resolve() == other.resolve() or filecmp.cmp(one, other, shallow=False)
