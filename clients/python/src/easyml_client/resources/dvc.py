"""Versions as plain DVC knows them."""

from __future__ import annotations

import datetime as dt

from easyml.v1 import dvc_pb2
from easyml_client.resources.base import Resource


class DvcPointer(Resource[dvc_pb2.DvcPointer]):
    """What plain DVC needs to pull a version; `state` is "pending", "added" or "pushed"."""

    state: str | None
    file_name: str
    content: str
    remote_name: str
    remote_url: str
    md5: str
    size_bytes: int
    paths: tuple[str, ...]
    add_time: dt.datetime | None
    push_time: dt.datetime | None
    problem: str
