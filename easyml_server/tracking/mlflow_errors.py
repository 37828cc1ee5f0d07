"""What an MLflow server's refusals mean, as clauses that say what to do about them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus

from mlflow.exceptions import MlflowException
from requests.exceptions import RequestException

from easyml_server.processes.answering import ToldError
from easyml_server.tracking.server import PASSWORD_VARIABLE, USERNAME_VARIABLE

MOST_CHARACTERS = 200


def told(error: MlflowException | RequestException, uri: str) -> ToldError:
    """The same in words; `uri` holds no password."""
    status = _status(error)
    if status is None:
        return ToldError(f"{uri} does not answer ({_cause(error)}); start the MLflow server, or see the network")
    if status == HTTPStatus.UNAUTHORIZED:
        return ToldError(
            f"{uri} does not take the credentials (401); set {USERNAME_VARIABLE} and {PASSWORD_VARIABLE}, or "
            "MLFLOW_TRACKING_TOKEN, for EasyML's server"
        )
    if status == HTTPStatus.FORBIDDEN:
        return ToldError(f"{uri} does not allow it (403); give the user of EasyML's server the right to write there")
    said = " ".join(str(error).split())[:MOST_CHARACTERS]
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ToldError(f"{uri} answers with an error of its own ({status}); see its log: {said}")
    return ToldError(f"{uri} refuses it ({status}): {said}")


def is_missing(error: MlflowException) -> bool:
    """Whether what was asked for is not there."""
    return error.error_code == "RESOURCE_DOES_NOT_EXIST"


def is_taken(error: MlflowException) -> bool:
    """Whether the name is somebody's already."""
    return error.error_code == "RESOURCE_ALREADY_EXISTS"


def _status(error: MlflowException | RequestException) -> int | None:
    """The status of HTTP; None where no answer came."""
    if isinstance(error, RequestException):
        return None if error.response is None else int(error.response.status_code)
    # Of an answer that is no JSON, and of one that may be repeated, the status stands in the text only.
    found = re.search(r"error code (\d{3}) !=|too many (\d{3}) error responses", error.message)
    if found is not None:
        return int(found[1] or found[2])
    if any(isinstance(each, RequestException) for each in _causes(error)):
        return None
    return int(error.get_http_status_code())  # type: ignore[no-untyped-call]


def _cause(error: BaseException) -> str:
    first = next(each for each in _causes(error) if isinstance(each, RequestException))
    return type(first).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
