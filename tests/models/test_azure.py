"""`azure:DEPLOYMENT`: its two forms of address, its key, its name of the token limit."""

from __future__ import annotations

from typing import Any

import pytest

from rollforge.errors import SetupError, UserError
from rollforge.models import azure
from rollforge.models.base import ModelOptions, Request
from rollforge.records.items import final_text, user
from tests.models.server import Reply, closing, completion, serve

ASK = Request({"input": [user("hi")], "max_output_tokens": 5})


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key-123")
    monkeypatch.delenv("OPENAI_API_VERSION", raising=False)
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)


FORMS = [
    ("", None, "/openai/deployments/dep/chat/completions?api-version=2024-10-21"),
    ("/", "2025-01-01-preview", "/openai/deployments/dep/chat/completions?api-version=2025-01-01-preview"),
    ("/openai/v1", None, "/openai/v1/chat/completions"),
    ("/openai/v1/", None, "/openai/v1/chat/completions"),
]


@pytest.mark.parametrize(("suffix", "version", "path"), FORMS)
async def test_the_address(suffix: str, version: str | None, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if version:
        monkeypatch.setenv("OPENAI_API_VERSION", version)
    async with serve(completion("hey")) as server:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.root + suffix)
        async with closing(azure.load("dep", ModelOptions())) as model:
            assert final_text(await model(ASK)) == "hey"
    seen = server.seen[0]
    assert seen.path == path
    assert seen.headers["api-key"] == "azure-key-123"
    assert "Authorization" not in seen.headers
    assert (seen.body["model"], seen.body["max_completion_tokens"]) == ("dep", 5)


async def test_an_unknown_deployment_and_how_to_check() -> None:
    error = {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}}
    async with (
        serve(Reply(error, 404)) as server,
        closing(azure.load("dep", ModelOptions(base_urls=(server.root,)))) as model,
    ):
        with pytest.raises(SetupError) as caught:
            await model(ASK)
    assert f'curl -s "{server.root}/openai/models?api-version=2024-10-21" -H "api-key: $AZURE_OPENAI_API_KEY"' in str(
        caught.value
    )


MISSING: list[tuple[str | None, dict[str, Any], str]] = [
    (None, {"base_urls": ("https://x.openai.azure.com",)}, "azure:DEPLOYMENT"),
    ("dep", {}, "AZURE_OPENAI_ENDPOINT"),
    ("dep", {"base_urls": ("https://x.openai.azure.com",), "api_key_env": "NOT_SET"}, "NOT_SET"),
]


@pytest.mark.parametrize(("name", "options", "says"), MISSING)
def test_what_is_missing_is_said(name: str | None, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        azure.load(name, ModelOptions(**options))


def test_it_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    with pytest.raises(UserError, match="export AZURE_OPENAI_API_KEY"):
        azure.load("dep", ModelOptions(base_urls=("https://x.openai.azure.com",)))
