"""The open_qa environment: matching without a judge, and a judge where matching does not decide."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollforge.agents.tool_loop import ToolLoop
from rollforge.collect.config import CollectConfig
from rollforge.collect.rollout import Runner
from rollforge.collect.run import Collection
from rollforge.config import validate
from rollforge.envs.base import Limits
from rollforge.envs.decorate import PythonEnv
from rollforge.envs.load import load_env
from rollforge.envs.open_qa import OpenQA
from rollforge.errors import DeadlineExceeded, InfraFault, JudgeFault, UserError, VerifierFault
from rollforge.models.base import Request
from rollforge.records.items import Response, assistant
from rollforge.records.rollout import Outcome
from rollforge.verify.judge import Judge
from tests.envs.drive import attempt, solved, task, tasks_of
from tests.verify.test_judge import honest, part, says
from tests.verify.test_rubric import CRITERIA, literal

DARWIN = task(question="Who?", expected_answer="darwin", accepted=["Charles Darwin"])


@pytest.fixture
async def env() -> Any:
    env = OpenQA()
    yield env
    await env.aclose()


@pytest.mark.parametrize(
    ("row", "reply", "reward", "answer"),
    [
        ({}, "\\boxed{Darwin}", 1, "Darwin"),
        ({}, "It was him. \\boxed{\\text{Charles Darwin}}", 1, "Charles Darwin"),
        ({}, "Answer: darwin.", 1, "darwin."),
        ({}, "Darwin", 1, "Darwin"),
        ({}, "\\boxed{Erasmus Darwin}", 0, "Erasmus Darwin"),
        ({}, "\\boxed{Lamarck} or \\boxed{Darwin}", 1, "Darwin"),
        ({}, "\\boxed{Lamarck or Darwin}", 0, "Lamarck or Darwin"),
        ({}, "\\boxed{Dаrwin}", 0, "Dаrwin"),  # a Cyrillic letter
        ({}, "It was Darwin, I am sure.", 0, "It was Darwin, I am sure."),
        ({}, "<think>\\boxed{Darwin}</think>", 0, None),
        ({}, "", 0, None),
        ({"expected_answer": "the sun"}, "\\boxed{Sun}", 1, "Sun"),
        ({"expected_answer": "-5"}, "\\boxed{5}", 0, "5"),
        ({"expected_answer": 1000}, "\\boxed{1,000}", 1, "1,000"),
        ({"expected_answer": None, "metadata": {"expected_answer": "Darwin"}}, "\\boxed{darwin}", 1, "darwin"),
        ({"template_metadata": {"output_regex": r"^So: (\w*)$"}}, "So: a\nSo: Darwin\n\\boxed{b}", 1, "Darwin"),
        ({"template_metadata": {"output_regex": r"^So: (\w*)$"}}, "\\boxed{Darwin}", 0, "\\boxed{Darwin}"),
        ({"template_metadata": {}}, "\\boxed{Darwin}", 1, "Darwin"),
    ],
)
async def test_without_a_judge_only_a_match_is_right(
    env: OpenQA, row: dict[str, Any], reply: str, reward: float, answer: str | None
) -> None:
    found = await attempt(env, task(**{**DARWIN.fields, **row}), reply)
    assert (found.reward, found.fields) == (reward, {"extracted_answer": answer, "judged_by": "match"})


async def test_the_judge_is_asked_where_matching_does_not_decide() -> None:
    model, asked = says(honest)
    env = OpenQA(model)
    assert (await attempt(env, DARWIN, "\\boxed{Darwin}")).fields["judged_by"] == "match"
    assert not asked
    found = await attempt(env, DARWIN, "It was Darwin, I am sure.")
    assert (found.reward, found.fields["judged_by"]) == (1.0, "judge")
    assert [one["verdict_label"] for one in found.fields["judge_evaluations"]] == ["EQUIVALENT"]
    assert part(asked[0], "QUESTION") == "Who?"
    assert part(asked[0], "CANDIDATE") == "It was Darwin, I am sure."
    assert (await attempt(env, DARWIN, "Lamarck")).reward == 0.0
    assert (await attempt(env, DARWIN, "<think>Darwin</think>")).reward == 0.0
    assert len(asked) == 2
    # Without a question in the row it is the prompt's; with an expression, the judge sees what it found.
    await attempt(env, task(expected_answer="a", template_metadata={"output_regex": "So: (.*)"}), "Hm. So: b")
    assert (part(asked[2], "QUESTION"), part(asked[2], "CANDIDATE")) == ("?", "b")
    await env.aclose()


async def test_faults_of_the_judge_are_no_zeros() -> None:
    async def broken(request: Request, /) -> Response:
        raise InfraFault("connection refused")

    async def slow(request: Request, /) -> Response:
        await asyncio.sleep(60)
        return {}

    env = OpenQA(broken)
    with pytest.raises(JudgeFault, match="connection refused"):
        await attempt(env, DARWIN, "Lamarck")
    assert (await attempt(env, DARWIN, "\\boxed{darwin}")).reward == 1.0
    await env.aclose()
    env = OpenQA(slow)
    env.limits = replace(Limits(), verify=0.2)
    with pytest.raises(DeadlineExceeded, match="verify"):
        await attempt(env, DARWIN, "Lamarck")
    await env.aclose()


async def test_rows_with_a_rubric() -> None:
    row = task(rubric=CRITERIA, question="Which cities?")
    model, asked = says(literal)
    env = OpenQA(Judge(model=model))
    found = await attempt(env, row, "Paris, or Mars")
    assert found.reward == pytest.approx(0.25)
    assert sum(found.fields["reward_components"].values()) == pytest.approx(0.25)
    assert len(asked) == 3
    await env.aclose()
    env = OpenQA()
    with pytest.raises(VerifierFault, match="only a judge"):
        await attempt(env, row, "Paris")
    assert env.solve(row) is None
    await env.aclose()


async def test_a_judge_without_a_verdict_on_a_rubric_is_a_fault_of_the_judge() -> None:
    model, _ = says(lambda *_: "I cannot decide.")
    env = OpenQA(Judge(model=model))
    runner = Runner(env=env, env_name="open_qa", model=answers_paris, model_name="m", agent=ToolLoop())
    one = await runner(replace(task(rubric=CRITERIA, question="Which cities?"), index=0), 0)
    assert one.outcome is Outcome.JUDGE_FAULT
    assert one.failure is not None
    assert one.failure.retryable
    await env.aclose()


async def answers_paris(request: Request, /) -> Response:
    return {"output": [assistant("Paris")]}


async def test_rows_that_cannot_be_answered_have_no_reward(env: OpenQA) -> None:
    for row in ({"expected_answer": ""}, {"expected_answer": None}, {"expected_answer": ["a"]}, {}):
        with pytest.raises(VerifierFault, match="nothing to compare with"):
            await attempt(env, task(**row), "a")
    with pytest.raises(VerifierFault, match="no regular expression"):
        await attempt(env, task(expected_answer="a", template_metadata={"output_regex": "("}), "a")


async def test_an_expression_that_takes_for_ever_is_ended(env: OpenQA) -> None:
    env.limits = replace(Limits(), verify=0.3)
    row = task(expected_answer="a", template_metadata={"output_regex": r"(x+x+)+y"})
    with pytest.raises(DeadlineExceeded, match="verify"):
        await attempt(env, row, "x" * 60)


def test_wrong_options_say_what_is_known(env: OpenQA, tmp_path: Path) -> None:
    for judge, message in [
        ("chta:x", "unknown model"),
        ({"use": "scripted:echo", "vots": 3}, "votes"),
        ({"use": "scripted:echo", "votes": 2}, "odd number"),
        ({"votes": 1}, "use"),
        ({"use": "chat:x", "base_url": "http://me:secret@host/v1"}, "password"),
    ]:
        with pytest.raises(UserError, match=message) as error:
            list(env.tasks(judge=judge))
        assert "secret" not in str(error.value)
    assert env.judge is None


async def test_a_collection_with_a_judge(tmp_path: Path) -> None:
    """As `--set env.judge.use=...`: also for tasks from a file, with the labels of NeMo Gym, and the whole way down."""
    (tmp_path / "policy.jsonl").write_text('{"text": "\\\\boxed{amino acids}"}\n{"text": "\\\\boxed{a swamp}"}\n')
    (tmp_path / "judge.jsonl").write_text('{"text": "Same.\\n\\n[[A=B]] they are equivalent"}\n')
    (tmp_path / "tasks.jsonl").write_text(
        '{"responses_create_params": {"input": "Which acids?"}, "question": "Which acids?", "expected_answer": "amino"}\n'
        '{"responses_create_params": {"input": "Wet land?"}, "question": "Wet land?", "expected_answer": "wetland"}\n'
    )
    judge = {"use": f"scripted:{tmp_path / 'judge.jsonl'}", "labels": "nemo_gym", "max_calls": 10}
    values = {
        "env": {"use": "open_qa", "judge": judge},
        "tasks": tmp_path / "tasks.jsonl",
        "model": f"scripted:{tmp_path / 'policy.jsonl'}",
        "out": tmp_path / "run",
    }
    summary = await Collection(validate(CollectConfig, values, "the test")).run()
    assert (summary.tally.judged, summary.tally.mean) == (2, 1.0)
    assert '"judged_by":"judge"' in (tmp_path / "run" / "rollouts.jsonl").read_text()
    assert "judge.jsonl" in (tmp_path / "run" / "run.json").read_text()


def test_each_load_has_a_judge_of_its_own() -> None:
    one, other = load_env("open_qa"), load_env("open_qa")
    assert isinstance(one, OpenQA)
    assert isinstance(other, PythonEnv)
    next(iter(one.tasks(judge="scripted:echo")))
    assert one.judge is not None
    assert isinstance(other, OpenQA)
    assert other.judge is None


async def test_generated_tasks(env: OpenQA) -> None:
    for level in ("easy", "medium", "hard"):
        found = tasks_of(env, level=level, n=60, seed=5)
        assert {one.fields["kind"] for one in found} == {"element", "country", "term", "author"}
        for one in found:
            row = one.fields
            assert (await solved(env, one)).reward == 1.0
            for other in row["accepted"]:
                assert (await attempt(env, one, f"\\boxed{{{other}}}")).reward == 1.0
            for reply in ("", "\\boxed{}", str(one.params["input"]), row["question"]):
                assert (await attempt(env, one, reply)).reward == 0.0
    first = [one.id for one in tasks_of(env)]
    assert len(set(first)) == len(first) == 120
    assert first == [one.id for one in tasks_of(env, seed=0)]
    test = {one.fields["question"] for one in tasks_of(env, split="test", n=60)}
    assert not test & {one.fields["question"] for seed in range(4) for one in tasks_of(env, seed=seed)}
