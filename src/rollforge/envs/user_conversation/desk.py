"""The shop that the conversations are about: its orders, what may be done with them, and what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rollforge.errors import VerifierFault
from rollforge.records.items import Json

RETURN_DAYS = 30

RULES = f"""You are the customer service of a web shop. You talk with a customer; everything you write is sent to them.
- Look up the customer's orders by their e-mail address before you do anything.
- Ask for what you need to know. Do only what the customer asks for, and nothing else.
- An order that is being processed can be cancelled, and its delivery address changed. One that was sent cannot.
- An order that was delivered can be returned, or exchanged for another colour, within {RETURN_DAYS} days, not later.
- If something is not possible, say so and leave everything as it is.
- When it is done, tell the customer."""

ACTIONS = ("cancel", "address", "return", "exchange")


def allowed(order: Mapping[str, Any], do: str) -> bool:
    """By the rules of the shop."""
    if do in ("cancel", "address"):
        return bool(order["status"] == "processing")
    return bool(order["status"] == "delivered" and order["days_since_delivery"] <= RETURN_DAYS)


def done(orders: Mapping[str, Json], request: Mapping[str, Any]) -> bool:
    """Whether an order is as the request wants it."""
    order = orders[request["order"]]
    match request["do"]:
        case "cancel":
            return bool(order["status"] == "cancelled")
        case "address":
            return _plain(order["address"]) == _plain(request["address"])
        case "return":
            return bool(order["status"] == "return announced")
        case _:
            return bool(order["exchange_for"] == request["colour"])


def apply(orders: Mapping[str, Json], request: Mapping[str, Any]) -> None:
    order = orders[request["order"]]
    match request["do"]:
        case "cancel":
            order["status"] = "cancelled"
        case "address":
            order["address"] = request["address"]
        case "return":
            order["status"] = "return announced"
        case _:
            order["exchange_for"] = request["colour"]


def expected(orders: Mapping[str, Json], requests: Sequence[Mapping[str, Any]]) -> dict[str, Json]:
    """The orders as they should be in the end: what was asked for and is allowed is done, and nothing else."""
    after = {number: dict(order) for number, order in orders.items()}
    for request in requests:
        if allowed(after[request["order"]], request["do"]):
            apply(after, request)
    return after


def comparable(orders: Mapping[str, Json]) -> dict[str, Json]:
    """The orders, with addresses however they are written."""
    return {number: {**order, "address": _plain(order["address"])} for number, order in orders.items()}


def _plain(address: str) -> str:
    return " ".join(address.casefold().replace(",", " ").rstrip(". ").split())


def check(orders: Any, customer: Any, requests: Any) -> None:
    """Raises `VerifierFault` for a row that is no conversation."""
    if (
        not isinstance(orders, Mapping)
        or not isinstance(customer, Mapping)
        or not isinstance(requests, list)
        or not requests
    ):
        raise VerifierFault("the row needs orders (an object), customer (an object) and requests (a list)")
    for name in ("name", "email"):
        if not isinstance(customer.get(name), str):
            raise VerifierFault(f"customer.{name} is {customer.get(name)!r:.100}, not text")
    for request in requests:
        if not isinstance(request, Mapping) or request.get("do") not in ACTIONS or request.get("order") not in orders:
            raise VerifierFault(f"a request does one of {', '.join(ACTIONS)} with an order of the row, not {request!r:.200}")
        needs = {"address": "address", "exchange": "colour"}.get(request["do"])
        if needs and not isinstance(request.get(needs), str):
            raise VerifierFault(f"the request {request!r:.200} lacks {needs}")
    fields = {"email", "item", "colour", "status", "days_since_delivery", "address", "exchange_for"}
    for number, order in orders.items():
        if not isinstance(order, Mapping) or not fields <= order.keys():
            raise VerifierFault(f"order {number} lacks some of {', '.join(sorted(fields))}")
