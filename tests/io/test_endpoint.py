"""The chat client against a server on this machine that fails in every way it is told to."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from regrow.core.errors import ConfigError
from regrow.io.endpoint import (
    BudgetError,
    Endpoint,
    RefusedError,
    ReplyError,
    UnavailableError,
)
from regrow.io.endpoint_config import EndpointConfig
from regrow.io.replies import parse_reply
from tests.io.chat_server import Answer, completion, serving

MESSAGES = [{"role": "user", "content": "What is it?"}]


class Label(BaseModel):
    """What is asked for."""

    label: Literal["High", "Low"]


class Waits:
    """Stands in for sleep."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def config(url: str, **changes: Any) -> EndpointConfig:
    return EndpointConfig(base_url=url, model="small", **{"timeout_s": 5.0, **changes})


def test_request_is_what_the_protocol_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-1234")
    with serving(lambda n, body: Answer(completion('{"label": "High"}'))) as server:
        settings = config(server.url, api_key_env="MY_KEY", max_tokens=9)
        with Endpoint(settings) as endpoint:
            assert endpoint.ask(MESSAGES, Label) == Label(label="High")
            assert endpoint.spent.as_json() == {
                "requests": 1,
                "retries": 0,
                "cached": 0,
                "reasked": 0,
                "prompt_tokens": 7,
                "completion_tokens": 3,
            }
    assert server.paths == ["/v1/chat/completions"]
    assert server.headers[0]["Authorization"] == "Bearer sk-1234"
    sent = server.requests[0]
    assert (sent["model"], sent["temperature"], sent["max_tokens"]) == ("small", 0.0, 9)
    assert sent["messages"] == MESSAGES
    assert sent["response_format"]["json_schema"]["schema"] == Label.model_json_schema()


@pytest.mark.parametrize(
    ("kind", "sent"), [("json_object", {"type": "json_object"}), ("text", None)]
)
def test_reply_format(kind: Any, sent: Any) -> None:
    with (
        serving(lambda n, body: Answer(completion('{"label": "Low"}'))) as server,
        Endpoint(config(server.url, reply_format=kind)) as endpoint,
    ):
        endpoint.ask(MESSAGES, Label)
    assert server.requests[0].get("response_format") == sent


PASSING = {
    "too many": Answer(b"slow down", 429),
    "broken server": Answer(b"oh", 500),
    "overloaded": Answer(b"", 503),
    "truncated": Answer(completion("x")[:20], announced=4000),
    "cut JSON": Answer(completion("x")[:20]),
}


@pytest.mark.parametrize("kind", PASSING)
def test_failures_that_pass_are_retried_with_growing_pauses(kind: str) -> None:
    waits = Waits()

    def answer(number: int, body: dict[str, Any]) -> Answer:
        return PASSING[kind] if number < 2 else Answer(completion("yes"))

    with (
        serving(answer) as server,
        Endpoint(config(server.url), sleep=waits) as endpoint,
    ):
        assert endpoint.chat(MESSAGES).text == "yes"
        assert (endpoint.spent.requests, endpoint.spent.retries) == (3, 2)
    assert len(server.requests) == 3
    assert 0.75 <= waits.seconds[0] <= 1.25
    assert 1.5 <= waits.seconds[1] <= 2.5


def test_retry_after_is_kept() -> None:
    waits = Waits()
    later = formatdate(time.time() + 30, usegmt=True)
    headers = [{"Retry-After": "7"}, {"Retry-After": later}, {"Retry-After": "9999"}, {}]

    def answer(number: int, body: dict[str, Any]) -> Answer:
        if number == 4:
            return Answer(completion("yes"))
        return Answer(b"", 429, headers[number])

    with serving(answer) as server, Endpoint(config(server.url), sleep=waits) as endpoint:
        endpoint.chat(MESSAGES)
    assert waits.seconds[0] == 7
    assert 25 < waits.seconds[1] <= 30
    assert waits.seconds[2] == 120  # no server may stop a run for hours
    assert 6 <= waits.seconds[3] <= 10


def test_slow_answers_time_out_and_drips_do_not_evade_it() -> None:
    go = threading.Event()

    def answer(number: int, body: dict[str, Any]) -> Answer:
        return Answer(completion("late"), before=lambda: go.wait(10) and None)

    with serving(answer) as server:
        with (
            Endpoint(config(server.url, timeout_s=0.2, retries=1), sleep=Waits()) as endpoint,
            pytest.raises(UnavailableError, match=r"after 2 attempts: ReadTimeout"),
        ):
            endpoint.chat(MESSAGES)
        go.set()
    # A server that sends a byte now and then never times out by itself: the clock decides.
    ticks = iter(range(1000))
    with (
        serving(lambda n, body: Answer(completion("x" * 200_000))) as server,
        Endpoint(
            config(server.url, timeout_s=0.5, retries=0),
            sleep=Waits(),
            clock=lambda: float(next(ticks)),
        ) as endpoint,
        pytest.raises(UnavailableError, match=r"took over 0.5 s"),
    ):
        endpoint.chat(MESSAGES)


def test_nobody_listens() -> None:
    with serving(lambda n, body: Answer()) as server:
        url = server.url
    with (
        Endpoint(config(url, retries=2), sleep=Waits()) as endpoint,
        pytest.raises(UnavailableError, match=r"3 attempts.*same command goes on"),
    ):
        endpoint.chat(MESSAGES)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(b"no", 401), "check the key that api_key_env names"),
        (Answer(b"what?", 404), "check base_url and model"),
        (Answer(b"bad format", 400), "set reply_format to text"),
        (Answer(b"", 302, {"Location": "http://127.0.0.1:1/"}), "set base_url to where it points"),
        (Answer(b'{"choices": []}'), "no chat completion"),
        (Answer(b"[1]"), "no chat completion"),
        (Answer(b'{"choices": [{"message": {"content": null}}]}'), "no chat completion"),
    ],
)
def test_refusals_are_not_retried(answer: Answer, said: str) -> None:
    with (
        serving(lambda n, body: answer) as server,
        Endpoint(config(server.url), sleep=Waits()) as endpoint,
        pytest.raises(RefusedError, match=said),
    ):
        endpoint.chat(MESSAGES)
    assert len(server.requests) == 1


def test_a_huge_reply_is_refused() -> None:
    with (
        serving(lambda n, body: Answer(b" " * ((8 << 20) + 1))) as server,
        Endpoint(config(server.url), sleep=Waits()) as endpoint,
        pytest.raises(RefusedError, match="over 8 MiB"),
    ):
        endpoint.chat(MESSAGES)


def test_a_reply_that_does_not_fit_is_asked_for_once_more() -> None:
    replies = ["It is High.", '```json\n{"label": "High"}\n```']
    with (
        serving(lambda n, body: Answer(completion(replies[n]))) as server,
        Endpoint(config(server.url)) as endpoint,
    ):
        assert endpoint.ask(MESSAGES, Label).label == "High"
        assert endpoint.spent.reasked == 1
    again = server.requests[1]["messages"]
    assert again[:2] == [*MESSAGES, {"role": "assistant", "content": "It is High."}]
    assert "Invalid JSON" in again[2]["content"]


def test_two_replies_that_do_not_fit_are_an_error_of_that_document() -> None:
    with (
        serving(lambda n, body: Answer(completion('{"label": "Middling"', "length"))) as server,
        Endpoint(config(server.url)) as endpoint,
        pytest.raises(ReplyError, match=r"twice.*raise max_tokens"),
    ):
        endpoint.ask(MESSAGES, Label)
    assert len(server.requests) == 2


def test_replies_are_kept_on_disk_and_a_cut_line_costs_one(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    with serving(lambda n, body: Answer(completion(f"reply {n}"))) as server:
        with Endpoint(config(server.url), path) as endpoint:
            first = [endpoint.chat([{"role": "user", "content": str(i)}]).text for i in range(3)]
        path.write_bytes(path.read_bytes()[:-9])  # a kill in the middle of the last line
        with Endpoint(config(server.url), path) as endpoint:
            second = [endpoint.chat([{"role": "user", "content": str(i)}]) for i in range(3)]
            assert (endpoint.spent.cached, endpoint.spent.requests) == (2, 1)
        with Endpoint(config(server.url), path) as endpoint:
            third = [endpoint.chat([{"role": "user", "content": str(i)}]).text for i in range(3)]
            assert endpoint.spent.requests == 0
            # Another temperature, seed or limit is another request.
            endpoint.chat([{"role": "user", "content": "0"}], temperature=0.5)
            endpoint.chat([{"role": "user", "content": "0"}], temperature=0.5, seed=1)
            assert endpoint.spent.requests == 2
    assert first == ["reply 0", "reply 1", "reply 2"]
    assert [reply.text for reply in second] == ["reply 0", "reply 1", "reply 3"]
    assert [reply.cached for reply in second] == [True, True, False]
    assert third == ["reply 0", "reply 1", "reply 3"]


def test_budgets_end_before_a_request(tmp_path: Path) -> None:
    with serving(lambda n, body: Answer(completion("a"))) as server:
        with Endpoint(config(server.url, max_requests=2)) as endpoint:
            for i in range(2):
                endpoint.chat([{"role": "user", "content": str(i)}])
            with pytest.raises(BudgetError, match=r"max_requests: all 2 are used"):
                endpoint.chat([{"role": "user", "content": "2"}])
        assert len(server.requests) == 2
        with Endpoint(config(server.url, max_total_tokens=15)) as endpoint:
            for i in range(2):  # 10 tokens each: the second begins below the bound
                endpoint.chat([{"role": "user", "content": str(i)}])
            with pytest.raises(BudgetError, match=r"max_total_tokens: 20 of 15"):
                endpoint.chat([{"role": "user", "content": "2"}])
        assert len(server.requests) == 4


def test_retries_count_against_the_budget() -> None:
    with (
        serving(lambda n, body: Answer(b"", 503)) as server,
        Endpoint(config(server.url, max_requests=3, retries=9), sleep=Waits()) as endpoint,
        pytest.raises(BudgetError),
    ):
        endpoint.chat(MESSAGES)
    assert len(server.requests) == 3


def test_rate_spaces_the_starts_of_requests_over_threads() -> None:
    waits = Waits()
    with (
        serving(lambda n, body: Answer(completion("a"))) as server,
        Endpoint(
            config(server.url, requests_per_minute=30.0), sleep=waits, clock=lambda: 100.0
        ) as endpoint,
        ThreadPoolExecutor(4) as pool,
    ):
        list(pool.map(lambda i: endpoint.chat([{"role": "user", "content": str(i)}]), range(6)))
    assert sorted(waits.seconds) == [2.0, 4.0, 6.0, 8.0, 10.0]


def test_stop_ends_a_long_pause() -> None:
    with (
        serving(lambda n, body: Answer(b"", 429, {"Retry-After": "100"})) as server,
        Endpoint(config(server.url)) as endpoint,
        ThreadPoolExecutor(1) as pool,
    ):
        waiting = pool.submit(endpoint.chat, MESSAGES)
        while not server.requests:
            time.sleep(0.01)
        endpoint.stop()
        with pytest.raises(UnavailableError, match="stopped before it answered"):
            waiting.result(timeout=5)
    assert len(server.requests) == 1


def test_the_key_appears_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-very-secret"
    monkeypatch.setenv("MY_KEY", key)
    echo = Answer(f"no such key: Bearer {key}".encode(), 403)
    with serving(lambda n, body: echo) as server:
        settings = config(server.url, api_key_env="MY_KEY")
        with (
            Endpoint(settings, tmp_path / "replies.jsonl") as endpoint,
            pytest.raises(RefusedError) as caught,
        ):
            endpoint.chat(MESSAGES)
    assert "***" in str(caught.value)
    assert key not in str(caught.value)
    assert key not in json.dumps(settings.as_json())
    assert key not in (tmp_path / "replies.jsonl").read_text()


def test_a_missing_key_is_said_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"MY_KEY is not set; export it"):
        Endpoint(config("http://127.0.0.1:9/v1", api_key_env="MY_KEY"))
    monkeypatch.setenv("MY_KEY", "a\nb")
    with pytest.raises(ConfigError, match="odd characters"):
        Endpoint(config("http://127.0.0.1:9/v1", api_key_env="MY_KEY"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:8000", "is no address"),
        ("ftp://host/v1", "is no address"),
        ("http://", "is no address"),
        ("http://host:99999/v1", "is no address"),
        ("https://me:secret@host/v1", "set api_key_env instead"),
        ("https://host/v1?key=1", "query"),
    ],
)
def test_addresses_that_cannot_be(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        config(url)
    assert "secret" not in str(caught.value.errors(include_input=False))


def test_a_proxy_of_the_environment_is_not_asked_about_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with (
        serving(lambda n, body: Answer(completion("a"))) as server,
        Endpoint(config(server.url, retries=0)) as endpoint,
    ):
        assert endpoint.chat(MESSAGES).text == "a"


@pytest.mark.parametrize(
    "text", ['{"label": "High"}', ' ```\n{"label":"High"}\n``` ', '```json\n{"label": "High"}```']
)
def test_replies_with_and_without_fences(text: str) -> None:
    assert parse_reply(text, Label).label == "High"


@pytest.mark.parametrize("text", ["", "High", '{"label": "high"}', '{"label": 1}', "[" * 100_000])
def test_replies_that_do_not_fit(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_reply(text, Label)
