"""A conversation with a simulated customer, who has wishes and facts that the policy is not told, and answers by rules.

What the policy writes goes to the customer, whose answer comes as a user message; tools look up and change orders. The
reward is for the final state of the shop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from rollforge.envs.base import Session, Step, Tool, ToolCall, ToolOutput, Verdict
from rollforge.envs.decorate import PythonEnv
from rollforge.envs.tools import error_text
from rollforge.envs.user_conversation.desk import RULES, allowed, check, comparable, expected
from rollforge.envs.user_conversation.tasks import tasks
from rollforge.envs.user_conversation.user import User
from rollforge.errors import VerifierFault
from rollforge.models.base import Solution
from rollforge.records.items import Item, Json, Response, final_text, model_calls
from rollforge.records.lossless import loads
from rollforge.records.task import Task

HEAR = "hear"
"""The tool of the desk that is the customer's, not the policy's."""


class Desk:
    """Help a customer of a web shop: ask, look up, act by the rules, and say what was done."""

    def reset(self, orders: Any, customer: Any, requests: Any, seed: int) -> None:
        check(orders, customer, requests)
        self.orders: dict[str, Json] = {number: dict(order) for number, order in orders.items()}
        self.wanted = expected(self.orders, requests)
        self.looked_up: set[str] = set()
        before = {number: dict(order) for number, order in self.orders.items()}
        self.user = User(customer, requests, self.orders, before, seed)

    def find_orders(self, email: str) -> list[Json]:
        """All orders of a customer.

        Args:
            email: the customer's e-mail address.
        """
        found = {n: order for n, order in self.orders.items() if order["email"].casefold() == email.strip().casefold()}
        if not found:
            raise ValueError(f"there is no customer with the e-mail address {email[:200]!r}")
        self.looked_up |= found.keys()
        return [{"order": number, **order} for number, order in found.items()]

    def cancel_order(self, order: str) -> Json:
        """Cancel an order that is being processed.

        Args:
            order: its number, such as W1234.
        """
        found = self._found(order, "processing")
        found["status"] = "cancelled"
        return {"order": order, **found}

    def change_address(self, order: str, address: str) -> Json:
        """Have an order that is being processed sent to another address.

        Args:
            order: its number, such as W1234.
            address: number, street and city, as the customer wrote it.
        """
        found = self._found(order, "processing")
        found["address"] = address.strip()
        return {"order": order, **found}

    def return_order(self, order: str) -> Json:
        """Announce the return of an order that was delivered.

        Args:
            order: its number, such as W1234.
        """
        found = self._found(order, "delivered")
        found["status"] = "return announced"
        return {"order": order, **found}

    def exchange_order(self, order: str, colour: str) -> Json:
        """Exchange what was delivered for the same in another colour.

        Args:
            order: its number, such as W1234.
            colour: the new colour.
        """
        found = self._found(order, "delivered")
        found["exchange_for"] = colour.strip().casefold()
        return {"order": order, **found}

    def hear(self, message: str) -> Json:
        """What the customer answers."""
        text, over = self.user.hear(message, self.looked_up)
        return {"text": text, "over": over}

    def verify(self, requests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """1 if the shop is as it should be. Where nothing was to be changed, the customer must have been told why."""
        right = comparable(self.orders) == comparable(self.wanted)
        unchanged = self.wanted == self.user.before
        return {
            "reward": float(right and (self.user.served or not unchanged)),
            "state_right": right,
            "served": self.user.served,
            "user_turns": self.user.turns,
        }

    def solve(self, orders: Any, customer: Any, requests: Any) -> Solution:
        email = customer["email"]
        yield "Hello! May I have your e-mail address?"
        found = loads((yield "find_orders", {"email": email}))
        for place, request in enumerate(requests):
            last = place == len(requests) - 1
            number, do = request["order"], request["do"]
            item = next(order["item"] for order in found if order["order"] == number)
            if not allowed(orders[number], do):
                words = f"I am sorry, but for order {number}, the {item}, that is not possible by our rules."
            else:
                if do in ("exchange", "address"):
                    yield f"Which {'colour' if do == 'exchange' else 'delivery address'} would you like for the {item}?"
                    if request.get("first"):
                        yield f"I have noted it for order {number}. Shall I go ahead?"
                yield _ACTS[do], {"order": number, **({} if do in ("cancel", "return") else _detail(request))}
                words = f"It is done for order {number}, the {item}. Is there anything else?"
            if last:
                return words
            yield words
        return ""

    def _found(self, order: str, status: str) -> Json:
        found = self.orders.get(order.strip())
        if found is None:
            raise ValueError(f"there is no order {order[:200]!r}")
        if found["status"] != status:
            raise ValueError(f"order {order.strip()} is {found['status']}, not {status}")
        return found


def _detail(request: Mapping[str, Any]) -> dict[str, str]:
    name = "address" if request["do"] == "address" else "colour"
    return {name: request[name]}


_ACTS = {"cancel": "cancel_order", "address": "change_address", "return": "return_order", "exchange": "exchange_order"}


class Conversations(PythonEnv):
    """The desk, with sessions that are played by steps: a message goes to the customer, a call to the desk."""

    def __init__(self) -> None:
        super().__init__(Desk, name="user_conversation", tasks=tasks, inline=True, system=RULES)
        self.tools = [tool for tool in self.tools if tool.name != HEAR]

    @asynccontextmanager
    async def open(self, task: Task, /) -> AsyncIterator[Session]:
        async with super().open(task) as session:
            yield Conversation(session)


class Conversation:
    """One conversation. Once it is over, nothing is heard any more."""

    def __init__(self, desk: Session) -> None:
        self._desk = desk
        self._began = self._over = False
        self.tools: Sequence[Tool] = [tool for tool in desk.tools if tool.name != HEAR]
        self.observation: str | None = None

    async def call(self, call: ToolCall, /) -> ToolOutput:
        if call.name == HEAR or self._over:
            known = ", ".join(tool.name for tool in self.tools)
            why = "the conversation is over" if self._over else f"unknown tool {call.name!r}; the tools are: {known}"
            return ToolOutput(error_text(why), error=True)
        self._began = True
        return await self._desk.call(call)

    async def step(self, response: Response, /) -> Step:
        """Runs the calls of one answer of the model; of one without any, tells the customer its message."""
        if self._over:
            return Step(terminated=True)
        self._began = True
        calls = [item for item in response.get("output") or [] if item.get("type") == "function_call"]
        if calls:
            return Step(outputs=tuple([(str(item.get("call_id") or ""), await self._ran(item)) for item in calls]))
        heard = await self._desk.call(ToolCall(HEAR, {"message": final_text(response)}))
        if heard.error:
            raise VerifierFault(f"the customer cannot answer: {heard.text}")
        answer = loads(heard.text)
        self._over = answer["over"]
        return Step(answer["text"], terminated=self._over)

    async def verify(self, response: Response, /) -> Verdict:
        """A response that was not played here is played first."""
        if not self._began:
            for items in model_calls(response.get("output") or []):
                await self.step({"output": items})
        return await self._desk.verify(response)

    async def _ran(self, item: Item) -> str:
        arguments = item.get("arguments") or {}
        try:
            arguments = loads(arguments) if isinstance(arguments, str) else arguments
        except (ValueError, RecursionError) as error:
            return error_text(f"the arguments of {item.get('name')} are not JSON: {error}")
        if not isinstance(arguments, dict):
            return error_text(f"the arguments of {item.get('name')} are {type(arguments).__name__}, not an object")
        return (await self.call(ToolCall(str(item.get("name")), arguments))).text


user_conversation = Conversations()
