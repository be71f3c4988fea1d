"""`ng_test`: a server's own pytest suite under our `nemo_gym`, then its contract, on its configuration and its example rows.

The suite runs in a process of its own, in the server's directory; the server in this one, on a port of its own, where the
checks of `rollforge test` play it. What needs another server (a judge, say) is skipped and says so. A name without a
directory is the built-in environment that stands for it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.routing import Match

from rollforge.audit.contract import Check, Foreign, check_env
from rollforge.collect.closing import close
from rollforge.envs.base import Env, Limits
from rollforge.envs.load import load_env
from rollforge.envs.remote import RemoteEnv
from rollforge.errors import UserError, describe
from rollforge.nemo import compat_path, installed
from rollforge.nemo.arguments import Arguments
from rollforge.nemo.builtin import ENVIRONMENTS
from rollforge.nemo.config import AGENTS, MODELS, RESOURCES, Server, read_config
from rollforge.nemo.missing import remedy
from rollforge.nemo.servers import TYPES, Servers, entrypoint, load_server, root_of, theirs
from rollforge.records.items import Json
from rollforge.records.whole import whole
from rollforge.serve.run import Service, listen, start
from rollforge.serve.settings import Settings
from rollforge.stats.visible import visible

EXAMPLES = 5
"""Rows that NeMo Gym asks of `data/example.jsonl`."""
SECONDS = 120.0
"""Longest wait for one answer."""
SUITE_SECONDS = 3600.0
SUITE = "its own tests"
SOME_POLICY: Json = {"policy_model": {MODELS: {"dummy_model": {}}}}
"""For configurations that take the model from another file, as a copy for their judge say."""


def test_servers(
    root: str | os.PathLike[str] = ".",  # noqa: PT028
    say: Callable[[str], None] = print,  # noqa: PT028
    *,
    tested: bool = False,  # noqa: PT028
) -> int:
    """Every resources server below `root`: 0 if all pass, else 1. Raises `UserError` if there is none. `tested`: one
    without tests of its own fails."""
    found = sorted(file.parent for file in Path(root).glob("resources_servers/*/app.py"))
    if not found:
        raise UserError(f"there is no resources_servers/*/app.py below {Path(root).resolve()}")
    failed = []
    for directory in found:
        say(f"\n{directory}")
        if test_server(directory, say, tested=tested):
            failed.append(directory.name)
    say(f"\n{len(found) - len(failed)} of {len(found)} passed" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def test_server(
    directory: str | os.PathLike[str],
    say: Callable[[str], None] = print,  # noqa: PT028
    *,
    tested: bool = False,  # noqa: PT028
) -> int:
    """One server: 0 if nothing fails, else 1; `tested`: tests of its own that are not there fail. Raises `UserError` if
    there is no server there."""
    place = Path(directory)
    use = ENVIRONMENTS.get(place.name) if place.parent.name == RESOURCES and not place.exists() else None
    found = checks(entrypoint(place).parent) if use is None else _built_in(place, use)
    failed = 0
    for check in found:
        if tested and check.name == SUITE and check.status == "skip":
            check = replace(check, status="fail")
        failed += check.status == "fail"
        say(f"{check.status}  {check.name}" + (f": {visible(check.says)}" if check.says else ""))
        if check.remedy:
            say(f"      -> {visible(check.remedy)}")
    return 1 if failed else 0


# Named like tests, which they are not: pytest would collect them where they are imported.
test_servers.__test__ = test_server.__test__ = False  # type: ignore[attr-defined]


def checks(directory: Path) -> Iterator[Check]:
    """The suite, then the contract. A server that does not load ends it."""
    yield _suite(directory)
    rows, check = _examples(directory)
    yield check
    servers, block, check = _configuration(directory)
    yield check
    if check.status == "fail":
        return
    try:
        _load(directory, block, servers)
    except UserError as error:
        yield _not_loaded(directory, block, str(error))
        return
    yield Check("loads", "pass", type(servers.applications[directory.name].state.server).__name__)  # type: ignore[attr-defined]
    if directory.parent.name == RESOURCES or directory.parent.name not in TYPES:
        yield from asyncio.run(_Contract(servers, directory, block, rows).checks())


def _built_in(place: Path, use: str) -> Iterator[Check]:
    yield Check("code", "skip", f"there is no {place}/app.py: what takes its rows is the built-in environment {use}")
    yield from asyncio.run(_played(load_env(use), use))


async def _played(env: Env, name: str, **options: Any) -> list[Check]:
    try:
        return await check_env(env, name, **options)
    finally:
        await close(env, print)


def _suite(directory: Path) -> Check:
    name = SUITE
    if not list(directory.glob("tests/**/test_*.py")):
        return Check(name, "skip", "there is no tests/test_*.py")
    if importlib.util.find_spec("pytest") is None:
        return Check(name, "fail", "they were not run: pytest is not installed", "pip install 'rollforge[test]'")
    # Away from whatever configuration of pytest lies above: as where the server was written.
    options = ["-q", "--no-header", "-c", os.devnull, "--rootdir", str(directory), "-p", "no:cacheprovider"]
    if importlib.util.find_spec("pytest_asyncio") is not None:
        options += ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "tests", *options],
            cwd=directory,
            env={
                **os.environ,
                "PYTHONPATH": _path(directory),
                "ROLLFORGE_NEMO_ROOT": str(root_of(directory)),
            },
            capture_output=True,
            text=True,
            timeout=SUITE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Check(name, "fail", f"not done after {SUITE_SECONDS:g} s")
    lines = [line for line in done.stdout.strip().splitlines() if line.strip()] or [done.stderr.strip()[-500:]]
    if done.returncode == 0:
        return Check(name, "pass", lines[-1].strip("= "))
    raised = (line for line in lines if re.search(r"\b(ModuleNotFound|Import|Attribute)Error\b", line))
    helps = next((found for line in raised if (found := remedy(directory, line))), "")
    return Check(name, "fail", "\n      ".join(["", *lines[-30:]]), helps)


def _path(directory: Path) -> str:
    root = root_of(directory)
    given = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    ours = [] if installed() else [compat_path()]
    # As `activate` orders them.
    places = [*ours, str(root), *given] if (root / "nemo_gym").is_dir() else [str(root), *given, *ours]
    return os.pathsep.join([str(directory), *places])


def _examples(directory: Path) -> tuple[list[Json], Check]:
    file, name = directory / "data" / "example.jsonl", "example rows"
    if not file.is_file():
        return [], Check(name, "skip", "there is no data/example.jsonl")
    rows: list[Json] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            return rows, Check(name, "fail", f"{file}:{number} is not JSON: {error}")
        if not isinstance(row, dict) or not isinstance(row.get("responses_create_params"), dict):
            return rows, Check(name, "fail", f"{file}:{number} has no responses_create_params")
        rows.append(row)
    short = f"{file} has {len(rows)} rows, NeMo Gym wants {EXAMPLES}"
    return rows, Check(name, "pass" if len(rows) == EXAMPLES else "fail", "" if len(rows) == EXAMPLES else short)


def _configuration(directory: Path) -> tuple[Servers, Json, Check]:
    """The first block in configs/*.yaml that is this server's."""
    name = "configuration"
    files = sorted(directory.glob("configs/*.yaml"), key=lambda file: (file.stem != directory.name, file.stem))
    try:
        for file in files:
            config = read_config(Arguments({"config_paths": [str(file)]}), SOME_POLICY, strict=False)
            for server in config.servers:
                if _is_of(server, directory):
                    return Servers(config.values), server.block, Check(name, "pass", f"{file.name}: {server.name}")
    except UserError as error:
        return Servers(), {}, Check(name, "fail", str(error))
    if files:
        return Servers(), {}, Check(name, "fail", f"no file in {directory / 'configs'} has a server of {directory.name}")
    return Servers(), {}, Check(name, "skip", "there is no configs/*.yaml")


def _is_of(server: Server, directory: Path) -> bool:
    typed = directory.parent.name in TYPES
    return server.implementation == directory.name and (not typed or server.type == directory.parent.name)


def _open(value: Any) -> bool:
    """Left for whoever starts it to fill in."""
    return isinstance(value, str) and (value == "???" or "${" in value)


def _load(directory: Path, block: Json, servers: Servers) -> None:
    given = {key: value for key, value in block.items() if not _open(value)}
    load_server(directory, given, name=directory.name, servers=servers)


def _not_loaded(directory: Path, block: Json, says: str) -> Check:
    """No fault of a template: what it leaves open, and the servers that an agent works with, come with what starts it."""
    left = {key for key, value in block.items() if _open(value)}
    if directory.parent.name == AGENTS:
        left |= {"resources_server", "model_server"}
    lacks = re.findall(r"([\w.]+): Field required", says)
    if not lacks or len(lacks) != says.count("(given: ") or not left.issuperset(lacks):
        return Check("loads", "fail", says)
    keys = f"{', '.join(lacks)} {'is' if len(lacks) == 1 else 'are'}"
    return Check("loads", "skip", f"its configuration is a template: {keys} filled in by whoever starts it")


@dataclass(frozen=True, slots=True)
class _Contract:
    """Talks to the server as an agent does."""

    servers: Servers
    directory: Path
    block: Json
    rows: list[Json]

    async def checks(self) -> list[Check]:
        paths = {getattr(route, "path", None) for route in self.app.routes}
        steps = "/reset" in paths and "/step" in paths
        found = [await self._named("session cookies", self._cookies, "/reset" if steps else "/seed_session")]
        if not steps:
            found.append(self._routes())
        if self.rows:
            found += [self._weighed(check) for check in await self.play()]
        unjudged = any(check.name == "verdicts" for check in found)
        if not steps and not unjudged and "/verify" in paths:
            found.append(await self._named("stored rollouts", self._again))
        if "/aggregate_metrics" in paths:
            found.append(await self._named("aggregates", self._aggregate))
        return [self._helped(check) for check in found]

    def _helped(self, check: Check) -> Check:
        """What is imported only when it is asked for may be what is missing."""
        helps = remedy(self.directory, check.says) if check.status == "fail" else ""
        return replace(check, remedy=helps) if helps else check

    @property
    def app(self) -> Any:
        return self.servers.applications[self.directory.name]

    async def _named(self, name: str, check: Callable[..., Any], *arguments: Any) -> Check:
        try:
            async with asyncio.timeout(SECONDS):
                found = await check(*arguments)
        except TimeoutError:
            return Check(name, "fail", f"no answer after {SECONDS:g} s")
        except _Failed as error:
            return Check(name, "fail", str(error))
        except Exception as error:  # noqa: BLE001 - whatever the server's code does is a finding
            return Check(name, "fail", describe(error))
        return Check(name, *found)

    async def _post(self, path: str, row: Json, cookies: Any = None) -> Any:
        answer = await theirs("_calls").call(self.app, "POST", path, "http://server", json=row, cookies=cookies)
        if not answer.ok:
            refused = answer.status < HTTPStatus.INTERNAL_SERVER_ERROR
            raise (_Refused if refused else _Failed)(f"{path} answered {answer.status}: {(await answer.text())[:300]}")
        return answer

    async def _cookies(self, path: str) -> tuple[str, str]:
        if not self.rows:
            return "skip", "no rows"
        one, other = [await self._post(path, self.rows[0]) for _ in range(2)]
        values = [{name: cookie.value for name, cookie in answer.cookies.items()} for answer in (one, other)]
        if not values[0]:
            raise _Failed(f"{path} sets no cookie: setup_webserver has to call setup_session_middleware")
        if values[0] == values[1]:
            raise _Failed(f"{path} gives two callers the same session")
        return "pass", "two callers have two sessions"

    def _routes(self) -> Check:
        """Where rows declare tools that are judged and never run, no tool has a route."""
        tools = [tool for row in self.rows for tool in row["responses_create_params"].get("tools") or []]
        functions = [tool for tool in tools if isinstance(tool, dict) and tool.get("type") == "function"]
        names = dict.fromkeys(str(tool.get("name")) for tool in functions)
        missing = [name for name in names if not self._answers(f"/{name}")]
        if not names:
            return Check("routes", "pass", "the rows declare no tools")
        if len(missing) == len(names):
            return Check("routes", "pass", "no tool of the rows has one: a call is judged, and its output is an error")
        remedy = "setup_webserver adds them: app.post('/NAME')(self.NAME)"
        says = f"rows declare tools that have none: {', '.join(missing)}"
        return (
            Check("routes", "fail", says, remedy) if missing else Check("routes", "pass", f"all {len(names)} tools have one")
        )

    def _answers(self, path: str) -> bool:
        asked = {"type": "http", "method": "POST", "path": path, "root_path": "", "headers": []}
        return any(route.matches(asked)[0] is Match.FULL for route in self.app.routes)

    def _weighed(self, check: Check) -> Check:
        """What went otherwise, and otherwise again in a new process, did so by chance: shared state shows the same there."""
        if check.name != "isolation" or check.status != "fail":
            return check
        command = [sys.executable, "-m", __name__, str(self.directory)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        same = done.stdout.splitlines()[-1:] == [json.dumps(check.says)]
        return check if same else Check("isolation", "skip", f"{check.says}; in a new process it went otherwise: by chance")

    async def play(self) -> list[Check]:
        with listen("127.0.0.1", 0) as listening:
            service = Service(self.directory.name, "environment", self.app, listening)
            stop = await start(service, Settings())
            try:
                return await _played(
                    RemoteEnv(service.url),
                    self.directory.name,
                    tasks=self.directory / "data" / "example.jsonl",
                    n=len(self.rows),
                    limits=Limits(SECONDS, SECONDS),
                    foreign=Foreign(" and ".join(self._others())),
                )
            finally:
                await stop()

    async def _again(self) -> tuple[str, str]:
        """Stored rollouts, judged once more. Another reward is no fault of the contract: the tools are not called again."""
        file = self.directory / "data" / "example_rollouts.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        # A stored rollout has the verdict's fields too, and lacks those of its task that the server did not declare.
        tasks = {_asked(row): row for row in self.rows}
        same = judged = 0
        refused: list[str] = []
        broken: list[str] = []
        for line in lines:
            row = json.loads(line) if line.startswith("{") else {}
            if not isinstance(row.get("response"), dict) or not isinstance(row.get("reward"), (int, float)):
                continue
            task = tasks.get(_asked(row), row)
            try:
                seeded = await self._post("/seed_session", task)
                sent = {**task, "response": whole(row["response"], task["responses_create_params"])}
                answer = await (await self._post("/verify", sent, seeded.cookies)).json()
            except _Failed as error:
                # Written by an older version of the server, or for a judge that is not here.
                excused = isinstance(error, _Refused) or self._others()
                (refused if excused else broken).append(str(error))
                continue
            if why := answer.get("_ng_failure_class"):
                refused.append(str(why))
                continue
            judged += 1
            same += row["reward"] == answer.get("reward")
        if broken:
            raise _Failed(f"{len(broken)} of {judged + len(refused) + len(broken)} get no verdict: {broken[0]}")
        if not judged:
            none = f"all {len(refused)} are refused, the first: {refused[0]}" if refused else ""
            return "skip", none or "there is no data/example_rollouts.jsonl with any"
        return "pass", f"{same} of {judged} get their reward again" + (f"; {len(refused)} are refused" if refused else "")

    def _others(self) -> list[str]:
        return [
            str(value["name"])
            for value in self.block.values()
            if isinstance(value, dict) and value.get("type") in TYPES and "name" in value
        ]

    async def _aggregate(self) -> tuple[str, str]:
        rows = [{"reward": reward, "_ng_task_index": task, "_ng_rollout_index": 0} for task, reward in enumerate((0.0, 1.0))]
        try:
            answer = await (await self._post("/aggregate_metrics", {"verify_responses": rows})).json()
        except _Failed as error:
            return "skip", f"its own metrics want more than a reward ({error})"
        missing = {"group_level_metrics", "agent_metrics", "key_metrics"} - set(answer)
        if missing:
            raise _Failed(f"/aggregate_metrics lacks {', '.join(sorted(missing))}")
        return "pass", ""


def _asked(row: Json) -> str:
    """What tells tasks apart: the conversation that a row begins with, without what servers add to it."""
    given = row["responses_create_params"].get("input") or []
    messages = [given] if isinstance(given, str) else [(item.get("role"), item.get("content")) for item in given]
    return json.dumps(messages)


class _Failed(Exception):
    """The contract is broken; the message says where."""


class _Refused(_Failed):
    """The server does not take what it was sent."""


def _isolation(directory: Path) -> str:
    """What the check of isolation says here."""
    rows, _ = _examples(directory)
    servers, block, _ = _configuration(directory)
    _load(directory, block, servers)
    played = asyncio.run(_Contract(servers, directory, block, rows).play())
    return next((check.says for check in played if check.name == "isolation"), "")


if __name__ == "__main__":
    print("\n" + json.dumps(_isolation(Path(sys.argv[1]))))
