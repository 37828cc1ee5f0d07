"""Which deployer a revision goes to."""

from __future__ import annotations

import pytest

from easyml_server.deployers.targets import Targets
from easyml_server.domain.deployments import DeploymentTarget
from easyml_server.domain.errors import WrongState
from tests.unit.deployers.kubernetes.revisions import a_revision


def test_a_revision_for_a_target_that_a_server_no_longer_has_is_refused_by_name() -> None:
    with pytest.raises(WrongState, match="Revision 3 is for kubernetes, which this server does not have"):
        Targets({}).apply(a_revision(target=DeploymentTarget.KUBERNETES))
