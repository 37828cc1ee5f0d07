"""Runs `easyml` and turns what goes wrong into a line on stderr and an exit code.

0    done
1    refused or failed; the line says why and what to do
2    the command line itself is wrong
130  stopped by Ctrl-C; what runs on the server goes on
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts.exceptions import CycloptsError

from easyml_client.cli.app import app
from easyml_client.cli.output import UsageError, clean, complain

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs one command; the exit code."""
    # gRPC logs a server's goodbye and the like on stderr; what matters to a person comes as an error.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        result = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        return _misused(error)
    except UsageError as error:
        complain(str(error))
        return WRONG_USAGE
    except KeyboardInterrupt as stopped:
        complain(str(stopped) or "Stopped.")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output (head, less) has seen enough; Python would complain once more while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        return _failed(error)
    return result if isinstance(result, int) else DONE


def _misused(error: CycloptsError) -> int:
    command = " ".join(("easyml", *(error.command_chain or ())))
    complain(f"{str(error).strip()} See `{command} --help`.")
    return WRONG_USAGE


def _failed(error: Exception) -> int:
    from easyml_client.errors import EasyMLError

    if not isinstance(error, EasyMLError):
        complain(f"{type(error).__name__}: {error}")
        return FAILED
    message = error.message
    for field in error.fields:
        # Where a field stands in a request says nothing to who typed an option.
        message = message.replace(f"{field}:", f"{_option(field)}:", 1)
    complain(message)
    for field, problem in error.fields.items():
        if problem not in message:
            complain(f"  {_option(field)}: {problem}")
    for line in _ways_out(error):
        complain(f"  {line}")
    return FAILED


def _option(field: str) -> str:
    return field.rpartition(".")[2]


def _ways_out(error: Exception) -> list[str]:
    from easyml_client.errors import InternalError, NotSignedIn

    lines = []
    if isinstance(error, NotSignedIn) and error.reason != "WRONG_CREDENTIALS":
        lines.append("Sign in with `easyml login`, or set EASYML_TOKEN; `easyml doctor` shows what is used now.")
    if getattr(error, "reason", "") == "UNKNOWN_COLUMN" and "The model" in str(error):
        lines.append("If the model need not know it, add --ignore-extra.")
    retry_after = getattr(error, "retry_after", None)
    if retry_after:
        lines.append(f"Try again in {retry_after:g} s.")
    if isinstance(error, InternalError) and error.call_id and error.call_id not in error.message:
        lines.append(f"Report it with the call id {clean(error.call_id)}.")
    return lines


if __name__ == "__main__":
    main()
