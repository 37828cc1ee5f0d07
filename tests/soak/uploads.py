"""Uploads: sent, left in the middle, continued, and repeated until they are answered."""

from __future__ import annotations

import hashlib
from pathlib import Path
from uuid import uuid4

from tests.builders import a_table
from tests.soak.journal import LeftEarly
from tests.soak.tools import Tools

SMALL_ROWS, LARGE_ROWS = 60, 70_000
"""A large one has two chunks, so that it can be left between them."""
LARGE_BYTES = 1 << 19


class Uploads:
    """Those of one client; one after the other, so that they do not use up what a user may leave unfinished."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self.left: dict[str, tuple[Path, str]] = {}
        """Those that are not known to have ended: file and name."""

    def upload(self) -> None:
        """Continue the one that was left, or send a new one; leave some in the middle."""
        if not self.left:
            self._make_a_file()
        upload_id = next(iter(self.left))
        large = self.left[upload_id][0].stat().st_size > LARGE_BYTES
        self.send(upload_id, leave=large and self._tools.draw.random() < 0.5)

    def _make_a_file(self) -> None:
        upload_id, number = str(uuid4()), self._tools.draw.randrange(1 << 30)
        path = self._tools.folder / f"{upload_id}.csv"
        rows = LARGE_ROWS if self._tools.draw.random() < 0.25 else SMALL_ROWS
        # No two are the same.
        path.write_bytes(a_table(rows) + f"{number / 1000:.3f},{number},a\n".encode())
        self.left[upload_id] = (path, f"table-{upload_id}")

    def send(self, upload_id: str, *, leave: bool) -> None:
        """From where its safe bytes end."""
        path, name = self.left[upload_id]
        content = path.read_bytes()
        asked = {
            "project": self._tools.shelf.project_id,
            "upload": upload_id,
            "name": name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "size": len(content),
            "leave": leave,
        }

        def progress(done: int, total: int) -> None:
            if leave and 0 < done < total:
                raise LeftEarly

        with self._tools.journal.call("upload", **asked) as told:
            dataset = self._tools.easyml.datasets.upload(
                self._tools.shelf.project_id,
                path,
                name=name,
                labels={"upload": upload_id},
                progress=progress,
                upload_id=upload_id,
            )
            current = dataset.current_version
            told.update(dataset=dataset.id, etag=dataset.etag, version=current.id if current else "")
        del self.left[upload_id]
        path.unlink()
        self._tools.shelf.add_dataset(dataset.id, dataset.etag)
