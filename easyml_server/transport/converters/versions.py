"""DVC pointers on the wire."""

from __future__ import annotations

from easyml.v1 import dvc_pb2
from easyml_server.domain.versioning import DvcPointer, DvcState
from easyml_server.transport.converters.enums import DVC_STATE
from easyml_server.transport.converters.values import timestamp


def pointer_to_proto(pointer: DvcPointer | None) -> dvc_pb2.DvcPointer:
    """None is a version that is not added yet."""
    if pointer is None:
        return dvc_pb2.DvcPointer(state=DVC_STATE.to_proto(DvcState.PENDING))
    added = pointer.added
    return dvc_pb2.DvcPointer(
        state=DVC_STATE.to_proto(pointer.state),
        file_name=added.file_name,
        content=added.content,
        remote_name=pointer.remote_name,
        remote_url=pointer.remote_url,
        md5=added.md5,
        size_bytes=added.size_bytes,
        paths=added.paths,
        add_time=timestamp(pointer.add_time),
        push_time=timestamp(pointer.push_time),
        problem=pointer.problem or "",
    )
