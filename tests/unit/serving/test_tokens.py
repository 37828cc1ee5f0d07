"""Tokens: only ours, only for this server, only until they expire."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from easyml_server.domain.errors import NotSignedIn, Reason
from easyml_server.ports.security import AccessClaims
from easyml_server.security.tokens import Ed25519Signer
from easyml_server.serving.tokens import CACHED_TOKENS, TokenCheck

USER = UUID("00000000-0000-4000-8000-000000000002")
NOW = datetime(2030, 1, 1, tzinfo=UTC)
AUDIENCE = "model-7"


class Clock:
    def __init__(self) -> None:
        self.time = NOW.timestamp()

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def signer(tmp_path: Path) -> Ed25519Signer:
    return Ed25519Signer(tmp_path / "keys")


@pytest.fixture
def check(signer: Ed25519Signer, clock: Clock) -> TokenCheck:
    return TokenCheck(signer.jwks_path, AUDIENCE, clock)


def refused(check: TokenCheck, authorization: str) -> Reason:
    with pytest.raises(NotSignedIn) as caught:
        check.check(authorization)
    return caught.value.reason


def bearer(signer: Ed25519Signer, audience: str = AUDIENCE) -> str:
    return f"Bearer {signer.sign_identity(USER, audience, NOW)}"


@pytest.mark.parametrize("authorization", ["", "Bearer", "Basic abc", "token"])
def test_a_call_without_a_token_is_refused(check: TokenCheck, authorization: str) -> None:
    assert refused(check, authorization) is Reason.NOT_SIGNED_IN


@pytest.mark.parametrize("token", ["Bearer x", "Bearer a.b.c", "Bearer eyJhbGciOiJub25lIn0.e30.", "Bearer \udcff.\x00"])
def test_what_is_no_token_is_refused(check: TokenCheck, token: str) -> None:
    assert refused(check, token) is Reason.INVALID_TOKEN


def test_a_token_for_another_server_is_refused(check: TokenCheck, signer: Ed25519Signer) -> None:
    assert refused(check, bearer(signer, "model-8")) is Reason.INVALID_TOKEN


def test_an_access_token_of_the_main_server_is_refused(check: TokenCheck, signer: Ed25519Signer) -> None:
    token = signer.sign_access(AccessClaims(USER, USER, NOW + timedelta(hours=1)), NOW)
    assert refused(check, f"Bearer {token}") is Reason.INVALID_TOKEN


def test_a_token_of_another_signer_is_refused(check: TokenCheck, tmp_path: Path) -> None:
    assert refused(check, bearer(Ed25519Signer(tmp_path / "other"))) is Reason.INVALID_TOKEN


def forged(signer: Ed25519Signer, key: Any, algorithm: str) -> str:
    kid = json.loads(signer.jwks_path.read_text())["keys"][0]["kid"]
    payload = {"sub": str(USER), "aud": AUDIENCE, "exp": NOW + timedelta(minutes=5)}
    return "Bearer " + jwt.encode(payload, key, algorithm, headers={"kid": kid, "typ": "identity+jwt"})


def test_a_token_with_our_key_id_and_another_key_or_algorithm_is_refused(
    check: TokenCheck, signer: Ed25519Signer
) -> None:
    assert refused(check, forged(signer, Ed25519PrivateKey.generate(), "EdDSA")) is Reason.INVALID_TOKEN
    public = json.loads(signer.jwks_path.read_text())["keys"][0]["x"]
    assert refused(check, forged(signer, public.encode(), "HS256")) is Reason.INVALID_TOKEN
    assert refused(check, forged(signer, None, "none")) is Reason.INVALID_TOKEN


def test_a_token_is_taken_until_it_expires_and_not_longer(
    check: TokenCheck, signer: Ed25519Signer, clock: Clock
) -> None:
    authorization = bearer(signer)
    check.check(authorization)
    clock.time += 5 * 60 + 29
    check.check(authorization)
    clock.time += 2
    assert refused(check, authorization) is Reason.TOKEN_EXPIRED
    assert refused(TokenCheck(signer.jwks_path, AUDIENCE, clock), authorization) is Reason.TOKEN_EXPIRED


def test_a_new_key_is_found_in_the_file_and_the_old_one_stays_known(
    check: TokenCheck, signer: Ed25519Signer, clock: Clock, tmp_path: Path
) -> None:
    new = Ed25519Signer(tmp_path / "new")
    both = [json.loads(each.jwks_path.read_text())["keys"][0] for each in (signer, new)]
    assert refused(check, bearer(new)) is Reason.INVALID_TOKEN
    signer.jwks_path.write_text(json.dumps({"keys": both}))
    clock.time += 2
    check.check(bearer(new))
    check.check(bearer(signer))


def test_a_damaged_file_does_not_cost_the_keys_that_are_known(
    check: TokenCheck, signer: Ed25519Signer, clock: Clock, tmp_path: Path
) -> None:
    signer.jwks_path.write_text("{")
    clock.time += 2
    assert refused(check, bearer(Ed25519Signer(tmp_path / "new"))) is Reason.INVALID_TOKEN
    check.check(bearer(signer))


def test_invented_keys_do_not_have_the_file_read_each_time(
    signer: Ed25519Signer, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = TokenCheck(signer.jwks_path, AUDIENCE, clock)
    other = Ed25519Signer(tmp_path / "new")
    clock.time += 2
    assert refused(check, bearer(other)) is Reason.INVALID_TOKEN
    signer.jwks_path.unlink()
    monkeypatch.setattr(Path, "read_bytes", lambda _self: pytest.fail("read again"))
    assert refused(check, bearer(other)) is Reason.INVALID_TOKEN


def test_remembered_tokens_have_a_limit(check: TokenCheck, signer: Ed25519Signer) -> None:
    check._expiry = dict.fromkeys(map(str, range(CACHED_TOKENS)), 0.0)
    check.check(bearer(signer))
    assert len(check._expiry) == 1
