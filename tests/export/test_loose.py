"""Calls without a result and results without a call, in the same words in exports, checks and the pages' commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rollforge.export.run import export_rollouts
from rollforge.export.text import LEARNED, NO_CALL, NO_RESULT, loose
from rollforge.records.items import Json
from rollforge.registry import resolve
from tests.export.toy import call, output, row, said, write

ASKED = {"role": "user", "content": "?"}
DONE = {"role": "assistant", "content": "done"}


def calling(*ids: str | None) -> Json:
    function = {"name": "f", "arguments": {}}
    return {"role": "assistant", "content": "", "tool_calls": [{"id": one, "function": function} for one in ids]}


def result(of: Any) -> Json:
    return {"role": "tool", "tool_call_id": of, "content": "r"}


@pytest.mark.parametrize(
    ("turns", "found"),
    [
        ([calling("a", "b"), result("b"), result("a"), DONE], []),
        ([calling(None, None), result(None), result(None), DONE], []),
        ([calling("a"), result(None), DONE], []),
        ([calling("a"), result("a"), calling("a"), result("a"), DONE], []),
        ([calling("a"), result("a"), calling("b")], []),  # its result may be still to come
        ([calling("a"), DONE], [(0, NO_RESULT)]),
        ([calling("a", "b"), result("b"), DONE], [(0, NO_RESULT)]),
        ([calling("a", "b"), result("b")], [(0, NO_RESULT)]),
        ([result("a"), DONE], [(0, NO_CALL)]),
        ([calling("a"), result("a"), result("zz"), DONE], [(2, NO_CALL)]),
        ([calling("a"), result("a"), result(None), DONE], [(2, NO_CALL)]),
        (["text", {"role": "assistant", "tool_calls": "x"}, result(["a"])], [(2, NO_CALL)]),
    ],
)
def test_calls_and_results_that_do_not_belong_together(turns: list[Any], found: list[tuple[int, str]]) -> None:
    assert [*loose(turns)] == found


LOOSE = [calling("a"), DONE, result("zz"), DONE]
WHOLE = [calling("a"), result("a"), DONE]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("trl:sft", {"messages": [ASKED, *LOOSE]}),
        ("trl:sft-prompt-completion", {"prompt": [ASKED], "completion": LOOSE}),
        ("trl:kto", {"prompt": [ASKED], "completion": LOOSE, "label": True}),
        ("trl:dpo", {"prompt": [ASKED], "chosen": WHOLE, "rejected": LOOSE}),
        ("trl:dpo-implicit", {"chosen": [ASKED, *WHOLE], "rejected": [ASKED, *LOOSE]}),
        ("trl:grpo", {"prompt": [ASKED, *LOOSE, ASKED]}),
        ("verl:sft", {"messages": [ASKED, *LOOSE]}),
        ("verl:grpo", {"prompt": [ASKED, *LOOSE, ASKED]}),
        ("openrlhf:sft", {"messages": [ASKED, *LOOSE]}),
        ("openrlhf:dpo", {"prompt": [ASKED], "chosen": WHOLE, "rejected": LOOSE}),
        ("openrlhf:grpo", {"prompt": [ASKED, *LOOSE, ASKED]}),
        ("nemo-rl:sft", {"messages": [ASKED, *LOOSE]}),
        ("nemo-rl:dpo", {"prompt": [ASKED, *LOOSE, ASKED], "chosen": "a", "rejected": "b"}),
        ("nemo-rl:dpo-messages", {"context": [ASKED], "completions": [{"completion": WHOLE}, {"completion": LOOSE}]}),
        ("generic:messages-score", {"messages": [ASKED, *LOOSE]}),
    ],
)
def test_checks_warn_of_them(name: str, fields: Json) -> None:
    target, _, kind = name.partition(":")
    told = [one for one in resolve("export", target).kinds[kind].check(fields) if LEARNED in one]
    assert [one.partition("] ")[2].partition(":")[0] for one in sorted(told)] == [f"has {NO_RESULT}", f"is {NO_CALL}"]
    assert all(one.startswith("warning: ") for one in told)


def test_a_prompt_may_end_with_the_call_that_the_answer_begins_with_the_result_of() -> None:
    for kind, sides in (("dpo", ("chosen", "rejected")), ("sft-prompt-completion", ("completion",))):
        fields = {"prompt": [ASKED, calling("a")], **{side: [result("a"), DONE] for side in sides}}
        assert not [one for one in resolve("export", "trl").kinds[kind].check(fields) if LEARNED in one]


def test_exports_count_them_where_the_check_cannot_see_them(tmp_path: Path) -> None:
    items = [call("f", "{}", "a"), call("f", "{}", "b"), output("r", "b"), said("yes")]
    rows = [row(f"{n}?", response={"output": items}) for n in range(3)] + [row(f"{n}?", "no", 0.0) for n in range(3)]
    kinds = ["openrlhf:dpo", "trl:dpo"]
    options = {"workers": 1, "validation": 0}
    text, chat = export_rollouts(write(tmp_path / "a.jsonl", rows), kinds, tmp_path / "out", **options).targets
    counted = f"3 of 3 rows have {NO_RESULT}: {LEARNED}"
    assert counted in text.warnings
    assert counted not in chat.warnings
    assert sum(NO_RESULT in one.message for one in chat.problems) == 3
