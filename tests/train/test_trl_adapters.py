"""TRL's interfaces: first as its trainer calls them (1.16), then by its trainer itself."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import rollforge as rf
from rollforge.cli.main import app
from rollforge.envs.base import Limits, Tool
from rollforge.errors import InfraFault, UserError, VerifierFault
from rollforge.models.tiny import SHIPPED
from rollforge.train.adapters.trl import close, environment_factory, reward_function, task_rows
from rollforge.train.adapters.trl_tools import method

Json = dict[str, Any]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close()
    assert not [one for one in threading.enumerate() if one.name == "rollforge-live"]


def said(content: str = "", *calls: tuple[str, Json]) -> Json:
    """As TRL's parser makes it: calls have no ids."""
    made = [{"type": "function", "function": {"name": name, "arguments": arguments}} for name, arguments in calls]
    return {"role": "assistant", "content": content} | ({"tool_calls": made} if made else {})


def heard(name: str, content: str) -> Json:
    return {"role": "tool", "name": name, "content": content}


def judged(function: Any, rows: list[Json], completions: list[Any], **more: Any) -> list[float | None]:
    """As the trainer calls it: every other column as a list."""
    columns = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
    prompts = [row["prompt"] for row in rows]
    found: list[float | None] = asyncio.run(function(prompts=prompts, completions=completions, **columns, **more))
    return found


class Account:
    """Money of one session."""

    closed: list[int] = []  # noqa: RUF012 - of all sessions

    def reset(self, balance: int) -> str | None:
        if balance < 0:
            raise VerifierFault("no such account")
        self.balance = balance
        return f" The balance is {balance}." if balance > 100 else None

    def pay(self, amount: int, to: str = "shop") -> str:
        """Pay an amount.

        Args:
            amount: how much
            to: whom
        """
        if amount == 13:
            raise InfraFault("the bank is away")
        self.balance -= amount
        return f"left {self.balance}"

    def balance_of(self) -> dict[str, int]:
        """Look."""
        return {"balance": self.balance}

    def verify(self, reply: str, target: int) -> dict[str, float]:
        return {"paid": 0.75 * (self.balance == target), "told": 0.25 * (str(target) in reply)}

    def close(self) -> None:
        Account.closed.append(self.balance)


@pytest.fixture
def account() -> Any:
    Account.closed = []
    made = rf.env(tasks=[{"prompt": "Pay 3 of 10.", "balance": 10, "target": 7}], name="account", inline=True)(Account)
    made.limits = Limits(5, 5)
    return made


PAID = [said("", ("pay", {"amount": 3})), heard("pay", "left 7"), said("7 are left.")]


# Reward functions


@pytest.mark.parametrize(
    ("completion", "reward"), [(PAID, 1.0), (PAID[:2], 0.75), ([said("7")], 0.25), ("7", 0.25), ([said("?")], 0.0)]
)
def test_a_reward_is_the_verdict_of_the_environment(account: Any, completion: Any, reward: float) -> None:
    function = reward_function(account)
    assert function.__name__ == "account"
    assert judged(function, task_rows(account), [completion]) == [reward]


def test_several_calls_of_one_message_are_made_again_in_their_order(account: Any, caplog: pytest.LogCaptureFixture) -> None:
    two = said("", ("balance_of", {}), ("pay", {"amount": 3}), ("pay", {"amount": 0}), ("fly", {}), ("pay", {}))
    outputs = [heard("balance_of", '{"balance": 10}'), heard("pay", "left 7"), heard("pay", "left 7")]
    wrong = [heard("fly", "{'error': 'Tool fly not found.'}"), heard("pay", "{'error': 'missing amount'}")]
    rows = task_rows(account)
    assert judged(reward_function(account), rows, [[two, *outputs, said("7")]]) == [1.0]
    assert judged(reward_function(account), rows, [[two, *outputs, wrong[0], said("7")]]) == [1.0]
    # An output that is another one now: the state was not reproduced, and nothing is judged.
    assert judged(reward_function(account), rows, [[two, *outputs, *wrong, said("7")]]) == [None]
    assert "state not reproduced" in caplog.text
    assert "--force" not in caplog.text  # an option of reverify


def test_what_cannot_be_judged_has_no_reward_and_is_told(account: Any, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"prompt": "?", "balance": balance, "target": 7} for balance in (7, -1, 9)]
    metrics: Json = {}
    extra: Json = {}
    function = reward_function(account, "bank")
    found = judged(function, rows, ["7", "7", "7"], log_metric=metrics.__setitem__, log_extra=extra.__setitem__)
    assert found == [1.0, None, 0.25]
    assert extra == {"bank/outcome": ["scored", "verifier_fault", "scored"]}
    assert metrics == {"bank/coverage": pytest.approx(2 / 3), "bank/paid": 0.375, "bank/told": 0.25}
    assert "1 of 3 completions have no verdict; the first: verifier_fault" in caplog.text
    assert "no such account" in caplog.text


def test_exported_rows_feed_it(tmp_path: Path) -> None:
    run, out = str(tmp_path / "run"), str(tmp_path / "data")
    for line in (
        ["collect", "counter", "--model", "scripted", "--limit", "6", "--out", run],
        ["export", run, "--to", "trl:grpo", "--out", out, "--validation", "0"],
    ):
        done = CliRunner().invoke(app, line)
        assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (tmp_path / "data" / "trl-grpo" / "train.jsonl").read_text().splitlines()]
    fields = [json.loads(row["fields"]) for row in rows]
    change = [one["expected_count"] - one.get("initial_count", 0) for one in fields]
    completions = [
        [said("", ("increment_counter", {"count": by})), heard("increment_counter", '{"success":true}'), said("Done.")]
        for by in change
    ]
    assert judged(reward_function("counter"), rows, completions) == [1.0] * 6
    assert judged(reward_function("counter"), rows, [[said("Done.")]] * 6) == [float(by == 0) for by in change]
    made = environment_factory("counter")()
    made.reset(**rows[0])
    made.increment_counter(count=change[0])
    assert judged(reward_function("counter"), rows[:1], [[said("Done.")]], environments=[made]) == [1.0]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": None, "target": 1}, "has no prompt"),
        ({"prompt": "?", "fields": "{"}, "the column 'fields' is no JSON"),
        ({"prompt": "?", "fields": "[]"}, "the column 'fields' is list, not an object"),
        ({"prompt": "?", "tools": "{}"}, "the column 'tools' is dict, not a list"),
        ({"prompt": [{"content": "?"}]}, "no chat message"),
    ],
)
def test_a_row_that_is_no_task_is_an_error(account: Any, row: Json, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        judged(reward_function(account), [row], ["7"])
    with pytest.raises(UserError, match=problem):
        environment_factory(account)().reset(**row)


def test_several_environments_by_a_column(account: Any) -> None:
    envs = {"sums": "arithmetic", "bank": account}
    rows = task_rows(envs, 2)
    assert [row["environment"] for row in rows] == ["sums", "bank", "sums"]
    answers = [str(json.loads(row["fields"]).get("answer")) for row in rows]
    assert judged(reward_function(envs, "both"), rows, answers) == [1.0, 0.0, 1.0]
    with pytest.raises(UserError, match="a row is of the environment 'golf'; there are: sums, bank"):
        judged(reward_function(envs), [rows[0] | {"environment": "golf"}], ["7"])


def test_a_row_without_an_expected_prompt_or_environment_is_named() -> None:
    with pytest.raises(UserError, match="no environment is named"):
        reward_function({})
    with pytest.raises(UserError, match="unknown environment 'arithmetics'"):
        reward_function("arithmetics")


# Environments


def test_each_instance_has_a_state_of_its_own(account: Any) -> None:
    made = environment_factory(account)
    row = task_rows(account)[0]
    one, two = made(), made()
    assert one.reset(**row) is None
    assert two.reset(**row) is None
    assert (one.pay(amount=3), two.pay(amount=5), one.balance_of()) == ("left 7", "left 5", '{"balance":7}')
    function = reward_function(account)
    completions = [PAID, [said("", ("pay", {"amount": 5})), heard("pay", "left 5"), said("5")]]
    assert judged(function, [row, row], completions, environments=[one, two]) == [1.0, 0.0]
    assert sorted(Account.closed[1:]) == [5, 7]  # the first was opened to ask for the tools
    # Judged again, it is what it was; used again, it begins anew.
    assert judged(function, [row], [PAID], environments=[one]) == [1.0]
    one.reset(**row)
    assert one.pay(amount=1) == "left 9"


def test_what_a_session_shows_is_told_once(account: Any) -> None:
    made = environment_factory(account)()
    row = {"prompt": [{"role": "user", "content": "Pay."}], "balance": 101, "target": 7}
    seen = made.reset(**row)
    assert seen == " The balance is 101."
    stored = row | {"prompt": [{"role": "user", "content": f"Pay.{seen}"}]}
    assert made.reset(**stored) is None


def test_wrong_calls_are_answered_as_the_environment_does(account: Any) -> None:
    made = environment_factory(account)()
    made.reset(**task_rows(account)[0])
    assert "amount: Field required" in made.pay(self=1)
    assert "valid integer" in made.pay(amount="all")
    assert made.pay(amount="4") == "left 6"


def test_a_failure_outside_of_the_policy_leaves_no_reward(account: Any) -> None:
    made = environment_factory(account)()
    row = task_rows(account)[0]
    made.reset(**row)
    assert json.loads(made.pay(amount=13))["error"] == "InfraFault: the bank is away"
    assert json.loads(made.pay(amount=1))["error"] == "InfraFault: the rollout is over"
    assert judged(reward_function(account), [row], [PAID], environments=[made]) == [None]
    assert made.reset(**row | {"balance": -1, "fields": None}) is None
    assert "the rollout is over" in made.pay(amount=1)
    assert judged(reward_function(account), [row], [PAID], environments=[made]) == [None]


def test_sessions_that_nobody_judges_are_closed(account: Any) -> None:
    factory = environment_factory(account)
    row = task_rows(account)[0]
    made = factory()
    made.reset(**row)
    made.pay(amount=2)
    made.reset(**row)
    made.pay(amount=1)
    left = factory()
    left.reset(**row)
    del left
    close()
    assert sorted(Account.closed) == [8, 9, 10, 10]


def test_the_environment_may_give_the_reward_itself() -> None:
    made = environment_factory("counter", get_reward=True)()
    row = task_rows("counter", 1)[0]
    fields = json.loads(row["fields"])
    made.reset(**row)
    made.increment_counter(count=fields["expected_count"] - fields.get("initial_count", 0))
    assert made.get_reward() == 1.0
    with pytest.raises(UserError, match="gives the reward itself"):
        judged(reward_function("counter"), [row], ["7"], environments=[made])


@pytest.mark.parametrize("name", ["blackjack", "function_calling", "user_conversation"])
def test_environments_that_are_played_by_steps_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} is played by steps"):
        environment_factory(name)


def test_misuse_is_said(account: Any) -> None:
    row = task_rows(account)[0]
    made = environment_factory(account)()
    with pytest.raises(UserError, match=r"pay was called before reset"):
        made.pay(amount=1)
    with pytest.raises(UserError, match="never reset"):
        judged(reward_function(account), [row], ["7"], environments=[made])
    with pytest.raises(UserError, match=r"other tools than its class.*\(they differ in: balance_of\)"):
        made.reset(**row | {"tools": json.dumps([{"type": "function", "function": {"name": "pay"}}])})
    with pytest.raises(UserError, match=r"there are no tasks"):
        task_rows(account, 0)
    with pytest.raises(UserError, match=r"account cannot be opened.*no such account"):
        environment_factory(account, row=row | {"fields": None, "balance": -1, "target": 1})


@pytest.mark.parametrize(
    ("tool", "problem"),
    [
        (Tool("reset"), "keeps the name of the tool 'reset'"),
        (Tool("_look"), "keeps the name of the tool '_look'"),
        (Tool("go", "", {"properties": {"from": {}}}), "parameter 'from', which is no name"),
        (Tool("go", "", {"properties": {"start-date": {}}}), "parameter 'start-date', which is no name"),
    ],
)
def test_a_tool_that_trl_cannot_be_told_of_is_refused(tool: Tool, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        method(tool)


def test_open_sessions_are_closed_when_the_program_ends(tmp_path: Path) -> None:
    (tmp_path / "notes.py").write_text(
        "import rollforge as rf\n"
        "@rf.env(tasks=[{'prompt': '?'}])\n"
        "class Notes:\n"
        "    def verify(self, reply: str) -> float: return 1.0\n"
        "    def close(self) -> None: print('closed', flush=True)\n"
    )
    program = (
        "from rollforge.train.adapters.trl import *\n"
        "made = environment_factory('notes.py:Notes'); one = made(); one.reset(prompt='?'); print('open')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["closed", "open", "closed"]
    assert done.stderr == ""


# With transformers


SCHEMAS: list[Json] = [
    {"type": "string"},
    {"type": "integer", "default": 3},
    {"type": "number"},
    {"type": "boolean"},
    {"type": "array", "items": {"type": "string"}},
    {"type": "array"},
    {"type": "object"},
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {"type": "string", "enum": ["a", "b"]},
    {"type": ["integer", "string"]},
    {},
]


@pytest.mark.extras
@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_transformers_makes_the_same_schema_of_the_method(schema: Json) -> None:
    read = pytest.importorskip("transformers.utils").get_json_schema
    parameters = {"type": "object", "properties": {"x": {**schema, "description": "what: it is"}, "y": {"type": "integer"}}}
    tool = Tool("do_it", "Does it. Returns: much.\n\nArgs: two", parameters | {"required": ["y"]})
    cls = type("Cls", (), {"do_it": method(tool)})
    found = read(cls().do_it)["function"]
    assert found["name"] == "do_it"
    assert found["description"] == "Does it. Returns - much. Args - two"
    assert found["parameters"]["required"] == ["y"]
    wanted = {name: value for name, value in schema.items() if name != "default"}
    given = {name: value for name, value in found["parameters"]["properties"]["x"].items() if value != {}}
    assert given == wanted | {"description": "what: it is"}
    assert found["parameters"]["properties"]["y"] == {"type": "integer", "description": "y"}


@pytest.mark.extras
def test_what_hints_cannot_say_is_described() -> None:
    read = pytest.importorskip("transformers.utils").get_json_schema
    point = {"type": "object", "properties": {"x": {"type": "integer", "minimum": 0}}, "required": ["x"]}
    properties = {
        "at": {"$ref": "#/$defs/Point", "description": "where"},
        "size": {"type": "integer", "maximum": 9},
        "name": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
    }
    tool = Tool(
        "draw", "Draws.", {"type": "object", "properties": properties, "$defs": {"Point": point}, "required": ["at"]}
    )
    found = read(type("Cls", (), {"draw": method(tool)})().draw)["function"]["parameters"]["properties"]
    text, _, schema = found["at"]["description"].partition(" JSON Schema: ")
    assert text == "where"
    assert json.loads(schema) == {"$ref": "#/$defs/Point", "$defs": {"Point": point}}
    assert found["size"]["type"] == "integer"
    assert found["size"]["description"] == 'size JSON Schema: {"type":"integer","maximum":9}'
    assert found["name"] == {"type": "string", "nullable": True, "description": "name"}


@pytest.mark.extras
@pytest.mark.parametrize("name", ["workplace", "calculators", "search", "python_math", "weather"])
def test_the_tools_of_the_gallery_can_be_told(name: str) -> None:
    read = pytest.importorskip("transformers.utils").get_json_schema
    made = environment_factory(name)()
    tools = [attribute for attribute in dir(type(made)) if not attribute.startswith("_") and attribute != "reset"]
    schemas = [read(getattr(made, tool))["function"] for tool in tools]
    assert [schema["name"] for schema in schemas] == tools
    assert all(schema["description"] for schema in schemas)


# By TRL's trainer, two steps each


def train(rows: list[Json], tmp_path: Path, **options: Any) -> tuple[Any, list[Json]]:
    trl = pytest.importorskip("trl")
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    datasets = importlib.import_module("datasets")
    torch.set_num_threads(1)
    settings = {"max_steps": 2, "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 128}
    quiet = {"use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "disable_tqdm": True}
    args = trl.GRPOConfig(output_dir=str(tmp_path / "out"), logging_steps=1, seed=1, **settings, **quiet)
    trainer = trl.GRPOTrainer(
        model=str(SHIPPED),
        args=args,
        processing_class=transformers.AutoTokenizer.from_pretrained(SHIPPED),
        train_dataset=datasets.Dataset.from_list(rows),
        **options,
    )
    trainer.train()
    return trainer, [entry for entry in trainer.state.log_history if "reward" in entry]


class Recorded:
    """A reward function as it is, and what it was asked and answered."""

    def __init__(self, function: Any) -> None:
        self.function, self.__name__ = function, function.__name__
        self.calls: list[tuple[list[Any], Json, list[float | None]]] = []

    async def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        found: list[float | None] = await self.function(prompts, completions, **columns)
        self.calls.append((completions, columns, found))
        return found


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
def test_trl_rewards_by_a_verifier_and_leaves_out_what_has_no_verdict(tmp_path: Path) -> None:
    @rf.env(tasks=[{"prompt": f"Add {n} and 1.", "number": n} for n in range(8)], inline=True)
    def length(reply: str, number: int) -> dict[str, float]:
        if number % 2:
            raise VerifierFault("odd")
        return {"short": float(len(reply) % 2), "said": float(bool(reply))}

    function = Recorded(reward_function(length))
    trainer, logs = train(task_rows(length), tmp_path, reward_funcs=[function])
    assert len(function.calls) == 2
    for (completions, columns, found), entry in zip(function.calls, logs, strict=True):
        numbers = [json.loads(text)["number"] for text in columns["fields"]]
        assert [one is None for one in found] == [number % 2 == 1 for number in numbers]
        scored = [one for one in found if one is not None]
        texts = [one[-1]["content"] for one in completions]
        assert scored == [len(t) % 2 + bool(t) for t, n in zip(texts, numbers, strict=True) if n % 2 == 0]
        assert float(entry["length/coverage"]) == len(scored) / 8
        if scored:
            assert float(entry["rewards/length/mean"]) == pytest.approx(sum(scored) / len(scored))
    assert trainer.state.global_step == 2


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
def test_trl_plays_an_environment_and_its_session_is_judged(tmp_path: Path) -> None:
    rows = task_rows("arithmetic", 8, split="train")
    function = Recorded(reward_function("arithmetic"))
    trainer, logs = train(rows, tmp_path, reward_funcs=[function], environment_factory=environment_factory("arithmetic"))
    called = 0
    again = reward_function("arithmetic")
    for completions, columns, found in function.calls:
        outputs = [message for one in completions for message in one if message["role"] == "tool"]
        called += len(outputs)
        assert all(not message["content"].startswith("{'error'") for message in outputs)
        assert len({id(one) for one in columns["environments"]}) == 8
        # The same completions, played again from the start by the environment, have the same verdicts.
        rest = {name: values for name, values in columns.items() if name in ("fields", "task", "tools", "env")}
        fresh = asyncio.run(again([row["prompt"] for row in _of(rows, columns)], completions, **rest))
        assert fresh == found
    assert called >= 8
    assert any(reward == 1.0 for _, _, found in function.calls for reward in found)
    assert [float(entry["rewards/arithmetic/mean"]) for entry in logs] == [sum(found) / 8 for _, _, found in function.calls]
    assert all(float(entry["tools/call_frequency"]) > 0 for entry in logs)
    assert trainer.environments[0]._attempt.session is None  # judged, hence closed


def _of(rows: list[Json], columns: Json) -> list[Json]:
    by_task = {row["task"]: row for row in rows}
    return [by_task[task] for task in columns["task"]]


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
def test_trl_asks_environments_for_their_reward(tmp_path: Path) -> None:
    @rf.env(tasks=[{"prompt": f"Add {n} and 1."} for n in range(8)], inline=True, name="calls")
    class Calls:
        def reset(self) -> None:
            self.made = 0

        def add(self, a: int, b: int) -> int:
            "Add two numbers."
            self.made += 1
            return a + b

        def verify(self) -> float:
            return float(self.made)

    async def only_looks(prompts: Any, completions: Any, **_: Any) -> list[None]:
        return [None] * len(completions)

    function = Recorded(only_looks)
    made = environment_factory(Calls, get_reward=True)
    _, logs = train(task_rows(Calls), tmp_path, reward_funcs=[function], environment_factory=made)
    added = [
        sum(message["role"] == "tool" and message["content"].isdigit() for one in completions for message in one)
        for completions, _, _ in function.calls
    ]
    assert sum(added) > 0
    assert [float(entry["rewards/calls/mean"]) for entry in logs] == [count / 8 for count in added]


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
def test_trl_mixes_environments(tmp_path: Path) -> None:
    envs = {"sums": "arithmetic", "count": "counter"}
    function = Recorded(reward_function(envs, "verdict"))
    train(task_rows(envs, 8), tmp_path, reward_funcs=[function], environment_factory=environment_factory(envs))
    seen = {name for _, columns, _ in function.calls for name in columns["environment"]}
    assert seen == {"sums", "count"}
    assert all(reward is not None for _, _, found in function.calls for reward in found)


@pytest.mark.extras
@pytest.mark.parametrize("name", ["reward", "environment", "rollouts"])
def test_the_examples_run(name: str, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    program = Path(__file__).parents[2] / "examples" / "trl" / f"{name}.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(program), "--steps", "1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "train_loss" in done.stdout
    assert list((tmp_path / "results" / name).rglob("model.safetensors"))
