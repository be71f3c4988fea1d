"""`rollforge env list | new | show`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rollforge.cli.output import any_encoding, print_json, prints_aside
from rollforge.errors import UserError

if TYPE_CHECKING:
    from rollforge.envs.base import Tool
    from rollforge.records.rollout import Rollout
    from rollforge.records.task import Task

app = typer.Typer(no_args_is_help=True, help="List, make and look at environments.")


@app.command("list")
def list_envs(json: bool = typer.Option(False, "--json", help="As JSON.")) -> None:
    """The environments that are known by name: built in, and those of installed packages."""
    from rollforge.envs.load import load_env
    from rollforge.registry import BUILT_IN, known
    from rollforge.stats.text import plural

    rows: list[dict[str, Any]] = []
    for name, where in sorted(known("env").items()):
        tools: Sequence[Any] = ()
        try:
            with prints_aside():
                env: Any = load_env(name)
            about, tools = _first_line(getattr(env, "description", "")), getattr(env, "tools", ())
        except UserError as error:
            about = f"cannot be loaded: {error}"
        rows.append({"name": name, "tools": len(tools), "about": about, "where": where, "built_in": name in BUILT_IN["env"]})
    if json:
        print_json(rows, indent=None)
        return
    any_encoding()
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        count = plural(row["tools"], "tool") if row["tools"] else "no tools"
        print(f"{row['name']:{width}}  {count:8}  {row['about']}" + ("" if row["built_in"] else f"  [{row['where']}]"))


@app.command()
def show(
    env: str = typer.Argument(help="Environment: a name, path/to/file.py:name, package.module:name, or a URL."),
    tasks: Path | None = typer.Option(None, help="JSONL file of tasks, instead of the environment's own."),
    index: int = typer.Option(0, "--task", help="Which task to show."),
    set_: list[str] = typer.Option([], "--set", help="An option of its task generator, as in --set level=hard."),
) -> None:
    """Its tools, a task, and the reference policy's transcript with the reward it gets."""
    import asyncio
    from dataclasses import replace
    from itertools import islice

    from rollforge.cli.show import print_transcript
    from rollforge.config import with_set
    from rollforge.envs.load import load_env
    from rollforge.envs.tasks import env_tasks
    from rollforge.records.rows import BadLine
    from rollforge.stats.visible import visible

    found: Any = load_env(env)
    options = with_set({}, set_)
    lines = env_tasks(found, tasks, options)
    task = next(islice((line for line in lines if not isinstance(line, BadLine)), index, None), None)
    if task is None:
        raise UserError(f"there is no task {index}")
    played = hasattr(found, "solve")
    # Of some environments only an open session knows the tools.
    tools, observation = (getattr(found, "tools", None) or (), None) if played else asyncio.run(opening(found, task))
    any_encoding()
    print(f"{getattr(found, 'name', env)}: {getattr(found, 'description', '') or 'no description'}\n")
    print("tools:" if tools else "tools: none")
    for signature, about in signatures(tools):
        print(f"  {signature}  {about}")
    print(f"\ntask {index} ({task.id}):")
    for name, value in task.fields.items():
        print(f"  {name}: {_json(value)[:200]}")
    if not played:
        shown = f"\nit opens with:\n{visible(observation)}\n" if observation else ""
        print(f"{shown}\nno reference policy: there is no transcript to show")
        return
    rollout = asyncio.run(reference(found, task))
    print()
    print_transcript(replace(rollout, fields=verdict_fields(rollout, task)), "the reference policy")
    if not rollout.outcome.judged:
        sys.exit(1)


@app.command()
def new(
    path: Path = typer.Argument(help="The file to write, as in my_env.py."),
    tools: bool = typer.Option(False, "--tools", help="With tools and state, rather than a prompt and a verifier."),
) -> None:
    """Write a small environment to start from."""
    from rollforge.records.shown import typed

    if path.suffix != ".py":
        raise UserError(f"{path} should end in .py")
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(_WITH_TOOLS if tools else _PLAIN)
    except FileExistsError:
        raise UserError(f"{path} exists already; it was left as it is") from None
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    print(f"wrote {path}\nlook at it:  rollforge env show {typed(path)}")
    print(f"try it:      rollforge collect {typed(path)} --model scripted:perfect")


def signatures(tools: Sequence[Tool]) -> Iterator[tuple[str, str]]:
    """`name(parameter: type)` and what it does, in a line."""
    for tool in tools:
        defined = tool.parameters.get("$defs", {})
        named = tool.parameters.get("properties", {})
        names = ", ".join(f"{name}: {_type(schema, defined)}" for name, schema in named.items())
        yield f"{tool.name}({names})", _first_line(tool.description)


async def reference(env: Any, task: Task) -> Rollout:
    """The rollout of its reference policy. The environment is closed after it."""
    from rollforge.agents.tool_loop import ToolLoop
    from rollforge.collect.rollout import Runner
    from rollforge.models.base import ModelOptions
    from rollforge.models.load import load_model

    model = load_model("scripted:perfect", ModelOptions(solve=env.solve))
    runner = Runner(env=env, env_name=env.name, model=model, model_name="scripted:perfect", agent=ToolLoop())
    try:
        return await runner(task, 0)
    finally:
        await env.aclose()


async def opening(env: Any, task: Task) -> tuple[Sequence[Tool], str | None]:
    """The tools of a session, and what it shows at first. The environment is closed after it."""
    from rollforge.collect.closing import aclose
    from rollforge.errors import VerifierFault, stage

    try:
        with stage("open", VerifierFault):
            async with env.open(task) as session:
                return session.tools, session.observation
    finally:
        await aclose(env)


def verdict_fields(rollout: Rollout, task: Task) -> dict[str, Any]:
    """What the verifier returned beside the reward, its parts first, without the fields of the row."""
    replaced = rollout.extra.get("task_fields", {})
    fields = {name: value for name, value in rollout.fields.items() if name not in task.fields or name in replaced}
    return {"reward_components": fields.pop("reward_components", None), **fields}


def _type(schema: dict[str, Any], defined: dict[str, Any]) -> str:
    schema = defined.get(schema.get("$ref", "").removeprefix("#/$defs/"), schema)
    return str(schema.get("type") or " | ".join(_type(s, defined) for s in schema.get("anyOf", [])) or "any")


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _json(value: Any) -> str:
    from rollforge.records.lossless import dumps

    return dumps(value, default=str).decode()


_PLAIN = '''"""An environment: tasks, and a verifier that scores the reply."""

import rollforge as rf


@rf.env(
    tasks=[
        {"prompt": "What is the capital of France? Answer with the name only.", "answer": "Paris"},
        {"prompt": "What is the capital of Japan? Answer with the name only.", "answer": "Tokyo"},
    ]
)
def capitals(reply: str, answer: str) -> float:
    """Name the capital."""
    # Parameters are filled by name: `reply` is the model's text, the others are fields of the task's row.
    return float(reply.strip().rstrip(".").casefold() == answer.casefold())
'''

_WITH_TOOLS = '''"""An environment with tools and state: public methods with a docstring are the tools."""

import rollforge as rf


@rf.env(
    prompt="You have {balance} euros. Spend {spend} of them.",
    tasks=[{"balance": 10, "spend": 4}, {"balance": 25, "spend": 7}],
)
class Purse:
    """Spend an exact amount."""

    def reset(self, balance: int) -> None:
        """Called once per rollout; parameters are fields of the task's row."""
        self.balance = balance

    def pay(self, amount: int) -> str:
        """Pay an amount.

        Args:
            amount: how many euros.
        """
        if amount > self.balance:
            raise ValueError(f"only {self.balance} euros are left")  # the model sees this as the tool's output
        self.balance -= amount
        return f"{self.balance} euros left"

    def verify(self, reply: str, balance: int, spend: int) -> float:
        return float(self.balance == balance - spend)

    def solve(self, spend: int):
        """The reference policy, for tests: yields tool calls, returns the reply."""
        left = yield "pay", {"amount": spend}
        return f"Done: {left}."
'''
