"""What the services cost: environment, agent and model each in a process of its own. A rollout is two model calls with a
tool call between them.

    python benchmarks/serve.py cpu     CPU over the three processes per `/run`
    python benchmarks/serve.py soak    many `/run` at once while 1 % of the upstream answers are faults: memory, answers
    python benchmarks/serve.py start   from the command to `/ready`

`--quick` makes each take seconds. Every figure is printed with its bar. Exit status: 1 when a bar is missed, 2 when
something failed and there is no figure.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from processes import HERE, Stub, give_up, measure, rollforge, running, stub

TICK = os.sysconf("SC_CLK_TCK")
START_SECONDS = 60.0
FAULTS = ("500", "429", "drop", "garbage", "truncate")
LOOKUP = f"{HERE / 'lookup.py'}:Lookup"
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Service:
    """A service under way."""

    def __init__(self, pid: int, url: str) -> None:
        self.url = url
        self._pid = pid

    def cpu(self) -> float:
        """Seconds, user and system, of the process and its children."""
        return sum(sum(map(int, _stat(pid)[11:15])) for pid in self._tree()) / TICK

    def rss_mb(self) -> float:
        return sum(int(_stat(pid)[21]) for pid in self._tree()) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def get(self, path: str) -> dict[str, Any]:
        with OPENER.open(f"{self.url}{path}", timeout=30) as answer:
            return json.loads(answer.read())  # type: ignore[no-any-return]

    def _tree(self) -> list[int]:
        found = [self._pid]
        for pid in found:
            children = Path(f"/proc/{pid}/task/{pid}/children")
            found += map(int, children.read_text().split()) if children.exists() else []
        return found


@contextmanager
def serving(*arguments: str) -> Iterator[Service]:
    command = [rollforge(), "serve", *arguments, "--port", "0", "--json"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            give_up(f"{' '.join(command)} ended with {process.wait()} before it served")
        yield Service(process.pid, json.loads(line)["url"])
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=90)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def three(server: Stub, env: str = LOOKUP, model: str = "chat:stub") -> Iterator[dict[str, Service]]:
    """The environment, the model in front of the stub, and the agent that knows both by URL."""
    with ExitStack() as stack:
        environment = stack.enter_context(serving(env))
        upstream = stack.enter_context(serving("--model", model, "--base-url", server.url, "--call-seconds", "20"))
        agent = stack.enter_context(serving(environment.url, "--model", upstream.url))
        yield {"environment": environment, "model": upstream, "agent": agent}


def cpu(options: argparse.Namespace) -> bool:
    rollouts = options.rollouts or (1_000 if options.quick else 5_000)
    concurrency = options.concurrency or 64
    total: list[float] = []
    parts: dict[str, list[float]] = {}
    with stub("--latency", "fixed:0.02") as server, three(server) as services:
        cost(services, concurrency, max(50, rollouts // 10))  # connections, caches, lazy imports
        for _ in range(options.rounds or (2 if options.quick else 5)):
            used = cost(services, concurrency, rollouts)
            total.append(sum(used[name] for name in services))
            for name, value in {**used, "(bare client)": _bare(server, concurrency, rollouts)}.items():
                parts.setdefault(name, []).append(value)
    print(f"concurrency {concurrency}, {rollouts} /run a round, median (min to max) of {len(total)} rounds")
    # What this machine is worth in these minutes: the two model calls alone, by a client that does nothing else.
    for name, values in parts.items():
        row(name, values, "ms per /run")
    return bar("CPU of the three processes", statistics.median(total), 3.0, "ms per /run (an eighth of 25)")


def soak(options: argparse.Namespace) -> bool:
    seconds = options.seconds or (20 if options.quick else 600)
    concurrency = options.concurrency or (50 if options.quick else 1000)
    faults = [part for kind in FAULTS for part in ("--fault", f"{kind}={0.0018}")]
    latency = ("--latency", "lognormal:0.5:3:6", *faults, "--fault", "hang=0.001")
    with stub(*latency) as server, three(server) as services:
        client = [sys.executable, str(HERE / "run_client.py"), services["agent"].url]
        sizes: list[dict[str, float]] = []
        with running(*client, "--concurrency", str(concurrency), "--seconds", str(seconds), "--patience", "120") as process:
            begun = time.monotonic()
            while not process.ended():
                if time.monotonic() - begun >= len(sizes) * seconds / 20:
                    sizes.append({name: service.rss_mb() for name, service in services.items()})
                time.sleep(0.1)
            seen = json.loads(process.end(seconds + 300).output)
        stats = server.stats()
        time.sleep(1)
        state = {name: service.get("/status") for name, service in services.items()}
    print(f"concurrency {concurrency} for {seconds} s: {seen['answers']} answers, {seen['per_second']:.0f} per second")
    print(f"  rewards {seen['rewards']}, faults {seen['faults']}; the stub failed {stats['faults']} of {stats['requests']}")
    print(f"  an answer took {seen['p50']:.2f} s (median), {seen['longest']:.1f} s at most")
    early, late = sizes[len(sizes) // 4], sizes[-1]
    for name in services:
        print(f"  {name:12} MB over time: {' '.join(f'{size[name]:.0f}' for size in sizes)}")
    kept = bar("answers that are neither reward nor named fault", sum(seen["unnamed"].values()), 0, "")
    for what in seen["unnamed"]:
        print(f"       {what}")
    waiting = sum(int(one.get("in_flight", 0)) for one in state.values())
    kept &= bar("requests still in flight afterwards", waiting, 0, "")
    kept &= bar("sessions left", state["environment"]["sessions"]["open"], 0, "")
    growth = max(late[name] - early[name] for name in services)
    # The first quarter fills pools. What is fragmented varies by a few megabytes.
    return bar("growth of any process after the first quarter", growth, 10.0, "MB") and kept


def start(options: argparse.Namespace) -> bool:
    forms = {
        "environment": [f"{HERE / 'lookup.py'}:Lookup"],
        "environment (arithmetic)": ["arithmetic"],
        "model (tiny)": ["--model", "tiny"],
        "agent (scripted)": ["arithmetic", "--model", "scripted:perfect"],
        "agent (tiny)": ["arithmetic", "--model", "tiny"],
    }
    kept = True
    for name, arguments in forms.items():
        taken, used = [], []
        for _ in range(options.rounds or (2 if options.quick else 7)):
            begun = time.perf_counter()
            with serving(*arguments) as service:
                _until_ready(service, begun)
                taken.append(time.perf_counter() - begun)
                used.append(service.cpu())
        row(name, taken, "s to /ready")
        row("  of them CPU", used, "s")
        kept &= bar(name, statistics.median(taken), 2.0, "s")
    return kept


BENCHMARKS: dict[str, Callable[[argparse.Namespace], bool]] = {"cpu": cpu, "soak": soak, "start": start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=BENCHMARKS)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes; figures are rougher")
    parser.add_argument("--rollouts", type=int, help="of a round of cpu")
    parser.add_argument("--concurrency", type=int, help="instead of the benchmark's own")
    parser.add_argument("--rounds", type=int, help="repetitions, where there are any")
    parser.add_argument("--seconds", type=int, help="of soak")
    options = parser.parse_args()
    sys.exit(0 if BENCHMARKS[options.which](options) else 1)


def cost(services: dict[str, Service], concurrency: int, rollouts: int, *client: str) -> dict[str, float]:
    """CPU milliseconds per `/run` of each service, and of the client. Every answer must have a reward."""
    before = {name: service.cpu() for name, service in services.items()}
    command = [sys.executable, str(HERE / "run_client.py"), services["agent"].url, *client]
    output = measure(*command, "--concurrency", str(concurrency), "--rollouts", str(rollouts), seconds=1800).output
    used = {name: service.cpu() - before[name] for name, service in services.items()}
    seen = json.loads(output)
    if seen["rewards"] != rollouts:
        give_up(f"{seen['rewards']} of {rollouts} answers had a reward; the others: {seen}")
    return {name: 1000 * seconds / rollouts for name, seconds in {**used, "(client)": seen["cpu"]}.items()}


def _bare(server: Stub, concurrency: int, rollouts: int) -> float:
    options = ["--concurrency", str(concurrency), "--rollouts", str(rollouts)]
    used = measure(sys.executable, str(HERE / "bare_client.py"), server.url, *options, seconds=1800)
    return float(json.loads(used.output)["cpu_ms"])


def row(name: str, values: list[float], unit: str) -> None:
    print(f"  {name:26} {statistics.median(values):8.3f} ({min(values):.3f} to {max(values):.3f}) {unit}")


def _until_ready(service: Service, begun: float) -> None:
    while time.perf_counter() < begun + START_SECONDS:
        try:
            if service.get("/ready")["status"] == "ready":
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.01)
    give_up(f"{service.url} was not ready after {START_SECONDS:g} s")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, which may hold anything; zeros for one that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["0"] * 50


def bar(name: str, value: float, bar: float, unit: str) -> bool:
    kept = value <= bar
    print(f"  {'ok  ' if kept else 'MISS'} {name}: {value:.3g}; bar {bar:g} {unit}".rstrip())
    return kept


if __name__ == "__main__":
    main()
