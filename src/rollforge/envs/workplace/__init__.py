"""A workplace: mail, calendar, projects, customers, web analytics; the reward is the state in which the company is left.

Rows of NeMo Gym's `workplace_assistant` work as they are where ROLLFORGE_WORKPLACE_DATA names the folder with the data they
speak of. Without it their stored attempts can still be judged: by what the calls change, whatever the rows hold.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rollforge.envs.decorate import env
from rollforge.envs.tools import BadArguments
from rollforge.envs.workplace.business import Analytics, Customers, Projects
from rollforge.envs.workplace.company import DOMAIN, NOW, company, read_company
from rollforge.envs.workplace.office import Calendar, Directory, Mail
from rollforge.envs.workplace.store import UNKNOWN, Data, Store
from rollforge.envs.workplace.tasks import tasks
from rollforge.errors import VerifierFault
from rollforge.models.base import Solution
from rollforge.records.items import Response
from rollforge.records.lossless import loads

DATA = "ROLLFORGE_WORKPLACE_DATA"
SYSTEM = (
    f"You are the assistant of Robin, who works at a company whose addresses end in @{DOMAIN}. Use the tools to do what"
    f" Robin asks, and nothing else. It is {NOW:%A, %Y-%m-%d, %H:%M}. Weeks begin on Monday."
    " Working hours are 9:00 to 18:00."
)
WRITING = ("create", "update", "delete", "send", "forward", "reply", "add")
"""The verbs in the names of the tools that change something."""


@env(name="workplace", tasks=tasks, system=SYSTEM, inline=True)
class workplace(Customers, Projects, Analytics, Calendar, Mail, Directory):
    """Do office work with 27 tools: mail, calendar, projects, customers, analytics."""

    def reset(self, company: int | None = None) -> None:
        self.store = Store(_data(company))

    def verify(self, response: Response, ground_truth: Sequence[Mapping[str, Any]] | str) -> dict[str, float]:
        """1 if the company is left as after the calls of `ground_truth`."""
        expected = self._after(_calls_of_row(ground_truth), refused_is_fault=True)
        # A stored attempt that was not played again is in its response only.
        made = self if self.used else self._after(_calls_of(response))
        done, wanted = made.store.changes(), expected.store.changes()
        return {
            "reward": float(done == wanted),
            "changes_right": float((done & wanted).total()),
            "changes_missing": float((wanted - done).total()),
            "changes_extra": float((done - wanted).total()),
        }

    def solve(self, ground_truth: Sequence[Mapping[str, Any]] | str) -> Solution:
        yield from _calls_of_row(ground_truth)
        return "Done."

    def _after(self, calls: Iterator[tuple[str, Any]], refused_is_fault: bool = False) -> workplace:
        """A desk at which these calls were made on the data of the row."""
        desk = type(self)()
        desk.store = Store(self.store.data)
        desk.replaying = True
        made: Any = workplace  # the environment
        for name, arguments in calls:
            function = made.code.functions.get(name)
            try:
                if function is None:
                    raise BadArguments(f"there is no tool {name!r:.80}")
                checked = function.arguments(arguments)
                if name.split("_")[-2:][0] in WRITING:
                    getattr(desk, name)(**checked)
            except (BadArguments, ValueError) as error:
                if refused_is_fault:
                    what = f"{name}({json.dumps(arguments)[:200]}) of the row's ground_truth is refused: {error}"
                    raise VerifierFault(what) from error
        return desk


def _data(number: Any) -> Data:
    if number is None:
        folder = os.environ.get(DATA)
        return read_company(folder) if folder else UNKNOWN
    if type(number) is not int:
        raise VerifierFault(f"the row's `company` is {number!r:.60}, not a whole number")
    return company(number)


def _calls_of_row(given: Sequence[Mapping[str, Any]] | str) -> Iterator[tuple[str, Any]]:
    try:
        for call in loads(given) if isinstance(given, str) else given:
            arguments = call["arguments"]
            yield str(call["name"]), loads(arguments) if isinstance(arguments, str) else arguments
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise VerifierFault(f"the row's ground_truth is no list of {{name, arguments}}: {given!r:.200}") from error


def _calls_of(response: Response) -> Iterator[tuple[str, Any]]:
    """The calls of a response that were answered, and not with an error."""
    items = [item for item in response.get("output") or [] if isinstance(item, dict)]
    answers = {item.get("call_id"): str(item.get("output")) for item in items if item.get("type") == "function_call_output"}
    for item in items:
        answer = answers.get(item.get("call_id"), '{"error"')
        if item.get("type") == "function_call" and not answer.startswith('{"error"'):
            try:
                arguments = loads(str(item.get("arguments")))
            except (ValueError, RecursionError):
                continue
            if isinstance(arguments, dict):
                yield str(item.get("name")), {name: value for name, value in arguments.items() if value is not None}
