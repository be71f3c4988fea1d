"""`rollforge collect` as a person meets it: exit statuses, messages, signals, resume, bad input."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.collect.parts import keys, rows

ROLLFORGE = str(Path(sys.executable).parent / "rollforge")

WAITING = """
import asyncio, pathlib, time
import rollforge as rf

def tasks(n: int = 8, wait: float = 0.0, block: bool = False):
    for i in range(n):
        yield {"prompt": str(i), "answer": str(i), "wait": wait if i else 0, "block": block and i > 0}

@rf.env(tasks=tasks)
async def waiting(reply, answer, wait, block):
    pathlib.Path(f"started-{answer}").touch()
    if block:
        time.sleep(wait)
    await asyncio.sleep(wait)
    return float(reply == answer)
"""


STARTED: list[subprocess.Popen[str]] = []


def start(folder: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    process = subprocess.Popen([ROLLFORGE, "collect", *arguments], cwd=folder, text=True, **pipes)
    STARTED.append(process)
    return process


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.kill()
        process.communicate()


def collect(folder: Path, *arguments: str, status: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    process = start(folder, *arguments, **options)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, f"{process.returncode}\n{out}\n{err}"
    assert "Traceback" not in (err or "")
    return subprocess.CompletedProcess(arguments, process.returncode, out or "", err or "")


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def waits(folder: Path, number: int) -> bool:
    """Whether the first rollout is stored and `number` more have come as far as their verifier."""
    return len(stored(folder / "a")) == 1 and len(list(folder.glob("started-*"))) == number + 1


def stored(folder: Path) -> list[tuple[int, int]]:
    file = folder / "rollouts.jsonl"
    return sorted(keys(file)) if file.exists() else []


@pytest.fixture
def waiting(tmp_path: Path) -> Path:
    (tmp_path / "waiting.py").write_text(WAITING)
    return tmp_path


# Results


def test_a_run_and_its_resume(tmp_path: Path) -> None:
    arguments = [
        "arithmetic",
        "-m",
        "scripted:flaky:0.5",
        "-n",
        "5",
        "-k",
        "2",
        "--seed",
        "1",
        "--set",
        "backoff=0",
        "-o",
        "a",
    ]
    done = collect(tmp_path, *arguments, "--max-attempts", "1", status=1)
    assert done.stderr.splitlines()[0] == "arithmetic with scripted:flaky:0.5 -> a"
    assert "\x1b" not in done.stdout + done.stderr
    lines = done.stdout.splitlines()
    judged = len(stored(tmp_path / "a"))
    assert 0 < judged < 10
    assert lines[0].endswith(f"over {judged} of 10 rollouts (coverage {judged * 10:.1f}%)")
    assert lines[1] == f"outcomes: {judged} scored, {10 - judged} infra_fault"
    assert f"{10 - judged} infra_fault in model" in lines[2]
    assert "the same command with --out a --retry-failed" in done.stdout
    assert collect(tmp_path, *arguments, "--max-attempts", "1", status=1).stdout.splitlines()[:2] == lines[:2]
    done = collect(tmp_path, *arguments, "--max-attempts", "99", "--retry-failed")
    assert "outcomes: 10 scored\n" in done.stdout
    assert stored(tmp_path / "a") == [(index, repeat) for index in range(5) for repeat in range(2)]


FAULTY = """
import rollforge as rf

def solve(task):
    yield from ()
    return task.fields["answer"]

@rf.env(tasks=[{"prompt": f"q {n}", "answer": str(n)} for n in range(4)], solve=solve)
def faulty(reply, answer):
    if answer == "2":
        raise KeyError("no judge")
    return float(reply == answer)
"""


BROKEN = """
import rollforge as rf

@rf.env(tasks=[{"prompt": f"q {n}", "n": n} for n in range(4)])
class Broken:
    def reset(self, n):
        if n == 2:
            raise KeyError("no such file")
    def verify(self):
        return 1.0
    def solve(self):
        return ""
"""


def test_what_an_environment_broke_is_not_for_reverify(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    for _ in range(2):
        said = collect(tmp_path, "broken.py", "-m", "scripted:perfect", "-o", "a", status=1).stdout
        assert "1 rollout ended by a fault of the environment; mend it, then collect again with another --out" in said
        assert "reverify" not in said
        assert "--retry-failed" not in said


def test_what_a_verifier_could_not_judge_is_for_reverify(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    said = collect(tmp_path, "faulty.py", "-m", "scripted:perfect", "-o", "a", status=1).stdout
    assert "1 rollout could not be judged; mend the verifier, then: rollforge reverify a --env faulty.py\n" in said
    assert "--retry-failed" not in said
    assert "fault of the environment" not in said
    both = ["faulty.py", "-m", "scripted:flaky:0.5", "-k", "8", "--seed", "1", "--max-attempts", "1", "-o", "b"]
    said = collect(tmp_path, *both, status=1).stdout
    assert "rollforge reverify b --env faulty.py\n" in said
    assert "--out b --retry-failed" in said


def test_json(tmp_path: Path) -> None:
    done = collect(tmp_path, "arithmetic", "-m", "scripted:perfect", "-n", "3", "--json", "--price-in", "1", "-o", "a")
    result = json.loads(done.stdout)
    assert result["cost"] > 0
    assert {key: result[key] for key in ("run", "planned", "coverage", "success", "stopped", "bad_lines")} == {
        "run": "a",
        "planned": 3,
        "coverage": 1.0,
        "success": True,
        "stopped": None,
        "bad_lines": 0,
    }
    assert sum(result["outcomes"].values()) == 3


CONFIG = """
env: {use: arithmetic, level: hard}
model: scripted:perfect
limit: 4
repeats: 3
sampling: {temperature: 0.5, top_k: 20}
agent: {max_turns: 4}
deadlines: {call: 5}
"""


def test_yaml_and_options_alike(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(CONFIG)
    (tmp_path / "part.yaml").write_text("env: arithmetic\nlimit: 99\nsampling: {temperature: 0.9}\n")
    options = ["-n", "4", "-k", "3", "--temperature", "0.5", "--max-turns", "4", "--call-seconds", "5"]
    sets = ["--set", "env.level=hard", "--set", "sampling.top_k=20"]
    collect(tmp_path, "-c", "run.yaml", "-o", "yaml")
    collect(tmp_path, "arithmetic", "-m", "scripted:perfect", *options, *sets, "-o", "options")
    collect(tmp_path, "-c", "part.yaml", "-m", "scripted:perfect", *options, *sets, "-o", "both")
    abouts = []
    for name in ("yaml", "options", "both"):
        about = json.loads((tmp_path / name / "run.json").read_text())
        assert about["config"].pop("out") == name
        abouts.append((about["config"], about["identity"]))
        assert len(stored(tmp_path / name)) == 12
    assert abouts[0] == abouts[1] == abouts[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name an environment: rollforge env list"),
        (["arithmetic"], "give a model: --model tiny"),
        (["arithmetik", "-m", "tiny"], "unknown environment 'arithmetik'; did you mean arithmetic?"),
        (["arithmetic", "-m", "scriptd:perfect"], "unknown model 'scriptd'; did you mean scripted?"),
        (["arithmetic", "-m", "localhost:8000"], "a service is named by its URL, http://localhost:8000"),
        (["arithmetic", "-m", "scripted:prefect"], "unknown scripted policy 'prefect'; did you mean perfect?"),
        (["arithmetic", "-m", "tiny", "--set", "repeat=3"], "unknown key 'repeat'; did you mean repeats?"),
        (
            ["arithmetic", "-m", "tiny", "--set", "agent.turns=3"],
            "unknown option of the agent tool_loop 'turns'; did you mean max_turns?",
        ),
        (["arithmetic", "-m", "tiny", "--set", "split=test"], "unknown key 'split'; did you mean sampling or limit?"),
        (["arithmetic", "-m", "tiny", "--set", "level=hard"], "the environment's own are env.level"),
        (["arithmetic", "-m", "tiny", "--set", "env.levle=hard"], "unknown task option 'levle'; did you mean level?"),
        (["arithmetic", "-m", "tiny", "--set", "repeats"], "'repeats' is not of the form key=value"),
        (["arithmetic", "-m", "tiny", "--concurrency", "0"], "concurrency: Input should be greater than or equal to 1"),
        (
            ["arithmetic", "-m", "tiny", "--concurrency", str(10**9)],
            "concurrency: Input should be less than or equal to 100000",
        ),
        (["arithmetic", "-m", "tiny", "-k", str(10**9)], "repeats: Input should be less than or equal to 1048576"),
        (["arithmetic", "-m", "tiny", "--max-cost", "1"], "a budget of cost needs prices"),
        *[(["arithmetic", "-m", "tiny", "--set", f"agent={it}"], "the options: agent: ") for it in ("null", "3", "[x]")],
        (["arithmetic", "-m", "tiny", "--temperature", "nan"], "temperature is nan"),
        (["arithmetic", "-m", "tiny", "--header", "secret"], "--header is written 'Name: value'"),
        (["arithmetic", "-m", "scripted:perfect", "--tasks", "no.jsonl"], "cannot read no.jsonl: No such file or directory"),
        (["arithmetic", "-m", "scripted:perfect", "--tasks", "."], "cannot read .: "),
        (["no.py", "-m", "tiny"], "there is no file no.py"),
        (["-c", "no.yaml"], "cannot read no.yaml: No such file or directory"),
        (["-c", "bad.yaml"], "unknown key 'modle'; did you mean model? (in bad.yaml"),
        (["arithmetic", "-m", "scripted:perfect", "-o", "foreign"], "foreign is not empty and no run directory"),
        (["arithmetic", "-m", "scripted:perfect", "-o", "bad.yaml"], "cannot use bad.yaml as a run directory: File exists"),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else "",
)
def test_wrong_requests(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "bad.yaml").write_text("modle: tiny\n")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("")
    done = collect(tmp_path, *arguments, status=2)
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: ")
    assert said in error
    assert "secret" not in done.stderr
    assert os.listdir(tmp_path / "foreign") == ["thesis.tex"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("limit", ["1", str(10**20)])
def test_huge_values_are_values(tmp_path: Path, limit: str) -> None:
    many = ["--limit", limit, "--concurrency", "100000", "--max-attempts", "1000", "--max-tokens", str(10**20)]
    collect(tmp_path, "arithmetic", "-m", "scripted:perfect", *many, "--rollout-seconds", "1e300", "-o", "a")
    assert len(stored(tmp_path / "a")) == min(int(limit), 100)


# Signals


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal_finishes_what_is_in_flight(waiting: Path, number: signal.Signals, status: int) -> None:
    arguments = ["waiting.py", "-m", "scripted:perfect", "--concurrency", "3", "-o", "a"]
    process = start(waiting, *arguments, "--set", "env.wait=2")
    until(lambda: waits(waiting, 3), process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert f"{number.name}: finishing 3 rollouts in flight; again to stop at once" in err
    assert f"stopped: {number.name}; the same command with --out a goes on" in out
    assert stored(waiting / "a") == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert "4 scored, 4 cancelled" in out


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)])
def test_two_signals_stop_at_once(waiting: Path, numbers: tuple[signal.Signals, ...]) -> None:
    arguments = ["waiting.py", "-m", "scripted:perfect", "-o", "a", "--set", "env.wait=3600", "--rollout-seconds", "9999"]
    process = start(waiting, *arguments, "--verify-seconds", "9999")
    until(lambda: waits(waiting, 7), process)
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(numbers[0])
    assert process.stderr.readline().startswith(f"{numbers[0].name}: finishing 7")
    process.send_signal(numbers[1])
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130 if numbers[0] is signal.SIGINT else 143, "")
    assert "1 scored, 7 cancelled" in out
    assert json.loads((waiting / "a" / "metrics.json").read_text())["outcomes"]["cancelled"] == 7
    # What was in flight is no failure, and is done on resume.
    assert rows(waiting / "a" / "failures.jsonl") == []
    done = collect(waiting, *arguments, "--verify-seconds", "0.05", status=1)
    assert "1 scored, 7 timeout" in done.stdout


def test_signals_reach_a_loop_that_is_blocked(waiting: Path) -> None:
    blocking = ["--set", "env.wait=3600", "--set", "env.block=true", "--concurrency", "1"]
    process = start(waiting, "waiting.py", "-m", "scripted:perfect", "-o", "a", *blocking)
    until(lambda: len(stored(waiting / "a")) == 1, process)
    while process.poll() is None:  # the first is for the loop; a second later the next one interrupts what blocks it
        process.send_signal(signal.SIGINT)
        time.sleep(1.5)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "kept so far: 1; the same command with --out a goes on" in err
    assert stored(waiting / "a") == [(0, 0)]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_anything_was_started(tmp_path: Path, number: signal.Signals, status: int) -> None:
    (tmp_path / "slow.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)\n")
    process = start(tmp_path, "slow.py", "-m", "tiny", "-o", "a")
    assert process.stderr is not None
    assert process.stderr.readline() == "loading\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (status, "", "")
    assert not (tmp_path / "a").exists()


# Trouble


def test_two_writers(waiting: Path) -> None:
    arguments = ["waiting.py", "-m", "scripted:perfect", "-o", "a", "--set", "env.wait=3600"]
    process = start(waiting, *arguments)
    until(lambda: len(stored(waiting / "a")) == 1, process)
    second = collect(waiting, *arguments, status=2)
    assert f"error: a is being written by another collection (process {process.pid})" in second.stderr
    process.kill()
    process.communicate()
    assert stored(waiting / "a") == [(0, 0)]


def test_a_full_disk(tmp_path: Path) -> None:
    command = f"ulimit -f 20; exec {ROLLFORGE} collect arithmetic -m scripted:perfect --out a"  # 20 KiB a file
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: cannot write a/rollouts.jsonl: File too large"
    kept = len(stored(tmp_path / "a"))
    assert f"kept so far: {kept}; the same command with --out a goes on" in done.stderr
    assert 0 < kept < 100
    collect(tmp_path, "arithmetic", "-m", "scripted:perfect", "--out", "a")
    assert stored(tmp_path / "a") == [(index, 0) for index in range(100)]


def test_nobody_reads_the_progress(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    done = collect(tmp_path, "arithmetic", "-m", "scripted:perfect", "-n", "3", "-o", "a", stderr=theirs)
    os.close(theirs)
    assert "3 scored" in done.stdout


def test_tasks_that_break_off(tmp_path: Path) -> None:
    code = """
        import rollforge as rf
        readings = []
        def tasks():
            readings.append(1)
            for i in range(9):
                if i == 4 and len(readings) > 1:  # the first one counts
                    raise ConnectionError("the hub is down")
                yield {"prompt": str(i), "answer": str(i)}
        @rf.env(tasks=tasks)
        def broken(reply, answer): return float(reply == answer)
    """
    (tmp_path / "broken.py").write_text("\n".join(line[8:] for line in code.splitlines()))
    done = collect(tmp_path, "broken.py", "-m", "scripted:perfect", "-o", "a", status=2)
    assert "ConnectionError: the hub is down (broken.py:8)" in done.stderr.splitlines()[-1]
    assert "kept so far: 4; the same command with --out a goes on" in done.stderr
    assert len(stored(tmp_path / "a")) == 4


UNRULY = """
import os, sys, time
import rollforge as rf

MODES = ["good", "raises", "nan", "none", "text", "exits", "forks", "prints", "hangs", "tool good", "tool raises",
         "tool megabyte", "tool hangs", "no field"]

@rf.env(tasks=[{"prompt": mode, "mode": mode} for mode in MODES])
class unruly:
    def reset(self, mode):
        self.mode = mode

    def act(self, how: str) -> str:
        "Act."
        if how == "raises":
            raise OSError("out of order")
        if how == "hangs":
            time.sleep(3600)
        return "x" * 10**6 if how == "megabyte" else how

    def solve(self, mode):
        if mode.startswith("tool "):
            yield "act", {"how": mode.removeprefix("tool ")}
        return "done"

    def verify(self, mode):
        if mode == "raises":
            raise KeyError("nothing")
        if mode == "exits":
            os._exit(3)
        if mode == "forks" and os.fork() == 0:
            time.sleep(3600)
        if mode == "prints":
            print("\\033[31mred", file=sys.stderr)
        if mode == "hangs":
            time.sleep(3600)
        return {"nan": float("nan"), "none": None, "text": "1.0"}.get(mode, 1.0)
"""


def test_unruly_environments(tmp_path: Path) -> None:
    (tmp_path / "unruly.py").write_text(UNRULY)
    (tmp_path / "tasks.jsonl").write_text('{"prompt": "bare"}\n')
    limits = ["--tool-seconds", "2", "--verify-seconds", "2", "--max-attempts", "1", "--json"]
    done = collect(tmp_path, "unruly.py", "-m", "scripted:perfect", "-o", "a", *limits, status=1)
    found = {row["mode"]: row for name in ("rollouts", "failures") for row in rows(tmp_path / "a" / f"{name}.jsonl")}
    assert {mode: row["rollforge"]["outcome"] for mode, row in found.items()} == {
        **dict.fromkeys(["good", "forks", "prints", "no field"], "scored"),
        **dict.fromkeys(["raises", "nan", "none", "text", "exits"], "verifier_fault"),
        **dict.fromkeys(["hangs", "tool hangs"], "timeout"),
        **dict.fromkeys(["tool good", "tool raises", "tool megabyte"], "scored"),
    }
    assert "out of order" in json.dumps(found["tool raises"]["response"])
    assert 60_000 < len(json.dumps(found["tool megabyte"]["response"])) < 80_000
    assert json.loads(done.stdout)["outcomes"]["verifier_fault"] == 5
    bare = collect(tmp_path, "unruly.py", "-m", "scripted:echo", "--tasks", "tasks.jsonl", "-o", "b", status=1)
    assert "which the task row lacks" in bare.stdout


# On a terminal


def test_a_terminal_sees_how_it_is_going(waiting: Path) -> None:
    ours, theirs = pty.openpty()
    arguments = ["waiting.py", "-m", "scripted:perfect", "-o", "a", "--set", "env.wait=0.8", "--concurrency", "4"]
    process = start(waiting, *arguments, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"})
    os.close(theirs)
    seen = ""
    while piece := _read(ours):
        seen += piece
    out, _ = process.communicate(timeout=20)
    os.close(ours)
    assert process.returncode == 0
    for part in ("waiting with scripted:perfect -> a", "/8", "mean reward 1.000 over 100.0% of what ended", "4 in flight"):
        assert part in seen
    assert out.splitlines()[0] == "mean reward 1.0000 over 8 of 8 rollouts (coverage 100.0%)"


def _read(terminal: int) -> str:
    try:
        return os.read(terminal, 65_536).decode(errors="replace")
    except OSError:  # Linux's way to say that the other side is closed
        return ""
