"""`easyml deployments logs`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from easyml_client.cli.common import EVERYWHERE, Common, ProjectOption, connected, project_for
from easyml_client.cli.output import clean
from easyml_client.resources.base import plain

if TYPE_CHECKING:
    from easyml_client.resources.deployment_logs import LogLine


def logs(
    deployment: str,
    /,
    *,
    tail: int = 100,
    follow: bool = False,
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> None:
    """Show what the replicas of a deployment wrote, by time; with --follow until Ctrl-C or until it is deleted.

    Example: `easyml deployments logs churn --tail 20 --follow`

    :param deployment: Name or id.
    :param tail: So many of the last lines of each replica.
    :param follow: Go on with what is written from now on.
    """
    with connected(common) as client:
        of_project = project_for(client, deployment, project)
        for line in client.deployments.logs(deployment, project=of_project, tail=tail, follow=follow):
            if common.json:
                print(json.dumps(plain(line), ensure_ascii=False), flush=True)
            else:
                _print(line)


def _print(line: LogLine) -> None:
    """With the revision and the beginning of the replica's id, as `show` has them."""
    source = f"{line.revision}/{line.replica_id[:8]}"
    if line.omitted_lines:
        print(f"{source}  … {line.omitted_lines} lines were left out", flush=True)
    print(f"{source}  {clean(line.text)}", flush=True)
