"""Write docs/reference/gallery.md: each built-in environment with a task, its reference policy at work, and the reward.

    python scripts/gallery.py

Everything on the page is made by playing the environments, as `rollforge env show` does. The section of one whose extra is
not installed stays as it is on the page.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from rollforge.cli.env import reference, signatures, verdict_fields
from rollforge.envs.base import Tool
from rollforge.envs.load import load_env
from rollforge.errors import UserError
from rollforge.records.lossless import dumps
from rollforge.records.rollout import Rollout
from rollforge.records.task import Task
from rollforge.registry import BUILT_IN
from rollforge.stats.text import number
from rollforge.stats.transcript import Block, blocks

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "gallery.md"
TASKS = 20
"""The shortest of so many is shown."""
TOOLS, BLOCKS, CHARS, LINES, FIELD = 6, 10, 700, 12, 120
"""What is longer is cut: tools, blocks of a transcript, characters and lines of a block, characters of a field."""

HEAD = """# Gallery

Each built-in environment with one of its tasks, what the reference policy does about it, and the verdict. Long texts are
cut; the command prints more of them. Fields of the rows, options and what differs from NeMo Gym:
[Built-in environments](environments.md). Written by `scripts/gallery.py`.
"""


async def page(old: str = "") -> str:
    """The whole page; `old` is it as it was."""
    before = sections(old)
    parts = [HEAD]
    for name in sorted(BUILT_IN["env"]):
        try:
            parts.append(await section(name))
        except UserError as error:
            if "not installed" not in str(error):
                raise
            print(f"{name} is left as it was: {error}", file=sys.stderr)
            parts += [before[name]] if name in before else []
    return "\n".join(parts)


def sections(text: str) -> dict[str, str]:
    """The sections of the page by the name of their environment."""
    parts = text.split("\n## ")[1:]
    return {part.partition("\n")[0]: f"## {part.rstrip()}\n" for part in parts}


async def section(name: str) -> str:
    env: Any = load_env(name)
    tasks: list[Task] = list(islice(env.tasks(), TASKS))
    # Easy ones first: their transcripts are short as well.
    index = min(range(len(tasks)), key=lambda i: (tasks[i].fields.get("level", "easy") != "easy", _length(tasks[i])))
    rollout = await reference(env, tasks[index])
    if rollout.reward is None:
        raise SystemExit(f"{name}: the reference policy was not judged: {rollout.failure}")
    about = env.description.strip().partition("\n")[0]
    shown = f"{_tools(env, rollout)}`rollforge env show {name} --task {index}`"
    lines = [*_transcript(rollout), *_verdict(rollout, tasks[index])]
    # Four marks, since a reply may have three.
    return f"## {name}\n\n{about}\n\n{shown}\n\n````text\n" + "\n".join(lines) + "\n````\n"


def _length(task: Task) -> int:
    return len(dumps(task.params)) + len(dumps(task.fields))


def _tools(env: Any, rollout: Rollout) -> str:
    rows = () if env.tools else rollout.params.get("tools") or ()
    tools = env.tools or [Tool(row["name"], row.get("description") or "", row.get("parameters") or {}) for row in rows]
    if not tools:
        return ""
    said = [f"- `{signature}`: {about}" for signature, about in signatures(tools)]
    more = [f"- and {len(said) - TOOLS} more"] if len(said) > TOOLS else []
    return "\n".join(["Tools:" if env.tools else "Tools of this row:", "", *said[:TOOLS], *more]) + "\n\n"


def _transcript(rollout: Rollout) -> Iterator[str]:
    said = [block for block in blocks(rollout) if block.title != "tools"]
    left_out = max(0, len(said) - BLOCKS)
    for block in said[: len(said) - left_out - 1]:
        yield from _block(block)
    if left_out:
        yield f"... {left_out} more calls, outputs or messages"
    yield from _block(said[-1])


def _block(block: Block) -> Iterator[str]:
    text = "\n".join(block.text[:CHARS].split("\n")[:LINES])
    yield block.title
    for line in text.split("\n"):
        yield f"  {line}".rstrip()
    if len(text) < len(block.text):
        yield f"  ... {len(block.text) - len(text):,} more characters"


def _verdict(rollout: Rollout, task: Task) -> Iterator[str]:
    yield f"verdict: reward {number(rollout.reward)}"
    for name, value in verdict_fields(rollout, task).items():
        if name == "reward_components" and isinstance(value, Mapping):
            yield "  parts: " + ", ".join(f"{part} {number(worth)}" for part, worth in value.items())
        elif value is not None and value != "":
            text = " ".join((value if isinstance(value, str) else dumps(value).decode()).split())
            yield f"  {name}: {text[:FIELD]}" + (" ..." if len(text) > FIELD else "")


def main() -> None:
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    PAGE.write_text(asyncio.run(page(old)), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
