"""What MongoDB itself holds documents to: `$jsonSchema` validators made of the models, and indexes.

A document there is an envelope around the body: its id, its project, the revision of its newest write, and for what
was deleted the time to forget it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from easyml_server.repositories.documents.document import Document
from easyml_server.repositories.documents.encoding import INT

EXPIRE = "expire_time"
TOMBSTONE_SECONDS = 86_400
"""What was deleted is remembered this long, so that a late write does not bring it back."""
_TYPES = {"string": "string", "boolean": "bool", "null": "null", "object": "object", "array": "array"}
_LARGE = {"bsonType": "object", "required": [INT], "additionalProperties": False, "properties": {INT: {}}}


@dataclass(frozen=True, slots=True)
class Index:
    """One index by its name."""

    name: str
    field: str
    options: Mapping[str, Any]


INDEXES: Sequence[Index] = (
    Index("ix_project_id", "project_id", {}),
    Index("ix_schema_version", "body.schema_version", {}),
    Index("ix_expire_time", EXPIRE, {"expireAfterSeconds": 0}),
)


def validator_of(kind: type[Document]) -> Mapping[str, Any]:
    """The validator of a collection."""
    schema = kind.model_json_schema(mode="serialization")
    body = _translated(schema, schema.get("$defs", {}))
    return {
        "$jsonSchema": {
            "bsonType": "object",
            "required": ["_id", "project_id", "revision", "body"],
            "properties": {
                "_id": {"bsonType": "binData"},
                "project_id": {"bsonType": "binData"},
                "revision": {"bsonType": ["int", "long"]},
                "body": {"anyOf": [{"bsonType": "null"}, body]},
                EXPIRE: {"bsonType": "date"},
            },
        }
    }


def _translated(schema: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON schema of Pydantic's in the words that MongoDB knows: types of BSON, no references."""
    if "$ref" in schema:
        return _translated(shared[schema["$ref"].rpartition("/")[2]], shared)
    if "anyOf" in schema:
        return {"anyOf": [_translated(each, shared) for each in schema["anyOf"]]}
    kind = schema.get("type")
    if kind == "integer":
        return {"anyOf": [{"bsonType": ["int", "long"]}, _LARGE]}
    if kind == "number":
        return {"anyOf": [{"bsonType": ["double", "int", "long"]}, _LARGE]}
    made: dict[str, Any] = {"bsonType": _TYPES[kind]} if kind else {}
    if "enum" in schema:
        made["enum"] = schema["enum"]
    if "properties" in schema:
        made["properties"] = {name: _translated(each, shared) for name, each in schema["properties"].items()}
        made["required"] = sorted(schema["properties"])
        made["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), Mapping):
        made["additionalProperties"] = _translated(schema["additionalProperties"], shared)
    if "items" in schema:
        made["items"] = _translated(schema["items"], shared)
    return made
