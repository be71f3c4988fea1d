"""Statistics of rollouts: `profile(rollouts)` computes every number and verdict, `summary(profile)` tells the main ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rollforge.stats.profiling import Profile as Profile
    from rollforge.stats.profiling import profile as profile
    from rollforge.stats.short import summary as summary

# Loaded when first used: numpy comes with them.
_PUBLIC = {
    "Profile": "rollforge.stats.profiling",
    "profile": "rollforge.stats.profiling",
    "summary": "rollforge.stats.short",
}

__all__ = ["Profile", "profile", "summary"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'rollforge.stats' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PUBLIC[name]), name)
