"""The contract's words compared with the server's."""

from __future__ import annotations

import re
from typing import Any

import pytest
from google.protobuf.descriptor import MethodDescriptor

from easyml.v1 import error_reason_pb2, permission_pb2
from easyml_server.domain.errors import Reason
from easyml_server.domain.users import Permission
from easyml_server.ports.model_servers import StreamCall, UnaryCall
from easyml_server.settings import Settings
from easyml_server.transport.converters import enums
from easyml_server.transport.methods import CallClass, MissingPermissionError, methods_of
from easyml_server.transport.server import CONTRACT
from inference import open_inference_grpc_pb2
from tests.servers import ROOT, documented_codes

METHODS = [m for file in CONTRACT for s in file.DESCRIPTOR.services_by_name.values() for m in s.methods]
PROTOS = {path.name: path.read_text() for path in (ROOT / "protos/easyml/v1").glob("*.proto")}
ORDERS = {"ProjectOrder", "DatasetOrder", "ExperimentOrder"}
ANSWERED_ONLY = {"ErrorReason", "ResourceView", "CellNoteKind"}
"""Enums that the server compares by number, or that another process writes."""


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def test_a_method_without_a_permission_stops_the_start() -> None:
    from google.protobuf import descriptor_pb2, descriptor_pool

    file = descriptor_pb2.FileDescriptorProto(name="bare.proto", package="bare", syntax="proto3")
    file.message_type.add(name="Nothing")
    file.service.add(name="BareService").method.add(name="Do", input_type=".bare.Nothing", output_type=".bare.Nothing")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    with pytest.raises(MissingPermissionError):
        methods_of([pool.FindFileByName("bare.proto")])


@pytest.mark.parametrize("method", METHODS, ids=path_of)
def test_every_method_has_a_permission_and_a_comment(method: MethodDescriptor) -> None:
    assert method.GetOptions().Extensions[permission_pb2.permission] != permission_pb2.PERMISSION_UNSPECIFIED
    assert re.search(
        rf"// \w.*\n(  //.*\n)*  rpc {method.name}\(", PROTOS[method.containing_service.file.name.rpartition("/")[2]]
    )
    assert (method.input_type.name, method.output_type.name) == (f"{method.name}Request", f"{method.name}Response")


@pytest.mark.parametrize("method", METHODS, ids=path_of)
def test_a_method_that_changes_nothing_says_so(method: MethodDescriptor) -> None:
    reads = (
        re.match(r"(Get|List|Watch|Compare|Download|Export|Preview|Select|Validate|Render|Predict$)", method.name)
        is not None
    )
    assert (method.GetOptions().idempotency_level == 1) == reads


def test_uploads_streams_and_predictions_are_admitted_by_classes_of_their_own() -> None:
    found = {path.rpartition("/")[2]: m.call_class for path, m in methods_of(f.DESCRIPTOR for f in CONTRACT).items()}
    assert {name for name, kind in found.items() if kind is CallClass.UPLOAD} == {"UploadDataset"}
    assert {name for name, kind in found.items() if kind is CallClass.PREDICTION} == {"Predict"}
    watches = {"WatchTraining", "WatchDeployment", "WatchDeploymentLogs"}
    streams = {*watches, "DownloadDataset", "ExportModel", "StreamPredict"}
    assert {name for name, kind in found.items() if kind is CallClass.STREAM} == streams


def test_the_open_inference_protocol_asks_for_a_token_wherever_a_model_is_named() -> None:
    found = methods_of([open_inference_grpc_pb2.DESCRIPTOR])
    public = {path.rpartition("/")[2] for path, method in found.items() if method.permission is Permission.PUBLIC}
    assert public == {"ServerLive", "ServerReady", "ServerMetadata"}
    assert {path for path, method in found.items() if method.raw} == {
        call for call in (*UnaryCall, *StreamCall) if call.startswith("/inference.")
    }
    kinds = {path.rpartition("/")[2]: method.call_class for path, method in found.items()}
    assert (kinds["ModelInfer"], kinds["ModelStreamInfer"]) == (CallClass.PREDICTION, CallClass.STREAM)


def test_permissions_have_the_contracts_numbers() -> None:
    for permission in Permission:
        assert enums.PERMISSION.to_proto(permission) == permission.value


@pytest.mark.parametrize("name", [name for name, each in vars(enums).items() if isinstance(each, enums.EnumCodec)])
def test_an_enum_goes_to_the_wire_and_back(name: str) -> None:
    codec: Any = getattr(enums, name)
    members = list(codec._to_number)
    assert [codec.get(codec.to_proto(member)) for member in members] == members
    assert (codec.to_proto(None), codec.find(0)) == (0, None)


def test_every_enum_of_the_contract_is_translated() -> None:
    declared = {name for text in PROTOS.values() for name in re.findall(r"^enum (\w+)", text, re.MULTILINE)}
    source = (ROOT / "easyml_server/transport/converters/enums.py").read_text()
    translated = set(re.findall(r"_pb2\.(\w+)\)$", source, re.MULTILINE))
    assert declared - translated == ORDERS | ANSWERED_ONLY


def test_reasons_are_those_of_the_contract() -> None:
    declared = {value.name for value in error_reason_pb2.ErrorReason.DESCRIPTOR.values if value.number}
    assert {name.removeprefix("ERROR_REASON_") for name in declared} == {reason.value for reason in Reason}


def test_the_comment_of_each_reason_names_its_status() -> None:
    assert set(documented_codes()) == {reason.value for reason in Reason}


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_setting_is_explained(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description
    assert description.endswith(".")
