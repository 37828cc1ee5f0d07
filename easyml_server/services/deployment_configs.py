"""Use cases of configurations of deployments: what is sensible, and what is wrong with one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from easyml_server.domain.deployment_configs import ConfigProblem, problems_of, problems_with, refuse, template
from easyml_server.domain.deployments import DeploymentConfig, DeploymentEnvironment, DeploymentTarget
from easyml_server.domain.errors import InvalidInput, NotFound, WrongState
from easyml_server.domain.limits import Limits
from easyml_server.domain.models import ModelVersion
from easyml_server.domain.users import Caller
from easyml_server.ports.store import Store
from easyml_server.services.version_targets import VersionTarget, version_to_serve


class DeploymentConfigService:
    """What DeploymentService holds configurations against, and answers of them."""

    def __init__(self, store: Store, limits: Limits, barred: Mapping[DeploymentTarget, str]) -> None:
        """`barred` are the targets that this server has not, and why."""
        self._store = store
        self._limits = limits
        self._barred = barred

    def template(self, environment: DeploymentEnvironment) -> DeploymentConfig:
        """What is sensible for an environment, within the limits of this server."""
        return template(environment, self._limits.replicas)

    def check(self, config: DeploymentConfig, scaling: str = "config.scaling.") -> None:
        """InvalidInput that names each problem; `scaling` is the path before the fields of the scaling."""
        refuse(list(problems_of(config, self._barred, self._limits.replicas, scaling)))

    def check_with(self, config: DeploymentConfig, version: ModelVersion) -> None:
        """InvalidInput that names each problem with serving this version so."""
        refuse(list(problems_with(config, version)))

    async def problems(
        self, caller: Caller, project_id: UUID, target: VersionTarget | None, config: DeploymentConfig
    ) -> Sequence[ConfigProblem]:
        """All that `check` would refuse, and what is wrong with the version."""
        found = list(problems_of(config, self._barred, self._limits.replicas))
        async with self._store.read() as work:
            await work.projects.get(project_id, caller)
            if target is not None:
                try:
                    version = await version_to_serve(work, caller, project_id, target)
                    found += problems_with(config, version)
                except (NotFound, InvalidInput, WrongState) as error:
                    found.append(ConfigProblem("model_version", error.message, error.reason, error.metadata))
        return found
