"""A peer that speaks HTTP/2 frame by frame, to send what no gRPC library would."""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import h2.config
import h2.connection
import h2.events

SECONDS = 30.0
FRAME_HEADER = 9
GOAWAY = 7


class Peer:
    """One connection."""

    def __init__(self, address: str) -> None:
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), SECONDS)
        self.http = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8", validate_inbound_headers=False)
        )
        self._events: deque[h2.events.Event] = deque()
        self._buffer = b""
        self._farewell = False

    def greet(self) -> None:
        """The preface and settings of a client."""
        self.http.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Send what was prepared."""
        self.socket.sendall(self.http.data_to_send())

    def wait_for(self, *kinds: type[h2.events.Event]) -> h2.events.Event:
        """The next event of these kinds."""
        seen = []
        while True:
            while self._events:
                seen.append(self._events.popleft())
                if isinstance(seen[-1], kinds):
                    return seen[-1]
            content = self._received()
            assert content, f"the connection ended after {seen}"
            self._take(content)

    def _take(self, content: bytes) -> None:
        """Frame by frame: after GOAWAY the library wants no more, though a ping belongs to the farewell."""
        self._buffer += content
        while len(self._buffer) >= FRAME_HEADER:
            length = FRAME_HEADER + int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < length:
                break
            frame, self._buffer = self._buffer[:length], self._buffer[length:]
            if not self._farewell:
                self._events.extend(self.http.receive_data(frame))
            self._farewell = self._farewell or frame[3] == GOAWAY
        if not self._farewell:
            self.flush()

    def ended(self) -> bool:
        """Read until the other side ends the connection; TimeoutError when it does not."""
        while self._received():
            pass
        return True

    def call(self, path: str, body: bytes = b"", *, encoding: str = "", end: bool = True) -> int:
        """Begin a call; the number of its stream."""
        stream = self.http.get_next_available_stream_id()
        headers = [
            (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"),
            ("te", "trailers"), ("content-type", "application/grpc"),
        ]  # fmt: skip
        if encoding:
            headers.append(("grpc-encoding", encoding))
        self.http.send_headers(stream, headers)
        if body or end:
            self.http.send_data(stream, body, end_stream=end)
        self.flush()
        return stream

    def outcome(self) -> dict[str, str]:
        """The trailers of the call, or why its stream was ended."""
        while True:
            event = self.wait_for(h2.events.TrailersReceived, h2.events.ResponseReceived, h2.events.StreamReset)
            headers = dict(getattr(event, "headers", ()))
            if "grpc-status" in headers:
                return headers
            if isinstance(event, h2.events.StreamReset):
                return {"reset": str(event.error_code)}

    def _received(self) -> bytes:
        try:
            return self.socket.recv(65536)
        except ConnectionResetError:
            return b""


@contextmanager
def a_peer(address: str) -> Iterator[Peer]:
    """A peer for a while."""
    peer = Peer(address)
    try:
        yield peer
    finally:
        peer.socket.close()


def framed(content: bytes, *, compressed: bool = False, length: int | None = None) -> bytes:
    """A message of gRPC: whether it is compressed, its length, its bytes."""
    return struct.pack(">BI", compressed, len(content) if length is None else length) + content
