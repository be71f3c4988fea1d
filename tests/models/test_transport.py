"""Endpoints that are dead, slow, lying or half-closing: what a call through the transport ends with, and what it says."""

from __future__ import annotations

import asyncio
import resource
from email.utils import formatdate
from typing import Any

import pytest

from rollforge.errors import DeadlineExceeded, InfraFault, SetupError, UserError
from rollforge.models import anthropic, chat
from rollforge.models.base import ModelOptions, Request
from rollforge.models.dial import raise_file_limit
from rollforge.models.transport import BadRequest, Budget, retry_after
from rollforge.records.items import final_text, user
from tests.models.server import HANG, Reply, closing, completion, raw_server, serve

ASK = Request({"input": [user("hi")]})
KEY = "sk-very-secret-0123456789"
SOON = {"Retry-After": "0"}
GOOD = b'{"choices": [{"message": {"content": "hello"}}]}'


async def ask(url: str, **options: Any) -> Any:
    async with closing(chat.load("m", ModelOptions(base_urls=(url,), **options))) as model:
        return await model(ASK)


RAW = {
    "shorter than its length": (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + GOOD, "cut its answer off.*48 of 500"),
    "a chunk cut off": (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{"cho', "cut its answer off"),
    "cut off without a length": (b"HTTP/1.1 200 OK\r\n\r\n" + GOOD[:30], "not JSON"),
    "nothing at all": (b"", "closed the connection"),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Le", "closed the connection"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP"),
    "a login page": (b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html>login</", "not JSON: <html>login"),
    "an empty body": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "not JSON: an empty body"),
    "a negative length": (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "does not speak HTTP"),
    "broken compression": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        "cut its answer off",
    ),
    "a terabyte": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n{", "more than 64 MiB"),
}


@pytest.mark.parametrize("name", RAW)
async def test_a_lying_or_half_closing_endpoint_is_an_infra_fault_that_says_how(name: str) -> None:
    answer, says = RAW[name]
    async with raw_server(answer) as url:
        with pytest.raises(InfraFault, match=f"(?s){url}/chat/completions.*{says}"):
            await ask(url, retries=0)


async def test_a_body_without_a_length_ends_with_the_connection() -> None:
    async with raw_server(b"HTTP/1.1 200 OK\r\n\r\n" + GOOD) as url:
        assert final_text(await ask(url)) == "hello"


async def test_a_refused_connection_may_be_a_server_that_restarts() -> None:
    with pytest.raises(InfraFault, match=r"cannot connect to http://127.0.0.1:1/v1.*curl -s http://127.0.0.1:1/v1/models"):
        await ask("http://127.0.0.1:1/v1", retries=0)


async def test_a_silent_endpoint_runs_into_the_deadline() -> None:
    async with serve(HANG) as server:
        with pytest.raises(DeadlineExceeded, match=r"within 0.05 s \(call_seconds\); check: curl"):
            await ask(server.url, call_seconds=0.05)


async def test_plain_http_where_tls_was_asked_for() -> None:
    async with serve(completion()) as server:
        with pytest.raises(SetupError, match="TLS"):
            await ask(server.url.replace("http:", "https:"), retries=0)


STATUSES = [
    (401, {"error": {"message": f"bad key {KEY}"}}, SetupError, r"401: bad key \*\*\*; the key in OPENAI_API_KEY .*curl"),
    (403, b"<html>", SetupError, "403"),
    (404, {"detail": "Not Found"}, SetupError, "base URL is wrong.*curl -s .*/v1/models"),
    (404, {"error": {"message": "The model `m` does not exist.", "code": 404}}, SetupError, "the models it has: curl"),
    (404, {"error": 'model "m" not found, try pulling it first'}, SetupError, "the models it has"),
    (400, {"error": {"message": "x", "code": "model_not_found"}}, SetupError, "the models it has"),
    (400, {"error": {"message": "Invalid model name passed in model=m"}}, SetupError, "the models it has"),
    (307, b"", SetupError, "redirects to https://b/v1"),
    (402, b"", SetupError, "nothing left to spend"),
    (429, {"error": {"message": "x", "code": "insufficient_quota"}}, SetupError, "nothing left to spend"),
    (400, {"error": {"message": "bad temperature"}}, BadRequest, "400: bad temperature"),
    (422, {"detail": [{"loc": ["body"], "msg": "nope"}]}, BadRequest, "nope"),
    (413, b"too big " * 1000, BadRequest, r"413: too big .*\.\.\.$"),
    (501, b"", BadRequest, "501"),
]


@pytest.mark.parametrize(("status", "body", "error", "says"), STATUSES)
async def test_what_a_refusal_means_and_that_it_is_not_retried(
    status: int, body: Any, error: Any, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    async with serve(Reply(body, status, {"Location": "https://u:p@b/v1?key=1"} if status == 307 else {})) as server:
        with pytest.raises(error, match=f"(?s){says}") as caught:
            await ask(server.url)
        assert len(server.seen) == 1
    assert KEY not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 520, 529])
async def test_what_may_pass_is_retried(status: int) -> None:
    async with serve(Reply(b"", status, SOON), Reply(b"", status, SOON), completion("done")) as server:
        assert final_text(await ask(server.url)) == "done"
        assert len(server.seen) == 3


async def test_a_truncated_body_is_asked_for_again() -> None:
    async with serve(Reply(b'{"choices": ['), completion("done")) as server:
        assert final_text(await ask(server.url)) == "done"


async def test_retries_end() -> None:
    async with serve(Reply({"error": {"message": "overloaded"}}, 503, SOON)) as server:
        with pytest.raises(InfraFault, match=r"503: overloaded \(3 tries\); check: curl"):
            await ask(server.url, retries=2)
        assert len(server.seen) == 3


async def test_nobody_waits_past_the_deadline() -> None:
    async with serve(Reply(b"", 503, {"Retry-After": "3600"})) as server:
        with pytest.raises(InfraFault, match="asks to come back in 3600 s"):
            await ask(server.url, call_seconds=60)
        assert len(server.seen) == 1


async def test_a_dying_server_is_not_stormed() -> None:
    async with serve(Reply(b"", 500, SOON)) as server:
        async with closing(chat.load("m", ModelOptions(base_urls=(server.url,)))) as model:
            results = await asyncio.gather(*(model(ASK) for _ in range(300)), return_exceptions=True)
        assert all(isinstance(result, InfraFault) for result in results)
        # A fifth of the calls, the reserve of 100, and what the reserve regains while this runs.
        assert 300 <= len(server.seen) < 300 + 60 + 100 + 300
    assert any("too many calls fail" in str(result) for result in results)


def test_the_budget_is_a_share_of_the_calls_and_a_reserve_that_refills() -> None:
    budget = Budget(reserve=2, share=0.2, per_second=1, most=3)
    assert [budget.retry(0.0) for _ in range(3)] == [True, True, False]
    for _ in range(5):
        budget.call()
    assert [budget.retry(0.0) for _ in range(2)] == [True, False]
    assert [budget.retry(1.0) for _ in range(2)] == [True, False]
    assert [budget.retry(100.0) for _ in range(3)] == [True, True, False]


NOW = 1_700_000_000.0
WAITS = [
    ("7", 7.0),
    ("1.5", 1.5),
    (formatdate(NOW + 30, usegmt=True), 30.0),
    (formatdate(NOW - 30, usegmt=True), 0.0),
    ("soon", None),
    ("-3", None),
    ("nan", None),
    ("", None),
    (None, None),
]


@pytest.mark.parametrize(("value", "seconds"), WAITS)
def test_retry_after_has_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


async def test_connections_are_kept_and_closed() -> None:
    async with serve(completion()) as server:
        model = chat.load("m", ModelOptions(base_urls=(server.url,)))
        for _ in range(3):
            await model(ASK)
        await model.aclose()
        await model.aclose()
        assert final_text(await model(ASK)) == "hi"
        await model.aclose()


async def test_a_replica_that_is_down_is_left_for_the_next() -> None:
    async with serve(completion()) as server:
        urls = ("http://127.0.0.1:1/v1", server.url)
        async with closing(chat.load("m", ModelOptions(base_urls=urls))) as model:
            for _ in range(2):
                await model(ASK)
        assert len(server.seen) == 2


async def test_a_cancelled_call_is_cancelled() -> None:
    asked = asyncio.Event()

    def hang(body: Any) -> Reply:
        asked.set()
        return HANG

    async with serve(hang) as server, closing(chat.load("m", ModelOptions(base_urls=(server.url,)))) as model:
        call = asyncio.create_task(model(ASK))
        await asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_a_gateway_that_lost_its_servers_is_no_wrong_url() -> None:
    answers = completion(), Reply(b"", 404), completion("back")
    async with serve(*answers) as server, closing(chat.load("m", ModelOptions(base_urls=(server.url,)))) as model:
        await model(ASK)
        assert final_text(await model(ASK)) == "back"


async def test_keys_are_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", KEY)
    async with serve(Reply({"error": {"message": f"{KEY} hunter22"}}, 500, SOON)) as server:
        options = ModelOptions(base_urls=(server.url,), api_key_env="MINE", headers={"X-Extra": "hunter22"}, retries=0)
        async with closing(chat.load("m", options)) as model:
            with pytest.raises(InfraFault) as caught:
                await model(ASK)
            assert server.seen[0].headers["Authorization"] == f"Bearer {KEY}"
            assert server.seen[0].headers["X-Extra"] == "hunter22"
            shown = f"{caught.value!r} {caught.value.__cause__!r} {model!r}"
    assert KEY not in shown
    assert "hunter22" not in shown
    assert "$MINE" in shown


async def test_credentials_in_the_url_work_and_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    async with serve(Reply(b"", 401)) as server:
        with pytest.raises(SetupError) as caught:
            await ask(server.url.replace("http://", "http://ann:hunter22@"))
        assert server.seen[0].headers["Authorization"].startswith("Basic ")
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize(
    ("urls", "options", "says"),
    [
        (["http://ann:hunter22@h/v1"], {"api_key_env": "MINE"}, "a key in MINE"),
        (["http://:hunter22@h/v1"], {"api_key_env": "MINE"}, "a key in MINE"),
        (["http://ann:hunter22@h/v1"], {"headers": {"authorization": "Bearer hunter22"}}, "a header Authorization"),
        (["http://a/v1", "http://ann:hunter22@h/v1"], {}, "a key in OPENAI_API_KEY"),
        (["http://ann:hunter22@h:99999/v1"], {}, "cannot be read"),
        (["http://ann:hunter@22@h/v1"], {"api_key_env": "MINE"}, "chat at http://h/v1 has"),
    ],
)
def test_credentials_in_the_url_and_a_key_are_one_too_many(
    urls: list[str], options: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("MINE", KEY)
    with pytest.raises(UserError, match=says) as caught:
        chat.load("m", ModelOptions(base_urls=tuple(urls), **options))
    assert not any(secret in str(caught.value) for secret in (KEY, "hunter", "22@"))


async def test_credentials_in_the_url_go_with_a_key_that_has_a_header_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    async with serve(Reply(b"", 401)) as server:
        options = ModelOptions(base_urls=(server.url.replace("http://", "http://ann:hunter22@"),))
        async with closing(anthropic.load("m", options)) as model:
            with pytest.raises(SetupError):
                await model(ASK)
        assert server.seen[0].headers["Authorization"].startswith("Basic ")
        assert server.seen[0].headers["x-api-key"] == KEY


async def test_no_key_no_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    async with serve(completion()) as server:
        await ask(server.url)
        assert "Authorization" not in server.seen[0].headers


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://h/v1", "http://", "", "http://h/v1?key=hunter22"])
def test_a_base_url_is_checked_before_anything_runs(url: str) -> None:
    with pytest.raises(UserError, match="base URL") as caught:
        chat.load("m", ModelOptions(base_urls=(url,)))
    assert "hunter22" not in str(caught.value)
    assert ("has a query" in str(caught.value)) == ("?" in url)


def test_a_named_key_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(UserError, match="NOT_SET"):
        chat.load("m", ModelOptions(base_urls=("http://h/v1",), api_key_env="NOT_SET"))


async def test_a_proxy_is_for_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(completion("by proxy")) as proxy, serve(completion("direct")) as server:
        monkeypatch.setenv("http_proxy", proxy.root)
        monkeypatch.delenv("no_proxy", raising=False)
        assert final_text(await ask(server.url)) == "direct"
        assert final_text(await ask("http://model.invalid/v1")) == "by proxy"


def test_the_limit_of_open_files_goes_up() -> None:
    raise_file_limit()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard


async def test_what_json_cannot_hold_is_named() -> None:
    async with serve(completion()) as server, closing(chat.load("m", ModelOptions(base_urls=(server.url,)))) as model:
        await model(Request({"input": [user("half a pair: \ud83d")]}))
        with pytest.raises(InfraFault, match=r"cannot be written as JSON: seed is object"):
            await model(Request({"input": [user("hi")], "seed": object()}))  # type: ignore[typeddict-unknown-key]
