"""The process that workers are forked from, started as `python -m easyml_server.trainers.forkserver`.

It imports what workers need once and then only forks, so a fresh worker that can be killed costs milliseconds instead
of seconds. It is a program of its own rather than the one of `multiprocessing` because that one inherits the server's
environment (secrets stay readable in /proc), imports the server's main module in each worker, and unpickles. It is
started by exec, never forked from the server, whose gRPC threads would not survive that.

Requests come over a socket as JSON, with the worker's end of its channel beside them; answers are lines of JSON on what
was standard output. The socket is also the lifeline: when it closes, the server is gone and everything here ends.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from easyml_server.importing import much_imported
from easyml_server.processes.parents import die_with_parent
from easyml_server.trainers.channel import LENGTH, Channel, receive_exactly

_LIMITS = {
    "address_space_bytes": resource.RLIMIT_AS,
    "cpu_seconds": resource.RLIMIT_CPU,
    "file_bytes": resource.RLIMIT_FSIZE,
}


class ForkServer:
    """Forks workers on request, passes signals on to them, and tells when they end."""

    def __init__(self, control: socket.socket, replies: int) -> None:
        self._control = control
        self._replies = replies
        self._workers: dict[int, int] = {}  # process id -> the server's number for it
        self._wake, self._woken = socket.socketpair()

    def preload(self, modules: Sequence[str]) -> None:
        """Import what workers need; what cannot be imported is told and left to the workers."""
        failures = {}
        with much_imported():
            for name in modules:
                self._end_if_orphaned()
                try:
                    importlib.import_module(name)
                except Exception as error:
                    failures[name] = type(error).__name__
        self._reply(ready=True, failures=failures)

    def serve(self) -> None:
        """Work until the server closes its end."""
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while self._turn([key.fileobj for key, _ in selector.select()]):
                pass
        self._kill_all()

    def _turn(self, ready: Sequence[Any]) -> bool:
        if self._wake in ready:
            self._wake.recv(4096)
            self._reap()
        return self._control not in ready or self._answer()

    def _answer(self) -> bool:
        """Do what one request asks; False when the server has gone."""
        try:
            header, descriptors, _, _ = socket.recv_fds(self._control, LENGTH.size, 1)
        except ConnectionResetError:
            return False
        body = receive_exactly(self._control, LENGTH.unpack(header)[0]) if len(header) == LENGTH.size else None
        if body is None:
            return False
        request = json.loads(body)
        if request["do"] == "start":
            self._start(request, descriptors[0])
        else:
            self._signal(request["id"], request["signal"])
        return True

    def _start(self, request: dict[str, Any], descriptor: int) -> None:
        parent = os.getpid()
        process_id = os.fork()
        if process_id == 0:
            self._become_worker(request, descriptor, parent)
        os.close(descriptor)
        # Both sides make the group, whoever is first, so that a signal right now reaches it.
        _make_group(process_id)
        self._workers[process_id] = request["id"]
        self._reply(started=request["id"], pid=process_id)

    def _become_worker(self, request: dict[str, Any], descriptor: int, parent: int) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for inherited in (self._control, self._wake, self._woken):
                inherited.close()
            os.close(self._replies)
            _make_group(0)
            die_with_parent(parent)
            _set_up(request)
            _run(request["entry"], Channel(socket.socket(fileno=descriptor)))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def _signal(self, number: int, what: int) -> None:
        # Only here is it certain that a process id still means the worker: nobody else reaps them.
        for process_id, known in self._workers.items():
            if known == number:
                os.killpg(process_id, what)

    def _reap(self) -> None:
        while self._workers:
            process_id, status = os.waitpid(-1, os.WNOHANG)
            if process_id == 0:
                return
            self._reply(exited=self._workers.pop(process_id), code=os.waitstatus_to_exitcode(status))

    def _kill_all(self) -> None:
        for process_id in self._workers:
            os.killpg(process_id, signal.SIGKILL)

    def _end_if_orphaned(self) -> None:
        try:
            if not self._control.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                os._exit(0)
        except BlockingIOError:
            return

    def _reply(self, **answer: Any) -> None:
        os.write(self._replies, json.dumps(answer).encode() + b"\n")


def _make_group(process_id: int) -> None:
    try:
        os.setpgid(process_id, process_id)
    except (PermissionError, ProcessLookupError):
        return


def _set_up(request: dict[str, Any]) -> None:
    if request["quiet"]:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        os.close(silence)
    if request["folder"]:
        os.chdir(request["folder"])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name, limit in request["limits"].items():
        if limit is not None:
            resource.setrlimit(_LIMITS[name], (limit, limit))


def _run(entry: str, channel: Channel) -> None:
    module, _, function = entry.partition(":")
    getattr(importlib.import_module(module), function)(channel)


def main() -> None:
    """Serve the socket whose number is the first argument; the others are modules to import before."""
    die_with_parent(int(sys.argv[2]))
    # Ctrl-C reaches the whole terminal; the server decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not look like an answer
    server = ForkServer(socket.socket(fileno=int(sys.argv[1])), replies)
    server.preload(sys.argv[3:])
    server.serve()
    # At once: the workers that are dying would still signal to an interpreter that tidies up.
    os._exit(0)


if __name__ == "__main__":
    main()
