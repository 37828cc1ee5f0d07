"""Pointer files and remotes of DVC, written where a person works: in a git repository, a DVC one, or a plain folder."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

from easyml_client.errors import InvalidInput
from easyml_client.resources.dvc import DvcPointer

_OURS = "easyml-"
_UNSAFE = re.compile(r"[^\w.-]+")


def write(pointer: DvcPointer, name: str, folder: Path) -> Path:
    """Write `folder/<name>/<pointer file>`, and its remote into the `.dvc/config` above; the path of the pointer.

    What is there stays, and files of the same name must hold the same text; but a remote that the server has moved gets
    its new URL, since all versions are brought there.
    """
    _check(pointer)
    root = _dvc_root(folder.absolute())
    path = folder / (_UNSAFE.sub("-", name).strip(".-") or "data") / pointer.file_name
    try:
        _add_remote(root / ".dvc" / "config", pointer.remote_name, pointer.remote_url, in_git=_above(root, ".git"))
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_once(path, pointer.content)
        if _above(root, ".git"):
            _ignore(path.parent / ".gitignore", f"/{path.stem}")
    except OSError as error:
        raise InvalidInput.at("folder", f"{error.filename or folder} cannot be written: {error.strerror}.") from error
    return path


def _check(pointer: DvcPointer) -> None:
    """A server names a file, never a place; and a value of the configuration, never another one."""
    for value, pattern in (
        (pointer.file_name, r"v\d+\.dvc"),
        (pointer.remote_name, r"[\w-]+"),
        (pointer.remote_url, r"[^\x00-\x1f]+"),
    ):
        if not re.fullmatch(pattern, value):
            raise InvalidInput.at("pointer", f"The server sent a pointer with {value!r} in it; nothing was written.")


def _dvc_root(folder: Path) -> Path:
    """The DVC repository that a folder is in; else the git repository, else the folder itself."""
    for marker in (".dvc", ".git"):
        for each in (folder, *folder.parents):
            if (each / marker).is_dir() and each != Path.home():
                return each
    return folder


def _above(folder: Path, marker: str) -> bool:
    return any((each / marker).exists() for each in (folder, *folder.parents))


def _add_remote(config: Path, name: str, url: str, *, in_git: bool) -> None:
    section = f"'remote \"{name}\"'"
    found = configparser.ConfigParser(interpolation=None)
    if config.exists():
        found.read_string(config.read_text(encoding="utf-8"))
    if found.has_section(section):
        if found.get(section, "url", fallback="") != url:
            _move_remote(config, section, name, url)
        return
    text = config.read_text(encoding="utf-8") if config.exists() else _new_config(name, in_git=in_git)
    config.parent.mkdir(parents=True, exist_ok=True)
    if in_git:
        for ours in ("/config.local", "/tmp", "/cache"):  # noqa: S108 - a pattern of git
            _ignore(config.with_name(".gitignore"), ours)
    config.write_text(f"{text}[{section}]\n    url = {url}\n", encoding="utf-8")


def _move_remote(config: Path, section: str, name: str, url: str) -> None:
    """Only one of ours, by its name: whatever else is called in a repository is none of a server's."""
    found = re.compile(rf"(?ms)^(\[{re.escape(section)}\][^\[]*?^[ \t]*url[ \t]*=[ \t]*)[^\n]*$")
    text, moved = found.subn(lambda match: match[1] + url, config.read_text(encoding="utf-8"))
    if not (moved and name.startswith(_OURS)):
        raise InvalidInput.at("folder", f"{config} has another URL for the remote {name}; it should be {url}.")
    config.write_text(text, encoding="utf-8")


def _new_config(name: str, *, in_git: bool) -> str:
    return f"[core]\n    remote = {name}\n" + ("" if in_git else "    no_scm = True\n")


def _write_once(path: Path, text: str) -> None:
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise InvalidInput.at(
            "folder", f"{path} is there already and says something else; move it, or choose a folder."
        )
    path.write_text(text, encoding="utf-8")


def _ignore(path: Path, line: str) -> None:
    """As `dvc init` and `dvc add` do: files and caches belong to DVC, pointers to git."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if line not in lines:
        path.write_text("\n".join([*lines, line, ""]), encoding="utf-8")
