"""The worker's end of the line to the server: messages of bytes, each after its length.

Bytes only: what a worker sends is decoded as JSON by the server and never unpickled, so a worker that was taken over by
a hostile file cannot run code in the server.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from collections.abc import Callable

LENGTH = struct.Struct("!I")


class Channel:
    """Blocking and safe to send from several threads."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, message: bytes) -> None:
        """Send one message; waits while the server is busy with those before."""
        with self._lock:
            self._connection.sendall(LENGTH.pack(len(message)) + message)

    def receive(self) -> bytes | None:
        """The next message; None when the server has gone."""
        header = receive_exactly(self._connection, LENGTH.size)
        return None if header is None else receive_exactly(self._connection, LENGTH.unpack(header)[0])

    def watch(self, on_message: Callable[[bytes], None]) -> None:
        """Hand over messages in a thread from now on, and die when the server does.

        Linux also sends a signal when the parent dies; elsewhere this thread is what keeps workers from outliving it.
        """
        threading.Thread(target=self._watch, args=(on_message,), name="channel", daemon=True).start()

    def _watch(self, on_message: Callable[[bytes], None]) -> None:
        while (message := self.receive()) is not None:
            on_message(message)
        os.kill(os.getpid(), signal.SIGKILL)


def receive_exactly(connection: socket.socket, size: int) -> bytes | None:
    """So many bytes; None if the other side closed before."""
    parts = bytearray()
    while len(parts) < size:
        try:
            part = connection.recv(min(size - len(parts), 1 << 20))
        except ConnectionResetError:
            return None
        if not part:
            return None
        parts += part
    return bytes(parts)
