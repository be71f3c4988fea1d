"""Environments in OpenRLHF (0.11): an agent that plays them with OpenRLHF's own engine, and a reward function.

    train_ppo_ray --train.agent_func_path agent_func.py   file: AgentExecutor = agent_executor("arithmetic")
    train_ppo_ray --reward.remote_url reward_func.py      file: reward_func = reward_function("math_answer")

The label of a sample is its task's row, as `rollforge export --to openrlhf:grpo` writes it. The agent:

    execute() --row, Generate over llm_engine--> Player.play --> trajectory: tokens, what of them the policy chose, log probs

OpenRLHF needs a reward of every sample: without one the run ends, and from a 0 it learns. It also divides by the number of
action tokens. So a sample without a verdict, or whose tokens are not contiguous, is its prompt with one action token, and
has the mean reward of its group: an advantage of 0 (estimators group_norm, dr_grpo, rloo). Source: openrlhf/utils/agent.py,
trainer/ppo_utils/{samples_generator,experience_maker}.py, models/loss.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from importlib import import_module
from itertools import groupby
from statistics import fmean
from typing import Any

from rollforge.envs.base import Env
from rollforge.errors import DeadlineExceeded, SetupError, UserError
from rollforge.export.openrlhf.wire import row_of, said
from rollforge.models.chat_format import ChatFormat
from rollforge.models.tokens import Completion, Generate, Sampling, TokenModel
from rollforge.records.items import Json
from rollforge.records.rollout import Rollout
from rollforge.records.task import task_from_row
from rollforge.records.trajectory import Trajectory
from rollforge.train.adapters.live import live
from rollforge.train.play import ATTEMPTS, Player, learnable, player, tried, unjudged

log = logging.getLogger(__name__)

PATIENCE = 64
"""Samples in a row that could not be learned from, after which the run ends."""


def agent_executor(env: str | Env, *, attempts: int = ATTEMPTS, patience: int = PATIENCE, **options: Any) -> Any:
    """The class `AgentExecutor` for a file that `--train.agent_func_path` names. `options` are those of `train.play.player`:
    max_turns, agent, limits, rollout_seconds. Raises `UserError`: no such environment, OpenRLHF is missing."""
    try:
        agent: Any = import_module("openrlhf.utils.agent")
    except ImportError as error:
        raise UserError(f"OpenRLHF does not import here ({error}): pip install openrlhf==0.11.2") from error
    playing = player(env, **options)

    def init(self: Executor) -> None:
        Executor.__init__(self, playing, attempts, patience)

    return type("AgentExecutor", (Executor, agent.AgentExecutorBase), {"__init__": init})


def reward_function(env: str | Env, **options: Any) -> Callable[..., Json]:
    """`reward_func` for a file that `--reward.remote_url` names: the environment's verdict on answers of one turn. It raises
    what the environment could not judge; OpenRLHF then ends the run."""
    playing = player(env, **options)
    live().keep(playing)

    async def judge(query: str, prompt: str, label: Any) -> float:
        task = task_from_row(row_of(label))
        message = said(query, prompt, task.params)
        if message.get("tool_calls") and getattr(playing.env, "tools", None):
            raise UserError(
                f"{playing.env_name} has tools, and a reward function does not run them: --train.agent_func_path does"
            )
        rollout = await playing.judge(task, [message])
        if rollout.reward is None:
            raise SetupError(f"{playing.env_name} could not judge: {unjudged(rollout)}")
        return rollout.reward

    def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **_: Any) -> Json:
        torch: Any = import_module("torch")  # OpenRLHF has it
        rewards = torch.tensor([live().run(judge(*one)) for one in zip(queries, prompts, labels, strict=True)])
        return {"rewards": rewards, "scores": rewards, "extra_logs": {}}

    return reward_func


class Executor:
    """OpenRLHF's agent, without its base class. One for each engine; it calls `execute` for all samples at once."""

    def __init__(self, playing: Player, attempts: int = ATTEMPTS, patience: int = PATIENCE) -> None:
        self._player = playing
        self._attempts = attempts
        self._patience = patience
        self._groups: dict[tuple[int, str], _Group] = {}
        self._chat: tuple[Any, ChatFormat] | None = None
        self._lost = 0

    async def execute(
        self,
        prompt: str,
        label: Any,
        sampling_params: Any,
        max_length: int,
        hf_tokenizer: Any,
        llm_engine: Any,
        images: Any = None,
    ) -> Json:
        """One sample. The prompt is rendered from the task's row, with its tools, by the checkpoint's chat template.

        Raises `UserError` for a label that is no task, and `SetupError` where no sample could succeed: both end the run.
        """
        task = task_from_row(row_of(label))
        generate = engine_generate(llm_engine, sampling_params, max_length)
        seconds = self._player.rollout_seconds
        model = TokenModel("openrlhf", self._format(hf_tokenizer), generate, seconds=seconds)
        # The samples of a prompt come with one object of sampling parameters, and all at once.
        key = (id(sampling_params), prompt)
        group = self._groups.setdefault(key, _Group(sampling_params))
        group.playing += 1
        sample: Json | None = None
        try:
            rollout = await tried(partial(self._player.play, task, model, index=group.playing - 1), self._attempts)
            found = learnable(rollout)
            if isinstance(found, Trajectory):
                assert rollout.reward is not None
                group.rewards.append(rollout.reward)
                sample = _sample(found, rollout.reward, _cut(rollout))
            self._count(rollout, found)
        finally:
            group.playing -= 1
            if not group.playing:
                self._groups.pop(key, None)
                group.over.set()
        logs = {"judged": float(rollout.reward is not None), "learnt": float(sample is not None)}
        if sample is None:
            await group.over.wait()
            reward = fmean(group.rewards) if group.rewards else 0.0
            sample = _sample(_neutral(rollout, prompt, hf_tokenizer, max_length), reward, cut=False)
        if sampling_params.logprobs is None:
            sample["rollout_log_probs"] = None
        return {"prompt": prompt, "label": label, "images": images, "mm_train_inputs": None, "extra_logs": logs, **sample}

    def _count(self, rollout: Rollout, found: Trajectory | str) -> None:
        if isinstance(found, Trajectory):
            self._lost = 0
            return
        self._lost += 1
        log.warning("a sample of task %s is not learned from: %s", rollout.task, found)
        if self._lost >= self._patience:
            raise SetupError(f"{self._lost} samples in a row could not be learned from; the last: {found}")

    def _format(self, tokenizer: Any) -> ChatFormat:
        # Each call brings a copy of the tokenizer: Ray unpickles it.
        template = tokenizer.chat_template
        if self._chat is None or self._chat[0] != template:
            self._chat = (template, ChatFormat.of(tokenizer))
        return self._chat[1]


def engine_generate(engine: Any, params: Any, max_length: int) -> Generate:
    """OpenRLHF's engine as a `Generate`. The trainer's sampling holds, whatever a task's row asks for: the gradient assumes
    it. Only stop texts and a lower limit of tokens are taken from the row."""

    async def generate(prompt: list[int], sampling: Sampling, /, *, seed: int, seconds: float) -> Completion:
        limits = (max_length - len(prompt), params.max_tokens, sampling.max_tokens)
        room = min(limit for limit in limits if limit is not None)
        if room <= 0:
            return Completion([], [], "", "length")
        asked = deepcopy(params)
        asked.max_tokens = room
        if getattr(asked, "min_tokens", 0) > room:
            asked.min_tokens = room
        if sampling.stop:
            asked.stop = list(sampling.stop)
        try:
            async with asyncio.timeout(seconds):
                answer = (await engine.generate(prompt, asked)).outputs[0]
        except TimeoutError:
            raise DeadlineExceeded(f"OpenRLHF's engine gave no answer within {seconds:g} s") from None
        ids = list(answer.token_ids)
        if params.logprobs is None:
            chosen = [0.0] * len(ids)  # nobody asked for them, and none are passed on
        elif answer.logprobs is None or len(answer.logprobs) != len(ids):
            raise SetupError("OpenRLHF's engine was asked for log probabilities and gave none, or not one for each token")
        else:
            chosen = [of[id].logprob for of, id in zip(answer.logprobs, ids, strict=True)]
        return Completion(ids, chosen, answer.text, "length" if answer.finish_reason == "length" else "stop")

    return generate


class _Group:
    """The samples of one prompt that are being played."""

    def __init__(self, params: Any) -> None:
        self.params = params
        """Held, so that no other object takes its id."""
        self.playing = 0
        self.rewards: list[float] = []
        self.over = asyncio.Event()


def _sample(found: Trajectory, reward: float, cut: bool) -> Json:
    start = len(found.prompt_ids)
    ranges = []
    for chosen, run in groupby(found.mask):
        end = start + sum(1 for _ in run)
        if chosen:
            ranges.append((start, end))
        start = end
    return {
        "observation_tokens": [*found.prompt_ids, *found.completion_ids],
        "action_ranges": ranges,
        "rollout_log_probs": [*([0.0] * len(found.prompt_ids)), *found.log_probs],
        "reward": reward,
        "scores": reward,
        "truncated": cut,
    }


def _neutral(rollout: Rollout, prompt: str, tokenizer: Any, max_length: int) -> Trajectory:
    """The first token that the policy chose, with its prompt; the ending token if it came to none."""
    first = next((item for item in rollout.output if item.get("generation_token_ids")), None)
    if first is None:
        ids = tokenizer(text=prompt, add_special_tokens=False)["input_ids"]
        return Trajectory(ids[-(max_length - 1) :], [tokenizer.eos_token_id], [0.0], [1], 0)
    token, chosen = first["generation_token_ids"][:1], first["generation_log_probs"][:1]
    return Trajectory(first["prompt_token_ids"], token, chosen, [1], 1)


def _cut(rollout: Rollout) -> bool:
    return bool((rollout.response or {}).get("incomplete_details"))
