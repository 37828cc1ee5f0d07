"""An HTTP proxy in front of an S3 server that refuses requests, as S3 does when it is asked too much (503 SlowDown)."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HEAD = b'<?xml version="1.0" encoding="UTF-8"?>'
REFUSALS = {
    503: HEAD + b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
    403: HEAD + b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>",
}


class Refusing:
    """Refuses `every` so-manieth request; none if that is 0."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.every = 0
        self.status = 503
        self.refused = 0
        self.port = 0
        self._asked = 0
        self._lock = threading.Lock()

    def refuses(self) -> bool:
        """Whether this request is refused."""
        with self._lock:
            self._asked += 1
            refused = bool(self.every) and self._asked % self.every == 0
            self.refused += refused
            return refused


@contextmanager
def refusing(target: int) -> Iterator[Refusing]:
    """A proxy in front of a port here."""
    found = Refusing(target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if found.refuses():
                self.give(found.status, {"Content-Type": "application/xml"}, REFUSALS[found.status])
                return
            connection = http.client.HTTPConnection("127.0.0.1", found.target, timeout=60)
            try:
                # The Host header is signed, so it goes on as it came.
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                self.give(answer.status, dict(answer.getheaders()), answer.read())
            finally:
                connection.close()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815

        def give(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            size = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
            self.send_header("Content-Length", size)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Tests tell what went wrong."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        found.port = server.server_address[1]
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        try:
            yield found
        finally:
            server.shutdown()
            serving.join()
