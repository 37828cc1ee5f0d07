# ruff: noqa: ARG002 - a servicer takes what gRPC gives it
from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from easyml.v1 import project_pb2
from easyml.v1 import project_service_pb2 as pb
from easyml.v1.project_service_pb2_grpc import ProjectServiceServicer, add_ProjectServiceServicer_to_server
from easyml_client import AsyncEasyML, EasyML, errors
from tests.unit.client.support import an_id


class Projects(ProjectServiceServicer):
    def GetProject(self, request: Any, context: Any) -> pb.GetProjectResponse:
        return pb.GetProjectResponse(project=project_pb2.Project(id=request.project_id))


def a_certificate() -> tuple[bytes, bytes]:
    """A key and a certificate of its own for 127.0.0.1, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(pem, pkcs8, serialization.NoEncryption()), certificate.public_bytes(pem)


@pytest.fixture(scope="module")
def secure() -> Iterator[tuple[str, bytes]]:
    key, certificate = a_certificate()
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    add_ProjectServiceServicer_to_server(Projects(), server)  # type: ignore[arg-type]
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
    server.start()
    yield f"127.0.0.1:{port}", certificate
    server.stop(None).wait()


def test_a_server_whose_certificate_is_not_known_is_not_talked_to(secure: tuple[str, bytes]) -> None:
    with EasyML(secure[0], "a-token", tls=True) as client, pytest.raises(errors.Unavailable):
        client.projects.get(an_id("project"))


def test_a_client_without_tls_is_not_answered(secure: tuple[str, bytes]) -> None:
    with EasyML(secure[0], "a-token") as client, pytest.raises(errors.Unavailable):
        client.projects.get(an_id("project"))


def test_calls_are_encrypted_with_the_certificates_given(secure: tuple[str, bytes]) -> None:
    target, certificate = secure
    with EasyML(target, "a-token", root_certificates=certificate) as client:
        assert client.projects.get(an_id("project")).id == an_id("project")


async def test_the_asyncio_client_encrypts_too(secure: tuple[str, bytes]) -> None:
    target, certificate = secure
    async with AsyncEasyML(target, "a-token", root_certificates=certificate) as client:
        assert (await client.projects.get(an_id("project"))).id == an_id("project")
