"""Environments whose tools or verifiers run programs in the sandbox: closing them gives its idle cells back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rollforge.envs.decorate import PythonEnv
from rollforge.sandbox.jail import release_shared


class JailedEnv(PythonEnv):
    """As any environment of `@env`."""

    async def aclose(self) -> None:
        await super().aclose()
        release_shared()


def jailed(**options: Any) -> Callable[[Any], JailedEnv]:
    """`@env` for such an environment."""
    return lambda target: JailedEnv(target, **options)
