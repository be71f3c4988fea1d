"""The documentation is run: python blocks are executed, those with a title are files, and `rollforge` commands must succeed.

A block after `<!-- not run: reason -->` is left out (it needs a server, say). Blocks of one page share a folder, in order.
What there is to be set is told somewhere.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest

from rollforge.collect.config import AgentConfig, Budget, CollectConfig, Deadlines, ModelConfig
from rollforge.config import Section
from rollforge.evaluate.config import EvalConfig
from rollforge.loop.config import LoopConfig, Target
from rollforge.serve.settings import Settings
from rollforge.train.config import Evaluation, Lora, TrainConfig

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(
    r"^(?P<skip><!-- not run:[^\n]*-->\n\n?)?```(?P<info>[^\n]*)\n(?P<body>.*?)^```", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    info: str
    body: str


def blocks(page: Path) -> list[Block]:
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    kept = [Block(m["info"], m["body"]) for m in found if not m["skip"]]
    return [block for block in kept if block.info.split(" ")[0] in ("python", "bash", "yaml", "json")]


def run(command: list[str], folder: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page: Path, tmp_path: Path) -> None:
    for block in blocks(page):
        title = re.search(r'title="([^"]+)"', block.info)
        if title:
            (tmp_path / title[1]).write_text(block.body, encoding="utf-8")
        elif block.info.startswith("python"):
            run([sys.executable, "-c", block.body], tmp_path)
        elif block.info.startswith("bash"):
            for line in block.body.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["rollforge"]:
                    run(words, tmp_path)


@pytest.mark.parametrize(
    "section",
    [
        *(CollectConfig, ModelConfig, AgentConfig, Deadlines, Budget, EvalConfig),
        *(TrainConfig, Evaluation, Lora, LoopConfig, Target, Settings),
    ],
)
def test_every_key_of_a_configuration_is_told(section: type[Section]) -> None:
    told = "\n".join(page.read_text(encoding="utf-8") for page in PAGES).replace("--", "").replace("-", "_")
    assert [name for name in section.model_fields if not re.search(rf"\b{name}\b", told)] == []


def test_every_page_is_in_the_menu_and_linked_from_the_first() -> None:
    pages = {str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/**/*.md")} - {"index.md"}
    menu = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    linked = set(re.findall(r"\]\(([\w/-]+\.md)\)", (ROOT / "docs/index.md").read_text(encoding="utf-8")))
    assert pages | {"index.md"} == menu
    assert {page for page in pages if not page.startswith("adr/")} == linked


def test_the_signatures_of_verifiers_are_as_told() -> None:
    page = (ROOT / "docs/reference/verifiers.md").read_text(encoding="utf-8")
    compared = set()
    for name, text in re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL):
        module = import_module(f"rollforge.verify.{name}")
        for function, arguments in re.findall(r"`(?:await )?([a-z_]+)(\([^`]*=[^`]*\))`", text):
            told = ast.parse(f"def f{arguments}: ...").body[0]
            assert isinstance(told, ast.FunctionDef)
            there = signature(getattr(module, function)).parameters.values()
            by_place = [one.name for one in there if one.kind is one.POSITIONAL_OR_KEYWORD]
            assert [one.arg for one in told.args.args] == by_place[: len(told.args.args)], function
            assert {one.arg for one in told.args.kwonlyargs} <= {one.name for one in there}, function
            compared.add(function)
    assert {"code", "sql", "rubric", "scored", "string_match"} <= compared
