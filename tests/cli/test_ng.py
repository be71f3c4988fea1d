"""The `ng_*` commands as a person meets them: servers up or started, files, exit statuses, messages, signals, kills."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from rollforge.cli.ng import COMMANDS, ELSEWHERE, call
from rollforge.errors import UserError
from tests.serve.live import in_thread

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
MCQA = "resources_servers/mcqa/configs/mcqa.yaml"
PERFECT = "responses_api_models/rollforge/configs/rollforge.yaml"
CONFIG = [f"+config_paths=[{MCQA},{PERFECT}]", "++policy_model_name=scripted:perfect"]
QUESTION = {"responses_create_params": {"input": [{"role": "user", "content": "Which? A: 1 B: 2"}]}, "expected_answer": "B"}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("NEMO_GYM_EXTRA_ROOTS", "NEMO_GYM_MAX_ROLLOUT_ATTEMPTS", "ROLLFORGE_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture
def head() -> list[str]:
    """Arguments that keep a test's head server to itself."""
    return [f"++head_server.port={free_port()}"]


def rows(path: str) -> list[Any]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def write_tasks(path: str, *tasks: Any) -> str:
    Path(path).write_text("".join(json.dumps(task) + "\n" for task in tasks))
    return f"+input_jsonl_fpath={path}"


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


class Running:
    """`ng_run` in a process of its own."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [BIN / "ng_run", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line)
            if "ready" in line:
                return
        raise AssertionError("".join(self.lines))

    def end(self, number: signal.Signals) -> tuple[int, str]:
        self.process.send_signal(number)
        text, _ = self.process.communicate(timeout=30)
        return self.process.returncode, "".join(self.lines) + text


@pytest.fixture
def running(head: list[str]) -> Iterator[Running]:
    Path("env.yaml").write_text("policy_api_key: sk-very-secret\npolicy_base_url: http://127.0.0.1:9\n")
    found = Running(*CONFIG, *head)
    try:
        yield found
    finally:
        found.process.kill()
        found.process.communicate()


def test_servers_that_are_up_are_found_by_their_head(
    running: Running, head: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("ng_status", head) == 0
    assert "3 servers, 3 of them answer" in capsys.readouterr().out
    tasks = write_tasks("in.jsonl", *({**QUESTION, "id": number} for number in range(4)))
    words = ["+agent_name=mcqa_simple_agent", tasks, "+output_jsonl_fpath=out/r.jsonl", "+num_repeats=2", *head]
    assert call("ng_collect_rollouts", [*words, "+responses_create_params.temperature=0.3"]) == 0
    found = rows("out/r.jsonl")
    assert len({(row["_ng_task_index"], row["_ng_rollout_index"]) for row in found}) == 8
    assert {row["reward"] for row in found} == {1.0}
    assert {row["responses_create_params"]["temperature"] for row in found} == {0.3}
    assert {row["agent_ref"]["name"] for row in found} == {"mcqa_simple_agent"}
    assert {row["id"] for row in found} == {0, 1, 2, 3}
    assert rows("out/r_failures.jsonl") == []
    assert json.loads(Path("out/r_aggregate_metrics.json").read_text())[0]["key_metrics"]["mean/reward"] == 1.0
    # As the pages write it: the agent is all there is to say.
    assert call("ng_collect_rollouts", ["+output_jsonl_fpath=own.jsonl", "+limit=3", *words[:1], *head]) == 0
    assert len(rows("own.jsonl")) == 3
    address = f"http://127.0.0.1:{head[0].partition('=')[2]}"
    told = "".join(fetch(f"{address}{path}") for path in ("/config", "/global_config_dict_yaml", "/server_instances"))
    assert "very-secret" not in told
    assert yaml.safe_load(json.loads(fetch(f"{address}/global_config_dict_yaml")))["mcqa"]["resources_servers"]
    status, text = running.end(signal.SIGINT)
    assert status == 0
    assert "Traceback" not in text
    assert "very-secret" not in text


def test_servers_are_started_where_none_are_up(head: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = [*CONFIG, *head, "+output_jsonl_fpath=r.jsonl", "+limit=2", "+num_repeats={_default:3}"]
    assert call("ng_collect_rollouts", words) == 0
    assert "mean reward 1.0000 over 6 of 6" in capsys.readouterr().out
    assert call("ng_reward_profile", ["+rollouts_jsonl_fpath=r.jsonl"]) == 0
    assert [row["num_rollouts"] for row in rows("r_reward_profiling.jsonl")] == [3, 3]
    assert call("ng_aggregate_rollouts", ["+input_glob=r.json*", "+output_jsonl_fpath=all.jsonl"]) == 0
    assert len(rows("all.jsonl")) == 6
    assert call("ng_viewer", ["+jsonl_fpath=r.jsonl", "+limit=1"]) == 0
    assert "mean reward 1" in capsys.readouterr().out


def test_a_token_is_asked_for_and_sent(head: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("THE_TOKEN", "tok-123456")
    found = Running(*CONFIG, *head, "+rollforge.token_env=THE_TOKEN")
    try:
        with pytest.raises(UserError, match="asks for a token: export ROLLFORGE_TOKEN"):
            call("ng_status", head)
        monkeypatch.setenv("ROLLFORGE_TOKEN", "tok-123456")
        assert call("ng_status", head) == 0
        assert call("ng_collect_rollouts", [*head, "+output_jsonl_fpath=r.jsonl", "+limit=2"]) == 0
        assert len(rows("r.jsonl")) == 2
        assert "tok-123456" not in found.end(signal.SIGTERM)[1]
    finally:
        found.process.kill()
        found.process.communicate()


def test_a_collection_that_was_killed_goes_on(head: list[str]) -> None:
    tasks = write_tasks("in.jsonl", *({**QUESTION, "id": number} for number in range(400)))
    words = [*CONFIG, *head, tasks, "+output_jsonl_fpath=r.jsonl", "+num_samples_in_parallel=2", "+num_repeats=5"]
    killed = subprocess.Popen([BIN / "ng_collect_rollouts", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    out = Path("r.jsonl")
    while not out.exists() or out.stat().st_size < 10_000:
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    before = out.read_bytes()
    out.write_bytes(before + b'{"torn": ')
    done = subprocess.run([BIN / "ng_collect_rollouts", *words, "+resume_from_cache=true"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    keys = [(row["_ng_task_index"], row["_ng_rollout_index"]) for row in rows("r.jsonl")]
    assert len(keys) == len(set(keys)) == 2000


def nemo_gym(fails: dict[str, int]) -> FastAPI:
    """A head and an agent as NeMo Gym's: fields that are not declared are dropped, failures are bare strings."""
    app = FastAPI()

    @app.get("/global_config_dict_yaml")
    async def config(request: Request) -> str:
        block = {"host": "127.0.0.1", "port": request.url.port, "entrypoint": "app.py"}
        return yaml.safe_dump({"theirs": {"responses_api_agents": {"simple_agent": block}}, "policy_api_key": "x"})

    @app.get("/server_instances")
    async def instances() -> Any:
        return [{"name": "theirs", "server_type": "responses_api_agents", "status": "success", "url": "\x1b[31mhttp://x"}]

    @app.post("/run")
    async def run(request: Request) -> Any:
        row = await request.json()
        question = row["responses_create_params"]["input"]
        if fails.get(question, 0) > 0:
            fails[question] -= 1
            return JSONResponse("Hit an exception calling an inner server", 500)
        if question == "judge":
            return {**row, "response": {"output": []}, "reward": 0.0, "_ng_failure_class": "judge_failed"}
        message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hi"}]}
        params = row["responses_create_params"]
        return {"responses_create_params": params, "response": {"output": [message]}, "reward": 1.0, "extra": 2}

    @app.post("/aggregate_metrics")
    async def metrics(request: Request) -> Any:
        number = len((await request.json())["verify_responses"])
        return {"group_level_metrics": [], "agent_metrics": {"own": number}, "key_metrics": {"own": number}}

    return app


def test_servers_of_nemo_gym_and_runs_that_fail(capsys: pytest.CaptureFixture[str]) -> None:
    fails = {"once": 1, "always": 100}
    tasks = write_tasks("in.jsonl", *({"prompt": text, "answer": text} for text in ("fine", "once", "always", "judge")))
    with in_thread(nemo_gym(fails)) as url:
        head = [f"+head_server.port={url.rpartition(':')[2]}"]
        words = [*head, tasks, "+output_jsonl_fpath=r.jsonl", "+agent_name=theirs"]
        assert call("ng_collect_rollouts", words) == 1
        assert sorted(row["answer"] for row in rows("r.jsonl")) == ["fine", "once"]
        assert "theirs: {'own': 2}" in capsys.readouterr().out
        assert rows("r.jsonl")[0]["extra"] == 2
        failed = rows("r_failures.jsonl")
        assert {row["_ng_failure_class"] for row in failed} == {"infra_fault", "judge_failed"}
        assert "inner server" in next(row for row in failed if row["answer"] == "always")["_ng_failure_message"]
        assert json.loads(Path("r_aggregate_metrics.json").read_text())[0]["agent_metrics"] == {"own": 2}
        fails.clear()
        assert call("ng_collect_rollouts", [*words, "+resume_from_cache=true"]) == 1  # the judge fails still
        assert sorted(row["answer"] for row in rows("r.jsonl")) == ["always", "fine", "once"]
        capsys.readouterr()
        assert call("ng_status", head) == 0
        assert "\x1b" not in capsys.readouterr().out
        assert call("ng_collect_rollouts", [*CONFIG, *head, "+output_jsonl_fpath=own.jsonl", "+limit=1"]) == 0
        assert "are others than" in capsys.readouterr().err
        with pytest.raises(UserError, match="unknown agent 'their'; did you mean theirs"):
            call("ng_collect_rollouts", [*head, tasks, "+output_jsonl_fpath=r2.jsonl", "+agent_name=their"])


def test_what_is_no_head_is_said_to_be_none(head: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("ng_status", head) == 1
    with pytest.raises(UserError, match=r"no head server answers.*\+config_paths"):
        call("ng_collect_rollouts", [*head, "+output_jsonl_fpath=r.jsonl"])
    with in_thread(FastAPI()) as url, pytest.raises(UserError, match="is no head server"):
        call("ng_collect_rollouts", [f"+head_server.port={url.rpartition(':')[2]}", "+output_jsonl_fpath=r.jsonl"])


@pytest.mark.parametrize(
    ("name", "words", "told"),
    [
        ("ng_collect_rollouts", ["+agent_nam=x"], "did you mean agent_name"),
        ("ng_collect_rollouts", ["+start_idx=3"], r"\+limit"),
        ("ng_collect_rollouts", [*CONFIG, "+limit=3"], r"\+output_jsonl_fpath= is missing"),
        ("ng_collect_rollouts", [*CONFIG, "+output_jsonl_fpath=r.jsonl", "+limit=x"], "limit is 'x'"),
        ("ng_collect_rollouts", [*CONFIG, "+output_jsonl_fpath=r.jsonl", "+num_repeats=0"], "num_repeats is 0"),
        ("ng_collect_rollouts", [*CONFIG, "+output_jsonl_fpath=r.jsonl", "+input_jsonl_fpath=no.jsonl"], "no.jsonl"),
        ("ng_run", [], "no server is configured"),
        ("ng_run", [*CONFIG, "+rollforge.max_sesions=3"], "did you mean max_sessions"),
        ("ng_prepare_data", ["+mode=train"], "train_preparation"),
        ("ng_prepare_data", ["+data_sorce=x", "+mode=example_validation"], "did you mean data_source"),
        (
            "ng_collect_rollouts",
            [*CONFIG, "+output_jsonl_fpath=r.jsonl", "+responses_create_params.temprature=2"],
            "unknown field of responses_create_params 'temprature'; did you mean temperature",
        ),
        ("ng_viewer", [], r"\+jsonl_fpath= is missing"),
        ("ng_reward_profile", ["+rollout_jsonl_fpath=x"], "did you mean rollouts_jsonl_fpath"),
        ("ng_init_resources_server", ["+entrypoint=elsewhere/x"], "resources_servers/"),
        ("ng_init_resources_server", ["+entrypoint=resources_servers/class"], "'class' is a word of Python"),
        ("ng_test_all", [], "there is no"),
        ("ng_test_all", ["+fail_on_total_and_test_mismatch=true", "+delete_venvs_after_each_test=true"], "there is no"),
        ("ng_test_all", ["+num_shards=8"], r"\+num_shards is not supported: call ng_test"),
        ("ng_test", ["+entrypoint=resources_servers/nope", "+should_validate_data=true"], "there is no"),
        ("ng_test", ["+entrypoint=resources_servers/nope", "+should_validate=true"], "did you mean should_validate_data"),
        ("ng_version", ["+jsn=true"], "did you mean json"),
        ("ng_help", ["+foo=1"], "unknown key 'foo'"),
        ("ng_status", ["+jsn=true"], "did you mean json"),
        ("ng_run", [*CONFIG, "+entrypoint=resources_servers/mcqa"], r"\+entrypoint is not supported: .*\+config_paths"),
        ("ng_collect_rollouts", [*CONFIG, "+dry_run=true"], r"ng_run \.\.\. \+dry_run=true"),
        ("ng_nothing", [], "unknown command"),
        *((name, [], "is not here") for name in ELSEWHERE),
    ],
)
def test_what_is_wrong_is_told(name: str, words: list[str], told: str, head: list[str]) -> None:
    serving = name in ("ng_collect_rollouts", "ng_run")
    with pytest.raises(UserError, match=told):
        call(name, [*words, *(head if serving else [])])


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_describes_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(name, ["--help"]) == 0
    assert COMMANDS[name].about in capsys.readouterr().out


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    call("ng_help", [])
    call("ng_version", ["+json=true"])
    text = capsys.readouterr().out
    assert "example_single_tool_call (weather)" in text
    assert json.loads(text.splitlines()[-1])["name"] == "rollforge"


def test_the_configuration_is_dumped_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    Path("env.yaml").write_text("policy_api_key: sk-very-secret\npolicy_base_url: http://h/v1\npolicy_model_name: m\n")
    assert (
        call("ng_dump_config", [f"+config_paths=[{MCQA},responses_api_models/openai_model/configs/openai_model.yaml]"]) == 0
    )
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["policy_model"]["responses_api_models"]["openai_model"]["openai_model"] == "m"
    assert "very-secret" not in text


def test_a_new_server_works_at_once(head: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([BIN / name, *words], capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})

    made = run("ng_init_resources_server", "+entrypoint=resources_servers/my_adder")
    assert made.returncode == 0
    assert "pip install 'rollforge[test]'" in made.stdout
    tested = run("ng_test", "+entrypoint=resources_servers/my_adder")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    config = f"+config_paths=[resources_servers/my_adder/configs/my_adder.yaml,{PERFECT}]"
    collected = run("ng_collect_rollouts", config, *head, "+output_jsonl_fpath=r.jsonl", "+agent_name=my_adder_simple_agent")
    assert collected.returncode == 0, collected.stdout + collected.stderr
    assert len(rows("r.jsonl")) == 5
    assert {row["expected_answer"] for row in rows("r.jsonl")} == {"5", "17", "42", "384", "1000"}
    words = ["+output_dirpath=data", "+mode=example_validation", "+should_download=true"]
    prepared = run("ng_prepare_data", config, *words)
    assert prepared.returncode == 0, prepared.stdout + prepared.stderr
    assert {row["agent_ref"]["name"] for row in rows("data/example.jsonl")} == {"my_adder_simple_agent"}
    again = run("ng_init_resources_server", "+entrypoint=resources_servers/my_adder")
    assert again.returncode == 2
    assert "nothing was changed" in again.stderr


def test_prompts_are_filled_into_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.yaml").write_text("user: '{question}?'\n")
    tasks = write_tasks("in.jsonl", {"question": "why"}, {"nothing": 1})
    assert call("ng_materialize_prompts", [tasks, "+prompt_config=p.yaml", "+output_jsonl_fpath=o.jsonl"]) == 1
    assert rows("o.jsonl") == [
        {"question": "why", "responses_create_params": {"input": [{"role": "user", "content": "why?"}]}}
    ]
    assert "in.jsonl:2" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"in\.jsonl holds the rows"):
        call("ng_materialize_prompts", [tasks, "+prompt_config=p.yaml", "+output_jsonl_fpath=./in.jsonl"])
    assert len(rows("in.jsonl")) == 2


def test_the_script_of_the_pages_prints_means() -> None:
    Path("r.jsonl").write_text('{"reward": 1.0, "accuracy": true, "text": "x"}\n{"reward": 0.0}\nnot json\n')
    script = ROOT / "scripts" / "print_aggregate_results.py"
    done = subprocess.run([sys.executable, script, "+jsonl_fpath=r.jsonl"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"reward": 0.5, "accuracy": 0.5}
    assert "r.jsonl:3: not JSON" in done.stderr


def test_a_file_without_rollouts_is_told_without_a_traceback() -> None:
    Path("r.jsonl").write_text('{"no": "rollout"}\n')
    done = subprocess.run([BIN / "ng_viewer", "+jsonl_fpath=r.jsonl"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: no usable rollout in r.jsonl" in done.stderr
    assert "Traceback" not in done.stderr
    assert "no responses_create_params" in done.stdout
    assert "What the data suits" not in done.stdout
    with pytest.raises(UserError, match=r"choose another \+html"):
        call("ng_viewer", ["+jsonl_fpath=r.jsonl", "+html=./r.jsonl"])


def test_a_profile_is_asked_for_as_the_pages_of_any_version_do(capsys: pytest.CaptureFixture[str]) -> None:
    tasks = write_tasks("in.jsonl", QUESTION)
    planned = [{**QUESTION, "_ng_task_index": 0, "_ng_rollout_index": number} for number in range(4)]
    write_tasks("r_materialized_inputs.jsonl", *planned)
    write_tasks("r.jsonl", *({**row, "response": {"output": []}, "reward": 0.25 * n} for n, row in enumerate(planned)))
    words = ["+rollouts_jsonl_fpath=r.jsonl", "+output_jsonl_fpath=out/profiled.jsonl", "+pass_threshold=0.5"]
    for given in (tasks, "+input_jsonl_fpath=r_materialized_inputs.jsonl", "+materialized_inputs_jsonl_fpath=in.jsonl"):
        if given.startswith("+mat"):
            with pytest.raises(UserError, match="it is no file of materialized inputs"):
                call("ng_reward_profile", [given, *words])
            continue
        assert call("ng_reward_profile", [given, *words]) == 0
        (found,) = rows("out/profiled.jsonl")
        assert (found["pass_rate"], found["pass_rate_passed"], found["pass_rate_total"]) == (0.5, 2, 4)
    assert capsys.readouterr().err == (
        "in.jsonl holds no materialized inputs: what was planned is read from r_materialized_inputs.jsonl\n"
    )
    with pytest.raises(UserError, match=r"in\.jsonl is what is read"):
        call("ng_reward_profile", [tasks, words[0], "+output_jsonl_fpath=in.jsonl"])
    with pytest.raises(UserError, match="pass_threshold is 'half'"):
        call("ng_reward_profile", [tasks, words[0], "+pass_threshold=half"])
    assert rows("in.jsonl") == [QUESTION]


def test_shards_tell_their_bad_lines_and_tasks_that_are_numbered_anew(capsys: pytest.CaptureFixture[str]) -> None:
    answered = {**QUESTION, "response": {"output": []}, "reward": 1.0, "_ng_task_index": 0, "_ng_rollout_index": 0}
    other = {**answered, "responses_create_params": {"input": "another"}, "reward": 0.0}
    Path("a.jsonl").write_text(json.dumps(answered) + '\n{"broken\n' + "[1]\n" * 30)
    Path("b.jsonl").write_text(json.dumps(other) + "\nnull\n")
    Path("a_materialized_inputs.jsonl").write_text(json.dumps(QUESTION) + "\n")
    assert call("ng_aggregate_rollouts", ["+input_glob=*.jsonl", "+output_jsonl_fpath=all/r.jsonl"]) == 0
    told = capsys.readouterr()
    assert "2 rollouts of 2 shards" in told.out
    assert "the 2 tasks are numbered anew" in told.err
    assert "not used: a.jsonl:2: not JSON" in told.err
    assert "not used: 12 more lines" in told.err
    (found,) = json.loads(Path("all/r_aggregate_metrics.json").read_text())
    assert [one["rollouts"] for one in found["group_level_metrics"]] == [1, 1]
    Path("r.jsonl").write_text('{"reward": 1.0}\n' + json.dumps(answered))
    Path("r_materialized_inputs.jsonl").write_text(json.dumps({**QUESTION, "_ng_task_index": 0, "_ng_rollout_index": 0}))
    assert call("ng_reward_profile", ["+rollouts_jsonl_fpath=r.jsonl"]) == 0
    assert "not used: r.jsonl:1: no _ng_task_index" in capsys.readouterr().err


def test_the_only_agent_takes_rows_that_name_another(head: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    tasks = write_tasks("in.jsonl", {**QUESTION, "agent_ref": {"name": "mcqa_v2_simple_agent"}})
    words = [*CONFIG, *head, tasks, "+output_jsonl_fpath=r.jsonl", "+responses_create_params.top_k=5"]
    assert call("ng_collect_rollouts", words) == 0
    assert (
        "1 rollouts are for mcqa_v2_simple_agent, which is not here: mcqa_simple_agent makes them" in capsys.readouterr().err
    )
    assert rows("r.jsonl")[0]["agent_ref"]["name"] == "mcqa_simple_agent"
    with pytest.raises(UserError, match="unknown agent 'mcqa_v2_simple_agent'"):
        call("ng_collect_rollouts", [*words, "+agent_name=typo"])
