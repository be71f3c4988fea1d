"""Examples, an environment's server and rollouts that the tests of verl and OpenRLHF share."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rollforge.export.examples import Demonstration, Origin, Pair, Prompt
from rollforge.export.target import Data, Made, Settings


def origin(env: str = "weather", task: str = "t1", reward: float = 1.0) -> Origin:
    return Origin(f"{task}-0", 0, 120, env, task, reward, "model")


def tool(name: str, **parameters: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": parameters, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "description": f"Get {name}.", "parameters": schema}}


WEATHER = tool("weather", city={"type": "string"}, days={"type": "array", "items": {"type": "integer"}})
CLOCK = tool("clock", zone={"anyOf": [{"type": "string"}, {"type": "null"}], "description": "costs ${HOME}"})


def call(number: int, name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Weather in Oslo, and the time?"}]
WORK = [
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [call(1, "weather", city="Oslo", days=[1, 2]), call(2, "clock", zone=None)],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "snow"},
    {"role": "tool", "tool_call_id": "c2", "content": "12:05"},
    {"role": "assistant", "content": "Snow; it is 12:05."},
]


def prompt(answer: str | None = "42", tools: list[Any] | None = None) -> Prompt:
    params = {"input": [{"role": "user", "content": "6 times 7?"}]}
    if tools:
        params["tools"] = [{"type": "function", **one["function"]} for one in tools]
    messages = [{"role": "user", "content": "6 times 7?"}]
    return Prompt(origin("math"), messages, tools or [], answer, params, {"difficulty": "easy"}, "42")


def demonstration(tools: bool = True) -> Demonstration:
    if tools:
        return Demonstration(origin(), ASK, WORK, [WEATHER, CLOCK])
    return Demonstration(
        origin("math"), [{"role": "user", "content": "6 * 7?"}], [{"role": "assistant", "content": "42"}], []
    )


def pair(tools: bool = False) -> Pair:
    low = origin("math", reward=0.25)
    if tools:
        return Pair(origin(), low, ASK, WORK, [{"role": "assistant", "content": "No idea."}], [WEATHER, CLOCK])
    good, bad = [{"role": "assistant", "content": "42"}], [{"role": "assistant", "content": "41"}]
    return Pair(origin("math"), low, [{"role": "user", "content": "6 * 7?"}], good, bad, [])


def made(kind: str, folder: Path, *, tools: list[Any] | None = None, rows: int = 100, **settings: Any) -> Made:
    data = [
        Data("train", [], folder / "train.jsonl", rows, 200, 900, 0 if tools else rows, bool(tools)),
        Data("validation", [], folder / "validation.jsonl", 10, 150, 700, 10, bool(tools)),
    ]
    return Made(kind, folder, data, Settings(**settings), False, tools or [])


class Environment:
    """A server of NeMo Gym's protocol: a session is a cookie, the reward is 1 if the answer holds the number of calls."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Any, str | None]] = []
        self.url = ""


@contextmanager
def environment() -> Iterator[Environment]:
    state = Environment()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.requests.append((self.path, body, self.headers.get("Cookie")))
            reply: Any = {"said": body}
            if self.path == "/verify":
                items = body["response"]["output"]
                calls = sum(item["type"] == "function_call" for item in items)
                reply = {"reward": float(str(calls) in items[-1]["content"][0]["text"])}
            elif self.path == "/seed_session":
                reply = {}
            data = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Set-Cookie", f"session={len(state.requests)}; Path=/")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def rollouts(file: Path, rows: int = 12, padding: int = 0) -> Path:
    """Attempts at tasks with tools whose names and parameters differ, right and wrong ones."""
    with open(file, "w", encoding="utf-8") as out:
        for number in range(rows):
            task, right = number // 2, number % 2 == 0
            name = f"tool_{task % 7}"
            schema = {"type": "object", "properties": {f"p{task % 5}": {"type": "integer"}}}
            call_id = f"call_{number}"
            said = "yes" if right else "no"
            output = [
                {
                    "type": "function_call",
                    "call_id": call_id,
                    "name": name,
                    "arguments": json.dumps({f"p{task % 5}": task}),
                },
                {"type": "function_call_output", "call_id": call_id, "output": f"result {task} " + "x " * (padding // 2)},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": f"{said} {task}"}]},
            ]
            tools = [
                {"type": "function", "name": name, "description": "d", "parameters": schema},
                {
                    "type": "function",
                    "name": "other",
                    "description": "o",
                    "parameters": {"type": "object", "properties": {}},
                },
            ]
            row = {
                "responses_create_params": {"input": [{"role": "user", "content": f"question {task}"}], "tools": tools},
                "response": {"output": output},
                "reward": float(right),
                "expected_answer": f"yes {task}",
                "_ng_task_index": task,
                "_ng_rollout_index": number % 2,
            }
            out.write(json.dumps(row) + "\n")
    return file
