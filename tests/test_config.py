"""Configuration: YAML and overrides into typed classes; what is wrong is named with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, field_validator, model_validator

from rollforge.config import Section, merge, parse_set, read_yaml, validate
from rollforge.errors import UserError


class Sampling(Section):
    temperature: float = 1.0
    stop: tuple[str, ...] = ()


class Model(Section):
    name: str
    sampling: Sampling = Sampling()
    extra: dict[str, Any] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def check(cls, name: str) -> str:
        if name == "bad":
            raise ValueError("it is bad")
        return name


class Config(Section):
    model: Model
    judge: Model | None = None
    others: tuple[Model, ...] = ()
    low: int = 0
    high: int = 10

    @model_validator(mode="after")
    def order(self) -> Config:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "config.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        ("# nothing\n", {}),
        ("a: 1\nb: {c: [x, 2]}\n", {"a": 1, "b": {"c": ["x", 2]}}),
        (
            "rate: 1e-5\nother: -2.5E+3\nhash: 1e5x\nname: e5\n",
            {"rate": 1e-5, "other": -2500.0, "hash": "1e5x", "name": "e5"},
        ),
        ("\ufeffa: ☃\n", {"a": "☃"}),
        ("base: &b {x: 1}\nmore: {<<: *b, y: 2}\n", {"base": {"x": 1}, "more": {"x": 1, "y": 2}}),
    ],
)
def test_a_yaml_file_is_keys_and_values(tmp_path: Path, text: str, value: Any) -> None:
    assert read_yaml(written(tmp_path, text)) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1,\nb: 2\n", ":3: not YAML: expected"),
        ("a: 1\n\tb: 2\n", ":2: not YAML: "),
        ("a: 1\na: 2\n", ":2: not YAML: the key 'a' is given twice"),
        ("b:\n  a: 1\n  c: 2\n  a: 3\n", ":4: not YAML: the key 'a' is given twice"),
        ("{[1]: 2}", ":1: not YAML: found unhashable key"),
        ("a: !!python/object:os.system {}\n", ":1: not YAML: could not determine a constructor"),
        ("a: 2024-99-99\n", ": not YAML: month must be in 1..12"),
        (b"a: \xff\n", ": not YAML: "),
        ("a: \x01\n", ": not YAML: "),
        ("[" * 3000, ": not YAML: "),
        ("- 1\n- 2\n", ": the file holds list, not keys and values"),
        ("text", ": the file holds str, not keys and values"),
    ],
)
def test_what_is_no_yaml_is_named_with_its_line(tmp_path: Path, text: Any, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError) as error:
        read_yaml(path)
    assert str(error.value).startswith(f"{path}{message}")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*nowhere.yaml: No such file or directory"):
        read_yaml(tmp_path / "nowhere.yaml")
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        read_yaml(tmp_path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", {"a": 1}),
        ("a.b.c=x", {"a": {"b": {"c": "x"}}}),
        ("a=", {"a": None}),
        ("a=b=c", {"a": "b=c"}),
        ("a=[1, x]", {"a": [1, "x"]}),
        ("a={b: 1}", {"a": {"b": 1}}),
        ("a=true", {"a": True}),
        ("a=1e-5", {"a": 1e-5}),
        ("a='1'", {"a": "1"}),
        (" a =1", {"a": 1}),
        ("a=chat:Qwen/Qwen3-8B", {"a": "chat:Qwen/Qwen3-8B"}),
    ],
)
def test_an_override(text: str, value: Any) -> None:
    assert parse_set(text) == value


@pytest.mark.parametrize("text", ["a", "", "=1", "a..b=1", ".a=1", "a.=1"])
def test_what_is_no_override(text: str) -> None:
    with pytest.raises(UserError, match=r"is not of the form key=value \(a.b=value for a key inside another\)"):
        parse_set(text)


@pytest.mark.parametrize("text", ["a=[1", "a={", "a='x", "a=x: y: z", "a=2024-99-99", "a={b: 1, b: 2}"])
def test_an_override_whose_value_is_no_yaml_says_how_to_quote_it(text: str) -> None:
    with pytest.raises(UserError, match=r"the value is not YAML: .* \(quote it: a='\"\.\.\.\"'\)"):
        parse_set(text)


def test_overrides_win_key_by_key() -> None:
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 1}
    assert merge(base, {"a": {"y": [3]}, "c": 2}) == {"a": {"x": 1, "y": [3]}, "b": 1, "c": 2}
    assert merge(base, {"a": 5}) == {"a": 5, "b": 1}
    assert merge({"a": 5}, {"a": {"x": 1}}) == {"a": {"x": 1}}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": 1}


trees = st.recursive(st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=6)
mappings = st.dictionaries(st.sampled_from("abc"), trees, max_size=3)


@settings(deadline=None)
@given(mappings, mappings)
def test_merging_keeps_every_key_and_what_is_merged_twice_is_merged(a: Any, b: Any) -> None:
    merged = merge(a, b)
    assert merged.keys() == {*a, *b}
    assert merge(merged, b) == merged == merge(merged, {}) == merge({}, merged)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "here: model: Field required"),
        ({"model": {}}, "here: model.name: Field required"),
        ({"model": 5}, "here: model: Input should be a valid dictionary or instance of Model (got 5)"),
        ({"model": {"name": 5}}, "here: model.name: Input should be a valid string (got 5)"),
        ({"model": {"name": "bad"}}, "here: model.name: it is bad (got 'bad')"),
        ({"model": {"name": "x", "sampling": {"temperature": "hot"}}}, "here: model.sampling.temperature: Input should be"),
        ({"model": {"name": "x"}, "modle": 1}, "unknown key 'modle'; did you mean model? (in here)"),
        ({"model": {"name": "x", "nmae": 1}}, "unknown key 'model.nmae'; did you mean name? (in here)"),
        (
            {"model": {"name": "x", "sampling": {"temprature": 1}}},
            "unknown key 'model.sampling.temprature'; did you mean temperature?",
        ),
        (
            {"model": {"name": "x"}, "judge": {"name": "x", "smapling": {}}},
            "unknown key 'judge.smapling'; did you mean sampling?",
        ),
        (
            {"model": {"name": "x"}, "others": [{"name": "x", "xtra": {}}]},
            "unknown key 'others.0.xtra'; did you mean extra?",
        ),
        ({"model": {"name": "x"}, "low": 11}, "here: low is above high (got {"),
        ({"model": {"name": "x"}, "zzz": 1}, "unknown key 'zzz'; known: high, judge, low, model, others (in here)"),
        ({"model": {"name": "x"}, 5: 1}, "here: 5: "),
    ],
)
def test_what_is_wrong_is_named_by_its_key(values: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        validate(Config, values, "here")
    assert str(error.value).startswith(message)
    assert len(str(error.value)) < 250


def test_what_is_right_is_frozen() -> None:
    config = validate(Config, {"model": {"name": "x", "extra": {"any": {"thing": 1}}}}, "here")
    assert (config.model.name, config.model.sampling.temperature, config.model.extra) == ("x", 1.0, {"any": {"thing": 1}})
    with pytest.raises(ValueError, match="frozen"):
        config.low = 5  # type: ignore[misc]
