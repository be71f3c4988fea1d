"""Two data sets compared by content: which rows and prompts only one of them has, and how the rest differs.

    files of A and B ─► entries of a block (digests, reward, length), in workers ─► sorted by content: rows in one, in both
                                                                                 └► sorted by prompt: what differs per prompt

Rows are the same if they say the same: the order of keys and spaces does not count, nor, in rollouts, what a run adds to its
rows (times, ids), nor whether a prompt is written as a text or as messages, tools as JSON text or as objects. Two data sets
are the same if they have the same rows in the same splits. Memory holds counts; digests are sorted on disk.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from rollforge.bulk.alien import refuse_alien
from rollforge.bulk.asked import up_to_user
from rollforge.bulk.blocks import Block, blocks, line_at, line_number, lines
from rollforge.bulk.parquet import arrow, parquet_rows
from rollforge.bulk.record import digest
from rollforge.bulk.spill import Kept, sort
from rollforge.bulk.workers import spread
from rollforge.errors import UserError, reported
from rollforge.export.check_rows import answer_of, canonical, common, decoded, prompt_of
from rollforge.records.items import Json, mapping
from rollforge.records.lossless import loads
from rollforge.stats.source import split_of_file
from rollforge.stats.visible import capped

SHOWN = 5
"""So many examples of each difference are given."""
LOOKED = 1000
"""In so many pairs of rows of one prompt is looked for the fields in which they differ."""
_MOST = 1000
"""Different answers, responses, rewards or rows of one prompt that are told apart; fields that are."""
_FIELDS = 100_000
"""Fields of a side that are counted."""
_BESIDE = ("lineage", "dropped", "failures", "overflow")
"""JSONL files that stand beside the data."""


class Entry(NamedTuple):
    """A row, as far as it is compared."""

    content: bytes
    prompt: bytes
    """b"" for a row without one."""
    side: int
    """0 is A, 1 is B."""
    file: int
    at: int
    """Where its line starts; in Parquet the number of the row."""
    answer: bytes
    response: bytes
    reward: float | None


@dataclass(slots=True)
class Shape:
    """How one side's rows are distributed, as a whole or for one environment."""

    rows: int = 0
    rewards: Counter[float] = field(default_factory=Counter)
    """By reward, to two places."""
    lengths: Counter[int] = field(default_factory=Counter)
    """By length: two steps to each doubling."""
    reward_sum: float = 0.0
    bytes: int = 0

    def add(self, other: Shape) -> None:
        self.rows += other.rows
        self.reward_sum += other.reward_sum
        self.bytes += other.bytes
        self.rewards.update(other.rewards)
        self.lengths.update(other.lengths)

    def row(self) -> Json:
        judged = sum(self.rewards.values())
        return {
            "rows": self.rows,
            "mean_reward": round(self.reward_sum / judged, 4) if judged else None,
            "mean_bytes": round(self.bytes / self.rows, 1) if self.rows else None,
        }


@dataclass(slots=True)
class Side:
    name: str
    files: list[Path]
    rows: int = 0
    unusable: int = 0
    """Lines that are no JSON objects."""
    broken: int = 0
    """The sum of their digests: whether the two sides have the same ones."""
    fields: Counter[str] = field(default_factory=Counter)
    """Top-level field -> rows that have it."""
    all: Shape = field(default_factory=Shape)
    envs: dict[str, Shape] = field(default_factory=dict)
    manifest: Json = field(default_factory=dict)

    def split(self, file: int) -> str:
        """The split that a file is, by its name; "" if it is none."""
        return split_of_file(self.files[file])

    def row(self) -> Json:
        return {"name": self.name, "files": [str(one) for one in self.files], "unusable": self.unusable, **self.all.row()}


@dataclass(slots=True)
class Difference:
    """What `diff` found. Counts of rows count copies."""

    a: Side
    b: Side
    only_a: int = 0
    only_b: int = 0
    both: int = 0
    other_split: int = 0
    """Rows in both that are train on one side and validation on the other, say; where both sides are split."""
    prompts_only_a: int = 0
    prompts_only_b: int = 0
    prompts_both: int = 0
    other_answer: int = 0
    """Prompts in both whose answers are not the same."""
    other_response: int = 0
    other_reward: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Kind of difference -> `file:line`, or `file:line | file:line`."""
    looked: int = 0
    """Pairs of rows of one prompt that are not the same, compared field by field; at most `LOOKED`."""
    differing: Counter[str] = field(default_factory=Counter)
    """Field (`metrics.accuracy`) -> these pairs that differ in it."""

    @property
    def same(self) -> bool:
        return not (self.only_a or self.only_b or self.other_split or self.a.broken != self.b.broken)

    def fields(self) -> dict[str, tuple[int, int]]:
        """Fields that are not in all rows of both sides, or of neither: rows of A and of B that have them."""
        a, b = self.a, self.b
        return {
            name: (a.fields[name], b.fields[name])
            for name in sorted(a.fields.keys() | b.fields.keys())
            if a.fields[name] * max(b.rows, 1) != b.fields[name] * max(a.rows, 1)
        }

    def parameters(self) -> dict[str, tuple[Any, Any]]:
        """What the manifests say that the two were made with, where it differs; of a run and an export, say, only what both
        have."""
        a, b = (dict(_flat(side.manifest, "")) if side.manifest else {} for side in (self.a, self.b))
        names = a.keys() | b.keys() if _maker(self.a.manifest) == _maker(self.b.manifest) else a.keys() & b.keys()
        found = {name: (a.get(name), b.get(name)) for name in sorted(names) if a.get(name) != b.get(name)}
        # A run's identity repeats its configuration.
        return {
            name: two for name, two in found.items() if name.replace("identity.", "config.", 1) not in found.keys() - {name}
        }

    def envs(self) -> Iterator[tuple[str, Shape, Shape]]:
        """Environments, largest first."""
        names = Counter({name: shape.rows for name, shape in self.a.envs.items()})
        names.update({name: shape.rows for name, shape in self.b.envs.items()})
        for name, _ in names.most_common():
            yield name, self.a.envs.get(name, Shape()), self.b.envs.get(name, Shape())

    def row(self) -> Json:
        """As JSON."""
        return {
            "same": self.same,
            "a": self.a.row(),
            "b": self.b.row(),
            "rows": {"only_a": self.only_a, "only_b": self.only_b, "both": self.both, "other_split": self.other_split},
            "prompts": {
                "only_a": self.prompts_only_a,
                "only_b": self.prompts_only_b,
                "both": self.prompts_both,
                "other_answer": self.other_answer,
                "other_response": self.other_response,
                "other_reward": self.other_reward,
            },
            "pairs": {"looked": self.looked, "differing": dict(self.differing.most_common())},
            "fields": {name: list(counts) for name, counts in self.fields().items()},
            "shift": {
                "reward": shift(self.a.all.rewards, self.b.all.rewards),
                "length": shift(self.a.all.lengths, self.b.all.lengths),
            },
            "environments": {name: {"a": a.row(), "b": b.row()} for name, a, b in self.envs()},
            "parameters": {name: list(values) for name, values in self.parameters().items()},
            "examples": self.examples,
        }


def diff(a: str | Path, b: str | Path, *, workers: int = 1, folder: str | Path | None = None) -> Difference:
    """Compare two data sets: files (JSON Lines, Parquet), runs, curated directories, exports. `folder` is for temporary
    files. Raises `UserError` if there is no data, if it is neither JSON Lines nor Parquet, or if it cannot be read."""
    sides = [Side(str(name), find_data(name)) for name in (a, b)]
    for file in (file for side in sides for file in side.files):
        _refuse(file)
    found = Difference(sides[0], sides[1])
    for side in sides:
        side.manifest = _manifest(Path(side.name))
    # No directory of its own: after a kill an empty one would stay, while the files in it have no names.
    spill = str(folder or tempfile.gettempdir())
    try:
        tempfile.TemporaryFile(dir=spill, prefix="rollforge-").close()
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"temporary files cannot be kept in {spill}: {why}; name another directory") from error
    kept = Kept(spill, _entries(sides, workers))
    try:
        for side in sides:
            if side.unusable and not side.rows:
                raise UserError(f"{side.name}: none of its {side.unusable:,} lines is a JSON object: is this JSON Lines?")
        _by_content(found, kept, spill)
        _look(found, _by_prompt(found, kept, spill))
    finally:
        kept.close()
    return found


def _refuse(file: Path) -> None:
    if file.suffix != ".parquet":
        refuse_alien(file)
        return
    with reported(f"cannot read {file}"), open(file, "rb") as handle:
        parquet = handle.read(4) == b"PAR1"
    if not parquet:
        raise UserError(f"{file}: this is no Parquet file (it does not begin with PAR1)")
    arrow()


def find_data(name: str | Path) -> list[Path]:
    """The data files of a data set. Raises `UserError` naming what is near."""
    path = Path(name)
    if path.is_file():
        return [path]
    if not path.is_dir():
        from rollforge.stats.source import find_run

        return list(find_run(name).files)  # says what is near
    if (path / "rollouts.jsonl").is_file():
        return [path / "rollouts.jsonl"]
    for pattern in ("*", "*/*"):
        files = sorted(
            file
            for file in path.glob(pattern)
            if file.suffix in (".jsonl", ".parquet") and not file.name.startswith((".", *_BESIDE))
        )
        if files:
            return files
    raise UserError(f"{path} holds no data: no .jsonl or .parquet files, in it or one level down")


def shift(a: Counter[Any], b: Counter[Any]) -> float | None:
    """Total variation distance of two distributions: 0 the same, 1 nothing in common; None where one is empty."""
    total_a, total_b = sum(a.values()), sum(b.values())
    if not total_a or not total_b:
        return None
    return round(sum(abs(a[key] / total_a - b[key] / total_b) for key in a.keys() | b.keys()) / 2, 4)


# Rows


@dataclass(slots=True)
class _Part:
    entries: list[Entry] = field(default_factory=list)
    unusable: int = 0
    broken: int = 0
    fields: Counter[str] = field(default_factory=Counter)
    envs: dict[str, Shape] = field(default_factory=dict)

    def look(self, row: Json, side: int, file: int, at: int, size: int) -> None:
        row = _normal(row)
        content = _content(row)
        reward = _reward(row)
        answer, response, prompt = answer_of(row), _response(content), _prompt(row)
        self.entries.append(
            Entry(
                digest(canonical(content)),
                digest(prompt) if prompt else b"",
                side,
                file,
                at,
                b"" if answer is None else digest(canonical(_number(answer))),
                b"" if response is None else digest(canonical(response)),
                reward,
            )
        )
        self.fields.update(row.keys())
        shape = self.envs.setdefault(_env(row), Shape())
        shape.rows += 1
        shape.bytes += size
        shape.lengths[int(2 * math.log2(max(size, 1)))] += 1
        if reward is not None:
            shape.rewards[round(reward, 2)] += 1
            shape.reward_sum += reward


def _entries(sides: Sequence[Side], workers: int) -> Iterator[Entry]:
    for number, side in enumerate(sides):
        plain = [(place, file) for place, file in enumerate(side.files) if file.suffix != ".parquet"]
        work = partial(_block, number, tuple(place for place, _ in plain))
        for part in spread(work, blocks([file for _, file in plain]), workers):
            yield from _take(side, part)
        for place, file in enumerate(side.files):
            if file.suffix == ".parquet":
                for part in _parquet(number, place, file):
                    yield from _take(side, part)


def _take(side: Side, part: _Part) -> list[Entry]:
    side.rows += len(part.entries)
    side.unusable += part.unusable
    side.broken += part.broken
    for name, rows in part.fields.items():
        side.fields[capped(name, side.fields, _FIELDS)] += rows
    for env, shape in part.envs.items():
        side.all.add(shape)
        if env in side.envs or len(side.envs) < _MOST:
            side.envs.setdefault(env, Shape()).add(shape)
    return part.entries


def _block(side: int, places: tuple[int, ...], block: Block) -> _Part:
    part = _Part()
    for at, line in lines(block):
        try:
            row = loads(line) if line else None
        except ValueError:
            row = None
        if isinstance(row, dict):
            part.look(row, side, places[block.source], at, len(line))
        elif line:
            part.unusable += 1
            part.broken += int.from_bytes(digest(line))
    return part


def _parquet(side: int, place: int, file: Path) -> Iterator[_Part]:
    part = _Part()
    for number, row in enumerate(parquet_rows(file), 1):
        part.look(row, side, place, number, len(canonical(row)))
        if number % 1000 == 0:
            yield part
            part = _Part()
    yield part


def _asked(value: Any, role: str) -> list[Any]:
    """A text, or messages, as messages; what is optional in them left out."""
    if isinstance(value, str):
        return [{"role": role, "content": value}] if value or role == "user" else []
    return list(map(_message, value)) if isinstance(value, list) else [] if value is None else [value]


def _message(value: Any) -> Any:
    if not isinstance(value, dict) or "role" not in value:
        return value
    content = value.get("content")
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        part = content[0]
        if part.keys() == {"type", "text"} and part["type"] in ("text", "input_text"):
            content = part["text"]
    return {
        **{name: inner for name, inner in value.items() if inner is not None and (name, inner) != ("type", "message")},
        "content": content,
    }


def _normal(row: Json) -> Json:
    """With its prompt as messages; of an exported row, JSON text as what it says."""
    params = row.get("responses_create_params")
    if not isinstance(params, dict):
        return {name: _opened(name, value) for name, value in row.items()}
    asked = [*_asked(params.get("instructions"), "system"), *_asked(params.get("input"), "user")]
    others = {name: value for name, value in params.items() if name != "instructions" and value is not None}
    return {**row, "responses_create_params": {**others, "input": asked}}


def _opened(name: str, value: Any) -> Any:
    """The places where exports write JSON text are opened; a text elsewhere is as somebody said it."""
    if name in ("messages", "prompt"):
        value = decoded(value) if isinstance(value, str) and value.startswith("[{") else value
    elif name in _TEXTS:
        value = decoded(value)
    return {inner: _opened(inner, one) for inner, one in value.items()} if isinstance(value, dict) else value


_TEXTS = ("extra_info", "fields", "label", "reward_model", "row", "tools")


def _prompt(row: Json) -> bytes:
    found = prompt_of(row)
    # A text is the user's message: datasets write one and the same prompt in either way.
    return found if found[:1] != b'"' else prompt_of({"prompt": _asked(orjson.loads(found), "user")})


def _content(row: Json) -> Json:
    """Without what a run adds: the same rollout may stand in two files. verl's `extra_info` names the place of one."""
    if "responses_create_params" not in row:
        content = {name: _number(value) for name, value in row.items()}
        if isinstance(extra := content.get("extra_info"), dict):
            content["extra_info"] = {name: value for name, value in extra.items() if name not in ("id", "index")}
        return content
    content = {name: _number(value) for name, value in row.items() if name != "rollforge"}
    response = row.get("response")
    if isinstance(response, dict):
        content["response"] = {name: value for name, value in response.items() if name not in ("id", "created_at")}
    for holder in (content, content.get("response")):
        if isinstance(holder, dict) and isinstance(holder.get("output"), list):
            holder["output"] = _said(holder["output"])
    return content


def _said(output: list[Any]) -> list[Any]:
    """The items without the ids that they were given; calls are numbered."""
    calls: dict[str, int] = {}
    found = []
    for item in output:
        if isinstance(item, dict):
            item = {name: value for name, value in item.items() if name != "id"}
            if isinstance(item.get("call_id"), str):
                item["call_id"] = calls.setdefault(item["call_id"], len(calls))
        found.append(item)
    return found


def _number(value: Any) -> Any:
    """0.0 is 0, in the row's fields and in the objects among them; lists (of token ids) are as written."""
    if type(value) is float and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return {name: _number(inner) for name, inner in value.items()} if isinstance(value, dict) else value


def _response(row: Json) -> Any:
    if "chosen" in row:
        sides = [row["chosen"], row.get("rejected")]
        given = [] if row.get("prompt") else up_to_user(common(*sides))
        return [side[len(given) :] if isinstance(side, list) else side for side in sides]
    for name in ("completion", "output", "completions"):
        if name in row:
            return row[name]
    response = row.get("response")
    if response is not None:
        return response.get("output") if isinstance(response, dict) else response
    messages = row.get("messages") or row.get("conversations")
    return messages[len(up_to_user(messages)) :] if isinstance(messages, list) else messages


def _reward(row: Json) -> float | None:
    for name in ("reward", "score", "chosen_reward"):
        value = row.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    return None


def _env(row: Json) -> str:
    block, agent, extra = (mapping(row.get(name)) for name in ("rollforge", "agent_ref", "extra_info"))
    named = [row.get(name) for name in ("env", "task_name", "data_source", "datasource")]
    found = (*named, block.get("env"), agent.get("name"), extra.get("env"))
    return next((name for name in found if isinstance(name, str)), "")


# Comparing


def _by_content(found: Difference, entries: Kept[Entry], spill: str) -> None:
    splits = [[side.split(file) for file in range(len(side.files))] for side in (found.a, found.b)]
    split = all(map(any, splits))
    for _, group in groupby(sort(entries, attrgetter("content", "side", "file", "at"), spill), attrgetter("content")):
        counts = [0, 0]
        first: list[Entry | None] = [None, None]
        on: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        for entry in group:
            counts[entry.side] += 1
            first[entry.side] = first[entry.side] or entry
            on[entry.side][splits[entry.side][entry.file]] += 1
        both = min(counts)
        found.both += both
        moved = both - (on[0] & on[1]).total() if split else 0
        if moved:
            found.other_split += moved
            _example(found, "another split", *first)
        found.only_a += counts[0] - both
        found.only_b += counts[1] - both
        for side, kind in enumerate(("rows only in A", "rows only in B")):
            if counts[side] > both:
                _example(found, kind, first[side])


def _by_prompt(found: Difference, entries: Kept[Entry], spill: str) -> list[tuple[Entry, Entry]]:
    """Counts prompts; returns pairs of rows of one prompt that differ."""
    pairs: list[tuple[Entry, Entry]] = []
    for prompt, group in groupby(sort(entries, attrgetter("prompt", "side", "file", "at"), spill), attrgetter("prompt")):
        if not prompt:
            continue
        first: list[Entry | None] = [None, None]
        answers: tuple[set[bytes], set[bytes]] = (set(), set())
        responses: tuple[set[bytes], set[bytes]] = (set(), set())
        rewards: tuple[set[float | None], set[float | None]] = (set(), set())
        rows: tuple[dict[bytes, Entry], dict[bytes, Entry]] = ({}, {})
        for entry in group:
            side = entry.side
            first[side] = first[side] or entry
            if len(pairs) < LOOKED and len(rows[side]) < _MOST:
                rows[side].setdefault(entry.content, entry)
            if len(responses[side]) < _MOST:
                answers[side].add(entry.answer)
                responses[side].add(entry.response)
                rewards[side].add(entry.reward)
        if first[0] is None or first[1] is None:
            only_a = first[1] is None
            found.prompts_only_a += only_a
            found.prompts_only_b += not only_a
            _example(found, f"prompts only in {'A' if only_a else 'B'}", first[0] or first[1])
            continue
        found.prompts_both += 1
        found.other_answer += answers[0] != answers[1]
        found.other_response += responses[0] != responses[1]
        found.other_reward += rewards[0] != rewards[1]
        for kind, differs in (
            ("another answer", answers[0] != answers[1]),
            ("another response", responses[0] != responses[1]),
            ("another reward", rewards[0] != rewards[1]),
        ):
            if differs:
                _example(found, kind, *first)
        pairs += islice(_pairs(*rows), LOOKED - len(pairs))
    return pairs


def _pairs(a: dict[bytes, Entry], b: dict[bytes, Entry]) -> Iterator[tuple[Entry, Entry]]:
    """The rows of a prompt that only A has, each with one that only B has: of the same response if there is one."""
    only_a, only_b = ([one[key] for key in one if key not in other] for one, other in ((a, b), (b, a)))
    left = {(entry.file, entry.at): entry for entry in only_b}
    by_response = {entry.response: entry for entry in reversed(only_b)}
    unlike = []
    for entry in only_a:
        other = by_response.pop(entry.response, None)
        if other is None:
            unlike.append(entry)
        else:
            del left[other.file, other.at]
            yield entry, other
    yield from zip(unlike, left.values(), strict=False)


def _look(found: Difference, pairs: list[tuple[Entry, Entry]]) -> None:
    """Count the fields in which the rows of a pair differ."""
    a, b = (_leaves_of(side, [pair[number] for pair in pairs]) for number, side in enumerate((found.a, found.b)))
    found.looked = len(pairs)
    for one, other in zip(a, b, strict=True):
        for name in one.keys() | other.keys():
            if one.get(name) != other.get(name):
                found.differing[capped(name, found.differing, _MOST)] += 1


def _leaves_of(side: Side, entries: list[Entry]) -> list[dict[str, bytes]]:
    """Field -> digest of its value, of each entry's row."""
    found: dict[tuple[int, int], dict[str, bytes]] = {}
    for number in {entry.file for entry in entries}:
        file, wanted = side.files[number], {entry.at for entry in entries if entry.file == number}
        if file.suffix == ".parquet":
            rows = ((at, row) for at, row in enumerate(parquet_rows(file), 1) if at in wanted)
            found.update(((number, at), dict(_leaves(_content(_normal(row)), ""))) for at, row in rows)
            continue
        with open(file, "rb") as handle:
            for at in sorted(wanted):
                row = loads(line_at(handle, at))
                found[number, at] = dict(_leaves(_content(_normal(row)), ""))
    return [found[entry.file, entry.at] for entry in entries]


def _leaves(value: Any, where: str) -> Iterator[tuple[str, bytes]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{where}.{name}" if where else name)
    else:
        yield where, digest(canonical(value))


def _example(found: Difference, kind: str, *entries: Entry | None) -> None:
    places = found.examples.setdefault(kind, [])
    if len(places) < SHOWN:
        places.append(" | ".join(_place(found, entry) for entry in entries if entry is not None))


def _place(found: Difference, entry: Entry) -> str:
    file = (found.a, found.b)[entry.side].files[entry.file]
    return f"{file}:{entry.at if file.suffix == '.parquet' else line_number(file, entry.at)}"


# Manifests

_MANIFESTS = ("manifest.json", "report.json", "run.json")
_UNLIKE = frozenset(
    (
        *("sha256", "bytes", "rows", "counts", "files", "beside", "lineage", "out", "seconds"),
        *("started", "finished", "created", "made_at"),
    )
)
"""Not parameters: what came out, and when."""


def _manifest(path: Path) -> Json:
    folder = path if path.is_dir() else path.absolute().parent
    for name in _MANIFESTS:
        try:
            found = orjson.loads((folder / name).read_bytes())
        except (OSError, orjson.JSONDecodeError):
            continue
        if isinstance(found, dict):
            return found
    return {}


def _maker(manifest: Json) -> str | None:
    return next((name for name in ("target", "recipe", "config") if name in manifest), "" if manifest else None)


def _flat(value: Any, where: str) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, child in value.items():
            if key not in _UNLIKE:
                yield from _flat(child, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list) and any(isinstance(child, dict) for child in value):
        for number, child in enumerate(value):
            yield from _flat(child, f"{where}[{number}]")
    else:
        yield where, value
