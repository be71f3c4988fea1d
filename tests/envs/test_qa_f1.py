"""The qa_f1 environment: rows in the shape of NeMo Gym's `hotpotqa_qa`, and questions that the passages answer."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from rollforge.envs.qa_f1 import qa_f1
from rollforge.errors import VerifierFault
from tests.envs.drive import attempt, solved, task, tasks_of

ROW = {"expected_answer": "Chief of Protocol", "id": "5a8e", "type": "bridge", "level": "hard", "question": "Which one?"}


@pytest.mark.parametrize(
    ("row", "answer", "reward"),
    [
        ({}, "chief of protocol", 1),
        ({}, "the Chief of Protocol.", 1),
        ({}, "US Chief of Protocol", 0),
        ({"metric": "strict"}, "US Chief of Protocol", 1),
        ({"metric": "f1"}, "US Chief of Protocol", 6 / 7),
        ({"metric": None}, "Chief", 0),
        ({"expected_answer": "yes"}, "yes", 1),
        ({"expected_answer": "yes"}, "yes or no", 0),
        ({"expected_answer": ["Oslo", "Christiania"]}, "christiania", 1),
    ],
)
async def test_rows(row: dict[str, Any], answer: str, reward: float) -> None:
    one = task(**{**ROW, **row})
    assert (await attempt(qa_f1, one, f'I think: {{"answer": "{answer}"}}')).reward == pytest.approx(reward)
    assert (await solved(qa_f1, one)).reward == 1


async def test_the_verdict_has_every_score() -> None:
    fields = (await attempt(qa_f1, task(**ROW), '{"answer": "protocol"}')).fields
    assert fields == {
        "extracted_answer": "protocol",
        "answer_em": 0.0,
        "answer_f1": 0.5,
        "is_correct": 0.0,
        "is_correct_strict": 0.0,
    }


async def test_rows_that_cannot_be_answered_have_no_reward() -> None:
    for row in ({"expected_answer": ""}, {"expected_answer": []}, {"metric": "bleu"}):
        with pytest.raises(VerifierFault):
            await attempt(qa_f1, task(**{**ROW, **row}), "x")


async def test_neither_the_passages_nor_all_answers_are_an_answer() -> None:
    for one in tasks_of(qa_f1, n=60):
        prompt = str(one.params["input"])
        answers = re.findall(r"\[\d+\] (.*)", prompt)
        for reply in (prompt, " ".join(answers), json.dumps({"answer": "yes no"}), json.dumps({"answer": prompt})):
            assert (await attempt(qa_f1, one, reply)).reward == 0


def test_answers_follow_from_the_passages() -> None:
    for one in tasks_of(qa_f1, n=300):
        row, passages = one.fields, str(one.params["input"]).split("\n\nQuestion:")[0]
        question, right = row["question"], row["expected_answer"]
        people = {}
        for line in re.findall(r"\[\d+\] (.*)", passages):
            name = re.search(r"[A-Z]\w+ [A-Z]\w+", line.replace("Born in", "born in").replace("The town", "the town"))
            year, town = (
                re.search(r"\d{4}", line),
                re.search(r"(?:born in|grew up in|town of) (?:the town of )?([A-Z]\w+)", line),
            )
            if name and year and town:
                people[name[0]] = (int(year[0]), town[1])
        if row["kind"] == "comparison":
            left, other = re.findall(r"[A-Z]\w+ [A-Z]\w+", question.replace("Who was", "who was"))
            first = min((left, other), key=lambda name: people[name][0])
            assert right == (first if " first," in question else ({left, other} - {first}).pop())
        elif row["kind"] == "same":
            left, other = re.findall(r"[A-Z]\w+ [A-Z]\w+", question.replace("Were ", ""))
            assert right == ("yes" if people[left][1] == people[other][1] else "no")
        else:
            assert right in passages
