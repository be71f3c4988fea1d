"""The customer: follows rules, knows some facts, and reveals them when asked. The same words get the same answer.

heard ─► something to correct? ─► is the wish granted, or refused with reason? next wish, or goodbye
      ─► is another order meant? no ─► asked for facts? tells them ─► asked for a yes? yes
      ─► else: does not understand, three times, and gives up
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from random import Random
from typing import Any

from rollforge.envs.user_conversation.desk import allowed, done
from rollforge.records.items import Json

PATIENCE = 3
"""So many answers that lead nowhere, and the customer leaves."""
TURNS = 16
READS = 4000
"""Characters of one message; nobody reads more."""

_TOPICS = {
    "email": re.compile(r"\be-?mail\b"),
    "order": re.compile(r"\border\s?(?:number|id|no\b)|\bwhich order\b|\bnumber of (?:the|your) order\b"),
    "item": re.compile(
        r"\b(?:item|product|article)\b|"
        r"\bwhat (?:did you (?:order|buy)|is it about|would you like to (?:cancel|return|exchange))\b"
    ),
    "name": re.compile(r"\byour (?:full )?name\b"),
    "colour": re.compile(r"\bcolou?r\b"),
    "address": re.compile(r"(?<!mail )(?<!-mail )\baddress\b|\bwhere (?:should|shall|to)\b"),
    "reason": re.compile(r"\breason\b|\bwhy\b"),
}
_SENTENCE = re.compile(r"[^.?!\n]+[.?!\n]?")
_ASKS = re.compile(r"\?|\b(?:please|could you|can you|may i|tell me|let me know|provide|i need|what|which)\b")
_CONFIRM = re.compile(
    r"\b(?:confirm|shall i|should i|may i|are you sure|do you (?:want|agree)|would you like|"
    r"is (?:that|this) (?:right|correct|ok)|correct\?|right\?|go ahead|proceed|okay\?|ok\?)"
)
_REFUSES = re.compile(
    r"\b(?:cannot|can ?not|can't|not possible|impossible|not allowed|unable|no longer|too late|unfortunately|not eligible)\b"
)
_ORDER = re.compile(r"\bw\d{4}\b")

_WANTS = {
    "cancel": "cancel an order",
    "address": "have an order sent to another address",
    "return": "return something I bought",
    "exchange": "exchange something I bought for another colour",
}
_REASONS = ("I found a better one elsewhere.", "It is not what I expected.", "My plans have changed.")


@dataclass(slots=True)
class User:
    """A customer with wishes, one after another."""

    customer: Mapping[str, Any]
    """`name`, `email`, `knows_order` (whether the number is at hand) and `terse` (one fact at a time)."""
    requests: Sequence[Mapping[str, Any]]
    orders: Mapping[str, Json]
    """As they are now: the customer sees what becomes of them."""
    before: Mapping[str, Json]
    """As they were."""
    seed: int
    current: int = 0
    turns: int = 0
    muddles: int = 0
    served: bool = False
    """Whether every wish was granted, or refused with reason."""
    corrected: set[int] = field(default_factory=set)
    """The wishes whose change of mind was told."""
    told: set[str] = field(default_factory=set)

    def hear(self, message: str, looked_up: Set[str]) -> tuple[str, bool]:
        """The answer to a message, and whether the conversation is over. `looked_up`: orders that were looked at."""
        self.turns += 1
        text = message[:READS].casefold().replace("’", "'")
        request = self.requests[self.current]
        possible = allowed(self._order, request["do"])
        if self._wavers and self._fact(self._detail) in self.told:
            self.corrected.add(self.current)
            return self._say(f"Wait, I have changed my mind. {self._fact(self._detail)}", True)
        refused = not possible and request["order"] in looked_up and bool(_REFUSES.search(text))
        if (possible and done(self.orders, request)) or refused:
            return self._next(refused)
        numbers = set(_ORDER.findall(text))
        if numbers and request["order"].casefold() not in numbers:
            return self._say(f"That is not the order I mean. It is about the {self._order['item']}.")
        asked = [topic for topic in _TOPICS if _asks(text, topic)]
        if asked:
            facts = [self._fact(topic) for topic in asked[: 1 if self.customer.get("terse") else 3]]
            news = not self.told.issuperset(facts)
            self.told.update(facts)
            return self._say(" ".join(facts), news)
        if _CONFIRM.search(text):
            return self._say("Yes, please.")
        if not text.strip():
            return self._say("Hello? Are you still there?")
        return self._say(self._choice(("I am not sure what you need from me.", "So is it done? I do not see it yet.")))

    @property
    def _order(self) -> Json:
        return self.before[self.requests[self.current]["order"]]

    def _next(self, refused: bool) -> tuple[str, bool]:
        self.muddles = 0
        thanks = "A pity, but I understand." if refused else self._choice(("Thank you!", "Great, thanks."))
        self.current += 1
        if self.current < len(self.requests):
            request = self.requests[self.current]
            wish = f"I would also like to {_WANTS[request['do']]}. It is about the {self._order['item']}."
            return f"{thanks} One more thing: {wish}", False
        self.current -= 1
        self.served = True
        return f"{thanks} That is all. Goodbye.", True

    def _say(self, answer: str, news: bool = False) -> tuple[str, bool]:
        """`news`: the conversation got on, so patience is back."""
        self.muddles = 0 if news else self.muddles + 1
        if self.muddles > PATIENCE or self.turns >= TURNS:
            return "This leads nowhere. I will try again another time.", True
        return answer, False

    @property
    def _detail(self) -> str:
        return "address" if self.requests[self.current]["do"] == "address" else "colour"

    @property
    def _wavers(self) -> bool:
        return bool(self.requests[self.current].get("first")) and self.current not in self.corrected

    def _fact(self, topic: str) -> str:
        request = self.requests[self.current]
        match topic:
            case "email":
                return f"My e-mail is {self.customer['email']}."
            case "name":
                return f"My name is {self.customer['name']}."
            case "order":
                if self.customer.get("knows_order"):
                    return f"It is order {request['order']}."
                return f"I do not have the number at hand. It is the {self._order['item']}."
            case "item":
                return f"It is the {self._order['item']}."
            case "colour" | "address" if topic in request:
                wanted = request["first"] if self._wavers else request[topic]
                return f"I would like it in {wanted}." if topic == "colour" else f"Please send it to {wanted}."
            case "colour":
                return f"Mine is {self._order['colour']}."
            case "address":
                return f"I live at {self._order['address']}."
            case _:
                return Random(self.seed).choice(_REASONS)

    def _choice(self, texts: Sequence[str]) -> str:
        return Random(f"{self.seed} {self.turns}").choice(texts)


def _asks(text: str, topic: str) -> bool:
    sentences = (match[0] for match in _SENTENCE.finditer(text))
    return any(_TOPICS[topic].search(sentence) and _ASKS.search(sentence) for sentence in sentences)


def opening(customer: Mapping[str, Any], request: Mapping[str, Any], orders: Mapping[str, Json]) -> str:
    """The first message of the conversation: what is wanted, and of a helpful customer what it is about."""
    wish = f"Hello, I would like to {_WANTS[request['do']]}."
    if customer.get("terse") or not customer.get("knows_order"):
        return wish
    return f"{wish} It is order {request['order']}, the {orders[request['order']]['item']}."
