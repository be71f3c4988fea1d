"""For tests that run programs: skipped where this machine can isolate none."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rollforge.errors import SetupError
from rollforge.sandbox.jail import Program, release_shared, shared


@pytest.fixture
async def isolated() -> AsyncIterator[None]:
    try:
        await shared().run(Program("pass"))
    except SetupError as error:
        pytest.skip(str(error))
    yield
    release_shared()
