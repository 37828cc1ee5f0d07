# ruff: noqa: ARG002 - a servicer takes what gRPC gives it
from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from easyml.v1 import project_pb2
from easyml.v1 import project_service_pb2 as pb
from easyml.v1.project_service_pb2_grpc import ProjectServiceServicer, add_ProjectServiceServicer_to_server
from easyml_client import TLS, AsyncEasyML, EasyML, errors
from easyml_client.discovery import discover
from easyml_client.errors import UNREACHABLE
from easyml_client.handshake import explain
from easyml_client.tls import Pem, own_end
from tests.certificates import Authority
from tests.unit.client.support import an_id


class Projects(ProjectServiceServicer):
    def GetProject(self, request: Any, context: Any) -> pb.GetProjectResponse:
        return pb.GetProjectResponse(project=project_pb2.Project(id=request.project_id))


@pytest.fixture(scope="module")
def secure() -> Iterator[tuple[str, bytes]]:
    pair = Authority().issue("127.0.0.1")
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    add_ProjectServiceServicer_to_server(Projects(), server)  # type: ignore[arg-type]
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(pair.key, pair.certificate)]))
    server.start()
    yield f"127.0.0.1:{port}", pair.certificate
    server.stop(None).wait()


def test_a_server_whose_certificate_is_not_known_is_not_talked_to(secure: tuple[str, bytes]) -> None:
    with EasyML(secure[0], "a-token", tls=True) as client, pytest.raises(errors.Unavailable, match="--ca-file"):
        client.projects.get(an_id("project"))


def test_a_client_without_tls_is_not_answered(secure: tuple[str, bytes]) -> None:
    with EasyML(secure[0], "a-token") as client, pytest.raises(errors.Unavailable, match="EASYML_TLS=true"):
        client.projects.get(an_id("project"))


def test_calls_are_encrypted_with_the_certificates_given(secure: tuple[str, bytes]) -> None:
    target, certificate = secure
    with EasyML(target, "a-token", tls=TLS(ca=certificate)) as client:
        assert client.projects.get(an_id("project")).id == an_id("project")


async def test_the_asyncio_client_encrypts_too(secure: tuple[str, bytes]) -> None:
    target, certificate = secure
    async with AsyncEasyML(target, "a-token", tls=TLS(ca=certificate)) as client:
        assert (await client.projects.get(an_id("project"))).id == an_id("project")


def test_a_server_that_is_not_there_has_nothing_to_do_with_tls() -> None:
    for tls in (True, False):
        with EasyML("127.0.0.1:1", "a-token", tls=tls) as client, pytest.raises(errors.Unavailable) as caught:
            client.health()
        assert caught.value.reason == "UNREACHABLE"


def test_a_key_may_lie_in_the_certificates_file(tmp_path: Path) -> None:
    pair = Authority().issue("a client")
    (tmp_path / "both.pem").write_bytes(pair.certificate + pair.key)
    both = pair.certificate + pair.key
    assert TLS(certificate=tmp_path / "both.pem").load() == Pem(certificate=both, key=both)


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        (TLS(ca="missing.pem"), "missing.pem cannot be read: No such file"),
        (TLS(ca=b"junk"), "EASYML_TLS_CA_FILE"),
        (TLS(ca="\u00e9".encode()), "EASYML_TLS_CA_FILE"),
        (TLS(key=b"alone"), "EASYML_TLS_CLIENT_CERT_FILE"),
        (TLS(certificate=b"junk"), "EASYML_TLS_CLIENT_CERT_FILE"),
        (TLS(certificate=Authority().issue("a").certificate, key=Authority().issue("b").key), "belong together"),
    ],
)
def test_certificates_that_cannot_be_used_are_named_before_any_call(tls: TLS, words: str) -> None:
    with pytest.raises(errors.InvalidInput, match=words):
        EasyML("ml.example.org:443", tls=tls)


def test_a_locked_key_is_named_and_not_asked_for(tmp_path: Path) -> None:
    pair = Authority().issue("a client")
    key = load_pem_private_key(pair.key, None)
    assert isinstance(key, EllipticCurvePrivateKey)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase"))
    with pytest.raises(errors.InvalidInput, match="passphrase"):
        TLS(certificate=pair.certificate, key=locked).load()


@contextmanager
def hanging_up(handshakes: int) -> Iterator[tuple[str, bytes]]:
    """A server that shakes so many hands, hanging up after each, and then is gone; 0: it hangs up before, for ever."""
    pair = Authority().issue("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with Pem(certificate=pair.certificate, key=pair.key).pair_files() as files:
        assert files is not None
        context.load_cert_chain(*files)
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while not handshakes:
                listening.accept()[0].close()
            for _ in range(handshakes):
                context.wrap_socket(listening.accept()[0], server_side=True).close()
        listening.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"127.0.0.1:{listening.getsockname()[1]}", pair.certificate
    with suppress(OSError):
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@pytest.mark.parametrize(("handshakes", "reason"), [(0, None), (1, None), (2, "CLIENT_CERTIFICATE_MISSING")])
def test_a_server_that_is_being_stopped_is_not_one_that_wants_a_certificate(
    handshakes: int, reason: str | None
) -> None:
    with hanging_up(handshakes) as (target, certificate):
        error = errors.Unavailable("gone", reason=UNREACHABLE, metadata={"cause": "Socket closed"})
        explained = explain(error, discover(target, "a-token", tls=TLS(ca=certificate)))
    assert (explained and explained.reason) == reason


@pytest.mark.parametrize("days", [30, -1])
def test_the_end_of_ones_own_certificate_is_known(days: int) -> None:
    pair = Authority().issue("a client", days=days)
    end = own_end(Pem(certificate=pair.certificate, key=pair.key))
    assert end is not None
    assert abs(end - dt.datetime.now(dt.UTC) - dt.timedelta(days=days)) < dt.timedelta(minutes=5)
    assert own_end(Pem()) is None


def test_secrets_of_tls_do_not_show_in_a_repr() -> None:
    pair = Authority().issue("a client")
    with EasyML("ml.example.org:443", tls=TLS(certificate=pair.certificate, key=pair.key)) as client:
        assert "PRIVATE" not in repr(client.connection)
