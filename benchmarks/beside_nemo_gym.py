"""What one `/run` costs here and in NeMo Gym, in turns on the same machine: the same rows, the same stub upstream, agent,
environment and model each in a process of its own. Theirs are started by their own `ng_run`, their code as it is.

    python benchmarks/beside_nemo_gym.py CHECKOUT --python VENV/bin/python

CHECKOUT is one of NVIDIA-NeMo/Gym; VENV has it installed (`pip install -e CHECKOUT`), and stands for the one that `ng_run`
would make for each server, so that nothing is downloaded. The bar: an eighth of their CPU. Exit status as of `serve.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from processes import Stub, give_up, stub
from serve import Service, bar, cost, row, three

START_SECONDS = 300.0
"""Ray first, and many imports in each server."""
ENVIRONMENT = "example_single_tool_call"
"""Our `weather` takes its rows and answers as it does."""
MODELS = {"vllm_model": "chat:stub", "openai_model": "openai:stub"}
"""Their model server, and ours that asks the upstream in the same dialect."""
KINDS = {"resources_servers": "environment", "responses_api_models": "model", "responses_api_agents": "agent"}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
TOOL = {"type": "function", "name": "get_weather", "description": "", "parameters": CITY, "strict": True}
ROW = json.dumps({"responses_create_params": {"tools": [TOOL]}})


@contextmanager
def nemo_gym(options: argparse.Namespace, upstream: Stub) -> Iterator[tuple[dict[str, Service], Service]]:
    """Its three servers under way, and all that `ng_run` started: these, the head and Ray."""
    with tempfile.TemporaryDirectory() as scratch, open(Path(scratch, "log"), "w+b") as log:
        head = Service(0, f"http://127.0.0.1:{_free_port()}")
        environ = {**os.environ, "PATH": f"{options.python.parent}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"}
        command = _ng_run(options, upstream.url, head.url, Path(scratch))
        places = {"cwd": scratch, "env": environ, "stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        process = subprocess.Popen(command, start_new_session=True, **places)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not (services := _started(head)):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    give_up(f"ng_run started no three servers; it said:\n{log.read().decode(errors='replace')[-3000:]}")
                time.sleep(1)
            yield services, Service(process.pid, head.url)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _ng_run(options: argparse.Namespace, upstream: str, head: str, scratch: Path) -> list[str]:
    model = f"responses_api_models/{options.model}"
    for server in (f"resources_servers/{ENVIRONMENT}", model, "responses_api_agents/simple_agent"):
        (scratch / server).mkdir(parents=True)
        (scratch / server / ".venv").symlink_to(options.python.parent.parent)
    configs = (f"{model}/configs/{options.model}", f"resources_servers/{ENVIRONMENT}/configs/{ENVIRONMENT}")
    return [
        str(options.python.with_name("ng_run")),
        f"+config_paths=[{','.join(f'{options.checkout / name}.yaml' for name in configs)}]",
        *(f"+policy_base_url={upstream}", "+policy_api_key=none", "+policy_model_name=stub"),
        *("+skip_venv_if_present=true", f"+uv_venv_dir={scratch}"),
        *("+head_server.host=127.0.0.1", f"+head_server.port={head.rpartition(':')[2]}"),
    ]


def _started(head: Service) -> dict[str, Service]:
    """The three by what they are; none as long as one of them does not answer."""
    try:
        found = {KINDS[one["server_type"]]: Service(one["pid"], one["url"]) for one in head.get("/server_instances")}
        for service in found.values():
            service.get("/openapi.json")
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return {}
    return found if len(found) == len(KINDS) else {}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=lambda path: Path(path).resolve(), help="of NVIDIA-NeMo/Gym")
    parser.add_argument(
        "--python", type=lambda path: Path(path).absolute(), required=True, help="of an environment that has it"
    )
    parser.add_argument("--model", choices=MODELS, default="vllm_model", help="its model server")
    parser.add_argument("--rollouts", type=int, default=1_000, help="of a turn")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    answers = ("--tool", "get_weather", "--arguments", '{"city": "Oslo"}', "--reply", "It is cold in Oslo.")
    ours: dict[str, list[float]] = {}
    theirs: dict[str, list[float]] = {}
    rest, ratios = [], []
    with (
        stub("--latency", "fixed:0.02", *answers) as upstream,
        nemo_gym(options, upstream) as (gym, started),
        three(upstream, "weather", MODELS[options.model]) as services,
    ):
        for turn in range(options.rounds + 1):
            count = options.rollouts if turn else options.rollouts // 10
            before = started.cpu()
            their = cost(gym, options.concurrency, count, "--row", ROW)
            other = 1000 * (started.cpu() - before) / count - sum(their[name] for name in gym)
            our = cost(services, options.concurrency, count, "--row", ROW)
            if not turn:
                continue  # connections, caches, lazy imports
            for seen, used, names in ((theirs, their, gym), (ours, our, services)):
                for name, value in {**used, "sum": sum(used[name] for name in names)}.items():
                    seen.setdefault(name, []).append(value)
            rest.append(other)
            ratios.append(ours["sum"][-1] / theirs["sum"][-1])
            print(f"round {turn}: {theirs['sum'][-1]:.2f} ms, {ours['sum'][-1]:.2f} ms; load {os.getloadavg()[0]:.1f}")
    print(f"concurrency {options.concurrency}, {options.rollouts} /run a turn, median (min to max)")
    for name, seen in (("NeMo Gym", theirs), ("rollforge", ours)):
        for part, values in seen.items():
            row(f"{name}: {part}", values, "ms per /run")
    row("NeMo Gym: head, Ray", rest, "ms per /run (not in the sum)")
    row("ratio of the sums", ratios, "")
    sys.exit(0 if bar("CPU of the three processes", statistics.median(ratios), 1 / 8, "of NeMo Gym's") else 1)


if __name__ == "__main__":
    main()
