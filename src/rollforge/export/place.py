"""Where an export is made, and how it gets its final name: in `OUT/.partial-*`, renamed when complete.

A directory that a killed run left is removed by the next one. What stood under the final name is renamed first and put back
after a kill between the two; of it goes only what its manifest names: checkpoints, logs and notes are carried over.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import orjson

from rollforge.errors import UserError, reported
from rollforge.export.writer import LINEAGE


@contextmanager
def workplace(out: Path, names: Iterable[str], overwrite: bool) -> Iterator[Path]:
    """A directory beside the final ones. Raises `UserError` where it cannot be made or one of the names is taken."""
    if out.is_file():
        raise UserError(f"{out} is a file; --out names a directory")
    fresh = not out.exists()
    try:
        with reported(f"cannot write to {out}"), ExitStack() as held:
            out.mkdir(parents=True, exist_ok=True)
            with _alone(out):  # another run would take a place that is not locked yet for one that a killed run left
                _restore(out)
                for name in names:
                    if (out / name).exists() and not overwrite:
                        raise UserError(f"{out / name} exists; --overwrite replaces it, or give another --out")
                _sweep(out)
                work = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=out))
                held.callback(shutil.rmtree, work, ignore_errors=True)
                held.enter_context(_locked(work))
            yield work
    finally:
        if fresh:
            with suppress(OSError):
                out.rmdir()


def move(made: Path, final: Path, overwrite: bool) -> list[str]:
    """Give `made` its final name. What stood there and no export had written stays: its names are returned. Raises
    `UserError` where another export was faster and `overwrite` does not replace it."""
    old = final.with_name(f"{_OLD}{final.name}")
    with _alone(final.parent):
        if final.exists():
            if not overwrite:
                raise UserError(f"{final} was made by another export meanwhile; --overwrite replaces it")
            final.rename(old)
        made.rename(final)
        return _settle(old, final) if old.exists() else []


def _restore(out: Path) -> None:
    """After a kill between the renames."""
    for old in out.glob(f"{_OLD}*"):
        final = out / old.name.removeprefix(_OLD)
        if final.exists():
            _settle(old, final)
        else:
            old.rename(final)


def _sweep(out: Path) -> None:
    """Remove the work places that nobody works in."""
    for old in out.glob(f"{_PARTIAL}*"):
        with suppress(FileNotFoundError), _locked(old) as free:
            if free:
                shutil.rmtree(old, ignore_errors=True)


def _settle(old: Path, final: Path) -> list[str]:
    kept = _carry(old, final, _written(old))
    # Under this name the next run removes it, should this one be killed now: half of it is no export's any more.
    gone = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=final.parent))
    old.rename(gone / old.name)
    shutil.rmtree(gone, ignore_errors=True)
    return kept


def _written(folder: Path) -> set[str]:
    """The files of an export, by its manifest; none where there is no manifest."""
    try:
        manifest = orjson.loads((folder / "manifest.json").read_bytes())
        names = {*manifest["files"], *manifest["beside"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return names | {"README.md", "manifest.json", "check.json", LINEAGE}


def _carry(old: Path, new: Path, written: set[str], at: str = "") -> list[str]:
    """Rename what is not `written` from one folder into the other; a name that is taken there gets `.old` at its end."""
    kept = []
    for one in sorted(old.iterdir()):
        name, to = f"{at}{one.name}", new / one.name
        if name in written:
            continue
        if one.is_dir() and not one.is_symlink() and (to.is_dir() or any(file.startswith(f"{name}/") for file in written)):
            to.mkdir(exist_ok=True)
            kept += _carry(one, to, written, f"{name}/")
            continue
        while os.path.lexists(to):
            to = to.with_name(f"{to.name}.old")
        one.rename(to)
        kept.append(f"{at}{to.name}")
    return kept


_PARTIAL, _OLD = ".partial-", ".old-"


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether nobody else has it locked."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        yield free
    finally:
        os.close(handle)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
