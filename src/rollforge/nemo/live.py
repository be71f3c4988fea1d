"""Rows in, rollouts out, for a trainer that drives the environments live.

    rows --> POST /run, again after an infrastructure fault --> judged    --> out, as soon as it is there
                                                            '-> no verdict --> out when its group has ended, masked

What NeMo RL does with a result decides what may leave here (nemo_rl/environments/nemo_gym.py): an exception ends the whole
batch, and so do token ids that do not continue the call before, log probabilities that are no numbers, and a result without
generated tokens. A reward counts in the baseline of its group even when the sample is masked from the loss. So a rollout
without a verdict comes back masked, with tokens, and with the mean reward of its group, which moves no baseline; never as a
zero. Only if nothing at all was judged is there nothing to hand over, and the first failure is raised: with a status, by
which NeMo RL knows the infrastructure, unless it is the rows or the configuration that are wrong.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, TypeGuard

from rollforge.errors import (
    DeadlineExceeded,
    InfraFault,
    JudgeFault,
    RolloutError,
    SetupError,
    UserError,
    VerifierFault,
    short,
)
from rollforge.records.items import TOKEN_FIELDS, Item, Json, input_items
from rollforge.records.task import task_id

log = logging.getLogger(__name__)

ATTEMPTS = 3

Run = Callable[[Json], Awaitable[Json]]
"""One attempt at a row: the answer of an agent's `/run`. Raises `RolloutError` or `SetupError`."""


class TransportError(Exception):
    """Nothing was judged. `status` tells NeMo RL that the infrastructure failed, not the data."""

    status = 503


def run_rows(
    rows: Sequence[Json],
    run: Run,
    limit: AbstractAsyncContextManager[Any] | None = None,
    *,
    backoff: float = 1.0,
    begin: Callable[[Sequence[Json]], Awaitable[None]] | None = None,
    ended: Callable[[], None] = lambda: None,
) -> Iterator[Awaitable[tuple[Json, Json]]]:
    """As many awaitables as rows; each gives the next `(row, result)` that is there, `row` being the object passed in.

    Called with a running event loop. Nothing is left running when the iterator is dropped before its end. `backoff`: seconds
    before the second attempt, at most; it doubles with each further one. `begin` is called with all rows before any of them
    runs; what it raises, every awaitable raises. `ended` is called when no row is under way.
    """
    batch = _Batch(rows, run, limit or nullcontext(), backoff, begin or _nothing, ended)
    try:
        for _ in rows:
            yield batch.next()
    except GeneratorExit:
        batch.cancel()
        raise


def trainable(result: Mapping[str, Any]) -> list[Item]:
    """The items of a result that carry generated tokens."""
    return [item for item in (result.get("response") or {}).get("output") or [] if item.get("generation_token_ids")]


def mended(result: Json) -> Json:
    """`result` so that its tokens are integers and contiguous and its log probabilities numbers; masked where that took a
    change.

    Tokens from the first call on that has others, or whose prompt does not begin with everything before it, are left out:
    what remains is a conversation that happened. `rollforge.masked` says why.
    """
    seen: list[int] = []
    reason = None
    output = []
    for item in result["response"]["output"]:
        if item.get("generation_token_ids"):
            reason = reason or _unfit(item, seen)
            if reason is None:
                seen = [*item["prompt_token_ids"], *item["generation_token_ids"]]
            else:
                item = {key: value for key, value in item.items() if key not in (*TOKEN_FIELDS, "routed_experts")}
        output.append(item)
    if reason is None:
        return result
    return masked({**result, "response": {**result["response"], "output": output}}, reason)


def masked(result: Json, reason: str) -> Json:
    """Marked, in the places where trainers look, as a sample that must not be trained on."""
    block = {**_mapping(result.get("rollforge")), "masked": reason}
    config = {**_mapping(result.get("instance_config")), "mask_sample": True}
    return {**result, "mask_sample": True, "instance_config": config, "rollforge": block}


def _unfit(item: Item, seen: list[int]) -> str | None:
    """Why the tokens of a model call cannot be trained on, given those before it; None if they can."""
    prompt, new, logs = (item.get(name) for name in TOKEN_FIELDS)
    if not (_ids(prompt) and _ids(new)):
        return "token ids are missing or no integers"
    if prompt[: len(seen)] != seen:
        return "the prompt of a model call does not begin with what came before it"
    if not isinstance(logs, list) or len(logs) != len(new) or not all(map(_finite, logs)):
        return "log probabilities are missing or no numbers"
    return None


def _ids(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and set(map(type, value)) == {int}


@dataclass
class _Group:
    """The rows of one prompt."""

    left: int = 0
    rewards: list[float] = field(default_factory=list)
    """With `parts`, one each, of what was judged. No results are kept: whoever has one may take it apart."""
    parts: list[dict[str, float]] = field(default_factory=list)
    tokens: Item | None = None
    """An item with tokens to train on, of one of them."""
    failed: list[tuple[Json, Json | RolloutError | SetupError]] = field(default_factory=list)
    """Rows with their failure, or with a result that has no tokens to train on."""


class _Batch:
    def __init__(
        self,
        rows: Sequence[Json],
        run: Run,
        limit: AbstractAsyncContextManager[Any],
        backoff: float,
        begin: Callable[[Sequence[Json]], Awaitable[None]],
        ended: Callable[[], None],
    ) -> None:
        self._backoff = backoff
        self._begun = asyncio.ensure_future(begin(rows)) if rows else None
        self._run = run
        self._limit = limit
        self._out: asyncio.Queue[tuple[Json, Json] | Exception] = asyncio.Queue()
        self._groups: dict[str, _Group] = defaultdict(_Group)
        self._left = len(rows)
        self._ended: list[_Group] = []
        """Groups without anything judged; they wait for the whole batch."""
        keys = [_group(row) for row in rows]
        for key in keys:
            self._groups[key].left += 1
        self._tasks = [asyncio.ensure_future(self._one(row, self._groups[key])) for row, key in zip(rows, keys, strict=True)]
        self._under_way = len(self._tasks)
        self._told = ended
        for task in self._tasks:
            task.add_done_callback(self._done)

    async def next(self) -> tuple[Json, Json]:
        found = await self._out.get()
        if isinstance(found, Exception):
            raise found
        return found

    def cancel(self) -> None:
        for task in (*self._tasks, self._begun):
            if task is not None:
                task.cancel()

    def _done(self, _: asyncio.Future[None]) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._told()

    async def _one(self, row: Json, group: _Group) -> None:
        assert self._begun is not None
        try:
            await asyncio.shield(self._begun)
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for a row
            self._out.put_nowait(_raised(error))
            return
        try:
            result = mended(await self._attempts(row))
        except (RolloutError, SetupError) as error:
            group.failed.append((row, error))
        except Exception as error:  # whatever it was, the stream goes on and the others are delivered
            log.warning("a row failed: %s", short(error), exc_info=error)
            group.failed.append((row, InfraFault(short(error))))
        else:
            if items := trainable(result):
                group.rewards.append(result["reward"])
                group.parts.append(dict(result.get("reward_components") or {}))
                group.tokens = group.tokens or dict(items[0])
                self._out.put_nowait((row, result))
            else:
                group.failed.append((row, result))
        group.left -= 1
        self._left -= 1
        if not group.left:
            self._ended.append(group)
        self._settle()

    def _settle(self) -> None:
        """Hand over what failed in the groups that have ended. A donor of tokens and reward is found in the group, else in
        the batch once all of it is there; without any the failures stand as they are."""
        last = not self._left
        others = [group for group in self._groups.values() if group.tokens]
        for group in [group for group in self._ended if group.tokens or last]:
            self._ended.remove(group)
            donor = group if group.tokens else (others[0] if others else None)
            for row, failure in group.failed:
                try:
                    found = _without_verdict(row, failure, donor)
                except Exception as error:  # whoever waits for this row would wait for ever
                    log.warning("a row failed: %s", short(error), exc_info=error)
                    found = _raised(error)
                self._out.put_nowait(found)

    async def _attempts(self, row: Json) -> Json:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with self._limit:
                    result = await self._run(row)
                return _checked(result, row)
            except (InfraFault, JudgeFault, DeadlineExceeded) as error:
                if attempt == ATTEMPTS or error.stage == "verify":
                    raise
                log.warning("attempt %d of %d: %s", attempt, ATTEMPTS, error)
                await asyncio.sleep(random.uniform(0, self._backoff * 2 ** (attempt - 1)))
        raise AssertionError("unreachable")


def _without_verdict(
    row: Json, failure: Json | RolloutError | SetupError, donor: _Group | None
) -> tuple[Json, Json] | Exception:
    if not isinstance(failure, dict):
        reason = f"{type(failure).__name__}: {failure}"
        partial = getattr(failure, "partial", None)
        partial = partial if _is_response(partial) else {"output": []}
        result = mended({**row, "responses_create_params": _params(row), "response": partial})
    else:
        result = failure
        reason = _mapping(result.get("rollforge")).get("masked") or "the rollout has no generated tokens"
    if donor is None:
        # No tokens anywhere: a model server that gives none has to be told by the trainer, a failure by its cause.
        return (row, result) if isinstance(failure, dict) else _raised(failure)
    log.warning("a rollout is masked: %s", reason)
    if not trainable(result):
        output = [*result["response"]["output"], dict(donor.tokens or {})]
        result = {**result, "response": {**result["response"], "output": output}}
    if not isinstance(failure, dict):
        result |= _mean(donor)
    return row, masked(result, reason)


def _raised(failure: Exception) -> Exception:
    """What a trainer is told of a failure: without a status it is taken for the data's or the configuration's fault."""
    return failure if isinstance(failure, (SetupError, UserError, VerifierFault)) else TransportError(short(failure))


async def _nothing(_: Sequence[Json]) -> None:
    pass


def _mean(group: _Group) -> Json:
    """The mean reward of what was judged, and of its parts, which trainers that weigh them want of every sample.

    A part that a rollout lacks counts as 0, as it does for NeMo RL. That the parts add up to the reward is checked there: if
    they do not, because rollouts without parts had rewards, the reward alone stands for what the group got.
    """
    reward = fmean(group.rewards)
    names = sorted({name for part in group.parts for name in part})
    parts = {name: fmean(part.get(name, 0.0) for part in group.parts) for name in names}
    if not math.isclose(sum(parts.values()), reward, rel_tol=1e-5, abs_tol=1e-6):
        parts = {}
    return {"reward": reward, **({"reward_components": parts} if parts else {})}


def _checked(result: Any, row: Json) -> Json:
    """What an agent answered. Raises `InfraFault` for what is no rollout, `JudgeFault` for one that could not be judged."""
    if not isinstance(result, dict) or not _is_response(result.get("response")):
        raise InfraFault(f"the agent's answer is no rollout: {result!r:.200}")
    if result.get("_ng_failure_class"):
        raise JudgeFault(f"{result['_ng_failure_class']}: {result.get('_ng_failure_judge_error') or 'no reason given'}")
    reward, parts = result.get("reward"), result.get("reward_components")
    if not _finite(reward):
        raise InfraFault(f"the agent's answer has the reward {reward!r:.200}")
    if parts is not None and not (isinstance(parts, dict) and all(map(_finite, parts.values()))):
        raise InfraFault(f"the agent's answer has the reward_components {parts!r:.200}, which are no numbers by name")
    params = result.get("responses_create_params")
    known = isinstance(params, dict) and params.get("input") is not None
    return {**row, **result, "responses_create_params": params if known else _params(row)}


def _is_response(value: Any) -> bool:
    output = value.get("output") if isinstance(value, dict) else None
    return isinstance(output, list) and all(isinstance(item, dict) for item in output)


def _params(row: Json) -> Json:
    params = _mapping(row.get("responses_create_params"))
    return {**params, "input": input_items(params)}


def _group(row: Json) -> str:
    index = row.get("_ng_task_index")
    if index is not None:
        return f"index {index}"
    fields = {key: value for key, value in row.items() if key not in ("responses_create_params", "_rowidx")}
    return task_id(row.get("responses_create_params") or {}, fields)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _finite(value: Any) -> bool:
    try:
        return isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False
