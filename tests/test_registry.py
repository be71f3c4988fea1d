"""Names to components: built in, from other packages, by module; and the errors that name what is near."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from rollforge.envs.load import load_env
from rollforge.errors import UserError, unknown
from rollforge.registry import BUILT_IN, attribute, known, resolve


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: Any) -> Path:
    """A package that brings an environment and a model, as pip would have installed it."""
    info = tmp_path / "my_pack-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-pack\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[rollforge.envs]\nbakery = my_pack_envs:bakery\narithmetic = my_pack_envs:bakery\n"
        "lost = my_pack_gone:lost\nnameless = my_pack_envs:nothing [extra]\n\n"
        "[rollforge.models]\nmine = my_pack_envs:Nested.load\n"
    )
    (tmp_path / "my_pack_envs.py").write_text(
        "import rollforge as rf\n\n@rf.env(name='bakery')\ndef bakery(reply): return 0.0\n\n"
        "class Nested:\n    @staticmethod\n    def load(name, options): return name\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_pack_envs", None)


def test_other_packages_add_names(installed: Path) -> None:
    assert load_env("bakery").name == "bakery"  # type: ignore[attr-defined]
    assert resolve("model", "mine")("x", None) == "x"
    assert known("env")["bakery"] == "my_pack_envs:bakery"
    assert set(BUILT_IN["env"]) < set(known("env"))


def test_a_built_in_name_is_not_taken_over(installed: Path) -> None:
    assert load_env("arithmetic").name == "arithmetic"  # type: ignore[attr-defined]
    assert known("env")["arithmetic"] == BUILT_IN["env"]["arithmetic"]


def test_a_broken_entry_point_says_so_when_it_is_used(installed: Path) -> None:
    with pytest.raises(UserError, match="there is no module 'my_pack_gone'"):
        resolve("env", "lost")
    with pytest.raises(UserError, match="unknown name in my_pack_envs 'nothing'"):
        resolve("env", "nameless")


@pytest.mark.parametrize("kind", ["env", "model"])
def test_every_built_in_name_leads_somewhere(kind: Any) -> None:
    for name in BUILT_IN[kind]:
        assert resolve(kind, name) is not None


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("env", "aritmetic", "unknown environment 'aritmetic'; did you mean arithmetic"),
        ("env", "zzz", "unknown environment 'zzz'; known: arc, arithmetic, "),
        ("model", "opnai", "unknown model 'opnai'; did you mean openai"),
    ],
)
def test_an_unknown_name_lists_the_nearest(kind: Any, name: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        resolve(kind, name, "(list them)")
    assert str(error.value).startswith(message)


def test_a_module_that_needs_another_says_which_to_install(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "needy_mod.py").write_text("import needed_elsewhere.part\n")
    (tmp_path / "needy_mod_too.py").write_text("import needy\n")
    (tmp_path / "failing_mod.py").write_text("raise OSError('no disk')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        UserError, match=r"^'needy_mod:x' needs the module 'needed_elsewhere': pip install needed_elsewhere$"
    ):
        attribute("needy_mod:x")
    with pytest.raises(UserError, match=r"^'needy_mod_too:x' needs the module 'needy': pip install needy$"):
        attribute("needy_mod_too:x")
    with pytest.raises(UserError, match=r"^failing_mod cannot be imported: OSError: no disk \(failing_mod.py:1\)$"):
        attribute("failing_mod:x")


def test_an_attribute_may_lie_deeper() -> None:
    assert attribute("collections:OrderedDict.fromkeys") == __import__("collections").OrderedDict.fromkeys
    assert attribute("json.decoder").__name__ == "json.decoder"
    with pytest.raises(UserError, match="unknown name in collections 'fromkey'; did you mean fromkeys"):
        attribute("collections:OrderedDict.fromkey")


def test_a_long_list_of_known_names_is_cut() -> None:
    text = str(unknown("thing", "zz", (f"name{number}" for number in range(1000))))
    assert text.startswith("unknown thing 'zz'; known: name0, name1, ")
    assert text.endswith(", ... (1000)")
    assert len(text) < 500
    assert str(unknown("key", "model.nmae", ["name", "size"])) == "unknown key 'model.nmae'; did you mean name?"
    assert str(unknown("key", "x", [])) == "unknown key 'x'; known: none"
