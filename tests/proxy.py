"""A TCP proxy in front of a server, through which the connection can be taken away and given back."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CHUNK = 64 * 1024
Filter = Callable[[bytes], bool]
"""Whether bytes are passed on; where they are not, the connection ends."""


class Proxy:
    """Listens on a port of its own.

    `down` refuses and resets, `cut` resets what is open, `stall` keeps connections and passes nothing on, `slow` passes
    everything on late.
    """

    def __init__(self, target: tuple[str, int] | Path) -> None:
        self._target = target
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._passing = threading.Event()
        self._delay = 0.0
        self.holding = threading.Event()
        self._lock = threading.Lock()
        self.port = 0
        self.up()

    def up(self) -> None:
        """Pass everything on, at once."""
        self._delay = 0.0
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
        self.cut()
        self._passing.set()

    def cut(self) -> None:
        """What is open is reset; who asks again is answered."""
        with self._lock:
            connections, self._open = self._open, set()
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def slow(self, seconds: float) -> None:
        """Each piece comes so much later, until `up`."""
        self._delay = seconds

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
                far = connected(self._target)
            except OSError:
                near.close()
                continue
            with self._lock:
                self._open |= {near, far}
            there, back = self.filters()
            self._run(self._pass, near, far, there)
            self._run(self._pass, far, near, back)

    def filters(self) -> tuple[Filter, Filter]:
        """What looks at all that goes to the target, and at all that comes back, on one connection."""
        return passed_on, passed_on

    def _pass(self, source: socket.socket, target: socket.socket, let_through: Filter) -> None:
        with suppress(OSError):
            while content := source.recv(CHUNK):
                if not let_through(content):
                    break
                if not self._passing.is_set():
                    self.holding.set()
                self._passing.wait()
                time.sleep(self._delay)
                target.sendall(content)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _run(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]  # a method of ours
        self._threads.append(thread)
        thread.start()


class CommitProxy(Proxy):
    """In front of PostgreSQL: takes the connection away at the COMMIT of one transaction, known by words in it."""

    def __init__(self, target: tuple[str, int] | Path) -> None:
        self._words: bytes | None = None
        self._stored = False
        self.commit_cut = threading.Event()
        super().__init__(target)

    def cut_commit_of(self, words: str, *, stored: bool) -> None:
        """`stored`: it is done and the answer is lost; else it never arrives."""
        self.commit_cut.clear()
        self._stored = stored
        self._words = words.encode()

    def filters(self) -> tuple[Filter, Filter]:
        """One transaction after the other."""
        heard = answer_is_lost = False

        def there(content: bytes) -> bool:
            nonlocal heard, answer_is_lost
            if self._words is None:
                return True
            heard = (heard or self._words in content) and b"ROLLBACK" not in content
            if not heard or b"COMMIT" not in content:
                return True
            self._words = None
            if self._stored:
                answer_is_lost = True
            else:
                self.commit_cut.set()
            return self._stored

        def back(_content: bytes) -> bool:
            if answer_is_lost:
                self.commit_cut.set()
            return not answer_is_lost

        return there, back


def passed_on(_content: bytes) -> bool:
    """Whatever it is."""
    return True


def connected(target: tuple[str, int] | Path) -> socket.socket:
    """A connection to an address, or to a socket of this host."""
    if not isinstance(target, Path):
        return socket.create_connection(target)
    found = socket.socket(socket.AF_UNIX)
    try:
        found.connect(str(target))
    except OSError:
        found.close()
        raise
    return found


@contextmanager
def proxy(host: str, port: int) -> Iterator[Proxy]:
    """A proxy for a while."""
    made = Proxy((host, port))
    try:
        yield made
    finally:
        made.close()
