"""Environments by reference: files, modules, names, entry points, classes that were never decorated; and what goes wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rollforge as rf
from rollforge.envs.decorate import PythonEnv
from rollforge.envs.load import as_env
from rollforge.errors import UserError
from rollforge.registry import BUILT_IN
from tests.envs.drive import attempt, task

SOURCE = '''
import neighbour
import rollforge as rf

NUMBER = 5


@rf.env(tasks=[{"prompt": "?", "answer": "4"}])
def one(reply: str, answer: str) -> float:
    return float(answer in reply) * neighbour.WEIGHT


@rf.env
class Two:
    def tool(self) -> str:
        """A tool."""
        return "done"

    def verify(self) -> float:
        return 2.0


class Trl:
    def reset(self, **row):
        self.row = row

    def look(self) -> str:
        """Look."""
        return self.row["answer"]

    def get_reward(self) -> float:
        return 3.0


class LowLevel:
    name = "low"

    def open(self, task):
        raise NotImplementedError


class NeedsMore(LowLevel):
    def __init__(self, size):
        self.size = size


class Door:
    """A tool called `open` makes no environment of the low-level kind."""

    def open(self) -> str:
        """Open it."""
        return "open"

    def verify(self) -> float:
        return 4.0


low = LowLevel()
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: Any) -> Iterator[Path]:
    """With a file of environments and a neighbour that it imports; modules loaded from it are forgotten again."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine.py").write_text(SOURCE)
    (tmp_path / "neighbour.py").write_text("WEIGHT = 1.0\n")
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


async def reward(env: Any) -> float:
    try:
        return (await attempt(env, task(answer="4"), "4")).reward
    finally:
        await env.aclose()


@pytest.mark.parametrize(("name", "expected"), [("one", 1.0), ("Two", 2.0), ("Trl", 3.0), ("Door", 4.0)])
async def test_an_environment_in_a_file(folder: Path, name: str, expected: float) -> None:
    assert await reward(rf.load_env(f"{folder}/mine.py:{name}")) == expected


async def test_an_environment_in_a_file_of_the_working_directory(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(folder)
    assert await reward(rf.load_env("mine.py:one")) == 1.0
    assert await reward(rf.load_env("./mine.py:one")) == 1.0


async def test_an_environment_in_a_module(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(folder)
    package = folder / "my_package_for_load"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "envs.py").write_text(
        "from ._weights import W\nimport rollforge as rf\n\n@rf.env\ndef three(reply): return W\n"
    )
    (package / "_weights.py").write_text("W = 3.0\n")
    assert await reward(rf.load_env("my_package_for_load.envs:three")) == 3.0
    with pytest.raises(UserError, match=r"a file with relative imports is named package.module:name"):
        rf.load_env(f"{package}/envs.py:three")


def test_a_file_is_loaded_once_and_two_of_one_name_do_not_meet(folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    (other / "mine.py").write_text("import rollforge as rf\n\n@rf.env\ndef one(reply): return 0.0\n")
    first = rf.load_env(f"{folder}/mine.py:one")
    assert rf.load_env(f"{folder}/../{folder.name}/mine.py:one") is first
    assert rf.load_env(f"{other}/mine.py:one") is not first


def test_the_only_environment_of_a_file_needs_no_name(folder: Path) -> None:
    (folder / "single.py").write_text("import rollforge as rf\n\n@rf.env\ndef only(reply): return 0.0\n\nalias = only\n")
    (folder / "imports.py").write_text(
        "from single import only\nimport rollforge as rf\n\n@rf.env\ndef own(reply): return 1.0\n"
    )
    (folder / "reexports.py").write_text("from single import only\n")
    found = {name: rf.load_env(f"{folder}/{name}.py") for name in ("single", "imports", "reexports")}
    assert {name: env.name for name, env in found.items()} == {"single": "only", "imports": "own", "reexports": "only"}  # type: ignore[attr-defined]


def test_a_low_level_environment_is_taken_as_it_is(folder: Path) -> None:
    assert rf.load_env(f"{folder}/mine.py:low").name == "low"  # type: ignore[attr-defined]
    assert not isinstance(rf.load_env(f"{folder}/mine.py:LowLevel"), (type, PythonEnv))


@pytest.mark.parametrize("name", BUILT_IN["env"])
def test_every_built_in_environment_is_there(name: str) -> None:
    env = rf.load_env(name)
    assert (env.name, bool(env.description)) == (name, True)  # type: ignore[attr-defined]


WRONG = [
    (
        "arithmetik",
        "unknown environment 'arithmetik'; did you mean arithmetic? (list them: rollforge env list; or give path",
    ),
    ("", "unknown environment ''; known: "),
    (
        "127.0.0.1:8192",
        "127.0.0.1:8192 is an address without a scheme: a service is named by its URL, http://127.0.0.1:8192",
    ),
    ("localhost:8192/x", "localhost:8192/x is an address without a scheme"),
    ("[::1]:8192", "[::1]:8192 is an address without a scheme"),
    ("HTTP://me:secret@LOCALHOST", "a URL that begins with HTTP:// is not known: write its scheme and its host in small"),
    ("{}/falling.py:one", "there is no file {}/falling.py (beside it: {}/failing.py)"),
    ("{}/xyzzy.py", "there is no file {}/xyzzy.py (beside it: {}/broken.py, {}/exiting.py, "),
    ("{}/nowhere/nothing.py", "there is no file {}/nowhere/nothing.py"),
    ("{}/mine", "{}/mine does not exist; an environment in a file is written path/to/file.py:name"),
    ("{}", "{} is not a Python file; an environment in a file is written path/to/file.py:name"),
    ("{}/mine.py", "{}/mine.py defines 2 environments; say which: {}/mine.py:one or {}/mine.py:Two"),
    ("{}/mine.py:on", "unknown name in {}/mine.py 'on'; did you mean one?"),
    ("{}/mine.py:xyzzy", "unknown name in {}/mine.py 'xyzzy'; known: Two, one"),
    ("{}/mine.py:NUMBER", "{}/mine.py:NUMBER is int, not an environment: decorate it with @rollforge.env"),
    ("{}/mine.py:neighbour", "{}/mine.py:neighbour is module, not an environment"),
    ("{}/mine.py:NeedsMore", "{}/mine.py:NeedsMore cannot be made without arguments: TypeError: "),
    ("{}/neighbour.py", "{}/neighbour.py defines no environment: decorate a function or class with @rollforge.env"),
    ("{}/broken.py", "{}/broken.py cannot be imported: SyntaxError: "),
    ("{}/failing.py", "{}/failing.py cannot be imported: ZeroDivisionError: division by zero (failing.py:1)"),
    ("{}/exiting.py", "{}/exiting.py cannot be imported: SystemExit: 3 (exiting.py:2)"),
    (
        "{}/wrong.py",
        "{}/wrong.py cannot be imported: UserError: the class Nothing has neither verify(self, ...) nor get_reward",
    ),
    (
        "{}/plain.py",
        "{}/plain.py defines no environment: decorate a function or class with @rollforge.env (or name a class of",
    ),
    ("no_such_package_here:one", "there is no module 'no_such_package_here' (from 'no_such_package_here:one')"),
    ("rollforge.no_such:one", "there is no module 'rollforge.no_such' (from 'rollforge.no_such:one')"),
    ("rollforge.envs.decorate:env", "rollforge.envs.decorate:env is function, not an environment"),
    ("rollforge.envs.decorate:envv", "unknown name in rollforge.envs.decorate 'envv'; did you mean env?"),
    ("not a module:one", "'not a module:one' is not of the form package.module:name"),
    (":one", "':one' is not of the form package.module:name"),
    (".relative:one", "'.relative:one' is not of the form package.module:name"),
]


@pytest.mark.parametrize(("reference", "message"), WRONG)
def test_what_is_wrong_with_a_reference(folder: Path, reference: str, message: str) -> None:
    (folder / "broken.py").write_text("def x(:\n")
    (folder / "failing.py").write_text("1 / 0\n")
    (folder / "exiting.py").write_text("import sys\nsys.exit(3)\n")
    (folder / "wrong.py").write_text("import rollforge as rf\n\n@rf.env\nclass Nothing: pass\n")
    (folder / "plain.py").write_text("class Judge:\n    def verify(self): return 0.0\n")
    with pytest.raises(UserError) as error:
        rf.load_env(reference.replace("{}", str(folder)))
    assert str(error.value).startswith(message.replace("{}", str(folder)))


def test_a_file_that_failed_can_be_mended_and_loaded(folder: Path) -> None:
    path = folder / "mended.py"
    path.write_text("1 / 0\n")
    with pytest.raises(UserError, match="division by zero"):
        rf.load_env(str(path))
    path.write_text("import rollforge as rf\n\n@rf.env\ndef fine(reply): return 0.0\n")
    assert rf.load_env(str(path)).name == "fine"  # type: ignore[attr-defined]


@pytest.mark.parametrize("found", [5, "arithmetic", len, dict, subprocess])
def test_what_is_no_environment(found: Any) -> None:
    with pytest.raises(UserError, match=r"^it is .*, not an environment: decorate it with @rollforge\.env$"):
        as_env(found, "it")
