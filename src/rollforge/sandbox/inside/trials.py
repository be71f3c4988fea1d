"""Several trials of one program in one cell: each in a fork of its own, so that none sees what another left.

Sent into a cell as the program to run; the job comes by standard input, the report goes to standard output. What is expected
is not here: it stays with the verifier. Standard library only.

    trials: compile once --fork--> trial 1: the program's own main module, streams in memory, a limit of time
                         --fork--> trial 2 ...
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import io
import json
import os
import select
import signal
import sys
import time
from types import CodeType, ModuleType
from typing import Any

GIVEN = {
    "typing": "Any Callable DefaultDict Deque Dict FrozenSet Generator Iterable Iterator List NamedTuple Optional Sequence "
    "Set Tuple TypeVar Union",
    "collections": "ChainMap Counter OrderedDict defaultdict deque namedtuple",
    "itertools": "accumulate chain combinations combinations_with_replacement count cycle dropwhile groupby islice pairwise "
    "permutations product repeat starmap takewhile zip_longest",
    "functools": "cache cmp_to_key lru_cache partial reduce total_ordering",
    "heapq": "heapify heappop heappush heappushpop heapreplace nlargest nsmallest",
    "bisect": "bisect_left bisect_right insort insort_left insort_right",
    "math": "ceil comb cos dist e exp factorial fabs floor fsum gcd hypot inf isclose isqrt lcm log10 log2 nan perm pi prod "
    "sin sqrt tan",
    "string": "ascii_letters ascii_lowercase ascii_uppercase digits",
    "copy": "copy deepcopy",
    "operator": "add and_ attrgetter itemgetter mul or_ sub xor",
    "random": "randint shuffle",
    "datetime": "date datetime timedelta",
    "sys": "setrecursionlimit stdin stdout",
}
"""Names that programs of such data sets use without importing them, as the judges they were written for allow."""
MODULES = "bisect collections copy functools heapq itertools json math operator random re statistics string sys time typing"


def main() -> None:
    job = json.loads(sys.stdin.buffer.read())
    if job["alone"]:
        _alone(job)
    for option, value in ((4, 0), (36, 1)):  # PR_SET_DUMPABLE: its memory is not the program's; PR_SET_CHILD_SUBREAPER
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
    sys.set_int_max_str_digits(0)
    try:
        code = compile(job["code"], "program.py", "exec", dont_inherit=True)
        given = _given(code)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        report: list[Any] = [{"status": "syntax", "error": f"{type(error).__name__}: {error}"[:500]}]
    else:
        report = _trials(job, code, given)
    with open(os.dup(1), "w", encoding="utf-8") as file:
        json.dump(report, file)


def _alone(job: dict[str, Any]) -> None:
    """A single trial needs no fork beside the cell's own: how this process ends is the report. Never returns."""
    stdin = os.memfd_create("in")
    with open(os.dup(stdin), "wb") as file:
        file.write(_input(job, job["tests"][0]))
    os.lseek(stdin, 0, os.SEEK_SET)
    path = os.devnull if job["mode"] == "stdin" else "value"
    value = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    sys.set_int_max_str_digits(0)
    try:
        code = compile(job["code"], "program.py", "exec", dont_inherit=True)
        given = _given(code)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        os.write(2, f"{type(error).__name__}: {error}"[:500].encode())
        os._exit(1)
    _play(job, code, given, job["tests"][0], (stdin, 1, 2), value)


def _input(job: dict[str, Any], test: Any) -> bytes:
    return test.encode("utf-8", "replace") if job["mode"] == "stdin" else b""


def _trials(job: dict[str, Any], code: CodeType, given: dict[str, Any]) -> list[Any]:
    report: list[Any] = []
    until = time.monotonic() + job["until"]
    for test in job["tests"]:
        left = until - time.monotonic()
        if left <= 0:
            break
        report.append(_trial(job, code, given, test, min(job["seconds"], left)))
        if job["stop"] and report[-1]["status"] != "ok":
            break
    return report


def _trial(job: dict[str, Any], code: CodeType, given: dict[str, Any], test: Any, seconds: float) -> dict[str, Any]:
    stdin, out, err, value = (os.memfd_create(name) for name in ("in", "out", "err", "value"))
    try:
        with open(os.dup(stdin), "wb") as file:
            file.write(_input(job, test))
        os.lseek(stdin, 0, os.SEEK_SET)
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            _play(job, code, given, test, (stdin, out, err), value)
        watched = os.pidfd_open(child)
        waiting = select.poll()
        waiting.register(watched)
        late = not waiting.poll(seconds * 1000)
        os.close(watched)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status, used = os.wait4(child, 0)
        _end_leftovers()
        ended = os.waitstatus_to_exitcode(status)
        late = late or ended == -signal.SIGXCPU or (ended == -signal.SIGKILL and used.ru_utime + used.ru_stime >= seconds)
        told = os.pread(err, 2000, max(0, os.fstat(err).st_size - 2000)).decode("utf-8", "replace").strip()
        answer = {
            "status": "time" if late else "ok" if ended == 0 else "error",
            "error": "" if late else (told.splitlines() or [f"exit status {ended}"])[-1][:500] if ended else "",
            "seconds": round(time.monotonic() - started, 4),
        }
        if answer["status"] == "ok":
            file_number = out if job["mode"] == "stdin" else value
            if os.fstat(file_number).st_size > job["most"]:
                return {**answer, "status": "error", "error": "too much output"}
            answer["output"] = os.pread(file_number, job["most"], 0).decode("utf-8", "replace")
        return answer
    finally:
        for number in (stdin, out, err, value):
            os.close(number)


def _end_leftovers() -> None:
    """What the trial left running became a child of this process: it would have the next trial's time too."""
    while True:
        try:
            with open("/proc/thread-self/children") as file:
                left = [int(child) for child in file.read().split()]
        except OSError:
            return
        for child in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        for child in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)
        if not left:
            return


def _play(
    job: dict[str, Any],
    code: CodeType,
    given: dict[str, Any],
    test: Any,
    streams: tuple[int, int, int],
    value: int,
) -> None:
    """The trial itself. Never returns."""
    status = 120
    try:
        os.setsid()
        value = os.dup2(value, 100)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.closerange(3, 100)
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
        status = _run(job, code, given, test, value)
    finally:
        os._exit(status)


def _run(job: dict[str, Any], code: CodeType, given: dict[str, Any], test: Any, value: int) -> int:
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        stream = io.TextIOWrapper(open(number, f"{mode}b", closefd=False), "utf-8", line_buffering=name == "stderr")
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    given |= {name: getattr(sys, name) for name in ("stdin", "stdout") if name in given}
    sys.setrecursionlimit(50_000)
    module = ModuleType("__main__" if job["mode"] == "stdin" else "program")
    sys.modules[module.__name__] = module
    space = module.__dict__
    space |= {**given, "__file__": "program.py"}
    status = 0
    atexit._clear()
    try:
        exec(code, space)
        if job["mode"] != "stdin":
            found = _call(space, job["name"], test) if job["mode"] == "call" else eval(test, space)
            with open(value, "w", encoding="utf-8") as file:
                json.dump(plain(found), file)
    except SystemExit as error:
        ended = error.code
        status = ended if isinstance(ended, int) else 0 if ended is None else 1
        if job["mode"] != "stdin":
            print("the program ended itself", file=sys.stderr)
            status = 1
    except BaseException as error:  # noqa: BLE001 - it ends as a program does
        error.__traceback__ = None  # what is of interest is its last line
        sys.excepthook(type(error), error, None)
        status = 1
    if threading := sys.modules.get("threading"):
        with contextlib.suppress(Exception):
            threading._shutdown()
    atexit._run_exitfuncs()
    for written in (sys.stdout, sys.stderr):
        try:
            written.flush()
        except Exception:  # noqa: BLE001 - output that could not be written is not there
            status = status or 1
    return status & 0xFF


def answer(job: dict[str, Any]) -> None:
    """Answers calls from standard input to standard output, until it ends: the candidate of `check.py`."""
    asked, told = open(os.dup(0), "rb"), open(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    sys.set_int_max_str_digits(0)
    sys.setrecursionlimit(50_000)
    module = ModuleType("program")
    sys.modules[module.__name__] = module
    space = module.__dict__

    def load() -> None:
        for source in (job["before"], job["code"]):
            code = compile(source, "program.py", "exec", dont_inherit=True)
            space.update(_given(code))
            exec(code, space)

    said = _answered(load)
    while True:
        told.write(json.dumps(said).encode() + b"\n")
        told.flush()
        line = asked.readline()
        if not line:
            return
        what, given = map(data, json.loads(line))
        if job["name"]:
            said = _answered(lambda arguments, named: _call(space, job["name"], arguments, named), what, given)
            continue
        said = _answered(lambda source, variables: eval(source, {**space, **variables}), what, given)
        if "raised" in said and what.isidentifier() and callable(space.get(what)):
            said = {"function": what}  # nothing that could be sent, but it can be called


def _answered(function: Any, *arguments: Any) -> dict[str, Any]:
    try:
        return {"result": plain(function(*arguments))}
    except SystemExit:
        os._exit(1)
    except BaseException as error:  # noqa: BLE001 - it is the program's, whatever it is
        return {"raised": type(error).__name__, "message": str(error)[:500]}


def _call(space: dict[str, Any], name: str, arguments: list[Any], named: dict[str, Any] | None = None) -> Any:
    function = space.get(name)
    if function is None and "Solution" in space:
        function = getattr(space["Solution"](), name, None)
    if not callable(function):
        raise NameError(f"there is no function {name}")
    return function(*arguments, **(named or {}))


def plain(value: Any) -> Any:
    """Data as JSON that says what it is; objects of other types could pretend to equal anything, so there are none."""
    kind = type(value)
    if value is None or kind in (bool, str):
        return value
    if kind is int:
        return value if abs(value) < 1 << 53 else ["int", hex(value)]
    if kind is float:
        return ["float", repr(value)]
    if kind is complex:
        return ["complex", repr(value.real), repr(value.imag)]
    if kind in (bytes, bytearray):
        return ["bytes", value.hex()]
    if kind in (list, tuple):
        return [kind.__name__, [plain(item) for item in value]]
    if kind in (set, frozenset):
        return ["set", [plain(item) for item in value]]
    if isinstance(value, dict):
        return ["dict", [[plain(key), plain(item)] for key, item in dict.items(value)]]
    if hasattr(value, "__next__") or kind in (range, type({}.keys()), type({}.values())) or kind.__name__ == "deque":
        return ["list", [plain(item) for item in value]]
    raise TypeError(f"the result is {kind.__name__}: only plain data can be compared")


def data(value: Any) -> Any:
    """What `plain` wrote. Raises `ValueError`, `TypeError` or `LookupError` for anything else."""
    if not isinstance(value, list):
        if isinstance(value, dict):
            raise ValueError("no plain data")
        return value
    kind, *rest = value
    if kind in ("list", "tuple", "set"):
        return {"list": list, "tuple": tuple, "set": set}[kind](map(data, rest[0]))
    if kind == "dict":
        return {data(key): data(item) for key, item in rest[0]}
    if kind == "complex":
        return complex(*map(float, rest))
    if kind == "int":
        return int(rest[0], 16)
    if kind == "bytes":
        return bytes.fromhex(rest[0])
    if kind == "float":
        return float(rest[0])
    raise ValueError("no plain data")


def _given(code: CodeType) -> dict[str, Any]:
    """Of the names above, those that the program mentions."""
    used: set[str] = set()
    codes = [code]
    while codes:
        one = codes.pop()
        used.update(one.co_names)
        codes += [constant for constant in one.co_consts if isinstance(constant, CodeType)]
    found: dict[str, Any] = {}
    for module, names in GIVEN.items():
        for name in used.intersection(names.split()):
            found.setdefault(name, getattr(__import__(module), name))
    return found | {name: __import__(name) for name in used.intersection(MODULES.split())}


if __name__ == "__main__":
    main()
