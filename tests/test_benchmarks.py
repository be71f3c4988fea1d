"""The benchmarks run, print their figures, and leave nothing behind. What the figures are is not for a test to say."""

import json
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from http.client import IncompleteRead
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@contextmanager
def stub(*options):
    command = [sys.executable, str(BENCHMARKS / "stub_server.py"), "--until-eof", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.stdin.close()
        assert process.wait(timeout=30) == 0


def ask(url, body=None, seconds=30):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, data=None if body is None else json.dumps(body).encode(), timeout=seconds) as answer:
        return json.loads(answer.read())


def test_the_stub_calls_a_tool_then_replies_in_both_dialects():
    with stub("--latency", "fixed:0.01") as url:
        question = {"role": "user", "content": "?"}
        message = ask(f"{url}/v1/chat/completions", {"messages": [question]})["choices"][0]["message"]
        assert message["tool_calls"][0]["function"]["name"] == "lookup"
        told = {"role": "tool", "tool_call_id": "call_stub", "content": "42"}
        message = ask(f"{url}/v1/chat/completions", {"messages": [question, message, told]})["choices"][0]["message"]
        assert "42" in message["content"]
        item = ask(f"{url}/v1/responses", {"input": "?"})["output"][0]
        assert (item["type"], item["name"]) == ("function_call", "lookup")
        told = {"type": "function_call_output", "call_id": "call_stub", "output": "42"}
        assert ask(f"{url}/v1/responses", {"input": [item, told]})["output"][0]["type"] == "message"
        stats = ask(f"{url}/stats")
        assert (stats["requests"], stats["finals"], stats["waiting"], stats["most_waiting"]) == (4, 2, 0, 1)
        assert ask(f"{url}/v1/models")["data"][0]["id"] == "stub"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("500", urllib.request.HTTPError),
        ("429", urllib.request.HTTPError),
        ("drop", ConnectionError),
        ("garbage", json.JSONDecodeError),
        ("truncate", IncompleteRead),
        ("hang", TimeoutError),
    ],
)
def test_the_stub_fails_when_told_to(fault, error):
    with stub("--fault", f"{fault}=1") as url:
        with pytest.raises(error):
            ask(f"{url}/v1/chat/completions", {}, seconds=0.2 if fault == "hang" else 30)
        assert ask(f"{url}/stats")["faults"] == 1


@pytest.mark.parametrize(
    ("latency", "message"), [("slow", "is not none, fixed"), ("lognormal:8", "is not none, fixed"), ("fixed:x", "invalid")]
)
def test_the_stub_refuses_a_latency_it_does_not_know(latency, message):
    command = [sys.executable, str(BENCHMARKS / "stub_server.py"), "--latency", latency]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert message in ended.stderr


def test_the_bare_client_prints_what_it_cost():
    with stub() as url:
        command = [sys.executable, str(BENCHMARKS / "bare_client.py"), f"{url}/v1", "--concurrency", "5", "--rollouts", "20"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        figures = json.loads(ended.stdout)
        assert figures["rollouts"] == 20
        assert figures["cpu_ms"] > 0
        assert ask(f"{url}/stats")["finals"] == 20


@pytest.mark.parametrize(
    ("which", "options", "figures"),
    [
        ("cpu", ["--rollouts", "60", "--concurrency", "10", "--rounds", "1"], ["bare client, CPU", "rollforge / bare"]),
        ("memory", ["--rollouts", "40", "--concurrency", "20"], ["peak memory"]),
        (
            "tail",
            ["--rollouts", "800", "--concurrency", "40", "--scale", "0.1"],
            ["share of the ideal throughput", "rollouts without a reward: 0"],
        ),
        ("growth", ["--rollouts", "80", "--concurrency", "10"], ["memory of ten times as many"]),
        ("start", ["--rounds", "1"], ["rollforge --help", "first verified rollout"]),
    ],
)
def test_an_engine_benchmark_prints_its_figures(which, options, figures):
    command = [sys.executable, str(BENCHMARKS / "engine.py"), which, "--quick", *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    # 1 is a missed bar: with so few rollouts, on a busy machine, that says nothing.
    assert ended.returncode in (0, 1), ended.stderr
    assert [name for name in figures if name not in ended.stdout] == [], ended.stderr
    assert "bar" in ended.stdout


@pytest.mark.parametrize(
    ("which", "options", "figures"),
    [
        ("speed", ["--mb", "1", "--only", "SFT export,transform dpo"], ["SFT export", "transform dpo", "ratio"]),
        ("speed", ["--mb", "1", "--only", "dedup,split,statistics"], ["exact dedup", "split", "statistics"]),
        ("memory", ["--mb", "1", "--times", "2", "--only", "GRPO"], ["GRPO export", "peak memory"]),
    ],
)
def test_a_data_benchmark_prints_its_figures(which, options, figures, tmp_path):
    command = [sys.executable, str(BENCHMARKS / "data.py"), which, "--quick", "--folder", str(tmp_path), *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    # 1 is a missed bar: with so little data, on a busy machine, that says nothing.
    assert ended.returncode in (0, 1), ended.stderr
    assert [name for name in figures if name not in ended.stdout] == [], ended.stderr
    assert "bar" in ended.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["rollouts-1.jsonl"]
