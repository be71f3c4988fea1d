"""Models of transformers: the same tokens as `tiny`, every architecture like its own forward pass, many callers, a model
that is trained in between, checkpoints that cannot be used."""

from __future__ import annotations

import asyncio
import json
import math
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rollforge.envs.arithmetic import arithmetic
from rollforge.envs.arithmetic.tasks import tasks
from rollforge.errors import DeadlineExceeded, InfraFault, SetupError, UserError
from rollforge.models import tiny
from rollforge.models.base import ModelOptions, Request
from rollforge.models.tiny import SHIPPED, sampling
from rollforge.models.tokens import Completion, Sampling, TokenModel
from rollforge.models.torch_batch import draw
from rollforge.models.torch_engine import TorchEngine
from rollforge.models.transformers import load, model_of
from rollforge.records.items import Item, Response, function_call_output, token_drift, tool_calls, user

pytestmark = [pytest.mark.extras, pytest.mark.filterwarnings("default")]  # of transformers and torch

TOOLS = [tool.row() for tool in arithmetic.tools]
QUESTION = user("What is 47 × 23?")


@pytest.fixture(scope="module")
def library() -> Any:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return pytest.importorskip("transformers")


@pytest.fixture
async def shipped(library: Any) -> AsyncIterator[Any]:
    model: Any = load(str(SHIPPED), ModelOptions())
    yield model
    await model.aclose()


def request(*items: Item, seed: int = 0, **params: Any) -> Request:
    return Request({"input": list(items) or [QUESTION], "tools": TOOLS, **params}, seed=seed)  # type: ignore[typeddict-item]


def tokens(response: Response) -> tuple[list[int], list[float]]:
    item = response["output"][-1]
    return item["generation_token_ids"], item["generation_log_probs"]


def text(response: Response) -> str:
    return str(response["output"][0]["content"][0]["text"])


# The same numbers as others


@pytest.mark.parametrize("temperature", [0, 1.0])
async def test_it_says_what_tiny_says(shipped: Any, temperature: float) -> None:
    other: Any = tiny.load(None, ModelOptions())
    requests = [request(user(row["prompt"]), seed=n, temperature=temperature) for n, row in enumerate(tasks(16))]
    ours = await asyncio.gather(*(shipped(r) for r in requests))
    theirs = await asyncio.gather(*(other(r) for r in requests))
    await other.aclose()
    for one, two in zip(ours, theirs, strict=True):
        assert tokens(one)[0] == tokens(two)[0]
        assert np.abs(np.subtract(tokens(one)[1], tokens(two)[1])).max() < 1e-4
        assert one["output"][-1].get("arguments") == two["output"][-1].get("arguments")
    assert any(tool_calls(one) for one in ours)


async def test_every_prompt_begins_with_the_tokens_before_it(shipped: Any) -> None:
    async def episode(prompt: str, seed: int) -> list[Item]:
        output: list[Item] = []
        for turn in range(3):
            response = await shipped(request(user(prompt), *output, seed=1000 * seed + turn))
            output += response["output"]
            output += [function_call_output(call["call_id"], "7") for call in tool_calls(response)]
        return output

    outputs = await asyncio.gather(*(episode(row["prompt"], seed) for seed, row in enumerate(tasks(8))))
    assert [token_drift(output) for output in outputs] == [None] * 8
    assert sum("generation_token_ids" in item for item in outputs[0]) == 3


SMALL = {
    "vocab_size": 408,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "eos_token_id": 2,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "qwen3_moe": {"head_dim": 16, **EXPERTS},
    "mistral": {"sliding_window": 6},
    "gemma3_text": {
        "head_dim": 16,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "gpt2": {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 256},
    "bloom": {"n_head": 4, "n_layer": 2},  # no positions but those of the mask
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},  # caches that cannot be put side by side
    "qwen3_next": {"head_dim": 16, "shared_expert_intermediate_size": 16, **EXPERTS, **LINEAR},
}


def random_model(library: Any, kind: str, **config: Any) -> Any:
    import torch

    torch.manual_seed(0)
    configuration = library.AutoConfig.for_model(kind, **{**SMALL, **ARCHITECTURES.get(kind, {}), **config})
    return library.AutoModelForCausalLM.from_config(configuration).float().eval()


def tokenizer(library: Any) -> Any:
    return library.AutoTokenizer.from_pretrained(SHIPPED)


def expected(model: Any, prompt: list[int], ids: list[int]) -> Any:
    import torch

    with torch.no_grad():
        logits = model(torch.tensor([prompt + ids]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits.double(), -1)[range(len(ids)), ids].numpy()


def prompts(count: int, longest: int = 40) -> list[list[int]]:
    numbers = random.Random(1)
    return [[numbers.randrange(5, 400) for _ in range(numbers.randrange(1, longest))] for _ in range(count)]


@pytest.mark.parametrize("kind", ARCHITECTURES)
async def test_any_architecture_is_as_its_own_forward_pass(library: Any, kind: str) -> None:
    model = random_model(library, kind)
    engine = TorchEngine(model, tokenizer(library), eos_ids=[2])
    asked = prompts(10)
    asked += asked[:3]  # repeats of a task

    async def one(number: int, late: bool) -> Completion:
        for _ in range(number - 7 if late else 0):  # some join while others are at it
            await asyncio.sleep(0.005)
        settings = Sampling(max_tokens=4 + 3 * (number % 7))
        return await engine.generate(asked[number], settings, seed=number, seconds=300)

    together = await asyncio.gather(*(one(number, True) for number in range(len(asked))))
    for prompt, completion in zip(asked, together, strict=True):
        assert np.abs(expected(model, prompt, completion.ids) - completion.log_probs).max() < 1e-3
    assert [(await one(number, False)).ids for number in range(len(asked))] == [completion.ids for completion in together]
    engine.close()


@pytest.mark.parametrize(
    "settings",
    [
        Sampling(),
        Sampling(temperature=0),
        Sampling(temperature=0.3),
        Sampling(temperature=2.5, top_k=5),
        Sampling(top_p=0.4),
        Sampling(top_p=0.0),
        Sampling(min_p=0.2),
        Sampling(temperature=0, top_k=3),
        Sampling(temperature=1.5, top_k=100, top_p=0.9, min_p=0.01),
        Sampling(top_k=10**6),
    ],
)
def test_it_draws_as_tiny_does(library: Any, settings: Sampling) -> None:
    import torch

    numbers = np.random.default_rng(0)
    logits = numbers.normal(0, 2, (200, 50)).astype(np.float32)
    logits[:, 7] = -math.inf  # as a model pads its vocabulary
    uniforms = [0.0, 1 - 2**-53, *numbers.random(198)]
    ids, log_probs = draw(torch.tensor(logits), [settings] * 200, uniforms)
    same, near = sampling.draw(logits.astype(np.float64), [settings] * 200, np.array(uniforms))
    assert ids == same
    assert np.abs(np.subtract(log_probs, near)).max() < 1e-5
    mixed, _ = draw(torch.tensor(logits), [settings, Sampling(top_k=1)] * 100, uniforms)
    assert mixed[::2] == same[::2]
    assert mixed[1::2] == logits[1::2].argmax(-1).tolist()


# One answer


async def test_the_seed_decides(shipped: Any) -> None:
    first, again, other = [await shipped(request(seed=seed)) for seed in (1, 1, 2)]
    assert tokens(first) == tokens(again) != tokens(other)


async def test_log_probabilities_are_the_models_own_whatever_the_sampling(shipped: Any) -> None:
    greedy = tokens(await shipped(request(temperature=0)))
    hot = tokens(await shipped(request(temperature=1.7, top_k=1)))
    assert hot[0] == greedy[0]
    assert np.abs(np.subtract(hot[1], greedy[1])).max() < 1e-5


async def test_an_answer_can_be_cut_and_gone_on_with(shipped: Any) -> None:
    cut = await shipped(request(temperature=0, max_output_tokens=5))
    assert cut["incomplete_details"] == {"reason": "max_output_tokens"}
    assert len(tokens(cut)[0]) == 5
    following = await shipped(request(QUESTION, *cut["output"], user("Go on."), temperature=0))
    assert token_drift([*cut["output"], *following["output"]]) is None


async def test_a_stop_text_ends_an_answer_and_is_not_part_of_it(shipped: Any) -> None:
    whole = text(await shipped(request(temperature=0, tool_choice="none", max_output_tokens=30)))
    for stop in (whole[-1], whole[-5:], whole[3:9]):
        stopped = await shipped(request(temperature=0, tool_choice="none", stop=["never said", stop]))
        assert text(stopped) == whole[: whole.index(stop)]
        assert stopped["status"] == "completed"


async def test_a_context_that_is_full_ends_an_answer(library: Any, shipped: Any) -> None:
    filled = await shipped(request(user("word " * 3000)))
    assert filled["incomplete_details"] == {"reason": "max_output_tokens"}
    assert "generation_token_ids" not in filled["output"][0]
    engine = TorchEngine(random_model(library, "qwen2"), tokenizer(library), eos_ids=[-1])
    completion = await engine.generate([5] * 250, Sampling(), seed=0, seconds=300)
    assert (len(completion.ids), completion.finish) == (6, "length")
    engine.close()


async def test_ids_of_another_tokenizer_stop_the_run(library: Any) -> None:
    engine = TorchEngine(random_model(library, "qwen2"), tokenizer(library), eos_ids=[2], name="mine")
    with pytest.raises(SetupError, match="mine: token 500 is not among the model's 408"):
        await engine.generate([5, 500], Sampling(), seed=0, seconds=300)


# Many callers, and failures


async def test_a_cancelled_caller_harms_nobody(shipped: Any) -> None:
    calls = [asyncio.create_task(shipped(request(user(f"What is {n} + {n}?"), seed=n))) for n in range(12)]
    await asyncio.sleep(0.05)
    for call in calls[::2]:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    for n in range(1, 12, 2):
        assert tokens(results[n])[0] == tokens(await shipped(request(user(f"What is {n} + {n}?"), seed=n)))[0]  # type: ignore[arg-type]


async def test_a_deadline_ends_the_wait(library: Any) -> None:
    model: Any = load(str(SHIPPED), ModelOptions(call_seconds=0.0))
    with pytest.raises(DeadlineExceeded, match="gave no answer within 0 s"):
        await model(request())
    await model.aclose()


async def test_a_closed_model_says_so(shipped: Any) -> None:
    calls = [asyncio.create_task(shipped(request(seed=n))) for n in range(30)]
    await asyncio.sleep(0)
    await shipped.aclose()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, (dict, SetupError)) for result in results)
    with pytest.raises(SetupError, match="closed"):
        await shipped(request())


def limited(library: Any, rows: int) -> Any:
    """A model that has memory for so many rows."""
    import torch

    class Limited(library.Qwen2ForCausalLM):  # type: ignore[misc]
        def forward(
            self, input_ids: Any = None, position_ids: Any = None, past_key_values: Any = None, **options: Any
        ) -> Any:
            if len(input_ids) > rows:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(input_ids, position_ids=position_ids, past_key_values=past_key_values, **options)

    torch.manual_seed(0)
    return Limited(library.AutoConfig.for_model("qwen2", **SMALL)).float().eval()


async def test_out_of_memory_fewer_go_on_side_by_side(library: Any) -> None:
    async def completions(model: Any, count: int) -> list[list[int]]:
        engine = TorchEngine(model, tokenizer(library), eos_ids=[2])
        asked = (
            engine.generate(prompt, Sampling(max_tokens=9), seed=n, seconds=300) for n, prompt in enumerate(prompts(count))
        )
        found = await asyncio.gather(*asked)
        engine.close()
        return [completion.ids for completion in found]

    assert await completions(limited(library, 3), 11) == await completions(random_model(library, "qwen2"), 11)
    with pytest.raises(InfraFault, match=r"a single sequence of \d+ tokens does not fit"):
        await completions(limited(library, 0), 1)


async def test_weights_that_are_no_numbers_are_a_fault_not_an_answer(library: Any) -> None:
    model = random_model(library, "qwen3")
    policy = model_of(model, tokenizer(library), name="policy")
    model.lm_head.weight.data[:] = math.nan
    with pytest.raises(InfraFault, match="policy computed logits that are not finite"):
        await policy(request())
    model.lm_head.weight.data[:] = 0.0
    answer = await policy(request(max_output_tokens=3))
    assert tokens(answer)[1] == pytest.approx([-math.log(408)] * 3, abs=1e-5)
    await closed(policy)


# A model that somebody else trains


async def closed(policy: TokenModel) -> None:
    await policy.aclose()  # type: ignore[attr-defined]


async def test_it_samples_from_the_weights_as_they_are(library: Any) -> None:
    import torch

    model = random_model(library, "qwen2", attention_dropout=0.9)
    policy = model_of(model, tokenizer(library), name="policy")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model.train()
    model.model.norm.eval()  # frozen, say
    modes = [module.training for module in model.modules()]
    said = []
    for _ in range(2):
        answers = await asyncio.gather(*(policy(request(seed=n, max_output_tokens=12)) for n in range(4)))
        assert [module.training for module in model.modules()] == modes
        assert all(weights.grad is None for weights in model.parameters())
        ids, log_probs = tokens(answers[0])
        prompt = answers[0]["output"][-1]["prompt_token_ids"]
        model.eval()
        assert np.abs(expected(model, prompt, ids) - log_probs).max() < 1e-3
        said.append(log_probs)
        model.train()
        model.model.norm.eval()
        whole = torch.tensor([prompt + ids])
        model(whole, labels=whole).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert said[0] != said[1]
    await closed(policy)


async def test_the_modes_are_back_when_a_call_has_failed(library: Any) -> None:
    model = limited(library, 0).train()
    policy = model_of(model, tokenizer(library), name="policy")
    with pytest.raises(InfraFault):
        await policy(request())
    assert all(module.training for module in model.modules())
    await closed(policy)


async def test_what_generation_config_says_holds_only_where_nobody_trains(library: Any, tmp_path: Path) -> None:
    directory = stored(library, tmp_path / "it")
    settings = {"eos_token_id": [2, 17], "top_k": 1, "max_new_tokens": 4}
    (directory / "generation_config.json").write_text(json.dumps(settings))
    model: Any = load(str(directory), ModelOptions())
    answers = [await model(request(seed=seed)) for seed in range(3)]
    assert len({tuple(tokens(answer)[0]) for answer in answers}) == 1
    assert len(tokens(answers[0])[0]) <= 4
    await model.aclose()
    policy = model_of(library.AutoModelForCausalLM.from_pretrained(directory), tokenizer(library), name="policy")
    drawn = [tokens(await policy(request(seed=seed, max_output_tokens=60)))[0] for seed in range(8)]
    assert len({tuple(ids) for ids in drawn}) == 8
    assert all(not {2, 17} & set(ids[:-1]) for ids in drawn)
    await closed(policy)


async def test_an_adapter_is_sampled_from(library: Any) -> None:
    import torch

    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(
        random_model(library, "qwen2"),
        peft.LoraConfig(r=4, lora_dropout=0.5, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights)
    policy = model_of(model.train(), tokenizer(library), name="policy")
    answer = await policy(request(max_output_tokens=12))
    ids, log_probs = tokens(answer)
    assert model.training
    assert np.abs(expected(model.eval(), answer["output"][-1]["prompt_token_ids"], ids) - log_probs).max() < 1e-3
    await closed(policy)


# Checkpoints


def stored(library: Any, directory: Path) -> Path:
    random_model(library, "qwen3").save_pretrained(directory)
    tokenizer(library).save_pretrained(directory)
    return directory


async def test_a_stored_model_answers(library: Any, tmp_path: Path) -> None:
    options = ModelOptions(extra_body={"device": "cpu", "dtype": "bfloat16", "rows": 2})
    model: Any = load(str(stored(library, tmp_path / "it")), options)
    answers = await asyncio.gather(*(model(request(seed=n, max_output_tokens=4)) for n in range(5)))
    assert {answer["model"] for answer in answers} == {"transformers:it"}
    assert all(len(tokens(answer)[0]) <= 4 for answer in answers)
    await model.aclose()


def half_a_file(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def a_missing_tensor(directory: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(directory / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def configured(file: str, **values: Any) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        raw = json.loads((directory / file).read_text())
        (directory / file).write_text(json.dumps(raw | values))

    return write


def no_template(directory: Path) -> None:
    (directory / "chat_template.jinja").unlink()


def no_config(directory: Path) -> None:
    (directory / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "there is no directory"),
        (half_a_file, "it cannot be loaded"),
        (a_missing_tensor, "the weights lack model.norm.weight"),
        (configured("config.json", hidden_size=40), "it cannot be loaded|the weights lack"),
        (configured("config.json", model_type="never_heard_of"), "it cannot be loaded"),
        (no_config, "it cannot be loaded"),
        (no_template, "has no chat template"),
    ],
)
def test_unusable_checkpoints_are_refused(library: Any, tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    directory = stored(library, tmp_path / "it")
    spoil(directory)
    with pytest.raises(UserError, match=message):
        load(str(directory), ModelOptions())


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"dtyp": "float32"}, "unknown key 'dtyp'; did you mean dtype"),
        ({"dtype": "int4"}, "dtype is 'int4'"),
        ({"device": "gpu"}, "the device 'gpu' cannot be used"),
        ({"device": "cuda:99"}, "the device 'cuda:99' cannot be used"),
        ({"rows": 0}, "rows"),
    ],
)
def test_settings_are_checked(library: Any, said: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(str(SHIPPED), ModelOptions(extra_body=said))


def test_a_name_is_needed() -> None:
    with pytest.raises(UserError, match="transformers:DIR"):
        load(None, ModelOptions())


def test_without_torch_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from rollforge.models.load import load_model; from rollforge.models.base import ModelOptions\n"
        "from rollforge.errors import UserError\n"
        "try: load_model('transformers:some/model', ModelOptions())\n"
        "except UserError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'rollforge[train]'" in done.stdout
