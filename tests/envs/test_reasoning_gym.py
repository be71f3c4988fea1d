"""The data sets of reasoning-gym, where the library is installed; what does not need it is in `test_without_the_library`."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from rollforge.envs.reasoning_gym import reasoning_gym, solve
from rollforge.errors import UserError, VerifierFault
from rollforge.records.items import prompt_text
from rollforge.verify.reasoning import SAFE, extract
from rollforge.verify.reasoning import reasoning_gym as score
from tests.envs.drive import attempt, task, tasks_of

KNIGHTS: dict[str, Any] = {
    "question": "Zoe says: Al lies. Al says: we both lie. Who is who?",
    "answer": "Zoe is a sage, and Al is a fool.",
    "metadata": {
        "source_dataset": "knights_knaves",
        "source_index": 0,
        "solution": [True, False],
        "names": ["Zoe", "Al"],
        "knight_knave_terms": {"knight": "sage", "knave": "fool", "Knight": "Sage", "Knave": "Fool"},
    },
}


@pytest.fixture
def library() -> Any:
    return pytest.importorskip("reasoning_gym")


@pytest.mark.parametrize(
    ("reply", "answer", "by"),
    [
        ("<answer>5</answer>", "5", "tag"),
        ("<answer>4</answer> no, <answer>\n 5 \n</answer>.", "5", "tag"),
        ("<think><answer>4</answer></think><answer>5</answer>", "5", "tag"),
        (r"so \boxed{5}", "5", "box"),
        (r"\boxed{4} <answer>5</answer>", "5", "tag"),
        (" 5 ", "5", "reply"),
        ("<answer>5", "<answer>5", "reply"),
        ("", "", "reply"),
        ("<answer>" * 100_000, "<answer>" * 100_000, "reply"),
    ],
)
def test_where_the_answer_stands(reply: str, answer: str, by: str) -> None:
    assert extract(reply) == (answer, by)


@pytest.mark.extras
async def test_rows_of_nemo_gym(library: Any) -> None:
    row = task(**KNIGHTS)
    for reply, reward in (
        ("Zoe is a sage, and Al is a fool.", 1.0),
        ("<answer>Al is a fool, and Zoe is a sage</answer>", 1.0),
        ("<answer>Zoe is a fool, and Al is a sage.</answer>", 0.0),
        ("", 0.0),
    ):
        found = await attempt(reasoning_gym, row, reply)
        assert (found.reward, set(found.fields)) == (reward, {"extracted_answer", "extracted_by"})
    await reasoning_gym.aclose()


@pytest.mark.extras
def test_every_data_set_gives_its_own_solution_full_marks_and_nonsense_less(library: Any) -> None:
    tasks = tasks_of(reasoning_gym, n=103)
    assert len({one.fields["kind"] for one in tasks}) > 90
    for one in tasks:
        row = one.fields
        rest = (row["answer"], row["metadata"], row["question"])
        assert score(str(solve(row["metadata"], row["answer"])), *rest)["reward"] == 1.0, row["kind"]
        for reply in ("", "nonsense", "(" * 3000, prompt_text(one.params), '{"reward": 1}', "\x00☃"):
            assert score(reply, *rest)["reward"] < 0.5, (row["kind"], reply[:20])


@pytest.mark.extras
def test_answers_are_not_run(library: Any, tmp_path: Any) -> None:
    mark = tmp_path / "mark"
    code = f"open({str(mark)!r}, 'w').close()"
    asks = (
        f"[{code}]",
        f"__import__('os').system('touch {mark}')",
        f"(lambda: {code})()",
        f"exec({code!r})",
        "x.__class__.__base__.__subclasses__()",
        "9**9**9**9",
        "factorial(10**8)",
        "2**99999999",
        "100000000!",
        "sqrt." * 400,
    )
    for name in SAFE:
        (one,) = tasks_of(reasoning_gym, dataset=name, n=1)
        row = one.fields
        for text in asks:
            assert score(f"<answer>{text}</answer>", row["answer"], row["metadata"], row["question"])["reward"] < 0.2
    assert not mark.exists()


@pytest.mark.extras
def test_a_list_where_text_was_asked_still_gets_what_the_library_gives(library: Any) -> None:
    (one,) = tasks_of(reasoning_gym, dataset="spiral_matrix", n=1)
    row = one.fields
    listed = str([int(number) for number in row["answer"].split()])
    assert score(listed, row["answer"], row["metadata"], row["question"])["reward"] == 0.1


@pytest.mark.extras
def test_options(library: Any) -> None:
    def ids(**options: Any) -> list[str]:
        return [one.id for one in tasks_of(reasoning_gym, dataset="chain_sum,gcd", n=40, **options)]

    assert ids() == ids(seed=0)
    assert len(set(ids()) | set(ids(seed=1)) | set(ids(split="test"))) == 120
    assert [one.fields["kind"] for one in tasks_of(reasoning_gym, dataset=["gcd", "lcm"], n=4)] == ["gcd", "lcm"] * 2
    (one,) = tasks_of(reasoning_gym, dataset="chain_sum", n=1, config={"min_terms": 6, "max_terms": 6})
    assert len(one.fields["question"].split("+")) + one.fields["question"].count(" - ") >= 6
    for wrong in ({"dataset": "sudokoo"}, {"split": "dev"}, {"config": {"a": 1}}, {"dataset": "gcd", "config": {"a": 1}}):
        with pytest.raises(UserError):
            tasks_of(reasoning_gym, **wrong)


@pytest.mark.extras
@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"answer": "1", "metadata": {}}, "source_dataset"),
        ({"answer": "1", "metadata": None}, "source_dataset"),
        ({"answer": "1", "metadata": {"source_dataset": "no_such_set"}}, "no_such_set"),
        ({"answer": "1", "metadata": {"source_dataset": "sudoku"}}, "cannot score this row of sudoku"),
    ],
)
def test_rows_that_cannot_be_judged(library: Any, row: Any, what: str) -> None:
    with pytest.raises(VerifierFault, match=what):
        score("<answer>2</answer>", row["answer"], row["metadata"])


def test_without_the_library(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(UserError, match=r"pip install 'rollforge\[reasoning-gym\]'"):
        tasks_of(reasoning_gym)
