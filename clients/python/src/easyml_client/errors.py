"""What can go wrong, by meaning; the same names as on the server.

    EasyMLError
    ├── NotFound           it is not there, or it is somebody else's
    ├── AlreadyExists      the name or request_id is taken
    ├── InvalidInput       the request is wrong; `fields` says where
    ├── NotSignedIn        no token, or one that is not accepted any more
    ├── NotAllowed         signed in, but may not
    ├── WrongState         not in this state
    ├── Stale              somebody else was faster
    ├── LimitReached       something is used up; `retry_after` if waiting helps
    ├── Unavailable        the server, or a part of it, is missing just now
    ├── DeadlineExceeded   the call ran out of time; it may have happened
    ├── InternalError      a defect; report it with `call_id`
    ├── TransferCorrupted  a file arrived with other bytes than the server sent
    ├── TrainingFailed     the training ended without a model; `failure` says why
    └── TrainingCancelled  the training was stopped on request

`str(error)` is one sentence that says what to do; `reason` is for programs (`ErrorReason` in the contract).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from easyml_client.resources.deployments import Deployment
    from easyml_client.resources.experiments import Failure

DOMAIN = "easyml"
UNREACHABLE = "UNREACHABLE"
"""The reason of a connection that is not there; `metadata["cause"]` is what gRPC says of it."""
_STATUS_DETAILS_KEY = "grpc-status-details-bin"


class EasyMLError(Exception):
    """Base of all errors of this package; `call_id` finds the call in the server's log."""

    default_reason = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] = MappingProxyType({}),
        fields: Mapping[str, str] = MappingProxyType({}),
        call_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        """`fields` maps the path of a request field to what is wrong with it; `retry_after` is in seconds."""
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata)
        self.fields = dict(fields)
        self.call_id = call_id
        self.retry_after = retry_after


class NotFound(EasyMLError):
    """It is not there, or it is somebody else's: the two look alike."""

    default_reason = "NOT_FOUND"


class AlreadyExists(EasyMLError):
    """A name or request_id is taken."""

    default_reason = "NAME_TAKEN"


class InvalidInput(EasyMLError):
    """The request is wrong; `fields` names the parts at fault."""

    default_reason = "INVALID_FIELD"

    @classmethod
    def at(cls, field: str, message: str) -> InvalidInput:
        """One field is at fault; `message` is a sentence that says the way out."""
        return cls(message, fields={field: message})


class NotSignedIn(EasyMLError):
    """No token, or one that is not accepted any more."""

    default_reason = "NOT_SIGNED_IN"


class NotAllowed(EasyMLError):
    """Signed in, but may not."""

    default_reason = "ROLE_TOO_LOW"


class WrongState(EasyMLError):
    """Not in this state."""

    default_reason = "WRONG_STATE"


class Stale(EasyMLError):
    """Somebody else was faster: read again, then repeat the change."""

    default_reason = "STALE_ETAG"


class LimitReached(EasyMLError):
    """Something is used up."""

    default_reason = "LIMIT_REACHED"


class Unavailable(EasyMLError):
    """The server, or a part of it, is missing just now."""

    default_reason = "PART_UNAVAILABLE"


class DeadlineExceeded(EasyMLError):
    """The call ran out of time; it may have happened."""

    default_reason = "DEADLINE_EXCEEDED"


class InternalError(EasyMLError):
    """A defect of the server."""

    default_reason = "INTERNAL"


class TransferCorrupted(EasyMLError):
    """A file arrived with other bytes than the server sent; nothing was kept."""

    default_reason = "CHECKSUM_MISMATCH"


class TrainingFailed(EasyMLError):
    """A training ended without a model."""

    default_reason = "TRAINING_FAILED"

    def __init__(self, experiment_id: str, failure: Failure | None) -> None:
        self.experiment_id = experiment_id
        self.failure = failure
        because = failure.message if failure else "The server gave no cause."
        super().__init__(
            f"Training {experiment_id} failed: {because}", reason=(failure.reason or "").upper() if failure else ""
        )


class DeploymentFailed(EasyMLError):
    """A revision does not become ready; it is still tried, and the one before answers meanwhile, if there is one."""

    default_reason = "DEPLOYMENT_FAILED"

    def __init__(self, deployment: Deployment, because: str) -> None:
        self.deployment = deployment
        super().__init__(f"Revision {deployment.latest_revision} of {deployment.name!r} is not ready: {because}")


class TrainingCancelled(EasyMLError):
    """A training was stopped on request, so there is no result to wait for."""

    default_reason = "CANCELLED"

    def __init__(self, experiment_id: str) -> None:
        self.experiment_id = experiment_id
        super().__init__(f"Training {experiment_id} was cancelled, so it has no model.")


_BY_CODE: dict[grpc.StatusCode, type[EasyMLError]] = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.UNAUTHENTICATED: NotSignedIn,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowed,
    grpc.StatusCode.FAILED_PRECONDITION: WrongState,
    grpc.StatusCode.ABORTED: Stale,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitReached,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.INTERNAL: InternalError,
}


def from_rpc(error: grpc.RpcError, *, target: str, method: str, call_id: str) -> EasyMLError:
    """The error of a call as one of this tree; `call_id` is used if the server did not name it."""
    code = error.code() or grpc.StatusCode.UNKNOWN
    details = _details(error)
    info = details.get(error_details_pb2.ErrorInfo.DESCRIPTOR.full_name)
    if not isinstance(info, error_details_pb2.ErrorInfo) or info.domain != DOMAIN:
        return _without_details(code, error.details() or "", target=target, method=method, call_id=call_id)
    kind = _BY_CODE.get(code, EasyMLError)
    return kind(
        error.details() or kind.__doc__ or "",
        reason=info.reason,
        metadata=dict(info.metadata),
        fields=_fields(details),
        call_id=_call_id(details) or call_id,
        retry_after=_retry_after(details),
    )


def _details(error: grpc.RpcError) -> dict[str, Message]:
    """The details of google.rpc.Status by message name; none where they cannot be read."""
    known = (
        error_details_pb2.ErrorInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.RequestInfo,
        error_details_pb2.RetryInfo,
    )
    status = _status(error)
    found: dict[str, Message] = {}
    for packed in status.details if status else ():
        for kind in known:
            message = kind()
            if packed.Unpack(message):
                found[kind.DESCRIPTOR.full_name] = message
    return found


def _status(error: grpc.RpcError) -> status_pb2.Status | None:
    trailers: Any = error.trailing_metadata() or ()
    for key, value in trailers:
        if key == _STATUS_DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def _fields(details: Mapping[str, Message]) -> dict[str, str]:
    bad = details.get(error_details_pb2.BadRequest.DESCRIPTOR.full_name)
    if not isinstance(bad, error_details_pb2.BadRequest):
        return {}
    return {violation.field: violation.description for violation in bad.field_violations}


def _call_id(details: Mapping[str, Message]) -> str:
    request = details.get(error_details_pb2.RequestInfo.DESCRIPTOR.full_name)
    return str(request.request_id) if isinstance(request, error_details_pb2.RequestInfo) else ""


def _retry_after(details: Mapping[str, Message]) -> float | None:
    retry = details.get(error_details_pb2.RetryInfo.DESCRIPTOR.full_name)
    if not isinstance(retry, error_details_pb2.RetryInfo):
        return None
    return float(retry.retry_delay.ToTimedelta().total_seconds())


def _without_details(  # noqa: PLR0911 - one return per meaning
    code: grpc.StatusCode, text: str, *, target: str, method: str, call_id: str
) -> EasyMLError:
    """What gRPC itself, or something between us and the server, says."""
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return _unreachable(target, text, call_id)
        case grpc.StatusCode.INTERNAL if "RST_STREAM" in text:
            # A connection that is cut in the middle of an answer shows as INTERNAL, not as UNAVAILABLE.
            return _unreachable(target, text, call_id)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            message = (
                f"{target} did not answer {method} in time. It may have happened all the same: look before you repeat."
            )
            return DeadlineExceeded(message, call_id=call_id)
        case grpc.StatusCode.UNIMPLEMENTED:
            message = f"{target} does not know {method}. Compare the versions of client and server (`easyml doctor`)."
            return EasyMLError(message, reason="UNKNOWN_METHOD", call_id=call_id)
        case grpc.StatusCode.CANCELLED:
            return EasyMLError(f"{method} was cancelled.", reason="CANCELLED", call_id=call_id)
        case grpc.StatusCode.UNAUTHENTICATED:
            return NotSignedIn(text or "Sign in first, with `easyml login`.", call_id=call_id)
    return _BY_CODE.get(code, EasyMLError)(f"{method} failed: {text or code.name}", reason=code.name, call_id=call_id)


def _unreachable(target: str, text: str, call_id: str) -> Unavailable:
    cause = "the connection was refused" if "refused" in text.lower() else text.rstrip(".") or "no connection"
    message = f"EasyML at {target} cannot be reached ({cause}). Check the address, and that the server runs there."
    return Unavailable(message, reason=UNREACHABLE, metadata={"cause": text}, call_id=call_id)
