"""The search environment: what is found, what is read, and what an answer is worth."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from rollforge.envs.base import ToolCall
from rollforge.envs.search import search
from rollforge.envs.search.index import Index, Page
from rollforge.envs.search.world import ASKS, LEADS, world
from rollforge.errors import RollforgeError, VerifierFault
from rollforge.records.task import Task
from tests.envs.drive import attempt, solved, task, tasks_of

PAGES = [
    {"title": "Oslo", "url": "u/oslo", "text": "Oslo is the capital of Norway. It lies on a fjord."},
    {"title": "Lima", "url": "u/lima", "text": "Lima is the capital of Peru."},
    {"title": "Fjord", "url": "u/fjord", "text": "A fjord is an inlet with steep sides."},
]
ROW = task(corpus=PAGES, expected_answer="Oslo", source="u/oslo")
READ = ("browse", {"url": "u/oslo"})


@pytest.mark.parametrize(
    ("reply", "answered", "cited"),
    [
        ("Answer: Oslo\nSource: u/oslo", 0.8, 0.2),
        ("**Answer:** oslo.\n**Source:** <u/oslo>", 0.8, 0.2),
        ("Answer: Oslo\n- Source: u/oslo.", 0.8, 0.2),
        ("Answer: Oslo", 0.8, 0.0),
        ("Answer: Oslo\nSource: u/lima", 0.8, 0.0),
        ("Answer: Oslo\nSource: u/lima\nSource: u/oslo", 0.8, 0.0),
        ("Answer: Oslo\nSource: u/oslo u/lima u/fjord", 0.8, 0.0),
        ("Answer: Lima\nSource: u/oslo", 0.0, 0.0),
        ("Answer: Oslo or Lima\nSource: u/oslo", 0.0, 0.0),
        ("Answer: Oslo\nAnswer: Lima\nSource: u/oslo", 0.0, 0.0),
        ("Answer: Оslo\nSource: u/oslo", 0.0, 0.0),  # a Cyrillic O
        ("<think>Answer: Oslo\nSource: u/oslo</think>I do not know.", 0.0, 0.0),
        ("Oslo", 0.0, 0.0),
        ("Source: u/oslo\n" * 20_000, 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
async def test_answers(reply: str, answered: float, cited: float) -> None:
    found = await attempt(search, ROW, reply, [READ])
    assert found.fields["reward_components"] == {"answered": answered, "cited": cited}
    # What was not read is a guess.
    assert (await attempt(search, ROW, reply, [("browse", {"url": "u/lima"}), ("search", {"query": "Oslo"})])).reward == 0


async def test_the_tools() -> None:
    async with search.open(ROW) as session:
        assert [tool.name for tool in session.tools] == ["search", "browse"]
        results = json.loads((await session.call(ToolCall("search", {"query": "a FJORD, in norway?"}))).text)
        assert [page["title"] for page in results] == ["Oslo", "Fjord"]
        assert results[0] == {"title": "Oslo", "url": "u/oslo", "snippet": PAGES[0]["text"]}
        assert json.loads((await session.call(ToolCall("search", {"query": "xyzzy " * 5000}))).text) == []
        assert (await session.call(ToolCall("browse", {"url": " u/oslo "}))).text == f"Oslo\n\n{PAGES[0]['text']}"
        for url in ("u/rome", "", "https://example.com", "../../etc/passwd"):
            output = await session.call(ToolCall("browse", {"url": url}))
            assert output.error
            assert "no page" in output.text


def test_ranking() -> None:
    pages = [
        Page("Rope", "1", "rope rope rope and more rope"),
        Page("Knots", "2", "rope"),
        Page("Ships", "3", "sail " * 50 + "rope"),
    ]
    index = Index(pages)
    assert [page.url for page in index.search("rope", 5)] == ["1", "2", "3"]
    assert [page.url for page in index.search("knots", 1)] == ["2"]
    assert index.search("", 5) == index.search("---", 5) == []
    assert Index([]).search("rope", 5) == []
    assert Index([Page("", "1", "")]).search("rope", 5) == []


@pytest.mark.parametrize(
    ("reply", "reward"), [("\\boxed{C}", 1), ("\\boxed{D}", 0), ("\\boxed{c}", 0), ("Answer: C", 0), ("C", 0), ("", 0)]
)
async def test_rows_of_google_search_are_graded_by_the_box(reply: str, reward: float) -> None:
    tools = [{"type": "function", "name": name, "parameters": {"type": "object"}} for name in ("search", "browse")]
    row: dict[str, Any] = {"expected_answer": "C", "task_difficulty_qwen3_32b_avg_8": 0.5}
    one = task(responses_create_params={"input": "Which?\nA: a\nB: b\nC: c\nD: d", "tools": tools}, **row)
    assert (await attempt(search, one, reply)).reward == reward
    assert (await solved(search, one)).reward == 1


async def test_rows_that_cannot_be_answered_have_no_reward() -> None:
    for row, message in [
        ({"expected_answer": "x", "source": "u/rome"}, "no page of the corpus"),
        ({"expected_answer": "", "source": "u/oslo"}, "nothing to compare"),
        ({"expected_answer": "x", "source": "u", "corpus": [{"title": "a"}]}, "page 0 of the corpus"),
        ({"expected_answer": "x", "source": "u", "corpus": ["a"]}, "page 0 of the corpus"),
        ({"expected_answer": "x", "source": "u", "corpus": [{"title": "a", "url": "b", "text": 3}]}, "page 0 of the corpus"),
    ]:
        with pytest.raises(VerifierFault, match=message):
            await attempt(search, task(**{"corpus": PAGES, **row}), "Answer: x", [READ])


def _looked_up(one: Task) -> str:
    """The answer by reading the question and the pages' relations from the outside in."""
    row = one.fields
    things = world(row["world"]).things

    def named(text: str) -> str:
        if text in things:
            return text
        found = [
            things[named(match[1])].facts[relation]
            for relation, phrase in LEADS.items()
            if (match := re.fullmatch(re.escape(phrase).replace(r"\{\}", "(.+)"), text)) and _is_name(match[1], things)
        ]
        assert len(set(found)) == 1, text
        return found[0]

    answers = [
        things[named(match[1])].facts[relation]
        for relation, phrase in ASKS.items()
        if (match := re.fullmatch(re.escape(phrase).replace(r"\{\}", "(.+)"), row["question"]))
    ]
    assert len(answers) == 1, row["question"]
    return answers[0]


def _is_name(text: str, things: Any) -> bool:
    return text in things or any(re.fullmatch(re.escape(phrase).replace(r"\{\}", ".+"), text) for phrase in LEADS.values())


def test_questions_have_the_answer_that_the_pages_give() -> None:
    for level, pages in (("easy", 1), ("medium", 2), ("hard", 3)):
        for one in tasks_of(search, level=level, n=100, seed=3):
            row = one.fields
            here = world(row["world"])
            assert len(row["path"]) == pages
            assert here.index.pages[row["source"]].title == row["path"][-1]
            assert re.search(rf"\b{re.escape(row['expected_answer'])}\b", here.index.pages[row["source"]].text)
            assert _looked_up(one) == row["expected_answer"]
            assert row["expected_answer"] not in str(one.params["input"])


async def test_the_reference_policy_needs_no_more_than_the_pages() -> None:
    for one in tasks_of(search, n=60, seed=11):
        found = await solved(search, one)
        assert (found.reward, found.fields["pages_read"]) == (1.0, len(one.fields["path"]))


def test_worlds_are_different_and_the_same_again() -> None:
    assert world(3) is world(3)
    assert world(3).things.keys() != world(4).things.keys()
    names = [thing.url for thing in world(5).things.values()]
    assert len(names) == len(set(names)) == len(world(5).index.pages)
    assert {one.fields["world"] for one in tasks_of(search, worlds=2, n=40, seed=4)} == {8, 9}
    with pytest.raises(RollforgeError, match="worlds is 0; it is a number from 1 to 64"):
        tasks_of(search, worlds=0)
