"""Weather from a tool: ask for the right cities, and state what came back.

Rows of NeMo Gym's `example_single_tool_call` work as they are: without a `weather` field every city is cold, and without
`cities` and `expected_answer` the reward is always 1, as theirs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rollforge.envs.decorate import env
from rollforge.envs.weather.tasks import answer, tasks
from rollforge.models.base import Solution
from rollforge.verify.answer import answer_line


@env(name="weather", tasks=tasks, inline=True)
class weather:
    """Call a tool for each city that the question is about, and answer from what it says."""

    def reset(self, weather: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.known = weather
        self.asked: set[str] = set()

    def get_weather(self, city: str) -> dict[str, Any]:
        """The weather in a city now.

        Args:
            city: its name, such as Oslo.
        """
        if self.known is None:
            return {"city": city, "weather_description": f"The weather in {city} is cold."}
        wanted = city.partition(",")[0].strip().casefold()
        name = next((name for name in self.known if name.casefold() == wanted), None)
        if name is None:
            raise ValueError(f"no weather for {city!r}")
        self.asked.add(name)
        return {"city": name, **self.known[name]}

    def verify(self, reply: str, cities: Sequence[str] = (), expected_answer: str = "") -> dict[str, float]:
        """Half for having asked for the cities in question and no other, half for the result; nothing for a guess."""
        if not cities and not expected_answer:
            return {"reward": 1.0}
        asked = self.asked == set(cities)
        stated = set(cities) <= self.asked and _words(answer_line(reply) or "") == _words(expected_answer)
        return {"asked": 0.5 * asked, "stated": 0.5 * stated}

    def solve(self, cities: Sequence[str] = (), question: str = "") -> Solution:
        seen = {}
        for city in cities:
            seen[city] = json.loads((yield "get_weather", {"city": city}))
        return f"Answer: {answer(question, seen)}" if seen else "For which city?"


def _words(text: str) -> list[str]:
    """The words and numbers of an answer, in any order, without the unit."""
    words = re.findall(r"[-−]?\d+(?:\.\d+)?|[^\W\d_]+", text.casefold().replace("−", "-"))
    return sorted(word for word in words if word not in ("c", "celsius", "degree", "degrees", "and"))
