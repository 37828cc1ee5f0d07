"""What a test holds of the contract, written beside the test; tests/contract/test_coverage.py reads it in the files."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Test = TypeVar("Test", bound=Callable[..., object])


def answers(*methods: str) -> Callable[[Test], Test]:
    """The test calls these methods ("ProjectService/SetMember") over gRPC and checks what the answers say."""
    return _as_it_is(methods)


def refuses(*methods: str) -> Callable[[Test], Test]:
    """The test is refused by these methods, by a rule of their own."""
    return _as_it_is(methods)


def limits(*settings: str) -> Callable[[Test], Test]:
    """The test goes to the limits of these settings ("MAX_ROWS"), which passes, and beyond, which does not."""
    return _as_it_is(settings)


def _as_it_is(names: tuple[str, ...]) -> Callable[[Test], Test]:
    if not names:
        raise TypeError("A mark names something.")
    return lambda test: test
