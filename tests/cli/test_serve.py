"""`rollforge serve` as a person meets it: every form, signals, exit statuses, messages, secrets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rollforge.cli.main import app
from rollforge.errors import UserError
from tests.serve.started import BANK, ROLLFORGE, ROW, get, post, started

FREE = ("--port", "0")


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    (tmp_path / "bank.py").write_text(BANK, encoding="utf-8")
    return tmp_path


def refused(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [ROLLFORGE, "serve", *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert not done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


async def test_an_environment(bank: Path) -> None:
    with started(bank, "bank.py:Bank", *FREE) as service:
        url = service.urls["environment"]
        assert url.startswith("http://127.0.0.1:")
        status, text, cookies = await post(f"{url}/seed_session", ROW)
        assert (status, [tool["name"] for tool in json.loads(text)["tools"]]) == (200, ["pay", "wait"])
        assert (await post(f"{url}/pay", {"amount": 6}, cookies))[0] == 200
        status, text, _ = await post(f"{url}/verify", {**ROW, "response": {"output": []}}, cookies)
        assert (status, json.loads(text)["reward"]) == (200, 1.0)
        assert (await get(f"{url}/docs"))[0] == 200
        assert service.stop() == (0, "")


async def test_an_agent_with_the_options_of_a_collection(bank: Path) -> None:
    options = ("--model", "scripted:echo", "--temperature", "0.5", "--max-turns", "3", "--set", "sampling.top_k=4")
    with started(bank, "bank.py", *options, *FREE) as service:
        status, text, _ = await post(f"{service.urls['agent']}/run", {**ROW, "target": 0, "_ng_task_index": 3})
        row = json.loads(text)
        assert (status, row["reward"], row["_ng_task_index"], row["target"]) == (200, 1.0, 3, 0)
        assert row["responses_create_params"]["temperature"] == 0.5
        assert row["responses_create_params"]["top_k"] == 4
        assert service.stop(signal.SIGINT) == (0, "")


async def test_a_model(tmp_path: Path) -> None:
    with started(tmp_path, "--model", "tiny", *FREE) as service:
        models = json.loads((await get(f"{service.urls['model']}/v1/models"))[1])
        assert [model["id"] for model in models["data"]] == ["tiny"]
        asked = {"input": "What is 2+2?", "max_output_tokens": 8}
        status, text, _ = await post(f"{service.urls['model']}/v1/responses", asked)
        assert (status, json.loads(text)["object"]) == (200, "response")


YAML = """
models: {oracle: scripted, echo: {use: "scripted:echo"}}
envs: {bank: {use: bank.py}, sums: {use: arithmetic, level: easy}}
agents: {teller: {env: bank, model: echo}, reckoner: {env: sums, model: oracle, max_turns: 5}}
head: {port: 0}
"""


def sums_row() -> dict[str, object]:
    return {"responses_create_params": {"input": "Multiply 552 by 7."}, "answer": 3864, "steps": [["multiply", 552, 7]]}


@pytest.mark.parametrize("how", [(), ("--processes",)])
async def test_a_file_of_named_services(bank: Path, how: tuple[str, ...]) -> None:
    (bank / "rollforge.yaml").write_text(YAML, encoding="utf-8")
    with started(bank, "rollforge.yaml", *how, services=7) as service:
        assert set(service.urls) >= {"oracle", "echo", "bank", "sums", "teller", "reckoner", "head"}
        for agent, row in (("teller", {**ROW, "target": 0}), ("reckoner", sums_row())):
            status, text, _ = await post(f"{service.urls[agent]}/run", row)
            assert (status, json.loads(text).get("reward")) == (200, 1.0), text
        listed = json.loads((await get(f"{service.urls['head']}/server_instances"))[1])
        assert {one["name"]: one["url"] for one in listed} == {one["name"]: service.urls[one["name"]] for one in listed}
        assert len(listed) == 6
        status = json.loads((await get(f"{service.urls['head']}/status"))[1])
        assert status["status"] == "ok"


async def test_some_of_them_here_and_the_rest_by_their_urls(bank: Path) -> None:
    with started(bank, "bank.py", *FREE) as far:
        (bank / "rollforge.yaml").write_text(YAML.replace("use: bank.py", f"url: '{far.urls['bank']}'"), encoding="utf-8")
        assert "has only a url" in refused(bank, "rollforge.yaml", "--only", "bank")
        with started(bank, "rollforge.yaml", "--only", "teller", services=2) as service:
            assert set(service.urls) == {"teller", "agent", "head"}
            status, text, _ = await post(f"{service.urls['teller']}/run", {**ROW, "target": 0})
            assert (status, json.loads(text)["reward"]) == (200, 1.0)
            served = (await get(f"{far.urls['bank']}/metrics"))[1]
            assert 'path="/verify",status="200"} 1.0' in served
            # Two: the one here, and the one that the file has a URL for.
            assert len(json.loads((await get(f"{service.urls['head']}/server_instances"))[1])) == 2


async def test_what_is_in_flight_is_finished(bank: Path) -> None:
    with started(bank, "bank.py", *FREE) as service:
        url = service.urls["bank"]
        _, _, cookies = await post(f"{url}/seed_session", ROW)
        waiting = asyncio.create_task(post(f"{url}/wait", {"seconds": 1}, cookies))
        while json.loads((await get(f"{url}/status"))[1])["in_flight"] < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        service.process.send_signal(signal.SIGTERM)
        while (found := await get(f"{url}/ready"))[0] == 200:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert (found[0], json.loads(found[1])["reason"]) == (503, "shutting down")
        status, text, _ = await post(f"{url}/seed_session", ROW)
        assert (status, json.loads(text)["error"]["type"]) == (503, "shutting_down")
        assert (await waiting)[:2] == (200, "done")
        assert (service.process.wait(30), service.said()) == (0, "")


@pytest.mark.parametrize("limit", [("--drain-seconds", "0.2"), ()])
async def test_what_takes_too_long_is_cut_off_and_told(bank: Path, limit: tuple[str, ...]) -> None:
    with started(bank, "bank.py", *FREE, *limit) as service:
        url = service.urls["bank"]
        _, _, cookies = await post(f"{url}/seed_session", ROW)
        waiting = asyncio.create_task(post(f"{url}/wait", {"seconds": 50}, cookies))
        while json.loads((await get(f"{url}/status"))[1])["in_flight"] < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        service.process.send_signal(signal.SIGINT)
        if not limit:
            while (await get(f"{url}/ready"))[0] == 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            service.process.send_signal(signal.SIGINT)
        status, text, _ = await waiting
        assert (status, json.loads(text)["error"]["type"]) == (503, "shutting_down")
        assert service.process.wait(30) == (0 if limit else 130)
        assert "Traceback" not in service.said()


async def test_the_token_is_asked_for_and_shown_nowhere(bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVE_TOKEN", "hidden-token")
    (bank / "rollforge.yaml").write_text(YAML, encoding="utf-8")
    shown = []
    # Services of one command tell each other the token themselves.
    options = ("--token-env", "SERVE_TOKEN", "--processes", "--host", "0.0.0.0")
    with started(bank, "rollforge.yaml", *options, services=7) as service:
        local = {name: url.replace("0.0.0.0", "127.0.0.1") for name, url in service.urls.items()}
        assert (await post(f"{local['bank']}/seed_session", ROW))[0] == 401
        assert (await get(f"{local['head']}/config"))[0] == 401
        assert (await get(f"{local['bank']}/health"))[0] == 200
        bearer = {"Authorization": "Bearer hidden-token"}
        for path in ("/config", "/status", "/server_instances", "/global_config_dict_yaml"):
            status, text = await get(f"{local['head']}{path}", **bearer)
            assert status == 200
            shown.append(text)
        assert json.loads(shown[1])["status"] == "ok"
        arguments = started_with()
        status, said = service.stop()
        assert status == 0
        assert "other machines can connect\n" in said
        assert "hidden-token" not in "".join([*shown, said, *arguments])


def started_with() -> list[str]:
    """The command lines of all processes there are."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_text())
    return found


def test_a_port_that_is_taken(bank: Path) -> None:
    with started(bank, "bank.py", *FREE) as service:
        port = service.urls["bank"].rpartition(":")[2]
        said = refused(bank, "bank.py", "--port", port)
        assert f"bank: cannot listen on 127.0.0.1:{port}: Address already in use (port 0 takes a free one)" in said


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="a killed process leaves its port at once on Linux")
async def test_a_killed_server_leaves_its_port(bank: Path) -> None:
    with started(bank, "bank.py", *FREE) as service:
        url = service.urls["bank"]
        await post(f"{url}/verify", {**ROW, "response": {"output": []}})  # in a process of its own, which must not keep it
        service.process.kill()
        service.process.wait()
    with started(bank, "bank.py", "--port", url.rpartition(":")[2]) as service:
        assert (await get(f"{service.urls['bank']}/health"))[0] == 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name what to serve"),
        (("zzz",), "unknown environment 'zzz'; known: arc, arithmetic"),
        (("--model", "nope", *FREE), "unknown model 'nope'; did you mean openai"),
        (("missing.yaml",), "cannot read missing.yaml"),
        (("bank.py", "--temperature", "1"), "sampling is of an agent"),
        (("bank.py", "--set", "env.level=hard", *FREE), "unknown task option 'level'"),
        (("bank.py", "--set", "max_session=1"), "did you mean max_sessions"),
        (("bank.py", "--processes"), "--processes is for the named services of a YAML"),
        (("bank.py", "--only", "x"), "--only is for the named services of a YAML"),
        (("bank.py", "--token-env", "NOT_SET", *FREE), "the environment variable NOT_SET is not set"),
        (("bank.py", "--model", "scripted", "--agent", "nope", *FREE), "unknown agent 'nope'; known: command"),
        (("bank.py", "--model", "scripted", "--set", "agent.max_turn=1", *FREE), "did you mean max_turns"),
        (("--model", "chat:x", "--header", "secret", *FREE), "--header is written 'Name: value'"),
        (("r.yaml", "--port", "1"), "what the options say of port belongs into r.yaml"),
        (("r.yaml", "--only", "bnk"), "unknown service 'bnk'; did you mean bank"),
        (("r.yaml", "--set", "agents.teller.env=bnk"), "unknown environment 'bnk'; did you mean bank"),
        (("r.yaml", "--set", "agents.teller.model=ecko"), "unknown model 'ecko'; did you mean echo"),
        (("r.yaml", "--set", "agents.teller.env={use: bank, level: 3}"), "belong to envs.bank"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_line(
    bank: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    (bank / "r.yaml").write_text(YAML, encoding="utf-8")
    monkeypatch.chdir(bank)
    error = CliRunner().invoke(app, ["serve", *arguments]).exception
    assert isinstance(error, UserError)
    assert message in str(error)
    assert "\n" not in str(error)
