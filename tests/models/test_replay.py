"""Replay: a stored run answers again, in every shape a run is stored in."""

import json
from dataclasses import replace

import pytest

from rollforge.errors import InfraFault, UserError
from rollforge.models.base import ModelOptions, Request
from rollforge.models.replay import load
from rollforge.records.items import (
    add_usage,
    assistant,
    final_text,
    function_call,
    function_call_output,
    input_items,
    model_calls,
    tool_calls,
    user,
)
from rollforge.records.task import task_from_row

QUESTION = {"prompt": "how warm is it?", "task_id": "warm"}
TASK = task_from_row(QUESTION)
CALL = [
    {"type": "reasoning", "summary": []},
    function_call("look", '{"at": "sky"}', "c1"),
    function_call("look", "{}", "c2"),
]
SEEN = [function_call_output("c1", "blue"), function_call_output("c2", "grey")]
USAGE = {"input_tokens": 30, "output_tokens": 12, "total_tokens": 42}


def row(task=TASK, output=(), index=None, **more):
    stored = {
        "responses_create_params": task.params,
        "response": {"id": "resp_7", "model": "m", "output": list(output), "usage": USAGE},
        "reward": 1.0,
        "rollforge": {"task": task.id, "outcome": "scored"},
        **more,
    }
    return stored if index is None else {**stored, "_ng_rollout_index": index}


def stored_run(tmp_path, *rows):
    (tmp_path / "rollouts.jsonl").write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return load(str(tmp_path), ModelOptions())


def request(task=TASK, since=(), index=0):
    return Request({**task.params, "input": [*input_items(task.params), *since]}, task=task, index=index)


async def episode(model, task=TASK, tool_output="now", index=0, known=True):
    """The items after the prompt and the summed usage, with tools that say something else than they did then."""
    since, usage = [], None
    while True:
        asked = request(task, since, index)
        response = await model(asked if known else Request(asked.params, index=index))
        usage = add_usage(usage, response["usage"])
        since += response["output"]
        called = tool_calls(response)
        if not called:
            return since, usage
        since += [function_call_output(call["call_id"], tool_output) for call in called]


@pytest.mark.parametrize("known", [True, False])
async def test_a_stored_conversation_is_answered_call_by_call(tmp_path, known):
    model = stored_run(tmp_path, row(output=[*CALL, *SEEN, assistant("warm")]))
    items, usage = await episode(model, known=known)
    assert items == [*CALL, *[function_call_output(c, "now") for c in ("c1", "c2")], assistant("warm")]
    assert usage == USAGE
    assert (await model(request()))["model"] == "m"


async def test_the_file_may_be_named_itself_and_hold_the_other_shape(tmp_path):
    path = tmp_path / "other.jsonl"
    path.write_text(json.dumps({"responses_create_params": {"input": "hi"}, "output": [assistant("ho")], "reward": 0}))
    answer = await load(str(path), ModelOptions())(Request({"input": [user("hi")]}))
    assert final_text(answer) == "ho"


async def test_the_repeat_picks_the_rollout(tmp_path):
    model = stored_run(tmp_path, *[row(output=[assistant(f"r{index}")], index=index) for index in (3, 0, 2)])
    replies = [final_text(await model(request(index=index))) for index in range(7)]
    assert replies == ["r0", "r2", "r2", "r3", "r2", "r3", "r0"]


async def test_rollouts_without_an_index_count_in_file_order(tmp_path):
    model = stored_run(tmp_path, *[row(output=[assistant(text)]) for text in "ab"])
    assert [final_text(await model(request(index=index))) for index in range(3)] == ["a", "b", "a"]


async def test_tasks_with_the_same_prompt_are_told_apart_by_their_id(tmp_path):
    tasks = [task_from_row({"prompt": "same", "secret": n}) for n in range(3)]
    model = stored_run(tmp_path, *[row(task, [assistant(str(n))], 0) for n, task in enumerate(tasks)])
    assert [final_text(await model(request(task))) for task in tasks] == ["0", "1", "2"]


async def test_a_task_that_stands_in_the_data_twice_is_told_apart_by_its_index(tmp_path):
    task = task_from_row({"prompt": "same"})
    stored = [row(task, [assistant(f"{n}.{k}")], k, _ng_task_index=n) for n in (1, 0) for k in range(2)]
    model = stored_run(tmp_path, *stored)
    said = [final_text(await model(request(replace(task, index=n), index=k))) for n in range(2) for k in range(2)]
    assert said == ["0.0", "0.1", "1.0", "1.1"]
    assert final_text(await model(request(replace(task, index=7)))) in said  # by its id, as before


async def test_a_prompt_is_the_same_as_text_items_or_parts(tmp_path):
    parts = {"role": "user", "content": [{"type": "input_text", "text": "hi"}]}
    model = stored_run(tmp_path, row(task_from_row({"prompt": [{**parts, "id": "x"}]}), [assistant("ho")]))
    assert final_text(await model(request(task_from_row({"prompt": "hi"})))) == "ho"
    image = {"role": "user", "content": [{"type": "input_text", "text": "hi"}, {"type": "input_image", "image_url": "u"}]}
    with pytest.raises(InfraFault):
        await model(request(task_from_row({"prompt": [image]})))


async def test_an_observation_after_the_prompt_and_users_within_the_episode(tmp_path):
    prompt = [user("play"), user("board 1")]
    moves = [assistant("left"), user("board 2"), assistant("right")]
    model = stored_run(tmp_path, row(task_from_row({"prompt": prompt}), moves))
    task = task_from_row({"prompt": "play"})
    first = await model(request(task, [user("board 1")]))
    second = await model(request(task, [user("board 1"), *first["output"], user("board 2")]))
    assert [final_text(first), final_text(second)] == ["left", "right"]


async def test_history_in_the_prompt_is_not_taken_for_an_answer(tmp_path):
    task = task_from_row({"prompt": [user("a"), assistant("b"), user("c")]})
    model = stored_run(tmp_path, row(task, [assistant("d")]))
    assert final_text(await model(request(task))) == "d"
    assert final_text(await model(Request(request(task).params))) == "d"


async def test_token_fields_survive_and_separate_calls(tmp_path):
    def tokens(prompt, generated):
        return {
            "prompt_token_ids": prompt,
            "generation_token_ids": generated,
            "generation_log_probs": [-0.1] * len(generated),
        }

    # Two calls without anything between them: only the token ids tell them apart.
    thought = {"type": "reasoning", "summary": [], **tokens([1], [2])}
    reply = {**assistant("x"), **tokens([1, 2], [3])}
    model = stored_run(tmp_path, row(output=[thought, reply]))
    assert (await model(request()))["output"] == [thought]
    assert (await model(request(since=[thought])))["output"] == [reply]


async def test_why_a_model_stopped_early_is_told_with_the_last_call(tmp_path):
    def cut(reason):
        response = {"output": [*CALL, *SEEN, assistant("war")], "incomplete_details": {"reason": reason}}
        return row(response=response)

    model = stored_run(tmp_path, cut("max_output_tokens"))
    assert "incomplete_details" not in await model(request())
    assert (await model(request(since=[*CALL, *SEEN])))["incomplete_details"] == {"reason": "max_output_tokens"}
    model = stored_run(tmp_path, cut("max_turns"))
    assert (await model(request(since=[*CALL, *SEEN])))["status"] == "completed"


async def test_what_was_not_stored_is_an_infrastructure_fault(tmp_path):
    model = stored_run(tmp_path, row(output=[assistant("x")], index=0))
    with pytest.raises(InfraFault, match=r"has 1 model calls for task warm, repeat 0, and this rollout asks for one more"):
        await model(request(since=[assistant("x"), user("and?")]))
    with pytest.raises(InfraFault, match="no rollout that begins with the prompt of task"):
        await model(request(task_from_row({"prompt": "unheard of"})))


async def test_bad_lines_and_failures_are_passed_over(tmp_path):
    failed = row(response=None, reward=None, rollforge={"task": TASK.id, "outcome": "infra_fault"})
    model = stored_run(tmp_path, "{torn", "", failed, row(output=[assistant("x")]), '{"reward": 1}')
    assert final_text(await model(request(index=4))) == "x"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the stored run .*No such file"),
        ("", "no rollout to replay .*the file is empty"),
        ('{"reward": 1}\n', "no rollout to replay .*line 1: no responses_create_params"),
        ("not json\n", "no rollout to replay .*line 1"),
    ],
)
def test_a_file_without_rollouts_is_refused(tmp_path, content, message):
    path = tmp_path / "run.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        load(str(path), ModelOptions())


def test_a_name_is_needed():
    with pytest.raises(UserError, match="replay:RUN_DIR"):
        load(None, ModelOptions())


async def test_a_file_that_shrinks_while_it_is_replayed(tmp_path):
    model = stored_run(tmp_path, row(task_from_row({"prompt": "first"}), [assistant("x")]), row(output=[assistant("x")]))
    (tmp_path / "rollouts.jsonl").write_text("")
    with pytest.raises(InfraFault, match="changed while it was being replayed"):
        await model(request())


@pytest.mark.parametrize(
    ("items", "sizes"),
    [
        ([], []),
        ([assistant("a")], [1]),
        ([*CALL, *SEEN, assistant("a")], [3, 1]),
        ([*CALL[:2], SEEN[0], CALL[2], SEEN[1]], [2, 1]),
        ([assistant("a"), user("b"), {"role": "assistant", "content": "c"}], [1, 1]),
        ([{"type": "reasoning"}, assistant("a")], [2]),
    ],
)
def test_model_calls(items, sizes):
    assert [len(call) for call in model_calls(items)] == sizes
