"""What the benchmark's peers are made of: they load what this version stores."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from benchmarks.serving.environments import NAMES, PEERS, version
from benchmarks.serving.servers import PEER_KINDS

ROOT = Path(__file__).parents[2]


def pinned(peer: str) -> dict[str, str]:
    lines = (PEERS / f"{peer}.requirements.txt").read_text().splitlines()
    found = (line.removesuffix(" \\").split("==") for line in lines if "==" in line)
    return {name: rest.split()[0] for name, rest in found}


def test_every_peer_can_be_started() -> None:
    assert set(NAMES) == set(PEER_KINDS)


@pytest.mark.parametrize("peer", NAMES)
def test_peers_have_our_version_of_what_reads_a_stored_model(peer: str) -> None:
    locked = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    ours = {each["name"]: each["version"] for each in locked if "version" in each}
    theirs = pinned(peer)
    assert version(peer) == theirs[peer]
    assert {name: theirs[name] for name in ("scikit-learn", "skops")} == {
        name: ours[name] for name in ("scikit-learn", "skops")
    }
