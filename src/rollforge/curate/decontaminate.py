"""The decontaminate step: rows whose prompt (or response) shares word n-grams with a benchmark are dropped.

13-grams of words without punctuation, as in the GPT-3 paper (Brown et al. 2020, appendix C); so are n-grams that many items
share ignored: they are the benchmark's template. Items shorter than an n-gram count whole: all their words in order, with
the arithmetic signs; the shortest only as the whole prompt. A hash only finds: what is reported was compared as text.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from rollforge.bulk.parquet import parquet_rows
from rollforge.bulk.record import Record, digest
from rollforge.config import Section
from rollforge.curate.step import Drop, Fact, Sample, Step, Workspace
from rollforge.curate.words import Grams, asked, normal, said
from rollforge.errors import UserError
from rollforge.records.items import Json, text_of
from rollforge.records.lossless import loads
from rollforge.records.messages import TEMPLATE, messages
from rollforge.stats.visible import one_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Check = Literal["prompt", "response", "both"]

KEYS = ("question", "prompt", "problem", "input", "messages", "conversations", "instruction", "query", "text", "ctx")
"""Where a benchmark row's text is looked for, in this order, however capitalised; a rollout or task row has
`responses_create_params`."""


class DecontaminateArgs(Section):
    benchmarks: str | list[str] = Field(min_length=1)
    """Files of tasks, of rollouts, or of objects with one of the usual keys: .jsonl, .json (an array or columns, too), .csv,
    .tsv, .parquet; any other is JSON Lines if its first line is an object, else text, an item per line."""
    words: int = Field(13, ge=1, le=100)
    """The n of the n-grams."""
    min_words: int = Field(3, ge=1)
    """Items shorter than `words` count if all of their text is found; those of fewer than this many words only if they are
    the whole prompt."""
    overlap: float = Field(0.0, ge=0, le=1)
    """The share of an item's n-grams that a text must hold; 0: any one."""
    common: int = Field(10, ge=1)
    """N-grams in more items than this are the benchmark's template and ignored."""
    check: Check = "prompt"
    field: str | None = None
    """The key of a benchmark row's text, where it is not one of the usual; `question.stem` is a key within another."""

    @classmethod
    def short(cls, value: Any) -> DecontaminateArgs:
        if (isinstance(value, str) and value) or (
            isinstance(value, list) and value and all(isinstance(v, str) for v in value)
        ):
            return cls(benchmarks=value)
        raise UserError(f"decontaminate: {value!r} is no benchmark file, nor a list (write: decontaminate: benchmark.jsonl)")


def steps(args: DecontaminateArgs) -> list[Step]:
    """Reads the benchmarks. Raises `UserError` naming the file and line of what cannot be read."""
    return [Decontaminate(args)]


class Decontaminate:
    """Streams. Memory: the benchmarks, about 12 bytes per n-gram beside their text."""

    name: str
    facts: Mapping[str, Fact]

    def __init__(self, args: DecontaminateArgs) -> None:
        files = [args.benchmarks] if isinstance(args.benchmarks, str) else args.benchmarks
        fact = Overlap(tuple(files), args.words, args.min_words, args.overlap, args.common, args.check, args.field)
        _benchmarks.pop(fact, None)  # of an earlier curation of this process: the files may be others now
        _prompts.clear()
        self._benchmark = fact.benchmark()
        self._fact = f"overlap {digest(repr(fact).encode()).hex()[:8]}"
        self.facts = {self._fact: fact}
        self.name = f"decontaminate {args.check}s" if args.check != "both" else "decontaminate prompts and responses"
        self.name += f" against {', '.join(Path(file).name for file in files)}"

    def __call__(self, samples: Iterable[Sample], work: Workspace, /) -> Iterator[Sample | Drop]:
        shown: list[Json] = []
        seen: set[tuple[str, str, int]] = set()
        dropped: Counter[str] = Counter()
        partly: Counter[str] = Counter()
        """Rows by n-gram; and those that hold less than half of the item."""
        for sample in samples:
            found = sample.facts[self._fact]
            if found is None:
                yield sample
                continue
            which = (found["ngram"], found["benchmark"], found["line"])
            if len(shown) < _SHOWN and which not in seen:
                seen.add(which)
                shown.append({"row": work.line(sample.source, sample.at), **found})
            dropped[found["ngram"]] += 1
            partly[found["ngram"]] += found["overlap"] < 0.5
            yield Drop(sample, f"in benchmark {Path(found['benchmark']).name}", found)
        work.notes.update(self._benchmark.about)
        work.notes["found"] = shown
        ngram, rows = max(dropped.items(), key=lambda pair: pair[1], default=("", 0))
        if rows > dropped.total() / 4 and (rows >= _MANY or partly[ngram] >= _SEVERAL):
            work.warnings.append(
                f"{rows:,} of {dropped.total():,} rows are dropped for one n-gram, {one_line(ngram, 90)!r}: a "
                f"template that both use? overlap: 0.5 asks for half of a benchmark item"
            )
        work.warnings += self._benchmark.warnings


_SHOWN = 10
_MANY, _SEVERAL = 100, 10
"""So many rows are hardly one item of a benchmark; so few if they hold the smaller part of it."""


@dataclass(frozen=True)
class Overlap:
    """A fact: None, or what of a benchmark the row holds: {ngram, benchmark, line, overlap, in}."""

    files: tuple[str, ...]
    words: int
    min_words: int
    overlap: float
    common: int
    check: Check
    field: str | None

    def benchmark(self) -> Benchmark:
        # Read once per process; forked workers have what the parent read.
        if self not in _benchmarks:
            _benchmarks[self] = Benchmark(self)
        return _benchmarks[self]

    def __call__(self, record: Record) -> Json | None:
        found = None
        if self.check != "response":
            key = (self, record.prompt)
            if key not in _prompts:
                if len(_prompts) >= 2048:
                    _prompts.clear()
                prompt = record.prompt_messages()
                text = "\n".join(text_of(message.get("content")) for message in prompt)
                benchmark = self.benchmark()
                _prompts[key] = benchmark.equal(asked(prompt)[0]) or benchmark.look_up(text, "prompt")
            found = _prompts[key]
        if found is None and self.check != "prompt":
            found = self.benchmark().look_up(said(record.response_messages()), "response")
        return found


_benchmarks: dict[Overlap, Benchmark] = {}
_prompts: dict[tuple[Overlap, bytes], Json | None] = {}
# Repeats of a task share the prompt and stand near each other.


class Benchmark:
    """The n-grams of benchmark items, to be looked up."""

    about: Json
    """For the report."""
    warnings: list[str]

    def __init__(self, options: Overlap) -> None:
        import numpy as np

        self._least = options.overlap
        self._files = options.files
        self._items: list[tuple[bytes, int, int]] = []
        self._signed: dict[int, bytes] = {}
        """Of items shorter than an n-gram."""
        self._short: dict[bytes, tuple[int, int]] = {}
        """Items that only an equal prompt holds: where they are."""
        self.warnings = []
        hashes: dict[int, list[NDArray[np.uint64]]] = {}
        owners: dict[int, list[int]] = {}
        seen: set[bytes] = set()
        counts: dict[str, int] = {}
        blank = 0
        for number, file in enumerate(options.files):
            counts[file] = 0
            for line, text in texts(file, options.field):
                counts[file] += 1
                blank += not text.strip()
                words = normal(text, signs=False)
                length = words.count(b" ") + 1 if words else 0
                signed = compact(text) if length < max(options.words, options.min_words) else b""
                name = digest(words + b"\n" + signed)
                if name in seen:
                    continue
                seen.add(name)
                if length < options.min_words:
                    self._short.setdefault(signed, (number, line))
                    continue
                if signed:
                    self._signed[len(self._items)] = signed
                size = min(length, options.words)
                hashes.setdefault(size, []).append(np.unique(Grams(words).hashes(size)))
                owners.setdefault(size, []).append(len(self._items))
                self._items.append((words, number, line))
            if not counts[file]:
                raise UserError(f"{file} is empty: there is no benchmark item in it")
        self._short.pop(b"", None)
        if not (self._items or self._short):
            raise UserError(f"none of the {sum(counts.values()):,} benchmark items has a word: none could be found")
        ignored = self._index(hashes, owners, options.common)
        self.about = {
            "benchmarks": counts,
            "items": len(self._items),
            "equal_prompts_only": len(self._short),
            "only_common": int((self._sizes == 0).sum()),
            "common_ngrams_ignored": ignored,
        }
        if blank:
            self.warnings.append(f"{blank:,} of the {sum(counts.values()):,} benchmark rows have no text, and are left out")
        if self._short:
            self.warnings.append(
                f"{len(self._short):,} benchmark items have fewer than {options.min_words} words: only prompts equal "
                f"to one are found"
            )
        if self.about["only_common"]:
            self.warnings.append(
                f"{self.about['only_common']:,} benchmark items have no n-gram of their own (each is in more than "
                f"{options.common} items) and cannot be found; raise `common`"
            )

    def _index(self, hashes: dict[int, list[NDArray[np.uint64]]], owners: dict[int, list[int]], common: int) -> int:
        """Sort the n-grams of each length, with the items that have them; how many are left out, being in more than `common`
        items."""
        import numpy as np

        self._lengths: list[tuple[int, NDArray[np.uint64], NDArray[np.int32]]] = []
        self._sizes = np.zeros(len(self._items), np.int32)
        ignored = 0
        for size in sorted(hashes):
            flat = np.concatenate(hashes[size])
            items = np.repeat(np.array(owners[size], np.int32), [len(each) for each in hashes[size]])
            order = np.argsort(flat, kind="stable")
            flat, items = flat[order], items[order]
            _, places, times = np.unique(flat, return_inverse=True, return_counts=True)
            kept = times[places] <= common
            ignored += int((times > common).sum())
            self._lengths.append((size, flat[kept], items[kept]))
            self._sizes += np.bincount(items[kept], minlength=len(self._items)).astype(np.int32)
        return ignored

    def equal(self, question: str) -> Json | None:
        """The item of few words that a question is."""
        found = self._short.get(compact(question)) if self._short else None
        return None if found is None else self._evidence(normal(question, signs=False), *found, 1.0, "prompt")

    def _evidence(self, ngram: bytes, file: int, line: int, share: float, where: str) -> Json:
        found = {"ngram": ngram.decode(), "benchmark": self._files[file], "line": line}
        return {**found, "overlap": round(share, 4), "in": where}

    def look_up(self, text: str, where: str) -> Json | None:
        """What a text holds of the benchmark: the item with the largest share, if that is enough."""
        import numpy as np

        words = normal(text, signs=False)
        if not words:
            return None
        grams = Grams(words)
        hits: dict[int, dict[bytes, int]] = {}
        """By item, in the order of the text; where they stand in it, by words."""
        split: list[bytes] = []
        for size, hashes, items in self._lengths:
            if len(grams) < size or not len(hashes):
                continue
            wanted = grams.hashes(size)
            places = np.searchsorted(hashes, wanted)
            places[places == len(hashes)] = 0
            for at in np.flatnonzero(hashes[places] == wanted).tolist():
                split = split or words.split(b" ")
                ngram = b" ".join(split[at : at + size])
                place = int(places[at])
                while place < len(hashes) and hashes[place] == wanted[at]:
                    hits.setdefault(int(items[place]), {}).setdefault(ngram, at)
                    place += 1
        signed = compact(text) if any(item in self._signed for item in hits) else b""
        shares: list[tuple[float, int, bytes]] = []
        for item, found in hits.items():
            held = _held(self._items[item][0], found, split)
            if held and self._signed.get(item, b"") in signed:
                shares.append((len(held) / int(self._sizes[item]), -item, held[0]))
        share, item, first = max(shares, default=(0.0, 0, b""))
        if not shares or share < self._least:
            return None
        _, file, line = self._items[-item]
        return self._evidence(first, file, line, share, where)


def _held(item: bytes, found: Mapping[bytes, int], text: Sequence[bytes]) -> list[bytes]:
    """The n-grams that an item really has. What stands together in the text is looked for as a whole: an item may be a book,
    whose n-grams take longer to list than the row to read."""
    held: list[bytes] = []
    known: set[bytes] | None = None
    size = next(iter(found)).count(b" ") + 1
    whole = b" %b " % item
    for _, stretch in groupby(enumerate(found), lambda each: found[each[1]] - each[0]):
        ngrams = [ngram for _, ngram in stretch]
        start = found[ngrams[0]]
        if b" %b " % b" ".join(text[start : start + len(ngrams) - 1 + size]) in whole:
            held += ngrams
        else:
            known = _ngrams(item, size) if known is None else known
            held += [ngram for ngram in ngrams if ngram in known]
    return held


def _ngrams(words: bytes, size: int) -> set[bytes]:
    parts = words.split(b" ")
    return {b" ".join(parts[at : at + size]) for at in range(len(parts) - size + 1)}


def compact(text: str) -> bytes:
    """The words with their arithmetic signs, without spaces: 3 + 4 is 3+4, and not 3 - 4. Hyphens between letters, the mark
    of a list and the last = are no such signs."""
    return _HYPHEN.sub("", _AROUND.sub("", normal(text).decode()).replace(" ", "")).encode()


_AROUND = re.compile(r"^(?:[-=>]+ )+|[ =]+$")
_HYPHEN = re.compile(r"(?<=[^\W\d_])-(?=[^\W\d_])")


def texts(file: str, field: str | None = None) -> Iterator[tuple[int, str]]:
    """(line, from 1; text) of a benchmark's items. Raises `UserError` with file and line of what is none."""
    path = Path(file)
    kind = path.suffix.lower()
    if kind in _NOT_READ:
        raise UserError(f"{file}: benchmarks are .jsonl, .json, .csv, .tsv, .parquet or text; unpack or convert it first")
    if path.is_dir():
        raise UserError(f"{file} is a directory; benchmarks are files: name those in it")
    if not path.is_file():
        near = (
            get_close_matches(path.name, [other.name for other in path.parent.glob("*")], n=1)
            if path.parent.is_dir()
            else []
        )
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise UserError(f"there is no benchmark file {file}{hint}")
    try:
        rows = _TABLES[kind](path) if kind in _TABLES else _whole(path, field) if kind == ".json" else None
        if rows is not None:
            for number, row in rows:
                yield number, _text_of_row(row, f"{file}:{number}", field)
            return
        with open(path, "rb") as lines:
            number, objects = 0, True if kind in _JSON else None
            for number, line in enumerate(lines, 1):
                line = line.removeprefix(BOM_UTF8).strip() if number == 1 else line.strip()
                if line:
                    objects = _is_object(line) if objects is None else objects
                    yield number, _row_text(line, f"{file}:{number}", field) if objects else line.decode()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error
    except UnicodeDecodeError:
        place = "" if kind in _TABLES else f":{number}"
        raise UserError(f"{file}{place}: not UTF-8 text") from None


def _whole(path: Path, field: str | None) -> Iterator[tuple[int, Any]] | None:
    """The rows of a file that is one array, or one object: of columns, with a list of rows in it (`{"data": [...]}`), or one
    row; None of a file that is JSON Lines by another name."""
    content = path.read_bytes().removeprefix(BOM_UTF8).strip()
    try:
        rows = loads(content)
    except ValueError as error:
        if content[:1] != b"[":
            return None
        raise UserError(f"{path}: not JSON ({error})") from None
    if isinstance(rows, dict):
        rows = _of_object(rows, field, path)
    return enumerate(rows if isinstance(rows, list) else [rows], 1)


def _of_object(whole: Json, field: str | None, path: Path) -> list[Any]:
    there, value = _question(whole, field)
    lists = {name: rows for name, rows in whole.items() if isinstance(rows, list)}
    chat = isinstance(value, list) and any(isinstance(each, dict) for each in value)
    if there and not chat and len(lists) == len(whole) and len({*map(len, lists.values())}) == 1:
        return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    named = [name for name, rows in lists.items() if rows and isinstance(rows[0], dict)]
    if there or not named:
        return [whole]
    if len(named) > 1:
        raise UserError(f"{path}: {len(named)} lists of rows ({', '.join(named)}): write the one that is meant to a file")
    return lists[named[0]]


def _csv(path: Path) -> Iterator[tuple[int, Any]]:
    import csv

    # Python's own 128 KB are less than a long document; the limit is one of the process.
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD))
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        try:
            for row in rows:
                yield rows.line_num, row
        except csv.Error as error:
            raise UserError(f"{path}:{rows.line_num}: not CSV ({error})") from None


_FIELD = 1 << 30


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    return enumerate(parquet_rows(path), 1)


_TABLES: dict[str, Callable[[Path], Iterator[tuple[int, Any]]]] = {".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
"""(number of the line or row, row) of files that are not JSON Lines."""
_JSON = frozenset((".jsonl", ".ndjson", ".json"))
_NOT_READ = frozenset((".gz", ".zip", ".zst", ".arrow", ".xlsx"))


def _is_object(line: bytes) -> bool:
    try:
        return line[:1] == b"{" and isinstance(loads(line), dict)
    except ValueError:
        return False


def _row_text(line: bytes, where: str, field: str | None) -> str:
    try:
        row = loads(line)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error}); a benchmark has one JSON object per line") from None
    return _text_of_row(row, where, field)


def _text_of_row(row: Any, where: str, field: str | None) -> str:
    """Empty where the row has the key and nothing under it. Raises `UserError` for a row that lacks the key."""
    if isinstance(row, str):
        return row
    if not isinstance(row, dict):
        raise UserError(f"{where}: the row is {type(row).__name__}, not an object with a question")
    there, value = _question(row, field)
    if there and (value is None or value == [] or (isinstance(value, str) and not value.strip())):
        return ""
    text = _text(value, where)
    if text.strip():
        return text
    wanted = repr(field) if field is not None else f"any of {', '.join(KEYS)}"
    has = ", ".join(map(str, list(row)[:12])) or "no keys"
    raise UserError(
        f"{where}: no text in {wanted} (it has {has}; name its key in a recipe: "
        f"decontaminate: {{benchmarks: {where.rpartition(':')[0]}, field: KEY}}; KEY.KEY is a key within it)"
    )


def _question(row: Json, field: str | None) -> tuple[bool, Any]:
    return _usual(row) if field is None else _under(row, field)


def _under(row: Json, field: str) -> tuple[bool, Any]:
    """Whether a row has a field, `question` or `question.stem`; and what it is."""
    if field in row:
        return True, row[field]
    first, _, rest = field.partition(".")
    inner = row.get(first)
    return _under(inner, rest) if rest and isinstance(inner, dict) else (False, None)


def _usual(row: Json) -> tuple[bool, Any]:
    params = row.get("responses_create_params")
    if isinstance(params, dict):
        return "input" in params, params.get("input")
    plain = {str(key).lower(): value for key, value in row.items()}
    there = [plain[key] for key in KEYS if key in plain]
    return bool(there), next(filter(None, there), None)


def _text(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, dict):  # ARC: {"question": {"stem": ...}}
        return next((found for key in ("stem", *KEYS) if isinstance(found := value.get(key), str)), "")
    if not isinstance(value, list):
        return ""
    if all(isinstance(each, str) for each in value):
        return "\n".join(value)
    if all(isinstance(each, dict) and "from" in each for each in value):  # ShareGPT
        return "\n".join(str(each.get("value") or "") for each in value if each["from"] in ("human", "user"))
    try:
        return asked(messages({"input": value}, (), TEMPLATE))[0]
    except (UserError, KeyError, TypeError, AttributeError):
        raise UserError(f"{where}: the messages are none: {str(value)[:80]}") from None
