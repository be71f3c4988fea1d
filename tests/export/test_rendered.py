"""What a model's chat template makes of rows, as each framework renders them; the templates are in the manner of families of
models. That verl and OpenRLHF do what is said of them, `test_verl` and `test_openrlhf` try (trainers)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rollforge.cli.main import app
from rollforge.errors import UserError
from rollforge.export.check import check_files
from rollforge.export.rendered import MOST_TURNS
from rollforge.export.run import export_rollouts
from rollforge.models.template import ChatTemplate, read_template
from rollforge.registry import resolve
from tests.export.toy import call, output, row, said, write

TINY = Path(__file__).parents[2] / "src" / "rollforge" / "models" / "tiny" / "policy"

TOOLS = """{%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}{% endfor %}<|im_end|>
{% endif %}"""
OPEN = "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CALLS = """{%- for call in message.tool_calls or [] %}
{{ {"name": call.function.name, "arguments": call.function.arguments} | tojson }}{% endfor %}"""

ALIKE = (
    TOOLS
    + """{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}{{ message.content }}"""
    + CALLS
    + "<|im_end|>\n{% endfor %}"
    + OPEN
)
"""Every turn alike, wherever it stands."""
LAST = ALIKE.replace("if message.reasoning_content", "if loop.last and message.reasoning_content")
"""Qwen3: reasoning at the end only."""
NO_TOOLS = "{%- for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}"
"""Gemma, Phi-3: neither tools nor calls nor reasoning."""
STRICT = (
    "{%- if messages | selectattr('role', 'equalto', 'user') | list | length == 0 %}"
    "{{ raise_exception('No user query found') }}{% endif %}"
) + ALIKE
"""Qwen3.5: no beginning without a question."""
OPENED = ALIKE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
"""DeepSeek R1: an answer is opened with a thought, and written without."""
AS_TEXT = ALIKE.replace(
    CALLS, "{%- for call in message.tool_calls or [] %}{{ call.function.name + call.function.arguments }}{% endfor %}"
)
"""DeepSeek V3: arguments are joined as text."""

SYSTEM = {"role": "system", "content": "You are a clerk of towns."}
ASKED = {"role": "user", "content": "How warm is it in Oslo?"}
AGAIN = {"role": "user", "content": "And in Bergen?"}
ANSWER = {"role": "assistant", "content": "Eleven degrees."}
THOUGHT = {**ANSWER, "reasoning_content": "The log has the figure."}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo in Norway"}}}
CALLS_IT = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": '{"celsius": 11}'}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": {"type": "object"}}}

TALK = [SYSTEM, ASKED, ANSWER]
TURNS = [SYSTEM, ASKED, THOUGHT, AGAIN, {**THOUGHT, "content": "Seven.", "reasoning_content": "So has the other."}]
WORK = [SYSTEM, ASKED, CALLS_IT, RESULT, ANSWER]


def problems(to: str, row: dict, template: str, **variables: str) -> list[str]:
    framework, _, kind = to.partition(":")
    return resolve("export", framework).kinds[kind].rendered.problems(ChatTemplate(template, variables), row) or []


def rows_of(messages: list[dict], tools: list[dict] | None = None) -> dict[str, dict]:
    """The same conversation for each kind that a template renders."""
    cut = max(number for number, message in enumerate(messages) if message["role"] == "user") + 1
    with_tools = {"tools": tools} if tools else {}
    sides = {"prompt": messages[:cut], "chosen": messages[cut:], "rejected": [{**ANSWER, "content": "Cold."}]}
    return {
        "nemo-rl:sft": {"messages": messages, **with_tools},
        "nemo-rl:dpo-messages": {
            "context": messages[:cut],
            "completions": [{"rank": 0, "completion": messages[cut:]}, {"rank": 1, "completion": [ANSWER]}],
        },
        "trl:grpo": {"prompt": messages[:cut], **with_tools},
        "trl:sft": {"messages": messages, "tools": json.dumps(tools)},
        "trl:sft-prompt-completion": {"prompt": messages[:cut], "completion": messages[cut:], **with_tools},
        "trl:dpo": {**sides, **with_tools},
        "trl:dpo-implicit": {
            "chosen": messages,
            "rejected": [*messages[:cut], {**ANSWER, "content": "Cold."}],
            **with_tools,
        },
        "trl:kto": {"prompt": messages[:cut], "completion": messages[cut:], "label": True, **with_tools},
        "verl:grpo": {"prompt": messages[:cut]},
        "verl:sft": {"messages": messages, **with_tools},
        "openrlhf:grpo": {"prompt": messages[:cut]},
        "openrlhf:sft": {"messages": messages},
        "openrlhf:dpo": sides,
    }


@pytest.mark.parametrize("messages", [TALK, TURNS, WORK], ids=["talk", "turns", "work"])
@pytest.mark.parametrize("to", rows_of(TALK))
def test_a_template_that_writes_every_turn_alike_is_fine_everywhere(to, messages):
    assert problems(to, rows_of(messages, [TOOL] if messages is WORK else None)[to], ALIKE) == []


def test_rows_of_text_are_rendered_as_nemo_rl_makes_messages_of_them():
    assert problems("nemo-rl:sft-simple", {"input": "2 + 2?", "output": "4"}, ALIKE) == []
    refused = problems("nemo-rl:grpo", {"input": "2 + 2?", "output": "4"}, "{{ raise_exception(messages[0].content) }}")
    assert refused == ["the chat template refuses this conversation: 2 + 2?"]
    pair = {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}
    (thought,) = problems(
        "nemo-rl:dpo",
        {**pair, "chosen": "<think>Easy.</think>4"},
        ALIKE.replace("message.content }}", "message.content.split('</think>')[-1] }}"),
    )
    assert thought.startswith("warning: the chat template leaves out the reasoning of message 2")
    assert problems("trl:dpo", pair, "{{ raise_exception('not called') }}") == []  # TRL joins texts as they are


@pytest.mark.parametrize("to", rows_of(TALK))
def test_what_a_template_refuses_is_said_in_its_words(to):
    found = problems(to, rows_of(TALK)[to], "{{ raise_exception('System role not supported') }}")
    assert found == ["the chat template refuses this conversation: System role not supported"]


@pytest.mark.parametrize("to", [to for to, row in rows_of(TALK).items() if "messages" not in row])
def test_messages_beside_a_prompt_are_not_what_is_rendered(to):
    beside = {"messages": [{"role": "nobody", "content": "Of another set."}]}
    for template in (ALIKE, NO_TOOLS, OPENED, "{{ messages[0].content + 1 }}"):
        assert problems(to, {**rows_of(TALK)[to], **beside}, template) == problems(to, rows_of(TALK)[to], template)


@pytest.mark.parametrize("to", [to for to, row in rows_of(TALK).items() if "messages" in row])
def test_a_prompt_beside_messages_is_not_what_is_rendered(to):
    assert problems(to, {**rows_of(TALK)[to], "prompt": [{"role": "nobody", "content": "Of another set."}]}, ALIKE) == []


def test_a_template_that_fails_is_a_refusal_with_what_failed():
    (failed,) = problems("trl:sft", {"messages": TALK}, "{{ messages[0].content + 1 }}")
    assert 'TypeError: can only concatenate str (not "int") to str' in failed
    (deep,) = problems("trl:sft", {"messages": TALK}, "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}")
    assert "RecursionError" in deep


def test_arguments_that_a_template_takes_only_in_another_form():
    row = {"messages": WORK, "tools": [TOOL]}
    (found,) = problems("nemo-rl:sft", row, AS_TEXT)
    assert found.endswith("(it takes the arguments of calls as JSON text: --arguments text of rollforge export)")
    as_text = [ASKED, {**CALLS_IT, "tool_calls": [_called('{"city": "Oslo in Norway"}')]}, RESULT, ANSWER]
    assert problems("nemo-rl:sft", {"messages": as_text, "tools": [TOOL]}, AS_TEXT) == []
    (twice,) = problems("nemo-rl:sft", {"messages": as_text, "tools": [TOOL]}, ALIKE)
    assert "the arguments in message 2 as text within JSON" in twice
    items = ALIKE.replace("call.function.arguments}", "call.function.arguments.items() | list}")
    (found,) = problems("nemo-rl:sft", {"messages": as_text, "tools": [TOOL]}, items)
    assert "has no attribute 'items' (it takes the arguments of calls as objects)" in found


def _called(arguments):
    return {**CALL, "function": {"name": "weather", "arguments": arguments}}


@pytest.mark.parametrize("to", ["nemo-rl:sft", "trl:sft", "trl:kto", "verl:sft"])
def test_what_a_template_leaves_out(to):
    found = problems(to, rows_of(WORK, [TOOL])[to], NO_TOOLS)
    assert [text for text in found if "leaves out" in text] == [
        "the chat template leaves out arguments of the calls in message 3: the model never reads them",
        "the chat template leaves out the tool calls: the model never reads them, and turns of calls alone are empty",
        "the chat template leaves out the tools: the model is not told which ones it has",
    ]
    only_users = "{% for message in messages if message.role == 'user' %}{{ message.content }}{% endfor %}"
    found = problems(to, rows_of(TURNS)[to], only_users)
    assert "the chat template leaves out what is said in message 1, the system's: the model never reads it" in found
    assert any(text.startswith("warning: the chat template leaves out the reasoning of message 5") for text in found)


def test_a_list_of_no_tools_is_given_where_the_framework_gives_it():
    template = "{% if tools is not none %}You have functions:{% endif %}" + ALIKE
    says = "the chat template tells the model of tools where the list of them is empty: write null, or no such key"
    for to, talk in rows_of(TALK).items():
        for empty in ([], "[]"):
            gives = to == "nemo-rl:sft" or (to.startswith("trl:") and to != "trl:grpo")
            assert problems(to, {**talk, "tools": empty}, template) == ([says] if gives else [])
            assert problems(to, {**talk, "tools": empty}, ALIKE) == []


def test_text_that_is_written_within_json_or_trimmed_is_there():
    template = "{% for message in messages %}{{ {'text': message.content | trim} | tojson }}{% endfor %}"
    messages = [ASKED, {**ANSWER, "content": '  It is "warm",\nÆ says.\n'}]
    assert problems("trl:sft", {"messages": messages}, template) == []


def test_a_content_that_is_none_or_a_list_where_the_template_wants_text():
    silent = [ASKED, {**CALLS_IT, "content": None}, RESULT, ANSWER]
    (found,) = problems("nemo-rl:sft", {"messages": silent, "tools": [TOOL]}, ALIKE)
    assert found == 'the chat template writes None for message 2, which has no content: write ""'
    assert (
        problems(
            "nemo-rl:sft",
            {"messages": silent, "tools": [TOOL]},
            ALIKE.replace("message.content }}", "message.content or '' }}"),
        )
        == []
    )
    parts = [{"role": "user", "content": [{"type": "text", "text": "How warm?"}]}, ANSWER]
    (found,) = problems("trl:sft", {"messages": parts}, ALIKE)
    assert found == "the chat template writes the list of message 1 as Python does: give its content as text"
    (found,) = problems("trl:sft", {"messages": parts}, ALIKE.replace("message.content }}", "message.content | tojson }}"))
    assert found == "the chat template writes the list of message 1 as JSON: give its content as text"


def test_the_first_turn_for_which_none_is_written_is_found_in_a_few_renderings():
    silent = {"role": "assistant", "content": None}
    turns = [{"role": "user", "content": "None?"}, silent, {**silent, "role": "tool"}] * 100
    template = ALIKE.replace("message.content }}", "message.content if message.role == 'tool' else message.content or '' }}")
    rendered = []

    class Counted(ChatTemplate):
        def render(self, messages, tools, **more):
            rendered.append(len(messages))
            return super().render(messages, tools, **more)

    fill = [
        {**message, "content": ""} if number < 200 and not message["content"] else message
        for number, message in enumerate(turns)
    ]
    for messages, first in ((turns, 3), (fill, 201), (fill[:200], 0)):
        rendered.clear()
        found = list(resolve("export", "trl").kinds["sft"].rendered.problems(Counted(template, {}), {"messages": messages}))
        assert found == (
            [f'the chat template writes None for message {first}, which has no content: write ""'] if first else []
        )
        assert len(rendered) < 16


def test_texts_of_a_list_may_be_trimmed_and_joined():
    join = """{% for message in messages %}{% if message.content is string %}{{ message.content }}{% else %}
{% for part in message.content %}{{ part.text | trim }}|{% endfor %}{% endif %}{% endfor %}"""
    asked = {"role": "user", "content": [{"type": "text", "text": text} for text in ("How warm ", "is it?\n")]}
    assert problems("trl:sft", {"messages": [asked, ANSWER]}, join) == []
    (found,) = problems("trl:sft", {"messages": [asked, ANSWER]}, join.replace("part.text |", "(part.text if loop.first) |"))
    assert found == "the chat template leaves out what is said in message 1, the user's: the model never reads it"


def test_reasoning_that_stands_in_the_text():
    messages = [ASKED, {**ANSWER, "content": "<think>The log has it.</think>Eleven."}, AGAIN, ANSWER]
    cuts = "{% for message in messages %}{{ message.content.split('</think>')[-1] }}{% endfor %}"
    (found,) = problems("trl:sft", {"messages": messages}, cuts)
    assert found.startswith("warning: the chat template leaves out the reasoning of message 2")


@pytest.mark.parametrize(
    ("template", "helps"),
    [
        (NO_TOOLS, True),  # knows no reasoning
        (NO_TOOLS.replace("message.content }}", "message.content.split('</think>')[-1] }}"), False),  # DeepSeek R1
        (
            NO_TOOLS.replace(
                "message.content }}",
                "message.content if message.reasoning_content is string else message.content.split('</think>')[-1] }}",
            ),
            False,
        ),  # Qwen3, of earlier turns
        (NO_TOOLS + "{% if '<think>' in messages[-1].content %}{{ raise_exception('no tags') }}{% endif %}", False),
    ],
)
def test_reasoning_inline_is_advised_where_the_template_keeps_it_in_the_text(template, helps):
    (found,) = problems("trl:sft", {"messages": [ASKED, THOUGHT]}, template)
    assert ("--reasoning inline writes it into the text, drop leaves" in found) is helps
    assert ("--reasoning inline would not help, drop leaves" in found) is not helps
    in_text = {**ANSWER, "content": "<think>The log has it.</think>Eleven."}
    if not helps and "raise" not in template:
        (found,) = problems("trl:sft", {"messages": [ASKED, in_text]}, template)
        assert "--reasoning inline would not help" in found


# A template that writes a turn otherwise once another follows


def test_nemo_rl_trains_on_both_forms_of_a_turn():
    (_, found) = problems("nemo-rl:sft", {"messages": TURNS}, LAST)
    assert found.startswith(
        "the chat template writes what stands before message 4 otherwise than without it ('<think>The log"
    )
    assert problems("nemo-rl:sft", {"messages": TURNS[:3]}, LAST) == []  # one turn
    found = problems("nemo-rl:dpo-messages", rows_of(TURNS)["nemo-rl:dpo-messages"], LAST)
    assert sum("NeMo RL" in text for text in found) == 1  # both halves say the same


def test_a_mark_at_the_end_that_gives_way_is_a_warning():
    ended = ALIKE + "{% if not add_generation_prompt %}[end]{% endif %}"
    (found,) = problems("nemo-rl:sft", {"messages": TALK}, ended, eos_token="[end]")
    assert found.startswith("warning: the chat template writes what stands before message 2 otherwise")
    assert "('[end]' is gone)" in found
    (found,) = problems("nemo-rl:sft", {"messages": [*TALK[:2], {**ANSWER, "content": "0 < 11"}]}, ended, eos_token="[end]")
    assert found.startswith("warning: ")


def test_a_mark_that_is_torn_where_another_gives_way_is_an_error():
    ended = ALIKE + "{% if not add_generation_prompt %}<|end_of_text|>{% endif %}"
    (found,) = problems("nemo-rl:sft", {"messages": TALK}, ended)
    assert found.startswith("the chat template writes what stands before message 2 otherwise")
    assert "('<|end_of_text|>' is gone)" in found
    assert "trains on both; message 2 begins with 'im_start|>user'. Train" in found


def test_a_mark_that_gives_way_hides_no_turn_that_is_taken_back():
    ended = LAST.replace("{% endfor %}" + OPEN, "{% if loop.last %}[end]{% endif %}{% endfor %}" + OPEN)
    *_, before, after = problems("nemo-rl:sft", {"messages": TURNS}, ended, eos_token="[end]")
    assert before.startswith("warning: the chat template writes what stands before message 2 otherwise")
    assert after.startswith("the chat template writes what stands before message 4 otherwise")


def test_nemo_rl_renders_every_beginning():
    (found,) = problems("nemo-rl:sft", {"messages": TALK}, STRICT)
    assert found == (
        "NeMo RL renders every beginning of a conversation, and the chat template refuses the first 1 of the 3 messages: No "
        "user query found"
    )
    assert problems("nemo-rl:sft", {"messages": TALK[1:]}, STRICT) == []
    assert problems("trl:sft", {"messages": TALK}, STRICT) == []


def test_openrlhf_cuts_by_length():
    (found,) = problems("openrlhf:sft", {"messages": TALK}, OPENED)
    assert found.startswith("the chat template opens message 3 with '<think>\\n', and does not write that where an answer")
    assert "trains on 'egrees.<|im_end|>\\n'" in found
    (found,) = problems("openrlhf:dpo", rows_of(TALK)["openrlhf:dpo"], OPENED)[:1]
    assert "trains on 'egrees." in found
    (_, found) = problems("openrlhf:sft", {"messages": TURNS}, LAST)
    assert found.startswith("the chat template writes message 3 otherwise once others follow ('<think>The log")


def test_openrlhf_gives_no_tools_to_the_template():
    assert problems("openrlhf:sft", {"messages": WORK}, ALIKE.replace("tool | tojson", "raise_exception('tools')")) == []


def test_trl_begins_the_answer_where_the_texts_part():
    for to in ("trl:sft-prompt-completion", "trl:kto"):
        (found,) = problems(to, rows_of(TALK)[to], OPENED)
        assert found.startswith(
            "warning: the chat template opens an answer with '<think>\\n', and where one stands it writes 'Eleven"
        )
    assert problems("trl:sft", {"messages": TALK}, OPENED) == []


def test_verl_renders_one_by_one():
    (_, found) = problems("verl:sft", {"messages": TURNS}, LAST)
    assert "writes message 3 otherwise alone ('<think>The log" in found
    assert "AssertionError" in found
    alternate = (
        ALIKE
        + "{% if messages | length > 1 and messages[0].role == messages[1].role %}"
        + "{{ raise_exception('must alternate') }}{% endif %}"
    )
    (found,) = problems("verl:sft", {"messages": TALK}, alternate)
    assert found.startswith("verl renders two questions in a row to find the system prompt")
    assert "must alternate" in found
    ended = ALIKE + "{% if messages | length == 3 %}the end{% endif %}"
    (found,) = problems("verl:sft", {"messages": TALK}, ended)
    assert "ends the conversation with 'the end'" in found


def test_verl_does_not_train_on_what_stands_where_the_opening_of_an_answer_would():
    (found,) = problems("verl:sft", {"messages": [*TALK, AGAIN, ANSWER]}, OPENED)
    assert found.startswith(
        "the chat template opens an answer with '<think>\\n', and does not write that in message 3: verl"
    )
    assert "does not train on as many of 'Eleven degrees.<|im_end|>\\n'" in found
    thought = {"messages": TURNS[:3], "enable_thinking": False}
    shut = ALIKE + "{% if add_generation_prompt and enable_thinking is defined %}<think></think>{% endif %}"
    assert problems("verl:sft", thought, shut) == []  # verl renders the opening without what a row tells


def test_verl_takes_away_a_system_prompt_that_the_template_adds():
    adds = "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}" + ALIKE
    assert problems("verl:sft", {"messages": [SYSTEM, ASKED, ANSWER, AGAIN, ANSWER]}, adds) == []


def test_templates_that_want_a_question_are_given_one_as_verl_does():
    assert (
        problems(
            "verl:sft",
            {"messages": TALK[1:]},
            STRICT.replace("message.content }}", "message.content if message.content is string else '' }}"),
        )
        == []
    )
    (found,) = problems(
        "verl:sft",
        {"messages": TALK},
        "{% if messages[0].role != 'user' %}{{ raise_exception('user first') }}{% endif %}" + ALIKE,
    )
    assert found == "the chat template refuses this conversation: user first"


@pytest.mark.parametrize("to", rows_of(TALK))
def test_what_a_row_tells_the_template_where_the_framework_reads_it(to):
    template = ALIKE + "{% if enable_thinking is defined and not enable_thinking %}{{ raise_exception('told') }}{% endif %}"
    trl = to.startswith("trl:") and to != "trl:grpo"  # which is told by its configuration
    for told, read in (
        ({"chat_template_kwargs": {"enable_thinking": False}}, trl),
        ({"enable_thinking": False}, to == "verl:sft"),
    ):
        found = problems(to, {**rows_of(TALK)[to], **told}, template)
        assert found == (["the chat template refuses this conversation: told"] if read else [])


def test_a_long_conversation_is_rendered_at_its_beginning_and_its_end():
    messages = [SYSTEM, *[ASKED, ANSWER] * MOST_TURNS]
    counted = ALIKE + "{% if messages | length == %d %}{{ raise_exception('here') }}{% endif %}"
    for number, seen in ((2, True), (MOST_TURNS, False), (len(messages) - 1, True)):
        assert bool(problems("nemo-rl:sft", {"messages": messages}, counted.replace("%d %", f"{number} %"))) is seen


# What is trained on


def learned(to: str, row: dict, template: str = ALIKE, **variables: str) -> list[str]:
    framework, _, kind = to.partition(":")
    found = resolve("export", framework).kinds[kind].rendered.trained(ChatTemplate(template, variables), row)
    return ["".join(part.text for part in parts if part.trained) for parts in found.values()]


SAID = "Eleven degrees.<|im_end|>\n"
MADE = '{"name": "weather", "arguments": {"city": "Oslo in Norway"}}<|im_end|>\n'
HEAD = "<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("to", "trained"),
    [
        ("nemo-rl:sft", [HEAD + MADE + HEAD + SAID]),  # the opening, too
        ("nemo-rl:dpo-messages", [HEAD + SAID, HEAD + SAID]),  # the last message
        ("trl:grpo", [""]),
        ("trl:sft-prompt-completion", [MADE + "<|im_start|>tool\n" + RESULT["content"] + "<|im_end|>\n" + HEAD + SAID]),
        ("trl:dpo", [MADE + "<|im_start|>tool\n" + RESULT["content"] + "<|im_end|>\n" + HEAD + SAID, "Cold.<|im_end|>\n"]),
        ("verl:sft", [MADE + SAID]),
        ("openrlhf:sft", [MADE + SAID.strip()]),
        (
            "openrlhf:dpo",
            [MADE + "<|im_start|>tool\n" + RESULT["content"] + "<|im_end|>\n" + HEAD + SAID.strip(), "Cold.<|im_end|>"],
        ),
    ],
)
def test_what_each_framework_trains_on(to, trained):
    assert learned(to, rows_of(WORK, [TOOL])[to]) == trained


@pytest.mark.parametrize("to", rows_of(TALK))
def test_the_parts_are_the_whole(to):
    framework, _, kind = to.partition(":")
    rendering = resolve("export", framework).kinds[kind].rendered
    for parts in rendering.trained(ChatTemplate(ALIKE, {}), rows_of(TURNS)[to]).values():
        text = "".join(part.text for part in parts)
        assert text.startswith("<|im_start|>system\nYou are a clerk of towns.<|im_end|>\n<|im_start|>user\nHow warm")
        assert text.rstrip("\n").endswith("assistant" if kind == "grpo" else "<|im_end|>")


def test_what_is_cut_wrong_is_shown_so():
    assert learned("openrlhf:sft", {"messages": TALK}, OPENED) == ["egrees.<|im_end|>"]
    assert learned("nemo-rl:sft", {"messages": TURNS}, LAST)[0].startswith(
        HEAD + "<think>The log has the figure.</think>Eleven"
    )


def test_one_line_is_shown(tmp_path):
    file = write(tmp_path / "train.jsonl", [{"messages": [SYSTEM]}, "no row", {"messages": WORK, "tools": [TOOL]}])
    template = tmp_path / "template.jinja"
    template.write_text(ALIKE)
    command = ["check", str(file), "--for", "openrlhf:sft", "--tokenizer", str(template), "--show"]
    done = CliRunner().invoke(app, [*command, "3"])
    assert done.exit_code == 0
    assert done.output.startswith(
        f"{file}:3, as openrlhf:sft makes it; trained on in [[brackets]]:\n<|im_start|>system\nYou are"
    )
    assert f"<|im_start|>assistant\n[[{SAID.strip()}]]" in done.output
    said = json.loads(CliRunner().invoke(app, [*command, "3", "--json"]).output)
    assert said["line"] == 3
    assert [part["text"] for part in said["conversations"][""] if part["trained"]] == [MADE, SAID.strip()]
    other = ["check", str(file), "--for", "generic:openai", "--tokenizer", str(template), "--show", "1"]
    wrong = [
        ([*command, "2"], "holds no conversation"),
        ([*command, "4"], "has no line 4"),
        (["check", str(file), "--for", "trl:sft", "--show", "1"], "--show is for one file, with --tokenizer"),
        (other, "generic:openai is given to no chat template"),
    ]
    pair = write(tmp_path / "pair.jsonl", [rows_of([*WORK, AGAIN, ANSWER])["openrlhf:dpo"]])
    done = CliRunner().invoke(
        app, ["check", str(pair), "--for", "openrlhf:dpo", "--tokenizer", str(template), "--show", "1"]
    )
    assert f"{pair}:1, chosen, as openrlhf:dpo makes it" in done.output
    assert (
        f"{pair}:1, rejected, as openrlhf:dpo makes it; trained on in [[brackets]]:\n(as above) [[Cold.<|im_end|>]]\n"
        in done.output
    )
    for words, says in wrong:
        assert says in str(CliRunner().invoke(app, words).exception)
    template.write_text("{{ raise_exception('no') }}")
    refused = CliRunner().invoke(app, [*command, "3"]).exception
    assert str(refused) == f"{file}:3: the chat template refuses this conversation: no"


# The check of files


def test_lines_are_named_and_counted(tmp_path):
    rows = [{"messages": TALK}, {"messages": WORK, "tools": [TOOL]}, {"messages": [ASKED]}, *[{"messages": TURNS}] * 7]
    file, template = write(tmp_path / "train.jsonl", rows), tmp_path / "template.jinja"
    template.write_text(LAST)
    checked = check_files([file], resolve("export", "nemo-rl"), "sft", tokenizer=template, load=False)
    (found,) = [one for one in checked.lines() if "NeMo RL, which" in one]
    assert found.startswith(f"{file}:4, 5, 6, 7, 8 and 2 more places: error: the chat template writes what stands before")
    assert checked.template == str(template)
    assert checked.row()["template"] == str(template)
    plain = check_files([file], resolve("export", "nemo-rl"), "sft", load=False)
    assert plain.template == ""
    assert "template" not in plain.row()
    assert not any("template writes" in one.message for one in plain.problems)


def test_what_rows_say_in_quotes_makes_no_other_kind_of_problem(tmp_path):
    texts = ["It's", 'He said "so"', 'It\'s "so"', "isn't, 'tis", "both ' and \" and '", "a \\ and '\""]
    rows = [{"messages": [*TURNS[:2], {**THOUGHT, "reasoning_content": text}, *TURNS[3:]]} for text in texts * 3]
    file, template = write(tmp_path / "train.jsonl", rows), tmp_path / "template.jinja"
    template.write_text(LAST)
    checked = check_files([file], resolve("export", "nemo-rl"), "sft", tokenizer=template, load=False)
    found = [one for one in checked.problems if "NeMo RL, which" in one.message]
    assert (len(found), found[-1].more) == (5, len(rows) - 5)


def test_rows_of_parquet_are_rendered_under_the_names_that_a_configuration_gives(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file, template, script = tmp_path / "train.parquet", tmp_path / "template.jinja", tmp_path / "run.sh"
    asked = {"data_source": "toy", "asked": TALK[:2], "reward_model": {"ground_truth": "11"}}
    parquet.write_table(arrow.Table.from_pylist([asked]), file)
    template.write_text("{{ raise_exception('System role not supported') }}")
    script.write_text(f"python3 -m verl.trainer.main_ppo data.train_files={file} data.prompt_key=asked\n")
    checked = check_files([file], resolve("export", "verl"), "grpo", script, tokenizer=template, load=False)
    assert any("System role not supported" in one.message and one.line == 1 for one in checked.problems)


def test_what_was_not_rendered_is_said(tmp_path):
    template = tmp_path / "template.jinja"
    template.write_text(ALIKE)
    text = {"prompt": "How warm?", "chosen": "Eleven.", "rejected": "Cold."}
    for to, rows, says in (
        ("generic:sharegpt", [{"conversations": [{"from": "human", "value": "Hi"}]}], "no row is rendered by"),
        ("trl:dpo", [text], "no row is rendered by"),
        (
            "openrlhf:sft-simple",
            [{"input": "Hi", "output": "Ho"}, {"input": [ASKED], "output": [ANSWER]}],
            "1 rows rendered by",
        ),
        ("trl:sft", [{"messages": TALK}], "; rendered by"),
    ):
        framework, _, kind = to.partition(":")
        file = write(tmp_path / "train.jsonl", rows)
        checked = check_files([file], resolve("export", framework), kind, tokenizer=template, load=False)
        assert f"{says} the chat template of {template}" in checked.tried


def test_rows_with_errors_are_not_rendered(tmp_path):
    file, template = write(tmp_path / "train.jsonl", [{"messages": [{"role": "user"}, 3]}]), tmp_path / "t.jinja"
    template.write_text("{{ raise_exception('rendered') }}")
    checked = check_files([file], resolve("export", "trl"), "sft", tokenizer=template, load=False)
    assert checked.errors
    assert not any("rendered" in one.message for one in checked.problems)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_command_renders_by_a_models_directory(tmp_path, workers):
    file = write(tmp_path / "train.jsonl", [{"messages": WORK, "tools": [TOOL]}])
    model = tmp_path / "model"
    model.mkdir()
    (model / "tokenizer_config.json").write_text(json.dumps({"chat_template": NO_TOOLS, "eos_token": {"content": "</s>"}}))
    command = [
        "check",
        str(file),
        "--for",
        "nemo-rl:sft",
        "--no-loader",
        "--workers",
        str(workers),
        "--tokenizer",
        str(model),
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert f"{file}:1: error: the chat template leaves out the tool calls" in done.output
    assert done.output.endswith(f"; rendered by the chat template of {model}\n")
    (model / "chat_template.jinja").write_text(ALIKE)  # which goes before the configuration's
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    assert "no problems" in done.output


@pytest.mark.parametrize("name", ["mine.jinja", "mine.jinja2", "mine.j2"])
def test_a_template_in_a_models_directory_is_the_one_that_is_named(tmp_path, name):
    (tmp_path / "chat_template.jinja").write_text("the model's")
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    (tmp_path / name).write_text("{{ bos_token }}mine")
    assert read_template(tmp_path / name).render(TALK, None) == "<s>mine"
    assert read_template(tmp_path / "tokenizer_config.json").render(TALK, None) == "the model's"


def test_a_template_by_itself_writes_the_names_of_the_tokens_that_nobody_knows(tmp_path):
    (tmp_path / "alone.jinja").write_text("{{ bos_token + messages[0].content + eos_token }}")
    assert read_template(tmp_path / "alone.jinja").render([{"content": "Hi."}], None) == "<bos_token>Hi.<eos_token>"


@pytest.mark.parametrize("files", [False, True])
def test_of_templates_by_name_the_one_for_tools_is_taken_where_there_are_tools(tmp_path, files):
    named = {"default": f"plain {ALIKE}", "tool_use": f"with tools {ALIKE}", "rag": "{{ raise_exception('rag') }}"}
    entries = [{"name": name, "template": text} for name, text in named.items()]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "old" if files else entries}))
    if files:  # as transformers writes them
        (tmp_path / "additional_chat_templates").mkdir()
        (tmp_path / "chat_template.jinja").write_text(named.pop("default"))
        for name, text in named.items():
            (tmp_path / "additional_chat_templates" / f"{name}.jinja").write_text(text)
    template = read_template(tmp_path)
    assert template.render(TALK, None).startswith("plain<|im_start|>")
    assert template.render(WORK, [TOOL]).startswith("with tools<|im_start|>")
    assert template.render(TALK, []).startswith("with tools<|im_start|>")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("template.jinja", "{% if %}", "the chat template is broken"),
        ("tokenizer.json", "{}", "has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json)"),
        ("gone.jinja", None, "is not there, nor in the hub's cache: a model's directory is wanted, or a file in it"),
        ("latin.jinja", b"\xe4", "it is not UTF-8"),
    ],
)
def test_what_is_no_template(tmp_path, name, text, says):
    file = write(tmp_path / "train.jsonl", [{"messages": TALK}])
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=r"chat template|is not there") as error:
        check_files([file], resolve("export", "trl"), "sft", tokenizer=tmp_path / name, load=False)
    assert says in str(error.value)


@pytest.mark.parametrize("name", ["tiny", f"tiny:{TINY}", f"transformers:{TINY}", str(TINY), str(TINY / "tokenizer.json")])
def test_models_are_found_by_the_names_that_they_have_elsewhere(name):
    assert "<|im_start|>user\nHow warm" in read_template(name).render([ASKED], None)


@pytest.mark.parametrize(
    ("to", "config", "text", "names"),
    [
        (
            "nemo-rl:sft",
            "sft.yaml",
            "policy: {tokenizer: {chat_template: '{{ messages }}'}}",
            "policy.tokenizer.chat_template",
        ),
        (
            "nemo-rl:sft",
            "sft.yaml",
            "policy: {tokenizer: {chat_template_kwargs: {a: 1}}}\ndata: {add_generation_prompt: true}",
            "policy.tokenizer.chat_template_kwargs and data.add_generation_prompt",
        ),
        (
            "nemo-rl:sft",
            "sft.yaml",
            "policy: {tokenizer: {chat_template: default}}\ndata: {add_generation_prompt: false}",
            "",
        ),
        ("trl:sft", "sft.yaml", "chat_template_path: mine.jinja", "chat_template_path"),
        (
            "openrlhf:sft",
            "run.sh",
            "python -m openrlhf.cli.train_sft --data.apply_chat_template --data.tokenizer_chat_template x",
            "--data.tokenizer_chat_template",
        ),
        (
            "verl:sft",
            "run.sh",
            "torchrun -m verl.trainer.sft_trainer +data.apply_chat_template_kwargs.enable_thinking=False",
            "data.apply_chat_template_kwargs.enable_thinking",
        ),
        ("verl:sft", "run.sh", "torchrun -m verl.trainer.sft_trainer data.train_batch_size=1", ""),
    ],
)
def test_a_configuration_that_renders_otherwise_is_said(tmp_path, to, config, text, names):
    file, template = write(tmp_path / "train.jsonl", [rows_of(TALK)[to]]), tmp_path / "template.jinja"
    template.write_text(ALIKE)
    (tmp_path / config).write_text(text)
    framework, _, kind = to.partition(":")

    def said(**options):
        checked = check_files([file], resolve("export", framework), kind, tmp_path / config, load=False, **options)
        return [one.message for one in checked.problems if "rendered without it" in one.message]

    says = f"the rows were rendered without its {names}, by the chat template of {template} alone "
    assert [text.startswith(says) for text in said(tokenizer=template)] == ([True] if names else [])
    assert said() == []


@pytest.mark.parametrize("names_it", [str, Path.read_text])
def test_a_configuration_that_renders_by_the_template_that_is_tried_is_fine(tmp_path, names_it):
    file, template = write(tmp_path / "train.jsonl", [{"messages": TALK}]), tmp_path / "mine.jinja"
    template.write_text(ALIKE)
    (tmp_path / "sft.yaml").write_text(json.dumps({"policy": {"tokenizer": {"chat_template": names_it(template)}}}))
    checked = check_files([file], resolve("export", "nemo-rl"), "sft", tmp_path / "sft.yaml", tokenizer=template, load=False)
    assert not any("rendered without" in one.message for one in checked.problems)


def test_an_export_with_a_models_directory_is_rendered(tmp_path):
    rollout = row("2 + 2?", "4")
    rollout["response"]["output"] = [call("add", '{"a": 2}'), output("4"), said("It is 4.")]
    file = write(tmp_path / "rollouts.jsonl", [rollout])
    done = export_rollouts([file], ["nemo-rl:sft", "trl:sft"], tmp_path / "out", tokenizer=str(TINY), validation=0)
    for one in done.targets:
        assert json.loads((one.folder / "check.json").read_text())["template"] == str(TINY)
        assert not any("template" in problem.message for problem in one.problems)


def model_with(folder: Path, template: str) -> str:
    shutil.copytree(TINY, folder)
    (folder / "chat_template.jinja").write_text(template)
    return str(folder)


def spoken(value):
    """The arguments of all calls in it."""
    if isinstance(value, list):
        return [one for item in value for one in spoken(item)]
    if not isinstance(value, dict):
        return []
    here = [one["function"]["arguments"] for one in value.get("tool_calls") or ()]
    return here + [one for item in value.values() for one in spoken(item)]


@pytest.mark.parametrize("to", [to for to in rows_of(TALK) if to != "verl:sft"])  # that one is Parquet
def test_arguments_are_exported_as_the_text_that_a_template_wants(tmp_path, to):
    add = {"type": "function", "name": "add", "parameters": {"type": "object"}}
    good, bad = row("2 + 2?", "4", tools=[add]), row("2 + 2?", "4", reward=0.0, tools=[add])
    good["responses_create_params"]["input"] = [
        {"role": "user", "content": "1 + 1?"},
        call("add", '{"a":1,"to":"één"}', "c0"),
        output("2", "c0"),
        said("2"),
        {"role": "user", "content": "2 + 2?"},
    ]
    bad["responses_create_params"] = good["responses_create_params"]
    good["response"]["output"] = [call("add", '{"a": 2}', "c1"), output("4", "c1"), said("It is 4.")]
    bad["response"]["output"] = [said("It is 5.")]
    good["expected_calls"] = bad["expected_calls"] = [{"tool_calls": [{"function": {"arguments": {"a": 2}}}]}]
    file = write(tmp_path / "rollouts.jsonl", [good, bad])
    model = model_with(tmp_path / "model", AS_TEXT)
    done = export_rollouts([file], [to], tmp_path / "out", tokenizer=model, validation=0, arguments="text").targets[0]
    assert not [problem.message for problem in done.problems if "argument" in problem.message]
    made = [json.loads(line) for line in (done.folder / "train.jsonl").read_text().splitlines()]
    found = [
        one
        for line in made
        for key, value in line.items()
        if key not in ("tools", "expected_calls")
        for one in spoken(value)
    ]
    assert bool(found) == (to not in ("nemo-rl:dpo-messages", "openrlhf:dpo"))  # those write calls into the text
    assert set(found) <= {'{"a": 1, "to": "één"}', '{"a": 2}'}
    assert all(line.get("expected_calls", good["expected_calls"]) == good["expected_calls"] for line in made)
    assert json.loads((done.folder / "manifest.json").read_text())["options"]["arguments"] == "text"


def test_arguments_as_text_are_for_a_template_that_is_at_hand(tmp_path):
    file = write(tmp_path / "rollouts.jsonl", [row("2 + 2?", "4")])
    with pytest.raises(UserError, match="--arguments text: most chat templates quote it twice"):
        export_rollouts([file], ["trl:sft"], tmp_path / "out", arguments="text")


def test_with_a_template_at_hand_nothing_is_said_of_templates_in_general(tmp_path):
    as_text = [ASKED, {**CALLS_IT, "reasoning_content": "So.", "tool_calls": [_called('{"city": "Oslo"}')]}, RESULT, ANSWER]
    file = write(tmp_path / "train.jsonl", [{"messages": as_text, "tools": [TOOL]}])

    def of(framework: str, template: str = "") -> str:
        options = {"tokenizer": model_with(tmp_path / framework, template)} if template else {}
        checked = check_files([file], resolve("export", framework), "sft", load=False, **options)
        return "\n".join(one.message for one in checked.problems)

    for framework in ("trl", "nemo-rl"):
        assert "with tojson quote them twice" in of(framework)
        assert "templates that do not know it" in of(framework)
        said = of(framework, AS_TEXT)
        assert "tojson" not in said
        assert "templates that do not know it" not in said


def test_nor_is_it_said_by_a_configuration_that_names_the_data(tmp_path):
    rollout = row("2 + 2?", "4")
    rollout["responses_create_params"]["tools"] = [{"type": "function", "name": "add", "parameters": {"type": "object"}}]
    rollout["response"]["output"] = [call("add", '{"a": 2}'), output("4"), said("It is 4.")]
    file = write(tmp_path / "rollouts.jsonl", [rollout])
    options = {"tokenizer": str(TINY), "validation": 0, "arguments": "text"}
    done = export_rollouts([file], ["nemo-rl:sft"], tmp_path / "out", **options).targets[0]
    assert not [one.message for one in done.problems if "tojson" in one.message]


# The real thing


def real_templates() -> list[Path]:
    """Those of some sixty models that TRL brings."""
    return sorted((Path(pytest.importorskip("trl").__file__).parent / "chat_templates").glob("*.jinja"))


def special(tokenizer) -> dict[str, str]:
    return {name: text for name, text in tokenizer.special_tokens_map.items() if isinstance(text, str)}


@pytest.mark.trainers
def test_verl_stops_where_it_is_said_to(tmp_path):
    pytest.importorskip("verl")
    pandas = pytest.importorskip("pandas")
    from rollforge.export.trial import byte_tokenizer
    from rollforge.export.verl.loader import dataset

    tokenizer, file = byte_tokenizer(), tmp_path / "train.parquet"
    talks = [TALK, TURNS, WORK, WORK[1:], [*WORK, AGAIN, ANSWER], [ASKED, ANSWER]]
    seen = set()
    for messages in talks:
        tools = [TOOL] if RESULT in messages else []
        pandas.DataFrame({"messages": [json.dumps(messages)], "tools": [json.dumps(tools)]}).to_parquet(file)
        for template in real_templates():
            tokenizer.chat_template = template.read_text()
            item = None
            try:
                item = dataset("sft", file, str(tmp_path), tokenizer)[0]
                stops = False
            except Exception:  # noqa: BLE001 - whatever a template or verl raises
                stops = True
            row = {"messages": messages, "tools": tools}
            said = problems("verl:sft", row, tokenizer.chat_template, **special(tokenizer))
            assert any("stops with" in text or "refuses" in text for text in said) == stops, (template.stem, messages, said)
            seen.add((template.stem, stops))
            if item is not None and not any("verl" in text for text in said):
                ids = item["input_ids"][item["loss_mask"].bool()]
                assert [tokenizer.decode(ids)] == learned("verl:sft", row, tokenizer.chat_template, **special(tokenizer))
    assert {("qwen3", True), ("qwen3_training", False), ("qwen2_5", False)} <= seen


@pytest.mark.trainers
def test_openrlhf_trains_on_the_answers_where_nothing_is_said(tmp_path):
    pytest.importorskip("openrlhf")
    from rollforge.export.openrlhf.loader import dataset
    from rollforge.export.trial import byte_tokenizer

    tokenizer, found = byte_tokenizer(), {}
    for name, messages in {"talk": TALK, "turns": TURNS, "again": [*TALK, AGAIN, {**ANSWER, "content": "Seven."}]}.items():
        file = write(tmp_path / f"{name}.jsonl", [{"messages": messages}])
        for template in real_templates():
            tokenizer.chat_template = template.read_text()
            said = problems("openrlhf:sft", {"messages": messages}, tokenizer.chat_template, **special(tokenizer))
            if any("refuses" in text or "leaves out what" in text for text in said):
                continue
            data, _ = dataset("sft", file, str(tmp_path / "cache"), tokenizer)
            ids, _, mask = data[0]
            trained = tokenizer.decode(ids[0][1:][mask[0][:-1].bool()])
            answers = [message["content"] for message in messages if message["role"] == "assistant"]
            asked = [message["content"] for message in messages if message["role"] != "assistant"]
            right = all(text in trained for text in answers) and not any(text in trained for text in asked)
            wrong = any("OpenRLHF" in text for text in said if not text.startswith("warning: "))
            assert right or wrong, (template.stem, name, trained)
            found[template.stem, name] = wrong
            if not any("OpenRLHF" in text for text in said):
                assert [trained] == learned(
                    "openrlhf:sft", {"messages": messages}, tokenizer.chat_template, **special(tokenizer)
                )
    assert found["qwen3", "turns"]
    assert not found["qwen3_training", "turns"]
    assert not found["qwen3", "talk"]
