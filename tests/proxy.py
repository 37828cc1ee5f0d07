"""A TCP proxy in front of a server, through which the connection can be taken away and given back."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

CHUNK = 64 * 1024


class Proxy:
    """Listens on a port of its own. `down` refuses and resets, `stall` keeps connections and passes nothing on."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._passing = threading.Event()
        self.holding = threading.Event()
        self._lock = threading.Lock()
        self.port = 0
        self.up()

    def up(self) -> None:
        """Pass everything on."""
        self._passing.set()
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self.port = self._listener.getsockname()[1]
            self._run(self._accept, self._listener)

    def down(self) -> None:
        """Nobody answers at the address."""
        listener, self._listener = self._listener, None
        if listener is not None:
            # Wakes who waits in accept, which closing alone does not.
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            connections, self._open = self._open, set()
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._passing.set()

    def stall(self) -> None:
        """Connections stay, and nothing comes through; `holding` is set once something came that would have."""
        self.holding.clear()
        self._passing.clear()

    def close(self) -> None:
        """End it."""
        self.down()
        for thread in self._threads:
            thread.join()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            with self._lock:
                self._open |= {near, far}
            self._run(self._pass, near, far)
            self._run(self._pass, far, near)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(CHUNK):
                if not self._passing.is_set():
                    self.holding.set()
                self._passing.wait()
                target.sendall(content)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _run(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]  # a method of ours
        self._threads.append(thread)
        thread.start()


@contextmanager
def proxy(host: str, port: int) -> Iterator[Proxy]:
    """A proxy for a while."""
    made = Proxy((host, port))
    try:
        yield made
    finally:
        made.close()
