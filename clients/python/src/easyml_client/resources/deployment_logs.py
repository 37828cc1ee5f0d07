"""What the replicas of a deployment wrote."""

from __future__ import annotations

import datetime as dt

from easyml.v1 import deployment_logs_pb2
from easyml_client.resources.base import Resource


class LogLine(Resource[deployment_logs_pb2.DeploymentLogLine]):
    """A line of a replica, and when it was written where it says that.

    So many lines of it before were left out, because they came faster than they were read.
    """

    replica_id: str
    revision: int
    text: str
    line_time: dt.datetime | None
    omitted_lines: int
