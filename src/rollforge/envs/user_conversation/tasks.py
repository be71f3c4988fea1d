"""Tasks of the conversations: a shop with orders of several customers, and what one of them wants."""

from __future__ import annotations

from functools import partial
from random import Random

from rollforge.envs.generate import Kinds, generated
from rollforge.envs.user_conversation.desk import ACTIONS, RETURN_DAYS
from rollforge.envs.user_conversation.user import opening
from rollforge.records.items import Json


@generated("user_conversation", n=80)
def tasks() -> Kinds:
    """Rows `{prompt, orders, customer, requests, kind, level}`. Kinds, by the first wish: cancel, address, return, exchange.
    Level: easy, the customer says what it is about; medium, one has to ask, one thing at a time; hard, two wishes, of which
    one may be against the rules, and changes of mind."""
    return {do: partial(_conversation, do) for do in ACTIONS}


def _conversation(do: str, rng: Random, level: int) -> tuple[str, Json]:
    people = rng.sample([f"{first} {last}" for first in _FIRST for last in _LAST], 3)
    numbers = [f"W{number}" for number in rng.sample(range(1000, 10_000), 12)]
    items = rng.sample(_ITEMS, 12)
    orders: dict[str, Json] = {}
    for place, name in enumerate(people):
        home = _address(rng)
        # A customer's own orders are of different things, so that each can be told from the others.
        for number, item in zip(numbers[4 * place : 4 * place + 4], items[4 * place : 4 * place + 4], strict=True):
            orders[number] = _order(rng, name, item, home)
    customer = {"name": people[0], "email": _email(people[0]), "knows_order": level == 0, "terse": level > 0}
    own = numbers[:4]
    wishes = [do]
    if level == 2:
        wishes.append(rng.choice([other for other in ACTIONS if other != do]))
    refused = rng.randrange(4) if level == 2 else -1  # the first, the second, or (half of the time) none
    requests = []
    for place, (number, wish) in enumerate(zip(own, wishes, strict=False)):
        _settle(rng, orders[number], wish, possible=place != refused)
        requests.append(_request(rng, number, wish, orders[number], wavers=level == 2 and rng.random() < 0.5))
    order = list(orders)
    rng.shuffle(order)
    row = {
        "prompt": opening(customer, requests[0], orders),
        "orders": {number: orders[number] for number in order},
        "customer": customer,
        "requests": requests,
    }
    return f"{people[0]} {requests}", row


def _order(rng: Random, name: str, item: str, address: str) -> Json:
    order = {"email": _email(name), "item": item, "colour": rng.choice(_COLOURS), "address": address}
    _settle(rng, order, rng.choice(("cancel", "return")), possible=rng.random() < 0.7)
    return order | {"exchange_for": None}


def _settle(rng: Random, order: Json, do: str, *, possible: bool) -> None:
    """Give the order a status in which the wish is allowed, or is not."""
    if do in ("cancel", "address"):
        order["status"] = "processing" if possible else "sent"
        order["days_since_delivery"] = None
    else:
        order["status"] = "delivered"
        days = (1, RETURN_DAYS) if possible else (RETURN_DAYS + 1, 90)
        order["days_since_delivery"] = rng.randint(*days)


def _request(rng: Random, number: str, do: str, order: Json, *, wavers: bool) -> Json:
    request = {"do": do, "order": number}
    if do == "exchange":
        first, wanted = rng.sample([colour for colour in _COLOURS if colour != order["colour"]], 2)
        request |= {"colour": wanted} | ({"first": first} if wavers else {})
    elif do == "address":
        first, wanted = _address(rng), _address(rng)
        request |= {"address": wanted} | ({"first": first} if wavers and first != wanted else {})
    return request


def _address(rng: Random) -> str:
    return f"{rng.randint(1, 99)} {rng.choice(_STREETS)}, {rng.choice(_CITIES)}"


def _email(name: str) -> str:
    return f"{name.lower().replace(' ', '.')}@mail.example"


_FIRST = ("Amira", "Bjorn", "Chidi", "Dalia", "Emil", "Farah", "Goran", "Hana", "Ivo", "Jun", "Kofi", "Lea", "Mateo", "Noor")
_LAST = ("Abara", "Bergman", "Castro", "Dimov", "Eriksen", "Fontaine", "Gupta", "Haddad", "Ito", "Jansen", "Kaya", "Lund")
_ITEMS = (
    *("desk lamp", "kettle", "backpack", "umbrella", "wool blanket", "office chair", "garden hose", "bread knife"),
    *(
        "alarm clock",
        "yoga mat",
        "picture frame",
        "bicycle bell",
        "thermos flask",
        "cutting board",
        "headphones",
        "suitcase",
    ),
)
_COLOURS = ("red", "blue", "green", "black", "white", "yellow", "grey", "orange")
_STREETS = ("Mill Lane", "Harbour Street", "Oak Avenue", "Station Road", "Church Hill", "Market Square", "River Walk")
_CITIES = ("Aldbury", "Brimley", "Caston", "Dunwell", "Eastry", "Farrow")
