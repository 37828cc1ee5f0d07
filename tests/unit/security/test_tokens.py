"""Access tokens and the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from easyml_server.domain.errors import NotSignedIn, Reason
from easyml_server.ports.security import AccessClaims
from easyml_server.security.tokens import LEEWAY, Ed25519Signer

HOUR = timedelta(hours=1)


def test_a_clock_that_is_set_back_signs_nobody_out(tmp_path: Path) -> None:
    signer = Ed25519Signer(tmp_path / "keys")
    before = datetime.now(UTC).replace(microsecond=0) + HOUR
    claims = AccessClaims(uuid4(), uuid4(), before + HOUR)
    assert signer.read_access(signer.sign_access(claims, before)) == claims


def test_a_clock_that_is_set_forward_ends_tokens(tmp_path: Path) -> None:
    signer = Ed25519Signer(tmp_path / "keys")
    before = datetime.now(UTC) - HOUR
    token = signer.sign_access(AccessClaims(uuid4(), uuid4(), before + HOUR - 2 * LEEWAY), before)
    with pytest.raises(NotSignedIn) as refused:
        signer.read_access(token)
    assert refused.value.reason is Reason.TOKEN_EXPIRED
