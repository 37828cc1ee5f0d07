"""`AsyncEasyML`, the asyncio client: the nouns of `client.py`, awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Concatenate, ParamSpec, Self

from easyml_client.aio import Driver, Noun, iterator, method
from easyml_client.channel import as_method
from easyml_client.discovery import Connection, discover
from easyml_client.plans import (
    algorithms,
    auth,
    datasets,
    deployment_configs,
    deployments,
    experiments,
    health,
    models,
    predictions,
    projects,
    trainings,
)
from easyml_client.plans.references import ExperimentRef
from easyml_client.resources.deployments import Deployment
from easyml_client.resources.events import Heartbeat, Interruption, TrainingEvent
from easyml_client.resources.experiments import Experiment
from easyml_client.steps import Plan
from easyml_client.tls import TLS

P = ParamSpec("P")


class AsyncEasyML:
    """A connection to an EasyML server; use it in an `async with` block.

    It finds a server and a token as `EasyML` does, and belongs to one event loop.
    """

    def __init__(
        self,
        target: str | None = None,
        token: str | None = None,
        *,
        tls: bool | TLS | None = None,
        timeout: float | None = None,
    ) -> None:
        """`tls` is on unless the address is this machine; a `TLS` says whom to trust and who you are.

        `timeout` in seconds replaces the deadlines of all calls.
        """
        self._over(discover(target, token, tls=tls), timeout)

    @classmethod
    def over(cls, connection: Connection, *, timeout: float | None = None) -> Self:
        """A client of a connection that was looked up before, by `discovery.discover`."""
        client = cls.__new__(cls)
        client._over(connection, timeout)
        return client

    def _over(self, connection: Connection, timeout: float | None) -> None:
        self.connection = connection
        self._driver = Driver(connection, timeout=timeout)
        self.auth = Auth(self._driver)
        self.projects = Projects(self._driver)
        self.datasets = Datasets(self._driver)
        self.algorithms = Algorithms(self._driver)
        self.trainings = Trainings(self._driver)
        self.experiments = Experiments(self._driver)
        self.models = Models(self._driver)
        self.deployments = Deployments(self._driver)
        self.predictions = Predictions(self._driver)

    async def health(self, service: str = "") -> str:
        """Whether the server is "serving" or "not_serving"."""
        return await self._driver.run(health.check(service))

    async def close(self) -> None:
        """Ends calls that still run; trainings go on."""
        await self._driver.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Auth(Noun):
    """Signing in, and keys for programs."""

    register = method(auth.register)
    login = method(auth.login)
    logout = method(auth.logout)
    logout_everywhere = method(auth.logout_everywhere)
    whoami = method(auth.whoami)
    create_api_key = method(auth.create_api_key)
    list_api_keys = iterator(auth.list_api_keys)
    revoke_api_key = method(auth.revoke_api_key)


class Projects(Noun):
    """Projects, their members and configuration."""

    create = method(projects.create)
    get = method(projects.get)
    list = iterator(projects.list_)
    update = method(projects.update)
    delete = method(projects.delete)
    get_config = method(projects.get_config)
    update_config = method(projects.update_config)
    list_members = iterator(projects.list_members)
    set_member = method(projects.set_member)
    remove_member = method(projects.remove_member)


class Datasets(Noun):
    """Tables: in, described, and out again."""

    upload = method(datasets.upload)
    get_upload = method(datasets.get_upload)
    download = method(datasets.download)
    to_frame = method(datasets.to_frame)
    get = method(datasets.get)
    list = iterator(datasets.list_)
    update = method(datasets.update)
    delete = method(datasets.delete)
    preview = method(datasets.preview)
    dvc_pointer = method(datasets.dvc_pointer)
    dvc = method(datasets.dvc)


class Algorithms(Noun):
    """What can be trained."""

    list = iterator(algorithms.list_)
    get = method(algorithms.get)


class AsyncTraining:
    """The handle of a training; the training goes on without it."""

    def __init__(self, driver: Driver, experiment: Experiment) -> None:
        self._driver = driver
        self.experiment = experiment

    @property
    def id(self) -> str:
        """Id of the experiment: enough to come back from anywhere, by `client.trainings.get(id)`."""
        return self.experiment.id

    def watch(self, after_sequence: int = 0) -> AsyncIterator[TrainingEvent]:
        """The events until the end, without gap or repeat, also over broken connections."""
        return self._driver.iterate(trainings.watch(self.id, after_sequence=after_sequence))

    def follow(self, after_sequence: int = 0) -> AsyncIterator[TrainingEvent | Heartbeat | Interruption]:
        """As `watch`, with signs of life and interruptions in between."""
        return self._driver.iterate(trainings.follow(self.id, after_sequence=after_sequence))

    async def result(self, timeout: float | None = None) -> Experiment:
        """The experiment once it has succeeded; raises TrainingFailed, TrainingCancelled or DeadlineExceeded."""
        self.experiment = await self._driver.run(trainings.result(self.id, timeout=timeout))
        return self.experiment

    async def cancel(self) -> Experiment:
        """Ask it to stop; what it reported is kept."""
        self.experiment = await self._driver.run(trainings.cancel(self.id))
        return self.experiment

    async def refresh(self) -> Experiment:
        """The experiment as it is now."""
        self.experiment = await self._driver.run(experiments.get(self.id))
        return self.experiment

    def __repr__(self) -> str:
        return f"AsyncTraining(id={self.id!r}, state={self.experiment.state!r})"


def _handle(plan: Callable[P, Plan[Experiment]]) -> Callable[Concatenate[Trainings, P], Awaitable[AsyncTraining]]:
    """The plan as a method that returns a handle."""

    async def handle(self: Trainings, /, *args: P.args, **kwargs: P.kwargs) -> AsyncTraining:
        return AsyncTraining(self._driver, await self._driver.run(plan(*args, **kwargs)))

    return as_method(handle, plan)


class Trainings(Noun):
    """Trainings: started, watched, waited for, stopped."""

    start = _handle(trainings.start)
    validate = method(trainings.validate)
    watch = iterator(trainings.watch)
    follow = iterator(trainings.follow)
    result = method(trainings.result)
    cancel = method(trainings.cancel)

    async def get(self, experiment: ExperimentRef) -> AsyncTraining:
        """The handle of a training that was started before, anywhere."""
        return AsyncTraining(self._driver, await self._driver.run(experiments.get(experiment)))


class Experiments(Noun):
    """What was asked of trainings, and what came out."""

    get = method(experiments.get)
    list = iterator(experiments.list_)
    compare = method(experiments.compare)
    delete = method(experiments.delete)


class Models(Noun):
    """Models, their versions, aliases and files."""

    list = iterator(models.list_)
    versions = iterator(models.versions)
    get = method(models.get)
    select = method(models.select)
    update = method(models.update)
    delete = method(models.delete)
    set_alias = method(models.set_alias)
    delete_alias = method(models.delete_alias)
    alias_history = iterator(models.alias_history)
    export = method(models.export)
    dvc_pointer = method(models.dvc_pointer)
    dvc = method(models.dvc)


class AsyncRollout:
    """The handle of a revision on its way; it goes on without it."""

    def __init__(self, driver: Driver, deployment: Deployment) -> None:
        self._driver = driver
        self.deployment = deployment

    @property
    def id(self) -> str:
        """Id of the deployment."""
        return self.deployment.id

    def watch(self) -> AsyncIterator[Deployment]:
        """The deployment whenever anything of it changes, until it is deleted; also over broken connections."""
        return self._driver.iterate(deployments.watch(self.id))

    async def result(self, timeout: float | None = None) -> Deployment:
        """The deployment once the revision answers; raises DeploymentFailed or DeadlineExceeded."""
        self.deployment = await self._driver.run(deployments.result(self.id, timeout=timeout))
        return self.deployment

    async def refresh(self) -> Deployment:
        """The deployment as it is now."""
        self.deployment = await self._driver.run(deployments.get(self.id))
        return self.deployment

    def __repr__(self) -> str:
        return f"AsyncRollout(id={self.id!r}, state={self.deployment.state!r})"


def _rollout(plan: Callable[P, Plan[Deployment]]) -> Callable[Concatenate[Deployments, P], Awaitable[AsyncRollout]]:
    """The plan as a method that returns a handle."""

    async def handle(self: Deployments, /, *args: P.args, **kwargs: P.kwargs) -> AsyncRollout:
        return AsyncRollout(self._driver, await self._driver.run(plan(*args, **kwargs)))

    return as_method(handle, plan)


class Deployments(Noun):
    """Model versions made callable: made, revised, scaled, rolled back, stopped."""

    create = _rollout(deployments.create)
    update = _rollout(deployments.update)
    rollback = _rollout(deployments.rollback)
    promote = _rollout(deployments.promote)
    traffic = method(deployments.traffic)
    validate = method(deployments.validate)
    template = method(deployment_configs.template)
    validate_config = method(deployment_configs.validate_config)
    get = method(deployments.get)
    list = iterator(deployments.list_)
    revisions = iterator(deployments.revisions)
    watch = iterator(deployments.watch)
    result = method(deployments.result)
    scale = method(deployments.scale)
    stop = method(deployments.stop)
    delete = method(deployments.delete)
    metrics = method(deployments.metrics)
    manifests = method(deployments.manifests)
    logs = iterator(deployments.logs)
    token = method(deployments.token)


class Predictions(Noun):
    """Predictions, one table or a stream of them."""

    predict = method(predictions.predict)
    stream = iterator(predictions.stream)
