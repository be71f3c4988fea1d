"""What the engine costs: `rollforge collect` against a stub model server, two model calls and one tool call a rollout.

    python benchmarks/engine.py cpu       CPU per rollout, against a bare client that makes the same two calls
    python benchmarks/engine.py memory    peak memory at concurrency 1,000
    python benchmarks/engine.py tail      share of the ideal throughput with heavy-tailed latency, 10,000 at a time
    python benchmarks/engine.py growth    memory of ten times as many rollouts
    python benchmarks/engine.py start     `rollforge --help`, and the first verified rollout

`--quick` makes each take seconds. Every figure is printed with its bar. Exit status: 1 when a bar is missed, 2 when
something failed and there is no figure.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from processes import HERE, Measured, Running, Stub, collect_command, give_up, measure, rollforge, running, scored, stub

MOST_SECONDS = 1800.0
"""Of one collection; none of them should take half of it."""


@dataclass(frozen=True)
class Sizes:
    """How much of it; `None` is the benchmark's own choice, which depends on `quick`."""

    quick: bool
    rollouts: int | None
    concurrency: int | None
    rounds: int | None
    scale: float
    """Multiplies the latencies of `tail`, and how long it looks."""

    def pick(self, name: str, full: int, quick: int) -> int:
        given: int | None = getattr(self, name)
        return given if given is not None else quick if self.quick else full


def cpu(sizes: Sizes) -> bool:
    """Ours and bare in turns, in the same minutes; the cost of starting up is measured with few rollouts and taken off."""
    kept = True
    for concurrency in [sizes.concurrency] if sizes.concurrency else [100, 1000]:
        rollouts = sizes.pick("rollouts", 20_000, 4_000)
        few = max(1, min(10, rollouts // 10))
        bare, ours, total, speed = [], [], [], []
        with stub("--latency", "fixed:0.05") as server:
            for _ in range(sizes.pick("rounds", 5, 2)):
                bare.append(_bare(server, concurrency, rollouts))
                start = _collect(server, concurrency=concurrency, rollouts=few)
                full = _collect(server, concurrency=concurrency, rollouts=rollouts)
                ours.append(1000 * (full.cpu - start.cpu) / (rollouts - few))
                total.append(1000 * full.cpu / rollouts)
                speed.append(rollouts / full.seconds)
            stats = server.stats()
        ratio = statistics.median(ours) / statistics.median(bare)
        print(f"concurrency {concurrency}, {rollouts} rollouts, median (min to max) of {len(bare)} rounds")
        _row("bare client, CPU", bare, "ms per rollout")
        _row("rollforge, CPU", ours, "ms per rollout")
        _row("  with starting up", total, "ms per rollout")
        _row("rollforge, speed", speed, "rollouts per second")
        print(f"  stub server, CPU       {1e6 * stats['cpu'] / stats['requests']:8.1f} us per request")
        kept &= _bar("rollforge / bare", ratio, 4.0, "times; the aim is 2")
    return kept


def memory(sizes: Sizes) -> bool:
    concurrency, rollouts = sizes.pick("concurrency", 1000, 1000), sizes.pick("rollouts", 20_000, 5_000)
    with stub("--latency", "fixed:0.2") as server:
        used = _collect(server, concurrency=concurrency, rollouts=rollouts)
        most = server.stats()["most_waiting"]
    print(f"concurrency {concurrency} ({most} requests at once), {rollouts} rollouts in {used.seconds:.1f} s")
    return _bar("peak memory", used.peak_mb, 150.0, "MB")


def tail(sizes: Sizes) -> bool:
    """In the steady state: the first rollouts all start at once and the last wait for the slowest, which says nothing."""
    concurrency = sizes.pick("concurrency", 10_000, 2_000)
    seconds = (1, 8, 20, 1.5, 6, 12) if sizes.quick else (8, 60, 240, 11.6, 60, 120)
    median, p99, most, mean, warm, window = (sizes.scale * value for value in seconds)
    latency = f"lognormal:{median:g}:{p99:g}:{most:g}"
    # Enough to keep every place taken until the window is over; then a bit.
    planned = sizes.pick("rollouts", *[int(1.1 * concurrency * (warm + window) / (2 * mean)) + concurrency] * 2)
    with stub("--latency", latency) as server, tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = collect_command(server.url, out, concurrency=concurrency, rollouts=planned)
        with running(*command) as process:
            before, after = _window(process, server, warm, window)
            used = process.end(MOST_SECONDS)
        stats, done = server.stats(), scored(out)
    if after["now"] == before["now"] or not after["drawn"]:
        give_up(f"the collection ended after {used.seconds:.1f} s, before its steady state: more --rollouts")
    between = {key: after[key] - before[key] for key in ("finals", "held", "now", "cpu", "requests")}
    episode = 2 * after["delay"] / after["drawn"]
    ideal = concurrency / episode
    reached = between["finals"] / between["now"]
    print(f"concurrency {concurrency}, {latency}: an episode takes {episode:.2f} s on average; {done} of {planned} scored")
    print(f"  throughput {reached:.1f} of {ideal:.1f} rollouts per second, over {between['now']:.0f} s")
    print(f"  places waiting for the model, on average: {between['held'] / between['now'] / concurrency:.1%}")
    print(
        f"  at once at most {stats['most_waiting']}; connections {stats['connections']}; peak memory {used.peak_mb:.0f} MB"
    )
    print(f"  CPU {1000 * used.cpu / planned:.3f} ms per rollout; whole run {used.seconds:.0f} s")
    kept = _bar("share of the ideal throughput", reached / ideal, 0.95, "(at least)", least=True)
    return _bar("rollouts without a reward", planned - done, 0, "") and kept


def growth(sizes: Sizes) -> bool:
    rollouts = sizes.pick("rollouts", 100_000, 20_000)
    concurrency = sizes.pick("concurrency", 500, 500)
    with stub() as server:
        small = _collect(server, concurrency=concurrency, rollouts=rollouts // 10, repeats=4)
        large = _collect(server, concurrency=concurrency, rollouts=rollouts, repeats=4)
    print(f"{rollouts // 10} rollouts: {small.peak_mb:.1f} MB; {rollouts}: {large.peak_mb:.1f} MB in {large.seconds:.0f} s")
    return _bar("memory of ten times as many", large.peak_mb / small.peak_mb, 1.10, "times")


def start(sizes: Sizes) -> bool:
    def first() -> Measured:
        with tempfile.TemporaryDirectory() as folder:
            env = f"{HERE / 'lookup.py'}:Lookup"
            options = ["--model", "scripted:perfect", "--limit", "1", "--out", f"{folder}/run"]
            used = measure(rollforge(), "collect", env, *options, seconds=60)
            scored(Path(folder) / "run")
            return used

    rounds = sizes.pick("rounds", 10, 3)
    help_seconds = [measure(rollforge(), "--help", seconds=60).seconds for _ in range(rounds)]
    first_seconds = [first().seconds for _ in range(rounds)]
    _row("rollforge --help", help_seconds, "s")
    _row("first verified rollout", first_seconds, "s")
    kept = _bar("rollforge --help", statistics.median(help_seconds), 0.3, "s")
    return _bar("first verified rollout", statistics.median(first_seconds), 2.0, "s") and kept


BENCHMARKS: dict[str, Callable[[Sizes], bool]] = {
    "cpu": cpu,
    "memory": memory,
    "tail": tail,
    "growth": growth,
    "start": start,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=BENCHMARKS)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes; figures are rougher")
    parser.add_argument("--rollouts", type=int, help="instead of the benchmark's own number")
    parser.add_argument("--concurrency", type=int, help="instead of the benchmark's own")
    parser.add_argument("--rounds", type=int, help="repetitions, where there are any")
    parser.add_argument("--scale", type=float, default=1.0, help="of the latencies of tail, and of how long it looks")
    options = parser.parse_args()
    sizes = Sizes(options.quick, options.rollouts, options.concurrency, options.rounds, options.scale)
    sys.exit(0 if BENCHMARKS[options.which](sizes) else 1)


def _collect(server: Stub, *, concurrency: int, rollouts: int, repeats: int = 1) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = collect_command(server.url, out, concurrency=concurrency, rollouts=rollouts, repeats=repeats)
        used = measure(*command, seconds=MOST_SECONDS)
        done = scored(out)
        if done != rollouts // repeats * repeats:
            give_up(f"{done} of {rollouts} rollouts have a reward; the command said:\n{used.output}")
        return used


def _bare(server: Stub, concurrency: int, rollouts: int) -> float:
    options = ["--concurrency", str(concurrency), "--rollouts", str(rollouts)]
    used = measure(sys.executable, str(HERE / "bare_client.py"), server.url, *options, seconds=MOST_SECONDS)
    return float(json.loads(used.output)["cpu_ms"])


def _window(process: Running, server: Stub, warm: float, window: float) -> tuple[dict[str, float], dict[str, float]]:
    """The stub's statistics at the beginning and the end of the steady state; shorter if the collection is. They begin with
    the first answer's delay: how long the start takes is another benchmark's."""
    while not process.ended() and not server.stats()["drawn"]:
        time.sleep(0.05)
    begin = time.monotonic()
    before = after = server.stats()
    while time.monotonic() < begin + warm + window and not process.ended():
        time.sleep(0.2)
        after = server.stats()
        if time.monotonic() < begin + warm:
            before = after
    return before, after


def _row(name: str, values: list[float], unit: str) -> None:
    print(f"  {name:22} {statistics.median(values):8.3f} ({min(values):.3f} to {max(values):.3f}) {unit}")


def _bar(name: str, value: float, bar: float, unit: str, *, least: bool = False) -> bool:
    kept = value >= bar if least else value <= bar
    print(f"  {'ok  ' if kept else 'MISS'} {name}: {value:.3g}; bar {bar:g} {unit}".rstrip())
    return kept


if __name__ == "__main__":
    main()
