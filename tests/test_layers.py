"""The house has floors: a part imports only from parts below it, no two modules import each other, importing is cheap."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pytest

import rollforge

ROOT = Path(rollforge.__file__).parent

FLOORS = (
    ("errors",),
    ("registry",),
    ("records", "storage", "config"),
    ("bulk",),
    ("models", "sandbox", "stats"),
    ("verify",),
    ("envs",),
    ("agents",),
    ("collect", "curate", "export"),
    ("serve", "scale", "audit", "evaluate", "view"),
    ("train",),
    ("nemo", "loop"),
    ("cli",),
    ("__main__",),
)
"""A part may import from those above its line here; parts of one line do not know each other."""

HEAVY = (
    *("numpy", "pydantic", "msgspec", "aiohttp", "torch", "rich", "jinja2", "tokenizers"),
    *("transformers", "fastapi", "uvicorn", "pyarrow", "datasets", "trl", "verl", "openrlhf"),
)


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        names = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(names[:-1] if names[-1] == "__init__" else names)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The package's modules that a module imports anywhere in its text: lazily, under a condition, for types."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names}
    return {module for module in found if module in known}


MODULES = modules()
GRAPH = {name: imports(name, path, MODULES) - {name} for name, path in MODULES.items()}
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}


def test_every_part_has_its_floor() -> None:
    assert {part(name) for name in MODULES} - {""} <= set(FLOOR)


@pytest.mark.parametrize("name", [name for name in MODULES if part(name)])
def test_imports_go_down(name: str) -> None:
    own = FLOOR[part(name)]
    wrong = [to for to in GRAPH[name] if part(to) and part(to) != part(name) and FLOOR[part(to)] >= own]
    assert not wrong, f"{name} imports {', '.join(wrong)}, which is not below it"


def test_the_page_on_the_architecture_has_the_floors() -> None:
    page = (ROOT.parents[1] / "docs/design/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d½]+) \| (`.*?) \|", page, re.MULTILINE)
    told = [
        {name for _, parts in same for name in re.findall(r"`(\w+)`", parts)} for _, same in groupby(rows, itemgetter(0))
    ]
    there = {part(name) for name in MODULES} - {"", "__main__", "registry"}  # which shares a row with `errors`
    assert [floor - {"registry"} for floor in told] == [floor for floor in (set(floor) & there for floor in FLOORS) if floor]


def test_no_module_imports_itself_in_a_circle() -> None:
    # `rollforge` itself loads its public names when they are used; who may ask it for what is the next test.
    inside = {name: to - {"rollforge"} for name, to in GRAPH.items() if name != "rollforge"}
    try:
        TopologicalSorter(inside).prepare()
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")


def test_only_the_command_line_and_the_version_use_the_front_door() -> None:
    """`rollforge/__init__` knows everything, so a module that imports from it would know everything too."""
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "rollforge" and part(name) not in ("", "cli"):
                public = {alias.name for alias in node.names if f"rollforge.{alias.name}" not in MODULES}
                assert public <= {"__version__"}, f"{name} imports {public} from rollforge itself"


@pytest.mark.parametrize("module", ["rollforge", "rollforge.__main__", "rollforge.registry", "rollforge.records.rows"])
def test_importing_pulls_in_nothing_heavy(module: str) -> None:
    code = f"import {module}, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stderr
    assert set(HEAVY) & {name.partition(".")[0] for name in done.stdout.split()} == set()


def test_the_package_is_a_command() -> None:
    done = subprocess.run([sys.executable, "-m", "rollforge", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"rollforge {rollforge.__version__}\n"


@pytest.mark.parametrize("name", rollforge.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(rollforge, name)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rollforge.nothing
