"""Files on their way out (chunks, resumed where they broke) and in (written aside, checked, renamed)."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from google.protobuf.message import Message

from easyml_client.errors import InvalidInput, LimitReached, TransferCorrupted, Unavailable
from easyml_client.plans.waiting import Patience
from easyml_client.steps import Opened, Plan, opened, work

CHUNK_BYTES = 512 * 1024

Progress = Callable[[int, int], object]
"""Called with the bytes done so far and the bytes in all, possibly from another thread."""

Part = TypeVar("Part", bound=Message)


@dataclass(frozen=True)
class Parcel:
    """A file to send, as it is stated to the server."""

    path: Path
    filename: str
    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path, filename: str | None = None) -> Parcel:
        """Reads the file once for its SHA-256."""
        try:
            with path.open("rb") as file:
                size, digest = os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256")
        except OSError as error:
            raise InvalidInput.at("path", f"{path} cannot be read: {error.strerror}.") from error
        if not size:
            raise InvalidInput.at("path", f"{path} is empty; a table needs a header and rows.")
        return cls(path, filename or path.name, size, digest.hexdigest())

    def chunks(self, offset: int, progress: Progress | None) -> Iterator[bytes]:
        """The bytes from an offset on; progress is told what was taken."""
        tell = progress or (lambda _done, _total: None)
        tell(offset, self.size_bytes)
        with self.path.open("rb") as file:
            file.seek(offset)
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
                offset += len(chunk)
                tell(offset, self.size_bytes)


@contextlib.contextmanager
def frame_file(frame: Any, name: str) -> Iterator[Path]:
    """A pandas DataFrame as a file that lasts as long as the block: Parquet, or CSV where pyarrow is not installed."""
    with tempfile.TemporaryDirectory(prefix="easyml-") as folder:
        if importlib.util.find_spec("pyarrow"):
            path = Path(folder) / f"{_file_name(name)}.parquet"
            frame.to_parquet(path, index=False)
        else:
            path = Path(folder) / f"{_file_name(name)}.csv"
            frame.to_csv(path, index=False)
        yield path


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_. " else "_" for letter in name)[:200]


class Arrival:
    """A file that is written aside and takes its name when it is whole."""

    def __init__(self, wanted: Path | None, filename: str) -> None:
        """Without a wanted path, or where that is a folder, the server names the file; never its folders.

        A name that nobody here chose replaces nothing: raises InvalidInput where a file has it.
        """
        name = Path(filename).name or "download"
        chosen = wanted is not None and not wanted.is_dir()
        self.path = wanted if wanted is not None and chosen else (wanted or Path()) / name
        if not chosen and self.path.exists():
            raise InvalidInput.at("path", f"{self.path} is there already; name the file to replace it or to keep both.")
        handle, aside = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.", suffix=".part")
        self._aside = Path(aside)
        self._file: IO[bytes] = os.fdopen(handle, "wb")
        self._digest = hashlib.sha256()
        self.received = 0

    def write(self, chunk: bytes) -> None:
        """The next bytes."""
        self._file.write(chunk)
        self._digest.update(chunk)
        self.received += len(chunk)

    def finish(self, size_bytes: int, sha256: str) -> Path:
        """Checks what came against what was announced; only then the file has its name."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if (self.received, self._digest.hexdigest()) != (size_bytes, sha256):
            self.discard()
            raise TransferCorrupted(
                f"{self.path.name} arrived damaged ({self.received} of {size_bytes} bytes, or other bytes). "
                "Nothing was kept; download it again."
            )
        self._aside.chmod(0o666 & ~_umask())
        self._aside.replace(self.path)
        return self.path

    def discard(self) -> None:
        """Leaves nothing behind."""
        self._file.close()
        self._aside.unlink(missing_ok=True)


def _umask() -> int:
    """The umask can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def told_format(path: str | os.PathLike[str] | None, endings: Mapping[str, str]) -> str | None:
    """The format that a file's ending says; None for a folder, and where no ending of ours is there."""
    return endings.get(Path(path).suffix.lower()) if path is not None else None


def arrive(
    request: Message, response: type[Part], path: str | os.PathLike[str] | None, progress: Progress | None
) -> Plan[Path]:
    """Saves a stream of a header and chunks; begins anew if it breaks."""
    patience, wanted = Patience(), Path(path) if path is not None else None
    while True:
        try:
            stream = yield from opened(request, response)
            return (yield from _save(stream, wanted, progress))
        except (Unavailable, LimitReached) as error:
            yield from patience.wait(error)


def _save(stream: Opened[Any], wanted: Path | None, progress: Progress | None) -> Plan[Path]:
    first = yield from stream.receive()
    if first is None or first.WhichOneof("part") != "header":
        raise TransferCorrupted("The server sent no header before the file. Nothing was kept; try again.")
    header = first.header
    try:
        arrival = yield from work(lambda: Arrival(wanted, header.filename))
    except OSError as error:
        raise InvalidInput.at("path", f"{wanted or header.filename} cannot be written: {error.strerror}.") from error
    try:
        while (part := (yield from stream.receive())) is not None:
            yield from work(lambda chunk=part.chunk: arrival.write(chunk))  # type: ignore[misc]  # a lambda's default
            if progress:
                progress(arrival.received, header.size_bytes)
        return (yield from work(lambda: arrival.finish(header.size_bytes, header.sha256)))
    finally:
        arrival.discard()


def as_frame(path: Path) -> Any:
    """A downloaded Parquet or CSV file as a pandas DataFrame; the file is deleted."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("to_frame() needs pandas: pip install 'easyml-client[pandas]'") from error
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    finally:
        shutil.rmtree(path.parent, ignore_errors=True)
