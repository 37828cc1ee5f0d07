"""Whether a folder's locks hold for all who share it, is told from how it is mounted and from a try."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path
from typing import Any

import pytest

from easyml_server.processes import locks
from easyml_server.processes.locks import NoLocksError, check_locks


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder below a mount whose name has a blank."""
    mounts = tmp_path / "mounts"
    monkeypatch.setattr(locks, "MOUNTS", mounts)
    folder = tmp_path / "on nfs" / "easyml"
    folder.mkdir(parents=True)
    return folder


def mounted(shared: Path, kind: str, options: str) -> None:
    place = str(shared.parent).replace(" ", r"\040")
    locks.MOUNTS.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/srv {place} {kind} {options} 0 0\n")


def test_a_file_system_that_knows_flock_will_do(shared: Path) -> None:
    check_locks(shared)
    mounted(shared, "nfs4", "rw,vers=4.2,local_lock=none")
    check_locks(shared)
    assert list(shared.iterdir()) == []


@pytest.mark.parametrize("option", ["nolock", "local_lock=all", "local_lock=flock", "nobrl"])
def test_locks_that_are_this_machines_own_are_told(shared: Path, option: str) -> None:
    mounted(shared, "nfs", f"rw,{option},vers=3")
    with pytest.raises(NoLocksError, match=f"on nfs is mounted with {option}"):
        check_locks(shared)


def test_of_two_mounts_at_one_place_the_later_counts(shared: Path) -> None:
    mounted(shared, "nfs", "rw,nolock")
    lines = locks.MOUNTS.read_text()
    mounted(shared, "nfs4", "rw")
    locks.MOUNTS.write_text(lines + locks.MOUNTS.read_text())
    check_locks(shared)


def test_a_file_system_without_flock_is_told(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(NoLocksError, match="does not know flock"):
        check_locks(shared)


def test_a_file_system_that_lets_two_hold_one_lock_is_told(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    with pytest.raises(NoLocksError, match="lets two hold one lock"):
        check_locks(shared)
