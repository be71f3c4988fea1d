"""The adapters for verl: by its contract, with stand-ins where it is not installed, and inside its own loops where it is."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from tokenizers import Tokenizer

import rollforge as rf
from rollforge.errors import RolloutError, SetupError, UserError
from rollforge.export.run import export_rollouts
from rollforge.models.tiny import SHIPPED
from rollforge.records.rows import dump, row_of
from rollforge.records.task import task_from_row
from rollforge.train.adapters.verl import RollforgeAgentLoop, compute_score
from rollforge.train.adapters.verl_tools import EnvironmentTool
from rollforge.train.play import player

BANK = """
import rollforge as rf


@rf.env(tasks=[{"prompt": "Bring the balance from 10 to 4.", "balance": 10, "target": 4},
               {"prompt": "Bring the balance from 10 to 3.", "balance": 10, "target": 3}], inline=True)
class bank:
    def reset(self, balance: int): self.balance = balance; self.log = []

    def pay(self, amount: int, note: list[str] | None = None) -> str:
        "Pay an amount."
        if amount == 666:
            raise rf.InfraFault("the bank is on fire")
        self.balance -= amount
        self.log.append(amount)
        return f"left {self.balance}"

    def verify(self, reply: str, target: int):
        if "?" in reply:
            raise ValueError("who can tell")
        return {"reward": float(self.balance == target and "done" in reply), "calls": len(self.log)}


@rf.env(tasks=[{"prompt": "Say hello.", "word": "hello"}, {"prompt": "Say bye.", "word": "bye"}])
def greeting(reply: str, word: str):
    return {"polite": 0.25, "right": 0.75 * (word in reply)}
"""
Say = str | BaseException


@dataclass(frozen=True)
class Exported:
    """An environment, and its tasks as `rollforge export --to verl:grpo` writes them."""

    env: str
    folder: Path

    def row(self) -> dict[str, Any]:
        """The first, as a data set of verl hands it on."""
        return json.loads((self.folder / "train.jsonl").read_text(encoding="utf-8").splitlines()[0])

    def tool(self, name: str, **config: Any) -> EnvironmentTool:
        found = yaml.safe_load((self.folder / "tool_config.yaml").read_text(encoding="utf-8"))["tools"]
        made = [EnvironmentTool({**one["config"], **config}) for one in found]
        return next(tool for tool in made if tool.name == name)


def exported(env: str, folder: Path) -> Exported:
    async def rollouts() -> list[bytes]:
        playing = player(env)  # any rollout of a task is all that its export needs
        tasks: Any = getattr(playing.env, "tasks")()  # noqa: B009 - not of the protocol
        rows = [dump(row_of(await playing.judge(task, "-"))) for task, _ in zip(tasks, range(2), strict=False)]
        await playing.aclose()
        return rows

    folder.mkdir()
    (folder / "rollouts.jsonl").write_bytes(b"\n".join(asyncio.run(rollouts())) + b"\n")
    export_rollouts([folder / "rollouts.jsonl"], ["verl:grpo"], folder, workers=1, validation=0.0)
    return Exported(env, folder / "verl-grpo")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verl")
    (folder / "bank.py").write_text(BANK, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def bank(folder: Path) -> Exported:
    return exported(f"{folder / 'bank.py'}:bank", folder / "bank")


@pytest.fixture(scope="module")
def greeting(folder: Path) -> Exported:
    return exported(f"{folder / 'bank.py'}:greeting", folder / "greeting")


@pytest.fixture(scope="module")
def arithmetic(folder: Path) -> Exported:
    return exported("arithmetic", folder / "arithmetic")


@pytest.fixture
def verl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for the classes that verl's loops are answered with. Its own come with half of a training's imports."""
    parts = "verl verl.experimental verl.experimental.agent_loop verl.experimental.agent_loop.agent_loop verl.tools"
    for name in (*parts.split(), "verl.tools.schemas"):
        module = ModuleType(name)
        for answer in ("AgentLoopOutput", "AgentLoopMetrics", "ToolResponse"):
            setattr(module, answer, type(answer, (SimpleNamespace,), {"text": None}))
        monkeypatch.setitem(sys.modules, name, module)


class Words:
    """The shipped checkpoint's tokenizer, as much of transformers' class as the adapter asks for."""

    def __init__(self) -> None:
        self.backend_tokenizer = Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))
        self.chat_template = (SHIPPED / "chat_template.jinja").read_text(encoding="utf-8")
        self.name_or_path = str(SHIPPED)
        self.special_tokens_map = {"eos_token": "<|im_end|>"}
        self.eos_token_id = self.backend_tokenizer.token_to_id("<|endoftext|>")  # as base checkpoints have it
        self.all_special_ids = [self.eos_token_id, self.backend_tokenizer.token_to_id("<|im_end|>")]

    def __len__(self) -> int:
        return self.backend_tokenizer.get_vocab_size()

    def ids(self, text: str) -> list[int]:
        return self.backend_tokenizer.encode(text, add_special_tokens=False).ids

    def text(self, ids: Sequence[int]) -> str:
        return self.backend_tokenizer.decode(list(ids), skip_special_tokens=False)


WORDS = Words()
EXAMPLES = Path(__file__).parents[2] / "examples" / "verl"
END = WORDS.ids("<|im_end|>")


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


class Server:
    """verl's server: says what it was given, one answer a call; what is cut has no end. `said_to`: by the prompt."""

    def __init__(
        self, *says: Say, stop_reason: str = "completed", aborts: int = 0, said_to: dict[str, list[Say]] | None = None
    ) -> None:
        self.says = said_to or {"": list(says)}
        self.calls: list[dict[str, Any]] = []
        self.stop_reason = stop_reason
        self.aborts = aborts

    async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any], **more: Any) -> Any:
        self.calls.append({"request_id": request_id, "prompt": prompt_ids, **sampling_params, **more})
        await asyncio.sleep(0)
        if self.aborts:
            self.aborts -= 1
            return self._output(WORDS.ids("I"), sampling_params, "aborted")
        prompt = WORDS.text(prompt_ids)
        said = next(says for text, says in self.says.items() if text in prompt).pop(0)
        if isinstance(said, BaseException):
            raise said
        ids = [*WORDS.ids(said), *END][: sampling_params["max_tokens"]]
        return self._output(ids, sampling_params, self.stop_reason)

    def _output(self, ids: list[int], params: dict[str, Any], reason: str) -> Any:
        step = len(self.calls)
        return SimpleNamespace(
            token_ids=ids,
            log_probs=[-0.5 * step] * len(ids) if params.get("logprobs") else None,
            routed_experts=None,
            stop_reason=reason,
            num_preempted=1,
            extra_fields={"global_steps": step, "min_global_steps": step, "max_global_steps": step},
        )


PARAMS = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}


def loop(server: Server, prompt_length: int = 1024, response_length: int = 512, **options: Any) -> RollforgeAgentLoop:
    rollout = SimpleNamespace(
        prompt_length=prompt_length,
        response_length=response_length,
        full_determinism=False,
        multi_turn=SimpleNamespace(max_assistant_turns=None),
    )
    config = SimpleNamespace(config=SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=rollout)))
    wrapped = SimpleNamespace(config={"apply_chat_template_kwargs": {"enable_thinking": False}})
    return RollforgeAgentLoop(config, server, WORDS, wrapped, processor=None, name="tool_agent", **options)


# The agent loop


async def test_a_rollout_with_tools_and_state_is_one_sample(bank: Exported, verl: None) -> None:
    server = Server(call("pay", amount=1), call("pay", amount=5), "It is done.")
    row = bank.row()
    found = await loop(server, env=bank.env, metrics=["calls", "missing"]).run(PARAMS, **row, session_id=3, priority=7)
    assert found.reward_score == 1.0
    assert found.num_turns == 6
    chosen = [token for token, mine in zip(found.response_ids, found.response_mask, strict=True) if mine]
    told = [token for token, mine in zip(found.response_ids, found.response_mask, strict=True) if not mine]
    said = [call("pay", amount=1), call("pay", amount=5), "It is done."]
    assert WORDS.text(chosen) == "<|im_end|>".join([*said, ""])
    assert WORDS.text(told).count("<tool_response>") == 2
    assert "left 4" in WORDS.text(told)
    assert "Bring the balance" in WORDS.text(found.prompt_ids)
    assert "pay(amount, note)" in WORDS.text(found.prompt_ids)
    # Each call is prompted with all the tokens so far.
    whole = [*found.prompt_ids, *found.response_ids]
    assert all(whole[: len(one["prompt"])] == one["prompt"] for one in server.calls)
    assert found.response_logprobs[-len(END) :] == [-1.5] * len(END)
    assert [p for p, mine in zip(found.response_logprobs, found.response_mask, strict=True) if not mine] == [0.0] * len(told)
    info = found.extra_fields["reward_extra_info"]
    assert (info["score"], info["calls"], info["judged"]) == (1.0, 2.0, 1.0)
    assert math.isnan(info["missing"])
    assert (found.extra_fields["min_global_steps"], found.extra_fields["max_global_steps"]) == (1, 3)
    assert found.metrics.num_preempted == 3
    assert len({one["request_id"] for one in server.calls}) == 1
    assert {one["priority"] for one in server.calls} == {7}


async def test_all_turns_share_the_length_of_a_response(bank: Exported, verl: None) -> None:
    row = bank.row()
    server = Server(call("pay", amount=6), "It is done, " * 200)
    found = await loop(server, env=bank.env, response_length=90).run(PARAMS, **row)
    assert len(found.response_ids) == 90
    first, second = server.calls
    assert first["max_tokens"] == 90
    assert second["max_tokens"] == 90 - (len(second["prompt"]) - len(first["prompt"]))
    assert found.response_ids[-1] not in END


async def test_a_tool_output_that_leaves_no_room_ends_the_rollout(bank: Exported, verl: None) -> None:
    row = bank.row()
    first = len(WORDS.ids(call("pay", amount=6))) + len(END)
    server = Server(call("pay", amount=6), "never asked")
    found = await loop(server, env=bank.env, response_length=first + 3).run(PARAMS, **row)
    assert len(server.calls) == 1
    assert found.response_mask == [1] * first
    assert found.reward_score == 0.0  # judged: it never said so


async def test_verls_sampling_counts_and_of_the_task_only_limits(greeting: Exported, verl: None) -> None:
    row = greeting.row()
    made = row["extra_info"]["tools_kwargs"]["_row"]["create_kwargs"]
    task = json.loads(made["row"])
    task["responses_create_params"] |= {"temperature": 0.1, "max_output_tokens": 9, "stop": ["STOP"]}
    made["row"] = json.dumps(task)
    server = Server("hello STOP")
    found = await loop(server, env=greeting.env).run({**PARAMS, "logprobs": False}, **row)
    [asked] = server.calls
    assert (asked["temperature"], asked["max_tokens"], asked["stop"]) == (1.0, 9, ["STOP"])
    assert found.response_logprobs is None
    assert found.reward_score == 1.0


async def test_a_prompt_that_is_too_long_stops_with_the_setting_to_change(bank: Exported, verl: None) -> None:
    row = bank.row()
    with pytest.raises(SetupError, match=r"data\.max_prompt_length is 20"):
        await loop(Server("done"), env=bank.env, prompt_length=20).run(PARAMS, **row, session_id=0)


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (lambda: Server("done?"), "verifier_fault .*who can tell"),
        (lambda: Server(call("pay", amount=666), call("pay", amount=666), call("pay", amount=666)), "infra_fault .*on fire"),
        (lambda: Server(aborts=3), "in the middle of an answer"),
        (lambda: Server(*(OSError("no server") for _ in range(3))), "infra_fault .*no server"),
    ],
)
async def test_what_cannot_be_judged_does_not_teach(
    server: Callable[[], Server], why: str, bank: Exported, verl: None
) -> None:
    row = bank.row()
    with pytest.raises(RolloutError, match=why):  # verl's trainer leaves such a sample out of its group
        await loop(server(), env=bank.env).run(PARAMS, **row, session_id=0)
    found = await loop(server(), env=bank.env).run(PARAMS, **row)  # its older one would stop
    assert set(found.response_mask) == {0}
    assert found.reward_score == 0.0
    assert found.extra_fields["reward_extra_info"]["judged"] == 0.0
    assert math.isnan(found.extra_fields["reward_extra_info"]["score"])


async def test_tokens_without_their_log_probabilities_do_not_teach(greeting: Exported, verl: None) -> None:
    class Silent(Server):
        def _output(self, ids: list[int], params: dict[str, Any], reason: str) -> Any:
            return super()._output(ids, {}, reason)

    row = greeting.row()
    with pytest.raises(RolloutError, match="0 log probabilities"):
        await loop(Silent("hello"), env=greeting.env).run(PARAMS, **row, session_id=0)


async def test_a_failing_server_is_asked_again_from_the_start(bank: Exported, verl: None) -> None:
    row = bank.row()
    server = Server(call("pay", amount=6), OSError("gone"), call("pay", amount=6), "done")
    found = await loop(server, env=bank.env).run(PARAMS, **row, session_id=0)
    assert found.reward_score == 1.0
    assert found.num_turns == 4


async def test_data_may_name_registered_environments_only(bank: Exported, arithmetic: Exported, verl: None) -> None:
    row = bank.row()
    with pytest.raises(UserError, match=r"'bank', which is not registered.*env: \{bank: path/to/file.py:name\}"):
        await loop(Server("done")).run(PARAMS, **row)
    server = Server(call("pay", amount=6), "done")
    assert (await loop(server, env={"bank": bank.env}).run(PARAMS, **row)).reward_score == 1.0
    row = arithmetic.row()
    answer = row["reward_model"]["ground_truth"]
    assert (await loop(Server(answer)).run(PARAMS, **row)).reward_score == 1.0
    row["extra_info"]["tools_kwargs"] = {}
    with pytest.raises(UserError, match="rollforge export RUN --to verl:grpo"):
        await loop(Server(answer)).run(PARAMS, **row)


# The reward function


async def test_the_environment_judges_a_response(greeting: Exported) -> None:
    row = greeting.row()
    given = (row["data_source"], "<think>bye</think>hello there", "", row["extra_info"])
    assert await compute_score(*given, env=greeting.env, metrics=["polite", "right"]) == {
        "score": 1.0,
        "polite": 0.25,
        "right": 0.75,
    }
    assert await compute_score(row["data_source"], "bye", "", row["extra_info"], env=greeting.env) == {"score": 0.25}
    with pytest.raises(UserError, match="has no task"):
        await compute_score("greeting", "hello", "hello", {"index": 3}, env=greeting.env)


async def test_what_cannot_be_judged_is_no_reward(bank: Exported) -> None:
    row = bank.row()
    with pytest.raises(RolloutError, match="verifier_fault"):
        await compute_score("bank", "done?", "", row["extra_info"], env=bank.env)


# Tools


class AgentData(SimpleNamespace):
    __hash__ = object.__hash__


def agent_data(row: dict[str, Any]) -> AgentData:
    # verl gives such names, not unique ones, where it has to be deterministic.
    return AgentData(request_id="det-0", tools_kwargs=row["extra_info"]["tools_kwargs"], extra_fields={})


async def one_call(tool: EnvironmentTool, data: AgentData, **arguments: Any) -> str:
    name, _ = await tool.create(create_kwargs={})
    response, reward, _ = await tool.execute(name, arguments, agent_data=data)
    await tool.release(name)
    assert reward == 0.0
    return str(response.text)


async def test_tools_share_the_session_of_an_episode(bank: Exported, verl: None) -> None:
    row = bank.row()
    pay = bank.tool("pay", env=bank.env)
    assert "anyOf" in json.dumps(pay.tool_schema.model_dump(exclude_none=True))
    assert pay.tool_schema.function.parameters.properties["amount"].model_dump() == {"type": "integer"}
    first, second = agent_data(row), agent_data(row)
    told = await asyncio.gather(*(one_call(pay, first, amount=n) for n in (1, 5)), one_call(pay, second, amount=2))
    assert told == ["left 9", "left 4", "left 8"]
    assert "invalid arguments" in await one_call(pay, first, amount="many")
    info = {**row["extra_info"], **first.extra_fields}
    said = f"{call('pay', amount=1)}\nuser\n<tool_response>\nleft 4\n</tool_response>\nassistant\ndone"
    assert await compute_score("bank", said, "", info, env=bank.env, metrics=["calls"]) == {"score": 1.0, "calls": 2.0}
    info = {**row["extra_info"], **second.extra_fields}
    assert await compute_score("bank", "done", "", info, env=bank.env) == {"score": 0.0}
    changed = info["rollforge_episode"].replace("left 8", "left 7")
    with pytest.raises(RolloutError, match="state not reproduced"):
        await compute_score("bank", "done", "", {**info, "rollforge_episode": changed}, env=bank.env)


async def test_a_session_ends_with_its_episode(bank: Exported, verl: None) -> None:
    row = bank.row()
    pay = bank.tool("pay", env=bank.env)
    before = asyncio.all_tasks()
    data = agent_data(row)
    await one_call(pay, data, amount=1)
    of_session = asyncio.all_tasks() - before
    [session] = [task for task in of_session if task.get_coro().__name__ == "play"]
    del data
    gc.collect()
    await asyncio.wait(of_session, timeout=10)
    assert all(task.done() for task in of_session)
    assert session.exception() is None


async def test_a_session_is_not_open_for_ever(bank: Exported, verl: None) -> None:
    row = bank.row()
    pay = bank.tool("pay", env=bank.env, seconds=0.05)
    data, before = agent_data(row), asyncio.all_tasks()
    await one_call(pay, data, amount=1)
    await asyncio.wait(asyncio.all_tasks() - before, timeout=10)
    with pytest.raises(RolloutError, match="open for too long"):
        await one_call(pay, data, amount=1)


async def test_an_episode_whose_tool_broke_is_not_judged(bank: Exported, verl: None) -> None:
    row = bank.row()
    pay = bank.tool("pay", env=bank.env)
    data = agent_data(row)
    with pytest.raises(RolloutError, match="on fire"):
        await one_call(pay, data, amount=666)
    with pytest.raises(RolloutError, match="a tool broke, not the policy: pay: the bank is on fire"):
        await compute_score("bank", "done", "", {**row["extra_info"], **data.extra_fields}, env=bank.env)
    nowhere = agent_data(row)
    with pytest.raises(UserError, match="not registered"):
        await one_call(bank.tool("pay"), nowhere, amount=1)
    with pytest.raises(UserError, match="has no schema"):
        EnvironmentTool({"type": "native"})


async def test_a_session_that_cannot_be_opened_is_said_to_each_call(bank: Exported, verl: None) -> None:
    row = bank.row()
    made = row["extra_info"]["tools_kwargs"]["_row"]["create_kwargs"]
    made["row"] = json.dumps({k: v for k, v in json.loads(made["row"]).items() if k != "balance"})
    pay = bank.tool("pay", env=bank.env)
    data = agent_data(row)
    told = await asyncio.gather(*(one_call(pay, data, amount=n) for n in (1, 2)), return_exceptions=True)
    assert all(isinstance(one, RolloutError) and "balance" in str(one) for one in told)


# Inside verl


class Handle:
    """A worker of verl's reward loop, without Ray."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        self.compute_score = self

    def remote(self, data: Any) -> Any:
        return self._manager.run_single(data)


def real_server(*says: Say, **how: Any) -> Server:
    from verl.workers.rollout.replica import TokenOutput

    class Real(Server):
        async def generate(self, request_id: str, **given: Any) -> Any:
            params = {"max_tokens": 256, **given.pop("sampling_params")}  # as verl's server does
            return TokenOutput(**vars(await super().generate(request_id, sampling_params=params, **given)))

    return Real(*says, **how)


def worker(server: Server, *overrides: str, kind: Any = None) -> Any:
    hydra = pytest.importorskip("hydra")
    # Some releases of transformers and tensordict are too new for it.
    loops = pytest.importorskip("verl.experimental.agent_loop", exc_type=ImportError)
    loops.agent_loop.register("tool_agent")(loops.ToolAgentLoop)  # another test's file may have replaced it
    place = Path(sys.modules["verl"].__file__ or "").parent / "trainer" / "config"
    rollout = "actor_rollout_ref.rollout"
    lengths = ["data.max_prompt_length=256", "data.max_response_length=256"]
    given = [f"actor_rollout_ref.model.path={SHIPPED}", f"{rollout}.name=vllm", f"{rollout}.calculate_log_probs=True"]
    with hydra.initialize_config_dir(str(place), version_base=None):
        config = hydra.compose("ppo_trainer", [*given, *lengths, *overrides])
    return (kind or loops.AgentLoopWorker)(config, server, None, None)


def batch(exported: Exported, folder: Path, worker: Any) -> Any:
    from verl import DataProto
    from verl.utils.dataset.rl_dataset import collate_fn

    from rollforge.export.verl.loader import dataset

    data = dataset("grpo", exported.folder / "train.jsonl", str(folder / "cache"), worker.tokenizer)
    return DataProto.from_single_dict(collate_fn([data[0], data[1]]))


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
def test_verls_worker_gets_rollouts_from_the_example(bank: Exported, tmp_path: Path) -> None:
    pytest.importorskip("verl")
    text = (EXAMPLES / "agent_loops.yaml").read_text(encoding="utf-8").replace("env: workplace", f"env: {bank.env}")
    (tmp_path / "loops.yaml").write_text(text.replace("metrics: []", "metrics: [calls]"), encoding="utf-8")
    # Of the first task both attempts are judged; of the second, the answer makes the verifier fail.
    server = real_server(call("pay", amount=6), "done?", "done")
    path = f"actor_rollout_ref.rollout.agent.agent_loop_config_path={tmp_path / 'loops.yaml'}"

    async def sequences() -> Any:
        made = worker(server, path)
        return await made.generate_sequences(batch(bank, tmp_path, made))

    found = asyncio.run(sequences())
    assert found.batch["rm_scores"].sum(-1).tolist() == [1.0, 0.0]
    mask = found.batch["response_mask"]
    assert mask[0].sum() == len([*WORDS.ids(call("pay", amount=6)), *END, *WORDS.ids("done"), *END])
    assert mask[1].sum() == 0
    assert found.non_tensor_batch["judged"].tolist() == [1.0, 0.0]
    assert found.non_tensor_batch["calls"].tolist()[0] == 1.0
    assert found.batch["rollout_log_probs"].shape == mask.shape
    algorithms = pytest.importorskip("verl.trainer.ppo.core_algos")
    gain, _ = algorithms.compute_grpo_outcome_advantage(found.batch["rm_scores"], mask, ["a", "a"])
    assert gain[0].abs().sum() > 0
    assert gain[1].abs().sum() == 0


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
def test_verls_trainer_leaves_out_what_raises(bank: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("verl")
    stored: dict[str, float] = {}
    status: dict[str, str] = {}

    class Queue(ModuleType):
        """In place of the transfer queue, which wants a Ray cluster."""

        KVBatchMeta = object

        def init(self) -> None: ...

        async def async_kv_put(self, key: str, tag: dict[str, str], **_: Any) -> None:
            status[key] = tag["status"]

        async def async_kv_batch_put(self, keys: list[str], fields: Any, **_: Any) -> None:
            scores = [one.sum().item() for one in fields["rm_scores"].unbind()]
            stored.update(zip(keys, scores, strict=True))

    names = ("transfer_queue", "transfer_queue.metadata")
    for name in names:
        monkeypatch.setitem(sys.modules, name, Queue(name))
    trainer = pytest.importorskip("verl.trainer.ppo.v1.agent_loop_tq", exc_type=ImportError)
    server = real_server(call("pay", amount=6), call("pay", amount=6), call("pay", amount=1), "done", "done?", "done")
    loops = [{"name": "tool_agent", "_target_": "rollforge.train.adapters.verl.RollforgeAgentLoop", "env": bank.env}]
    (tmp_path / "loops.yaml").write_text(yaml.safe_dump(loops), encoding="utf-8")
    rollout = "actor_rollout_ref.rollout"
    overrides = [f"{rollout}.agent.agent_loop_config_path={tmp_path / 'loops.yaml'}", f"{rollout}.n=3"]

    async def group() -> None:
        kind = trainer.AgentLoopWorkerTQ.__ray_metadata__.modified_class
        made = worker(server, *overrides, kind=kind)
        task = {**bank.row(), "raw_prompt": bank.row()["prompt"], "uid": "u", "global_steps": 1}
        await made._run_prompt(task, dict(PARAMS), {"step": 1, "sample_index": 0, "rollout_n": 0, "validate": False})

    try:
        asyncio.run(group())
    finally:
        for name in [name for name in sys.modules if name.startswith("verl.trainer.ppo.v1")]:
            del sys.modules[name]
    assert status == {"u": "failure"}  # its trainer goes on with the samples that are there
    assert sorted(stored.items()) == [("u_0_0", 1.0), ("u_2_0", 0.0)]


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
def test_verls_tool_loop_and_reward_manager_use_the_environment(bank: Exported, tmp_path: Path) -> None:
    pytest.importorskip("verl")
    text = (bank.folder / "tool_config.yaml").read_text(encoding="utf-8")
    text = text.replace("gym_tools.EnvironmentTool", "rollforge.train.adapters.verl_tools.EnvironmentTool")
    (tmp_path / "tools.yaml").write_text(text.replace("type: native", f"type: native\n      env: {bank.env}"), "utf-8")
    two_calls: list[Say] = [call("pay", amount=1) + call("pay", amount=2), "done"]
    server = real_server(said_to={"to 4": [call("pay", amount=6), "done"], "to 3": two_calls})
    turns, reward = "actor_rollout_ref.rollout.multi_turn", "reward.custom_reward_function"
    overrides = [f"{turns}.enable=True", f"{turns}.format=hermes", f"{turns}.max_parallel_calls=8"]
    overrides += [f"{turns}.tool_config_path={tmp_path / 'tools.yaml'}", f"{reward}.name=compute_score"]
    overrides += [f"{reward}.path=pkg://rollforge.train.adapters.verl", f"+{reward}.reward_kwargs.env={bank.env}"]
    overrides += [f"+{reward}.reward_kwargs.metrics=[calls]"]

    async def sequences() -> tuple[Any, int]:
        made = worker(server, *overrides)
        managers = pytest.importorskip("verl.trainer.ppo.reward", exc_type=ImportError)
        made.reward_loop_worker_handles = [Handle(managers.load_reward_manager(made.config, made.tokenizer))]
        found = await made.generate_sequences(batch(bank, tmp_path, made))
        gc.collect()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=10)
        return found, len(asyncio.all_tasks())

    found, open_tasks = asyncio.run(sequences())
    assert found.batch["rm_scores"].sum(-1).tolist() == [1.0, 0.0]
    assert found.non_tensor_batch["calls"].tolist() == [1.0, 2.0]
    assert "left 7" in WORDS.text(found.batch["responses"][1].tolist())
    assert open_tasks == 1  # every session is closed


DICE = """
import rollforge as rf


@rf.env(tasks=[{"prompt": "Say the number."}], inline=True)
class dice:
    def reset(self, seed: int) -> str: self.number = str(seed % 1000); return f" It is {self.number}"

    def verify(self, reply: str): return float(reply == self.number)

    def solve(self, seed: int): return str(seed % 1000)
"""


async def test_what_was_shown_by_the_seed_of_a_task_is_judged_by_it(tmp_path: Path) -> None:
    env = tmp_path / "dice.py"
    env.write_text(DICE)
    await rf.collect_rollouts(str(env), "scripted:perfect", sampling={"temperature": 1}, out=tmp_path / "run")
    export_rollouts(tmp_path / "run", ["verl:grpo", "openrlhf:grpo", "nemo-rl:nemo-gym"], tmp_path / "data", validation=0)
    verl, openrlhf, gym = (
        json.loads((tmp_path / f"data/{folder}/train.jsonl").read_text())
        for folder in ("verl-grpo", "openrlhf-grpo", "nemo-rl-nemo-gym")
    )
    number = verl["prompt"][-1]["content"].rpartition(" ")[2]
    assert (await compute_score("dice", number, "", verl["extra_info"], env=str(env)))["score"] == 1.0
    for row in (json.loads(openrlhf["label"])["task"], gym):
        assert task_from_row(row).id == verl["extra_info"]["task"]
