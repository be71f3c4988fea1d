"""Two data sets by content: the counts add up, whatever the order and the way of writing."""

from __future__ import annotations

import gzip
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollforge.errors import UserError
from rollforge.export.diff import diff, shift
from rollforge.export.run import export_rollouts
from tests.export.toy import row as toy_row


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pair(folder, a, b):
    return diff(write(folder / "a.jsonl", a), write(folder / "b.jsonl", b))


def row(prompt, answer="4", output="o", **more):
    return {"input": prompt, "output": output, "ground_truth": answer, **more}


def test_order_of_rows_and_keys_and_spaces_do_not_count(tmp_path):
    a = write(tmp_path / "a.jsonl", [row("p"), row("q")])
    b = tmp_path / "b.jsonl"
    b.write_text('{"output":"o","ground_truth":"4","input":"q"}\n\n{"ground_truth":"4",  "input":"p","output":"o"}\n')
    found = diff(a, b)
    assert found.same
    assert (found.both, found.prompts_both) == (2, 2)


def test_rows_and_prompts_of_one_side(tmp_path):
    found = pair(tmp_path, [row("p"), row("q"), row("q")], [row("q"), row("r"), row("p", answer="5", output="x")])
    assert not found.same
    assert (found.only_a, found.both, found.only_b) == (2, 1, 2)
    assert (found.prompts_only_a, found.prompts_both, found.prompts_only_b) == (0, 2, 1)
    assert (found.other_answer, found.other_response, found.other_reward) == (1, 1, 0)
    assert found.examples["rows only in B"][0].startswith(str(tmp_path / "b.jsonl:"))
    assert found.examples["another answer"] == [f"{tmp_path}/a.jsonl:1 | {tmp_path}/b.jsonl:3"]


@pytest.mark.parametrize(
    "name", ["reference_answer", "label", "verifier_metadata.expected_answer", "extra_info.correct_answer"]
)
def test_another_answer_is_seen_wherever_rows_carry_it(tmp_path, name):
    holder, _, name = name.rpartition(".")
    a, b = ({"input": "p", **({holder: {name: value}} if holder else {name: value})} for value in ("4", "5"))
    assert pair(tmp_path, [a], [b]).other_answer == 1


def test_numbers_are_compared_by_value(tmp_path):
    rollout = {"responses_create_params": {"input": "q"}, "response": {"output": []}, "metrics": {"right": 1}}
    a = [row("p", answer=4, reward=0), {**rollout, "reward": 1}]
    b = [row("p", answer=4.0, reward=0.0), {**rollout, "reward": 1.0, "metrics": {"right": 1.0}}]
    assert pair(tmp_path, a, b).same
    assert not pair(tmp_path, [row("p", answer="4")], [row("p", answer="4.0")]).same
    assert not pair(tmp_path, [row("p", reward=0)], [row("p", reward=0.5)]).same


def test_only_what_there_is_was_made_with_something(tmp_path):
    a = write(tmp_path / "a/a.jsonl", [row("p")])
    b = write(tmp_path / "b/b.jsonl", [row("q")])
    (tmp_path / "a/manifest.json").write_text('{"seed": 3}')
    assert diff(a, b).parameters() == {}
    (tmp_path / "b/manifest.json").write_text('{"limit": 1}')
    assert diff(a, b).parameters() == {"seed": (3, None), "limit": (None, 1)}


def test_of_a_run_and_what_was_made_of_it_only_common_parameters_are_compared(tmp_path):
    a = write(tmp_path / "a/rollouts.jsonl", [row("p")])
    b = write(tmp_path / "b/train.jsonl", [row("p")])
    c = write(tmp_path / "c/rollouts.jsonl", [row("p")])
    run = {"rollforge": "1", "seed": 1, "config": {"limit": 3, "env": "sums"}, "identity": {"limit": 3, "digest": "x"}}
    other = {**run, "config": {"limit": 4, "env": "sums"}, "identity": {"limit": 4, "digest": "y"}}
    (tmp_path / "a/run.json").write_text(json.dumps(run))
    (tmp_path / "b/manifest.json").write_text(json.dumps({"rollforge": "1", "seed": 2, "recipe": {"steps": ["dedup"]}}))
    (tmp_path / "c/run.json").write_text(json.dumps(other))
    assert diff(a, b).parameters() == {"seed": (1, 2)}
    assert diff(a, c).parameters() == {"config.limit": (3, 4), "identity.digest": ("x", "y")}


ROWS = st.lists(
    st.fixed_dictionaries(
        {"prompt": st.sampled_from("pq"), "completion": st.sampled_from("xy"), "reward": st.sampled_from([0, 1])}
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(a=ROWS, b=ROWS)
def test_the_counts_add_up(tmp_path_factory, a, b):
    folder = tmp_path_factory.mktemp("diff")
    found = pair(folder, a, b)
    assert found.only_a + found.both == len(a)
    assert found.only_b + found.both == len(b)
    written = [sorted(json.dumps(one, sort_keys=True) for one in side) for side in (a, b)]
    assert found.same == (written[0] == written[1])
    prompts = [{one["prompt"] for one in side} for side in (a, b)]
    assert found.prompts_both == len(prompts[0] & prompts[1])
    assert found.prompts_only_a == len(prompts[0] - prompts[1])
    back = diff(folder / "b.jsonl", folder / "a.jsonl")
    assert (back.only_a, back.only_b, back.other_reward) == (found.only_b, found.only_a, found.other_reward)
    json.dumps(found.row())


def test_what_a_run_adds_to_its_rows_does_not_count(tmp_path):
    def said(*ids, answered=0):
        """Two calls, the outputs of the one or the other first, and an answer."""
        calls = [{"type": "function_call", "id": f"fc{one}", "call_id": one, "name": "f"} for one in ids]
        outputs = [{"type": "function_call_output", "call_id": ids[at], "output": "3"} for at in (answered, 1 - answered)]
        return [*calls, *outputs, {"type": "message", "id": f"m{ids}", "role": "assistant", "content": "3"}]

    def rollout(seconds, *ids, **more):
        return {
            "responses_create_params": {"input": "p"},
            "response": {"id": ids[0], "created_at": seconds, "output": said(*ids, **more)},
            "reward": 1.0,
            "rollforge": {"seconds": {"total": seconds}},
        }

    def flat(*ids):
        return {"responses_create_params": {"input": "p"}, "output": said(*ids), "reward": 1.0}

    for a, b in ((rollout(1, "a", "b"), rollout(2, "c", "d")), (flat("a", "b"), flat("b", "a"))):
        found = pair(tmp_path, [a], [b])
        assert found.same
        assert found.other_response == 0
    found = pair(tmp_path, [rollout(1, "a", "b")], [rollout(1, "a", "b", answered=1)])
    assert (found.same, found.other_response) == (False, 1)


def test_fields_environments_and_shifts(tmp_path):
    a = [row(f"p{n}", env="math", reward=0.0) for n in range(4)]
    b = [row(f"p{n}", env="code" if n else "math", reward=1.0, extra=1) for n in range(4)]
    found = pair(tmp_path, a, b)
    assert found.fields() == {"extra": (0, 4)}
    assert [(name, x.rows, y.rows) for name, x, y in found.envs()] == [("math", 4, 1), ("code", 0, 3)]
    assert found.other_reward == 4
    assert found.row()["shift"]["reward"] == 1.0
    assert shift(found.a.all.rewards, found.a.all.rewards) == 0.0


def test_folders_of_exports_with_their_parameters(tmp_path):
    for name, seed in (("one", 0), ("two", 1)):
        write(tmp_path / name / "train.jsonl", [row("p")])
        write(tmp_path / name / "validation.jsonl", [row("q")])
        manifest = {"options": {"seed": seed, "min_reward": 0.95}, "files": {"train.jsonl": {"sha256": name}}}
        (tmp_path / name / "manifest.json").write_text(json.dumps(manifest))
    found = diff(tmp_path / "one", tmp_path / "two")
    assert found.same
    assert found.both == 2
    assert found.parameters() == {"options.seed": (0, 1)}


def test_rows_in_another_split_are_another_data_set(tmp_path):
    rows = [row(f"p{n}") for n in range(10)]
    for name, cut in (("one", 8), ("two", 6)):
        write(tmp_path / name / "train.jsonl", rows[:cut])
        write(tmp_path / name / "validation.jsonl", rows[cut:])
    found = diff(tmp_path / "one", tmp_path / "two")
    assert not found.same
    assert (found.only_a, found.both, found.only_b, found.other_split) == (0, 10, 0, 2)
    assert found.examples["another split"][0].startswith(f"{tmp_path}/one/train.jsonl:")
    assert diff(tmp_path / "one", tmp_path / "one").same
    # What is not split cannot differ in it.
    assert diff(tmp_path / "one", write(tmp_path / "all.jsonl", rows)).same


def test_a_prompt_is_one_however_it_is_written(tmp_path):
    def rollout(params):
        return {"responses_create_params": params, "response": {"output": []}, "reward": 1}

    part = {"type": "input_text", "text": "q"}
    asked = [
        {"input": "q"},
        {"input": [{"role": "user", "content": "q"}], "instructions": None},
        {"input": [{"role": "user", "content": [part], "type": "message", "id": None}], "temperature": None},
    ]
    told = [
        {"input": "q", "instructions": "rules"},
        {"input": [{"role": "system", "content": "rules"}, {"role": "user", "content": "q"}]},
    ]
    for ways in (asked, told):
        for one in ways:
            found = pair(tmp_path, [rollout(ways[0])], [rollout(one)])
            assert (found.same, found.prompts_both) == (True, 1)
    assert pair(tmp_path, [rollout(asked[0])], [rollout(told[0])]).prompts_both == 0
    assert pair(tmp_path, [row("p")], [row([{"role": "user", "content": "p"}])]).prompts_both == 1
    two = {"input": [{"role": "user", "content": [part, part]}]}
    assert not pair(tmp_path, [rollout(asked[0])], [rollout(two)]).same


def test_a_conversation_is_a_prompt_and_what_follows(tmp_path):
    def turns(*texts):
        return [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 3, texts, strict=False)]

    asked = [turns("Hi", "Hello", f"q{number}") for number in range(4)]
    answer, other = ({"role": "assistant", "content": text} for text in ("yes", "no"))
    parted = [{"prompt": one, "completion": [answer]} for one in asked]
    found = pair(tmp_path, [{"messages": [*one, answer]} for one in asked], parted)
    assert (found.prompts_only_a, found.prompts_both, found.prompts_only_b, found.other_response) == (0, 4, 0, 0)
    found = pair(tmp_path, [{"messages": [*one, other]} for one in asked], parted)
    assert (found.prompts_both, found.other_response) == (4, 4)
    pairs = [{"prompt": one, "chosen": [answer], "rejected": [other]} for one in asked]
    found = pair(tmp_path, pairs, [{"chosen": [*one, answer], "rejected": [*one, other]} for one in asked])
    assert (found.prompts_both, found.other_response) == (4, 0)
    found = pair(tmp_path, [{"text": "a"}], [{"text": "b"}])
    assert (found.prompts_only_a, found.prompts_both, found.prompts_only_b) == (0, 0, 0)


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
@pytest.mark.parametrize("content", [gzip.compress(b"{}", mtime=0), b"\x00\x01", b'[{"a": 1}]', b"a,b\n1,2\n"])
def test_what_is_no_data_is_said(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        diff(tmp_path / name, tmp_path / name)


def test_other_broken_lines_are_another_file(tmp_path):
    for name, line in (("a", b'{"inp'), ("b", b'{"out')):
        (tmp_path / f"{name}.jsonl").write_bytes(b'{"input": 1}\n' + line + b"\n")
    assert not diff(tmp_path / "a.jsonl", tmp_path / "b.jsonl").same
    assert diff(tmp_path / "a.jsonl", tmp_path / "a.jsonl").same


def test_broken_lines_are_counted(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"input": 1}\n{"inp\n\xff\n[]\n')
    found = diff(tmp_path / "a.jsonl", write(tmp_path / "b.jsonl", [{"input": 1}]))
    assert (found.a.unusable, found.both, found.same) == (3, 1, False)


def test_several_blocks_and_workers_say_the_same(tmp_path):
    a = write(tmp_path / "a.jsonl", [row(f"p{n}", pad="x" * 5000) for n in range(4000)])
    b = write(tmp_path / "b.jsonl", [row(f"p{n}", pad="x" * 5000) for n in range(10, 4010)])
    one, two = diff(a, b), diff(a, b, workers=2)
    assert one.row() == two.row()
    assert (one.only_a, one.both, one.only_b) == (10, 3990, 10)


def test_no_data_is_said(tmp_path):
    write(tmp_path / "rows.jsonl", [row("p")])
    with pytest.raises(UserError, match="there is no"):
        diff(tmp_path / "rosw.jsonl", tmp_path / "rows.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no data"):
        diff(tmp_path / "empty", tmp_path / "rows.jsonl")


@pytest.mark.trainers
def test_parquet_and_jsonl_of_the_same_rows(tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [row("p"), row("q")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert diff(tmp_path / "a.parquet", write(tmp_path / "b.jsonl", rows)).same


def test_the_fields_that_differ_are_named(tmp_path):
    """Of rows of one prompt, paired by response where they can be; other rows have nothing to be compared with."""
    verified = {"metrics": {"right": 1.0, "short": 0.0}, "reward": 1.0}
    a = [row("p", output="x", **verified), row("p", output="y", **verified), row("q"), row("only here")]
    b = [
        row("p", output="y", **verified),
        row("p", output="x", metrics={"right": 1, "short": 1, "new": 0}, reward=0.5),
        row("q", output="z"),
        row("only there"),
    ]
    found = pair(tmp_path, a, b)
    assert found.looked == 2
    assert found.differing == {"metrics.short": 1, "metrics.new": 1, "reward": 1, "output": 1}
    assert found.row()["pairs"] == {"looked": 2, "differing": dict(found.differing)}


def test_fields_that_differ_of_files_of_several_forms(tmp_path):
    """The first line after a byte order mark, lines of two files, and rows of Parquet."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [row(f"p{number}", reward=number) for number in range(6)]
    one = write(tmp_path / "a" / "one.jsonl", rows[:3])
    one.write_bytes(b"\xef\xbb\xbf" + one.read_bytes())
    write(tmp_path / "a" / "two.jsonl", rows[3:])
    changed = [{**one, "reward": 9} if number % 2 else one for number, one in enumerate(rows)]
    (tmp_path / "b").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist(changed), tmp_path / "b" / "rows.parquet")
    found = diff(tmp_path / "a", tmp_path / "b")
    assert (found.both, found.looked, found.differing) == (3, 3, {"reward": 3})


@pytest.mark.parametrize("kind", ["verl:grpo", "verl:grpo-parquet", "verl:sft", "trl:sft", "trl:grpo", "openrlhf:grpo"])
def test_what_is_exported_of_the_same_rollouts_in_another_order_is_the_same(kind, tmp_path):
    """JSON text says the same in any order of its keys, and verl's extra_info has the place of the rollout."""
    if kind in ("verl:grpo-parquet", "verl:sft"):
        pytest.importorskip("pyarrow")
    tool = {"type": "function", "name": "add", "description": "d", "parameters": {"type": "object", "properties": {}}}
    tools = [tool] if "sft" in kind else []
    rollouts = [
        {**toy_row(f"{task}?", str(task), 1.0, expected_answer=str(task), level=3), "_ng_task_index": task}
        for task in range(20)
    ]
    for one in rollouts:
        one["responses_create_params"]["tools"] = tools
    others = [json.loads(json.dumps(one, sort_keys=True)) for one in reversed(rollouts)]
    for name, rows in (("a", rollouts), ("b", others)):
        export_rollouts([write(tmp_path / f"{name}.jsonl", rows)], [kind], tmp_path / name, workers=1)
    folder = kind.replace(":", "-")
    found = diff(tmp_path / "a" / folder, tmp_path / "b" / folder)
    assert found.same, found.row()
    assert (found.both, found.prompts_both, found.other_answer, found.other_response) == (20, 20, 0, 0)


def test_json_that_somebody_said_is_compared_as_it_was_said(tmp_path):
    found = pair(tmp_path, [row("p", output='{"a": 1, "b": 2}')], [row("p", output='{"b": 2, "a": 1}')])
    assert (found.same, found.other_response) == (False, 1)


def test_nothing_stands_in_the_folder_for_temporary_files(tmp_path, monkeypatch):
    """Whatever has a name would stay after a kill."""
    a, b = write(tmp_path / "a.jsonl", [{"prompt": "p"}] * 3), write(tmp_path / "b.jsonl", [{"prompt": "q"}])
    here, made = tmp_path / "temporary", []
    here.mkdir()
    monkeypatch.setattr(os, "mkdir", lambda *given: made.append(given))
    found = diff(a, b, folder=here)
    assert (found.only_a, made, os.listdir(here)) == (3, [], [])
