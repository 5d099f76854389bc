"""One client for models behind an OpenAI-compatible address (``POST <base_url>/chat/completions``).

It retries what may pass (429, 5xx, timeouts, broken connections) with growing pauses, keeps to a
rate and to a budget, checks replies against a schema and asks once more where one does not fit, and
keeps every reply on disk under the hash of its request, so that a killed job asks nothing twice.
The key comes from the environment and appears in no file, message or log.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from regrow.core.errors import ConfigError, RunError
from regrow.core.seed import derive
from regrow.io.endpoint_config import EndpointConfig
from regrow.io.hf import printable
from regrow.io.replies import Reply, ReplyCache, parse_reply

Message = Mapping[str, str]
S = TypeVar("S", bound=BaseModel)

MAX_REPLY_BYTES = 8 << 20
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 120.0
_RETRIED = {408, 409, 425, 429}  # and all from 500 on


class EndpointError(RunError):
    """The endpoint gave no usable answer."""


class UnavailableError(EndpointError):
    """It kept failing until the retries were used up."""


class RefusedError(EndpointError):
    """It refuses such requests: asking again would not help."""


class BudgetError(EndpointError):
    """The requests or tokens that the settings allow are used up."""


class ReplyError(EndpointError):
    """A reply that does not fit the schema, twice."""


@dataclass(slots=True)
class Spent:
    """What was asked so far by this process."""

    requests: int = 0
    retries: int = 0
    cached: int = 0
    reasked: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def as_json(self) -> dict[str, int]:
        """The same as a JSON-able object."""
        return asdict(self)


class Endpoint:
    """A chat model behind an address; may be used from several threads.

    A context manager that closes its connections.

    Args:
        config: its settings.
        cache: file of replies, one JSON object a line; made when it is missing. None keeps none.
        sleep: waits so many seconds; by default until :meth:`stop` at most.
        clock: seconds that only grow.

    Raises:
        ConfigError: the key is missing, or the library that sends requests.
    """

    def __init__(
        self,
        config: EndpointConfig,
        cache: Path | None = None,
        *,
        sleep: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            import httpx2
        except ImportError:
            raise ConfigError("an endpoint needs httpx2: pip install 'regrow[data]'") from None
        self.config = config
        self.spent = Spent()
        self._key = config.key()
        self._stopped = threading.Event()
        self._sleep, self._clock = sleep or self._stopped.wait, clock
        self._lock = threading.Lock()
        self._next_start = 0.0
        self._cache = ReplyCache(cache)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        # A redirect would carry the key elsewhere; a proxy is never needed on one machine.
        self._client = httpx2.Client(
            headers=headers,
            timeout=config.timeout_s,
            follow_redirects=False,
            trust_env=not config.local,
            limits=httpx2.Limits(max_connections=config.concurrency),
        )

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()
        self._cache.close()

    def stop(self) -> None:
        """Ask nothing more: whoever waits for another attempt gives up now."""
        self._stopped.set()

    def ask(
        self,
        messages: Sequence[Message],
        schema: type[S],
        *,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> S:
        """The object that the model writes in answer.

        Args:
            messages: ``role`` and ``content`` of each.
            schema: of the object; the reply is its JSON, perhaps inside a fence.
            temperature: 0 for the likeliest reply.
            seed: of the draw above temperature 0.

        Raises:
            ReplyError: two replies in a row that do not fit; the second after being told why.
            EndpointError: as :meth:`chat`.
        """
        reply = self.chat(messages, temperature=temperature, schema=schema, seed=seed)
        try:
            return parse_reply(reply.text, schema)
        except ValueError as error:
            problem = str(error)
        with self._lock:
            self.spent.reasked += 1
        again = [
            *messages,
            {"role": "assistant", "content": reply.text},
            {
                "role": "user",
                "content": f"That does not fit: {problem}. Reply with the JSON object alone.",
            },
        ]
        reply = self.chat(again, temperature=temperature, schema=schema, seed=seed)
        try:
            return parse_reply(reply.text, schema)
        except ValueError as error:
            short = "; it was cut off: raise max_tokens" if reply.finish == "length" else ""
            raise ReplyError(
                f"{self.config.model} at {self.config.base_url} gave no reply that fits, twice "
                f"({error}{short})"
            ) from None

    def chat(
        self,
        messages: Sequence[Message],
        *,
        temperature: float = 0.0,
        schema: type[BaseModel] | None = None,
        seed: int | None = None,
    ) -> Reply:
        """What the model writes in answer, from disk where it was asked before.

        Args:
            messages: ``role`` and ``content`` of each.
            temperature: 0 for the likeliest reply.
            schema: that the reply is to follow, where the server can be told.
            seed: of the draw above temperature 0; another seed is another request.

        Raises:
            UnavailableError: failures that may pass, more often than ``retries``.
            RefusedError: 4xx, a redirect, or a body that is no chat completion.
            BudgetError: the budget is used up.
        """
        body: dict[str, Any] = {
            "model": self.config.model,
            "messages": [dict(message) for message in messages],
            "temperature": temperature,
            "max_tokens": self.config.max_tokens,
        }
        if seed is not None:
            body["seed"] = seed
        if schema is not None and self.config.reply_format != "text":
            body["response_format"] = _response_format(self.config.reply_format, schema)
        key = _request_hash(self.config.base_url, body)
        kept = self._cache.get(key)
        if kept is not None:
            with self._lock:
                self.spent.cached += 1
            return kept
        reply = self._with_retries(body, key)
        with self._lock:
            self.spent.prompt_tokens += reply.prompt_tokens
            self.spent.completion_tokens += reply.completion_tokens
        self._cache.put(key, reply)
        return reply

    def _with_retries(self, body: dict[str, Any], key: str) -> Reply:
        problem = ""
        for attempt in range(self.config.retries + 1):
            self._reserve(attempt)
            if self._stopped.is_set():
                raise UnavailableError(f"{self.config.base_url}: stopped before it answered")
            try:
                return self._send(body)
            except _PassingError as error:
                problem = str(error)
                if attempt < self.config.retries:
                    self._sleep(error.pause or _pause(attempt, key))
        raise UnavailableError(
            f"{self.config.base_url} did not answer after {self.config.retries + 1} attempts: "
            f"{problem}; the same command goes on once it does"
        )

    def _reserve(self, attempt: int) -> None:
        """Count a request against the budget, and wait for its turn."""
        with self._lock:
            bound, spent = self.config.max_requests, self.spent
            if bound is not None and spent.requests >= bound:
                raise BudgetError(
                    f"endpoint.max_requests: all {bound} are used; replies so far are kept, and "
                    "the same command goes on with as many again"
                )
            tokens = spent.prompt_tokens + spent.completion_tokens
            if self.config.max_total_tokens is not None and tokens >= self.config.max_total_tokens:
                raise BudgetError(
                    f"endpoint.max_total_tokens: {tokens} of {self.config.max_total_tokens} are "
                    "used; replies so far are kept, and the same command goes on with as many again"
                )
            spent.requests += 1
            spent.retries += attempt > 0
            wait = 0.0
            if self.config.requests_per_minute is not None:
                now = self._clock()
                start = max(now, self._next_start)
                self._next_start = start + 60 / self.config.requests_per_minute
                wait = start - now
        if wait > 0:
            self._sleep(wait)

    def _send(self, body: dict[str, Any]) -> Reply:
        """One request.

        Raises:
            _PassingError: what a later attempt may not meet.
            RefusedError: what it would meet again.
        """
        import httpx2

        url = f"{self.config.base_url}/chat/completions"
        deadline = self._clock() + self.config.timeout_s
        try:
            with self._client.stream("POST", url, json=body) as response:
                raw = self._read(response, deadline)
        except (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError) as error:
            raise _PassingError(self._clean(f"{type(error).__name__} {error}".strip())) from None
        except httpx2.HTTPError as error:
            raise RefusedError(f"{url}: {self._clean(f'{type(error).__name__} {error}')}") from None
        status = response.status_code
        if status in _RETRIED or status >= 500:
            pause = _retry_after(response.headers.get("retry-after"))
            raise _PassingError(f"status {status}: {self._excerpt(raw)}", pause)
        if status != 200:
            raise RefusedError(f"{url}: status {status}: {self._excerpt(raw)}{_advice(status)}")
        return self._parsed(raw, url)

    def _read(self, response: Any, deadline: float) -> bytes:
        """The body, within the time and the size that a reply may take."""
        raw = bytearray()
        for chunk in response.iter_bytes():
            raw += chunk
            if len(raw) > MAX_REPLY_BYTES:
                raise RefusedError(
                    f"{self.config.base_url}: a reply of over {MAX_REPLY_BYTES >> 20} MiB"
                )
            if self._clock() > deadline:
                raise _PassingError(f"a reply that took over {self.config.timeout_s:g} s")
        return bytes(raw)

    def _parsed(self, raw: bytes, url: str) -> Reply:
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError):
            # A proxy or server that died within its answer; the next one may be whole.
            raise _PassingError(f"a body that is not JSON: {self._excerpt(raw)}") from None
        try:
            choice = value["choices"][0]
            text = choice["message"]["content"]
            usage = value.get("usage") or {}
            if not isinstance(text, str):
                raise TypeError("content is no text")
            return Reply(
                text,
                _count(usage.get("prompt_tokens")),
                _count(usage.get("completion_tokens")),
                str(choice.get("finish_reason")),
            )
        except (KeyError, IndexError, TypeError, AttributeError):
            raise RefusedError(
                f"{url}: a reply that is no chat completion: {self._excerpt(raw)}"
            ) from None

    def _excerpt(self, raw: bytes) -> str:
        return self._clean(" ".join(raw[:2000].decode("utf-8", "replace").split()))

    def _clean(self, text: str) -> str:
        """A server's words, short and without the key, should it repeat it."""
        if self._key:
            text = text.replace(self._key, "***")
        return printable(text) or "nothing"


class _PassingError(Exception):
    """A failure that a later attempt may not meet.

    Args:
        message: what happened.
        pause: seconds that the server asks to wait; None where it does not say.
    """

    def __init__(self, message: str, pause: float | None = None) -> None:
        super().__init__(message)
        self.pause = pause


def _response_format(kind: str, schema: type[BaseModel]) -> dict[str, Any]:
    if kind == "json_object":
        return {"type": "json_object"}
    described = {"name": schema.__name__, "strict": True, "schema": schema.model_json_schema()}
    return {"type": "json_schema", "json_schema": described}


def _request_hash(base_url: str, body: Mapping[str, Any]) -> str:
    text = json.dumps([base_url, body], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _pause(attempt: int, key: str) -> float:
    """Seconds before the next attempt: twice as long each time, spread by half."""
    spread = 0.75 + derive(attempt, "pause", key) / 2**64
    return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * float(2**attempt)) * spread


def _retry_after(value: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, at most two minutes."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return min(max(seconds, 0.0), _LONGEST_PAUSE_S) if math.isfinite(seconds) else None


def _count(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0


def _advice(status: int) -> str:
    """What to do about a status, as the end of a sentence."""
    if status in (401, 403):
        return "; check the key that api_key_env names"
    if status == 404:
        return "; check base_url and model"
    if status in (400, 422):
        return "; the server may not know response_format: set reply_format to text"
    if 300 <= status < 400:
        return "; it points elsewhere: set base_url to where it points"
    return ""
