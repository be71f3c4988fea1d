"""The commands of NeMo Gym's hand-off pages: transform_gym_to_grpo.py, transform_gym_to_sft.py, transform_gym_to_dpo.py."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from rollforge.cli.main import guarded

if TYPE_CHECKING:
    from rollforge.export.transform import Transformed


def grpo() -> None:
    """`transform_gym_to_grpo.py`"""
    parser = _parser("grpo", "Rollouts to NeMo RL's GRPO rows: {input, output, ground_truth}.")
    parser.add_argument("--reward_threshold", "--reward-threshold", type=number, help="least reward (default: all rollouts)")
    parser.add_argument("--no_ground_truth", "--no-ground-truth", action="store_true", help="leave ground_truth out")
    parser.add_argument(
        "--output_is",
        "--output-is",
        choices=["text", "answer"],
        default="text",
        help="what stands in output: the rollout's final text, or the expected answer (NeMo RL grades against output)",
    )
    parser.add_argument("--answer", metavar="FIELD", help="the field with the expected answer, dotted; A,B: the first there")
    parser.add_argument("--with_reward", "--with-reward", action="store_true", help="add the reward to each row")

    def work(options: argparse.Namespace) -> Transformed:
        from rollforge.export.transform import ToGrpo, transform_rows

        truth = not options.no_ground_truth
        make = ToGrpo(options.reward_threshold, truth, options.output_is, options.answer, options.with_reward)
        done = transform_rows(options.input, options.output, make, _workers(options))
        if options.output_is == "text" and done.written:
            other = "set output_key: ground_truth in its YAML, or use" if truth else "use"
            _warn(f"NeMo RL grades against `output`, here the text of the rollout: {other} --output_is answer")
        return done

    _run(parser, work, "rows")


def sft() -> None:
    """`transform_gym_to_sft.py`"""
    parser = _parser("sft", "Rollouts to NeMo RL's SFT rows: {messages, tools} or {input, output}.")
    parser.add_argument(
        "--reward_threshold", "--reward-threshold", type=number, default=0.95, help="least reward (default: 0.95)"
    )
    parser.add_argument("--format", choices=["openai", "simple"], default="openai", help="with tool calls, or text only")

    def work(options: argparse.Namespace) -> Transformed:
        from rollforge.export.transform import ToSft, transform_rows

        done = transform_rows(
            options.input, options.output, ToSft(options.reward_threshold, options.format), _workers(options)
        )
        if done.written < 100:
            _warn(f"fewer than 100 examples ({done.written}): a lower --reward_threshold or more rollouts")
        return done

    _run(parser, work, "rows")


def dpo() -> None:
    """`transform_gym_to_dpo.py`"""
    parser = _parser("dpo", "Rollouts to NeMo RL's DPO rows: {prompt, chosen, rejected, reward_gap, ...}.")
    parser.add_argument("--min_gap", "--min-gap", type=float, default=0.2, help="least difference in reward (default: 0.2)")
    parser.add_argument(
        "--strategy",
        choices=["same_prompt", "stratified", "all_pairs"],
        default="same_prompt",
        help="best with worst of a prompt; high with low ones; every two that differ enough",
    )
    parser.add_argument("--high_threshold", "--high-threshold", type=float, help="chosen from (default: 0.7)")
    parser.add_argument("--low_threshold", "--low-threshold", type=float, help="rejected up to (default: 0.4)")
    parser.add_argument(
        "--across_prompts",
        "--across-prompts",
        action="store_true",
        help="stratified: also pair answers to different prompts",
    )

    def work(options: argparse.Namespace) -> Transformed:
        from rollforge.export.options import validated
        from rollforge.export.pairs import Pairing, told_without_effect, without_effect
        from rollforge.export.transform import transform_pairs

        given = {
            "strategy": "stratified" if options.strategy == "stratified" else "same_prompt",
            "pick": "all_pairs" if options.strategy == "all_pairs" else None,
            "min_gap": options.min_gap,
            "high_threshold": options.high_threshold,
            "low_threshold": options.low_threshold,
            "across_prompts": options.across_prompts,
        }
        how = validated(Pairing, {name: value for name, value in given.items() if value is not None})
        for line in told_without_effect(without_effect(how)):
            _warn(line)
        return transform_pairs(options.input, options.output, how, _workers(options))

    _run(parser, work, "pairs")


def number(text: str) -> float:
    """argparse names it where it fails: invalid number value: 'nan'."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number to compare with")
    return value


def _parser(name: str, about: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"transform_gym_to_{name}.py", description=about, allow_abbrev=False)
    parser.add_argument("files", nargs="*", metavar="FILE", help="rollouts, as --input")
    parser.add_argument("--input", nargs="+", default=[], metavar="FILE", help="rollouts, JSON Lines")
    parser.add_argument("--output", metavar="FILE", help="JSON Lines (default: standard output)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")
    return parser


def _workers(options: argparse.Namespace) -> int:
    from pathlib import Path

    from rollforge.bulk.blocks import SIZE
    from rollforge.bulk.workers import cores

    given: int | None = options.workers
    if given is not None:
        return max(1, given)
    size = sum(Path(file).stat().st_size for file in options.input if Path(file).is_file())
    return max(1, min(cores(), size // SIZE))


def _run(parser: argparse.ArgumentParser, work: Callable[[argparse.Namespace], Transformed], noun: str) -> None:
    """Exit status 1 when nothing was written."""
    options = parser.parse_args()
    options.input = [*options.files, *options.input]
    if not options.input:
        parser.error("the following arguments are required: --input")

    def run() -> None:
        done = work(options)
        _say(done, options, noun)
        sys.exit(0 if done.written else 1)

    guarded(run)


def _say(done: Transformed, options: argparse.Namespace, noun: str) -> None:
    from rollforge.stats.text import plural
    from rollforge.stats.visible import visible

    out = sys.stdout if options.output else sys.stderr
    for place in done.named:
        _warn(visible(place))
    unusable = sum(done.unusable.values())
    if unusable > len(done.named):
        _warn(f"and {unusable - len(done.named):,} more rows that cannot be used")
    for note, count in done.notes.items():
        if count:
            _warn(f"{count:,} {note}")
    parts = [f"{plural(done.read, 'line')} read"]
    if unusable:
        parts.append(f"{unusable:,} cannot be used")
    if done.below:
        parts.append(f"{done.below:,} below the reward threshold")
    print(", ".join(parts), file=out)
    if done.funnel is not None:
        tasks = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in done.funnel.row().items())
        print(tasks, file=out)
    if not done.written:
        where = f"; {options.output} was not written" if options.output else ""
        print(f"error: no {noun} created{where}", file=sys.stderr)
    else:
        print(f"{done.written:,} {noun} written{f' to {options.output}' if options.output else ''}", file=out)
        if done.funnel is not None:
            gap, chosen, rejected = (total / done.written for total in done.sums)
            print(f"mean reward gap {gap:.3f}, chosen {chosen:.3f}, rejected {rejected:.3f}", file=out)
    for line in done.advice:
        print(f"  {line}", file=sys.stderr)


def _warn(text: str) -> None:
    print(text, file=sys.stderr)
