"""What runs on both event loops; containers, where an engine and an image are there."""

import asyncio

import pytest
import uvloop

from rollforge.errors import InfraFault, SetupError
from rollforge.sandbox.docker import engine
from rollforge.sandbox.jail import Jail, Program

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request):
    """Run a coroutine on a loop of its own."""

    def run(coroutine):
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(coroutine)

    return run


@pytest.fixture(scope="session")
def containers():
    """The pool of an engine, one for all tests, since a container takes a second to start; skips where there can be none."""
    pools: dict[str, Jail] = {}
    refused: dict[str, str] = {}

    async def of(command):
        if command not in pools and command not in refused:
            jail = Jail(size=2, engine=engine(command))
            try:
                await jail.run(Program("pass"))
                pools[command] = jail
            except (SetupError, InfraFault) as error:
                refused[command] = str(error)
        if command in refused:
            pytest.skip(refused[command])
        return pools[command]

    yield of
    for jail in pools.values():
        jail.close()
