"""Collecting rollouts: plan, schedule, attempt, record, resume."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Collect(ModuleType):
    """`rollforge.collect` is a function of the public interface and this package: whichever of them a name finds, depending
    on what was imported before, it can be called."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        from rollforge.collect.run import collect

        return collect(*args, **options)


sys.modules[__name__].__class__ = _Collect
