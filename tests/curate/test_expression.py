"""The expressions of filters: what they mean, and how their mistakes are shown."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollforge.curate.expression import compile, function
from rollforge.curate.facts import ABOUT, ROOTS
from rollforge.curate.grammar import ExpressionError, parse
from rollforge.errors import UserError

VALUES: dict[str, Any] = {
    "reward": 0.5,
    "tokens": 100,
    "turns": 3,
    "truncated": False,
    "text": "The answer is 42.",
    "env": "math",
    "task.level": "hard",
    "task.tags": ["a", "b"],
    "task.count": 3,
    "task.flag": True,
    "task.none": None,
    "task.deep.er": {"x": 1},
    "metrics.accuracy": 1.0,
    "group.solve_rate": 0.25,
}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("reward >= 0.5", True),
        ("reward >= 0.8 and tokens < 4000", False),
        ("0.2 <= group.solve_rate <= 0.8", True),
        ("0.2 <= group.solve_rate < 0.25", False),
        ("1 < 2 < 3 < 3", False),
        ("not truncated", True),
        ("not not truncated", False),
        ('task.level == "hard"', True),
        ("task.level == 'easy' or task.level == 'hard'", True),
        ("metrics.accuracy == 1", True),
        ("metrics.accuracy == true", True),
        ('task["level"] == "hard"', True),
        ("task.flag and task.count == 3", True),
        ("task.flag == True", True),
        ("reward + 1.5 == 2", True),
        ("2 + 3 * 4 == 14 and (2 + 3) * 4 == 20", True),
        ("7 / 2 == 3.5 and -2 * -2 == 4 and 1 - 2 - 3 == -4", True),
        ("-reward < 0 and +reward > 0", True),
        ("env in ['math', 'code']", True),
        ("env not in ['math', 'code',]", False),
        ('"b" in task.tags and "c" not in task.tags', True),
        ('"42" in text', True),
        ("len(text) == 17 and len(task.tags) == 2", True),
        ('contains(lower(text), "ANSWER") or contains(lower(text), "answer")', True),
        ('contains(task.tags, "a")', True),
        (r'matches(text, "\d+\.$")', True),
        (r"matches(text, '^\d')", False),
        ("min(reward, 1) == 0.5 and max(1, 2, 3) == 3 and abs(-2) == 2", True),
        ("max([1, reward]) == 1", True),
        ("task.none == null and task.none == None", True),
        ("task.count != null", True),
        ("1_000 == 1e3 and .5 == 0.5", True),
        ("reward > 0.4\n  and tokens < 200", True),
        ("true or 1 / 0 > 1", True),
        ("'a\\'b' == \"a'b\" and 'x' < 'y'", True),
    ],
)
def test_what_expressions_mean(text: str, wanted: bool) -> None:
    assert bool(compile(text)(VALUES)) is wanted


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("task.none > 3", "no task.none"),
        ("3 < task.none", "no task.none"),
        ("task.none == 'hard'", "no task.none"),
        ("task.none in ['a']", "no task.none"),
        ("'a' in task.none", "no task.none"),
        ("task.none + 1 > 0", "no task.none"),
        ("task.none", ""),
        ("len(task.none) > 0", "no task.none"),
        ("task.level > 3", "task.level is text, compared with a number"),
        ("3 > task.level", "task.level is text, compared with a number"),
        ("task.level == 3", "task.level is text, compared with a number"),
        ("task.level > reward", "task.level is text, compared with a number (reward)"),
        ("task.tags > 3", "task.tags is a list, compared with a number"),
        ("task.level + 1 > 3", "task.level is text, not a number"),
        ("lower(task.count) == 'a'", "task.count is a number, not text"),
        ("'a' in task.count", "task.count is a number, not a list"),
        ("reward / (turns - 3) > 0", "reward / (turns - 3) divides by zero"),
        ("reward > 0.9", ""),
        ("0 < reward < 0.4", ""),
    ],
)
def test_what_cannot_be_compared_is_false_and_says_why(text: str, note: str) -> None:
    notes: list[str] = []
    assert not function(parse(text))(VALUES, notes)
    assert (notes or [""])[0] == note


@pytest.mark.parametrize("text", ["task.none != 'hard'", "task.none not in ['a']", "task.level != 3", "not task.none > 3"])
def test_the_opposite_of_a_comparison_that_cannot_be_made_holds(text: str) -> None:
    assert compile(text)(VALUES) is True


@pytest.mark.parametrize(
    ("text", "at", "says"),
    [
        ("reward >= 0.8 and tokns < 4000", "tokns", "unknown name; did you mean tokens?"),
        ("group.solverate > 0", "group.solverate", "did you mean group.solve_rate"),
        ("level == 3", "level", "a field of the row is task.level"),
        ("env == math", "math", 'a text is "math"'),
        ("task.level == hard", "hard", 'did you mean chars? A text is "hard"'),
        ("task.level in ['easy', hard]", "hard", 'A text is "hard"'),
        ("task == 3", "task", "task needs a field"),
        ("group > 3", "group", "group.size"),
        ("reward.x > 3", "reward.x", "reward has no fields"),
        ("text.__class__", "text.__class__", "text has no fields"),
        ("__import__('os')", "__import__", "unknown function; known: len"),
        ("lenn(text)", "lenn", "did you mean len?"),
        ("len(text, 2) > 1", "len", "takes 1 value, got 2"),
        ("reward = 0.8", "=", "write =="),
        ("reward > 1 && truncated", "&&", "write and"),
        ("!truncated", "!", "write not"),
        ("reward > 1 AND truncated", "AND", "write and"),
        ("NOT truncated", "NOT", "write not"),
        ("reward is 1", "is", "write =="),
        ("reward => 1", "=>", "write >="),
        ("reward > = 1", "> =", "write >= without a space"),
        ("reward =< 1", "=<", "write <="),
        ("reward <> 1", "<>", "write !="),
        ("reward === 1", "===", "write =="),
        ("task.level is not null", "is not", "write !="),
        ("task.level IS NOT null", "IS NOT", "write !="),
        ("reward in (0, 1)", "(", "write a list in square brackets"),
        ('env not in ("a", "b")', "(", "write a list in square brackets"),
        ("reward in (0)", "0", "write a list in square brackets"),
        ("reward >= ", "", "ends too early"),
        ("(reward > 1", "(", "never closed"),
        ("reward in [1, 2", "[", "never closed"),
        ("env == 'math", "'", "never closed"),
        ("reward > 0.5 0.6", "0.6", "not expected here"),
        ("reward ** 2 > 1", "**", "not expected here"),
        ("3x > 1", "3", "not a number"),
        ("reward > 1)", ")", "not expected here"),
        ("matches(text, '(a')", "(a", "not a regular expression"),
        ("matches(text, env)", "env", "has to be a text in quotes"),
        ("(lambda: 1)()", "lambda", "not expected here"),
        ("task.3", "task", "task needs a field"),
        ("task['a' == 1", "==", "not expected here"),
        ("task[]", "]", "a field's name in quotes"),
        ("", "", "there is no expression"),
        ("reward > 1 # x", "#", "not expected here"),
        ("é > 3", "é", "unknown name"),
    ],
)
def test_mistakes_are_pointed_at(text: str, at: str, says: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile(text)
    what, shown, marks = str(caught.value).splitlines()
    assert says in what
    assert shown == f"  {text}"
    place = marks.index("^")
    assert shown[place:].startswith(at) if at else place >= len(shown.rstrip())


def test_long_expressions_are_shown_around_the_mistake() -> None:
    with pytest.raises(ExpressionError) as caught:
        compile("reward > 0 and " * 20 + "tokns > 3" + " and reward > 0" * 20)
    _, shown, marks = str(caught.value).splitlines()
    assert len(shown) < 112
    assert shown[marks.index("^") :].startswith("tokns")
    assert marks.count("^") == 5


@pytest.mark.parametrize("text", [f"turns < {'9' * 5000}", f"task.x[{'9' * 5000}] == 1"])
def test_numbers_that_python_refuses_to_read_are_pointed_at(text: str) -> None:
    with pytest.raises(ExpressionError, match=r"a number of too many digits\n.*9999"):
        compile(text)


@pytest.mark.parametrize("text", ["(" * 500 + "1" + ")" * 500, "not " * 500 + "true", "-" * 500 + "1", "1" + "+1" * 500])
def test_depth_is_bounded(text: str) -> None:
    with pytest.raises(ExpressionError, match="nested too deeply"):
        compile(text)


def test_long_lists_and_chains_are_fine() -> None:
    names = ", ".join(f"'t{number}'" for number in range(3000))
    assert compile(f"env in [{names}]")({"env": "t2999"})
    assert compile(" or ".join(["reward == 1"] * 500))({"reward": 1})


def test_names_and_groups() -> None:
    expression = compile("reward > 0 and group.size > 1 and task.a.b == 1 and task['x y'][0] == 2")
    assert expression.names == {"reward", "group.size", "task.a.b", "task['x y'][0]"}
    assert expression.needs_group
    assert not compile("reward > 0").needs_group
    assert [part.text for part in compile("reward > 0 and (turns > 1 and (truncated or empty))").conjuncts()] == [
        "reward > 0",
        "turns > 1",
        "truncated or empty",
    ]


@pytest.mark.parametrize(
    ("text", "denial"),
    [
        ("reward >= 0.8", "not reward >= 0.8"),
        ("not truncated", "truncated"),
        ("truncated or empty", "not (truncated or empty)"),
    ],
)
def test_what_is_said_of_dropped_rows(text: str, denial: str) -> None:
    assert compile(text).denial == denial


def test_nodes_are_pickled() -> None:
    node = parse("matches(text, 'a+') and task.x.y in [1, 2] or usage.output_tokens > 3")
    assert pickle.loads(pickle.dumps(node)) == node


@given(st.text(max_size=30))
def test_any_text_is_an_expression_or_a_clear_error(text: str) -> None:
    lines = 3
    try:
        compile(text)
    except UserError as error:
        lines = len(str(error).splitlines())
    assert lines == 3


WORDS = st.sampled_from(
    [
        *ABOUT,
        *(f"{root}.x" for root in ROOTS),
        "and",
        "or",
        "not",
        "in",
        "(",
        ")",
        "[",
        "]",
        ",",
        "<",
        "==",
        "+",
        "-",
        "1",
        "'a'",
    ]
)
ANY = st.sampled_from([None, 0, 1, 1.5, True, "a", "", ["a"], [], {"x": 1}])


@given(st.lists(WORDS, max_size=9), st.data())
def test_any_expression_of_any_values_has_a_value(words: list[str], data: st.DataObject) -> None:
    try:
        expression = compile(" ".join(words))
    except ExpressionError:
        return
    values = {name: data.draw(ANY) for name in expression.names}
    value = expression(values)
    in_a_worker = function(pickle.loads(pickle.dumps(expression.node)))
    assert json.dumps(in_a_worker(values, [])) == json.dumps(value)
    assert compile(f"not ({expression.text})")(values) is not bool(value)
