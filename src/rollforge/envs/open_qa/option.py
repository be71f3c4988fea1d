"""The option that names a judge, read: `chat:NAME`, or a mapping with more about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from rollforge.config import Section, validate
from rollforge.errors import UserError
from rollforge.models.base import ModelOptions
from rollforge.models.load import load_model
from rollforge.verify.judge import Judge


class JudgeConfig(Section):
    use: str
    """A model, as `--model` takes it."""
    base_url: Annotated[list[str], BeforeValidator(lambda given: [given] if isinstance(given, str) else given)] = Field(
        default_factory=list
    )
    api_key_env: str | None = None
    """The variable that holds the key."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    sampling: dict[str, Any] = Field(default_factory=dict)
    labels: Literal["coded", "nemo_gym"] = "coded"
    """What the verdict looks like: with a code, or `[[A=B]]` for judges that were trained on it."""
    votes: int = Field(1, ge=1)
    swap: bool = False
    tries: int = Field(3, ge=1)
    seconds: float = Field(60, gt=0)
    concurrency: int = Field(64, ge=1)
    max_calls: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)


def judge_of(given: Any) -> Judge | None:
    """The judge that is meant. Raises `UserError` for an unknown model or key, or as the model does."""
    if given is None or isinstance(given, Judge):
        return given
    if not isinstance(given, (str, Mapping)):
        return Judge(model=given)
    values = {"use": given} if isinstance(given, str) else dict(given)
    config = validate(JudgeConfig, values, "env.judge")
    for url in (config.use, *config.base_url):
        if "://" in url and "@" in urlsplit(url).netloc:
            raise UserError("env.judge has a URL with a password, which would be stored with the run; use api_key_env")
    options = ModelOptions(
        base_urls=tuple(config.base_url),
        api_key_env=config.api_key_env,
        extra_body=config.extra_body,
        call_seconds=config.seconds,
    )
    try:
        return Judge(
            model=load_model(config.use, options),
            votes=config.votes,
            swap=config.swap,
            tries=config.tries,
            seconds=config.seconds,
            concurrency=config.concurrency,
            max_calls=config.max_calls,
            max_tokens=config.max_tokens,
            params=config.sampling,
        )
    except ValueError as error:
        raise UserError(f"env.judge: {error}") from error
