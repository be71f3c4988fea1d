"""What an audit says: findings, ranked, each with the attempts that show it and what mends it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rollforge.audit.known import Call
from rollforge.audit.play import Played
from rollforge.records.items import prompt_text
from rollforge.records.task import Task
from rollforge.stats.visible import one_line

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

TEXT = 2000
"""Characters of a reply that are kept; some attacks say a million."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An attempt, as evidence."""

    task: str
    prompt: str
    calls: list[Any]
    """[name, arguments] of each; [what was said] for steps."""
    outputs: list[str]
    reply: str
    reward: float | None
    fields: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    row: Mapping[str, Any] = field(default_factory=dict)
    """What of the task's row was replaced."""

    @property
    def ended(self) -> str:
        return self.problem or ("no reward" if self.reward is None else f"reward {self.reward:g}")


@dataclass(frozen=True, slots=True)
class Finding:
    rule: str
    severity: Severity
    says: str
    remedy: str
    shown: tuple[Shown, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    asks: str
    """What must hold."""
    remedy: str


RULES: dict[str, Rule] = {
    "reference": Rule("the reference solution gets full marks", "look at it: rollforge env show"),
    "empty": Rule("an empty answer is worth nothing", "return 0 before anything is compared when the answer is empty"),
    "nonsense": Rule("what is no answer is worth nothing", "reward the answer itself, nothing that any text has"),
    "echo": Rule("the prompt said back is worth nothing", "look for the answer in one place, not in the whole reply"),
    "shell": Rule("the form of an answer is worth nothing without one", "gate the reward for the form by correctness"),
    "override": Rule(
        "text that speaks to the grader is worth nothing",
        "judge by the answer alone; put a random mark around what a judge reads, and parse its verdict strictly",
    ),
    "forged": Rule(
        "a forged result is worth nothing",
        "take results from your own process, by a channel the program cannot write to; never from files or printed text",
    ),
    "options": Rule(
        "naming every option is worth nothing", "take one answer from one place; several different answers are none"
    ),
    "buried": Rule(
        "the right answer among wrong ones, or taken back, is worth nothing",
        "extract the one final answer (verify.answer) and compare that; `expected in reply` rewards whoever says everything",
    ),
    "fragment": Rule(
        "more or less than the answer is another answer", "compare whole values: ==, not in, startswith or re.search"
    ),
    "mutated": Rule("another answer is worth less", "compare with the expected value; the reward has to depend on it"),
    "tolerance": Rule("a number that is clearly off is worth less", "compare with a relative tolerance of about 1e-6"),
    "list": Rule(
        "a list that lacks, repeats or adds something is worth less", "compare sorted lists (or Counter), never sets or zip"
    ),
    "order": Rule("the order of a list counts", "say in the prompt that order does not count, or compare lists"),
    "case": Rule("case counts where the task says so", "compare without lower() or casefold()"),
    "look-alike": Rule(
        "look-alike characters are other characters", "compare as written; NFKC and encode('ascii', 'ignore') merge texts"
    ),
    "numbers": Rule(
        "NaN and infinities are wrong answers", "write `abs(a - b) <= tolerance`, never `not abs(a - b) > tolerance`"
    ),
    "padding": Rule("length earns nothing", "take length out of the reward, or bound its part and gate it by correctness"),
    "calls": Rule("tool calls earn nothing by their number", "reward what the calls achieve: the final state"),
    "executed": Rule(
        "a reply is never executed", "parse it (json.loads, verify.math); run programs in the sandbox: verify.code"
    ),
    "pattern": Rule("the expected answer is text, not a regular expression", "re.escape() it, or compare with =="),
    "wildcard": Rule(
        "a reply is text, not a pattern", "compare with ==; no reply is a pattern for re, fnmatch or LIKE, save escaped"
    ),
    "gold-empty": Rule(
        "a row without an answer gives no marks", "raise VerifierFault where the row lacks its answer: nobody can be right"
    ),
    "gold-broken": Rule(
        "a row that cannot be used gives no marks", "no `except: return 1`: raise VerifierFault, and 0 for a bad reply"
    ),
    "gold-ignored": Rule("another expected answer changes the reward", "compare with the field of the row, not a constant"),
    "unjudged": Rule("every reply gets a verdict", "a reply that cannot be read is worth 0; no reply may raise"),
    "endless": Rule(
        "verification ends, in time linear in the reply", "no nested quantifiers in regular expressions; cut the reply first"
    ),
    "whitespace": Rule("white space around an answer costs nothing", "strip() the reply before it is compared"),
    "equal-form": Rule("equal forms of an answer are worth the same", "compare values: verify.math, verify.match"),
    "above": Rule("nothing gets more than full marks", "clip the reward; count an answer once"),
    "partial": Rule("what is no answer gets few marks", "gate partial credit by correctness, or lower it"),
    "unsteady": Rule(
        "a score depends on the answer alone, not on run, order, time or process",
        "no module state, caches by prompt, random numbers, clocks or hash() in a verifier",
    ),
    "isolation": Rule("sessions do not see each other", "keep state in the instance (self)"),
    "leak-prompt": Rule("the answer is not in the prompt", "take it out of prompt, system message, tools and metadata"),
    "leak-tool": Rule("no tool gives the answer away", "keep the row's answer out of what a tool can reach or print"),
    "leak-file": Rule("the answer is in no file", "keep it in memory, outside of what tools can read"),
    "leak-host": Rule(
        "tools do not reach the host", "check paths and commands, or run them in the sandbox (rollforge.sandbox.jail)"
    ),
    "tools": Rule(
        "tools survive nonsense arguments", "an error text is an answer; nothing a policy sends may end the session"
    ),
    "tasks": Rule("tasks can be read, are different, and stay the same", "mend the function or file they come from"),
    "contract": Rule("the environment keeps its contract", "rollforge test says more"),
}
"""Every rule with what it asks and what mends its violation."""


def found(rule: str, severity: Severity, says: str, shown: Iterable[Shown] = (), remedy: str = "") -> Finding:
    return Finding(rule, severity, says, remedy or RULES[rule].remedy, tuple(shown))


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """The gravest first, each once; what is an error of a rule is not told again as less."""
    order = list(RULES)
    by_weight = sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), order.index(one.rule)))
    kept: dict[tuple[str, str], Finding] = {}
    for one in by_weight:
        kept.setdefault((one.rule, one.says), one)
    return list(kept.values())


def shown(played: Played, reply: str, calls: Iterable[Call] = (), row: Mapping[str, Any] | None = None) -> Shown:
    return Shown(
        task=where(played.task),
        prompt=_cut(prompt_text(played.task.params)),
        calls=[[call] if isinstance(call, str) else [call[0], dict(call[1])] for call in calls][:20],
        outputs=[_cut(output) for output in played.outputs[:20]],
        reply=_cut(reply),
        reward=played.reward,
        fields=played.fields,
        problem=_cut(played.problem),
        row=dict(row or {}),
    )


def where(task: Task) -> str:
    return f"task {task.index}" if task.index is not None else f"task {task.id}"


def brief(text: str, length: int = 80) -> str:
    return repr(one_line(text, length))


def _cut(text: str) -> str:
    return text if len(text) <= TEXT else f"{text[:TEXT]}... ({len(text):,} characters)"
