"""Asks the server of a data folder whether it serves: for the health checks of containers and service managers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from easyml_server.data_folder import DataFolder


def probe(root: Path, service: str, seconds: float) -> str:
    """What the health service says, such as SERVING; a word of gRPC's where there is no answer.

    `service` is "" for readiness, "liveness", or a service of the contract.
    """
    try:
        said = json.loads(DataFolder(root.expanduser().absolute()).server_file.read_text())
    except (OSError, ValueError):
        return "NOT_RUNNING"
    try:
        with _channel(said) as channel:
            request = health_pb2.HealthCheckRequest(service=service)
            health: Any = health_pb2_grpc.HealthStub(channel)
            answer = health.Check(request, timeout=seconds, wait_for_ready=True)
    except grpc.RpcError as error:
        return str(error.code().name)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def _channel(said: dict[str, str]) -> grpc.Channel:
    """To the address that the server announced; the certificate it names is the one to expect."""
    address = said["address"].replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")
    if not said.get("ca_file"):
        return grpc.insecure_channel(address)
    options = [("grpc.ssl_target_name_override", said["server_name"])] if said.get("server_name") else []
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(Path(said["ca_file"]).read_bytes()), options)
