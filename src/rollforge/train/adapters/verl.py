"""verl plays and judges with rollforge's environments (verl 0.9; experimental/agent_loop, experimental/reward_loop, tools).

`RollforgeAgentLoop` samples whole rollouts, tools, state and verdict included; `compute_score` judges what verl has sampled
itself; `verl_tools.EnvironmentTool` runs an environment's tools in verl's own tool loop. All three read the rows of
`rollforge export --to verl:grpo`. verl calls these objects by their names and asks nothing of their classes, so that this
module can be imported without it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from typing import Any

from rollforge.errors import InfraFault, RolloutError, SetupError
from rollforge.export.pieces.matcher import said
from rollforge.models.chat_format import ChatFormat
from rollforge.models.tokens import Completion, Sampling, TokenModel
from rollforge.records.items import Json, assistant, user
from rollforge.records.lossless import loads
from rollforge.records.rollout import Rollout
from rollforge.records.task import task_from_row
from rollforge.records.trajectory import Trajectory
from rollforge.sandbox.deadline import within
from rollforge.train.adapters.verl_row import EPISODE, player_of, row_of, scores
from rollforge.train.play import learnable, tried, unjudged


class RollforgeAgentLoop:
    """An agent loop of verl: one per sample, named in `agent_loop_config_path` with the options `env` (a reference as
    `rollforge collect` takes it, or references by the rows' environment names; by default what the row names, if it is
    registered), `max_turns` (by default `multi_turn.max_assistant_turns`, or 16), `seconds` (of one rollout), `metrics`
    (fields of the verdict that are logged)."""

    # No subclass of verl's own: it adds nothing but helpers for loops that keep the tokens themselves.

    def __init__(
        self,
        trainer_config: Any,
        server_manager: Any,
        tokenizer: Any,
        data_config: Any,
        env: str | Mapping[str, str] | None = None,
        max_turns: int | None = None,
        seconds: float = 3600,
        metrics: Iterable[str] = (),
        **_: Any,
    ) -> None:
        self._config = trainer_config.config.actor_rollout_ref.rollout
        self._server = server_manager
        self._tokenizer = tokenizer
        self._variables = data_config.config.get("apply_chat_template_kwargs") or {}
        self._env = env
        self._turns = int(max_turns or self._config.multi_turn.max_assistant_turns or 16)
        self._seconds = float(seconds)
        self._metrics = tuple(metrics)

    async def run(self, sampling_params: dict[str, Any], **columns: Any) -> Any:
        """verl's AgentLoopOutput of one rollout of the row in `columns`.

        What could not be judged, and what has no contiguous tokens, must not teach. verl's trainer drops a sample whose
        loop raises, and compares the others of its group among themselves: raises `RolloutError`. Its older one
        (`trainer.use_v1=False`), which gives no `session_id`, would stop: it gets a sample with nothing to learn from.
        """
        info = columns.get("extra_info") or {}
        playing = player_of(self._env, str(info.get("env") or columns.get("data_source") or ""), self._turns, self._seconds)
        chat, ends = _chat(self._tokenizer, tuple(sorted(self._variables.items())))
        task = task_from_row(row_of(info))
        sampler: _Sampler

        async def play() -> Rollout:
            nonlocal sampler
            sampler = _Sampler(self._server, self._tokenizer, ends, self._config, sampling_params, _priority(columns))
            model = TokenModel("policy", chat, sampler, seconds=self._seconds)
            return await playing.play(task, model, index=int(columns.get("session_id", 0)))

        rollout = await tried(play)
        found = learnable(rollout)
        if isinstance(found, Trajectory):
            return self._output(rollout, found, sampler)
        if "session_id" in columns:
            raise RolloutError(f"task {rollout.task}: {found}; the sample is left out")
        end = min(ends)
        return self._output(rollout, Trajectory([end], [end], [0.0], [0], 0), sampler)

    def _output(self, rollout: Rollout, tokens: Trajectory, sampler: _Sampler) -> Any:
        verl = import_module("verl.experimental.agent_loop.agent_loop")
        judged = tokens.calls > 0
        experts = sampler.experts
        return verl.AgentLoopOutput(
            prompt_ids=tokens.prompt_ids,
            response_ids=tokens.completion_ids,
            response_mask=tokens.mask,
            response_logprobs=tokens.log_probs if sampler.asked else None,
            routed_experts=None if experts is None else experts[: len(tokens.prompt_ids) + len(tokens.completion_ids)],
            reward_score=rollout.reward if judged else 0.0,
            num_turns=2 * tokens.calls,
            metrics=verl.AgentLoopMetrics(
                generate_sequences=rollout.seconds["model"],
                tool_calls=rollout.seconds["tools"],
                compute_score=rollout.seconds["verify"],
                num_preempted=sampler.preempted,
            ),
            extra_fields={
                **sampler.fields,
                "turn_scores": [],
                "tool_rewards": [],
                # verl wants the same keys of every sample.
                "reward_extra_info": {"judged": float(judged), **scores(rollout, self._metrics)},
            },
        )


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    env: str | Mapping[str, str] | None = None,
    metrics: Iterable[str] = (),
    **_: Any,
) -> dict[str, float]:
    """verl's custom reward function: the environment's verdict on a response. `reward_kwargs` gives `env` and `metrics`, as
    for `RollforgeAgentLoop`. `ground_truth` is not looked at: the environment knows better.

    What was called with `EnvironmentTool` is called again in a fresh session. Raises `RolloutError` where there is no
    verdict, and where calling again told something else: verl leaves the sample out.
    """
    info = extra_info or {}
    episode = loads(info[EPISODE]) if info.get(EPISODE) else {}
    if episode.get("failure"):
        raise RolloutError(f"a tool broke, not the policy: {episode['failure']}; the sample is left out")
    messages = [*episode.get("messages", ()), {"role": "assistant", "content": said(solution_str)}]
    judging = player_of(env, str(info.get("env") or data_source))
    rollout = await judging.judge(row_of(info), messages)
    if rollout.reward is None:
        raise RolloutError(f"task {rollout.task}: {unjudged(rollout)}; the sample is left out")
    return scores(rollout, metrics)


class _Sampler:
    """verl's server as a `Generate`, for the calls of one rollout, with verl's own sampling parameters: of the task's, only
    stop texts and a lower limit of tokens count. Beside the answers it keeps what verl wants to know of its server."""

    def __init__(
        self, server: Any, tokenizer: Any, ends: frozenset[int], config: Any, params: Mapping[str, Any], priority: Json
    ) -> None:
        self._server = server
        self._decode = tokenizer.backend_tokenizer.decode
        self._ends = ends
        self._config = config
        self._params = params
        self._priority = priority
        self._name = f"det-{priority.get('priority', 0)}" if config.full_determinism else uuid.uuid4().hex
        self._start: int | None = None
        self.asked = bool(params.get("logprobs"))
        self.fields: Json = {}
        self.experts: Any = None
        self.preempted = -1

    async def __call__(self, prompt: list[int], sampling: Sampling, /, *, seed: int, seconds: float) -> Completion:
        if self._start is None:
            self._start = len(prompt)
            if len(prompt) > self._config.prompt_length:
                raise SetupError(
                    f"a prompt has {len(prompt)} tokens, tools included, and data.max_prompt_length is "
                    f"{self._config.prompt_length}: raise it, or leave out such tasks"
                )
        limit = self._config.response_length - (len(prompt) - self._start)  # of all turns together
        limit = min(limit, sampling.max_tokens or limit)
        if limit < 1:
            return Completion([], [], "", "length")
        params = {**self._params, "max_tokens": limit, **({"stop": list(sampling.stop)} if sampling.stop else {})}
        call = self._server.generate(request_id=self._name, prompt_ids=prompt, sampling_params=params, **self._priority)
        output = await within(seconds, "the model call", call)
        self._note(output)
        if output.stop_reason in ("abort", "aborted"):
            raise InfraFault("verl's server stopped in the middle of an answer (its weights were exchanged, say)")
        ids = list(output.token_ids)
        ended = bool(ids) and ids[-1] in self._ends
        text = self._decode(ids[:-1] if ended else ids, skip_special_tokens=False)
        cut = min((place for stop in sampling.stop if (place := text.find(stop)) >= 0), default=None)
        full = len(ids) >= limit and not ended and cut is None
        log_probs = [float(value) for value in output.log_probs or ()] if self.asked else [0.0] * len(ids)
        return Completion(ids, log_probs, text[:cut], "length" if full else "stop")

    def _note(self, output: Any) -> None:
        fields = output.extra_fields or {}
        # As verl's loops do: of later calls only which weights answered last.
        self.fields = {**fields, **self.fields, **{k: v for k, v in fields.items() if k == "max_global_steps" and v}}
        self.experts = self.experts if output.routed_experts is None else output.routed_experts
        if output.num_preempted is not None:
            self.preempted = max(self.preempted, 0) + output.num_preempted


def _priority(columns: Mapping[str, Any]) -> Json:
    return {"priority": int(columns["priority"])} if "priority" in columns else {}


@cache
def _chat(tokenizer: Any, variables: tuple[tuple[str, Any], ...]) -> tuple[ChatFormat, frozenset[int]]:
    """The chat format, and the tokens that end an answer: the tokenizer's, and the one that its template ends turns with
    (a checkpoint's generation_config, which would tell, is not at hand)."""
    chat = ChatFormat.of(tokenizer, **dict(variables))
    turn = chat.render({}, [user("?"), assistant("said")], generation=False)
    special = set(tokenizer.all_special_ids)
    last = [token for token in chat.encode(turn.rpartition("said")[2]) if token in special][:1]
    ends = frozenset((*last, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])))
    return ChatFormat.of(tokenizer, ends, **dict(variables)), ends
