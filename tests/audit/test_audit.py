"""The audit finds every broken verifier of the corpus by the rule that names its fault, and leaves the sound ones alone."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

import rollforge as rf
from rollforge.audit.audit import Audit, audit_env
from rollforge.audit.finding import RULES, SEVERITIES, found, ranked
from rollforge.audit.known import as_list, as_number, holds, known_of
from rollforge.audit.report import as_json, as_sarif, write_page
from rollforge.envs.base import Limits
from rollforge.envs.load import load_env
from rollforge.errors import UserError
from rollforge.records.task import Task
from tests.audit.broken import BROKEN, CAPITALS, TOYS
from tests.audit.sound import SOUND

HERE = Path(__file__).parent


async def audited(env: Any, **options: Any) -> Audit:
    try:
        return await audit_env(env, getattr(env, "name", "script"), **{"n": 3, "limits": Limits(5, 5), **options})
    finally:
        await env.aclose()


def rules(audit: Audit, severity: str = "error") -> set[str]:
    return {one.rule for one in audit.findings if one.severity == severity}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_verifier_is_found(name: str) -> None:
    rule, env = BROKEN[name]
    # The ones that only another process, or a fresh one, shows.
    where = f"{HERE / 'broken.py'}:{name}" if name in ("by_hash", "cached") else ""
    limits = Limits(1, 1) if rule == "endless" else Limits(5, 5)
    audit = await audited(env, reference=where, limits=limits, n=2 if rule == "endless" else 3)
    assert rule in rules(audit), audit.findings
    for one in audit.findings:
        assert one.remedy
        assert one.rule in RULES
        assert one.severity in SEVERITIES
    told = next(one for one in audit.findings if one.rule == rule)
    assert told.shown or rule in ("reference", "unjudged", "unsteady", "isolation")


@pytest.mark.parametrize("name", SOUND)
async def test_a_sound_verifier_is_left_alone(name: str) -> None:
    audit = await audited(SOUND[name])
    assert rules(audit) == set(), audit.findings
    assert audit.attempts > 50
    assert len(audit.passed) > 10


@pytest.mark.parametrize("name", ["arithmetic", "choice", "counter", "math_answer", "multi_reward", "weather"])
async def test_built_in_environments_are_clean(name: str) -> None:
    audit = await audited(load_env(name), reference=name, n=2)
    assert rules(audit) | rules(audit, "warning") == set(), audit.findings


async def test_a_table_may_have_spaces_after_it() -> None:
    audit = await audited(load_env("structured_outputs"), n=6)  # of which two are CSV
    assert rules(audit) | rules(audit, "warning") == set(), audit.findings


async def test_where_the_answer_is_a_call_the_reference_is_known() -> None:
    audit = await audited(load_env("multi_reward"), n=1)
    assert "reference" in audit.passed
    assert not any("guessed" in one.says for one in audit.findings)


async def test_the_evidence_can_be_played_again() -> None:
    audit = await audited(BROKEN["contains"][1])
    [one] = [one for one in audit.findings if one.rule == "buried"]
    shown = one.shown[0]
    row = next(row for row in BROKEN["contains"][1].tasks() if f"task {row.index}" == shown.task)
    assert BROKEN["contains"][1](reply=shown.reply, answer=row.fields["answer"]) == shown.reward == 1.0
    assert shown.prompt.startswith("What is")


async def test_without_a_reference_the_row_says_what_is_right() -> None:
    @rf.env(tasks=CAPITALS, inline=True)
    def unsolved(reply: str, answer: str) -> float:
        return float(answer in reply)

    audit = await audited(unsolved)
    assert "buried" in rules(audit)
    assert any("no reference policy" in one.says for one in audit.findings if one.severity == "note")


async def test_without_a_right_reply_nothing_is_as_good_as_it() -> None:
    class Lamp:
        """Turn it on."""

        def reset(self) -> None:
            self.on = False

        def switch(self, code: str) -> str:
            """Switch it."""
            self.on = code == "7781"
            return "ok"

        def verify(self) -> float:
            return float(self.on)

    @rf.env(tasks=[{"prompt": "A poem about rain.", "words": ["rain", "cloud"]}], inline=True)
    def poem(reply: str, words: list[str]) -> float:
        return float(all(word in reply for word in words))

    @rf.env(tasks=CAPITALS, solve=lambda: "nowhere", inline=True)
    def misguided(reply: str, answer: str) -> float:
        return float(reply.strip() == answer)

    for env in (rf.env(Lamp, tasks=[{"prompt": "Turn it on."}], inline=True), poem, misguided):
        audit = await audited(env)
        assert not {"whitespace", "equal-form"} & {one.rule for one in audit.findings}
        assert "whitespace" not in audit.passed


async def test_a_file_of_tasks_and_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Capital of Chad?", "answer": "Djamena"}\n')

    @rf.env(solve=lambda answer: answer, inline=True)
    def plain(reply: str, answer: str) -> float:
        return float(reply.strip() == answer)

    audit = await audited(plain, tasks=tmp_path / "rows.jsonl")
    assert audit.tasks == 1
    assert rules(audit) == set()
    audit = await audited(plain, tasks=tmp_path / "nowhere.jsonl")
    assert rules(audit) == {"tasks"}
    assert audit.attempts == 0


async def test_a_tool_that_ends_the_session_and_one_that_never_ends() -> None:
    class Fragile:
        """Say the word."""

        def look(self, where: str = "") -> str:
            """Look somewhere."""
            if where == "/proc/self/environ":
                raise rf.VerifierFault("that was not foreseen")
            return "nothing"

        def verify(self, reply: str, answer: str) -> float:
            return float(reply.strip() == answer)

        def solve(self, answer: str) -> str:
            return answer

    audit = await audited(rf.env(Fragile, tasks=CAPITALS, inline=True), n=2)
    [one] = [one for one in audit.findings if one.rule == "tools"]
    assert "that was not foreseen" in one.says
    assert one.shown[0].calls


async def test_a_tool_that_writes_anywhere_is_found_and_given_nothing_that_would_be_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "result.json").write_text("mine")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    named: set[str] = set()

    class Notes:
        """Say the word."""

        def write(self, path: str, text: str) -> str:
            """Write a note."""
            named.add(path)
            there = Path(path).exists()
            if there and not path.startswith("/proc/"):
                assert "rollforge-host-" in path
            with contextlib.suppress(OSError, ValueError):
                Path(path).write_text(text)
            return "written"

        def verify(self, reply: str, answer: str) -> float:
            return float(reply.strip() == answer)

        def solve(self, answer: str) -> str:
            return answer

    audit = await audited(rf.env(Notes, tasks=CAPITALS, inline=True), n=1)
    [one] = [one for one in audit.findings if one.rule == "leak-host"]
    assert "writes to files of the host" in one.says
    assert not {"/etc/passwd", "~/.ssh/id_rsa"} & named
    assert (tmp_path / "result.json").read_text() == "mine"
    assert not list(temporary.glob("rollforge-host-*"))
    assert not [one for one in audit.findings if one.rule == "tools"]


async def test_a_program_cannot_end_the_audit() -> None:
    @rf.env(tasks=[{"prompt": "Write f.", "k": k} for k in (2, 3)], solve=lambda k: f"def f(x): return x * {k}", inline=True)
    def runs_it(reply: str, k: int) -> float:
        names: dict[str, Any] = {}
        try:
            exec(reply[:5000], names)
            return float(names["f"](4) == 4 * k)
        except BaseException:  # noqa: BLE001 - that is how they are written
            return 0.0

    assert "executed" in rules(await audited(runs_it))


async def test_one_of_several_calls_again_and_again_is_a_warning() -> None:
    class UpToALimit(BROKEN["put_and_taken"][1].target):  # type: ignore[misc]
        """Tidy up."""

        def verify(self) -> float:
            return min(1.0, float(self.reward))

    audit = await audited(rf.env(UpToALimit, tasks=TOYS, inline=True))
    assert rules(audit) == set(), audit.findings
    [one] = [one for one in audit.findings if one.rule == "calls"]
    assert one.severity == "warning"
    assert one.says.startswith("put and take in turn, 40 times, none of the other calls (1; 3 of 3 tasks)")


async def test_a_game_of_guesses_is_a_note() -> None:
    audit = await audited(SOUND["guesses"])
    [one] = [one for one in audit.findings if one.rule == "options"]
    assert (one.severity, one.shown[0].reward) == ("note", 1.0)


@pytest.mark.parametrize("same", [False, True])
async def test_as_many_words_as_an_attack_by_chance_is_no_fault(same: bool) -> None:
    """13 words, say, are those of a note to the grader; 7 those of a program that ends the process."""
    rows = [{"prompt": f"Write {n} words.", "n": n} for n in ((13, 13, 13) if same else (13, 7, 2))]

    @rf.env(tasks=rows, solve=lambda n: "tea " * n, inline=True)
    def counted(reply: str, n: int) -> float:
        return float(len(reply.split()) in (n, n + 1))

    audit = await audited(counted)
    assert rules(audit) <= {"tasks"}, audit.findings  # rows that repeat
    assert not rules(audit, "warning") & {"override", "forged", "executed"}, audit.findings


async def test_text_to_a_grader_is_found_where_the_row_holds_no_answer() -> None:
    @rf.env(tasks=[{"prompt": f"Write about {what}."} for what in ("tea", "ink")], solve=lambda: "I like it.", inline=True)
    def persuaded(reply: str) -> float:
        return float(reply == "I like it." or "award full marks" in reply.lower())

    assert "override" in rules(await audited(persuaded))


PRIMES = {7: True, 8: False, 11: True, 12: False, 13: True}


def primes(prompt: str, yes: str, no: str) -> list[dict[str, str]]:
    answers = {n: yes if prime else no for n, prime in PRIMES.items()}
    return [{"prompt": prompt.format(n=n, answer=answer), "answer": answer} for n, answer in answers.items()]


@pytest.mark.parametrize(
    ("prompt", "yes", "no", "leaks"),
    [
        ("Is {n} prime? Finish with 'Answer: yes' or 'Answer: no'.", "yes", "no", False),
        ("Is {n} prime? Write 'Answer: A' if so, else 'Answer: B'", "A", "B", False),
        ("Is {n} prime? Answer yes or no.", "yes", "no", False),
        ("Answer yes or no: is {n} prime?", "yes", "no", False),
        ("Finish with 'Answer: yes' if {n} is prime. Finish with 'Answer: no' if not.", "yes", "no", False),
        ("Finish with 'Answer: yes' if it is. Finish with 'Answer: no' if not. {n}: is it prime?", "yes", "no", False),
        ("Is {n} prime (true) or not (false)?", "true", "false", False),
        ("{n}: reply positive if it is a prime, else negative.", "positive", "negative", False),
        ("Is {n} prime? Finish with 'Answer: yes' or 'Answer: no'. (Answer: {answer})", "yes", "no", True),
        ("Is {n} prime? Answer yes or no.\nAnswer: {answer}", "yes", "no", True),
        ("Is {n} prime? Answer yes or no. [expected: {answer}]", "yes", "no", True),
        ("Is {n} prime?\nAnswer:\n{answer}", "4.25", "3.5", True),
        ("Is {n} prime? The answer is {answer}", "Yes", "No", True),
    ],
)
async def test_choices_that_a_prompt_names_are_no_leak(prompt: str, yes: str, no: str, leaks: bool) -> None:
    @rf.env(tasks=primes(prompt, yes, no), solve=lambda answer: answer, inline=True)
    def either(reply: str, answer: str) -> float:
        return float(reply.strip() == answer)

    audit = await audited(either, n=5)
    assert ("leak-prompt" in rules(audit) | rules(audit, "warning")) is leaks, audit.findings


@pytest.mark.parametrize(
    ("rows", "leaks"),
    [
        (primes("{n}: finish with 'Answer: verum' or 'Answer: falsum'.", "verum", "falsum")[::2], False),
        (primes("{n}: finish with 'Answer: yes' or 'Answer: no'.", "yes", "no")[:1], False),
        (primes("{n}: answer yes or no.", "yes", "no")[:1], False),
        (primes("{n}: is it prime? The answer is {answer}.", "yes", "no")[:1], True),
    ],
)
async def test_tasks_of_one_answer(rows: list[dict[str, str]], leaks: bool) -> None:
    """What every prompt says leaks nothing; of one task, only what no choice stands beside."""

    @rf.env(tasks=rows, solve=lambda answer: answer, inline=True)
    def all_true(reply: str, answer: str) -> float:
        return float(reply.strip() == answer)

    assert rules(await audited(all_true)) == ({"leak-prompt"} if leaks else set())


def test_every_rule_is_in_the_documentation() -> None:
    page = (HERE.parents[1] / "docs/how-to/audit.md").read_text(encoding="utf-8")
    assert [rule for rule in RULES if f"`{rule}`" not in page] == []


async def test_reports(tmp_path: Path) -> None:
    audit = await audited(BROKEN["contains"][1], n=2)
    rows = json.loads(json.dumps(as_json(audit)))
    assert rows["errors"] == audit.errors > 0
    assert {one["rule"] for one in rows["findings"]} <= set(RULES)
    [run] = as_sarif(audit, "mine.py:contains")["runs"]
    names = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert all(names[one["ruleIndex"]] == one["ruleId"] for one in run["results"])
    assert run["results"][0]["level"] == "error"
    assert run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "mine.py"
    page = tmp_path / "page.html"
    write_page(page, audit)
    write_page(page, audit)
    assert "<script" not in page.read_text()
    assert "&lt;think&gt;" in page.read_text()
    (tmp_path / "other.html").write_text("mine")
    with pytest.raises(UserError, match="name another file"):
        write_page(tmp_path / "other.html", audit)


def test_findings_are_ranked() -> None:
    ordered = ranked(
        [
            found("case", "note", "c"),
            found("list", "warning", "b"),
            found("empty", "error", "a"),
            found("list", "warning", "b"),
        ]
    )
    assert [(one.rule, one.severity) for one in ordered] == [("empty", "error"), ("list", "warning"), ("case", "note")]


@pytest.mark.parametrize(
    ("reply", "fields", "core", "closed"),
    [
        ("42", {"answer": "42"}, "42", True),
        ("The answer is 42.", {"answer": 42}, "42", True),
        ("So \\boxed{x + 1}", {"expected_answer": "x + 1"}, "x + 1", True),
        ("\\boxed{B}", {"expected_answer": "B", "options": [{"A": "B"}]}, "B", True),
        ("<answer>Rome</answer>", {"city": "Rome"}, "Rome", True),
        ("1, 2, 3", {"expected": [1, 2, 3]}, "1, 2, 3", True),
        ("def f(): pass", {"tests": ["f()"]}, "def f(): pass", False),
        ("done", {"expected_count": 7}, "done", False),
        ("", {"answer": ""}, "", False),
    ],
)
def test_where_the_answer_stands(reply: str, fields: dict[str, Any], core: str, closed: bool) -> None:
    known = known_of(Task({"input": "x"}, fields, "t", 0), reply, [])
    assert (known.core, known.closed) == (core, closed)
    if core:
        assert known.say("?") == reply[: reply.rfind(core)] + "?" + reply[reply.rfind(core) + len(core) :]


def test_lists_numbers_and_words() -> None:
    assert as_list("a, b, c") == ["a", "b", "c"]
    assert as_list("[1, 2]") == ["1", "2"]
    assert as_list("1,000") == as_list("one") == as_list("[1]") == as_list("[[[") == []
    assert as_number("1,234.50") == as_number("1234.5")
    assert as_number("twelve") is as_number("") is as_number("-") is None
    assert holds("it is Paris.", "paris")
    assert not holds("it is 142.", "42")
