"""What a replica has around it: variables, memory, processors; in the words and quantities of Kubernetes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

MODEL_SERVER_BYTES: Final = 96 << 20
"""What a replica takes at least beside the file of its model."""

_NUMBER: Final = r"([0-9]{1,15}(?:\.[0-9]{1,9})?)"
_CPU: Final = re.compile(rf"{_NUMBER}(m?)")
_MEMORY: Final = re.compile(rf"{_NUMBER}(Ki|Mi|Gi|Ti|k|M|G|T|)")
_FACTORS: Final = {"": 1} | {
    f"{letter}{binary}": base**power
    for base, binary, letters in ((1000, "", "kMGT"), (1024, "i", "KMGT"))
    for power, letter in enumerate(letters, start=1)
}
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_OURS: Final = re.compile(r"(?:EASYML_|LD_|DYLD_|PYTHON).*|PATH|HOME|TMPDIR|VIRTUAL_ENV", re.IGNORECASE)
_IMAGE_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE: Final = re.compile(
    rf"(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{{1,5}})?/)?{_IMAGE_PART}(?:/{_IMAGE_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_OBJECT: Final = re.compile(r"[a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?")
_KEY: Final = re.compile(r"[-._A-Za-z0-9]{1,253}")


@dataclass(frozen=True, slots=True)
class SecretReference:
    """A variable whose value is a key of a secret that the target keeps."""

    variable: str
    secret: str
    key: str


@dataclass(frozen=True, slots=True)
class Container:
    """What is asked for; empty where the target decides."""

    base_image: str = ""
    cpu_request: str = ""
    cpu_limit: str = ""
    memory_request: str = ""
    memory_limit: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    secrets: tuple[SecretReference, ...] = ()

    @property
    def memory_limit_bytes(self) -> int:
        """0 if there is none."""
        return memory_of(self.memory_limit) or 0


AS_IT_IS: Final = Container()
"""Nothing is asked for."""


def cpu_of(quantity: str) -> Decimal | None:
    """Processors: 2, 0.5, 500m; None if it is no such quantity, or nothing."""
    found = _CPU.fullmatch(quantity)
    if found is None:
        return None
    number = Decimal(found[1]) / (1000 if found[2] else 1)
    return number if number > 0 else None


def memory_of(quantity: str) -> int | None:
    """Bytes: 512Mi, 1.5Gi, 500M, 1048576; None if it is no such quantity, or nothing."""
    found = _MEMORY.fullmatch(quantity)
    if found is None:
        return None
    number = int(Decimal(found[1]) * _FACTORS[found[2]])
    return number if number > 0 else None


def faults_of(container: Container) -> Iterator[tuple[str, str]]:
    """(field, what is wrong) for any target."""
    yield from _faults_of_quantities(container)
    for name, _ in container.environment:
        if fault := _fault_of_variable(name):
            yield f'environment["{name}"]', fault
    taken = {name for name, _ in container.environment}
    for index, secret in enumerate(container.secrets):
        field = f"secrets[{index}].variable"
        if secret.variable in taken:
            yield field, f"The variable {secret.variable} has a value already; name each once."
        elif fault := _fault_of_variable(secret.variable):
            yield field, fault
        taken.add(secret.variable)


def beyond_this_machine(container: Container) -> Iterator[tuple[str, str]]:
    """(field, why) for what processes beside the server cannot have."""
    reasons: Mapping[str, str] = {
        "base_image": "The local target runs processes of this installation, and no images; leave it out.",
        "cpu_request": "The local target sets no processors aside; leave it out.",
        "cpu_limit": "The local target cannot hold a process to a share of the processors; leave it out.",
        "memory_request": "The local target sets no memory aside; leave it out, or give a memory_limit.",
        "secrets": "The local target keeps no secrets; leave them out.",
    }
    for field, reason in reasons.items():
        if getattr(container, field):
            yield field, reason


def faults_on_a_cluster(container: Container) -> Iterator[tuple[str, str]]:
    """(field, what is wrong) for pods."""
    if container.base_image and not _IMAGE.fullmatch(container.base_image):
        yield "base_image", f"{container.base_image!r} is no image; write registry/name:tag, or name@sha256:digest."
    for index, secret in enumerate(container.secrets):
        if not _OBJECT.fullmatch(secret.secret):
            yield (
                f"secrets[{index}].secret",
                f"{secret.secret!r} is no name of a secret; it takes small letters, digits, - and ., and begins and "
                "ends with a letter or digit.",
            )
        if not _KEY.fullmatch(secret.key):
            yield (
                f"secrets[{index}].key",
                f"{secret.key!r} is no key of a secret; it takes letters, digits, -, _ and . only.",
            )


def memory_fault(container: Container, model_bytes: int) -> str:
    """What is wrong with the limit for a model of that size; empty if nothing is."""
    limit, needed = container.memory_limit_bytes, MODEL_SERVER_BYTES + model_bytes
    if not limit or limit >= needed:
        return ""
    return (
        f"{container.memory_limit} are {limit:,} bytes, and this model of {model_bytes:,} bytes cannot be served in "
        f"less than {needed:,}; allow more, such as {-(-2 * needed >> 20)}Mi."
    )


def _faults_of_quantities(container: Container) -> Iterator[tuple[str, str]]:
    for field in ("cpu_request", "cpu_limit"):
        text = getattr(container, field)
        if text and cpu_of(text) is None:
            yield field, f"{text!r} is no quantity of processors; write 2, 0.5 or 500m."
    for field in ("memory_request", "memory_limit"):
        text = getattr(container, field)
        if text and memory_of(text) is None:
            yield field, f"{text!r} is no quantity of memory; write 512Mi, 1.5Gi or 500M."
    cpu = cpu_of(container.cpu_request), cpu_of(container.cpu_limit)
    if cpu[0] is not None and cpu[1] is not None and cpu[0] > cpu[1]:
        yield "cpu_request", f"{container.cpu_request} is above the limit of {container.cpu_limit}; ask for less."
    memory = memory_of(container.memory_request), memory_of(container.memory_limit)
    if memory[0] is not None and memory[1] is not None and memory[0] > memory[1]:
        yield (
            "memory_request",
            f"{container.memory_request} is above the limit of {container.memory_limit}; ask for less.",
        )


def _fault_of_variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        return f"{name!r} is no name of a variable; it takes letters, digits and _, and begins with no digit."
    if _OURS.fullmatch(name):
        return f"{name} decides how the model server runs, as EASYML_*, LD_*, PYTHON* and PATH do; leave it out."
    return ""
