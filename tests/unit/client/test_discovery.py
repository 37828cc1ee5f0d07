from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from easyml_client import TLS, EasyML, errors
from easyml_client.channel import options
from easyml_client.discovery import Connection, discover, is_loopback
from easyml_client.profile import Profile, ProfileFile
from tests.certificates import Authority


def environment(tmp_path: Path, **settings: str) -> dict[str, str]:
    return {"HOME": str(tmp_path), **settings}


def an_embedded_server(tmp_path: Path, address: str = "127.0.0.1:50051") -> dict[str, str]:
    folder = tmp_path / "easyml-data"
    folder.mkdir()
    (folder / "server.json").write_text(json.dumps({"address": address, "pid": 1}))
    (folder / "owner.key").write_text("eml_owner\n")
    return environment(tmp_path, EASYML_DATA_DIR=str(folder))


def a_profile(tmp_path: Path, target: str = "ml.example.org:443", **details: Any) -> ProfileFile:
    file = ProfileFile.default(environment(tmp_path))
    file.save(Profile(target, **details))
    return file


def found(*arguments: Any, environ: dict[str, str], **more: Any) -> Connection:
    return discover(*arguments, environ=environ, **more)


# Secrets stay where they belong.


@pytest.mark.parametrize(
    "target",
    [
        "10.0.0.5:50051",
        "ml.example.org:50051",
        "localhost.example.org:50051",
        "127.0.0.1.example.org:50051",
        "dns://8.8.8.8/localhost:50051",
        "ipv4:127.0.0.1:1,10.0.0.5:2",
        "ipv4:127.0.0.1:1,",
        "ipv4:,",
        "127.0.0.1:1@10.0.0.5:2",
        "0.0.0.0:50051",
        "[2001:db8::1]:50051",
        "xds:///localhost",
        "",
    ],
)
def test_the_owners_key_is_not_sent_off_this_machine(tmp_path: Path, target: str) -> None:
    assert not is_loopback(target)
    if target:
        assert found(target, environ=an_embedded_server(tmp_path)).credentials.token is None


@pytest.mark.parametrize(
    "target",
    [
        "localhost:50051",
        "127.0.0.1:50051",
        "127.8.8.8:1",
        "[::1]:50051",
        "dns:///localhost:50051",
        "ipv4:127.0.0.1:50051",
        "ipv4:127.0.0.1:50051,127.0.0.1:50052",
        "unix:///run/easyml.sock",
    ],
)
def test_the_owners_key_is_sent_to_this_machine(tmp_path: Path, target: str) -> None:
    connection = found(target, environ=an_embedded_server(tmp_path))
    assert connection.credentials.token == "eml_owner"
    assert connection.token_source.endswith("owner.key")


def test_a_loopback_call_never_goes_through_a_proxy(tmp_path: Path) -> None:
    near = found("127.0.0.1:1", environ=environment(tmp_path))
    far = found("ml.example.org:443", environ=environment(tmp_path))
    assert ("grpc.enable_http_proxy", 0) in options(near)
    assert ("grpc.enable_http_proxy", 0) not in options(far)


def test_a_profiles_token_goes_to_the_profiles_server_only(tmp_path: Path) -> None:
    a_profile(tmp_path, token="eml_profile")
    assert found(environ=environment(tmp_path)).credentials.token == "eml_profile"
    assert found("other.example.org:443", environ=environment(tmp_path)).credentials.token is None


def test_secrets_do_not_show_in_a_repr(tmp_path: Path) -> None:
    a_profile(tmp_path, token="eml_profile")
    connection = found(environ=environment(tmp_path))
    assert "eml_profile" not in repr(connection)
    assert "eml_profile" not in repr(ProfileFile.default(environment(tmp_path)).load())


# What wins.


def test_an_argument_wins_over_everything(tmp_path: Path) -> None:
    a_profile(tmp_path)
    environ = {**an_embedded_server(tmp_path), "EASYML_TARGET": "env:1", "EASYML_TOKEN": "env"}
    connection = found("arg:1", "arg", environ=environ)
    assert (connection.target, connection.credentials.token) == ("arg:1", "arg")


def test_the_environment_wins_over_the_profile(tmp_path: Path) -> None:
    a_profile(tmp_path, token="eml_profile")
    connection = found(environ=environment(tmp_path, EASYML_TARGET="env:1", EASYML_TOKEN="env"))
    assert (connection.target, connection.target_source) == ("env:1", "EASYML_TARGET")
    assert (connection.credentials.token, connection.token_source) == ("env", "EASYML_TOKEN")


def test_the_profile_wins_over_the_embedded_server(tmp_path: Path) -> None:
    a_profile(tmp_path, token="eml_profile")
    assert found(environ=an_embedded_server(tmp_path)).target == "ml.example.org:443"


def test_the_embedded_server_is_found_by_itself(tmp_path: Path) -> None:
    connection = found(environ=an_embedded_server(tmp_path))
    assert (connection.target, connection.credentials.token, connection.tls) == ("127.0.0.1:50051", "eml_owner", None)


@pytest.mark.parametrize(("address", "called"), [("0.0.0.0:7", "127.0.0.1:7"), ("[::]:7", "127.0.0.1:7")])
def test_a_server_that_listens_everywhere_is_called_at_loopback(tmp_path: Path, address: str, called: str) -> None:
    assert found(environ=an_embedded_server(tmp_path, address)).target == called


def test_the_data_folder_follows_xdg(tmp_path: Path) -> None:
    folder = tmp_path / "share" / "easyml"
    folder.mkdir(parents=True)
    (folder / "server.json").write_text('{"address": "127.0.0.1:9"}')
    assert found(environ=environment(tmp_path, XDG_DATA_HOME=str(tmp_path / "share"))).target == "127.0.0.1:9"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 3}', "null"])
def test_a_broken_server_json_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    environ = an_embedded_server(tmp_path)
    (Path(environ["EASYML_DATA_DIR"]) / "server.json").write_text(content)
    with pytest.raises(errors.Unavailable, match="easyml-server serve") as caught:
        found(environ=environ)
    assert caught.value.reason == "NO_TARGET"


# TLS.


def test_calls_off_this_machine_are_encrypted_unless_said_otherwise(tmp_path: Path) -> None:
    environ = environment(tmp_path)
    assert found("ml.example.org:443", environ=environ).tls
    assert not found("ml.example.org:443", environ=environ, tls=False).tls
    assert not found("localhost:1", environ=environ).tls
    assert found("localhost:1", environ=environ, tls=True).tls
    assert not found("ml.example.org:443", environ={**environ, "EASYML_TLS": "false"}).tls


AUTHORITY = Authority()
CLIENT = AUTHORITY.issue("a client")


def test_certificates_mean_tls(tmp_path: Path) -> None:
    ca = AUTHORITY.write(tmp_path / "ca.pem")
    given = found("localhost:1", environ=environment(tmp_path), tls=TLS(ca=ca))
    named = found("localhost:1", environ=environment(tmp_path, EASYML_TLS_CA_FILE=str(ca)))
    assert given.pem.ca == named.pem.ca == AUTHORITY.pem
    off = found("localhost:1", environ=environment(tmp_path, EASYML_TLS_CA_FILE=str(ca), EASYML_TLS="false"))
    assert off.tls is None


def test_a_client_certificate_comes_from_the_environment(tmp_path: Path) -> None:
    certificate, key = CLIENT.write(tmp_path, "client")
    environ = environment(tmp_path, EASYML_TLS_CLIENT_CERT_FILE=str(certificate), EASYML_TLS_CLIENT_KEY_FILE=str(key))
    pem = found("ml.example.org:443", environ=environ).pem
    assert (pem.certificate, pem.key) == (CLIENT.certificate, CLIENT.key)


def test_a_key_belongs_to_the_certificate_it_came_with(tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(CLIENT.certificate + CLIENT.key)
    _, other = AUTHORITY.issue("another").write(tmp_path, "other")
    environ = environment(tmp_path, EASYML_TLS_CLIENT_CERT_FILE=str(both), EASYML_TLS_CLIENT_KEY_FILE=str(other))
    assert found("ml.example.org:443", environ=environ, tls=TLS(certificate=both)).pem.key == both.read_bytes()


def test_the_profiles_certificates_are_for_its_server_only(tmp_path: Path) -> None:
    certificate, key = CLIENT.write(tmp_path, "client")
    ca = AUTHORITY.write(tmp_path / "ca.pem")
    a_profile(tmp_path, tls=True, ca_file=str(ca), cert_file=str(certificate), key_file=str(key))
    pem = found(environ=environment(tmp_path)).pem
    assert (pem.ca, pem.certificate, pem.key) == (AUTHORITY.pem, CLIENT.certificate, CLIENT.key)
    assert found("other.example.org:443", environ=environment(tmp_path)).pem.certificate is None


def test_a_server_here_says_whom_to_trust(tmp_path: Path) -> None:
    ca = AUTHORITY.write(tmp_path / "server.pem")
    environ = an_embedded_server(tmp_path)
    says = {"address": "0.0.0.0:7", "scheme": "tls", "ca_file": str(ca), "server_name": "ml.example.org"}
    (Path(environ["EASYML_DATA_DIR"]) / "server.json").write_text(json.dumps(says))
    for connection in (found(environ=environ), found("127.0.0.1:7", environ=environ)):
        assert connection.tls
        assert (connection.pem.ca, connection.tls.server_name) == (AUTHORITY.pem, "ml.example.org")
        assert ("grpc.ssl_target_name_override", "ml.example.org") in options(connection)
    assert found("127.0.0.1:8", environ=environ).tls is None


def test_a_word_that_is_neither_yes_nor_no_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidInput, match="EASYML_TLS is 'maybe'"):
        found("x:1", environ=environment(tmp_path, EASYML_TLS="maybe"))


# The profile.


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"target": 1}', '{"target": "x", "session": {}}'])
def test_a_broken_profile_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    file = a_profile(tmp_path)
    file.path.write_text(content)
    assert file.load() is None


def test_a_profile_of_a_newer_client_is_read_as_far_as_it_is_known(tmp_path: Path) -> None:
    file = a_profile(tmp_path)
    file.path.write_text('{"target": "x:1", "colour": "blue"}')
    assert file.load() == Profile("x:1")


def test_a_profile_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    file = a_profile(tmp_path)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    assert [path.name for path in file.path.parent.iterdir()] == ["profile.json"]


def test_a_client_without_any_server_says_how_to_get_one() -> None:
    with pytest.raises(errors.Unavailable, match="No EasyML server is known here"):
        EasyML()
