"""`command:...`: an agent that is a program of its own, in any language, one process per rollout.

    Runner --> CommandAgent --> program          the prompt on stdin, URLs and key in its environment
                    |              |  HTTP
                    '-- Gateway <--'             on a loopback port of this process, started with the first rollout

What its model calls show is the rollout. The program is killed with its children when it has ended, at the deadline, and on
cancellation.
"""

from __future__ import annotations

import asyncio
import glob
import os
import re
import shlex
import shutil
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

from pydantic import Field

from rollforge.config import Section, validate
from rollforge.envs.base import Session
from rollforge.errors import InfraFault, SetupError, UserError
from rollforge.models.base import Model
from rollforge.records.items import Response, input_items, item_type, text_of
from rollforge.records.lossless import dumps
from rollforge.records.shown import program
from rollforge.records.task import Task
from rollforge.serve.capture import MAX_CALLS
from rollforge.serve.gateway import Gateway, Live, gateway_app
from rollforge.serve.run import Service, listen, start
from rollforge.serve.settings import Settings


class CommandOptions(Section):
    max_turns: int = Field(MAX_CALLS, ge=1)
    """Calls of the model in one rollout."""
    pass_env: list[str] = Field(default_factory=list)
    """Variables that the program gets although their names say that they hold secrets."""
    hide_env: list[str] = Field(default_factory=list)
    """Variables that it does not get, whatever their names say."""


def load(command: str | None, options: Mapping[str, Any]) -> CommandAgent:
    """Raises `UserError`: no command, one that cannot be read, a program that is not there."""
    if not command or not command.strip():
        raise UserError("an agent that is a program is written command:'python my_agent.py'")
    if _SHELL.search(_QUOTED.sub("", _SINGLE.sub("", command))) or _EXPANDED.search(_SINGLE.sub("", command)):
        words = ["/bin/sh", "-c", command]
    else:
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise UserError(f"the command {command!r} cannot be read: {error}") from error
        if shutil.which(words[0]) is None:
            raise UserError(f"there is no program {words[0]!r} (in the command {command!r})")
    return CommandAgent(words, validate(CommandOptions, dict(options), "agent"))


class CommandAgent:
    """Close it with `aclose`: its gateway listens from the first rollout on."""

    def __init__(self, words: Sequence[str], options: CommandOptions) -> None:
        self._words = list(words)
        self._name = program(words[-1] if words[0] == "/bin/sh" else shlex.join(words))
        """For messages: the rest of a command may hold keys."""
        self._options = options
        self._settings = Settings()
        self._gateway = Gateway(self._settings, max_calls=options.max_turns)
        self._url = ""
        self._stop: Callable[[], Awaitable[None]] | None = None
        self._starting = asyncio.Lock()

    async def __call__(self, task: Task, model: Model, session: Session, /) -> Response:
        """Raises `InfraFault` for a program that fails, what the model raised if that is why, and `SetupError` at once."""
        await self._start()
        async with self._gateway.live(task, model, session) as live:
            said = await self._run(live)
            await live.capture.close()
            live.capture.check()
            response = live.capture.response(said)
            if response is None:
                raise InfraFault(f"{self._name} ended without a call of the model and printed nothing")
            return response

    async def aclose(self) -> None:
        stop, self._stop = self._stop, None
        if stop is not None:
            await stop()

    async def _start(self) -> None:
        async with self._starting:
            if self._stop is None:
                service = Service("gateway", "agent", gateway_app(self._gateway, self._settings), listen("127.0.0.1", 0))
                self._stop = await start(service, self._settings)
                self._url = service.url

    async def _run(self, live: Live) -> str:
        """What the program printed."""
        program = await self._spawn(live)
        hopeless = asyncio.create_task(live.capture.hopeless.wait())
        try:
            program.tell(_prompt(live.task))
            await asyncio.wait((program.ended, hopeless), return_when=asyncio.FIRST_COMPLETED)
            if isinstance(live.capture.error, SetupError):
                raise live.capture.error
        finally:
            hopeless.cancel()
            await program.end()
        code = program.ended.result()
        if code == 0:
            return program.text(1).strip()
        if live.capture.error is not None:
            raise live.capture.error
        ended = f"exited with {code}" if code > 0 else f"was ended by {_signal_name(-code)}"
        said = program.text(2).strip()[-_SHOWN:] or "nothing on stderr"
        message = f"{self._name} {ended}: {said}"
        raise SetupError(message) if code in (126, 127) and self._words[0] == "/bin/sh" else InfraFault(message)

    async def _spawn(self, live: Live) -> _Program:
        loop = asyncio.get_running_loop()
        environment = self._environment(live)
        known_by = f"ROLLFORGE_BASE_URL={environment['ROLLFORGE_BASE_URL']}".encode()
        made = loop.subprocess_exec(partial(_Program, known_by), *self._words, env=environment, start_new_session=True)
        spawning = asyncio.ensure_future(made)
        try:
            _, program = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            with suppress(OSError):
                await (await spawning)[1].end()
            raise
        except (FileNotFoundError, PermissionError) as error:
            raise SetupError(f"cannot start {self._words[0]}: {error.strerror}") from error
        return program

    def _environment(self, live: Live) -> dict[str, str]:
        options, row = self._options, live.row(self._url)
        own = {
            name: value
            for name, value in os.environ.items()
            if name in options.pass_env or not (_SECRET.search(name) or name in options.hide_env)
        }
        task = dumps(row["prompt"]).decode("utf-8", "replace")
        local = {name: ",".join(filter(None, (own.get(name), "127.0.0.1"))) for name in ("NO_PROXY", "no_proxy")}
        return {
            **own,
            **local,
            "OPENAI_BASE_URL": row["base_url"],
            "OPENAI_API_KEY": row["api_key"],
            "ANTHROPIC_BASE_URL": row["anthropic_base_url"],
            "ANTHROPIC_API_KEY": row["api_key"],
            "ROLLFORGE_BASE_URL": row["anthropic_base_url"],
            "ROLLFORGE_TOOLS_URL": row["tools_url"],
            # Linux refuses to start a program with a longer variable; GET $ROLLFORGE_BASE_URL has it too.
            **({"ROLLFORGE_TASK": task} if len(task.encode()) < _LONGEST_VARIABLE else {}),
        }


class _Program(asyncio.SubprocessProtocol):
    """A process and the ends of what it printed. (asyncio's own `Process` runs on while a child of it holds its pipes.)"""

    def __init__(self, known_by: bytes) -> None:
        """`known_by`: a variable that only it has, and its children."""
        loop = asyncio.get_running_loop()
        self._known_by = known_by
        self.ended: asyncio.Future[int] = loop.create_future()
        """Its exit status, negative for a signal."""
        self._printed = {1: bytearray(), 2: bytearray()}
        self._open = {0, 1, 2}
        self._closed = asyncio.Event()
        self._transport: asyncio.SubprocessTransport

    def tell(self, data: bytes) -> None:
        stdin: Any = self._transport.get_pipe_transport(0)
        # It may have ended, or closed its side, without reading; uvloop then raises RuntimeError.
        if stdin is not None and not stdin.is_closing():
            with suppress(OSError, RuntimeError):
                stdin.write(data)
                stdin.close()

    def text(self, fd: int) -> str:
        return self._printed[fd].decode("utf-8", "replace")

    async def end(self) -> None:
        """Kill what is left of its group, which is named after it, and of the children that left the group; have the last it
        printed."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._transport.get_pid(), signal.SIGKILL)
        await asyncio.wait((self.ended,))
        await asyncio.to_thread(_end_all, self._known_by)
        with suppress(TimeoutError):  # a child that hides holds the pipes open
            async with asyncio.timeout(1):
                await self._closed.wait()
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)  # uvloop's has another ancestry

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._printed[fd] += data
        del self._printed[fd][: -_KEPT[fd]]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.discard(fd)
        if not self._open:
            self._closed.set()

    def process_exited(self) -> None:
        self.ended.set_result(self._transport.get_returncode() or 0)


def _end_all(known_by: bytes) -> None:
    """Kill the processes that have the variable, wherever they went. Only Linux tells."""
    for _ in range(_ROUNDS):  # one may start another while they are looked for
        found = False
        for path in glob.iglob("/proc/[0-9]*/environ"):
            with suppress(OSError), open(path, "rb") as file:  # an error: it ended, or is somebody else's
                if known_by in file.read().split(b"\0"):
                    os.kill(int(path.split("/")[2]), signal.SIGKILL)
                    found = True
        if not found:
            return


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _prompt(task: Task) -> bytes:
    """The texts of the prompt's messages, in order."""
    messages = (item for item in input_items(task.params) if item_type(item) == "message")
    texts = [str(task.params.get("instructions") or ""), *(text_of(message.get("content")) for message in messages)]
    return "\n\n".join(text for text in texts if text).encode("utf-8", "replace")


_SINGLE = re.compile(r"'[^']*'|\\.")
_QUOTED = re.compile(r'"[^"]*"')
_SHELL = re.compile(r"[|&;<>()*?~\n#]|^\s*\w+=")
_EXPANDED = re.compile(r"[$`]")
_SECRET = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)(S|_ID)?$", re.IGNORECASE)
_LONGEST_VARIABLE = 100_000
_KEPT = {1: 2**20, 2: 2**14}
"""Bytes of stdout and stderr: their ends."""
_SHOWN = 2000
_ROUNDS = 10
