"""Files for a trainer, looked at as its loader would: every line, the file as a whole, then the loader itself.

blocks of a file ─► check_rows, in workers ─► counts, the first lines of each kind of problem, a few bytes per row
                        └► check_file: repeated rows and prompts, answers, rewards ─► check: leaks, configuration
"""

from __future__ import annotations

import importlib.util
import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

from rollforge.bulk.original import regular
from rollforge.bulk.parquet import free_json, parquet_rows
from rollforge.errors import UserError
from rollforge.export.advice import advise
from rollforge.export.check_file import NO_PARQUET, File, leaks, unlike
from rollforge.export.check_rows import LONGEST, Work, decoded
from rollforge.export.named import other_data
from rollforge.export.rendered import Refusal
from rollforge.export.target import Kind, Part, Problem, Seen, Target
from rollforge.export.text import of_templates
from rollforge.models.template import read_template
from rollforge.records.items import Json, inside
from rollforge.records.lossless import loads
from rollforge.records.shown import typed


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found."""

    problems: list[Problem]
    """File by file, in the order of the lines; of each kind in a file the first five; the fifth counts the rest."""
    rows: int
    """Of all files."""
    loader: str
    """What the framework's own loader said, or that it is not installed."""
    target: str = ""
    """`nemo-rl:sft`"""
    template: str = ""
    """Whose chat template rendered the rows."""
    rendered: int = 0
    """So many of them."""
    files: dict[str, Json] = field(default_factory=dict)
    """Per file: rows, distinct rows and prompts, bytes of the longest row."""

    @property
    def errors(self) -> int:
        return sum(1 + problem.more for problem in self.problems if problem.level == "error")

    @property
    def warnings(self) -> int:
        return sum(1 + problem.more for problem in self.problems if problem.level == "warning")

    @property
    def tried(self) -> str:
        """By what the rows were tried, beside the rules of their format."""
        if not self.template:
            return self.loader
        which = {0: "no row is rendered", self.rows: "rendered"}.get(self.rendered, f"{self.rendered:,} rows rendered")
        return f"{self.loader}; {which} by the chat template of {self.template}"

    def lines(self) -> list[str]:
        """For people: each message once, with the lines that it is about."""
        return summarised(self.problems)

    def moved(self, here: str, there: str) -> Checked:
        """The same, of files that are renamed from one folder to another."""

        def said(text: str) -> str:
            return text.replace(here, there)

        problems = [replace(one, file=said(one.file), message=said(one.message)) for one in self.problems]
        files = {said(name): about for name, about in self.files.items()}
        return replace(self, problems=problems, files=files, loader=said(self.loader))

    def row(self) -> Json:
        """As JSON, for `check.json`."""
        return {
            "target": self.target,
            "ok": not self.errors,
            "rows": self.rows,
            "errors": self.errors,
            "warnings": self.warnings,
            "loader": self.loader,
            **({"template": self.template, "rendered": self.rendered} if self.template else {}),
            "files": self.files,
            "problems": [asdict(one) for one in self.problems],
        }


def summarised(problems: Sequence[Problem]) -> list[str]:
    found: dict[tuple[str, str, str], list[Problem]] = {}
    for one in problems:
        found.setdefault((one.file, one.level, one.message), []).append(one)
    said = []
    for (file, level, message), ones in found.items():
        lines = ", ".join(str(one.line) for one in ones if one.line)
        more = sum(one.more for one in ones)
        further = f" and {more:,} more places" if more else ""
        said.append(f"{file}{f':{lines}' if lines else ''}{further}: {level}: {message}")
    return said


def check_export(
    folder: str | Path,
    target: Target,
    kind: str,
    *,
    tokenizer: str | Path | None = None,
    workers: int = 1,
    load: bool = True,
) -> Checked:
    """Check one output of `rollforge export`: the data files (`*.jsonl`, `*.parquet`) and configurations (`*.yaml`; scripts
    where they hold the options) directly in its folder. The rest as `check_files`. Raises `UserError` if it has no data
    files."""
    place = Path(folder)
    data = data_files(place)
    if not data:
        inside = sorted(child.name for child in place.iterdir() if child.is_dir())
        there = f"; folders in it: {', '.join(inside[:10])}" if inside else ""
        raise UserError(f"{place} holds no data files (.jsonl, .parquet){there}")
    configs = sorted(file for file in place.iterdir() if file.suffix in target.configs)
    return check_files(data, target, kind, configs, tokenizer=tokenizer, workers=workers, load=load)


def data_files(folder: Path) -> list[Path]:
    """Directly in it."""
    return sorted(file for file in folder.iterdir() if file.suffix in (".jsonl", ".parquet"))


def check_files(
    files: Sequence[str | Path],
    target: Target,
    kind: str,
    config: str | Path | Sequence[Path] | None = None,
    *,
    tokenizer: str | Path | None = None,
    workers: int = 1,
    load: bool = True,
) -> Checked:
    """Check data files, anybody's, and configurations for one kind of a framework.

    A file's split is taken from its name (train, val..., test): the same prompt on two sides is an error. `tokenizer`: the
    model's directory, or a file of it; its chat template renders the rows. `load` False leaves the framework's loader out.
    Raises `UserError` if a file is not there, is no configuration that can be looked at, there is no chat template, or the
    target has no such kind.
    """
    rules = kind_of(target, kind)
    configs = [Path(config)] if isinstance(config, str | Path) else config or ()
    for place in configs:
        _must_be_there(place)
        if target.configs and place.suffix not in target.configs:
            raise UserError(f"{place}: for {target.name} only {', '.join(target.configs)} files are looked at")
    template = read_template(tokenizer) if tokenizer else None
    render = partial(rules.rendered.problems, template) if template and rules.rendered else None
    alike = rules.alike.of if rules.alike else None
    usual = Work(rules.check, rules.columns, rules.reader == "lines", alike=alike, rendered=render)
    seen: list[File] = []
    loaded: list[str] = []
    for name in files:
        path = Path(name)
        _must_be_there(path)
        one = File(str(path))
        seen.append(one)
        work = _as_configured(usual, target, kind, configs, path)
        if one.opens():
            _look(one, work, target, kind, workers)
            one.whole(rules)
        if load and one.rows and not work.names and not any(found.level == "error" for found in one.said()):
            loaded += [said] if (said := one.load(target, kind)) else []
    problems = [*(found for one in seen for found in one.said()), *leaks(seen)]
    problems += unlike(seen) if target.at_once else ()
    rows = [f"{Path(found.file).resolve()}:{found.line}:" for found in problems if found.line]
    for place in configs:
        # A framework's check of its configuration may look into the data that it names: those lines are named already.
        problems += [
            found
            for found in target.check_config(kind, place)
            if not any(row in found.message for row in rows) and not (render and of_templates(found.message))
        ]
        problems += _misfits(target, kind, place, seen)
        if tokenizer and render and target.renders:
            others = [key for key, value in target.renders(kind, place).items() if not _is_template(value, Path(tokenizer))]
            if others:
                problems.append(Problem(str(place), 0, "warning", _RENDERS.format(" and ".join(others), tokenizer)))
    return Checked(
        [_with_advice(problem) for problem in dict.fromkeys(problems)],  # a script may name a configuration beside it
        sum(one.rows for one in seen),
        together(loaded) or _no_loader(target, load),
        f"{target.name}:{kind}",
        str(tokenizer or ""),
        sum(one.part.rendered for one in seen),
        {one.name: one.about() for one in seen},
    )


def trained_on(file: str | Path, target: Target, kind: str, line: int, tokenizer: str | Path) -> dict[str, list[Part]]:
    """The conversations of one line of a file (of Parquet: one row), as the model reads them, in parts: what a trainer takes
    the loss of, and what not; by their names ("" for the only one, else chosen, ...). Raises `UserError` if there is no such
    line, or nothing of it that can be rendered."""
    path, rendered = Path(file), kind_of(target, kind).rendered
    if rendered is None:
        raise UserError(f"{target.name}:{kind} is given to no chat template")
    template = read_template(tokenizer)
    _must_be_there(path)
    rows = parquet_rows(path) if path.suffix == ".parquet" else _lines(path)
    here = list(islice(rows, line - 1, line))
    if not here:
        raise UserError(f"{path} has no line {line:,}")
    try:
        found = rendered.trained(template, {key: decoded(value) for key, value in (here[0] or {}).items()})
    except Refusal as refusal:
        raise UserError(f"{path}:{line}: the chat template refuses this conversation: {refusal}") from None
    if not found:
        raise UserError(f"{path}:{line} holds no conversation (rollforge check says what is wrong with it)")
    return found


def _lines(path: Path) -> Iterator[Json | None]:
    """None for a line that is no row."""
    with path.open("rb") as file:
        for text in iter(partial(file.readline, LONGEST), b""):
            try:
                row = loads(text.removeprefix(BOM_UTF8))
            except ValueError:
                row = None
            yield row if isinstance(row, dict) else None


def _look(one: File, work: Work, target: Target, kind: str, workers: int) -> None:
    """At the rows of a file, and whether they stand in one of the format that is read."""
    rules, path = target.kinds[kind], Path(one.name)
    if path.suffix == ".parquet":
        one.parquet(work)
        if rules.reader == "lines":
            one.say("error", f"{target.name} reads {kind} as JSON Lines: {NO_PARQUET}")
        if one.rows and rules.reader == "pandas" and (free := free_json(path)):
            one.say("error", f"{' and '.join(free)}: {_FREE.format(target.name)}")
    else:
        one.jsonl(work, workers)
        if rules.format == "parquet":
            fails = rules.reader == "pandas"  # `datasets` reads either
            what = "this is JSON Lines, on which pandas.read_parquet fails" if fails else "this is JSON Lines"
            one.say("error" if fails else "warning", f"{target.name} reads Parquet for {kind}; {what}")


def _misfits(target: Target, kind: str, config: Path, files: Sequence[File]) -> Iterator[Problem]:
    """What does not fit together of a configuration and the files."""
    training = [one for one in files if one.split in ("train", "")]
    if target.trains_on:
        yield from other_data(config, *target.trains_on(kind, config), [Path(one.name) for one in training or files])
    seen = {Path(one.name): Seen(one.rows, one.part.labels) for one in training if one.rows}
    if target.against and seen:
        yield from target.against(kind, config, seen)


def _is_template(value: object, file: Path) -> bool:
    """Whether a setting names this file, or is what stands in it."""
    if not isinstance(value, str) or not file.is_file():
        return False
    return Path(value).absolute() == file.absolute() or value.strip().encode() == file.read_bytes().strip()


_RENDERS = (
    "the rows were rendered without its {}, by the chat template of {} alone (a template of one's own is a .jinja file for "
    "--tokenizer)"
)
_FREE = (
    "free JSON, as `datasets` writes it: {} reads with pandas, which fails on it (ArrowNotImplementedError) or gives "
    "text. Write the column as text yourself (as rollforge export does), or as lists and structs"
)


def _as_configured(work: Work, target: Target, kind: str, configs: Sequence[Path], data: Path) -> Work:
    """With the names of fields that a configuration gives."""
    for place in configs:
        if target.reads and (found := target.reads(kind, place, data)):
            return replace(work, check=found[0], names=found[1])
    return work


def together(said: Sequence[str]) -> str:
    """What the loader said of each file, the rows of files of which it said the same added up."""
    rows: dict[str, int] = {}
    others = []
    for text in said:
        if found := re.fullmatch(r"loaded ([\d,]+) rows(.*)", text, re.DOTALL):
            rows[found[2]] = rows.get(found[2], 0) + int(found[1].replace(",", ""))
        elif text not in others:
            others.append(text)
    return "; ".join([*(f"loaded {count:,} rows{rest}" for rest, count in rows.items()), *others])


def kind_of(target: Target, kind: str) -> Kind:
    """Raises `UserError` naming the kinds that there are."""
    found = target.kinds.get(kind)
    if found is None:
        raise UserError(f"{target.name} has no kind of data {kind!r}; it has {', '.join(target.kinds)}")
    return found


def guess(file: str | Path) -> tuple[str, str, str]:
    """(target, kind, why) for a file, by the manifest of the export that wrote it, else by the fields of its first row.
    Raises `UserError` if they say nothing."""
    path = Path(file)
    row = _first_row(path)
    if exported := _exported(path):
        return *exported, "the manifest.json beside it says so"
    keys = row.keys()
    if _is_rollout(row):
        raise UserError(f"{path} holds rollouts, not training data: rollforge export {typed(path)} --to ...")
    for needs, to, kind in _SIGNS:
        if needs <= keys and _fits(row, to, kind, parquet=path.suffix == ".parquet"):
            return to, kind, f"its rows have {', '.join(sorted(needs))}"
    raise UserError(f"cannot guess what {path} is for (its rows have {', '.join(sorted(keys)[:10])}): say it with --for")


_SIGNS: tuple[tuple[set[str], str, str], ...] = (
    ({"responses_create_params"}, "nemo-rl", "nemo-gym"),
    ({"data_source", "reward_model"}, "verl", "grpo-parquet"),
    ({"data_source", "reward_model"}, "verl", "grpo"),
    ({"context", "completions"}, "nemo-rl", "dpo-messages"),
    ({"prompt", "chosen", "rejected"}, "nemo-rl", "dpo"),
    ({"prompt", "chosen", "rejected"}, "trl", "dpo"),
    ({"prompt", "completion", "label"}, "trl", "kto"),
    ({"prompt", "completion"}, "trl", "sft-prompt-completion"),
    ({"chosen", "rejected"}, "trl", "dpo-implicit"),
    ({"messages"}, "verl", "sft"),
    ({"messages"}, "nemo-rl", "sft"),
    ({"messages"}, "trl", "sft"),
    ({"input", "output", "ground_truth"}, "nemo-rl", "grpo"),
    ({"input", "output"}, "nemo-rl", "sft-simple"),
    ({"prompt", "label"}, "openrlhf", "grpo"),
    ({"prompt"}, "trl", "grpo"),
    ({"conversations"}, "generic", "sharegpt"),
)


def _fits(row: Json, to: str, kind: str, *, parquet: bool) -> bool:
    from rollforge.registry import resolve

    kinds = resolve("export", to).kinds
    if kind not in kinds or ("reward" in row and "response" in row):
        return False
    if parquet and kinds[kind].reader == "lines":
        return False
    if to == "verl" and kind != "grpo":  # whose columns are JSON text
        return isinstance(row.get("messages", row.get("reward_model")), str)
    if (to, kind) == ("nemo-rl", "sft"):
        return not isinstance(row.get("tools"), str)
    return kind != "dpo" or to != "nemo-rl" or isinstance(row["chosen"], str)


def _exported(path: Path) -> tuple[str, str] | None:
    """What the manifest of an export says of a file that it lists."""
    from rollforge.registry import known, resolve

    try:
        manifest = loads((path.absolute().parent / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return None
    files = inside(manifest, "files")
    if not isinstance(files, dict) or path.name not in files:
        return None
    to, kind = str(manifest.get("target")), str(manifest.get("kind"))
    return (to, kind) if to in known("export") and kind in resolve("export", to).kinds else None


def _is_rollout(row: Json) -> bool:
    return {"responses_create_params", "response"} <= row.keys()


def holds_rollouts(folder: Path) -> bool:
    """Whether it is a run or a curated directory."""
    for file in data_files(folder):
        try:
            if _is_rollout(_first_row(file)):
                return True
        except UserError:
            continue  # which the check of that file says
    return False


def _first_row(path: Path) -> Json:
    _must_be_there(path)
    one = File(str(path))
    if one.opens():
        if path.suffix == ".parquet":
            return next(parquet_rows(path), {})
        row = next((row for row in _lines(path) if row is not None), None)
        if row is not None:
            return row
    first = next(iter(one.said()), None)
    raise UserError(str(first) if first else f"{path} holds no JSON objects, one per line: say what it is for with --for")


def _must_be_there(path: Path) -> None:
    if not path.exists():
        raise UserError(f"{path} is not there")
    regular(path)


def _with_advice(problem: Problem) -> Problem:
    found = advise(problem.message) if "own loader fails" in problem.message else []
    if not found:
        return problem
    return replace(problem, message=f"{problem.message}\n  {found[0].cause}\n  {found[0].remedy}")


def _no_loader(target: Target, load: bool) -> str:
    if not load:
        return "contract check only"
    if not target.configs:
        return "contract check only: the format belongs to no framework"
    if importlib.util.find_spec(target.module or target.name) is None:
        return f"contract check only: {target.name} is not installed"
    return f"contract check only: {target.name} has no loader for these files, or nothing was fit to load"
