"""The volumes of a pod as folders, and paths in them as processes have to name them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kubernetes.aio.client import V1Container, V1KeyToPath, V1Volume

from tests.kubernetes.kubelet.causes import NotYet
from tests.kubernetes.kubelet.configuration import Configuration

EVERY_ADDRESS = re.compile(r"(?<![\d.])0\.0\.0\.0(?![\d.])")


@dataclass(frozen=True)
class Places:
    """What a container sees: folders by mount path, and the address that it listens on."""

    folders: Mapping[str, Path]
    address: str

    def real(self, text: str) -> str:
        """An argument or a variable as it is on this machine."""
        if self.folders:
            # In one go: a folder may itself lie below what is the path of another.
            paths = "|".join(re.escape(path) for path in sorted(self.folders, key=len, reverse=True))
            found = re.compile(rf"(?P<before>^|[=:,])(?P<path>{paths})(?=/|$|[,:])")
            text = found.sub(lambda match: f"{match['before']}{self.folders[match['path']]}", text)
        return EVERY_ADDRESS.sub(self.address, text)


async def filled(volumes: Sequence[V1Volume], folder: Path, configuration: Configuration) -> dict[str, Path]:
    """The folder of each volume, with what is in it now; called again, with what is in it then."""
    made = {}
    for volume in volumes:
        if volume.projected:
            continue  # a service account's token, which nobody would find
        where = made[volume.name] = folder / volume.name
        where.mkdir(parents=True, exist_ok=True)
        try:
            await _fill(volume, where, configuration)
        except NotYet as cause:
            message = f'MountVolume.SetUp failed for volume "{volume.name}" : {cause.message}'
            raise NotYet("ContainerCreating", message, event="FailedMount") from cause
    return made


async def _fill(volume: V1Volume, where: Path, configuration: Configuration) -> None:
    if volume.config_map:
        source = volume.config_map
        _write(where, await configuration.config_map(source.name, optional=source.optional), source.items)
    elif volume.secret:
        source = volume.secret
        _write(where, await configuration.secret(source.secret_name, optional=source.optional), source.items)
    elif not volume.empty_dir:
        raise NotYet("ContainerCreating", "this kubelet has no volumes of that kind")


def mounted(container: V1Container, volumes: Mapping[str, Path]) -> dict[str, Path]:
    """Folders, or files, by mount path."""
    return {
        mount.mount_path.rstrip("/"): volumes[mount.name] / (mount.sub_path or "")
        for mount in container.volume_mounts or []
        if mount.name in volumes
    }


def _write(folder: Path, content: Mapping[str, bytes], items: Sequence[V1KeyToPath] | None) -> None:
    names = {item.key: item.path for item in items} if items else {key: key for key in content}
    wanted = set()
    for key, name in names.items():
        if key not in content:
            raise NotYet("ContainerCreating", f"references non-existent config key: {key}")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whoever reads it meets the old content or the new.
        fresh = folder / ".fresh"
        fresh.write_bytes(content[key])
        fresh.rename(path)
        wanted.add(path)
    for path in folder.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()
