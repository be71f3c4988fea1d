"""Recipes: steps in their order, and errors that say where."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from rollforge.curate.recipe import STEPS, make_recipe, read_recipe
from rollforge.errors import UserError
from rollforge.registry import attribute


def names(recipe: Any) -> list[str]:
    return [step.name for step in recipe.steps]


def test_steps_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("seed: 3\nsteps:\n  - shape: clip\n  - balance:\n  - balance: {by: [env, difficulty], cap: 5}\n")
    recipe = read_recipe(file)
    assert names(recipe) == ["clip rewards to -1..1", "balance by env", "balance by env and difficulty"]
    assert recipe.seed == 3


def test_what_must_come_first_comes_first() -> None:
    recipe = make_recipe({"steps": ["balance", {"balance": "difficulty"}, {"balance": ["difficulty", "env"]}]})
    assert [step.name for step in recipe.chain][:2] == ["measure difficulty", "balance by env"]
    assert len(recipe.chain) == 4


def test_the_resolved_recipe_is_a_recipe(tmp_path: Path) -> None:
    recipe = make_recipe({"steps": [{"shape": "scale"}, {"mix": {"weights": {"a": 0.5, "b": 1}}}]}).then(
        make_recipe({"steps": [{"filter": "reward >= 0.5"}]})
    )
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe.text(9)))
    again = read_recipe(file)
    assert names(again) == names(recipe)
    assert again.text(again.seed) == recipe.text(9)


@pytest.mark.parametrize(
    "step",
    [
        {"split": {"near": None}},
        {"preset": {"name": "sft", "min_reward": None}},
        {"preset": {"name": "dpo", "min_gap": None}},
    ],
)
def test_a_null_stays_a_null(tmp_path: Path, step: dict[str, Any]) -> None:
    recipe = make_recipe({"steps": [step]})
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe.text(0)))
    ((name, values),) = step.items()
    again = read_recipe(file).resolved[0][name]
    assert {key: again[key] for key in values} == values
    assert again == recipe.resolved[0][name]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            [{"mix": {"weights": {"a": float("inf")}}}],
            r"weights\.a: Input should be less than or equal to 1000000000 \(got inf",
        ),
        ([{"mix": {"weights": {"a": 1e308, "b": 1e308}}}], r"weights\.a: Input should be less"),
        ([{"shape": {"method": "clip", "range": [0, float("inf")]}}], r"its bounds are 1e\+100 at most"),
        ([{"shape": {"method": "scale", "range": [-1e308, 1e308]}}], r"its bounds are 1e\+100 at most"),
        ([{"preset": {"name": "ppo", "success": float("nan")}}], r"success: .*finite"),
        ([{"split": {"previous": 5}}], r"previous"),
        (["blance"], r"unknown step 'blance'; did you mean balance\? \(in r\.yaml, step 1\)"),
        (["balance", 7], r"r\.yaml, step 2: 7 is no step; write `- name`"),
        ([{}], "step 1: {} is no step"),
        ([{"balance": None, "mix": None}], r"step 1 has several keys \(balance, mix\)"),
        ([{"balance": {"cop": 5}}], r"unknown key 'cop'; did you mean cap\? \(in r\.yaml, step 1 \(balance\)\)"),
        ([{"mix": {"weigths": {"a": 1}}}], r"unknown key 'weigths'; did you mean weights\? \(in r\.yaml, step 1 \(mix\)\)"),
        ([{"balance": {"cap": 0}}], r"step 1 \(balance\): cap: .*greater than or equal to 1 \(got 0\)"),
        ([{"balance": {"cap": 5, "counts": {"a": 1}}}], r"step 1 \(balance\): cap and counts exclude each other"),
        ([{"balance": {"shares": {"a": 0.5, "b": 0.4}}}], r"shares add up to 0\.9, not 1"),
        ([{"mix": 5}], r"step 1 \(mix\): 5 is int, not arguments; known: weights, "),
        ([{"mix": None}], r"step 1 \(mix\): weights: Field required"),
        ([{"mix": {"weights": {"a": -1}}}], r"weights are positive numbers"),
        ([{"shape": "normal"}], r"step 1 \(shape\): method: Input should be 'scale', 'standardize' or 'clip'"),
        ([{"shape": {"method": "scale", "range": [1, 0]}}], r"range goes from 1 to 0"),
        ([{"filter": "reward >="}], r"r\.yaml, step 1 \(filter\): "),
    ],
)
def test_errors_say_where(steps: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_recipe({"steps": steps}, "r.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stps: []", r"recipe\.yaml.*|unknown key 'stps'; did you mean steps"),
        ("steps: 5", r"recipe\.yaml: steps: Input should be a valid list \(got 5\)"),
        ("- balance", "the file holds list, not keys and values"),
        ("steps: [", r"recipe\.yaml:\d: not YAML"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_recipe(tmp_path / "recipe.yaml")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_recipe(tmp_path / "recipe.yaml")


def test_every_argument_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/curate.md").read_text(encoding="utf-8")
    for step, where in STEPS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{step}` |"))
        told = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", row))))
        assert set(attribute(where).model_fields) <= told, step
