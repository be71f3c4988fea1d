"""The weather environment: who was asked, and what was stated."""

from __future__ import annotations

import json

import pytest

from rollforge.envs.base import ToolCall
from rollforge.envs.weather import weather
from rollforge.envs.weather.tasks import CONDITIONS
from tests.envs.drive import attempt, task, tasks_of

HERE = {
    "Oslo": {"condition": "rainy", "temperature": -3},
    "Lima": {"condition": "sunny", "temperature": 21},
    "Rome": {"condition": "rainy", "temperature": 14},
}
REPORT = task(weather=HERE, cities=["Oslo"], expected_answer="rainy, -3 °C")
WARMEST = task(weather=HERE, cities=["Oslo", "Lima"], expected_answer="Lima")
OSLO, LIMA, ROME = (("get_weather", {"city": city}) for city in HERE)


@pytest.mark.parametrize(
    ("reply", "stated"),
    [
        ("Answer: rainy, -3 °C", True),
        ("It rains.\n**Answer:** -3 degrees Celsius and rainy.", True),
        ("Answer: Rainy, −3°C", True),
        ("Answer: rainy, 3 °C", False),
        ("Answer: sunny, -3 °C", False),
        ("Answer: rainy or sunny, -3 °C", False),
        ("Answer: not rainy, -3 °C", False),
        ("Answer: rainy, -3 °C, 21 °C", False),
        ("Answer: -3 °C", False),
        ("Answer: rainy, -3 °C\nAnswer: sunny, 21 °C", False),
        ("rainy, -3 °C", False),
        ("Answer: <condition>, <temperature> °C", False),
        ("Answer: rаiny, -3 °C", False),  # Cyrillic
        ("", False),
    ],
)
async def test_the_result_must_be_stated(reply: str, stated: bool) -> None:
    verdict = await attempt(weather, REPORT, reply, [OSLO])
    assert verdict.fields["reward_components"] == {"asked": 0.5, "stated": 0.5 * stated}
    # Without having asked, the same words are a guess.
    assert (await attempt(weather, REPORT, reply)).reward == 0


@pytest.mark.parametrize(
    ("calls", "reward"),
    [([OSLO, LIMA], 1.0), ([LIMA, OSLO, LIMA], 1.0), ([LIMA], 0.0), ([], 0.0), ([OSLO, LIMA, ROME], 0.5)],
)
async def test_the_right_cities_must_be_asked(calls: list[tuple[str, dict[str, str]]], reward: float) -> None:
    assert (await attempt(weather, WARMEST, "Answer: Lima", calls)).reward == reward


async def test_the_tool() -> None:
    async with weather.open(REPORT) as session:
        assert session.tools[0].parameters["required"] == ["city"]
        answers = [await session.call(ToolCall("get_weather", {"city": city})) for city in ("oslo ", "Oslo, Norway")]
        assert [json.loads(answer.text) for answer in answers] == [{"city": "Oslo", **HERE["Oslo"]}] * 2
        for arguments in ({"city": "Atlantis"}, {"city": 5}, {}, {"town": "Oslo"}):
            assert (await session.call(ToolCall("get_weather", arguments))).error


async def test_rows_without_weather_are_rewarded_as_in_nemo_gym() -> None:
    """Every city is cold, and any answer gets 1."""
    row = task(responses_create_params={"input": [{"role": "user", "content": "what's it like in sf?"}]})
    async with weather.open(row) as session:
        output = await session.call(ToolCall("get_weather", {"city": "San Francisco"}))
        assert json.loads(output.text) == {
            "city": "San Francisco",
            "weather_description": "The weather in San Francisco is cold.",
        }
    assert (await attempt(weather, row, "Which city?")).reward == 1


def test_answers_follow_from_the_weather() -> None:
    for one in tasks_of(weather, n=200):
        row = one.fields
        asked = {city: row["weather"][city] for city in row["cities"]}
        if row["kind"] == "warmest":
            warmest = [city for city in asked if asked[city]["temperature"] == max(w["temperature"] for w in asked.values())]
            assert [row["expected_answer"]] == warmest
        elif row["kind"] == "count":
            [condition] = [word for word in CONDITIONS if f" {word} " in str(one.params["input"])]
            assert row["expected_answer"] == str(sum(w["condition"] == condition for w in asked.values()))
