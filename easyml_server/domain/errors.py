"""What can go wrong, by meaning rather than by place.

    EasyMLError
    ├── NotFound          it is not there, or it is somebody else's
    ├── AlreadyExists     the name or request_id is taken
    ├── InvalidInput      the request is wrong; `violations` names the fields
    ├── NotSignedIn       nobody, or nobody any more
    ├── NotAllowed        signed in, but may not
    ├── WrongState        not in this state
    ├── Stale             somebody else was faster
    ├── LimitReached      something is used up; `retry_after` if waiting helps
    ├── OutOfTime         the caller's deadline passed while it waited
    └── Unavailable       a part is missing just now; `retry_after` says when to come back
        └── Collided      work at the same time was in the way; nothing was changed

Each carries a `Reason` of the contract and the values of its message as metadata. Transport turns meanings into status
codes in one table; what is not in this tree becomes INTERNAL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Self


class Reason(StrEnum):
    """Machine-readable causes; the same names as `ErrorReason` in the contract, where each is explained."""

    INTERNAL = "INTERNAL"
    INVALID_FIELD = "INVALID_FIELD"
    MALFORMED_MESSAGE = "MALFORMED_MESSAGE"
    TOO_LARGE = "TOO_LARGE"
    INVALID_PAGE_TOKEN = "INVALID_PAGE_TOKEN"
    INVALID_UPDATE_MASK = "INVALID_UPDATE_MASK"
    NOT_SIGNED_IN = "NOT_SIGNED_IN"
    INVALID_TOKEN = "INVALID_TOKEN"
    TOKEN_EXPIRED = "TOKEN_EXPIRED"
    WRONG_CREDENTIALS = "WRONG_CREDENTIALS"
    TOKEN_REUSED = "TOKEN_REUSED"
    ROLE_TOO_LOW = "ROLE_TOO_LOW"
    OUT_OF_SCOPE = "OUT_OF_SCOPE"
    REGISTRATION_CLOSED = "REGISTRATION_CLOSED"
    NOT_FOUND = "NOT_FOUND"
    NAME_TAKEN = "NAME_TAKEN"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    STALE_ETAG = "STALE_ETAG"
    WRONG_STATE = "WRONG_STATE"
    IN_USE = "IN_USE"
    LAST_OWNER = "LAST_OWNER"
    CHECKSUM_MISMATCH = "CHECKSUM_MISMATCH"
    OFFSET_MISMATCH = "OFFSET_MISMATCH"
    UNREADABLE_FILE = "UNREADABLE_FILE"
    UNKNOWN_COLUMN = "UNKNOWN_COLUMN"
    MISSING_COLUMN = "MISSING_COLUMN"
    WRONG_COLUMN_TYPE = "WRONG_COLUMN_TYPE"
    UNSUITABLE_TARGET = "UNSUITABLE_TARGET"
    UNKNOWN_ALGORITHM = "UNKNOWN_ALGORITHM"
    INVALID_HYPERPARAMETER = "INVALID_HYPERPARAMETER"
    OVERLOADED = "OVERLOADED"
    LIMIT_REACHED = "LIMIT_REACHED"
    TOO_MANY_ATTEMPTS = "TOO_MANY_ATTEMPTS"
    DISK_FULL = "DISK_FULL"
    SERVER_DRAINING = "SERVER_DRAINING"
    PART_UNAVAILABLE = "PART_UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    FORMAT_UNAVAILABLE = "FORMAT_UNAVAILABLE"
    UNKNOWN_METHOD = "UNKNOWN_METHOD"
    CANCELLED = "CANCELLED"
    NO_ELIGIBLE_MODEL = "NO_ELIGIBLE_MODEL"


@dataclass(frozen=True, slots=True)
class Violation:
    """One field at fault: its path in the request, and a sentence; of a WrongState, what is in the way instead."""

    field: str
    description: str


class EasyMLError(Exception):
    """Base of all errors that callers are told about."""

    default_reason = Reason.INTERNAL

    def __init__(
        self,
        message: str,
        reason: Reason | None = None,
        *,
        metadata: Mapping[str, str] = MappingProxyType({}),
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
        resource: tuple[str, str] | None = None,
    ) -> None:
        """`retry_after` is in seconds; `resource` is (type, id or name)."""
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata)
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.resource = resource


class NotFound(EasyMLError):
    """It is not there, or it is somebody else's: the two look alike."""

    default_reason = Reason.NOT_FOUND

    @classmethod
    def of(cls, kind: str, identity: object) -> Self:
        """The one sentence for a missing resource, such as of("project", id)."""
        return cls(f"There is no {kind} {identity} that you can see.", resource=(kind, str(identity)))


class AlreadyExists(EasyMLError):
    """A name or request_id is taken."""

    default_reason = Reason.NAME_TAKEN

    @classmethod
    def of(cls, kind: str, name: str) -> Self:
        """The one sentence for a taken name."""
        return cls(
            f"{kind.capitalize()} {name!r} already exists; choose another name.",
            metadata={"name": name},
        )


class InvalidInput(EasyMLError):
    """The request is wrong."""

    default_reason = Reason.INVALID_FIELD

    @classmethod
    def at(
        cls,
        field: str,
        message: str,
        reason: Reason | None = None,
        metadata: Mapping[str, str] = MappingProxyType({}),
    ) -> Self:
        """One field is at fault; `message` is a sentence that says the way out."""
        return cls(message, reason, metadata=metadata, violations=[Violation(field, message)])


class NotSignedIn(EasyMLError):
    """Nobody, or nobody any more."""

    default_reason = Reason.NOT_SIGNED_IN


class NotAllowed(EasyMLError):
    """Signed in, but may not."""

    default_reason = Reason.ROLE_TOO_LOW


class WrongState(EasyMLError):
    """Not in this state."""

    default_reason = Reason.WRONG_STATE


class Stale(EasyMLError):
    """Somebody else was faster."""

    default_reason = Reason.STALE_ETAG


class LimitReached(EasyMLError):
    """Something is used up."""

    default_reason = Reason.LIMIT_REACHED


class OutOfTime(EasyMLError):
    """The caller's deadline passed while it waited; the message says for what."""

    default_reason = Reason.DEADLINE_EXCEEDED


class Unavailable(EasyMLError):
    """A part is missing just now."""

    default_reason = Reason.PART_UNAVAILABLE


class Collided(Unavailable):
    """Work at the same time was in the way, and this unit of work changed nothing: it may be repeated at once."""
