"""Settings of a Dask cluster that cannot be right, whether it is there or not."""

from __future__ import annotations

import dask
import pytest

from easyml_server.cluster import check_dask
from easyml_server.data_folder import StartError
from easyml_server.settings import Settings

FILES = "file:///srv/easyml"


@pytest.mark.parametrize(
    "address",
    ["", "127.0.0.1", "127.0.0.1:8786", "http://127.0.0.1:8786", "tcp://127.0.0.1", "tcp://127.0.0.1:port",
     "tcp://:8786", "tcp://127.0.0.1:99999", "tcp://user:secret@127.0.0.1:8786", "tls://h:8786/path", "tcp://[::1:1"],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_an_example(address: str) -> None:
    with pytest.raises(StartError, match=r"EASYML_DASK_ADDRESS .* write tcp://host:8786") as refused:
        check_dask(Settings(dask_address=address, artifact_url=FILES))
    assert "secret" not in str(refused.value)


def test_plaintext_to_other_machines_is_for_those_who_say_so() -> None:
    address = "tcp://dask.example.org:8786"
    with pytest.raises(StartError, match="EASYML_ALLOW_PLAINTEXT"):
        check_dask(Settings(dask_address=address, artifact_url=FILES))
    check_dask(Settings(dask_address=address, artifact_url=FILES, allow_plaintext=True))


@pytest.mark.parametrize(
    ("configured", "words"),
    [({}, "there are none"), ({"client.cert": "/nowhere", "ca-file": "/nowhere"}, "cannot be read")],
)
def test_tls_needs_certificates(configured: dict[str, str], words: str) -> None:
    with (
        dask.config.set({f"distributed.comm.tls.{name}": value for name, value in configured.items()}),
        pytest.raises(StartError, match=f"{words}.*DASK_DISTRIBUTED__COMM__TLS__CA_FILE"),
    ):
        check_dask(Settings(dask_address="tls://dask.example.org:8786", artifact_url=FILES))


def test_workers_need_to_see_the_files() -> None:
    with pytest.raises(StartError, match="EASYML_ARTIFACT_URL"):
        check_dask(Settings(dask_address="tcp://127.0.0.1:8786"))
    for url in (FILES, "s3://bucket/easyml"):
        check_dask(Settings(dask_address="tcp://127.0.0.1:8786", artifact_url=url))


def test_a_cluster_gives_its_workers_memory_unless_the_setting_does() -> None:
    assert Settings(dask_address="tcp://127.0.0.1:8786").limits().worker_memory_bytes == 0
    assert (
        Settings(dask_address="tcp://127.0.0.1:8786", worker_memory_bytes=1 << 30).limits().worker_memory_bytes
        == 1 << 30
    )
    assert Settings().limits().worker_memory_bytes > 0
