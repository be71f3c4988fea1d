import json

from typer.testing import CliRunner

from rollforge.cli.main import app


def diff(*arguments):
    return CliRunner().invoke(app, ["diff", *map(str, arguments)], env={"COLUMNS": "100"})


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_same_rows(tmp_path):
    a = write(tmp_path / "a.jsonl", {"prompt": "p", "label": 1})
    b = write(tmp_path / "b.jsonl", {"label": 1, "prompt": "p"})
    done = diff(a, b)
    assert done.exit_code == 0, done.output
    assert "the same rows" in done.stdout
    assert "1 row in 1 file\n" in done.stdout


def test_different_rows(tmp_path):
    a = write(tmp_path / "a.jsonl", {"prompt": "p", "label": 1}, {"prompt": "q"})
    b = write(tmp_path / "b.jsonl", {"prompt": "p", "label": 2, "\u202e\x1b[31m": 1})
    done = diff(a, b)
    assert done.exit_code == 1
    assert "only A" in done.stdout
    assert "another answer" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    report = json.loads(diff(a, b, "--json").stdout)
    assert report["rows"] == {"only_a": 2, "only_b": 1, "both": 0, "other_split": 0}
    assert report["same"] is False


def test_where_temporary_files_cannot_be_kept(tmp_path):
    a = write(tmp_path / "a.jsonl", {"prompt": "p"})
    done = diff(a, a, "--temp", tmp_path / "nowhere")
    assert f"temporary files cannot be kept in {tmp_path}/nowhere: No such file" in str(done.exception)
    assert diff(a, a, "--temp", tmp_path).exit_code == 0


def test_hundreds_of_fields_are_counted_and_not_listed(tmp_path):
    a, b = (tmp_path / name for name in ("a.jsonl", "b.jsonl"))
    a.write_text('{"prompt": "p"}\n')
    b.write_text(json.dumps({"prompt": "p", **{f"field{n}": 1 for n in range(700)}}) + "\n")
    done = diff(a, b)
    assert done.stdout.count("field") < 400
    assert "and 500 more: --json" in done.stdout
    assert len(json.loads(diff(a, b, "--json").stdout)["fields"]) == 700
