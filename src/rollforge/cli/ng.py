"""The `ng_*` commands of NeMo Gym, with its `+key=value` arguments: one entry point, told by its name which it is.

Each reads the configuration as NeMo Gym does and calls one function of `rollforge.nemo`. A key that none of them knows is an
error if it is nearly a known one, and a warning if nothing refers to it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rollforge.cli import ng_files, ng_servers
from rollforge.cli.main import guarded
from rollforge.cli.ng_command import Command
from rollforge.errors import UserError, unknown

if TYPE_CHECKING:
    from rollforge.nemo.arguments import Arguments


def main() -> None:
    """The console scripts."""
    name = Path(sys.argv[0]).name.replace("nemo_gym_", "ng_").removesuffix(".py")
    guarded(lambda: sys.exit(call(name, sys.argv[1:])))


def call(name: str, words: Sequence[str]) -> int:
    """Run a command; its exit status. Raises `UserError` for arguments that it does not take."""
    from rollforge.nemo.arguments import parse_arguments

    if name in ELSEWHERE:
        raise UserError(f"{name} is not here: {ELSEWHERE[name]}")
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS, "(ng_help describes them)")
    command = COMMANDS[name]
    if any(word in ("-h", "--help", "+h=true", "+help=true") for word in words):
        command.describe()
        return 0
    return command(parse_arguments(words))


def _version(command: Command, arguments: Arguments) -> None:
    import json

    from rollforge import __version__

    if command.only(arguments).get("json"):
        print(json.dumps({"name": "rollforge", "version": __version__, "nemo_gym_contract": CONTRACT}))
    else:
        print(f"rollforge {__version__}, with the commands, configuration and wire contract of NeMo Gym {CONTRACT}")


def _help(command: Command, arguments: Arguments) -> None:
    from rollforge.nemo.builtin import AGENTS, ENVIRONMENTS, MODELS

    command.only(arguments)
    print("Arguments are written +key=value; `COMMAND --help` lists those of one command.\n")
    for name, command in COMMANDS.items():
        print(f"  {name:<26} {command.about}")
    print("\nServers that need no code here:")
    print(f"  resources_servers      {', '.join(f'{name} ({use})' for name, use in ENVIRONMENTS.items())}, rollforge")
    print(f"  responses_api_models   {', '.join(MODELS)}")
    print(f"  responses_api_agents   {', '.join(AGENTS)}")
    print("\nNot here:")
    for name, instead in ELSEWHERE.items():
        print(f"  {name:<34} {instead}")


CONTRACT = "0.5"

_SERVING = {
    "config_paths": "the YAML files: [a.yaml,b.yaml]",
    "head_server": "where the head is: +head_server.port=11000, +head_server.host=",
    "default_host": "the address the servers listen on (127.0.0.1)",
    "rollforge": "settings of the services: +rollforge.token_env=NAME, +rollforge.max_sessions=",
}
_ALL = (
    Command(
        "ng_run",
        "Start the servers of a configuration, and the head.",
        ng_servers.run,
        {**_SERVING, "dry_run": "make everything, start nothing"},
        {"entrypoint": "name the configuration of the server: +config_paths=[...]"},
    ),
    Command(
        "ng_collect_rollouts",
        "Collect rollouts from servers that are up, or from those of +config_paths, started for it.",
        ng_servers.collect,
        {
            **_SERVING,
            "agent_name": "for rows that name no agent",
            "input_jsonl_fpath": "the tasks (default: the agent's data set, else the environment's own)",
            "output_jsonl_fpath": "the rollouts; the other files are named after it",
            "num_samples_in_parallel": "rollouts at a time (256)",
            "num_repeats": "of each task; a number, or {AGENT: number, _default: number}",
            "num_repeats_add_seed": "the number of the repeat as vLLM's seed",
            "limit": "rows, from the start",
            "responses_create_params": "+responses_create_params.temperature=1.0: over what the rows say",
            "resume_from_cache": "go on where the output ends",
            "prompt_config": "a YAML with `user` and `system`, filled from the rows",
            "disable_aggregation": "no metrics file",
        },
        {
            "dry_run": "ng_run ... +dry_run=true makes everything and starts nothing",
            "start_idx": "split the file, or use +limit",
            "end_idx": "split the file, or use +limit",
            "rollout_collection_driver": "call rollforge.nemo.collect from your own script",
            "upload_rollouts": "upload the files yourself",
            "skills": "put the skills into the prompt (+prompt_config=)",
        },
    ),
    Command(
        "ng_prepare_data",
        "Check the data sets of a configuration and put them together for training.",
        ng_files.prepare,
        {
            **_SERVING,
            "output_dirpath": "where train.jsonl, validation.jsonl and their metrics go",
            "mode": "train_preparation or example_validation",
            "overwrite_metrics_conflicts": "write metrics that differ from those committed",
            "should_download": "taken for compatibility: what is missing is named with the command that fetches it",
            "data_source": "taken for compatibility: nothing is downloaded",
        },
    ),
    Command(
        "ng_viewer",
        "Statistics and the first rollouts of a file.",
        ng_files.viewer,
        {"jsonl_fpath": "the rollouts", "html": "also a report in this file", "limit": "how many rollouts to show (3)"},
        {"server_host": "there is no web viewer yet", "server_port": "there is no web viewer yet"},
    ),
    Command(
        "ng_reward_profile",
        "Statistics of each task, offline.",
        ng_files.profile,
        {
            "rollouts_jsonl_fpath": "the rollouts",
            "materialized_inputs_jsonl_fpath": "what was planned (default: beside the rollouts)",
            "input_jsonl_fpath": "the same, in NeMo Gym's pages; of a file of tasks, what was planned is read instead",
            "output_jsonl_fpath": "the tasks (default: beside the rollouts)",
            "pass_threshold": "also how many rollouts of a task have this reward",
            "allow_partial_rollouts": "profile a collection that is not complete",
        },
    ),
    Command(
        "ng_aggregate_rollouts",
        "Merge shards of a collection and compute their metrics, offline.",
        ng_files.aggregate,
        {
            "input_glob": "the shards: a pattern, or several with commas",
            "output_jsonl_fpath": "the merged rollouts; the metrics are named after it",
            "merge_shards": "false: metrics only",
        },
    ),
    Command(
        "ng_materialize_prompts",
        "Fill a prompt template from the rows of a file.",
        ng_files.materialize,
        {"input_jsonl_fpath": "rows", "prompt_config": "the template", "output_jsonl_fpath": "rows with prompts"},
    ),
    Command(
        "ng_init_resources_server",
        "Write a new resources server that works.",
        ng_files.init,
        {"entrypoint": "resources_servers/name_of_it"},
    ),
    Command(
        "ng_test",
        "Test a server: its own tests, then its contract.",
        ng_files.test,
        {"entrypoint": "its directory", "should_validate_data": "taken for compatibility: example rows are always checked"},
    ),
    Command(
        "ng_test_all",
        "Test every resources server below this directory.",
        ng_files.test_all,
        {
            "fail_on_total_and_test_mismatch": "a server without tests of its own fails",
            "delete_venvs_after_each_test": "taken for compatibility: no server has an environment of its own",
        },
        dict.fromkeys(("num_shards", "shard_index"), "call ng_test +entrypoint= for the servers of a shard"),
    ),
    Command("ng_dump_config", "The resolved configuration, without secrets.", ng_servers.dump, _SERVING),
    Command("ng_status", "The servers that are up.", ng_servers.status, {**_SERVING, "json": "for machines"}),
    Command("ng_version", "The version.", _version, {"json": "for machines"}),
    Command("ng_help", "This.", _help),
    Command(
        "print_aggregate_results",
        "scripts/print_aggregate_results.py: the mean of every number in a file of rollouts.",
        ng_files.averages,
        {"jsonl_fpath": "the rollouts"},
    ),
)
COMMANDS = {command.name: command for command in _ALL}
ELSEWHERE = {
    "ng_e2e_collect_rollouts": "ng_prepare_data, then ng_collect_rollouts +config_paths=[...] +input_jsonl_fpath=",
    "ng_reinstall": "pip install --force-reinstall rollforge",
    "ng_pip_list": "pip list: all servers share one environment",
    "ng_dev_test": "make test, in a checkout of rollforge",
    "ng_upload_dataset_to_hf": "hf upload --repo-type dataset REPO FILE",
    "ng_download_dataset_from_hf": "hf download --repo-type dataset REPO FILE",
    "ng_upload_dataset_to_gitlab": "not supported; hf upload --repo-type dataset REPO FILE",
    "ng_download_dataset_from_gitlab": "not supported",
    "ng_gitlab_to_hf_dataset": "not supported",
    "ng_delete_dataset_from_gitlab": "not supported",
    "ng_list_benchmarks": "not supported; rollforge env list",
    "ng_prepare_benchmark": "not supported; run the benchmark's prepare script",
    "ng_validate": "ng_run ... +dry_run=true",
}
