"""A new resources server in NeMo Gym's layout, whole and working: code, configuration, tasks, tests.

It runs under `ng_run` here and under NeMo Gym itself: it imports nothing but `nemo_gym`.
"""

from __future__ import annotations

import re
from keyword import iskeyword
from pathlib import Path

from rollforge.errors import UserError
from rollforge.nemo.config import RESOURCES
from rollforge.nemo.profile import write_jsonl
from rollforge.records.items import Json


def init_resources_server(entrypoint: str) -> list[Path]:
    """Write `resources_servers/NAME`; the files. Raises `UserError` for another path, for a name that Python cannot import,
    and for one that is there."""
    directory = Path(entrypoint)
    name = directory.name
    if directory.parent.name != RESOURCES or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(f"+entrypoint={entrypoint}: it is written {RESOURCES}/name_in_lower_case")
    if iskeyword(name):
        raise UserError(f"+entrypoint={entrypoint}: {name!r} is a word of Python, and cannot be imported: {name}_task can")
    if directory.exists():
        raise UserError(f"{directory} is there already; nothing was changed")
    title = "".join(word.capitalize() for word in name.split("_"))
    files = {
        "app.py": _APP,
        f"configs/{name}.yaml": _CONFIG,
        "tests/__init__.py": "",
        "tests/test_app.py": _TESTS,
        "requirements.txt": "-e nemo-gym[dev] @ ../../\n",
        "README.md": _README,
    }
    written = []
    for file, text in files.items():
        path = directory / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("SERVER_NAME", name).replace("ServerTitle", title), encoding="utf-8")
        written.append(path)
    data = directory / "data" / "example.jsonl"
    data.parent.mkdir()
    write_jsonl(data, [_task(a, b) for a, b in ((2, 3), (10, 7), (41, 1), (128, 256), (99, 901))])
    return [*written, data]


def _task(a: int, b: int) -> Json:
    tool = {
        "type": "function",
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
        "strict": True,
    }
    question = f"What is {a} + {b}? Use the tool, and reply with the number only."
    return {
        "responses_create_params": {"input": [{"role": "user", "content": question}], "tools": [tool]},
        "expected_answer": str(a + b),
    }


_APP = '''\
"""ServerTitle: the tools and the verifier."""

from fastapi import FastAPI
from nemo_gym.base_resources_server import (
    BaseResourcesServerConfig,
    BaseVerifyRequest,
    BaseVerifyResponse,
    SimpleResourcesServer,
)
from pydantic import BaseModel


class ServerTitleConfig(BaseResourcesServerConfig):
    """What the YAML may set for this server."""


class AddRequest(BaseModel):
    """The arguments of the tool `add`."""

    a: int
    b: int


class AddResponse(BaseModel):
    total: int


class ServerTitleVerifyRequest(BaseVerifyRequest):
    """A row of the data, with the response; fields that are not declared here are dropped."""

    expected_answer: str


class ServerTitleVerifyResponse(BaseVerifyResponse):
    """Numbers declared here are aggregated as metrics."""

    expected_answer: str
    extracted_answer: str


class ServerTitleServer(SimpleResourcesServer):
    config: ServerTitleConfig

    def setup_webserver(self) -> FastAPI:
        app = super().setup_webserver()
        app.post("/add")(self.add)
        return app

    async def add(self, body: AddRequest) -> AddResponse:
        return AddResponse(total=body.a + body.b)

    async def verify(self, body: ServerTitleVerifyRequest) -> ServerTitleVerifyResponse:
        answer = ""
        for item in body.response.output:
            if item.type == "message":
                answer = "".join(part.text for part in item.content if part.type == "output_text").strip()
        reward = float(answer == body.expected_answer)
        return ServerTitleVerifyResponse(**body.model_dump(), extracted_answer=answer, reward=reward)


if __name__ == "__main__":
    ServerTitleServer.run_webserver()
'''

_CONFIG = """\
SERVER_NAME:
  resources_servers:
    SERVER_NAME:
      entrypoint: app.py
      domain: other
      verified: false
      description: What the model is to do
SERVER_NAME_simple_agent:
  responses_api_agents:
    simple_agent:
      entrypoint: app.py
      max_steps: 8
      resources_server:
        type: resources_servers
        name: SERVER_NAME
      model_server:
        type: responses_api_models
        name: policy_model
      datasets:
      - name: example
        type: example
        jsonl_fpath: resources_servers/SERVER_NAME/data/example.jsonl
"""

_TESTS = """\
from unittest.mock import MagicMock

import pytest
from nemo_gym.openai_utils import NeMoGymResponse
from nemo_gym.server_utils import ServerClient

from resources_servers.SERVER_NAME.app import (
    AddRequest,
    ServerTitleConfig,
    ServerTitleServer,
    ServerTitleVerifyRequest,
)


def server() -> ServerTitleServer:
    config = ServerTitleConfig(host="127.0.0.1", port=8080, entrypoint="app.py", name="SERVER_NAME", domain="other")
    return ServerTitleServer(config=config, server_client=MagicMock(spec=ServerClient))


def replied(text: str) -> NeMoGymResponse:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }
    return NeMoGymResponse(
        id="resp_1",
        created_at=0.0,
        model="test",
        object="response",
        output=[message],
        parallel_tool_calls=False,
        tool_choice="auto",
        tools=[],
    )


async def test_the_tool_adds() -> None:
    assert (await server().add(AddRequest(a=2, b=3))).total == 5


@pytest.mark.parametrize(("reply", "reward"), [("5", 1.0), (" 5 ", 1.0), ("6", 0.0), ("", 0.0)])
async def test_only_the_expected_answer_is_rewarded(reply: str, reward: float) -> None:
    request = ServerTitleVerifyRequest(
        responses_create_params={"input": [{"role": "user", "content": "What is 2 + 3?"}]},
        response=replied(reply),
        expected_answer="5",
    )
    assert (await server().verify(request)).reward == reward
"""

_README = """\
# SERVER_NAME

What the tasks are, where they come from, how they are judged, and under which licence the data may be used.

    ng_test +entrypoint=resources_servers/SERVER_NAME
"""
