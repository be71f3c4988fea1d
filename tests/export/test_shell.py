"""Shell scripts read as bash would start their commands."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from rollforge.export.shell import read_script

SAME_AS_BASH = [
    "run a 'b c' \"d  e\" f\\ g ''",
    "run a \\\n  b # c\nrun d",
    'A=1 B="2 3"\nrun $A ${B} "$B" \'$A\' "${A}x$B"',
    'L=(a \'b c\' # no\n  d)\nL+=(e)\nrun ${L[@]} "${L[@]}" x"${L[@]}"y $L',
    'E=()\nrun "${E[@]}" a ${E[@]} "x${E[@]}"',
    "run ${N:-8} ${M:-a b} ${K:=9} $K",
    "A=a; A+=b; run $A | cat; run 2 2>/dev/null >/dev/null; echo; run c",
    'run $\'a\\\'b\' "q\\"r" "$" a$ \'don\'"\'"t',
    "cat <<EOF >/dev/null\nit's $A\nEOF\nrun after",
    "function f { X=3; }\nif true; then run in; fi; for i in 1; do run loop; done",
    'run $@ "$@" $* end',
    'export A=5 B=6\nrun $A$B; [ -n "$A" ] && run yes',
    "run data.files=\"['a.parquet', 'b.parquet']\" +key='{a: 1}' x=[1,2]",
    "cat <<< run >/dev/null; run a&& run b",
]


@pytest.mark.parametrize("script", SAME_AS_BASH)
def test_words_are_those_that_bash_makes(script: str) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    prelude = "run() { printf '%s\\x1f' run \"$@\" >&3; printf '\\n' >&3; }\n"
    done = subprocess.run([bash, "-c", f"exec 3>&1\n{prelude}{script}"], capture_output=True, text=True, check=True)
    told = [tuple(line.split("\x1f")[:-1]) for line in done.stdout.splitlines() if "\x1f" in line]
    assert [command.words for command in read_script(script, "^run$").commands] == told


UNKNOWN = [
    ("run $A", ("run", "$A")),
    ('run "${A}" ${A[@]} ${A%x} $((1 + 2)) $(date "+%s )") `date` $1 $#', None),
    ("if true; then A=1; fi\nrun $A", ("run", "$A")),
    ("A=1\nfalse && A=2\nrun $A", ("run", "$A")),
    ("A=1\nfor A in 2 3; do run $A; done", ("run", "$A")),
    ("A=1\nread -r A\nrun $A", ("run", "$A")),
]


@pytest.mark.parametrize(("script", "words"), UNKNOWN)
def test_what_only_running_tells_stays_as_it_is_written(script: str, words: tuple[str, ...] | None) -> None:
    [command] = read_script(script, "^run$").commands
    assert command.words == words or (words is None and all("$" in word or "`" in word for word in command.words[1:]))


@pytest.mark.parametrize(
    "script", ["run a\nrun 'b", 'run a\nrun "b', "run a\nL=(b", "run a\nrun ${b", "run a\nrun $(b", "run a\nrun `b"]
)
def test_where_reading_ends_is_said(script: str) -> None:
    found = read_script(script, "^run$")
    assert found.unread == 2
    assert [command.words for command in found.commands] == [("run", "a")]


def test_commands_within_quotes_and_documents() -> None:
    script = "A=1\nbash -c \"cd x; go run --a $A\" > log\ncat <<'EOF'\ngo run --b\nEOF\necho 'go run --c'\n"
    found = read_script(script, r"\brun\b")
    assert [(command.line, command.words) for command in found.commands] == [
        (2, ("go", "run", "--a", "1")),
        (4, ("go", "run", "--b")),
    ]
