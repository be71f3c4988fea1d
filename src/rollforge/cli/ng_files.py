"""The `ng_*` commands that have to do with files: data sets, rollouts, a new server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollforge.cli.ng_command import Command, number, say, tell, text
from rollforge.errors import UserError, unknown

if TYPE_CHECKING:
    from rollforge.nemo.arguments import Arguments
    from rollforge.records.rows import BadLine


def prepare(command: Command, arguments: Arguments) -> int:
    from rollforge.nemo.config import read_config
    from rollforge.nemo.data import IN_SCOPE, prepare

    config = command.checked(read_config(arguments, strict=False))
    values = config.values
    mode = values.get("mode")
    if mode not in IN_SCOPE:
        raise unknown("mode", str(mode), IN_SCOPE, "(+mode=)")
    output = Path(text(values, "output_dirpath"))
    done = prepare(config, output, mode, overwrite=bool(values.get("overwrite_metrics_conflicts")), say=print)
    tell(done.bad)
    for path in done.conflicts:
        say(
            f"{path} describes other data than there are now: what was found is in {path.stem}_conflict.json; delete it, or "
            "give +overwrite_metrics_conflicts=true"
        )
    for type, file in done.files.items():
        print(f"{type}: {done.rows.get(type, 0)} rows in {file}")
    return 1 if done.bad or done.conflicts else 0


def viewer(command: Command, arguments: Arguments) -> None:
    from rollforge.cli.show import show
    from rollforge.cli.stats import stats
    from rollforge.nemo.rows import same_file

    values = command.only(arguments)
    path = text(values, "jsonl_fpath")
    html = Path(text(values, "html")) if values.get("html") else None
    if html is not None and same_file(html, Path(path)):
        raise UserError(f"{html} holds the rollouts: choose another +html")
    say("there is no web viewer yet: statistics and the first rollouts (a report: +html=FILE; all rollouts: rollforge show)")
    stats([path], env=None, success=1.0, tasks=None, bad=False, workers=None, json=False, html=html)
    show(path, task=None, index=None, best=False, worst=False, failures=False, limit=number(values, "limit"), full=False)


def profile(command: Command, arguments: Arguments) -> None:
    from rollforge.nemo.profile import reward_profile, write_jsonl
    from rollforge.nemo.rows import same_file
    from rollforge.records.lossless import dumps

    values = command.only(arguments)
    rollouts = Path(text(values, "rollouts_jsonl_fpath"))
    inputs = _planned(values, rollouts)
    profile = Path(values.get("output_jsonl_fpath") or rollouts.with_name(f"{rollouts.stem}_reward_profiling.jsonl"))
    for read in (rollouts, inputs, Path(values.get("input_jsonl_fpath") or inputs)):
        if same_file(read, profile):
            raise UserError(f"{profile} is what is read: choose another +output_jsonl_fpath")
    threshold = values.get("pass_threshold")
    if threshold is not None and type(threshold) not in (int, float):
        raise UserError(f"pass_threshold is {threshold!r}, not a number")
    bad: list[BadLine] = []
    partial = bool(values.get("allow_partial_rollouts"))
    tasks, agents = reward_profile(inputs, rollouts, bad.append, partial=partial, threshold=threshold)
    tell(bad)
    profile.parent.mkdir(parents=True, exist_ok=True)
    metrics = rollouts.with_name(f"{rollouts.stem}_agent_metrics.json")
    write_jsonl(profile, tasks)
    metrics.write_bytes(dumps(agents))
    print(f"{len(tasks)} tasks: {profile}\n{len(agents)} agents: {metrics}")


def _planned(values: dict[str, Any], rollouts: Path) -> Path:
    """The materialized inputs; where a file of tasks was given, as NeMo Gym once took it, those beside the rollouts."""
    from rollforge.nemo.profile import is_plan

    beside = rollouts.with_name(f"{rollouts.stem}_materialized_inputs.jsonl")
    given = values.get("materialized_inputs_jsonl_fpath") or values.get("input_jsonl_fpath")
    if given is None or values.get("materialized_inputs_jsonl_fpath") or is_plan(Path(given)):
        return Path(given or beside)
    say(f"{given} holds no materialized inputs: what was planned is read from {beside}")
    return beside


def aggregate(command: Command, arguments: Arguments) -> None:
    from rollforge.nemo.collect import Files
    from rollforge.nemo.profile import matching, merge_shards, metrics_by_agent
    from rollforge.records.lossless import dumps

    values = command.only(arguments, more=("config_paths", "head_server"))
    shards, output = matching(text(values, "input_glob")), Path(text(values, "output_jsonl_fpath"))
    output.parent.mkdir(parents=True, exist_ok=True)
    bad: list[BadLine] = []
    source = shards
    if values.get("merge_shards", True):
        print(f"{merge_shards(shards, output, bad.append, say)} rollouts of {len(shards)} shards: {output}")
        source = [output]
    metrics = Files(output).metrics
    metrics.write_bytes(dumps(metrics_by_agent(source, bad.append, say)) + b"\n")
    tell(bad)
    print(f"metrics: {metrics}")


def averages(command: Command, arguments: Arguments) -> None:
    import json

    from rollforge.nemo.profile import averages

    bad: list[BadLine] = []
    found = averages(Path(text(command.only(arguments), "jsonl_fpath")), bad.append)
    tell(bad)
    print(json.dumps(found, indent=4))


def materialize(command: Command, arguments: Arguments) -> int:
    from rollforge.nemo.profile import write_jsonl
    from rollforge.nemo.prompt import read_prompt
    from rollforge.nemo.rows import prompted, same_file

    values = command.only(arguments)
    source, output = Path(text(values, "input_jsonl_fpath")), Path(text(values, "output_jsonl_fpath"))
    if same_file(source, output):
        raise UserError(f"{source} holds the rows: choose another +output_jsonl_fpath")
    prompt = read_prompt(text(values, "prompt_config"))
    bad: list[BadLine] = []
    write_jsonl(output, prompted(source, prompt, bad.append))
    tell(bad)
    print(f"rows with prompts: {output}")
    return 1 if bad else 0


def init(command: Command, arguments: Arguments) -> None:
    from rollforge.nemo.scaffold import init_resources_server

    entrypoint = text(command.only(arguments), "entrypoint")
    for path in init_resources_server(entrypoint):
        print(path)
    print(f"next: ng_test +entrypoint={entrypoint} (its tests need pytest: pip install 'rollforge[test]')")


def test(command: Command, arguments: Arguments) -> int:
    from rollforge.nemo.test import test_server

    return test_server(Path(text(command.only(arguments), "entrypoint")))


def test_all(command: Command, arguments: Arguments) -> int:
    from rollforge.nemo.test import test_servers

    return test_servers(tested=bool(command.only(arguments).get("fail_on_total_and_test_mismatch")))
