"""The report as people read it."""

from __future__ import annotations

from rollforge.curate.report import Report, Stage, Tally, funnel, text
from rollforge.records.rows import BadLine


def stage(name: str, taken: int, **dropped: int) -> Stage:
    made = Stage(name, taken, taken - sum(dropped.values()))
    made.dropped.update(dropped)
    return made


def test_the_funnel() -> None:
    lines = list(funnel([stage("read", 12345, blank=45), stage("filter", 12300)]))
    assert [line.split() for line in lines] == [
        ["step", "in", "dropped", "kept"],
        ["read", "12,345", "45", "12,300"],
        ["blank", "45"],
        ["filter", "12,300", "12,300"],
    ]
    assert len({len(line) for line in (lines[0], lines[1], lines[3])}) == 1


def test_nothing_in_a_report_steers_the_terminal() -> None:
    bad = "\x1b[31m\u202e"
    report = Report(["x"], [stage(f"filter {bad}", 3, **{bad: 1})], [BadLine("f", 1, bad, bad)])
    report.stages[0].notes = {bad: {bad: {bad: [bad, 1]}}}
    report.stages[0].warnings = [bad]
    report.written = {"rollouts": {bad: _tally(1.0), "other": _tally(0.5)}}
    shown = "\n".join(text(report, f"out{bad}"))
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\\x1b" in shown


def _tally(reward: float) -> Tally:
    tally = Tally()
    tally.add(reward, 2)
    return tally


def test_long_lists_have_a_line_for_each_element() -> None:
    found = [{"row": f"a.jsonl:{number}", "ngram": "so many words that are the same", "line": 4} for number in range(14)]
    report = Report(["x"], [Stage("decontaminate", 3, 3, notes={"found": found, "sizes": [1, 2]})])
    lines = list(text(report, None))
    assert "  sizes: 1, 2" in lines
    start = lines.index("  found:")
    assert lines[start + 1] == "    row a.jsonl:0, ngram so many words that are the same, line 4"
    assert lines[start + 13] == "    and 2 more"


def test_many_reasons_are_not_listed_for_ever() -> None:
    many = Stage("filter", 200, 100)
    for number in range(100):
        many.drop(f"reason {number}")
    assert len(many.dropped) == 51
    assert many.dropped["other"] == 50
    many.check(200)


def test_rewards_over_all_environments() -> None:
    report = Report(["x"], [Stage("read", 4, 4)])
    report.written = {"train": {"b": _tally(1.0), "a": _tally(-1.0)}}
    train = report.row()["written"]["train"]
    assert (train["rows"], train["reward"], list(train["environments"])) == (4, {"mean": 0, "min": -1, "max": 1}, ["a", "b"])
    assert any(line.split() == ["a", "2,", "b", "2"] for line in text(report, None))
