# ruff: noqa: ARG002 - a servicer takes what gRPC gives it
from __future__ import annotations

import base64
import datetime as dt
import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from easyml.v1 import auth_service_pb2 as pb
from easyml.v1 import user_pb2
from easyml.v1.auth_service_pb2_grpc import AuthServiceServicer
from easyml_client.cli.__main__ import run
from easyml_client.profile import Profile, ProfileFile, SavedSession
from easyml_client.resources.users import Session
from tests.unit.client.support import a_session, an_id, refuse, serving, token_of


class Accounts(AuthServiceServicer):
    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.tokens: list[str] = []

    def Register(self, request: Any, context: Any) -> pb.RegisterResponse:
        self.calls.append(request)
        return pb.RegisterResponse(user=user_pb2.User(email=request.email), session=a_session(1))

    def Login(self, request: Any, context: Any) -> pb.LoginResponse:
        self.calls.append(request)
        if request.password != "correct horse battery":
            refuse(context, grpc.StatusCode.UNAUTHENTICATED, "WRONG_CREDENTIALS", "E-mail or password is wrong.")
        return pb.LoginResponse(user=user_pb2.User(email=request.email), session=a_session(1))

    def Logout(self, request: Any, context: Any) -> pb.LogoutResponse:
        self.tokens.append(token_of(context))
        return pb.LogoutResponse()

    def GetCurrentUser(self, request: Any, context: Any) -> pb.GetCurrentUserResponse:
        if token_of(context) == "eml_wrong":
            refuse(context, grpc.StatusCode.UNAUTHENTICATED, "INVALID_TOKEN", "The token is not valid.")
        self.tokens.append(token_of(context))
        return pb.GetCurrentUserResponse(user=user_pb2.User(email="ada@example.org"))

    def CreateApiKey(self, request: Any, context: Any) -> pb.CreateApiKeyResponse:
        self.calls.append(request)
        return pb.CreateApiKeyResponse(api_key=user_pb2.ApiKey(name=request.name), secret="eml_new")

    def ListApiKeys(self, request: Any, context: Any) -> pb.ListApiKeysResponse:
        old = user_pb2.ApiKey(id=an_id("old"), name="nightly")
        old.revoke_time.seconds = 1
        keys = [user_pb2.ApiKey(id=an_id("key"), name="nightly"), old]
        keys += [user_pb2.ApiKey(id=an_id(f"twin{n}"), name="twin") for n in range(2)]
        return pb.ListApiKeysResponse(api_keys=keys)

    def RevokeApiKey(self, request: Any, context: Any) -> pb.RevokeApiKeyResponse:
        self.calls.append(request)
        return pb.RevokeApiKeyResponse(api_key=user_pb2.ApiKey(id=request.api_key_id, name="nightly"))


@pytest.fixture
def accounts() -> Accounts:
    return Accounts()


@pytest.fixture
def target(accounts: Accounts) -> Iterator[str]:
    with serving(accounts) as target:
        yield target


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def saved() -> Profile | None:
    return ProfileFile.default(os.environ).load()


def test_a_wrong_password_remembers_nothing(target: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "wrong\n")
    assert run(["login", target, "--email", "ada@example.org"]) == 1
    assert capsys.readouterr().err == "E-mail or password is wrong.\n"
    assert saved() is None


def test_without_a_terminal_an_address_must_be_given(target: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "")
    assert run(["login", target]) == 2
    assert "Give --email" in capsys.readouterr().err


def test_a_login_is_remembered_and_used(
    target: str, accounts: Accounts, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "correct horse battery\n")
    assert run(["login", target, "--email", "ada@example.org"]) == 0
    profile = saved()
    assert profile
    assert (profile.target, profile.email, profile.tls) == (target, "ada@example.org", False)
    assert run(["whoami", "--json"]) == 0
    assert accounts.tokens == ["access-1"]
    output = capsys.readouterr()
    assert json.loads(output.out.splitlines()[-1])["user"]["email"] == "ada@example.org"
    assert "horse" not in output.out + output.err
    assert "access-1" not in output.out + output.err


def test_an_account_is_made_and_remembered(
    target: str, accounts: Accounts, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "correct horse battery\n")
    assert run(["register", target, "--email", "ada@example.org", "--name", "Ada"]) == 0
    assert accounts.calls[0].display_name == "Ada"
    assert saved()


def test_a_key_is_tried_before_it_is_remembered(
    target: str, accounts: Accounts, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "eml_wrong\n")
    assert run(["login", target, "--with-key"]) == 1
    assert saved() is None
    typed(monkeypatch, "eml_right\n")
    assert run(["login", target, "--with-key"]) == 0
    profile = saved()
    assert profile
    assert (profile.token, profile.session, profile.email) == ("eml_right", None, "ada@example.org")


def test_logout_ends_the_session_of_the_profile_whatever_the_environment_says(
    target: str, accounts: Accounts, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = SavedSession.of(Session.of(a_session(1)))
    ProfileFile.default(os.environ).save(Profile(target, session=session))
    monkeypatch.setenv("EASYML_TOKEN", "eml_other")
    assert run(["logout"]) == 0
    assert accounts.tokens == ["access-1"]
    assert saved() is None


def test_logout_forgets_a_server_that_is_gone(capsys: Any) -> None:
    ProfileFile.default(os.environ).save(Profile("127.0.0.1:1", session=SavedSession.of(Session.of(a_session(1)))))
    assert run(["logout"]) == 0
    assert "the server was not told" in capsys.readouterr().err
    assert saved() is None


def test_logout_without_login_says_so(capsys: Any) -> None:
    assert run(["logout"]) == 0
    assert capsys.readouterr().out == "Nobody was signed in.\n"


@pytest.fixture
def _signed_in(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EASYML_TARGET", target)
    monkeypatch.setenv("EASYML_TOKEN", "eml_mine")


@pytest.mark.usefixtures("_signed_in")
def test_a_key_is_shown_once_on_stdout(accounts: Accounts, capsys: Any) -> None:
    assert run(["token", "create", "ci", "--permission", "viewer", "--days", "30", "--project", an_id("p")]) == 0
    assert capsys.readouterr().out == "eml_new\n"
    request = accounts.calls[0]
    assert (request.scope.permission, request.scope.project_id) == (3, an_id("p"))
    left = request.expire_time.ToDatetime(tzinfo=dt.UTC) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=29) < left <= dt.timedelta(days=30)


@pytest.mark.usefixtures("_signed_in")
def test_a_project_of_the_environment_does_not_narrow_a_key(
    accounts: Accounts, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EASYML_PROJECT", an_id("p"))
    assert run(["token", "create", "ci"]) == 0
    assert not accounts.calls[0].HasField("scope")


@pytest.mark.usefixtures("_signed_in")
def test_a_key_is_revoked_by_name_where_that_is_clear(accounts: Accounts, capsys: Any) -> None:
    assert run(["token", "revoke", "nightly"]) == 0
    assert accounts.calls[0].api_key_id == an_id("key")
    assert run(["token", "revoke", "twin"]) == 2
    assert "2 valid keys are named 'twin'" in capsys.readouterr().err


# doctor


def findings(capsys: Any) -> dict[str, tuple[str, str]]:
    run(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    return {each["check"]: (each["level"], each["message"]) for each in found}


def test_doctor_says_that_there_is_no_server(capsys: Any) -> None:
    assert findings(capsys)["address"][0] == "bad"
    assert run(["doctor"]) == 1


def test_doctor_says_that_a_server_cannot_be_reached(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EASYML_TARGET", "127.0.0.1:1")
    found = findings(capsys)
    assert found["token"] == ("bad", "There is none; sign in with `easyml login`, or set EASYML_TOKEN.")
    assert found["server"][0] == "bad"
    assert "cannot be reached" in found["server"][1]


def test_doctor_sees_an_embedded_server_that_died(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text(json.dumps({"address": "127.0.0.1:1", "pid": 2**22 + 1}))
    (tmp_path / "owner.key").write_text("eml_owner")
    (tmp_path / "owner.key").chmod(0o644)
    monkeypatch.setenv("EASYML_DATA_DIR", str(tmp_path))
    found = findings(capsys)
    assert "start it: `easyml-server serve`" in found["embedded server"][1]
    assert f"chmod 600 {tmp_path / 'owner.key'}" in found["token"][1]


def test_doctor_warns_of_an_open_line(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from easyml_client.cli import doctor
    from easyml_client.discovery import discover

    connection = discover("ml.example.org:50051", "eml_x", tls=False)
    found = list(doctor._address(connection))
    assert found[0].level == "note"
    assert "can be read on the way" in found[0].message


@pytest.mark.parametrize(("made", "level"), [(3600.0, "bad"), (-5.0, "ok")])
def test_doctor_sees_a_clock_that_is_behind(made: float, level: str) -> None:
    from easyml_client.cli import doctor

    claims = base64.urlsafe_b64encode(json.dumps({"iat": time.time() + made}).encode()).decode().rstrip("=")
    assert [finding.level for finding in doctor._clock(f"head.{claims}.tail")] == [level]


@pytest.mark.parametrize("token", ["eml_key", "a.b.c", "a.e30.c", ""])
def test_doctor_says_nothing_of_the_clock_where_it_cannot_know(token: str) -> None:
    from easyml_client.cli import doctor

    assert list(doctor._clock(token)) == []
