import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rollforge.cli.main import app
from rollforge.errors import UserError


def check(*arguments):
    return CliRunner().invoke(app, ["check", *map(str, arguments)])


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "train.jsonl"
    asked, told = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    path.write_text(json.dumps({"messages": [asked, told]}) + "\n")
    return path


def test_a_good_file(rows):
    done = check(rows, "--for", "trl:sft", "--no-loader")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        f"{rows}: 1 row, 1 prompt, longest row 0.1 kB (line 1)",
        "trl:sft: no problems; contract check only",
    ]


def test_a_bad_file(rows):
    rows.write_text(rows.read_text() + '{"messages": 1, "\\u001b[31m": 1}\n{"mess')
    done = check(rows, "--for", "trl:sft")
    assert done.exit_code == 1
    assert f"{rows}:2: error: " in done.stdout
    assert f"{rows}:3: error: not JSON" in done.stdout
    assert "\x1b" not in done.stdout
    report = json.loads(check(rows, "--for", "trl:sft", "--json").stdout)
    assert report["ok"] is False
    assert {problem["line"] for problem in report["problems"]} >= {2, 3}


def test_the_format_is_guessed_and_said(rows):
    done = check(rows, "--no-loader")
    assert done.exit_code == 0, done.output
    assert "taken for nemo-rl:sft: its rows have messages" in done.stdout


def test_the_folder_of_an_export(rows, tmp_path):
    folder = tmp_path / "out" / "trl-sft"
    folder.mkdir(parents=True)
    rows.rename(folder / "train.jsonl")
    for place in (folder, folder.parent):
        done = check(place, "--no-loader")
        assert done.exit_code == 0, done.output
        assert "trl:sft: no problems" in done.stdout
    done = check(folder.parent, "--for", "trl:sft", "--no-loader")
    assert f"{folder / 'train.jsonl'}: 1 row" in done.stdout
    error = check(folder.parent, "--for", "trl:dpo").exception
    assert isinstance(error, UserError)
    assert "holds no data files (.jsonl, .parquet); folders in it: trl-sft" in str(error)


@pytest.mark.parametrize("options", [[], ["--for", "trl:sft"]])
def test_the_folder_of_a_run_holds_no_training_data(options, tmp_path):
    (tmp_path / "failures.jsonl").write_text("")
    (tmp_path / "rollouts.jsonl").write_text('{"responses_create_params": {"input": "q"}, "response": {}, "reward": 1}\n')
    error = check(tmp_path, *options).exception
    assert isinstance(error, UserError)
    assert f"{tmp_path} holds rollouts, not training data: rollforge export {tmp_path} --to" in str(error)


def test_rewards_are_shown(tmp_path):
    rows = [{"prompt": f"{n}", "completion": "a", "score": n / 4} for n in range(5)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = check(tmp_path / "a.jsonl", "--for", "generic:prompt-completion-score", "--no-loader")
    assert "  rewards 0 to 1, mean 0.5 (5 rows)\n" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which file?"),
        (["--config", "c.yaml"], "which file?"),
        (["c.yaml"], "for which trainer is c.yaml? Say --for FRAMEWORK:KIND"),
        (["c.yaml", "--for", "nemo-rl:sft"], "c.yaml is not there"),
        (["none.jsonl"], "none.jsonl is not there"),
        (["none.jsonl", "--for", "trk:sft"], "did you mean trl"),
        ([".", "--for", "trl:stf"], "no kind of data 'stf'"),
        (["x.jsonl", "--error", "KeyError"], "stand alone"),
        (["--error", "KeyError", "--config", "x.yaml"], "stand alone"),
        (["--log", "train.log", "--for", "bogus:y"], "stand alone"),
        (["x.jsonl", "--model", "tiny", "--tolerance", "0.001"], "--model, --tolerance: only with --for on-policy"),
        (["x.jsonl", "--for", "trl:sft", "--max-drift", "0"], "--max-drift: only with --for on-policy"),
    ],
)
def test_wrong_requests(arguments, message):
    error = check(*arguments).exception
    assert isinstance(error, UserError)
    assert message in str(error)


@pytest.mark.parametrize("given", [["c.yaml"], ["--config", "c.yaml"], ["train.jsonl", "c.yaml"]])
def test_a_configuration_needs_no_data_beside_it(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("train.jsonl").write_text('{"text": "a"}\n')
    Path("c.yaml").write_text("model_name_or_path: m\ndataset_name: .\nmax_seq_length: 9\n")
    done = check(*given, "--for", "trl:sft", "--no-loader")
    assert done.exit_code == 1
    assert "c.yaml:3: error: max_seq_length is no setting of TRL 1.16; it is called max_length" in done.stdout
    assert ("train.jsonl: 1 row" in done.stdout) == ("train.jsonl" in given)


def test_errors_and_logs_are_explained(tmp_path):
    done = check("--error", "KeyError: 'input'")
    assert done.exit_code == 0
    assert "cause" in done.stdout
    assert "remedy" in done.stdout
    log = tmp_path / "train.log"
    log.write_bytes(b"step 1\r\n\xff\x1b[0m torch.OutOfMemoryError: CUDA out of memory\n")
    done = check("--log", log)
    assert done.exit_code == 0
    assert f"{log}:2: " in done.stdout
    assert "\x1b" not in done.stdout
    assert json.loads(check("--log", log, "--json").stdout)[0]["name"] == "out of memory (GPU)"
    assert check("--error", "all is well").exit_code == 1
