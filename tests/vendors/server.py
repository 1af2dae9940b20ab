"""A local server that answers as a vendor does, and fails as one does: what the fault tests and benches talk to."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit


@dataclass
class Reply:
    body: bytes | str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    silent: float = 0.0  # seconds before anything is said
    cut: int | None = None  # so many bytes of the body, then the connection is closed


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, str]
    body: str
    headers: Mapping[str, str]
    at: float

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body, keep_blank_values=True))


class VendorServer:
    """Override ``answer``. ``fault``: a function that may answer in its place (None: it does not); ``latency``:
    seconds, from and to; ``asked``: everything that came in."""

    def __init__(self, latency: tuple[float, float] = (0.0, 0.0), seed: int = 1):
        self.asked: list[Asked] = []
        self.fault: Callable[[Asked], Reply | None] | None = None
        self.latency, self._random = latency, random.Random(seed)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._handle(self)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that gave up is part of the tests

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, asked: Asked) -> Reply:
        raise NotImplementedError

    def count(self, part: str) -> int:
        return sum(part in asked.path or part in asked.body for asked in self.asked)

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        length = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(length).decode() if length else ""
        asked = Asked(
            handler.command, parts.path, dict(parse_qsl(parts.query)), body, dict(handler.headers), time.monotonic()
        )
        self.asked.append(asked)
        if self.latency[1]:
            time.sleep(self._random.uniform(*self.latency))
        reply = (self.fault(asked) if self.fault else None) or self.answer(asked)
        time.sleep(reply.silent)
        data = reply.body.encode() if isinstance(reply.body, str) else reply.body
        handler.send_response_only(reply.status)
        headers = {"Content-Type": "application/json", "Date": handler.date_time_string(), **reply.headers}
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data if reply.cut is None else data[: reply.cut])
        if reply.cut is not None:
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True


def first(times: int, reply: Reply, part: str = "") -> Callable[[Asked], Reply | None]:
    """The fault that happens to the first so many requests whose path or body holds ``part``."""
    left = [times]

    def fault(asked: Asked) -> Reply | None:
        if left[0] > 0 and (part in asked.path or part in asked.body):
            left[0] -= 1
            return reply
        return None

    return fault
