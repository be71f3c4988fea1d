"""NeMo Gym's configuration: merging, directives, interpolation, servers, and what may be shown of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rollforge.errors import UserError
from rollforge.nemo.arguments import parse_arguments, value
from rollforge.nemo.config import GymConfig, read_config
from rollforge.nemo.directives import directed
from rollforge.nemo.secrets import shown

AGENT = """
{name}_agent:
  responses_api_agents:
    simple_agent:
      entrypoint: app.py
      resources_server: {{type: resources_servers, name: {name}}}
      model_server: {{type: responses_api_models, name: policy_model}}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NEMO_GYM_EXTRA_ROOTS", raising=False)


def write(path: str, content: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content)


def read(*words: str, **options: Any) -> GymConfig:
    return read_config(parse_arguments(words), **options)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("1", 1),
        ("1e-5", 1e-5),
        ("true", True),
        ("null", None),
        ("", ""),
        ("'1'", "1"),
        ("a b,c=(d)", "a b,c=(d)"),
        ("out/*.jsonl", "out/*.jsonl"),
        ("*.jsonl", "*.jsonl"),
        ("@file", "@file"),
        ("a: b", "a: b"),
        ("2024-01-02", "2024-01-02"),
        ("[a/b.yaml,c.yaml]", ["a/b.yaml", "c.yaml"]),
        ("[]", []),
        ("{a:1,b: [x,2]}", {"a": 1, "b": ["x", 2]}),
        ("{agent:4,_default:1}", {"agent": 4, "_default": 1}),
        ("${inherit_from:a.b}", "${inherit_from:a.b}"),
        ("TRUE", True),
        ("NULL", None),
        ("-1_000", -1000),
        (".5", 0.5),
        ("[05,yes,'1',007,1e3]", ["05", "yes", "1", "007", 1000.0]),
        ("{007:x,12:30,yes: on}", {"007": "x", "12": 30, "yes": "on"}),
        *((text, text) for text in ("05", "007", "yes", "on", "off", "12:30:45", "0x10", "0b1", "1__0", "~", ".inf")),
    ],
)
def test_values_of_arguments(text: str, meant: object) -> None:
    assert value(text) == meant
    assert type(value(text)) is type(meant)


@given(st.text(st.characters(codec="utf-8", exclude_characters="[{\"'"), max_size=40))
def test_a_value_that_is_no_list_is_never_refused(text: str) -> None:
    assert isinstance(value(text.strip()), str | int | float | None)


def test_arguments_nest_and_later_ones_win() -> None:
    found = parse_arguments(["+a.b=1", "++a.c=2", "a.b=3", "~x.y", "+p.q={r:1}", "+p.q.s=2"])
    assert found.values == {"a": {"b": 3, "c": 2}, "p": {"q": {"r": 1, "s": 2}}}
    assert found.deleted == ("x.y",)


@pytest.mark.parametrize("word", ["nothing", "+=1", "+a..b=1", "+++a=1", "+a b=1", "--limit", "+a=[1"])
def test_words_that_are_no_arguments_are_named(word: str) -> None:
    with pytest.raises(UserError) as error:
        parse_arguments([word])
    assert word.partition("=")[0].strip("+") in str(error.value)


def test_a_list_that_does_not_end_is_told_by_its_key() -> None:
    with pytest.raises(UserError, match=r"^a\.b: \[1,2 is no \[list\]"):
        parse_arguments(["+a.b=[1,2"])


def test_later_files_win_then_env_yaml_then_arguments() -> None:
    write("a.yaml", "config_paths: [inner.yaml]\nx: a\ny: a\nz: a\nw: a\n")
    write("inner.yaml", "config_paths: [a.yaml]\nx: inner\ninner: 1\n")
    write("b.yaml", "y: b\nz: b\nw: b\n")
    write("env.yaml", "z: env\nw: env\n")
    found = read("+config_paths=[a.yaml,b.yaml]", "++w=argument").values
    assert {key: found[key] for key in ("x", "y", "z", "w", "inner")} == {
        "x": "a",
        "y": "b",
        "z": "env",
        "w": "argument",
        "inner": 1,
    }


def test_env_yaml_may_name_the_files() -> None:
    write("a.yaml", "x: ${y}\n")
    write("env.yaml", "config_paths: [a.yaml]\ny: 3\n")
    assert read().values["x"] == 3


def test_extra_roots_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("a.yaml", "x: here\n")
    write("more/a.yaml", "x: there\n")
    monkeypatch.setenv("NEMO_GYM_EXTRA_ROOTS", str(tmp_path / "more"))
    assert read("+config_paths=[a.yaml]").values["x"] == "there"


def test_a_file_that_is_not_there_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no configs/nope\.yaml") as error:
        read("+config_paths=[configs/nope.yaml]")
    assert str(tmp_path) in str(error.value)


def test_interpolation_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "yes")
    write("a.yaml", "a: {b: [1, {c: 2}]}\nd: ${a.b[1].c}\ne: ${oc.env:HERE}\nf: ${oc.env:NOT_HERE,fallback}\ng: ${a}\n")
    found = read("+config_paths=[a.yaml]").values
    assert (found["d"], found["e"], found["f"], found["g"]) == (2, "yes", "fallback", {"b": [1, {"c": 2}]})


def test_everything_missing_is_told_at_once() -> None:
    write("a.yaml", "a: ???\nb: {c: '???', d: '${nope}'}\nl: [1, '???']\n")
    with pytest.raises(UserError) as error:
        read("+config_paths=[a.yaml]")
    assert all(text in str(error.value) for text in ("a is not set", "b.c is not set", "nope", "l[1] is not set"))
    assert read("+config_paths=[a.yaml]", strict=False).values["b"] == {"c": "???", "d": "${nope}"}


def test_inheriting_moves_and_copying_keeps() -> None:
    found = directed(
        {
            "base": {"x": {"a": 1, "b": 2}, "y": 5},
            "moved": {"_inherit_from": "base.x", "b": 3},
            "copied": {"_copy": "base", "_delete_key": "y", "x": {"a": 9}},
            "value": "${copy:base.y}",
            "listed": [{"_copy": "base.x"}],
        }
    )
    assert found == {
        "base": {"y": 5},
        "moved": {"a": 1, "b": 3},
        "copied": {"x": {"a": 9, "b": 2}},
        "value": 5,
        "listed": [{"a": 1, "b": 2}],
    }


def test_what_is_inherited_may_inherit() -> None:
    found = directed({"a": {"x": 1}, "b": {"_copy": "a", "y": 2}, "c": {"_inherit_from": "b", "z": 3}})
    assert found == {"a": {"x": 1}, "c": {"x": 1, "y": 2, "z": 3}}


def test_a_place_without_a_value_is_missing_where_it_is_taken_too() -> None:
    assert directed({"a": "???", "b": "${copy:a}", "c": {"_copy": "a.x"}})["c"] == "???"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"a": {"_copy": "nope"}}, "nope"),
        ({"a": {"_copy": "b"}, "b": {"_copy": "a"}}, "circle"),
        ({"a": {"_copy": "b"}, "b": 1}, "not keys and values"),
        ({"a": {"_delete_key": "x", "y": 1}}, "_delete_key"),
    ],
)
def test_directives_that_cannot_be_followed_say_why(values: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        directed(values)


def test_servers_are_three_levels_and_their_references_exist() -> None:
    write("a.yaml", AGENT.format(name="mine") + "mine: {resources_servers: {mine: {entrypoint: app.py}}}\n")
    with pytest.raises(UserError, match=r"policy_model.*mine_agent|mine_agent.*policy_model"):
        read("+config_paths=[a.yaml]")
    write("m.yaml", "policy_model2: {responses_api_models: {rollforge: {model: tiny}}}\n")
    with pytest.raises(UserError, match="did you mean policy_model2"):
        read("+config_paths=[a.yaml,m.yaml]")
    found = read(
        "+config_paths=[a.yaml,m.yaml]", "++mine_agent.responses_api_agents.simple_agent.model_server.name=policy_model2"
    )
    assert [(server.name, server.type, server.implementation) for server in found.servers] == [
        ("mine_agent", "responses_api_agents", "simple_agent"),
        ("mine", "resources_servers", "mine"),
        ("policy_model2", "responses_api_models", "rollforge"),
    ]
    assert found.servers[0].target("resources_server") == "mine"


def test_a_reference_inside_a_value_is_warned_of() -> None:
    write(
        "a.yaml",
        "mine: {resources_servers: {mine: {verifiers: {math: {type: resources_servers, name: maths}}}}}\n",
    )
    assert read("+config_paths=[a.yaml]").warnings == (
        "unknown resources_servers in mine.verifiers.math: 'maths'; known: mine (is its file among config_paths?)",
    )
    with pytest.raises(UserError, match=r"in mine\.math:"):
        read("+config_paths=[a.yaml]", "++mine.resources_servers.mine.math={type: resources_servers, name: maths}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x: {resource_servers: {a: {}}}", "should be 'resources_servers'"),
        ("x: {resources_servers: {a: {}, b: {}}}", "one implementation"),
        ("x: {resources_servers: [a]}", "one implementation"),
        ("x: {resources_servers: {a: 1}}", "not keys and values"),
        ("a: 1\na: 2", "given twice"),
        ("- a", "not keys and values"),
        ("a: [", "a.yaml:"),
    ],
)
def test_files_that_are_nearly_right_are_told_what_is_wrong(text: str, told: str) -> None:
    write("a.yaml", text)
    with pytest.raises(UserError) as error:
        read("+config_paths=[a.yaml]")
    assert told in str(error.value)


def test_known_files_of_nemo_gym_need_not_be_here() -> None:
    write("env.yaml", "policy_base_url: http://x/v1\npolicy_api_key: k\npolicy_model_name: m\n")
    found = read(
        "+config_paths=[resources_servers/mcqa/configs/mcqa.yaml,responses_api_models/vllm_model/configs/vllm_model_for_training.yaml]"
    )
    model = found.of_type("responses_api_models")["policy_model"]
    assert model.block["base_url"] == "http://x/v1"
    assert model.block["return_token_id_information"] is True
    assert "mcqa_simple_agent" in found.of_type("responses_api_agents")


@pytest.mark.parametrize(
    ("path", "agent", "implementation"),
    [
        ("blackjack/configs/blackjack", "blackjack_gymnasium_agent", "gymnasium_agent"),
        ("grl_sokoban/configs/grl_sokoban", "grl_sokoban_gymnasium_agent", "gymnasium_agent"),
        ("structured_outputs/configs/structured_outputs", "structured_outputs_simple_agent", "simple_agent"),
        ("structured_outputs/configs/structured_outputs_v4", "structured_outputs_v4_simple_agent", "simple_agent"),
        ("reasoning_gym/configs/reasoning_gym", "reasoning_gym_simple_agent", "simple_agent"),
    ],
)
def test_agents_are_called_as_the_rows_call_them(path: str, agent: str, implementation: str) -> None:
    write("m.yaml", "policy_model: {responses_api_models: {rollforge: {model: tiny}}}\n")
    found = read(f"+config_paths=[resources_servers/{path}.yaml,m.yaml]")
    assert {one.name: one.implementation for one in found.of_type("responses_api_agents").values()} == {
        agent: implementation
    }
    assert found.of_type("resources_servers").keys() == {path.partition("/")[0]}


def test_deleted_keys_are_gone_and_unknown_ones_are_an_error() -> None:
    write("a.yaml", "a: {b: 1, c: 2}\n")
    assert read("+config_paths=[a.yaml]", "~a.b").values["a"] == {"c": 2}
    with pytest.raises(UserError, match="key to delete"):
        read("+config_paths=[a.yaml]", "~a.x")


def test_arguments_that_nothing_refers_to_are_told() -> None:
    write("a.yaml", "a: ${used}\nb: 1\n")
    assert read("+config_paths=[a.yaml]", "++used=1", "++b=2", "++typo=3").unused == ("config_paths", "typo")


def test_nothing_secret_is_shown_wherever_interpolation_took_it() -> None:
    write(
        "env.yaml", "policy_api_key: sk-very-secret\nhf_token: hf_secret_too\npolicy_base_url: http://me:pw@host/v1?key=1\n"
    )
    write(
        "a.yaml",
        "m: {responses_api_models: {openai_model: {openai_api_key: '${policy_api_key}', note: 'uses ${policy_api_key}', "
        "openai_base_url: '${policy_base_url}', default_headers: {X-Api-Key: other-secret, Authorization: Bearer "
        "third-secret}, return_token_id_information: true, openai_model: m}}}\ncopy: third-secret\n",
    )
    values = read("+config_paths=[a.yaml]").values
    text = yaml.safe_dump(shown(values))
    assert not [secret for secret in ("very-secret", "secret_too", "pw@", "other-secret", "third-secret") if secret in text]
    assert shown(values)["m"]["responses_api_models"]["openai_model"]["return_token_id_information"] is True
    assert values["policy_api_key"] == "sk-very-secret"
