"""The process's side: reads one request a line, does it, answers one line.

It ends when its input closes, which is when the server stops or dies.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol, TextIO, TypeVar

from pydantic import TypeAdapter

from easyml_server.processes.answers import ANSWER, Answer

ERROR_CHARACTERS = 500


class Numbered(Protocol):
    """A request with the number its answer takes."""

    @property
    def id(self) -> int:
        """Counts the requests."""
        ...


class ToldError(Exception):
    """Its text is made for people: a clause that says what to do."""


Request = TypeVar("Request", bound=Numbered)


def answer_requests(requests: TypeAdapter[Request], do: Callable[[Request], dict[str, Any]]) -> None:
    """Serve requests from standard input until it closes; what `do` raises is the answer's error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries that print must not break the protocol.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin, lines), daemon=True).start()
    while True:
        request = requests.validate_json(lines.get())
        try:
            answer = Answer(request.id, do(request))
        except ToldError as error:
            answer = Answer(request.id, error=str(error)[:ERROR_CHARACTERS])
        except Exception as error:  # the server decides what becomes of it
            answer = Answer(request.id, error=f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS])
        answers.write(ANSWER.dump_json(answer).decode() + "\n")
        answers.flush()


def _read(source: TextIO, lines: queue.SimpleQueue[str]) -> None:
    for line in source:
        lines.put(line)
    # The server is gone: whatever is being done now will be done again by its successor.
    os._exit(0)
