"""Chat templates: the text that a model reads, made of a conversation.

They come with checkpoints, which are untrusted: they run in jinja's immutable sandbox, in the environment that transformers
gives them (same filters and globals, so the same text).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import orjson
from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rollforge.errors import UserError, reported
from rollforge.records.items import Json

SHIPPED = Path(__file__).parent / "tiny" / "policy"
"""The checkpoint of `tiny`."""


class ChatTemplate:
    """A template with the special tokens, and what else it is told beside the conversation."""

    def __init__(self, text: str, variables: Mapping[str, Any], with_tools: str | None = None) -> None:
        """`with_tools`: the one for conversations with tools, if it is another. Raises `UserError` if one is broken."""
        self.variables = variables
        read = _environment().from_string
        try:
            self._template = read(text)
            self._with_tools = self._template if with_tools is None else read(with_tools)
        except TemplateError as error:
            raise UserError(f"the chat template is broken: {error}") from error

    @property
    def eos(self) -> str:
        """The end of an answer; "" where it is not known."""
        known = str(self.variables.get("eos_token") or "")
        return "" if known == _UNKNOWN["eos_token"] else known

    def render(
        self, messages: Sequence[Json], tools: Sequence[Json] | None, *, generation: bool = False, **more: Any
    ) -> str:
        """The text of a conversation, with the opening of an answer if `generation`. Raises what the template raises: it is
        a program."""
        context = {"messages": messages, "tools": tools, "documents": None, "add_generation_prompt": generation}
        template = self._template if tools is None else self._with_tools
        return template.render(**{**self.variables, **more, **context})


def read_template(model: str | Path) -> ChatTemplate:
    """That of a model (`local`) or of a `.jinja` file. Raises `UserError` if there is none."""
    found = find_template(model)
    if found is None:
        raise lacking(model)
    return found


def find_template(model: str | Path) -> ChatTemplate | None:
    """The same, None if there is none. Raises `UserError` for a broken one."""
    path = local(model)
    directory = path if path.is_dir() else path.parent
    config = read_json(directory / "tokenizer_config.json", {})
    named = {"default": _text(path)} if path.suffix in _JINJA else _named(directory, config)
    text = named.get("default", named.get("tool_use"))
    tokens = special_tokens(config) if config else _UNKNOWN
    return None if text is None else ChatTemplate(text, tokens, named.get("tool_use"))


_JINJA = (".jinja", ".jinja2", ".j2")
_UNKNOWN = {name: f"<{name}>" for name in ("bos_token", "eos_token")}
"""For a template without the tokenizer that knows them: many add them to other text, which fails where there are none."""


def local(model: str | Path) -> Path:
    """A model's directory, or a file in it; the directory of `tiny`, `tiny:DIR`, `transformers:DIR`; of a name on the hub,
    its directory in the local cache. Nothing is downloaded. Raises `UserError` if it is not there."""
    backend, _, place = str(model).partition(":")
    path = Path(model)
    if not path.exists() and backend in ("tiny", "transformers"):
        path = Path(place) if place else SHIPPED if backend == "tiny" else path
    if path.exists():
        return path
    from huggingface_hub import try_to_load_from_cache

    with suppress(ValueError):  # no name of the hub
        for name in ("tokenizer_config.json", "chat_template.jinja", "tokenizer.json"):
            if isinstance(found := try_to_load_from_cache(str(model), name), str):
                return Path(found).parent
    raise UserError(f"{model} is not there, nor in the hub's cache: a model's directory is wanted, or a file in it")


def template_text(directory: Path, tokenizer_config: Mapping[str, Any]) -> str | None:
    """Of several, that for conversations with tools. None where a directory has no chat template."""
    named = _named(directory, tokenizer_config)
    return named.get("tool_use", named.get("default"))


def _named(directory: Path, tokenizer_config: Mapping[str, Any]) -> dict[str, str]:
    """By name, as transformers finds them: `default`, and `tool_use`, which is taken where there are tools. Files go before
    the configuration."""
    places = [directory / "chat_template.jinja", *sorted((directory / "additional_chat_templates").glob("*.jinja"))]
    if files := {path.stem: _text(path) for path in places if path.exists()}:
        return {("default" if name == "chat_template" else name): text for name, text in files.items()}
    given = tokenizer_config.get("chat_template")
    entries = given if isinstance(given, list) else [{"name": "default", "template": given}]
    named = {entry.get("name"): entry.get("template") for entry in entries if isinstance(entry, dict)}
    return {name: text for name, text in named.items() if isinstance(name, str) and isinstance(text, str)}


def _text(path: Path) -> str:
    try:
        with reported(f"cannot read {path}"):
            return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no chat template: it is not UTF-8 ({error.reason} at byte {error.start})") from error


def lacking(directory: str | Path) -> UserError:
    where = "chat_template.jinja, or chat_template in tokenizer_config.json"
    return UserError(f"{directory} has no chat template ({where})")


def special_tokens(tokenizer_config: Mapping[str, Any]) -> dict[str, str]:
    """Their texts by role, as the template sees them: eos_token, bos_token, ..."""
    found = {}
    for key, value in tokenizer_config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(text, str):
            found[key] = text
    return found


def read_json(path: Path, missing: Any = None) -> Any:
    """An object; `missing`, if it is given, where there is no file. Raises `UserError`."""
    if not path.exists() and missing is not None:
        return missing
    try:
        value = orjson.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is {type(value).__name__}, not an object")
    return value


class _Generation(Extension):
    """`{% generation %}` marks what the assistant says, for training; it renders its body."""

    tags = frozenset(("generation",))  # type: ignore[assignment]

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    return environment


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    # jinja's own filter escapes HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)
