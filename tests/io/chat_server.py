"""A chat endpoint on this machine that misbehaves as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def completion(text: str, finish: str = "stop") -> bytes:
    """The body of a good answer."""
    return json.dumps(
        {
            "choices": [
                {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
            ],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3},
        }
    ).encode()


@dataclass
class Answer:
    """What is sent back to one request."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    announced: int | None = None
    """Content-Length, where it is to be a lie."""
    before: Callable[[], None] = lambda: None
    """Done before anything is sent."""


@dataclass
class ChatServer:
    """Answers with what ``answer`` gives for (number of the request, its body)."""

    answer: Callable[[int, dict[str, Any]], Answer]
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@contextmanager
def serving(answer: Callable[[int, dict[str, Any]], Answer]) -> Iterator[ChatServer]:
    """A server for the time of a block."""
    server = ChatServer(answer)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(server.requests)
                server.requests.append(body)
                server.headers.append(dict(self.headers.items()))
                server.paths.append(self.path)
            sent = server.answer(number, body)
            try:
                sent.before()
                self.send_response(sent.status)
                for name, value in sent.headers.items():
                    self.send_header(name, value)
                size = len(sent.body) if sent.announced is None else sent.announced
                self.send_header("Content-Length", str(size))
                self.end_headers()
                self.wfile.write(sent.body)
                if sent.announced is not None:
                    self.close_connection = True
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
