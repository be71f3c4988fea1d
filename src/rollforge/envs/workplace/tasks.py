"""Tasks of the workplace: what to look up is never said, only the people, days and things that it can be found by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from rollforge.envs.generate import Kinds, generated
from rollforge.envs.workplace import ask_business, ask_office
from rollforge.envs.workplace.ask import Ask, Office
from rollforge.envs.workplace.company import company
from rollforge.records.items import Json

COMPANIES = 8

KINDS: Mapping[str, Mapping[str, Callable[[Office, int], Ask | None]]] = {
    "email": {"reply": ask_office.reply, "forward": ask_office.forward, "tidy": ask_office.tidy},
    "calendar": {"book": ask_office.book, "move": ask_office.move, "cancel": ask_office.cancel},
    "project_management": {"new_task": ask_business.new_task, "change_tasks": ask_business.change_tasks},
    "customer_relationship_manager": {
        "change_customers": ask_business.change_customers,
        "customer_list": ask_business.customer_list,
    },
    "analytics": {"plot": ask_business.plot},
    "multi_domain": {"tell": ask_business.tell, "follow_up": ask_business.follow_up},
}


@generated("workplace")
def tasks() -> Kinds:
    """Rows `{prompt, company, ground_truth, category, kind, level}`. Level: one thing to find and change; dates to work out
    or several things; conditions, many things, several tools."""
    return {kind: _maker(category, make) for category, makes in KINDS.items() for kind, make in makes.items()}


def _maker(category: str, make: Callable[[Office, int], Ask | None]) -> Callable[[Random, int], tuple[str, Json]]:
    def made(rng: Random, level: int) -> tuple[str, Json]:
        while True:
            number = rng.randrange(COMPANIES)
            asked = make(Office(company(number), rng), level)
            if asked is not None:
                row = {"company": number, "ground_truth": asked.calls, "category": f"workplace_{category}"}
                return f"{number} {asked.calls}", {"prompt": asked.text, **row}

    return made
