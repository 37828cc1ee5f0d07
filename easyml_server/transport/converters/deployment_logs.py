"""Lines of the logs of a deployment."""

from __future__ import annotations

from collections.abc import Sequence

from easyml.v1 import deployment_logs_pb2 as pb
from easyml_server.domain.deployment_logs import LogLine
from easyml_server.services.deployment_changes import Deleted, Heartbeat
from easyml_server.transport.converters.values import timestamp


def logs_to_proto(said: Sequence[LogLine] | Heartbeat | Deleted) -> pb.WatchDeploymentLogsResponse:
    """A message of the stream."""
    match said:
        case Heartbeat(time):
            return pb.WatchDeploymentLogsResponse(heartbeat=pb.DeploymentLogHeartbeat(heartbeat_time=timestamp(time)))
        case Deleted():
            return pb.WatchDeploymentLogsResponse(deleted=pb.DeploymentLogDeleted())
        case _:
            lines = pb.DeploymentLogLines(lines=[_line_to_proto(line) for line in said])
            return pb.WatchDeploymentLogsResponse(lines=lines)


def _line_to_proto(line: LogLine) -> pb.DeploymentLogLine:
    return pb.DeploymentLogLine(
        replica_id=str(line.replica_id),
        revision=line.revision,
        text=line.text,
        line_time=timestamp(line.time),
        omitted_lines=line.omitted,
    )
