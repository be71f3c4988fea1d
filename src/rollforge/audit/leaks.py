"""Where the answer may be seen before it is given (prompt, tools, files), and what tools do with senseless arguments."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from secrets import token_hex
from typing import Any

from rollforge.audit.finding import Finding, Severity, brief, found, shown, where
from rollforge.audit.known import Known, as_number, replay
from rollforge.audit.left import own_temporary
from rollforge.audit.play import Ground, Played, Player, say
from rollforge.envs.base import Tool
from rollforge.models.schema_values import random_value
from rollforge.models.scripted import perturbed
from rollforge.records.items import input_items, mapping, text_of
from rollforge.records.rollout import Outcome

SECRET, _VARIABLE = "ROLLFORGE_AUDIT_SECRET", "-variable"
MATERIAL = 400
"""Characters from which a prompt is material to read an answer from."""
FILE_BYTES = 1_000_000
_LABEL = r"(?:answer|solution|expected|gold|ground.?truth|correct(?:\s+(?:option|choice|answer))?|reward if)"


async def look(env: Any, ground: Ground, known: Sequence[Known]) -> AsyncIterator[Finding]:
    first: list[Played] = []
    for one in known:
        first.append(await ground.play("a look", one.task, say("")))
    for finding in _prompts(known, first):
        yield finding
    async for finding in _tools(ground, known, first):
        yield finding
    async for finding in _files(ground, known):
        yield finding


def _prompts(known: Sequence[Known], played: Sequence[Played]) -> Iterator[Finding]:
    """Labelled as the answer in half of the tasks: a leak. There without a label: perhaps meant to be found."""
    told, there = [], []
    asks = [(one, seen, _asked(one, seen)) for one, seen in zip(known, played, strict=True) if answers(one)]
    for one, seen, asked in asks:
        others = [(other, prompt) for other, _, prompt in asks if other is not one]
        if _given_away(one, asked, others) or _in_metadata(one):
            told.append((one, seen))
        elif any(_distinctive(text) and _stands(asked, text) for text in answers(one)):
            there.append((one, seen, asked))
    if told and 2 * len(told) >= len(asks):
        says = f"the prompt gives the answer away, labelled as such, in {len(told)} of {len(asks)} tasks"
        yield found("leak-prompt", "error", says, [shown(told[0][1], told[0][0].core)])
    elif len(asks) > 1 and len(there) == len(asks) and not _are_choices(there):
        short = sum(len(asked) for *_, asked in there) / len(there) < MATERIAL
        says = f"the answer stands in the prompt of all {len(asks)} tasks; fine only if it is to be found there"
        yield found("leak-prompt", "warning" if short else "note", says, [shown(there[0][1], there[0][0].core)])


def _given_away(known: Known, asked: str, others: Sequence[tuple[Known, str]]) -> bool:
    """Labelled as the answer more often than the same text is in the prompts of tasks that have another answer: a prompt
    that names the choices (`Answer: yes` or `Answer: no`) names them in all. Of one task alone: with no choice beside it."""
    own = answers(known)
    apart = [prompt for other, prompt in others if not {*map(str.casefold, own)} & {*map(str.casefold, answers(other))}]
    if apart:
        return any(all(_labels(asked, text) > _labels(prompt, text) for prompt in apart) for text in own)
    choices = "ABCDE" if len(known.core) == 1 and known.core.isalpha() else [perturbed(known.core)]
    named = any(
        _labels(asked, text) or re.search(rf"\bor\W{{1,4}}{_alone(text)}", asked) for text in choices if text not in own
    )
    return not others and not named and any(_labels(asked, text) for text in own)


def _are_choices(there: Sequence[tuple[Known, Played, str]]) -> bool:
    """Whether the tasks have a few answers between them, all of which stand in every prompt."""
    texts = {tuple(answers(one)) for one, *_ in there}
    return 1 < len(texts) < len(there) and all(
        any(_stands(asked, one) for one in each) for *_, asked in there for each in texts
    )


def answers(known: Known) -> list[str]:
    """The answer as text, in the forms in which it may leak."""
    values = [
        str(value) for value in known.gold.values() if isinstance(value, (str, int, float)) and not isinstance(value, bool)
    ]
    texts = [*values, known.core] if known.closed else values
    return [text for text in dict.fromkeys(texts) if text.strip() and len(text) <= 2000]


def _asked(known: Known, played: Played) -> str:
    """Everything the policy is told."""
    params: Mapping[str, Any] = known.task.params
    texts = [text_of(item.get("content")) for item in input_items(params)]
    texts += [str(params.get("instructions") or ""), played.observation or ""]
    texts += [f"{tool.name} {tool.description} {tool.parameters}" for tool in played.tools]
    texts += [str(tool) for tool in params.get("tools") or []]
    return "\n".join(texts)


def _in_metadata(known: Known) -> bool:
    rest = {key: value for key, value in known.task.params.items() if key not in ("input", "instructions", "tools")}
    return any(_field(str(rest), name, value) for name, value in known.gold.items())


def _labels(asked: str, text: str) -> int:
    """How many times it is labelled as the answer."""
    escaped = re.escape(text.strip())
    label = rf"\b{_LABEL}s?\b(?:\W{{0,4}}(?:is|are))?\W{{0,6}}{escaped}(?!\w)"
    aside = rf"<!--[^>]{{0,80}}{escaped}|[\[(]\s*(?:[\w .]{{0,20}}[:=]\s*)?{escaped}\s*[\])]|(?:#|=>)\s*{escaped}\s*$"
    count = len(re.findall(label, asked, re.IGNORECASE))
    return count + (len(re.findall(aside, asked, re.IGNORECASE | re.MULTILINE)) if len(text.strip()) > 2 else 0)


def _distinctive(text: str) -> bool:
    return len(text.strip()) >= 4


def _stands(asked: str, text: str) -> bool:
    return bool(re.search(_alone(text), asked, re.IGNORECASE))


def _alone(text: str) -> str:
    return rf"(?<!\w){re.escape(text.strip())}(?!\w)"


def _field(text: str, name: str, value: Any) -> bool:
    """The row's field with its value, as a dump of the row shows it."""
    return bool(re.search(rf"\b{re.escape(name)}\b\W{{1,4}}{re.escape(str(value))}(?!\w)", text))


Call = tuple[str, Mapping[str, Any]]


@dataclass(slots=True)
class _Calls:
    """One attempt with calls that make no sense."""

    known: Known
    calls: list[Call]
    played: Played
    touched: bool
    """Whether they wrote to a file of the host, or took it away."""


async def _tools(ground: Ground, known: Sequence[Known], first: Sequence[Played]) -> AsyncIterator[Finding]:
    if not any(played.tools for played in first):
        return
    secret = f"secret-{token_hex(8)}"
    os.environ[SECRET] = secret + _VARIABLE
    tried: list[_Calls] = []
    try:
        with _file(secret) as file:
            for one, seen in zip(known, first, strict=True):
                for tool in seen.tools:
                    for calls in _nonsense(tool, Random(one.task.id), file):
                        played = await ground.play("nonsense calls", one.task, say("harbour copper maybe lantern", calls))
                        tried.append(_Calls(one, calls, played, _touched(file, secret)))
    finally:
        del os.environ[SECRET]
    for finding in (_ended(tried), _given(tried, first), _reached(tried, secret), _changed(tried), _paid(tried)):
        if finding is not None:
            yield finding


@contextmanager
def _file(secret: str) -> Iterator[Path]:
    """A file of the host that is no environment's, to be asked for. What would be missed is never named to a tool: what
    reads a path may as well write to it, or take it away."""
    with tempfile.TemporaryDirectory(prefix="rollforge-host-", ignore_cleanup_errors=True) as folder:
        file = Path(folder, "accounts")
        file.write_text(secret)
        yield file


def _touched(file: Path, secret: str) -> bool:
    with suppress(OSError, UnicodeDecodeError):
        if file.read_text() == secret:
            return False
    with suppress(OSError):
        file.write_text(secret)
    return True


def _nonsense(tool: Tool, rng: Random, file: Path) -> Iterator[list[Call]]:
    """Each list is one session's. `file`: one of the host."""
    properties: Mapping[str, Any] = tool.parameters.get("properties") or {}
    plain = mapping(random_value(tool.parameters, rng))
    texts = [name for name, part in properties.items() if isinstance(part, dict) and part.get("type", "string") == "string"]
    yield [(tool.name, {}), (tool.name, plain), (tool.name, {**plain, "no_such_argument": 1})]
    odd: tuple[Any, ...] = (None, True, [], {}, -1, 0, 10**30, 1e308, "", "\x00", "x" * 200_000, [[[[]]]], {"a": {"b": []}})
    yield [(tool.name, dict.fromkeys(properties, one)) for one in odd]
    if not texts:
        return
    hostile = (
        f"{'../' * 20}{str(file).removeprefix('/')}",
        str(file),
        f"; cat {file}",
        "' OR '1'='1",
        "$(id)",
        "/proc/self/environ",
        "/proc/version",
    )
    yield [(tool.name, {**plain, **dict.fromkeys(texts, one)}) for one in hostile]
    code = (
        f"import os; print(dict(os.environ)); print(open('{file}').read())",
        f"env; cat {file}",
        f"__import__('os').popen('env; cat {file}').read()",
        "SELECT name FROM sqlite_master",
    )
    yield [(tool.name, {**plain, **dict.fromkeys(texts, one)}) for one in code]
    files = [name for name in texts if re.search(r"path|file|name", name, re.IGNORECASE)]
    if files and len(texts) > 1:
        others = [name for name in texts if name not in files]
        yield [
            (tool.name, {**plain, **dict.fromkeys(files, name), **dict.fromkeys(others, '{"reward": 1.0, "passed": true}')})
            for name in ("result.json", "results.json", "reward.json", "reward.txt", "score.txt", "answer.txt")
            if not Path(name).exists()  # here it may be the user's
        ]


def _ended(tried: Sequence[_Calls]) -> Finding | None:
    bad = [one for one in tried if one.played.problem]
    if not bad:
        return None
    one = bad[0]
    rule = "endless" if one.played.outcome is Outcome.TIMEOUT else "tools"
    name = one.calls[0][0]
    why = brief(one.played.problem, 200)
    says = f"nonsense arguments of {name} end the session: {why} ({len(bad)} of {len(tried)} attempts)"
    return found(rule, "error", says, [shown(one.played, "", one.calls)])


def _given(tried: Sequence[_Calls], first: Sequence[Played]) -> Finding | None:
    """By a tool that the reference does not need: its output is the answer, or names the row's field with its value."""
    grave: dict[tuple[str, str], _Calls] = {}
    light: dict[tuple[str, str], _Calls] = {}
    for one in tried:
        known, texts = one.known, answers(one.known)
        needed = {call[0] for call in known.calls if not isinstance(call, str)}
        for (name, arguments), output in zip(one.calls, one.played.outputs, strict=False):
            named = any(_field(output, field, value) for field, value in known.gold.items())
            plain = any(_is(output, text) for text in texts)
            labelled = any(_distinctive(text) and _labels(output, text) for text in texts)
            if any(text in str(arguments) for text in texts):
                continue  # it says back what it was told
            if (named or plain or labelled) and name not in needed:
                grave.setdefault((name, known.task.id), one)
            elif named and name in needed and any(_distinctive(text) for text in texts):
                light.setdefault((name, known.task.id), one)
    for leaks, severity in ((grave, "error"), (light, "warning")):
        for tool in dict.fromkeys(name for name, _ in leaks):
            tasks = [one for (name, _), one in leaks.items() if name == tool]
            if 2 * len(tasks) >= len(first):
                says = f"the tool {tool} tells the row's answer to whoever calls it, in {len(tasks)} of {len(first)} tasks"
                weight: Severity = "error" if severity == "error" else "warning"
                return found("leak-tool", weight, says, [shown(tasks[0].played, "", tasks[0].calls)])
    return None


def _is(output: str, text: str) -> bool:
    plain = output.strip().strip('"').strip()
    if plain == text.strip():
        return True
    one, other = as_number(plain), as_number(text)
    return one is not None and one == other


def _reached(tried: Sequence[_Calls], secret: str) -> Finding | None:
    marks = {
        secret + _VARIABLE: "the environment variables of the host",
        secret: "files of the host",
        "Linux version ": "/proc/version of the host",
    }
    for one in tried:
        for (name, arguments), output in zip(one.calls, one.played.outputs, strict=False):
            what = next((what for mark, what in marks.items() if mark in output), "")
            if what:
                says = f"the tool {name} shows {what}"
                return found("leak-host", "error", says, [shown(one.played, "", [(name, arguments)])])
    return None


def _changed(tried: Sequence[_Calls]) -> Finding | None:
    one = next((one for one in tried if one.touched), None)
    if one is None:
        return None
    says = f"the tool {one.calls[0][0]} writes to files of the host, or takes them away"
    return found("leak-host", "error", says, [shown(one.played, "", one.calls)])


def _paid(tried: Sequence[_Calls]) -> Finding | None:
    """Nonsense calls and a nonsense reply that get full marks, on more than half of the tasks that were tried with them."""
    paid: dict[str, _Calls] = {}
    for one in tried:
        reward = one.played.reward
        if reward is not None and one.known.full > one.known.low and one.known.share(reward) >= 0.99:
            paid.setdefault(one.known.task.id, one)
    tasks = {one.known.task.id for one in tried}
    if 2 * len(paid) <= len(tasks):
        return None
    one = next(iter(paid.values()))
    on = f"{one.played.reward:g} on {len(paid)} of {len(tasks)} tasks"
    says = f"nonsense calls of {one.calls[0][0]} and a nonsense reply get {on}"
    return found("calls", "error", says, [shown(one.played, "harbour copper maybe lantern", one.calls)])


async def _files(ground: Ground, known: Sequence[Known]) -> AsyncIterator[Finding]:
    """What a session writes where a tool or a program may read it."""
    for one in known[:3]:
        texts = answers(one)
        if not texts:
            continue
        hits: list[tuple[str, str]] = []
        with own_temporary():
            before = _listed()

            async def peek(before: dict[Path, float] = before, hits: list[tuple[str, str]] = hits, one: Known = one) -> None:
                hits += _holding(one, {path for path, at in _listed().items() if before.get(path) != at})

            played = await ground.meet("a look at files", one.task, Player(replay(one.reply, one.calls), peek))
        if hits:
            path, text = hits[0]
            says = f"while a session of {where(one.task)} is open, the file {path} holds the answer: {brief(text, 60)}"
            readers = any(re.search(r"read|open|cat|exec|run|python|shell|bash|file", tool.name) for tool in played.tools)
            yield found("leak-file", "error" if readers else "warning", says, [shown(played, one.reply, one.calls)])
            return


def _listed() -> dict[Path, float]:
    """Files of the working and the temporary folder, two floors deep."""
    listed: dict[Path, float] = {}
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        first = _entries(folder)
        for path in [*first, *(path for one in first for path in _entries(one))][:5000]:
            try:
                if path.is_file():
                    listed[path] = path.stat().st_mtime
            except OSError:  # it went away
                continue
    return listed


def _entries(folder: Path) -> list[Path]:
    """Not by glob, which raises where a folder goes away meanwhile."""
    try:
        return [*folder.iterdir()]
    except OSError:
        return []


def _holding(known: Known, paths: set[Path]) -> Iterator[tuple[str, str]]:
    for path in sorted(paths):
        try:
            content = path.read_bytes()[:FILE_BYTES].decode(errors="replace")
        except OSError:  # it went away
            continue
        named = any(_field(content, name, value) for name, value in known.gold.items())
        texts = answers(known)
        if named or any(
            content.strip() == text.strip() or (_distinctive(text) and _stands(content, text)) for text in texts
        ):
            yield str(path), content
