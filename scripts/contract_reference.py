"""Writes the reference of the contract, as Markdown, from the comments in protos/.

Run by `make generate`; prints to standard output.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodOptions,
    ServiceDescriptorProto,
)

from easyml.v1 import permission_pb2

PREFIX = ".easyml.v1."
SCALARS = {value: name.removeprefix("TYPE_").lower() for name, value in FieldDescriptorProto.Type.items()}
MESSAGE, SERVICE, ENUM, FIELD, METHOD, VALUE, NESTED = 4, 6, 5, 2, 2, 2, 3


class Comments:
    """Leading comments of one file, by the path of what they describe."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._by_path = {
            tuple(location.path): location.leading_comments.strip() for location in file.source_code_info.location
        }

    def text(self, *path: int) -> str:
        lines = (line.strip() for line in self._by_path.get(path, "").splitlines())
        return "\n".join(lines)

    def line(self, *path: int) -> str:
        return " ".join(self.text(*path).split()).replace("|", "\\|")


def anchor(name: str) -> str:
    return f"[{name}](#{name.lower().replace('.', '')})"


def type_of(field: FieldDescriptorProto, maps: dict[str, DescriptorProto]) -> str:
    name = field.type_name
    if name in maps:
        key, value = maps[name].field
        return f"map of {type_of(key, maps)} to {type_of(value, maps)}"
    kind = SCALARS[field.type] if not name else name.removeprefix(".")
    if name.startswith(PREFIX):
        kind = anchor(name.removeprefix(PREFIX))
    elif name:
        kind = f"`{kind}`"
    repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
    return f"repeated {kind}" if repeated else kind


def fields(message: DescriptorProto, comments: Comments, path: tuple[int, ...]) -> Iterator[str]:
    maps = {f"{PREFIX}{message.name}.{n.name}": n for n in message.nested_type if n.options.map_entry}
    if not message.field:
        return
    yield "| Field | No. | Type | Meaning |"
    yield "|---|---|---|---|"
    for index, field in enumerate(message.field):
        meaning = comments.line(*path, FIELD, index)
        if field.HasField("oneof_index") and not field.proto3_optional:
            meaning += f" *One of `{message.oneof_decl[field.oneof_index].name}`.*"
        yield f"| `{field.name}` | {field.number} | {type_of(field, maps)} | {meaning} |"
    yield ""


def service(item: ServiceDescriptorProto, comments: Comments, path: tuple[int, ...]) -> Iterator[str]:
    yield f"## {item.name}\n\n{comments.text(*path)}\n"
    for index, method in enumerate(item.method):
        streams = {True: "stream of ", False: ""}
        permission = permission_pb2.Permission.Name(method.options.Extensions[permission_pb2.permission])
        level = MethodOptions.IdempotencyLevel.Name(method.options.idempotency_level)
        yield f"### {item.name}.{method.name}\n\n{comments.text(*path, METHOD, index)}\n"
        yield f"- Takes {streams[method.client_streaming]}{anchor(method.input_type.removeprefix(PREFIX))}"
        yield f"- Returns {streams[method.server_streaming]}{anchor(method.output_type.removeprefix(PREFIX))}"
        yield f"- Needs `{permission.removeprefix('PERMISSION_')}`"
        if level != "IDEMPOTENCY_UNKNOWN":
            yield f"- `{level}`"
        yield ""


def message(item: DescriptorProto, comments: Comments, path: tuple[int, ...]) -> Iterator[str]:
    yield f"### {item.name}\n\n{comments.text(*path)}\n"
    yield from fields(item, comments, path)


def enum(item: EnumDescriptorProto, comments: Comments, path: tuple[int, ...]) -> Iterator[str]:
    yield f"### {item.name}\n\n{comments.text(*path)}\n"
    yield "| Value | No. | Meaning |"
    yield "|---|---|---|"
    for index, value in enumerate(item.value):
        yield f"| `{value.name}` | {value.number} | {comments.line(*path, VALUE, index)} |"
    yield ""


def reference(files: list[FileDescriptorProto]) -> Iterator[str]:
    yield "# The contract\n"
    yield "Made from the comments in `protos/easyml/v1` by `make generate`; change them there.\n"
    described = [(file, Comments(file)) for file in files]
    yield "Services: " + ", ".join(anchor(s.name) for file in files for s in file.service) + "\n"
    for file, comments in described:
        for index, item in enumerate(file.service):
            yield from service(item, comments, (SERVICE, index))
    yield "## Messages\n"
    for file, comments in described:
        for index, each in enumerate(file.message_type):
            yield from message(each, comments, (MESSAGE, index))
    yield "## Enums\n"
    for file, comments in described:
        for index, each_enum in enumerate(file.enum_type):
            yield from enum(each_enum, comments, (ENUM, index))


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch, "image.binpb")
        subprocess.run(["buf", "build", "protos", "-o", str(image)], check=True)
        files = FileDescriptorSet.FromString(image.read_bytes()).file
    ours = sorted((f for f in files if f.package == "easyml.v1"), key=lambda f: f.name)
    print("\n".join(reference(ours)).rstrip())


if __name__ == "__main__":
    main()
