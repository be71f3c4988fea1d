"""The contract of an export target: a module that knows one framework and nothing of files, grouping or thresholds.

A module has `TARGET`: its name, its kinds of data (`grpo`, `sft`, ...) and what belongs to the data (configuration, launch
script, helper modules). `export.run` reads, groups, pairs and writes; `export.check` reads again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field

from rollforge.config import Section
from rollforge.export.mapping import checked, flattened
from rollforge.models.template import ChatTemplate
from rollforge.records.items import Json

Family = Literal["prompt", "demonstration", "pair", "judged"]
"""Which of `export.examples` a kind is made of."""


Level = Literal["error", "warning"]


class Refused(Exception):
    """This example does not fit the format. The message is the reason, one of few, for counting."""


def _one_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("must be text on one line: it is written into scripts")
    return text


OneLine = Annotated[str, AfterValidator(_one_line)]


class Settings(Section):
    """What the configuration and the launch script are made with; all of it optional, all of it printed into them."""

    model: OneLine = "Qwen/Qwen2.5-1.5B-Instruct"
    tokenizer: str | None = None
    """A model's directory, a file in it, or its name in the hub's local cache: lengths are measured instead of estimated,
    and the check renders the rows by its chat template."""
    version: str | None = None
    """Of the framework; None: the newest this package knows."""
    home: OneLine | None = None
    """Where the framework's own checkout is (NeMo RL: its configurations and scripts)."""
    gpus: int = Field(1, ge=1)
    """Per node."""
    nodes: int = Field(1, ge=1)
    max_length: int | None = Field(None, ge=1)
    """Tokens of prompt and answer together; None: from the data."""
    learning_rate: float | None = Field(None, gt=0, allow_inf_nan=False)
    epochs: int | None = Field(None, ge=1)
    batch_size: int | None = Field(None, ge=1)
    """Prompts or rows per step; None: the framework's usual one, but no more than the data."""
    micro_batch_size: int | None = Field(None, ge=1)
    generations: int | None = Field(None, ge=1)
    """Attempts per prompt (GRPO)."""
    activation_checkpointing: bool | None = None
    """None: for models from 7B on."""
    lora: int | None = Field(None, ge=1)
    """LoRA's rank, where the framework has it."""
    logger: Literal["none", "tensorboard", "wandb"] = "tensorboard"
    checkpoints: OneLine = "results"
    container: OneLine | None = None
    """Image for Slurm."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Any other keys of the framework's configuration, dotted; for one target or kind: `nemo-rl:grpo:a.b` (`export.aim`)."""
    mapping: Annotated[dict[str, str], BeforeValidator(flattened), AfterValidator(checked)] = Field(default_factory=dict)
    """Output name (dots nest) -> source, for `generic:mapping` (`export.mapping`)."""

    @property
    def all_gpus(self) -> int:
        """Of all nodes."""
        return self.gpus * self.nodes


@dataclass(frozen=True, slots=True)
class Data:
    """One written file."""

    split: str
    """train, validation or test."""
    envs: Sequence[str]
    """Whose rows it holds; one, where a kind wants a file for each."""
    path: Path
    rows: int
    longest_prompt: int
    """Tokens (or an estimate of them: `measured`)."""
    longest: int
    """Tokens of the longest prompt with its answer (DPO: the longer of the two)."""
    answered: int = 0
    """Prompts that carry an expected answer."""
    tools: bool = False
    """Whether any row has tools or tool calls."""
    desirable: int = 0
    """Judged answers that are good."""


@dataclass(frozen=True, slots=True)
class Made:
    """What configuration and launch script are written for."""

    kind: str
    folder: Path
    """The target's own, absolute: `<out>/<framework>-<kind>`."""
    data: list[Data]
    settings: Settings
    measured: bool
    """Whether lengths were counted by the tokenizer; else they are estimated (4 bytes a token, rounded up)."""
    tools: list[Json] = field(default_factory=list)
    """Every distinct tool in the data, nested form."""

    @property
    def with_tools(self) -> bool:
        """Whether there are rows with tools, and they are known."""
        return bool(self.tools) and any(data.tools for data in self.data)

    @property
    def played(self) -> bool:
        """Whether training on its prompts asks their environment: for tools, or for verdicts where answers are lacking."""
        return self.with_tools or any(data.answered < data.rows for data in self.data)

    def of(self, split: str) -> list[Data]:
        return [data for data in self.data if data.split == split]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something a check found. `line` is 0 for the file as a whole."""

    file: str
    line: int
    level: Level
    message: str
    """What is wrong, the offending value, and what mends it."""
    more: int = 0
    """Further lines with a problem of this kind, which are not named."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}" if self.line else f"{self.file}: {self.message}"


class Seen(NamedTuple):
    """What the check counted in a data file."""

    rows: int
    labels: Counter[bool]
    """Verdicts of true and false."""


@dataclass(frozen=True, slots=True)
class Alike:
    """What all rows of a file must have in common."""

    of: Callable[[Json], str | None]
    """(row) -> a word for it; None: this row says nothing. Picklable."""
    level: Level
    message: str
    """What comes of it where rows differ, and what mends it."""


class Part(NamedTuple):
    """Of a conversation as the model reads it."""

    text: str
    trained: bool
    """Whether the loss is taken here."""


class Rendering(NamedTuple):
    """What becomes of a row where the framework calls the model's chat template."""

    problems: Callable[[ChatTemplate, Json], list[str] | None]
    """As of `Kind.check`; None: the row holds no conversation."""
    trained: Callable[[ChatTemplate, Json], dict[str, list[Part]]]
    """Each conversation of the row in parts, by its name ("" for the only one). Raises `rendered.Refusal`."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One row format of a framework."""

    family: Family
    row: Callable[[Any, Settings], Json]
    """(example, settings) -> the row. Raises `Refused`. Picklable: a module-level function."""
    check: Callable[[Json], Iterable[str]]
    """(row) -> what is wrong with it, by the framework's contract; a row written by anybody."""
    about: str
    """One line: class or trainer that reads it, and its fields."""
    rendered: Rendering | None = None
    """None: rows of text, which no template renders."""
    format: Literal["jsonl", "parquet"] = "jsonl"
    reader: Literal["datasets", "lines", "pandas"] = "datasets"
    """Of the framework: json.loads line by line dies on blank lines, pandas leaves free JSON of `datasets` as text."""
    columns: Mapping[str, str] | None = None
    """Parquet: column -> "string", "double", "int64", "bool"; the row's other values are JSON text."""
    per_env: Callable[[Settings], bool] | None = None
    """(settings) -> whether each environment has a file of its own (NeMo RL derives the task from the file's name)."""
    alike: Alike | None = None
    every: bool = False
    """Of the judged family: all judged rollouts, also those between the thresholds."""
    as_stored: bool = False
    """Its rows are tasks as they are stored, with whatever chat messages have no place for."""
    needs_answer: bool = False
    """Prompts without an expected answer are refused: the framework would score them 0 without a word."""
    needs_mapping: bool = False
    """Its fields are those of `Settings.mapping`."""
    unanswered: str = ""
    """Else what becomes of them in training, and what mends it."""
    overlong: str = ""
    """What becomes of rows that are longer than the configuration's maximum, and what mends it."""

    @property
    def by_datasets(self) -> bool:
        """Whether its files are JSON Lines that `datasets` reads."""
        return self.format == "jsonl" and self.reader == "datasets"


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    """nemo-rl, trl, verl, openrlhf, generic."""
    kinds: Mapping[str, Kind]
    versions: tuple[str, ...]
    """Whose formats it can write, newest first."""
    files: Callable[[Made], Mapping[str, str]]
    """File name -> text, beside the data: configuration, `launch.sh`, helper modules. Paths in them are absolute."""
    command: Callable[[Made], str]
    """The one command that starts the training: what `launch.sh` runs."""
    check_config: Callable[[str, Path], Iterable[Problem]]
    """(kind, a configuration file, anybody's) -> problems, each trap of the framework."""
    load: Callable[[str, Path], str | None]
    """(kind, data file) -> what the framework's own loader said of it ("loaded 120 rows with trl 1.16.0"), None where it is
    not installed. Raises what the loader raises."""
    configs: tuple[str, ...] = (".yaml", ".yml")
    """How the names of its configurations end, scripts too where they hold the options; () for formats of no framework."""
    at_once: bool = False
    """Whether it reads the training file and what is held out together, with the types of the first."""
    module: str = ""
    """The framework's package, where it has another name."""
    reads: Callable[[str, Path, Path], tuple[Callable[[Json], Iterable[str]], Mapping[str, str]] | None] | None = None
    """(kind, configuration, data file) -> the check of rows and the names of its fields (`input` -> `question`), where the
    configuration renames them; else None."""
    against: Callable[[str, Path, Mapping[Path, Seen]], Iterable[Problem]] | None = None
    """(kind, configuration, training files) -> what does not fit together: a batch larger than the data, rows
    longer than the maximum."""
    trains_on: Callable[[str, Path], tuple[Sequence[str], Sequence[str]]] | None = None
    """(kind, configuration) -> the data that it names for training, and to validate with: paths, or names in a hub."""
    renders: Callable[[str, Path], Mapping[str, Any]] | None = None
    """(kind, configuration) -> its settings by which rows are rendered otherwise than by the model's chat template alone."""
    sections: Callable[[str], Iterable[str] | None] | None = None
    """(kind) -> what the keys of its configuration may begin with; None: not known."""
