"""The adapter of OpenRLHF: its agent over an engine of tokens, what must not teach, and the reward function."""

from __future__ import annotations

import asyncio
import json
import statistics
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from tokenizers import Tokenizer

import rollforge as rf
from rollforge.collect.run import collect_rollouts
from rollforge.envs.base import Env
from rollforge.errors import SetupError, UserError
from rollforge.export.openrlhf.wire import row_of, said
from rollforge.export.run import export_rollouts
from rollforge.models.tiny import SHIPPED
from rollforge.models.tiny.checkpoint import read_checkpoint
from rollforge.models.tiny.engine import Engine
from rollforge.models.tokens import Sampling
from rollforge.records.lossless import dumps
from rollforge.train.adapters.openrlhf import Executor, agent_executor, reward_function
from rollforge.train.play import player


class HfTokenizer:
    """What the adapter asks of a tokenizer of transformers."""

    name_or_path = "tiny"
    special_tokens_map: ClassVar = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}

    def __init__(self) -> None:
        self.backend_tokenizer = Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))
        self.chat_template = (SHIPPED / "chat_template.jinja").read_text(encoding="utf-8")
        self.eos_token_id = self.backend_tokenizer.token_to_id("<|im_end|>")

    def __len__(self) -> int:
        return self.backend_tokenizer.get_vocab_size()

    def __call__(self, text: str, add_special_tokens: bool = True) -> Any:
        return {"input_ids": self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        return self.backend_tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)


def params(**given: Any) -> SimpleNamespace:
    """vLLM's, as far as OpenRLHF sets them."""
    return SimpleNamespace(**{"temperature": 1.0, "max_tokens": None, "min_tokens": 1, "logprobs": 1, **given})


def output(ids: list[int], chosen: list[float], text: str, finish: str, asked: Any) -> Any:
    shown = [{id: SimpleNamespace(logprob=value)} for id, value in zip(ids, chosen, strict=True)]
    one = SimpleNamespace(token_ids=ids, text=text, finish_reason=finish, logprobs=shown if asked.logprobs else None)
    return SimpleNamespace(outputs=[one])


class Policy:
    """vLLM's engine, as OpenRLHF wraps it, with the shipped policy inside."""

    def __init__(self) -> None:
        checkpoint = read_checkpoint(SHIPPED)
        self.engine = Engine(checkpoint.model, checkpoint.tokenizer, checkpoint.eos_ids)
        self.asked: list[Any] = []

    async def generate(self, tokens: list[int], asked: Any, multi_modal_data: Any = None) -> Any:
        self.asked.append(asked)
        sampling = Sampling(temperature=asked.temperature, max_tokens=asked.max_tokens)
        found = await self.engine.generate(tokens, sampling, seed=len(self.asked), seconds=60)
        return output(found.ids, found.log_probs, found.text, found.finish, asked)


class Script:
    """An engine that says what it is told to; it fails where that is an exception."""

    def __init__(self, *texts: str | Exception) -> None:
        self.texts = list(texts)
        self.tokenizer = HfTokenizer()
        self.prompts: list[str] = []

    async def generate(self, tokens: list[int], asked: Any, multi_modal_data: Any = None) -> Any:
        await asyncio.sleep(0)
        self.prompts.append(self.tokenizer.decode(tokens))
        text = self.texts.pop(0)
        if isinstance(text, Exception):
            raise text
        ids = self.tokenizer(f"{text}<|im_end|>")["input_ids"]
        return output(ids, [-0.5] * len(ids), text, "stop", asked)


def label(**row: Any) -> str:
    return dumps({"expected_answer": None, "task": row}).decode()


async def samples(
    executor: Any, engine: Any, label: Any, number: int = 1, max_length: int = 2048, **given: Any
) -> list[Any]:
    """As OpenRLHF's actor asks for the samples of one prompt (trainer/ray/vllm_engine.py)."""
    asked, tokenizer = params(**given), HfTokenizer()
    work = (
        executor.execute(
            prompt="<|im_start|>user\nasked<|im_end|>\n<|im_start|>assistant\n",
            label=label,
            sampling_params=asked,
            max_length=max_length,
            hf_tokenizer=tokenizer,
            llm_engine=engine,
            images=None,
        )
        for _ in range(number)
    )
    return await asyncio.gather(*work)


def sound(sample: Any, max_length: int = 2048) -> None:
    """What OpenRLHF makes an experience of (trainer/ppo_utils/samples_generator.py)."""
    tokens, ranges = sample["observation_tokens"], sample["action_ranges"]
    assert isinstance(tokens, list)
    assert 1 < len(tokens) <= max_length
    assert ranges
    assert all(0 < start < end <= len(tokens) for start, end in ranges)
    assert all(before[1] < after[0] for before, after in pairwise(ranges))
    if sample["rollout_log_probs"] is not None:
        assert len(sample["rollout_log_probs"]) == len(tokens)
        told = set(range(len(tokens))) - {at for start, end in ranges for at in range(start, end)}
        assert all(sample["rollout_log_probs"][at] == 0.0 for at in told)
    assert isinstance(sample["reward"], float)
    assert sample["scores"] == sample["reward"]
    assert isinstance(sample["truncated"], bool)
    assert sample["extra_logs"].keys() == {"judged", "learnt"}


def advantages(group: list[Any]) -> list[float]:
    """OpenRLHF's group_norm."""
    rewards = [sample["reward"] for sample in group]
    return [(one - statistics.fmean(rewards)) / (statistics.stdev(rewards) + 1e-9) for one in rewards]


def exported(env: str, folder: Path) -> list[Any]:
    """The rows that an export writes of rollouts with that environment."""
    options = {"repeats": 1, "limit": 4, "out": folder / "run", "seed": 1}
    asyncio.run(collect_rollouts(env, "scripted:perfect", **options))
    export_rollouts([folder / "run"], ["openrlhf:grpo"], folder / "out", validation=0.0, workers=1)
    lines = (folder / "out" / "openrlhf-grpo" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


# The agent


def test_the_policy_plays_what_the_export_wrote(tmp_path: Path) -> None:
    policy, tokenizer = Policy(), HfTokenizer()
    executor = Executor(player("arithmetic"))

    async def play(rows: list[Any]) -> list[Any]:
        return [await samples(executor, policy, row["label"], 4, temperature=0.7) for row in rows]

    groups = asyncio.run(play(exported("arithmetic", tmp_path)))
    policy.engine.close()
    assert {asked.temperature for asked in policy.asked} == {0.7}
    turns = Counter()
    for sample in (one for group in groups for one in group):
        sound(sample)
        assert sample["extra_logs"] == {"judged": 1.0, "learnt": 1.0}
        assert sample["reward"] in (0.0, 1.0)
        said = [tokenizer.decode(sample["observation_tokens"][start:end]) for start, end in sample["action_ranges"]]
        assert all(text.count("<|im_end|>") == 1 and text.endswith("<|im_end|>") for text in said)
        whole = tokenizer.decode(sample["observation_tokens"])
        assert whole.startswith("<|im_start|>system\nTools:\nadd(a, b)")  # as this template shows tools
        assert whole.count("<tool_response>") >= len(said) - 1
        chosen = [sample["rollout_log_probs"][at] for start, end in sample["action_ranges"] for at in range(start, end)]
        assert all(value <= 0 for value in chosen)
        turns[len(said)] += 1
    assert turns.total() == 16
    assert max(turns) > 1


@rf.env(tasks=[{"prompt": "Say 4.", "answer": "4"}])
def moody(reply: str, answer: str) -> float:
    if "?" in reply:
        raise rf.VerifierFault("what is that?")
    if "!" in reply:
        raise rf.PolicyFault("no shouting")
    return float(reply == answer)


ASKED = label(prompt="Say 4.", answer="4")


async def test_what_has_no_verdict_does_not_teach() -> None:
    executor = Executor(player(moody))
    group = await samples(executor, Script("4", "?", "5", "4!", "4"), ASKED, 5)
    for sample in group:
        sound(sample)
    assert [sample["reward"] for sample in group] == [1.0, 0.5, 0.0, 0.0, 1.0]  # 0.5: the mean of the others
    assert [sample["extra_logs"]["judged"] for sample in group] == [1.0, 0.0, 1.0, 1.0, 1.0]
    assert advantages(group)[1] == pytest.approx(0.0)
    [(start, end)] = group[1]["action_ranges"]
    assert (end - start, end) == (1, len(group[1]["observation_tokens"]))
    assert group[1]["rollout_log_probs"][start] == -0.5
    one, *_ = await samples(executor, Script("4"), ASKED)  # another group knows nothing of it
    assert one["reward"] == 1.0


async def test_a_group_without_any_verdict_is_flat_and_too_many_end_the_run() -> None:
    executor = Executor(player(moody), patience=6)
    group = await samples(executor, Script("?", "?", "?"), ASKED, 3)
    assert [sample["reward"] for sample in group] == [0.0, 0.0, 0.0]
    assert not any(sample["extra_logs"]["learnt"] for sample in group)
    await samples(executor, Script("4"), ASKED)
    await samples(executor, Script(*"?????"), ASKED, 5)
    with pytest.raises(SetupError, match=r"6 samples in a row .* verifier_fault \(verify\): .*what is that"):
        await samples(executor, Script("?"), ASKED)


async def test_an_engine_that_fails_is_asked_again_and_then_not_learned_from() -> None:
    executor = Executor(player(moody), attempts=2)
    group = await samples(executor, Script(OSError("gone"), "4"), ASKED)
    assert [(one["reward"], one["extra_logs"]["learnt"]) for one in group] == [(1.0, 1.0)]
    [lost] = await samples(executor, Script(OSError("gone"), OSError("gone")), ASKED)
    sound(lost)
    assert HfTokenizer().decode(lost["observation_tokens"]).endswith("asked<|im_end|>\n<|im_start|>assistant\n<|im_end|>")
    assert lost["extra_logs"] == {"judged": 0.0, "learnt": 0.0}


async def test_lengths_and_log_probabilities() -> None:
    executor, policy = Executor(player(moody)), Policy()
    [short] = await samples(executor, policy, ASKED, max_tokens=3)
    sound(short)
    assert short["truncated"] is True
    assert sum(end - start for start, end in short["action_ranges"]) == 3
    [plain] = await samples(executor, policy, ASKED, logprobs=None)
    sound(plain)
    assert plain["rollout_log_probs"] is None
    for most in (4, 8):  # the prompt alone is longer
        [full] = await samples(executor, policy, ASKED, max_length=most)
        sound(full, most)
        assert full["extra_logs"]["learnt"] == 0.0
    policy.engine.close()

    class Silent(Script):
        async def generate(self, tokens: list[int], asked: Any, multi_modal_data: Any = None) -> Any:
            return output([1], [-1.0], "x", "stop", params(logprobs=None))

    with pytest.raises(SetupError, match="asked for log probabilities and gave none"):
        await samples(executor, Silent(), ASKED)


async def test_a_row_is_short_of_stop_texts_and_tokens_only() -> None:
    seen: list[Any] = []

    class Watched(Script):
        async def generate(self, tokens: list[int], asked: Any, multi_modal_data: Any = None) -> Any:
            seen.append(asked)
            return await super().generate(tokens, asked)

    task = {"input": "Say 4.", "temperature": 0.1, "top_p": 0.5, "max_output_tokens": 7, "stop": ["END"]}
    row = label(responses_create_params=task, answer="4")
    [sample] = await samples(Executor(player(moody)), Watched("4"), row, temperature=1.0)
    assert sample["reward"] == 1.0
    [asked] = seen
    assert (asked.temperature, asked.max_tokens, asked.stop) == (1.0, 7, ["END"])
    assert not hasattr(asked, "top_p")


def test_an_environment_of_steps_is_shown_once(tmp_path: Path) -> None:
    row = exported("blackjack", tmp_path)[0]
    engine = Script(*["<action>stand</action>"] * 3)
    [sample] = asyncio.run(samples(Executor(player("blackjack")), engine, row["label"]))
    sound(sample)
    assert sample["extra_logs"]["judged"] == 1.0
    assert engine.prompts[0].count("Your hand:") == 1


@pytest.mark.parametrize("wrong", ["42", "", None, 42, '{"task": 1}', '{"expected_answer": "4", "task": {}}', "[1]"])
async def test_a_label_without_a_task_ends_the_run(wrong: Any) -> None:
    with pytest.raises(UserError, match="the label holds no task"):
        await samples(Executor(player(moody)), Script("4"), wrong)


# What OpenRLHF passes on, read again

TASK = {"prompt": "Say 4.", "answer": "4"}


@pytest.mark.parametrize("given", [label(**TASK), dumps(TASK).decode(), TASK, {"expected_answer": "4", "task": TASK}])
def test_labels(given: Any) -> None:
    assert row_of(given) == TASK


PROMPT = "<|im_start|>user\nSay 4.<|im_end|>\n<|im_start|>assistant\n"
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'


@pytest.mark.parametrize(
    ("response", "message"),
    [
        ("4<|im_end|>", {"content": "4"}),
        ("4<|im_end|>\n<|endoftext|>", {"content": "4"}),
        ("4 </s>", {"content": "4 "}),
        (f"{PROMPT}4", {"content": f"{PROMPT}4"}),
        ("<think>well</think>4", {"content": "4", "reasoning_content": "well"}),
        ("well</think>4", {"content": "4", "reasoning_content": "well"}),
        ("<think>well, 4", {"content": "", "reasoning_content": "well, 4"}),
        ("", {"content": ""}),
        (f"{CALL}<|im_end|>", {"content": CALL}),
    ],
)
def test_queries(response: str, message: dict[str, Any]) -> None:
    long = "x" * 300 + PROMPT
    for query, prompt in ((PROMPT + response, PROMPT), (long[50:] + response, long), (response, "")):
        assert said(query, prompt, {}) == {"role": "assistant", **message}


def test_a_query_with_calls_and_one_that_is_not_of_the_prompt() -> None:
    found = said(f"{PROMPT}{CALL}", PROMPT, {"tools": [{"type": "function", "name": "add"}]})
    assert [call["function"]["name"] for call in found["tool_calls"]] == ["add"]
    with pytest.raises(UserError, match="does not hold the end of its prompt"):
        said("something else", PROMPT, {})


# OpenRLHF itself


@pytest.fixture
def openrlhf_agent() -> Any:
    return pytest.importorskip("openrlhf.utils.agent", exc_type=ImportError)


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
def test_the_file_that_the_trainer_loads(openrlhf_agent: Any, tmp_path: Path) -> None:
    """As `_load_agent_executor` does it; then a group, as an `Experience`."""
    from importlib.util import module_from_spec, spec_from_file_location

    import torch
    from openrlhf.trainer.ppo_utils.experience import Experience, make_experience_batch, split_experience_batch

    example = Path(__file__).parents[2] / "examples" / "openrlhf" / "agent_func.py"
    spec = spec_from_file_location("agent_module", example)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    assert issubclass(module.AgentExecutor, openrlhf_agent.AgentExecutorBase)
    policy = Policy()
    group = asyncio.run(samples(module.AgentExecutor(), policy, exported("arithmetic", tmp_path)[0]["label"], 3))
    policy.engine.close()
    items = []
    for sample in group:
        sound(sample)
        tokens = torch.tensor(sample["observation_tokens"])
        mask = torch.zeros_like(tokens)
        for start, end in sample["action_ranges"]:
            mask[start:end] = 1
        items.append(
            Experience(
                sequences=tokens[None],
                attention_mask=torch.ones_like(tokens)[None],
                action_mask=mask[1:][None],
                rollout_log_probs=torch.tensor(sample["rollout_log_probs"][1:])[None],
                rewards=torch.tensor([sample["reward"]]),
                info={key: torch.tensor([value]) for key, value in sample["extra_logs"].items()},
            )
        )
    batch = Experience.concat_experiences(items, 0)
    batch.index = None
    again = make_experience_batch(split_experience_batch(batch))
    assert torch.equal(again.rewards, torch.tensor([sample["reward"] for sample in group]))
    assert again.action_mask.sum().item() == sum(end - start for one in group for start, end in one["action_ranges"])


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
def test_the_policy_of_transformers_tokenizers(openrlhf_agent: Any, tmp_path: Path) -> None:
    """The tokenizer that OpenRLHF hands on, and prompts as its `PromptDataset` makes them of the export."""
    pytest.importorskip("openrlhf.datasets", exc_type=ImportError)
    from transformers import AutoTokenizer

    from rollforge.export.openrlhf.loader import dataset

    tokenizer = AutoTokenizer.from_pretrained(str(SHIPPED))
    exported("math_answer", tmp_path)
    data, _ = dataset("grpo", tmp_path / "out" / "openrlhf-grpo" / "train.jsonl", str(tmp_path / "cache"), tokenizer)
    _, prompt, given, images = data[0]
    answer = json.loads(given)["expected_answer"]
    executor = agent_executor("math_answer")()
    engine = Script(f"It is \\boxed{{{answer}}}.", "It is \\boxed{no}.")

    async def both() -> list[Any]:
        asked = params()
        return await asyncio.gather(
            *(executor.execute(prompt, given, asked, 2000, tokenizer, engine, images=images) for _ in range(2))
        )

    group = asyncio.run(both())
    assert [sample["reward"] for sample in group] == [1.0, 0.0]
    assert engine.prompts[0] == prompt  # the template makes the same of the row where there are no tools


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("where", ["function", "server"])
def test_its_own_executor_gets_the_verdicts(where: str, openrlhf_agent: Any, tmp_path: Path) -> None:
    from contextlib import nullcontext

    from transformers import AutoTokenizer

    from rollforge.serve.env_app import env_app
    from rollforge.serve.settings import Settings
    from tests.serve.live import in_thread

    tokenizer = AutoTokenizer.from_pretrained(str(SHIPPED))
    row = exported("math_answer", tmp_path)[0]
    answer = json.loads(row["label"])["expected_answer"]
    prompt = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
    example = Path(__file__).parents[2] / "examples" / "openrlhf" / "reward_func.py"
    env: Any = player("math_answer").env
    serving: Any = in_thread(env_app(env, "math_answer", Settings())) if where == "server" else nullcontext(None)
    with serving as url:
        executor = openrlhf_agent.SingleTurnAgentExecutor(f"{url}/get_reward" if url else str(example))
        for text, reward in ((f"\\boxed{{{answer}}}", 1.0), ("\\boxed{no}", 0.0)):
            work = executor.execute(prompt, row["label"], params(max_tokens=100), 2000, tokenizer, Script(text))
            assert float(asyncio.run(work)["reward"][0]) == reward


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
def test_a_reward_function_raises_what_it_cannot_judge(openrlhf_agent: Any) -> None:
    judge: Callable[..., Any] = reward_function(moody)
    assert judge([f"{PROMPT}4<|im_end|>"], [PROMPT], [ASKED])["rewards"].tolist() == [1.0]
    assert judge([f"{PROMPT}!"], [PROMPT], [ASKED])["rewards"].tolist() == [0.0]
    with pytest.raises(SetupError, match="what is that"):
        judge([f"{PROMPT}?"], [PROMPT], [ASKED])
    tools: Env = player("arithmetic").env
    with pytest.raises(UserError, match="has tools"):
        reward_function(tools)(
            [f"{PROMPT}{CALL}"], [PROMPT], [label(prompt="x", tools=[{"type": "function", "name": "add"}], answer=1)]
        )
