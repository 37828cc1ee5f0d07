"""Quantities as Kubernetes writes them, names of variables, and what a machine cannot do."""

from __future__ import annotations

from decimal import Decimal

import pytest

from easyml_server.domain.containers import (
    MODEL_SERVER_BYTES,
    Container,
    SecretReference,
    beyond_this_machine,
    cpu_of,
    faults_of,
    faults_on_a_cluster,
    memory_fault,
    memory_of,
)

SECRET = SecretReference("TOKEN", "keys", "token")


@pytest.mark.parametrize(
    ("text", "number"),
    [("2", "2"), ("0.5", "0.5"), ("500m", "0.5"), ("1500m", "1.5"), ("0.001", "0.001")],
)
def test_processors_are_numbers_or_thousandths(text: str, number: str) -> None:
    assert cpu_of(text) == Decimal(number)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("512Mi", 1 << 29),
        ("1.5Gi", 3 << 29),
        ("500M", 500_000_000),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1048576", 1 << 20),
    ],
)
def test_memory_is_in_powers_of_1024_or_1000(text: str, number: int) -> None:
    assert memory_of(text) == number


@pytest.mark.parametrize(
    "text", ["2x", "", "0", "-1", "two", "1,5", "1.", ".5", "2 ", "1e3", "\u0662", "NaN", "inf", "9" * 16]
)
def test_what_is_no_quantity_is_none(text: str) -> None:
    assert cpu_of(text) is None
    assert memory_of(text) is None


@pytest.mark.parametrize("text", ["500m", "1ki", "1KI", "1Pi", "1Mib", "1 Mi"])
def test_other_units_are_none_of_memory(text: str) -> None:
    assert memory_of(text) is None


@pytest.mark.parametrize(
    ("container", "fields"),
    [
        (Container(), []),
        (Container(cpu_limit="2x"), ["cpu_limit"]),
        (Container(cpu_request="2", cpu_limit="500m"), ["cpu_request"]),
        (Container(cpu_request="500m", cpu_limit="0.5"), []),
        (Container(memory_request="1Gi", memory_limit="1G"), ["memory_request"]),
        (Container(memory_limit="lots", memory_request="more"), ["memory_request", "memory_limit"]),
        (Container(environment=(("TZ", "UTC"), ("_a1", ""))), []),
        (
            Container(environment=(("1A", ""), ("A-B", ""), ("", ""))),
            ['environment["1A"]', 'environment["A-B"]', 'environment[""]'],
        ),
        (Container(environment=(("TZ", "UTC"),), secrets=(SecretReference("TZ", "s", "k"),)), ["secrets[0].variable"]),
        (Container(secrets=(SECRET, SECRET)), ["secrets[1].variable"]),
        (Container(secrets=(SecretReference("PATH", "s", "k"),)), ["secrets[0].variable"]),
    ],
)
def test_every_fault_is_named_by_its_field(container: Container, fields: list[str]) -> None:
    assert [field for field, _ in faults_of(container)] == fields


@pytest.mark.parametrize(
    "name", ["EASYML_FAULT", "PATH", "LD_PRELOAD", "DYLD_INSERT_LIBRARIES", "PYTHONPATH", "pythonhome", "Path", "HOME"]
)
def test_what_decides_how_a_model_server_runs_is_not_allowed(name: str) -> None:
    ((field, said),) = faults_of(Container(environment=((name, "x"),)))
    assert field == f'environment["{name}"]'
    assert said.endswith("leave it out.")


def test_what_processes_cannot_have_is_named() -> None:
    everything = Container("python:3", "1", "2", "1Gi", "2Gi", (("TZ", "UTC"),), (SECRET,))
    assert list(faults_of(everything)) == []
    fields = [field for field, _ in beyond_this_machine(everything)]
    assert fields == ["base_image", "cpu_request", "cpu_limit", "memory_request", "secrets"]
    assert list(beyond_this_machine(Container(memory_limit="2Gi", environment=(("TZ", "UTC"),)))) == []


def test_a_cluster_takes_everything_that_can_be_written_there() -> None:
    everything = Container("python:3", "1", "2", "1Gi", "2Gi", (("TZ", "UTC"),), (SECRET,))
    assert list(faults_on_a_cluster(everything)) == []
    odd = Container("two words", secrets=(SecretReference("A", "No_Name", "k"), SecretReference("B", "s", "a key")))
    assert [field for field, _ in faults_on_a_cluster(odd)] == ["base_image", "secrets[0].secret", "secrets[1].key"]


@pytest.mark.parametrize(
    ("image", "right"),
    [
        ("easyml", True),
        ("registry.example:5000/team/easyml_models:1.2-rc.1", True),
        ("REGISTRY.example/easyml@sha256:" + "0" * 64, True),
        ("localhost/easyml:v1@sha256:" + "a" * 64, True),
        ("easyml :1", False),
        ("https://registry.example/easyml", False),
        ("Easyml", False),
        ("easyml:", False),
        ("easyml@sha256:12", False),
        ("-easyml", False),
    ],
)
def test_an_image_is_written_as_registries_do(image: str, right: bool) -> None:
    assert ([] if right else ["base_image"]) == [field for field, _ in faults_on_a_cluster(Container(image))]


def test_a_limit_leaves_room_for_the_model() -> None:
    needed = MODEL_SERVER_BYTES + 1_000_000
    assert memory_fault(Container(), 1_000_000) == ""
    assert memory_fault(Container(memory_limit=str(needed)), 1_000_000) == ""
    said = memory_fault(Container(memory_limit=str(needed - 1)), 1_000_000)
    assert f"cannot be served in less than {needed:,}" in said
    assert said.endswith("such as 194Mi.")
