"""Whether the server can be reached and works."""

from __future__ import annotations

from grpc_health.v1 import health_pb2

from easyml_client.steps import Plan, call


def check(service: str = "") -> Plan[str]:
    """Whether it is "serving" or "not_serving"; the empty service is readiness, "liveness" touches no store."""
    response = yield from call(health_pb2.HealthCheckRequest(service=service), health_pb2.HealthCheckResponse)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status).lower()
