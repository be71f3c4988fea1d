"""What `ng_test` says of servers that lack something: a package, another file's model, values of a template, verdicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import rollforge.nemo.test as ng_test
from rollforge.errors import UserError
from rollforge.nemo.servers import load_server
from rollforge.records.items import Json, assistant

SERVER = """
from nemo_gym.base_resources_server import BaseVerifyRequest, BaseVerifyResponse, SimpleResourcesServer

class Request(BaseVerifyRequest):
    goal: int

class Server(SimpleResourcesServer):
    async def verify(self, body: Request) -> BaseVerifyResponse:
        BODY
        return BaseVerifyResponse(**body.model_dump(), reward=1.0)
"""
CONFIG = """
NAME: {resources_servers: {NAME: {entrypoint: app.py, domain: other}}}
NAME_agent:
  responses_api_agents:
    simple_agent:
      entrypoint: app.py
      resources_server: {type: resources_servers, name: NAME}
      model_server: {type: responses_api_models, name: policy_model}
"""


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def server(root: Path, name: str, body: str = "pass", config: str = CONFIG, *, rows: int = 5) -> Path:
    directory = root / "resources_servers" / name
    put(directory / "app.py", SERVER.replace("BODY", body))
    put(directory / "configs" / f"{name}.yaml", config.replace("NAME", name))
    asked = [{"responses_create_params": {"input": f"Count to {n}."}, "goal": n} for n in range(rows)]
    put(directory / "data" / "example.jsonl", "".join(json.dumps(row) + "\n" for row in asked))
    return directory


def stored(directory: Path, **more: int) -> None:
    rows = (directory / "data" / "example.jsonl").read_text().splitlines()
    asked = [json.loads(row) for row in rows]
    answered: list[Json] = [
        {"responses_create_params": row["responses_create_params"], "response": {"output": [assistant("hi")]}, "reward": 1.0}
        | more
        for row in asked
    ]
    put(directory / "data" / "example_rollouts.jsonl", "".join(json.dumps(row) + "\n" for row in answered))


def outcome(directory: Path) -> tuple[int, dict[str, str], list[str]]:
    """The status, what each check says, and the remedies."""
    lines: list[str] = []
    status = ng_test.test_server(directory, lines.append)
    checks = [line.partition("  ") for line in lines if not line.startswith(" ")]
    found = {says.partition(":")[0]: f"{kind} {says.partition(': ')[2]}".strip() for kind, _, says in checks}
    return status, found, [line.partition("-> ")[2] for line in lines if line.startswith("      -> ")]


@pytest.mark.parametrize("how", ["_copy: policy_model", "_inherit_from: policy_model"])
def test_the_model_of_another_file_may_be_copied(tmp_path: Path, how: str) -> None:
    directory = server(tmp_path, "copies", config=CONFIG + "judge_model: {" + how + "}\n")
    status, found, _ = outcome(directory)
    assert found["configuration"] == "pass copies.yaml: copies"
    assert status == 0, found


@pytest.mark.parametrize(
    ("imports", "requirements", "remedy"),
    [
        ("nemo_gym.no_such_part", "", "rollforge does not provide nemo_gym.no_such_part: run it with NeMo Gym itself"),
        ("resources_servers.other_one.app", "", "it is another server's code, and resources_servers/other_one is not here"),
        ("ruamel_that_nobody_has", "emoji\nray\n", "pip install 'ruamel_that_nobody_has'"),
        ("ruamel_that_nobody_has", "emoji\nruamel-that-nobody-has>=2 # why\n", "pip install 'ruamel-that-nobody-has>=2'"),
        ("skimage", "numpy\nscikit-image==0.2\n", "pip install 'scikit-image==0.2'"),
        ("skimage", "numpy\n", "pip install 'scikit-image'"),
        ("nobody_has.this", "git+https://x.org/me/nobody-has.git\n", "pip install 'git+https://x.org/me/nobody-has.git'"),
    ],
)
def test_a_module_that_is_not_here_has_one_remedy(tmp_path: Path, imports: str, requirements: str, remedy: str) -> None:
    directory = server(tmp_path, "imports")
    (directory / "app.py").write_text(f"import {imports}\n")
    put(directory / "requirements.txt", requirements)
    put(directory / "tests" / "test_app.py", "import app\n")
    _, found, remedies = outcome(directory)
    assert remedies == [remedy]
    assert found["its own tests"].startswith("fail")
    assert found["loads"].endswith(f"is not here: {remedy}")


def test_a_name_that_is_not_in_our_nemo_gym_is_told(tmp_path: Path) -> None:
    directory = server(tmp_path, "names")
    put(directory / "tests" / "test_app.py", "from nemo_gym.server_utils import NoSuchThing\n")
    _, _, remedies = outcome(directory)
    assert remedies == ["rollforge does not provide NoSuchThing of nemo_gym.server_utils: run it with NeMo Gym itself"]
    directory = tmp_path / "resources_servers" / "named"
    put(directory / "app.py", "from nemo_gym.server_utils import NoSuchThing\n")
    with pytest.raises(UserError, match=r"rollforge does not provide NoSuchThing of nemo_gym\.server_utils"):
        load_server(directory, {})


AGENT = """
from nemo_gym.base_responses_api_agent import BaseResponsesAPIAgentConfig, SimpleResponsesAPIAgent
from nemo_gym.config_types import ResourcesServerRef

class Config(BaseResponsesAPIAgentConfig):
    resources_server: ResourcesServerRef
    base_url: str
    depth: int

class Agent(SimpleResponsesAPIAgent):
    config: Config
    async def responses(self, body): ...
    async def run(self, body): ...
"""


@pytest.mark.parametrize(
    ("block", "status", "says"),
    [
        ("base_url: '???', depth: 1", 0, "skip its configuration is a template: resources_server, base_url are filled in"),
        ("base_url: '${some_url}', depth: '???'", 0, "skip its configuration is a template"),
        ("base_url: x", 1, "fail the configuration of 'leaves' does not fit Config"),
        ("base_url: '???', depth: many", 1, "fail the configuration of 'leaves' does not fit Config"),
    ],
)
def test_a_template_is_no_failure(tmp_path: Path, block: str, status: int, says: str) -> None:
    directory = tmp_path / "responses_api_agents" / "leaves"
    put(directory / "app.py", AGENT)
    put(directory / "configs" / "leaves.yaml", f"leaves: {{responses_api_agents: {{leaves: {{{block}}}}}}}\n")
    ended, found, _ = outcome(directory)
    assert found["loads"].startswith(says)
    assert ended == status


def test_stored_rollouts_that_nobody_judged_do_not_pass(tmp_path: Path) -> None:
    refused = server(tmp_path, "refuses")
    stored(refused)
    assert outcome(refused)[1]["stored rollouts"] == "pass 5 of 5 get their reward again"
    # As written by an older version: the rows have other fields, and other prompts than the examples now.
    rows = (refused / "data" / "example_rollouts.jsonl").read_text().replace("Count to", "Reckon to")
    (refused / "data" / "example_rollouts.jsonl").write_text(rows)
    status, found, _ = outcome(refused)
    assert found["stored rollouts"].startswith("skip all 5 are refused, the first: /verify answered 422")
    assert status == 0
    broken = server(tmp_path, "breaks", "if body.response.output[0].content[0].text == 'hi': import nobody_has_this")
    stored(broken)
    status, found, remedies = outcome(broken)
    assert found["stored rollouts"].startswith("fail 5 of 5 get no verdict: /verify answered 500")
    assert "pip install 'nobody_has_this'" in remedies
    assert status == 1


def test_servers_without_tests_fail_if_asked(tmp_path: Path) -> None:
    server(tmp_path, "untested")
    lines: list[str] = []
    assert ng_test.test_servers(tmp_path, lines.append) == 0
    assert ng_test.test_servers(tmp_path, lines.append, tested=True) == 1
    assert "fail  its own tests: there is no tests/test_*.py" in lines
