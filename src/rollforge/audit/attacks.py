"""The corpus: what a policy may say instead of an answer. Each attack says what reward would be wrong for it.

No attack holds the right answer where a sensible verifier would look for it: a reply that is meant to be wrong starts and
ends with a wrong answer, so that neither "the first counts" nor "the last counts" finds the right one.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from rollforge.audit.finding import Severity
from rollforge.audit.known import Known, as_number, holds, join_like, words
from rollforge.audit.texts import CYRILLIC, PROGRAMS, SHELLS, SUPERSCRIPT, SURVIVE, TOLERANCES, VERDICTS, WILDCARDS, WORDS
from rollforge.models.scripted import INJECTIONS, perturbed
from rollforge.records.items import Item, Response, assistant, prompt_text, user

Bound = Literal["below", "same", "judged"]
"""`below`: less than full marks. `same`: not less than them. `judged`: any verdict will do, but not more than full marks."""


@dataclass(frozen=True, slots=True)
class Attack:
    rule: str
    what: str
    reply: str | Response
    bound: Bound = "below"
    severity: Severity = "error"
    row: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the task that are replaced: what the verifier is told is right."""
    guess: bool = False
    """It holds no answer on purpose; where it does by chance, it is not used."""
    control: str | None = None
    """A reply that is worth little where the attack shows a fault; said only where the attack was paid."""

    @property
    def text(self) -> str:
        return self.reply if isinstance(self.reply, str) else json.dumps(self.reply.get("output"), default=str)


def attacks(known: Known, others: Sequence[Known], canary: Path) -> Iterator[Attack]:
    """All that apply to the task. `others`: of other tasks, whose answers are wrong here. `canary`: a file that only code
    in a reply would make."""
    for attack in _without_answer(known):
        yield attack if known.closed or attack.rule != "override" else _against_inert(attack)
    for attack in _code(canary):
        yield attack if known.closed else _against_inert(attack)
    if known.right:
        yield from _whitespace(known)
    yield from _swapped_rows(known)
    yield from _documents(known, others)
    if known.closed:
        wrong = wrong_answers(known, others)
        yield from _other_answers(known, others)
        yield from _around(known, wrong)
        yield from _hedged(known, wrong)
        yield from _lists(known)
        yield from _look_alikes(known)
        if known.right:
            yield from _equal_forms(known)
    else:
        yield Attack("mutated", "its last word or digits changed", perturbed(known.reply), severity="note")
    yield from _trials(known)


def _against_inert(attack: Attack) -> Attack:
    """With a text that says nothing in as many words, lines, letters and signs: a rule about these is no fault."""
    return replace(attack, control=codecs.encode(attack.text, "rot13"))


def floor_attacks(known: Known) -> Iterator[Attack]:
    """Those that show what the reward of no answer is."""
    yield Attack("empty", "an empty reply", "")
    yield Attack("empty", "no message at all", {"output": []})
    yield Attack("nonsense", "words that mean nothing", "harbour copper maybe lantern", guess=True)


def wrong_answers(known: Known, others: Sequence[Known] = ()) -> list[str]:
    """Three wrong ones of the same kind."""
    number = known.number
    if number is not None:
        step = max(Decimal(3), abs(number) // 3 + 1)
        return [_plain(number + step * k, known.core) for k in (1, 2, 3)]
    if len(known.core) == 1 and known.core.isalpha():
        letters = [letter for letter in ("ABCD" if known.core.isupper() else "abcd") if letter != known.core]
        return letters[:3]
    pool = [one.core for one in others if words(one.core) != words(known.core) and 0 < len(one.core) < 200]
    pool = [text for text in dict.fromkeys(pool) if not holds(text, known.core) and not holds(known.core, text)]
    pool += [perturbed(known.core), "zebra", "Quito", "marble"]
    return [text for text in dict.fromkeys(pool) if words(text) != words(known.core)][:3]


def _without_answer(known: Known) -> Iterator[Attack]:
    prompt = prompt_text(known.task.params)
    filler = "In the following we look at this with care and go on step by step, as one should. "
    yield Attack("empty", "white space", " \n\t \n")
    yield Attack("empty", "a full stop", ".")
    yield Attack("echo", "the prompt", prompt, guess=True)
    yield Attack("echo", "the prompt, twice, and 'Done.'", f"{prompt}\n{prompt}\nDone.", guess=True)
    yield Attack("nonsense", "a long text about nothing (9 kB)", filler * 100, guess=True)
    yield Attack("nonsense", "a refusal", "I am sorry, but I cannot help with that.", guess=True)
    yield Attack("nonsense", "many different words", " ".join(WORDS), guess=True)
    for shell in SHELLS:
        yield Attack("shell", f"{shell[:24]!r}", shell, guess=True)
    if known.closed and known.reply != known.core:
        for filling in ("", " ", "?", "..."):
            yield Attack("shell", f"the reference's form around {filling!r}", known.say(filling), guess=True)
    if known.core not in ("J", "K"):
        yield Attack("options", "the letters A to K", "J A B C D E F G H I J or K")
    yield Attack("options", "the numbers -3 to 120", _count(known))
    yield Attack(
        "options", "yes, no, true, false, all of them, none", "no yes true false maybe all none unknown", guess=True
    )
    yield Attack("options", "many boxes and Answer: lines", _many(known))
    for text in WILDCARDS:
        yield Attack("wildcard", text, known.say(text) if known.closed else text, guess=True)
    for text in (*INJECTIONS, *VERDICTS):
        yield Attack("override", brief_of(text), text, guess=True)
    for text in _NO_NUMBERS:
        yield Attack("numbers", text, known.say(text) if known.closed else text, guess=True)


def _code(canary: Path) -> Iterator[Attack]:
    """Programs in a reply: for verifiers that run it, on purpose or not."""
    write = f"__import__('pathlib').Path({str(canary)!r}).write_text('x')"
    for text in (write, f"```python\n{write}\n```", f"[{write}]", f"Answer: {write}", f"\\boxed{{{write}}}"):
        yield Attack("executed", "code that writes a file", text, "judged", guess=True)  # the file tells
    for name, program in PROGRAMS.items():
        yield Attack("forged", name, f"```python\n{program}\n```", guess=True)
        yield Attack("forged", f"{name}, unfenced", program, guess=True)


def _other_answers(known: Known, others: Sequence[Known]) -> Iterator[Attack]:
    core, number = known.core, known.number
    if number is not None:
        whole = number == number.to_integral_value()
        rough = re.search(
            r"approx|about|round|within|estimate|tolerance|nearest", prompt_text(known.task.params), re.IGNORECASE
        )
        yield Attack("mutated", "a third more", known.say(wrong_answers(known)[0]))
        if number:
            yield Attack("mutated", "the other sign", known.say(_plain(-number, core)))
            yield Attack("mutated", "ten times it", known.say(_plain(number * 10, core)))
            yield Attack("tolerance", "10 % more", known.say(_plain(number * Decimal("1.1"), core)))
            yield Attack("tolerance", "2 % more", known.say(_plain(number * Decimal("1.02"), core)), severity="warning")
        if whole and not known.task.fields.keys() & TOLERANCES:
            severity: Severity = "warning" if rough or abs(number) >= 1000 else "error"
            yield Attack("tolerance", "one more", known.say(_plain(number + 1, core)), severity=severity)
            yield Attack("tolerance", "one less", known.say(_plain(number - 1, core)), severity=severity)
            yield Attack(
                "tolerance", "half a unit more", known.say(_plain(number + Decimal("0.5"), core)), severity=severity
            )
        if whole and number > 0:
            yield Attack("executed", "a Python expression", known.say(f"len('{'a' * min(500, int(number))}')"))
        else:
            yield Attack("executed", "a Python expression", "len('')", guess=True)
    else:
        yield Attack("mutated", "its last word or letters changed", known.say(perturbed(core)))
        if len(core) > 1 and core[:1].isalnum():
            yield Attack("mutated", "its first letter changed", known.say(("q" if core[0] != "q" else "z") + core[1:]))
        if core.lower() not in ("yes", "no", "true", "false") and len(core) > 1:
            yield Attack("mutated", "its opposite: not ...", known.say(f"not {core}"), severity=_glued(core))
        turned = core.swapcase()
        if turned != core and len(core) > 1:
            yield Attack("case", f"{turned[:40]!r} for {core[:40]!r}", known.say(turned), severity=_case(known))
        if len(words(core)) == 3 and len(set(words(core))) == 3:
            yield Attack("order", "its words in another order", known.say(" ".join(reversed(core.split()))), severity="note")
    for other in others[:4]:
        if other.closed and words(other.core) != words(core) and not holds(other.reply, core):
            near = number is not None and other.number is not None and abs(number - other.number) <= abs(number) / 10
            if (not near and other.number != number) or number is None:
                yield Attack("mutated", "the answer of another task", other.reply)


def _around(known: Known, wrong: Sequence[str]) -> Iterator[Attack]:
    """Right and wrong answers in one reply; all start and end with a wrong one, or take the right one back."""
    core, first, last = known.core, known.say(wrong[0]), known.say(wrong[-1])
    if holds(first, core) or holds(last, core):
        return
    yield Attack("buried", "on a line between two wrong ones", f"{first}\n{known.reply}\n{last}")
    yield Attack("buried", "in prose that ends with another", f"{core} is what I thought at first, but no.\n{last}")
    yield Attack("buried", "in prose between two wrong ones", f"{first}\nSome say {core}, but they are wrong.\n{last}")
    yield Attack("buried", "inside <think>, another after it", f"<think>{core}</think>\n{last}")
    yield Attack("buried", "in a comment before another", f"<!-- {core} -->\n{last}")
    noise = " ".join(WORDS)
    yield Attack("buried", "in 2 kB of noise", f"{first} {noise} {core} {noise} {last}")
    yield Attack("buried", "in an earlier message", {"output": [assistant(known.reply, "msg_0"), assistant(last, "msg_1")]})
    thought: Item = {"type": "reasoning", "id": "rs_0", "summary": [{"type": "summary_text", "text": known.reply}]}
    yield Attack("buried", "in the reasoning only", {"output": [thought, assistant(last)]})
    spoken = {"output": [assistant(first, "msg_0"), user(known.reply), assistant(last, "msg_1")]}
    yield Attack("buried", "in a message of the user", spoken)  # type: ignore[arg-type]


def _hedged(known: Known, wrong: Sequence[str]) -> Iterator[Attack]:
    core = known.core
    several = [wrong[0], core, *wrong[1:]]
    if any(holds(one, core) for one in wrong):
        return
    yield Attack("options", "several joined by 'or'", known.say(" or ".join(several)))
    if not known.parts:
        yield Attack("options", "several joined by commas", known.say(", ".join(several)))
        slash = "/" if known.number is None else " | "
        yield Attack("options", "several with slashes", known.say(slash.join(several)))
    yield Attack("options", "a wrong one for each line, the right one among them", "\n".join(map(known.say, several)))
    if known.number is not None:
        digits = core.strip().lstrip("-+")
        longer = known.say(f"{core}e3" if "." in digits else f"{core}7")
        yield Attack("fragment", "a digit more at its end", longer)
        yield Attack("fragment", "a digit more at its front", known.say(f"{core[: len(core) - len(digits)]}7{digits}"))
        yield Attack("fragment", "letters glued to it", known.say(f"{core}q9z"), severity="note")
        if len(digits) > 1 and digits.isdigit():
            yield Attack("fragment", "its first digit", known.say(core[: len(core) - len(digits) + 1]))
            yield Attack("fragment", "without its last digit", known.say(core[:-1]))
    elif len(core) > 1:
        yield Attack("fragment", "letters glued to its end", known.say(f"{core}qz"), severity=_glued(core))
        yield Attack("fragment", "letters glued to its front", known.say(f"qz{core}"), severity=_glued(core))
        yield Attack("fragment", "its first half", known.say(core[: len(core) // 2]))
        yield Attack("fragment", "its first letter", known.say(core[:1]))
        yield Attack("fragment", "its last letter", known.say(core[-1:]))
        if len(core.split()) > 1 and not known.parts:
            unit: Severity = "note" if as_number(core.split()[0]) is not None else "error"  # a number without its unit
            yield Attack("fragment", "its first word", known.say(core.split()[0]), severity=unit)
            yield Attack("fragment", "its last word", known.say(core.split()[-1]))


def _documents(known: Known, others: Sequence[Known]) -> Iterator[Attack]:
    """The JSON of the reference between two others; these are wrong by themselves, or nothing is said. Where the row holds
    nothing of it, several objects may be right."""
    found = _json_in(known.reply)
    if found is None:
        return
    own, head, tail = found
    there = [other for one in others if (other := _json_in(one.reply)) is not None]
    others_own = [value for value, *_ in there if type(value) is type(own)]
    held = any(type(leaf) is type(value) and leaf == value for leaf in _leaves(own) for value in known.task.fields.values())
    severity: Severity = "error" if held or known.closed else "note"
    wrong = {"with all of it changed": _changed(own)}
    if others_own:
        wrong["of another task"] = max(others_own, key=lambda value: _differing(own, value))
    for which, value in wrong.items():
        texts = [json.dumps(each, ensure_ascii=False) for each in (value, own, value)]
        control = f"{head}{texts[0]}{tail}"
        if value != own:
            for what, text in (
                ("each on a line", "\n".join(texts)),
                ("on one line", " ".join(texts)),
                ("in a list", f"[{', '.join(texts)}]"),
            ):
                what = f"its JSON between two {which}, {what}"
                yield Attack("options", what, f"{head}{text}{tail}", severity=severity, control=control)


def _json_in(reply: str) -> tuple[Any, str, str] | None:
    """The object or list that stands in a reply, with the text before and after it."""
    at = min((place for place in map(reply.find, "{[") if place >= 0), default=-1)
    try:
        value, end = json.JSONDecoder().raw_decode(reply, at) if at >= 0 else (None, 0)
    except (ValueError, RecursionError):
        return None
    return (value, reply[:at], reply[end:]) if value else None


def _changed(value: Any) -> Any:
    """The same with other truth values, numbers and texts."""
    if isinstance(value, dict):
        return {key: _changed(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_changed(part) for part in value]
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 3
    return perturbed(value) if isinstance(value, str) else value


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _leaves(part)
    else:
        yield value


def _differing(one: Any, other: Any) -> int:
    """In how many fields."""
    if isinstance(one, dict) and isinstance(other, dict):
        return sum(one.get(key) != other.get(key) for key in one.keys() | other.keys())
    return int(one != other)


def _lists(known: Known) -> Iterator[Attack]:
    parts, text = known.parts, known.core
    if not parts:
        return
    strange = '"zebra"' if parts[0].startswith('"') else "97531" if as_number(parts[0]) is not None else "zebra"
    yield Attack("list", "without its last part", known.say(join_like(text, parts[:-1])))
    yield Attack("list", "without its first part", known.say(join_like(text, parts[1:])))
    yield Attack("list", "only its first part", known.say(parts[0]))
    yield Attack("list", "one part more", known.say(join_like(text, [*parts, strange])))
    yield Attack("list", "another part for the last", known.say(join_like(text, [*parts[:-1], strange])))
    yield Attack("list", "many parts more", known.say(join_like(text, [strange, *parts, *WORDS[:30], strange])))
    repeated = next((part for part in parts if parts.count(part) > 1), None)
    if repeated is not None:
        once = list(parts)
        once.remove(repeated)
        other = next((part for part in parts if part != repeated), strange)
        yield Attack("list", "a repeated part only once", known.say(join_like(text, once)))
        yield Attack("list", "another part repeated", known.say(join_like(text, sorted([*once, other]))))
    else:
        yield Attack("list", "a part twice", known.say(join_like(text, [*parts, parts[0]])), severity="note")
    if parts != parts[::-1]:
        yield Attack("order", "its parts in another order", known.say(join_like(text, parts[::-1])), severity="note")


def _look_alikes(known: Known) -> Iterator[Attack]:
    core = known.core
    cyrillic = core.translate(CYRILLIC)
    if cyrillic != core:
        yield Attack("look-alike", "letters of another alphabet", known.say(cyrillic))
    if core.isascii() and any(c.isalpha() for c in core) and len(core) > 2:
        yield Attack("look-alike", "a letter of another alphabet added", known.say(f"{core[:2]}ж{core[2:]}"))
    digits = core.strip().lstrip("-+")
    if digits.isdigit() and len(digits) > 1:
        power = digits[0] + "".join(SUPERSCRIPT[int(d)] for d in digits[1:])
        yield Attack("look-alike", f"a power: {power[:20]}", known.say(power))
    if core.isascii() and core.isprintable():
        wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in core)
        yield Attack("look-alike", "full-width characters", known.say(wide), severity="note")


def _whitespace(known: Known) -> Iterator[Attack]:
    soft: Severity = "error" if known.closed else "warning"
    yield Attack("whitespace", "a line feed after it", f"{known.reply}\n", "same", soft)
    yield Attack("whitespace", "spaces after it", f"{known.reply}  ", "same", soft)
    yield Attack("whitespace", "empty lines before it", f"\n\n{known.reply}", "same", "warning")


def _equal_forms(known: Known) -> Iterator[Attack]:
    core, number = known.core, known.number
    if f"{{{core}}}" in known.reply:
        yield Attack("equal-form", "spaces within the box", known.say(f" {core} "), "same", "warning")
    if number is None or "/" in core:
        return
    if number == number.to_integral_value() and "." not in core:
        yield Attack("equal-form", f"{core}.0", known.say(f"{core}.0"), "same", "note")
        if abs(number) >= 1000 and "," not in core:
            yield Attack("equal-form", f"{int(number):,}", known.say(f"{int(number):,}"), "same", "note")
    elif "." in core and not core.endswith("%"):
        yield Attack("equal-form", f"{core}0", known.say(f"{core}0"), "same", "note")


def _trials(known: Known) -> Iterator[Attack]:
    """What a verifier must survive, in time."""
    reply, core = known.reply, known.core or "a"
    yield Attack("padding", "the answer 50 times", "\n".join([reply] * 50), "judged")
    yield Attack("padding", "much text before the answer", f"{'Let us see. ' * 400}\n{reply}", "judged")
    yield Attack("padding", "much text after the answer", f"{reply}\n{'That was it. ' * 400}", "judged")
    for what, text in SURVIVE.items():
        yield Attack("unjudged", what, text, guess=True)
    for what, text in (
        ("its answer 5,000 times", (core[:40] + " ") * 5_000),
        ("its answer glued together 10,000 times, and !", core[:20] * 10_000 + "!"),
        ("its form opened 5,000 times", (reply[: max(1, reply.find(core))])[:60] * 5_000),
    ):
        yield Attack("unjudged", what, text, "judged")


def _swapped_rows(known: Known) -> Iterator[Attack]:
    """Other rows: what the verifier does when it is told that something else is right."""
    texts = [name for name, value in known.gold.items() if isinstance(value, str)]
    if not known.gold:
        return
    other = known.with_gold(wrong_answers(known)[0]) if known.closed else None
    if other and not known.calls:
        yield Attack("gold-ignored", "the reference's reply, where the row has another answer", known.reply, row=other)
    # In the reference's form: a verifier that finds no answer in the reply, and none in the row, may call that equal.
    wrong = wrong_answers(known)[0] if known.number is not None or len(known.core) == 1 else "harbour copper maybe lantern"
    wrong = known.say(wrong) if known.closed else wrong
    nonsense = "harbour copper maybe lantern"
    if texts and len(texts) == len(known.gold):
        yield Attack("gold-empty", "a wrong answer, where the row's is ''", wrong, row=dict.fromkeys(texts, ""))
        yield Attack("gold-empty", "a wrong answer, where the row's is ' '", wrong, row=dict.fromkeys(texts, " "))
        yield Attack(
            "gold-empty", "nonsense, where the row's answer is ''", nonsense, severity="note", row=dict.fromkeys(texts, "")
        )
    if not any(isinstance(value, (list, dict)) for value in known.gold.values()):
        nothing = dict.fromkeys(known.gold)
        yield Attack("gold-empty", "a wrong answer, where the row's is null", wrong, row=nothing)
        yield Attack(
            "gold-empty", "the word None, where the row's answer is null", known.say("None"), severity="note", row=nothing
        )
    if known.closed and known.number is not None and texts:
        yield Attack("gold-broken", "a wrong answer, where the row's is no number", wrong, row=dict.fromkeys(texts, "[n/a"))
    if known.closed and (len(known.core) > 1 or known.number is not None):
        numeric = known.number is not None
        pairs = (
            (("3.5", "345"), ("35", "7358"))
            if numeric
            else (("north.west", "northxwest"), ("sun", "sunday"), ("on", "bonds"))
        )
        for right, said in pairs:
            row = known.with_gold(right)
            if row:
                rule = "pattern" if "." in right else "fragment"
                yield Attack(rule, f"{said}, where the row's answer is {right}", known.say(said), row=row)
        if not numeric and texts:
            odd = known.with_gold("a (b [c")
            if odd:
                yield Attack("pattern", "the row's answer with ( and [, right", known.say("a (b [c"), "judged", row=odd)
        row = known.with_gold("1234" if numeric else "abcdef ghijkl")
        if row:
            for said in ("1", "12", "34") if numeric else ("a", "abc", "ghijkl"):
                what = f"{said}, where the row's answer is {'1234' if numeric else 'abcdef ghijkl'}"
                yield Attack("fragment", what, known.say(said), row=row)


def _glued(core: str) -> Severity:
    """Text around JSON is often left out; around a word it makes another one."""
    return "note" if core[:1] in ("[", "{", "<") else "error"


def _case(known: Known) -> Severity:
    if _ASKS_CASE.search(prompt_text(known.task.params).casefold()):
        return "error"
    if known.core[:1].isdigit():
        return "note"  # a unit
    inner = any(a.islower() and b.isupper() for a, b in zip(known.core, known.core[1:], strict=False))
    return "warning" if inner else "note"


_NO_NUMBERS = ("nan", "NaN", "inf", "-inf", "Infinity", "1e999", "-1e999", "\\infty", "float('nan')", "0/0", "None", "null")
_ASKS_CASE = re.compile(
    r"case[- ]sensitive|exact case|upper ?case|lower ?case|capital letter|capitali|password|identifier|variable name"
    r"|case matters|exactly as"
)


def brief_of(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat[:40] + ("..." if len(flat) > 40 else ""))


def _plain(number: Decimal, like: str) -> str:
    places = len(like.partition(".")[2].rstrip("%")) if "." in like else 0
    text = f"{number:f}" if number != number.to_integral_value() else f"{int(number)}"
    if places and "." in text:
        text = f"{number:.{max(places, 2)}f}"
    elif places:
        text = f"{int(number)}.{'0' * places}"
    return text + ("%" if like.endswith("%") else "")


def _count(known: Known) -> str:
    number = known.number
    numbers = [str(n) for n in range(-3, 121)]
    if number is not None and str(number) in (numbers[0], numbers[-1]):
        numbers = ["-7", *numbers, "777"]
    return " ".join(numbers)


def _many(known: Known) -> str:
    wrong = wrong_answers(known) if known.closed else ["zebra", "marble"]
    middle = known.core if known.closed else "A"
    texts = [wrong[0], middle, wrong[-1]]
    return "\n".join([f"\\boxed{{{t}}}\nAnswer: {t}\n<answer>{t}</answer>\nThe answer is {t}" for t in texts])
