"""The embedded policy: the shipped checkpoint, the engine, the chat format, and checkpoints that it cannot run."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rollforge.envs.arithmetic import arithmetic
from rollforge.envs.arithmetic.tasks import tasks
from rollforge.errors import DeadlineExceeded, InfraFault, SetupError, UserError
from rollforge.models.base import ModelOptions, Request
from rollforge.models.chat_format import ChatFormat, read_tool_calls
from rollforge.models.tiny import SHIPPED, Tiny, load
from rollforge.models.tiny.checkpoint import read_checkpoint
from rollforge.models.tiny.sampling import draw
from rollforge.models.tokens import Sampling
from rollforge.records.items import (
    Item,
    Response,
    assistant,
    function_call,
    function_call_output,
    input_items,
    system,
    token_drift,
    tool_calls,
    user,
)

TOOLS = [tool.row() for tool in arithmetic.tools]
QUESTION = user("What is 47 × 23?")


@pytest.fixture
async def tiny() -> AsyncIterator[Tiny]:
    model = shipped()
    yield model
    await model.aclose()


def shipped(**options: Any) -> Tiny:
    model = load(None, ModelOptions(**options))
    assert isinstance(model, Tiny)
    return model


def request(*items: Item, seed: int = 0, **params: Any) -> Request:
    return Request({"input": list(items) or [QUESTION], "tools": TOOLS, **params}, seed=seed)  # type: ignore[typeddict-item]


def said(response: Response) -> list[tuple[Any, ...]]:
    """What an answer says, without its times."""
    return [tuple(sorted((k, str(v)) for k, v in item.items())) for item in response["output"]]


async def episode(model: Tiny, prompt: str, seed: int) -> list[Item]:
    """A few turns with a tool that always answers 7."""
    output: list[Item] = []
    for turn in range(3):
        response = await model(request(user(prompt), *output, seed=1000 * seed + turn))
        output += response["output"]
        calls = tool_calls(response)
        if not calls:
            break
        output += [function_call_output(call["call_id"], "7") for call in calls]
    return output


# The shipped checkpoint


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 4_000_000


async def test_an_answer_is_a_response_with_tokens(tiny: Tiny) -> None:
    response = await tiny(request(temperature=0))
    (call,) = response["output"]
    assert call["type"] == "function_call"
    assert call["name"] in {tool["name"] for tool in TOOLS}
    assert json.loads(call["arguments"]) == {"a": 47, "b": 23}
    assert len(call["generation_token_ids"]) == len(call["generation_log_probs"])
    assert all(value <= 0 for value in call["generation_log_probs"])
    usage = response["usage"]
    assert usage is not None
    assert usage["input_tokens"] == len(call["prompt_token_ids"])
    assert usage["total_tokens"] == usage["input_tokens"] + len(call["generation_token_ids"])
    assert (response["status"], response["model"]) == ("completed", "tiny")


async def test_it_reports_what_the_tool_said(tiny: Tiny) -> None:
    call = function_call("multiply", '{"a": 47, "b": 23}', "c1")
    response = await tiny(request(QUESTION, call, function_call_output("c1", "1081"), temperature=0))
    assert "1081" in response["output"][-1]["content"][0]["text"]


async def test_runs_are_the_same_at_any_concurrency(tiny: Tiny) -> None:
    prompts = [row["prompt"] for row in tasks(12)] * 4
    together = await asyncio.gather(*(episode(tiny, prompt, seed) for seed, prompt in enumerate(prompts)))
    alone = shipped()
    for seed, prompt in list(enumerate(prompts))[::3]:
        assert await episode(alone, prompt, seed) == together[seed]
    await alone.aclose()


async def test_every_prompt_begins_with_the_tokens_before_it(tiny: Tiny) -> None:
    outputs = await asyncio.gather(*(episode(tiny, row["prompt"], seed) for seed, row in enumerate(tasks(20))))
    assert [token_drift(output) for output in outputs] == [None] * 20
    assert any(sum("generation_token_ids" in item for item in output) > 1 for output in outputs)


# Sampling


async def test_the_seed_decides(tiny: Tiny) -> None:
    first, again, other = [await tiny(request(seed=seed)) for seed in (1, 1, 2)]
    assert said(first) == said(again)
    assert said(first) != said(other)


async def test_a_seed_in_the_parameters_wins(tiny: Tiny) -> None:
    one, two = Request({**request().params, "seed": 9}, seed=1), Request({**request().params, "seed": 9}, seed=2)  # type: ignore[typeddict-unknown-key]
    assert said(await tiny(one)) == said(await tiny(two))


@pytest.mark.parametrize("params", [{"temperature": 0}, {"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}])
async def test_the_likeliest_token(tiny: Tiny, params: dict[str, Any]) -> None:
    greedy = await tiny(request(temperature=0))
    answers = [await tiny(request(seed=seed, **params)) for seed in range(4)]
    ids = [answer["output"][-1]["generation_token_ids"] for answer in answers]
    assert ids == [greedy["output"][-1]["generation_token_ids"]] * 4


async def test_log_probabilities_are_the_models_own_whatever_the_sampling(tiny: Tiny) -> None:
    def log_probs(response: Response) -> list[float]:
        return list(response["output"][-1]["generation_log_probs"])

    greedy = log_probs(await tiny(request(temperature=0)))
    assert log_probs(await tiny(request(temperature=1.7, top_k=1))) == greedy


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"temperature": -1}, "temperature is -1, not a number of at least 0"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"top_p": 1.5}, "top_p is 1.5, not a number from 0 to 1"),
        ({"max_output_tokens": 0}, "max_output_tokens is 0"),
        ({"repetition_penalty": 1.2}, "does not know the sampling parameter repetition_penalty"),
    ],
)
async def test_impossible_sampling_stops_the_run(tiny: Tiny, params: dict[str, Any], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        await tiny(request(**params))


async def test_an_answer_can_be_cut(tiny: Tiny) -> None:
    cut = await tiny(request(temperature=0, max_output_tokens=5))
    assert cut["incomplete_details"] == {"reason": "max_output_tokens"}
    assert (cut["status"], cut["output"][-1]["status"]) == ("incomplete", "incomplete")
    assert len(cut["output"][-1]["generation_token_ids"]) == 5
    following = await tiny(request(QUESTION, *cut["output"], user("Go on."), temperature=0))
    assert token_drift([*cut["output"], *following["output"]]) is None


async def test_a_stop_text_ends_an_answer_and_is_not_part_of_it(tiny: Tiny) -> None:
    whole = await tiny(request(temperature=0, tool_choice="none", max_output_tokens=12))
    text = whole["output"][0]["content"][0]["text"]
    stop = text[-1]
    stopped = await tiny(request(temperature=0, tool_choice="none", stop=["never said", stop]))
    assert stopped["output"][0]["content"][0]["text"] == text[: text.index(stop)]
    assert stopped["status"] == "completed"


async def test_a_prompt_that_fills_the_context_gets_an_empty_cut_answer(tiny: Tiny) -> None:
    response = await tiny(request(user("word " * 3000)))
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][0]["content"][0]["text"] == ""
    assert "generation_token_ids" not in response["output"][0]


async def test_a_long_prompt_is_taken_in_parts(tiny: Tiny) -> None:
    long = "one two three " * 120
    alone = await tiny(request(user(long), temperature=0, max_output_tokens=8))
    other = shipped()
    requests = [request(user(text), temperature=0, max_output_tokens=8) for text in (long, "hi", long[: len(long) // 2])]
    together = await asyncio.gather(*(other(r) for r in requests))
    await other.aclose()
    assert said(together[0]) == said(alone)


# Many callers


async def test_a_cancelled_caller_harms_nobody(tiny: Tiny) -> None:
    calls = [asyncio.create_task(tiny(request(user(f"What is {n} + {n}?"), seed=n))) for n in range(20)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    expected = [await tiny(request(user(f"What is {n} + {n}?"), seed=n)) for n in range(1, 20, 2)]
    assert [said(r) for r in results[1::2] if not isinstance(r, BaseException)] == [said(e) for e in expected]


async def test_a_deadline_ends_the_wait() -> None:
    model = shipped(call_seconds=0.0)
    with pytest.raises(DeadlineExceeded, match="call_seconds"):
        await model(request())
    await model.aclose()


async def test_a_closed_model_says_so(tiny: Tiny) -> None:
    await tiny(request(max_output_tokens=1))
    await tiny.aclose()
    with pytest.raises(SetupError, match="closed"):
        await tiny(request())


async def test_closing_ends_calls_that_wait() -> None:
    model = shipped()
    calls = [asyncio.create_task(model(request(seed=n))) for n in range(100)]
    await asyncio.sleep(0)
    await model.aclose()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, (dict, SetupError)) for result in results)
    assert any(isinstance(result, SetupError) for result in results)


# Chat format


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return format_of(SHIPPED)


def format_of(directory: Path) -> ChatFormat:
    c = read_checkpoint(directory)
    return ChatFormat(c.template, c.tokenizer, c.special_tokens, c.eos_ids, c.model.config.vocab)


CONVERSATION = [
    system("Be brief."),
    user("What is (47 + 12) × 3? <b>é</b> 日本"),
    assistant("First the sum."),
    function_call("add", '{"a":47,"b":12}', "c1"),
    function_call("add", "{not json", "c2"),
    function_call_output("c1", "59"),
    function_call_output("c2", '{"error": "the arguments are not JSON"}'),
    {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "now times 3"}]},
    function_call("multiply", '{"a": 59, "b": 3}', "c3"),
    function_call_output("c3", "177"),
    assistant("The answer is 177."),
    user("Thanks."),
]


def test_a_shorter_conversation_is_a_prefix_of_a_longer_one(chat: ChatFormat) -> None:
    params: Any = {"tools": TOOLS}
    whole = chat.render(params, CONVERSATION)
    # Items 2 to 4 and 7, 8 are one message each: a turn is not cut in the middle.
    for count in (2, 5, 6, 7, 9, 10, 11, 12):
        assert whole.startswith(chat.render(params, CONVERSATION[:count], generation=False))
    assert whole.endswith("<|im_start|>assistant\n")
    assert "multiply(a, b)" in whole


def test_any_text_can_be_encoded(chat: ChatFormat) -> None:
    tokenizer = read_checkpoint(SHIPPED).tokenizer
    for text in ("héllo 日本 😀 \n\t  x", "\x00\x7f", "1234567890", "<tool_call>{}</tool_call>", "  "):
        assert tokenizer.decode(chat.encode(text), skip_special_tokens=False) == text
    assert len(chat.encode("2718281")) == 7


def generated(chat: ChatFormat, prompt: list[int], text: str) -> dict[str, list[Any]]:
    ids = chat.encode(text)
    return {"prompt_token_ids": prompt, "generation_token_ids": ids, "generation_log_probs": [-1.0] * len(ids)}


CALL = '<tool_call>\n{{"name":"add",  "arguments": {{"a":1,"b":2}}}}\n</tool_call>{end}'


@pytest.mark.parametrize("end", ["<|im_end|>", ""])
def test_earlier_tokens_stand_however_the_template_would_write_them(chat: ChatFormat, end: str) -> None:
    params: Any = {"tools": TOOLS, "input": [QUESTION]}
    prompt = chat.prompt_ids(params)
    fields = generated(chat, prompt, CALL.format(end=end))
    items = [QUESTION, assistant("text of the same call"), function_call("add", '{"a":1,"b":2}', "c") | fields]
    later = chat.prompt_ids(params | {"input": [*items, function_call_output("c", "3")]})
    seen = [*prompt, *fields["generation_token_ids"]]
    assert later[: len(seen)] == seen
    tail = read_checkpoint(SHIPPED).tokenizer.decode(later[len(seen) :], skip_special_tokens=False)
    opening = "<|im_start|>tool\n<tool_response>\n3\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    assert tail == ("" if end else "<|im_end|>") + "\n" + opening


def test_an_edited_history_is_rendered_anew(chat: ChatFormat) -> None:
    params: Any = {"tools": TOOLS, "input": [QUESTION]}
    fields = generated(chat, chat.prompt_ids(params), CALL.format(end="<|im_end|>"))
    tail = [function_call("add", '{"a":1,"b":2}', "c") | fields, function_call_output("c", "3")]
    edited = params | {"input": [user("Another question"), *tail]}
    assert chat.prompt_ids(edited) == chat.encode(chat.render(edited, edited["input"]))
    foreign = tail[0] | {"generation_token_ids": [10_000_000]}
    assert chat.prompt_ids(params | {"input": [QUESTION, foreign]})


@pytest.mark.parametrize(
    ("text", "outside", "calls"),
    [
        ("plain", "plain", []),
        ('<tool_call>\n{"name": "f", "arguments": {"a":  1}}\n</tool_call>', "", [("f", '{"a":  1}')]),
        ('hi\n<tool_call>{"arguments": {}, "name": "f"}</tool_call>', "hi\n", [("f", "{}")]),
        ('<tool_call>{"name": "f"}</tool_call><tool_call>{"name": "g"}</tool_call>', "", [("f", "{}"), ("g", "{}")]),
        ('<tool_call>{"name": "f", "arguments": {"a": }}</tool_call>', "", [("f", '{"a": }}')]),
        ('<tool_call>{"name": "f", "arguments": {"a": 1}</tool_call>', "", [("f", '{"a": 1}')]),
        ('<tool_call>{"name": "f", "arguments": {"a": 1', "", [("f", '{"a": 1')]),
        ('<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [("f", '{"a": 1}')]),
        ('<tool_call>{"name": 3, "arguments": {}}</tool_call>', '<tool_call>{"name": 3, "arguments": {}}</tool_call>', []),
        ("<tool_call>nonsense</tool_call>", "<tool_call>nonsense</tool_call>", []),
        ("</tool_call>", "</tool_call>", []),
        ("<tool_call>" + "[" * 5000, "<tool_call>" + "[" * 5000, []),
        ('<tool_call>{"name": "f", "arguments": ' + "[" * 100_000, "", [("f", "[" * 100_000)]),
    ],
)
def test_reading_tool_calls(text: str, outside: str, calls: list[tuple[str, str]]) -> None:
    assert read_tool_calls(text) == (outside, calls)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("", ["message"]),
        ("hello<|im_start|>", ["message"]),
        ('<think>hm</think>\n\n<tool_call>{"name": "f"}</tool_call>', ["reasoning", "function_call"]),
        ("<think>hm", ["reasoning"]),
        ("<think>hm</think>\n\nso", ["reasoning", "message"]),
        (
            'so\n<tool_call>{"name": "f"}</tool_call>\n<tool_call>{"name": "g"}</tool_call>',
            ["message", *["function_call"] * 2],
        ),
    ],
)
def test_what_a_text_says(chat: ChatFormat, text: str, kinds: list[str]) -> None:
    items = chat.items(text, {"tools": TOOLS}, "x")  # type: ignore[typeddict-item]
    assert [item["type"] for item in items] == kinds
    assert "<|im_start|>" not in json.dumps(items)
    assert len({item["id"] for item in items}) == len(items)


def test_without_tools_a_call_is_text(chat: ChatFormat) -> None:
    text = '<tool_call>{"name": "f"}</tool_call>'
    for params in ({}, {"tools": []}, {"tools": TOOLS, "tool_choice": "none"}):
        (item,) = chat.items(text, params, "x")  # type: ignore[arg-type]
        assert item["content"][0]["text"] == text


# Other checkpoints


SIZES = {"hidden_size": 24, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 40}


def write_checkpoint(directory: Path, *, tied: bool = False, bias: bool = False, **config: Any) -> Path:
    """A random Llama with the shipped tokenizer and template."""
    directory.mkdir(exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(SHIPPED / name, directory)
    vocab = read_checkpoint(SHIPPED).model.config.vocab
    raw = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": vocab, "num_hidden_layers": 2}
    raw |= {**SIZES, "tie_word_embeddings": tied, "attention_bias": bias, "mlp_bias": bias, "rope_theta": 5000.0} | config
    (directory / "config.json").write_text(json.dumps(raw))
    rng = np.random.default_rng(0)
    d, h, kv, hd, inner = (raw[k] for k in SIZES)
    shapes = {"model.embed_tokens.weight": (vocab, d), "model.norm.weight": (d,)}
    if not tied:
        shapes["lm_head.weight"] = (vocab, d)
    for n in range(2):
        at = f"model.layers.{n}"
        linears = {"self_attn.q_proj": (h * hd, d), "self_attn.k_proj": (kv * hd, d), "self_attn.v_proj": (kv * hd, d)}
        linears |= {"self_attn.o_proj": (d, h * hd), "mlp.gate_proj": (inner, d), "mlp.up_proj": (inner, d)}
        linears |= {"mlp.down_proj": (d, inner)}
        for name, shape in linears.items():
            shapes[f"{at}.{name}.weight"] = shape
            if bias:
                shapes[f"{at}.{name}.bias"] = shape[:1]
        shapes |= {f"{at}.{name}.weight": (d,) for name in ("input_layernorm", "post_attention_layernorm")}
    save_file(
        {k: rng.normal(0, 0.3, shape).astype(np.float32) for k, shape in shapes.items()}, directory / "model.safetensors"
    )
    return directory


def in_bfloat16(path: Path) -> None:
    """Written by hand: numpy has no such type."""
    header, blob = {}, b""
    for name, tensor in load_file(path).items():
        data = (tensor.view(np.uint32) >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": [len(blob), len(blob) + len(data)]}
        blob += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + blob)


def in_shards(path: Path) -> None:
    tensors = load_file(path)
    names = sorted(tensors)
    files = {name: f"model-{1 + (i >= 5):05d}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in names if files[name] == file}, path.parent / file)
    (path.parent / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    path.unlink()


def as_it_is(path: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("form", "options"),
    [
        (None, {}),
        (as_it_is, {"bias": True}),
        (as_it_is, {"tied": True, "rms_norm_eps": 1e-3}),
        (in_bfloat16, {}),
        (in_shards, {}),
    ],
)
@pytest.mark.extras
@pytest.mark.filterwarnings("default")  # of transformers and torch
async def test_log_probabilities_agree_with_transformers(
    tmp_path: Path, form: Callable[[Path], None] | None, options: dict[str, Any]
) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    directory = SHIPPED
    if form is not None:
        directory = write_checkpoint(tmp_path / "it", **options)
        form(directory / "model.safetensors")
    model = load(str(directory), ModelOptions())
    assert isinstance(model, Tiny)
    rows = list(tasks(6))
    requests = [request(user(row["prompt"]), seed=n, max_output_tokens=40, temperature=1.0) for n, row in enumerate(rows)]
    answers = await asyncio.gather(*(model(r) for r in requests))
    await model.aclose()
    reference = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    for answer in answers:
        item = answer["output"][-1]
        prompt, ids = item["prompt_token_ids"], item["generation_token_ids"]
        with torch.no_grad():
            logits = reference(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits.double(), -1)[range(len(ids)), ids]
        assert np.abs(expected.numpy() - item["generation_log_probs"]).max() < 1e-4


@pytest.mark.extras
@pytest.mark.filterwarnings("default")
def test_the_template_says_the_same_in_transformers(chat: ChatFormat) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(SHIPPED)
    from rollforge.records.chat import chat_request
    from rollforge.records.messages import TEMPLATE

    for items in (CONVERSATION, CONVERSATION[1:2], CONVERSATION[:9]):
        for tools in (TOOLS, []):
            params: Any = {"input": items, "tools": tools}
            body = chat_request(params, TEMPLATE)
            for message in body["messages"]:
                for call in message.get("tool_calls", ()):
                    if call["function"]["arguments"] != "{not json":
                        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
            rendered = tokenizer.apply_chat_template(
                body["messages"], tools=body.get("tools"), tokenize=False, add_generation_prompt=True
            )
            assert chat.render(params, input_items(params)) == rendered
            assert tokenizer(rendered)["input_ids"] == chat.encode(rendered)


@pytest.mark.extras
@pytest.mark.filterwarnings("default")
def test_the_template_marks_what_the_assistant_says_for_training() -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(SHIPPED)
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "no"},
    ]
    row = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    marked = [id for id, mark in zip(row["input_ids"], row["assistant_masks"], strict=True) if mark]
    assert tokenizer.decode(marked) == "yes<|im_end|>"


def broken_json(directory: Path) -> None:
    (directory / "config.json").write_text("{")


def another_architecture(directory: Path) -> None:
    (directory / "config.json").write_text('{"model_type": "qwen3"}')


def scaled_positions(directory: Path) -> None:
    raw = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(raw | {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}))


def no_heads(directory: Path) -> None:
    raw = json.loads((directory / "config.json").read_text())
    del raw["num_attention_heads"]
    (directory / "config.json").write_text(json.dumps(raw))


def half_a_file(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def a_missing_tensor(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, directory / "model.safetensors")


def another_shape(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    tensors["model.layers.0.self_attn.q_proj.weight"] = tensors["model.layers.0.self_attn.q_proj.weight"][:8]
    save_file(tensors, directory / "model.safetensors")


def whole_numbers(directory: Path) -> None:
    tensors = {k: v.astype(np.int8) for k, v in load_file(directory / "model.safetensors").items()}
    save_file(tensors, directory / "model.safetensors")


def a_broken_template(directory: Path) -> None:
    (directory / "chat_template.jinja").write_text("{% if %}")


def a_small_vocabulary(directory: Path) -> None:
    raw = json.loads((directory / "config.json").read_text())
    tensors = load_file(directory / "model.safetensors")
    tensors |= {k: tensors[k][:300] for k in ("model.embed_tokens.weight", "lm_head.weight")}
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(raw | {"vocab_size": 300}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "there is no directory"),
        (broken_json, "config.json is not JSON"),
        (another_architecture, "model_type is 'qwen3'; tiny runs 'llama'"),
        (scaled_positions, "rope scaling of type 'llama3' is not supported"),
        (no_heads, "not a usable Llama configuration"),
        (half_a_file, "is no safetensors file"),
        (a_missing_tensor, "the weights lack model.norm.weight"),
        (another_shape, r"q_proj.weight has shape \[8, 24\]"),
        (whole_numbers, "is of type I8"),
        (a_broken_template, "the chat template is broken"),
        (a_small_vocabulary, "the tokenizer has 408 tokens, the model 300"),
        (lambda d: (d / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda d: (d / "tokenizer.json").write_text("{}"), "is not a tokenizer"),
        (lambda d: (d / "chat_template.jinja").unlink(), "has no chat template"),
        (lambda d: (d / "model.safetensors").unlink(), "cannot read .*model.safetensors"),
        (lambda d: (d / "tokenizer_config.json").unlink(), "names no eos token"),
    ],
)
def test_unusable_checkpoints_are_refused(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    directory = write_checkpoint(tmp_path / "it")
    spoil(directory)
    with pytest.raises(UserError, match=message):
        load(str(directory), ModelOptions())


def test_a_template_is_found_in_the_tokenizer_configuration_too(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "it")
    (directory / "chat_template.jinja").unlink()
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "{{ messages[0].content }}!"}]
    (directory / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": named}))
    assert format_of(directory).render({}, [user("hello")]) == "hello!"


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ raise_exception('only text') }}",
    ],
)
def test_a_template_can_do_no_harm(tmp_path: Path, template: str) -> None:
    directory = write_checkpoint(tmp_path / "it")
    (directory / "chat_template.jinja").write_text(template)
    with pytest.raises(SetupError, match="cannot render this conversation"):
        format_of(directory).render({}, [QUESTION])


def test_a_conversation_that_a_good_template_cannot_render_is_no_wrong_setup(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "it")
    tool: Any = {"type": "function", "name": "f", "parameters": {"required": 5}}
    (directory / "chat_template.jinja").write_text(
        "{{ messages[0].content }}{% for tool in tools or [] %}{{ tool.function.parameters.required | join }}{% endfor %}"
    )
    made = format_of(directory)
    with pytest.raises(SetupError, match="cannot render"):
        made.render({"tools": [tool]}, [QUESTION])
    made.render({}, [QUESTION])
    with pytest.raises(UserError, match="cannot render"):
        made.render({"tools": [tool]}, [QUESTION])


async def test_weights_that_overflow_are_a_fault_not_an_answer(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "it")
    tensors = load_file(directory / "model.safetensors")
    tensors["lm_head.weight"][:] = math.nan
    save_file(tensors, directory / "model.safetensors")
    model = load(str(directory), ModelOptions())
    assert isinstance(model, Tiny)
    with pytest.raises(InfraFault, match="not finite"):
        await model(request())
    await model.aclose()


def test_the_coldest_temperature_takes_the_likeliest_token() -> None:
    logits = np.array([[1.0, 3.0, 2.0]], np.float32)
    for temperature in (5e-324, 1e-300, 1e-9, 0.0):
        ids, _ = draw(logits, [Sampling(temperature=temperature)], np.array([0.999]))
        assert ids == [1]
