"""What the server bears from peers that send what they like: nothing, too often, too much; others are answered on."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import grpc
import h2.errors
import h2.events
import psutil
import pytest

from easyml.v1 import project_service_pb2 as projects
from tests.builders import a_project_of
from tests.integration.frames import Peer, a_peer, framed
from tests.marks import limits
from tests.servers import Client, ServerProcess, serving

pytestmark = pytest.mark.slow

LIST = "/easyml.v1.ProjectService/ListProjects"
HEALTH = "/grpc.health.v1.Health/Check"
RESOURCE_EXHAUSTED = "8"
MOST_MEMORY = 64 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that waits for nobody for long, with default pings."""
    settings = {"HANDSHAKE_SECONDS": "1", "CONNECTION_IDLE_SECONDS": "1"}
    with serving(tmp_path_factory.mktemp("connections") / "data", **settings) as server:
        yield server


@pytest.fixture(autouse=True)
def _others_are_answered_on(server: ServerProcess) -> Iterator[None]:
    """After each attack a new caller is answered, and the server holds little more memory than before."""
    process = psutil.Process(server.running.pid)
    before = process.memory_info().rss
    yield
    with Client(server.address, server.key) as client:
        assert a_project_of(client)
    assert process.memory_info().rss - before < MOST_MEMORY


@pytest.fixture
def peer(server: ServerProcess) -> Iterator[Peer]:
    with a_peer(server.address) as peer:
        peer.greet()
        yield peer


@limits("HANDSHAKE_SECONDS")
def test_a_peer_that_says_nothing_is_left(server: ServerProcess) -> None:
    with a_peer(server.address) as silent:
        assert silent.ended()
    with a_peer(server.address) as speaking:
        speaking.greet()
        speaking.call(HEALTH, framed(b""))
        assert speaking.outcome()["grpc-status"] == "0"


@limits("CONNECTION_IDLE_SECONDS")
def test_a_connection_without_calls_is_ended(peer: Peer) -> None:
    peer.call(HEALTH, framed(b""))
    assert peer.outcome()["grpc-status"] == "0"
    event = peer.wait_for(h2.events.ConnectionTerminated)
    assert isinstance(event, h2.events.ConnectionTerminated)
    assert event.additional_data == b"connection idle"


@limits("CONNECTION_AGE_SECONDS")
def test_a_connection_is_renewed_when_it_is_old_and_calls_go_on(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("age") / "data"
    with serving(folder, CONNECTION_AGE_SECONDS="1") as server:
        with a_peer(server.address) as peer:
            peer.greet()
            peer.call("/grpc.health.v1.Health/Watch", framed(b""))
            event = peer.wait_for(h2.events.ConnectionTerminated)
            assert isinstance(event, h2.events.ConnectionTerminated)
            assert event.error_code == h2.errors.ErrorCodes.NO_ERROR
        # A client of gRPC makes the next connection by itself.
        with Client(server.address, server.key) as client:
            client.projects.ListProjects(projects.ListProjectsRequest())
            first = _connections(server)
            while _connections(server) & first:
                client.projects.ListProjects(projects.ListProjectsRequest())
            client.projects.ListProjects(projects.ListProjectsRequest())


def _connections(server: ServerProcess) -> set[int]:
    """The ports of those who are connected."""
    process = psutil.Process(server.running.pid)
    return {each.raddr.port for each in process.net_connections("tcp") if each.raddr}


@limits("MIN_PING_SECONDS")
def test_who_pings_too_often_is_told_to_calm_down(server: ServerProcess, peer: Peer) -> None:
    for _ in range(2):
        peer.http.ping(b"12345678")
        peer.flush()
        peer.wait_for(h2.events.PingAckReceived)
    for _ in range(10):
        peer.http.ping(b"12345678")
    peer.flush()
    event = peer.wait_for(h2.events.ConnectionTerminated)
    assert isinstance(event, h2.events.ConnectionTerminated)
    assert event.error_code == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM


def test_calls_that_are_reset_at_once_hold_no_place(server: ServerProcess, peer: Peer) -> None:
    for _ in range(2_000):
        try:
            stream = peer.call(LIST, framed(b"x"), end=False)
            peer.http.reset_stream(stream)
            peer.flush()
        except (ConnectionError, OSError):
            break
    with Client(server.address, server.key) as client:
        assert client.projects.ListProjects(projects.ListProjectsRequest()) is not None


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """Made before a peer connects, who would else be silent for as long as that takes."""
    return gzip.compress(b"\0" * (200 << 20))


def test_a_message_is_counted_as_it_is_unpacked(bomb: bytes, peer: Peer) -> None:
    assert len(bomb) < 256 * 1024
    _send(peer, framed(bomb, compressed=True))
    assert peer.outcome()["grpc-status"] == RESOURCE_EXHAUSTED


def _send(peer: Peer, body: bytes) -> None:
    """A call with a body larger than the other side's window."""
    stream = peer.call(LIST, encoding="gzip", end=False)
    while body:
        room = min(peer.http.local_flow_control_window(stream), peer.http.max_outbound_frame_size, len(body))
        if not room:
            peer.wait_for(h2.events.WindowUpdated)
            continue
        peer.http.send_data(stream, body[:room])
        peer.flush()
        body = body[room:]
    peer.http.end_stream(stream)
    peer.flush()


def test_a_message_that_says_it_has_four_gigabytes_is_refused_unread(peer: Peer) -> None:
    peer.call(LIST, framed(b"x", length=2**32 - 1), end=False)
    assert peer.outcome()["grpc-status"] == RESOURCE_EXHAUSTED


def test_a_message_that_is_compressed_and_small_is_answered(server: ServerProcess) -> None:
    with Client(server.address, server.key) as client:
        list_projects = client.channel.unary_unary(LIST)
        metadata = (("authorization", f"Bearer {client.token}"),)
        assert list_projects(b"", metadata=metadata, compression=grpc.Compression.Gzip, timeout=30)
