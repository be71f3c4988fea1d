"""The on-policy check: planted drifts of every kind are all found, none in clean runs."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rollforge.cli.main import app
from rollforge.errors import UserError
from rollforge.models.base import ModelOptions
from rollforge.models.tiny import SHIPPED, load
from rollforge.records.items import Item, assistant, function_call, function_call_output
from rollforge.records.rollout import Outcome, Rollout
from rollforge.records.rows import BadLine, dump, row_of
from rollforge.train.forward import Forward, forward
from rollforge.train.on_policy import KINDS, inspect
from rollforge.train.play import player

ENVS = ("arithmetic", "weather", "string_match", "counter", "qa_f1")


@cache
def tiny() -> Forward:
    return forward("tiny", torch=False)


@pytest.fixture(scope="module")
def clean() -> list[Rollout]:
    """Of `tiny` in five environments, with one and with several model calls; short ones."""
    import asyncio

    async def play() -> list[Rollout]:
        model = load(None, ModelOptions())
        found = []
        for name in ENVS:
            playing = player(name, max_turns=3)
            tasks = playing.env.tasks
            for number, task in zip(range(2), tasks() if callable(tasks) else tasks, strict=False):
                found.append(await playing.play(task, model, index=0, seed=number, max_output_tokens=60))
            await playing.aclose()
        await model.aclose()
        return found

    rollouts = asyncio.run(play())
    assert all(rollout.outcome.judged for rollout in rollouts), [rollout.failure for rollout in rollouts]
    return rollouts


def marked(rollout: Rollout) -> list[Item]:
    """The items with token ids."""
    return [item for item in rollout.output if item.get("generation_token_ids")]


def test_clean_runs_are_clean(clean: list[Rollout]) -> None:
    found = inspect(clean, forward=tiny())
    assert (found.rollouts, found.flawed, found.silent, found.examples) == (len(clean), 0, 0, [])
    assert {len(marked(rollout)) > 1 for rollout in clean} == {True, False}
    assert found.generated == sum(len(item["generation_token_ids"]) for one in clean for item in marked(one))
    agreement = found.agreement
    assert agreement is not None
    assert agreement.max < 1e-6  # as the rows are rounded
    assert (agreement.tokens, agreement.other_prompts) == (found.generated, 0)
    assert inspect(clean).flawed == 0


Plant = Callable[[list[Item], int, int, int], str]
"""Given the items with token ids, a call, a place in it and a token: what is to be found, "" if nothing was planted."""


def everywhere(items: list[Item], place: int, token: Any) -> bool:
    """Another token at a place of the whole sequence, in every call alike; False if it is the same one."""
    changed = False
    for item in items:
        prompt, generated = item["prompt_token_ids"], item["generation_token_ids"]
        ids, at = (prompt, place) if place < len(prompt) else (generated, place - len(prompt))
        if at < len(ids) and ids[at] != token:
            ids[at], changed = token, True
    return changed


def no_ids(items: list[Item], call: int, place: int, token: int) -> str:
    del items[call]["generation_token_ids"]
    return "missing"


def no_prompt(items: list[Item], call: int, place: int, token: int) -> str:
    items[call]["prompt_token_ids"] = None
    return "missing"


def unpaired(items: list[Item], call: int, place: int, token: int) -> str:
    values = items[call]["generation_log_probs"]
    del values[place % len(values)]
    return "unequal"


def prompt_token(items: list[Item], call: int, place: int, token: int) -> str:
    """A later prompt in which one token of what was seen is another one."""
    seen = len(items[call - 1]["prompt_token_ids"]) + len(items[call - 1]["generation_token_ids"])
    prompt = items[call]["prompt_token_ids"]
    if call == 0 or prompt[place % seen] == token:
        return ""
    prompt[place % seen] = token
    return "drift"


def prompt_shorter(items: list[Item], call: int, place: int, token: int) -> str:
    """A later prompt that lacks a token of what was seen."""
    seen = len(items[call - 1]["prompt_token_ids"]) + len(items[call - 1]["generation_token_ids"])
    prompt = items[call]["prompt_token_ids"]
    at = place % seen
    if call == 0 or prompt[at] == prompt[at + 1]:
        return ""
    del prompt[at]
    return "drift"


def truncated_history(items: list[Item], call: int, place: int, token: int) -> str:
    """A prompt that forgets: it ends before what was seen does."""
    if call == 0:
        return ""
    del items[call]["prompt_token_ids"][1 + place % (len(items[call - 1]["prompt_token_ids"])) :]
    return "drift"


def other_generation(items: list[Item], call: int, place: int, token: int) -> str:
    """A generation that is not what the next prompt continues."""
    ids = items[call]["generation_token_ids"]
    if call == len(items) - 1 or ids[place % len(ids)] == token:
        return ""
    ids[place % len(ids)] = token
    return "drift"


def tokenised_again(items: list[Item], call: int, place: int, token: int) -> str:
    """The same text in other tokens: a token of several characters in its characters."""
    if call == 0:
        return ""
    prompt = items[call]["prompt_token_ids"]
    seen = len(items[call - 1]["prompt_token_ids"])
    for at in range(seen, seen + len(items[call - 1]["generation_token_ids"])):
        text = tiny().decode([prompt[at]])
        pieces = [id for character in text for id in tiny().chat.encode(character)]
        if len(pieces) > 1 and tiny().decode(pieces) == text:
            prompt[at : at + 1] = pieces
            return "drift"
    return ""


def log_prob(value: Any) -> Plant:
    def plant(items: list[Item], call: int, place: int, token: int) -> str:
        values = items[call]["generation_log_probs"]
        values[place % len(values)] = value
        return "log_prob"

    return plant


def wrong_id(value: Any) -> Plant:
    def plant(items: list[Item], call: int, place: int, token: int) -> str:
        total = len(items[call]["prompt_token_ids"]) + len(items[call]["generation_token_ids"])
        return "ids" if everywhere(items, place % total, value) else ""

    return plant


def shifted(items: list[Item], call: int, place: int, token: int) -> str:
    values = items[call]["generation_log_probs"]
    values[place % len(values)] -= 0.002
    return "disagrees"


def other_token(items: list[Item], call: int, place: int, token: int) -> str:
    """Consistent, so that only the text and the forward pass tell."""
    total = len(items[call]["prompt_token_ids"]) + len(items[call]["generation_token_ids"])
    return "text or disagrees" if everywhere(items, place % total, token) else ""


def without_end(items: list[Item], call: int, place: int, token: int) -> str:
    last = items[-1]
    if last.get("status") != "completed" or len(last["generation_token_ids"]) < 2:
        return ""
    del last["generation_token_ids"][-1], last["generation_log_probs"][-1]
    return "text"


def told_as_chosen(items: list[Item], call: int, place: int, token: int) -> str:
    """What the policy was told counts as what it chose: the mask is wrong."""
    if call == len(items) - 1:
        return ""
    item = items[call]
    seen = len(item["prompt_token_ids"]) + len(item["generation_token_ids"])
    told = items[call + 1]["prompt_token_ids"][seen:]
    many = 1 + place % len(told)
    item["generation_token_ids"] += told[:many]
    item["generation_log_probs"] += [-0.1] * many
    return "text or disagrees"  # an ending token alone says nothing


def chosen_as_told(items: list[Item], call: int, place: int, token: int) -> str:
    """The beginning of an answer counts as prompt."""
    item = items[call]
    if len(item["generation_token_ids"]) < 2:
        return ""
    many = 1 + place % (len(item["generation_token_ids"]) - 1)
    item["prompt_token_ids"] += item["generation_token_ids"][:many]
    del item["generation_token_ids"][:many], item["generation_log_probs"][:many]
    return "text"


PLANTS: dict[str, Plant] = {
    **{plant.__name__: plant for plant in (no_ids, no_prompt, unpaired, prompt_token, prompt_shorter, truncated_history)},
    **{plant.__name__: plant for plant in (other_generation, tokenised_again, shifted, other_token, without_end)},
    **{plant.__name__: plant for plant in (told_as_chosen, chosen_as_told)},
    **{f"log_prob {value}": log_prob(value) for value in (0.5, math.nan, math.inf, -math.inf, -9999.0, None, "-1", True)},
    **{f"id {value}": wrong_id(value) for value in (-1, 408, 10**9, 7.5, None, "7", True)},
}
NEED_MODEL = ("other_token", "shifted", "without_end", "told_as_chosen", "chosen_as_told", "id 408", "id 1000000000")


@pytest.mark.parametrize("name", PLANTS)
def test_planted_drifts_are_all_found(name: str, clean: list[Rollout]) -> None:
    planted = 0

    @settings(max_examples=25, deadline=None, database=None, suppress_health_check=[HealthCheck.filter_too_much])
    @given(
        which=st.integers(0, len(clean) - 1), call=st.integers(0, 40), place=st.integers(0, 5000), token=st.integers(0, 407)
    )
    def check(which: int, call: int, place: int, token: int) -> None:
        nonlocal planted
        rollout = copy.deepcopy(clean[which])
        items = marked(rollout)
        wanted = PLANTS[name](items, call % len(items), place, token)
        assume(wanted)
        planted += 1
        found = inspect([rollout], forward=tiny() if name in NEED_MODEL else None)
        assert found.flawed == 1
        assert set(found.flaws) <= set(wanted.split(" or ")), found.examples
        assert len(found.examples) == 1

    check()
    assert planted > 3


def test_every_place_of_a_rollout(clean: list[Rollout]) -> None:
    """Each token of a conversation of several calls, changed in all calls alike; each log probability."""
    several = min((one for one in clean if len(marked(one)) > 1), key=lambda one: len(marked(one)[-1]["prompt_token_ids"]))
    last = marked(several)[-1]
    total = len(last["prompt_token_ids"]) + len(last["generation_token_ids"])
    missed = []
    for place in range(total):
        rollout = copy.deepcopy(several)
        if everywhere(marked(rollout), place, (place * 7 + 30) % 408):
            missed += [place] * (1 - inspect([rollout], forward=tiny()).flawed)
    assert missed == []
    for number, item in enumerate(marked(several)):
        for place in range(len(item["generation_log_probs"])):
            rollout = copy.deepcopy(several)
            shifted(marked(rollout), number, place, 0)
            found = inspect([rollout], forward=tiny())
            assert dict(found.calls) == {"disagrees": {number: 1}}


def made(*output: Item, **more: Any) -> Rollout:
    values: dict[str, Any] = {"reward": 1.0, "outcome": Outcome.SCORED, "task": "t", "index": 0}
    return Rollout(params={"input": "hi"}, response={"output": list(output)}, **{**values, **more})


def tokens(prompt: list[int], generated: list[int]) -> dict[str, Any]:
    fields = {"prompt_token_ids": prompt, "generation_token_ids": generated}
    return {**fields, "generation_log_probs": [-0.5] * len(generated)}


TWO = (
    {**function_call("f", "{}", "c"), **tokens([1, 2], [3])},
    function_call_output("c", "x"),
    {**assistant("a"), **tokens([1, 2, 3, 4], [5])},
)


def test_what_counts() -> None:
    failed = made(reward=None, outcome=Outcome.INFRA_FAULT)
    rows = [made(*TWO), made(assistant("")), failed, BadLine("f", 3, "not JSON"), made(*TWO, token_drift=1)]
    found = inspect(iter(rows))
    assert (found.rollouts, found.flawed, found.share) == (2, 1, 0.5)
    assert (found.silent, found.unjudged, found.bad, found.first_bad) == (1, 1, 1, "f:3: not JSON")
    assert (found.model_calls, found.tokens, found.generated) == (2, 5, 2)
    assert found.row()["flaws"] == {"drift": {"rollouts": 1, "by_call": {"1": 1}}}
    assert inspect([]).row()["share"] == 0.0
    assert set(KINDS) >= set(found.flaws)


def test_examples_are_few_and_counts_are_whole() -> None:
    bad = [made(TWO[0], TWO[1], {**TWO[2], **tokens([1, 2, 9, 4], [5])}, index=index) for index in range(50)]
    found = inspect(bad)
    assert found.flaws == {"drift": 50}
    assert [(one.index, one.fault.seen, one.fault.found) for one in found.examples] == [
        (0, "1 2 >>> 3", "1 2 >>> 9 4"),
        (1, "1 2 >>> 3", "1 2 >>> 9 4"),
        (2, "1 2 >>> 3", "1 2 >>> 9 4"),
    ]


def test_settings_that_sample_from_another_policy(clean: list[Rollout]) -> None:
    one = clean[0]
    warm = replace(one, params={**one.params, "temperature": 0.7, "top_p": 0.9, "top_k": 0})
    assert inspect([warm, warm, one]).sampled == {"temperature 0.7": 2, "top_p 0.9": 2}


def test_why_a_prompt_drifted(clean: list[Rollout]) -> None:
    for plant, reason in ((tokenised_again, "tokenised again"), (prompt_token, "rendered again, or edited")):
        rollout = copy.deepcopy(next(one for one in clean if len(marked(one)) > 1))
        assert plant(marked(rollout), 1, 5, 100) == "drift"
        assert reason in inspect([rollout], forward=tiny()).examples[0].fault.text


def test_stop_texts_are_no_flaw(clean: list[Rollout]) -> None:
    one = copy.deepcopy(next(one for one in clean if one.env == "arithmetic"))
    item = marked(one)[-1]
    text = item["content"][0]["text"]
    item["content"][0]["text"] = text[:-2]
    assert inspect([one], forward=tiny()).flaws == {"text": 1}
    stopped = replace(one, params={**one.params, "stop": [text[-2:]]})
    assert "text" not in inspect([stopped], forward=tiny()).flaws


def test_another_checkpoint_disagrees(clean: list[Rollout], tmp_path: Path) -> None:
    import shutil

    from safetensors.numpy import load_file, save_file

    shutil.copytree(SHIPPED, tmp_path / "other")
    weights = load_file(SHIPPED / "model.safetensors")
    save_file({name: array * 1.01 for name, array in weights.items()}, tmp_path / "other" / "model.safetensors")
    found = inspect(clean, forward=forward(f"tiny:{tmp_path / 'other'}", torch=False))
    assert found.flaws["disagrees"] == len(clean)
    save_file({name: array * math.nan for name, array in weights.items()}, tmp_path / "other" / "model.safetensors")
    with pytest.raises(UserError, match="not finite"):
        inspect(clean, forward=forward(f"tiny:{tmp_path / 'other'}", torch=False))


def test_a_checkpoint_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no directory"):
        forward(str(tmp_path / "none"))
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(UserError, match=r"without torch only a Llama directory .* pip install"):
        forward(str(tmp_path), torch=False)


@pytest.mark.extras
def test_torch_computes_the_same(clean: list[Rollout]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    by_torch = forward("tiny", torch=True)
    found = inspect(clean, forward=by_torch)
    assert found.flawed == 0
    assert found.agreement is not None
    assert found.agreement.max < 1e-3
    ids = [1, *range(3, 400)] * 6  # in several parts
    ours, theirs = tiny().log_probs(ids[:2000]), by_torch.log_probs(ids[:2000])
    assert len(ours) == len(theirs) == 1999
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 0.01
    assert (by_torch.vocab, by_torch.context, by_torch.eos) == (tiny().vocab, tiny().context, tiny().eos)


@pytest.mark.extras
def test_any_architecture(tmp_path: Path, clean: list[Rollout]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16}
    config = transformers.Qwen3Config(vocab_size=408, num_key_value_heads=1, max_position_embeddings=4096, **sizes)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(SHIPPED).save_pretrained(tmp_path)
    computed = forward(str(tmp_path), torch=True)
    ids = [(7 * place) % 400 for place in range(1500)]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    whole = logits[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
    assert max(abs(a - b) for a, b in zip(computed.log_probs(ids), whole, strict=True)) < 1e-4
    assert inspect(clean, forward=computed).flaws["disagrees"] == len(clean)


def check(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["check", *map(str, arguments), "--for", "on-policy"])


def write(path: Path, rollouts: list[Rollout]) -> Path:
    path.write_bytes(b"".join(dump(row_of(rollout)) for rollout in rollouts))
    return path


def test_the_command(clean: list[Rollout], tmp_path: Path) -> None:
    good = write(tmp_path / "good.jsonl", clean)
    done = check(good)
    assert done.exit_code == 0, done.output
    assert f"{len(clean)} (100.0%) of {len(clean)} rollouts can be trained on token by token" in done.stdout
    report = json.loads(check(good, "--json").stdout)
    assert (report["ok"], report["rollouts"], report["flaws"]) == (True, len(clean), {})

    evil = "\x1b[31m\u202eevil"
    drifted = made(TWO[0], TWO[1], {**TWO[2], **tokens([1, evil, 3, 4], [5])}, task="abcdef", env=evil)  # type: ignore[list-item]
    bad = write(tmp_path / "bad.jsonl", [drifted, *clean])
    done = check(bad)
    assert done.exit_code == 1
    assert "drift: 1 rollout. A prompt does not begin" in done.stdout
    assert "model call 2: its prompt leaves what came before at token 2 of 3" in done.stdout
    assert f"rollforge show {bad} --task abcdef --index 0" in done.stdout.replace("…", "")
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    assert check(bad, "--max-drift", 0.2).exit_code == 0
    printed = check(bad, "--json").stdout
    assert printed.isascii()
    assert json.loads(printed)["ok"] is False


def test_the_command_with_a_model(clean: list[Rollout], tmp_path: Path) -> None:
    from importlib.util import find_spec

    good = write(tmp_path / "good.jsonl", clean)
    done = check(good, "--model", "tiny")
    assert done.exit_code == 0, done.output
    by = "torch, float32, " if find_spec("torch") and find_spec("transformers") else "numpy, float64, "
    assert f"log probabilities against tiny ({by}" in done.stdout
    assert "by more than 0.001: 0 (0.0%)" in done.stdout
    assert check(good, "--model", "tiny", "--tolerance", 1e-15).exit_code == 1


def test_nothing_to_look_at(tmp_path: Path) -> None:
    done = check(write(tmp_path / "none.jsonl", [made(reward=None, outcome=Outcome.TIMEOUT)]))
    assert done.exit_code == 1
    assert "1 without a reward" in done.stdout


def test_options_that_do_not_belong(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [made(*TWO)])
    for arguments in (("--for", "trl:sft", "--model", "tiny"), ("--for", "on-policy", "--config", "x.yaml")):
        done = CliRunner().invoke(app, ["check", str(path), *arguments])
        assert isinstance(done.exception, UserError)
