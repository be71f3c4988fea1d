from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollforge.config import validate
from rollforge.curate.split import SplitArgs, steps
from rollforge.errors import UserError
from rollforge.records.items import assistant, system, user
from tests.curate.sampled import Result, line, ran, samples

ROLES = ("system", "developer")
ORDER = {"train": 0, "validation": 1, "test": 2}
WORDS = [f"w{number}" for number in range(2000)]


def split(lines: Iterable[bytes], seed: int = 0, **args: Any) -> Result:
    return ran(steps(validate(SplitArgs, args, "split")), lines, seed)


def attempt(lines: Iterable[bytes], seed: int, **args: Any) -> Result | None:
    """None where chance left nothing to train, which is an error."""
    try:
        return split(lines, seed, **args)
    except UserError:
        return None


def sides(result: Result) -> dict[bytes, str]:
    found: dict[bytes, str] = {}
    for sample in result.kept:
        assert sample.split is not None
        assert found.setdefault(sample.prompt, sample.split) == sample.split
    return found


def tasks(count: int, start: int = 0, env: str = "math", repeats: int = 1) -> list[bytes]:
    return [line(f"question {n}", f"reply {k}", env=env) for n in range(start, start + count) for k in range(repeats)]


def test_shares_are_near_what_was_asked_and_attempts_stay_together() -> None:
    result = split(tasks(1000, repeats=3))
    assert len(sides(result)) == 1000
    splits = result.notes["splits"]
    assert 70 <= splits["validation"]["prompts"] <= 130
    assert splits["train"]["prompts"] + splits["validation"]["prompts"] == 1000
    assert splits["validation"]["rows"] == 3 * splits["validation"]["prompts"]
    assert splits["validation"]["asked"] == 0.1
    assert splits["validation"]["got"] == splits["validation"]["prompts"] / 1000
    proof = result.notes["proof"]
    assert proof["prompts in two splits"] == proof["near-duplicate clusters in two splits"] == 0
    assert result.notes["by_env"]["math"]["train"]["prompts"] == splits["train"]["prompts"]
    assert not result.warnings


def test_three_ways_and_by_environment() -> None:
    lines = [each for env in ("a", "b") for each in [line(f"{env} {n}", env=env) for n in range(300)]]
    result = split(lines, train=80, validation=10, test=10)
    for env in ("a", "b"):
        counts = result.notes["by_env"][env]
        assert 215 <= counts["train"]["prompts"] <= 265
        assert 12 <= counts["validation"]["prompts"] <= 48
        assert 12 <= counts["test"]["prompts"] <= 48


def test_a_seed_is_another_split_and_the_same_seed_the_same() -> None:
    lines = tasks(200)
    assert sides(split(lines, seed=1)) == sides(split(lines, seed=1)) != sides(split(lines, seed=2))
    (step,) = steps(SplitArgs(seed=5))
    assert sides(Result(step, samples(lines, step), seed=9)) == sides(split(lines, seed=5))


def test_the_sides_are_written_down() -> None:
    # A later version must not move prompts: these are the sides that the first version gave.
    result = split(tasks(40), near=None, each_env=False)
    assert [sample.at for sample in result.kept if sample.split == "validation"] == FIRST


FIRST = [2, 14, 16, 18]


numbers = st.lists(st.integers(0, 400), unique=True, min_size=3, max_size=60)
shares = st.sampled_from([(0.9, 0.1, 0.0), (0.5, 0.25, 0.25), (0.8, 0.0, 0.2), (0.6, 0.4, 0.0)])


@given(numbers, numbers, shares, st.integers(0, 50), st.booleans())
@settings(max_examples=150)
def test_grown_data_move_nothing_but_what_had_filled_an_empty_split(
    first: list[int], more: list[int], parts: tuple[float, float, float], seed: int, each_env: bool
) -> None:
    args = {**dict(zip(ORDER, parts, strict=True)), "each_env": each_env}
    grown = first + [n for n in more if n not in first]
    before = attempt([line(f"question {n}") for n in first], seed, **args)
    after = attempt([line(f"question {n}") for n in grown], seed, **args)
    if before is None or after is None:
        return
    old, new = sides(before), sides(after)
    moved = {prompt for prompt in old if new[prompt] != old[prompt]}
    assert all(ORDER[new[prompt]] < ORDER[old[prompt]] for prompt in moved)  # only out of what was held out
    assert len(moved) <= before.notes["given to an empty split"]


@given(numbers, st.lists(st.tuples(st.integers(0, 60), st.integers(0, 4)), max_size=30), st.integers(0, 9))
@settings(max_examples=40)
def test_no_prompt_and_no_cluster_is_on_two_sides_whatever_comes_in(
    singles: list[int], families: list[tuple[int, int]], seed: int
) -> None:
    def member(family: int, number: int) -> str:
        return " ".join(random.Random(family).choices(WORDS, k=80)) + " end" * number

    lines = [line(f"question {n}") for n in singles] + [line(member(*each), env=f"env{each[0] % 3}") for each in families]
    result = attempt(lines, seed, train=0.5, validation=0.3, test=0.2)
    if result is None:
        return
    assert not result.dropped
    found = sides(result)
    of = {sample.at: sample.split for sample in result.kept}
    for family in {family for family, _ in families}:
        assert len({of[len(singles) + at] for at, each in enumerate(families) if each[0] == family}) == 1
    assert result.notes["proof"]["prompts"] == len(found)
    assert result.notes["proof"]["prompts in two splits"] == 0
    assert result.notes["proof"]["near-duplicate clusters in two splits"] == 0
    # The order of the rows decides nothing.
    order = random.Random(seed).sample(range(len(lines)), len(lines))
    assert sides(split([lines[at] for at in order], seed, train=0.5, validation=0.3, test=0.2)) == found


@given(numbers, numbers, st.integers(0, 9))
@settings(max_examples=30)
def test_previous_keeps_every_side_and_near_duplicates_follow(
    tmp_path_factory: pytest.TempPathFactory, first: list[int], more: list[int], seed: int
) -> None:
    def member(number: int) -> str:  # five of a family are near duplicates
        return " ".join(random.Random(number // 5).choices(WORDS, k=80)) + " end" * (number % 5)

    lines = {number: line(member(number)) for number in first}
    folder = tmp_path_factory.mktemp("previous")
    before = attempt(lines.values(), seed, train=0.6, validation=0.4)
    if before is None:
        return
    written = list(lines.values())
    for side in ("train", "validation"):
        own = [written[sample.at] for sample in before.kept if sample.split == side]
        (folder / f"{side}.jsonl").write_bytes(b"\n".join(own) + b"\n")
    grown = [number for number in more if number not in first] + first[1:]
    after = attempt([line(member(n)) for n in grown], seed + 1, train=0.6, validation=0.4, previous=str(folder))
    if after is None:
        return
    old, new = sides(before), sides(after)
    assert all(new[prompt] == old[prompt] for prompt in new if prompt in old)
    assert after.notes["previous"]["here and not on their side"] == 0
    assert after.notes["proof"]["near-duplicate clusters in two splits"] == 0


def write_split(folder: Path, result: Result, lines: list[bytes]) -> Path:
    for side in ORDER:
        own = [lines[sample.at] for sample in result.kept if sample.split == side]
        (folder / f"{side}.jsonl").write_bytes(b"".join(each + b"\n" for each in own))
    return folder


def again(result: Result, more: list[bytes], seed: int = 0, **args: Any) -> Result:
    """What was split comes in once more with its sides, and more beside it."""
    (step,) = steps(validate(SplitArgs, args, "split"))
    new = samples(more, step)
    for number, sample in enumerate(new):
        sample.source, sample.at = 1, 10_000 + number
    return Result(step, [*result.kept, *new], seed)


def test_what_is_split_already_keeps_its_sides() -> None:
    near = {"near": None}
    before = split(tasks(300), train=80, validation=10, test=10, **near)
    old = sides(before)
    after = again(before, tasks(100, start=300), seed=7, train=50, validation=50, **near)
    new = sides(after)
    assert {prompt: new[prompt] for prompt in old} == old
    assert {new[prompt] for prompt in new if prompt not in old} == {"train", "validation"}
    said = after.notes["split already"]
    assert said["prompts"] == 300
    assert said["elsewhere by these shares"] > 50
    assert any("300 prompts of split directories keep their sides" in text for text in after.warnings)
    assert not any("another seed" in text for text in after.warnings)
    anew = again(before, [], seed=7, train=50, validation=50, keep=False, **near)
    assert set(sides(anew).values()) == {"train", "validation"}
    assert "split already" not in anew.notes


def test_new_prompts_go_by_the_shares_of_the_earlier_split(tmp_path: Path) -> None:
    lines = tasks(100)
    folder = write_split(tmp_path, split(lines, train=0.5, validation=0.25, test=0.25), lines)
    (folder / "manifest.json").write_text(
        '{"recipe": {"steps": [{"filter": {}}, {"split": {"train": 0.5, "validation": 0.25, "test": 0.25, "near": 0.8}}]}}'
    )
    for previous in (str(folder), [str(folder / f"{side}.jsonl") for side in ORDER]):
        args = validate(SplitArgs, {"previous": previous}, "split")
        assert (args.train, args.validation, args.test) == (0.5, 0.25, 0.25)
    result = split(tasks(400), previous=str(folder))
    assert result.notes["splits"]["test"]["prompts"] > 70
    given = validate(SplitArgs, {"previous": str(folder), "train": 0.9, "validation": 0.1}, "split")
    assert (given.train, given.test) == (0.9, 0)


def test_a_side_of_the_earlier_split_that_gets_nothing_new_is_named(tmp_path: Path) -> None:
    lines = tasks(100)
    folder = write_split(tmp_path, split(lines, train=0.5, validation=0.25, test=0.25), lines)
    result = split(tasks(120), previous=str(folder))
    assert "`previous` does not say its shares: new prompts go by those of a plain split 90/10" in result.warnings
    assert "`previous` has test, for which no share is asked: new prompts do not go there" in result.warnings


def test_environments_far_from_the_shares_are_named() -> None:
    lines = [line(f"{env} {n}", env=f"env{env}") for env in range(10) for n in range(30)]
    result = split(lines, train=80, validation=20, near=None)
    far = {
        env for env, counts in result.notes["by_env"].items() if abs(counts["validation"]["prompts"] / 30 - 0.2) > 0.1 + 1e-9
    }
    (said,) = [text for text in result.warnings if "points from the shares" in text]
    assert said.startswith(f"{len(far)} of 10 environments ")
    assert all(env in said for env in sorted(far)[:1])
    assert not any("points from the shares" in text for text in split(tasks(1000)).warnings)


def test_a_previous_split_that_contradicts_itself(tmp_path: Path) -> None:
    family = " ".join(WORDS[:80])
    (tmp_path / "train.jsonl").write_bytes(line(family) + b"\n\n" + line("same") + b"\n")
    (tmp_path / "test.jsonl").write_bytes(line(family + " end") + b"\n" + line("same") + b"\n")
    lines = [line(family + " new"), line(family + " end"), line("same"), *tasks(30)]
    result = split(lines, previous=[str(tmp_path / "train.jsonl"), str(tmp_path / "test.jsonl")])
    assert [sample.split for sample in result.kept[:3]] == ["train", "test", "train"]
    assert result.notes["previous"]["in two of its splits"] == 1
    assert result.notes["proof"]["near-duplicate clusters in two splits"] == 1
    assert any("1 prompt of `previous` is in two of its splits" in warning for warning in result.warnings)
    assert any("1 cluster of near duplicates in two of its splits" in warning for warning in result.warnings)


def test_previous_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no train\.jsonl"):
        steps(SplitArgs(previous=str(tmp_path)))
    with pytest.raises(UserError, match="there is no"):
        steps(SplitArgs(previous=str(tmp_path / "nothing")))
    other = tmp_path / "rows.jsonl"
    other.write_bytes(b"")
    with pytest.raises(UserError, match="says not which split"):
        steps(SplitArgs(previous=str(other)))
    (tmp_path / "train.jsonl").write_bytes(line("a") + b'\n{"messages": []}\n')
    with pytest.raises(UserError, match=r"train\.jsonl:2: .*`previous` reads rollouts"):
        split(tasks(20), previous=str(tmp_path))


def test_near_duplicates_stay_together_unless_told_otherwise() -> None:
    text = " ".join(WORDS[:60])
    lines = [line(f"{text} {n}") for n in range(40)] + tasks(30)
    together = split(lines)
    assert len({sample.split for sample in together.kept[:40]}) == 1
    assert together.notes["proof"]["largest cluster"] == 40
    assert any("40 of 70 prompts are near duplicates" in warning for warning in together.warnings)
    apart = split(lines, near=None)
    assert len({sample.split for sample in apart.kept[:40]}) == 2
    assert apart.notes["proof"]["largest cluster"] == 1
    assert list(steps(SplitArgs(near=None))[0].facts) == ["asked, to the user turn"]  # no signatures are made


TOOL_RESULT = "<tool_response>\n{}\n</tool_response>"
"""As templates without a role for tools write it."""


@pytest.mark.parametrize(
    "more",
    [
        lambda n: [assistant("I look."), user(TOOL_RESULT.format(n))],
        lambda n: [
            {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": f"{n}"},
        ],
        lambda n: [assistant(f"Let me see {n}")],
    ],
)
@pytest.mark.parametrize("near", [None, 0.8, 1])
def test_what_follows_the_question_moves_no_row(more: Any, near: float | None) -> None:
    # A row of a whole conversation does not say where the prompt ended: its check takes the question for it.
    asks = [[system("S"), user(" ".join(random.Random(n).sample(WORDS, 25)))] for n in range(60)]
    shares = {"near": near, "train": 60, "validation": 40}
    result = split([line([*ask, *more(n)]) for n in range(3) for ask in asks], **shares)
    found = [sample.split for sample in result.kept]
    assert found[:60] == found[60:120] == found[120:]
    assert result.notes["proof"]["prompts"] == 60
    assert found[:60] == [sample.split for sample in split(map(line, asks), **shares).kept]


def test_a_question_under_several_system_turns_has_one_side() -> None:
    rules = ("You are a helpful assistant.", "Think step by step, then answer.")
    asks = [" ".join(random.Random(n).sample(WORDS, 25)) for n in range(100)]
    lines = [
        line([{"role": role, "content": rule}, user(ask)]) for ask in asks for role, rule in zip(ROLES, rules, strict=True)
    ]
    result = split(lines, validation=0.3, train=0.7)
    found = [sample.split for sample in result.kept]
    assert found[::2] == found[1::2]
    assert set(found) == {"train", "validation"}
    assert result.notes["proof"]["near-duplicate clusters"] == 100
    assert split(lines, near=None).notes["proof"]["near-duplicate clusters"] == 0


def test_tasks_that_their_system_turns_alone_tell_apart_are_spoken_of() -> None:
    lines = [line([system(f"the door is in room {n}"), user("Begin.")]) for n in range(40)]
    result = split(lines + tasks(60))
    assert len({sample.split for sample in result.kept[:40]}) == 1
    assert any("told apart by their system turns alone? near: null" in warning for warning in result.warnings)
    assert len({sample.split for sample in split(lines + tasks(60), near=None).kept[:40]}) == 2


def test_one_question_about_many_pictures_is_many() -> None:
    def about(picture: int) -> dict[str, Any]:
        parts = [{"type": "input_text", "text": "what is this?"}, {"type": "input_image", "image_url": f"{picture}.png"}]
        return {"role": "user", "content": parts}

    assert split([line([about(n)]) for n in range(40)]).notes["proof"]["largest cluster"] == 1


@pytest.mark.parametrize("seed", range(20))
def test_every_environment_has_a_prompt_in_every_split(seed: int) -> None:
    lines = [line(f"{env} {n}", env=env) for env in "abc" for n in range(6)]
    result = split(lines, seed, train=0.8, validation=0.1, test=0.1)
    for counts in result.notes["by_env"].values():
        assert counts["validation"]["prompts"] >= 1
        assert counts["test"]["prompts"] >= 1
    assert any("validation has" in warning for warning in result.warnings)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc")), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abc")), max_size=40),
    st.integers(0, 50),
)
def test_grown_data_take_nothing_from_train_where_environments_share_prompts(
    first: list[tuple[int, str]], more: list[tuple[int, str]], seed: int
) -> None:
    def at(data: list[tuple[int, str]], env: str) -> int:
        return len({number for number, of in data if of == env})

    had = {number for number, _ in first}
    if any(at(first, env) < 2 <= at(first + more, env) for env in "abc"):
        return  # it had fewer prompts than there are splits
    if any(number in had and (number, env) not in first and at(first + more, env) >= 2 for number, env in more):
        return  # it gets one that another had
    before, after = (
        attempt([line(f"question {n}", env=env) for n, env in data], seed, near=None) for data in (first, first + more)
    )
    if before is None or after is None:
        return
    old, new = sides(before), sides(after)
    assert not [prompt for prompt in old if old[prompt] == "train" != new[prompt]]
    for env in "abc":
        if at(first, env) >= 2:
            assert {sample.split for sample in before.kept if sample.env == env} >= {"validation"}


def test_a_prompt_of_two_environments_has_one_side() -> None:
    lines = [line(f"q {n}", env=env) for n in range(50) for env in "ab"]
    result = split(lines)
    sides(result)
    assert sum(counts["prompts"] for counts in result.notes["by_env"]["a"].values()) == 50
    assert sum(counts["prompts"] for counts in result.notes["by_env"]["b"].values()) == 0
    assert sum(counts["rows"] for counts in result.notes["by_env"]["b"].values()) == 50


def test_a_small_environment_is_said_to_bend_the_shares() -> None:
    lines = [line(f"{env} {n}", env=f"env{env}") for env in range(30) for n in range(3)]
    result = split(lines)
    assert any("each_env: false" in warning for warning in result.warnings)
    assert not any("each_env" in warning for warning in split(lines, each_env=False).warnings)


def test_an_environment_with_nothing_in_train_is_warned_of() -> None:
    lines = [*tasks(40), *tasks(2, start=100, env="few"), *tasks(1, start=200, env="one")]
    told = {}
    for seed in range(12):
        result = split(lines, seed, train=0.5, validation=0.5)
        found = {(sample.env, sample.split) for sample in result.kept}
        assert ("few", "validation") in found
        told[seed] = [warning for warning in result.warnings if "no prompt in train" in warning]
        assert bool(told[seed]) is (("few", "train") not in found)
        assert all(each.startswith("1 of 3 environments has no prompt in train: few. ") for each in told[seed])
    assert {len(each) for each in told.values()} == {0, 1}


def test_an_empty_split_is_warned_of() -> None:
    result = split(tasks(3), train=99.99, validation=0.01, each_env=False)
    assert result.warnings[1].startswith("validation is empty: 3 prompts, too few for its share, or near duplicates")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"train": 0.9, "validation": 0.2}, r"the shares sum to 1\.1, neither 1 nor 100 \(write: split: 90/10"),
        ({"train": -0.1, "validation": 1.1}, "negative"),
        ({"train": 0, "validation": 1}, "nothing is left for train"),
        ({"train": 1, "validation": 0}, "everything is train"),
        ({"train": float("nan"), "validation": 0.1}, "cannot be"),
        ({"test": 0.2}, r"split 0\.9/0/0\.2: the shares sum to 1\.1"),
        ({"train": 90, "test": 20}, "the shares sum to 110"),
    ],
)
def test_impossible_shares(args: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        steps(SplitArgs(**args))


@pytest.mark.parametrize(
    ("args", "shares"),
    [
        ({"train": 0.8, "test": 0.2}, (0.8, 0.0, 0.2)),
        ({"train": 70, "test": 10}, (70, 20, 10)),
        ({"train": 0.7}, (0.7, 0.3, 0.0)),
        ({"near": 0.9}, (0.9, 0.1, 0.0)),
    ],
)
def test_validation_is_what_the_other_shares_leave(args: dict[str, Any], shares: tuple[float, ...]) -> None:
    made = SplitArgs(**args)
    assert (made.train, made.validation, made.test) == shares


def test_too_few_prompts() -> None:
    with pytest.raises(UserError, match="1 prompt cannot be split into train and validation; leave the split out"):
        split(tasks(1, repeats=8))
    assert split([]).kept == []


def test_shorthand() -> None:
    assert SplitArgs.short("90/10") == SplitArgs(train=90, validation=10)
    assert SplitArgs.short([0.8, 0.1, 0.1]) == SplitArgs(train=0.8, validation=0.1, test=0.1)
    assert steps(SplitArgs.short("95/5"))[0].name == "split 95/5"
    for wrong in ("90", "a/b", 0.9, [1], None, "1/2/3/4"):
        with pytest.raises(UserError, match="write: split: 90/10"):
            SplitArgs.short(wrong)
