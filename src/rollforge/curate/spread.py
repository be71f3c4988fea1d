"""Mean, deviation and ends of rewards, as they pass by (mean and squares after Welford: no difference of large squares)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from typing import Self

from rollforge.stats.text import number


@dataclass(slots=True)
class Spread:
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = 0.0
    high: float = 0.0
    lows: int = 0
    highs: int = 0

    def add(self, reward: float) -> None:
        self.count += 1
        if self.count == 1:
            self.low = self.high = reward
        if reward <= self.low:
            self.lows = 1 if reward < self.low else self.lows + 1
            self.low = reward
        if reward >= self.high:
            self.highs = 1 if reward > self.high else self.highs + 1
            self.high = reward
        delta = reward - self.mean
        self.mean += delta / self.count
        self.squares += delta * (reward - self.mean)

    @property
    def deviation(self) -> float:
        return sqrt(self.squares / (self.count - 1)) if self.count > 1 else 0.0

    def text(self) -> str:
        return f"{number(self.low)} to {number(self.high)}, mean {number(self.mean)}, std {number(self.deviation)}"

    @classmethod
    def of(cls, parts: Iterable[Self]) -> Self:
        """Of all of them together."""
        whole = cls()
        for part in parts:
            if not part.count:
                continue
            if not whole.count:
                whole.low, whole.high = part.low, part.high
            low, high = min(whole.low, part.low), max(whole.high, part.high)
            whole.lows = sum(each.lows for each in (whole, part) if each.low == low)
            whole.highs = sum(each.highs for each in (whole, part) if each.high == high)
            whole.low, whole.high = low, high
            count, delta = whole.count + part.count, part.mean - whole.mean
            whole.squares += part.squares + delta * delta * whole.count * part.count / count
            whole.mean += delta * part.count / count
            whole.count = count
        return whole
