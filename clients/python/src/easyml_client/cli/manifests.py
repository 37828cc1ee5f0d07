"""`easyml deployments render`."""

from __future__ import annotations

from easyml_client.cli.common import EVERYWHERE, Common, ProjectOption, connected, project_for
from easyml_client.cli.output import print_json


def render(
    deployment: str,
    /,
    *,
    revision: int = 0,
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> None:
    """Print the objects that a revision has on its cluster, as YAML; nothing is changed.

    Example: `easyml deployments render churn > churn.yaml`

    :param deployment: Name or id.
    :param revision: Number of the revision; the newest if left out.
    """
    with connected(common) as client:
        of_project = project_for(client, deployment, project)
        found = client.deployments.manifests(deployment, project=of_project, revision=revision)
    if common.json:
        print_json(found)
    else:
        print(found.manifests, end="")
