"""Python client of EasyML.

    from easyml_client import EasyML

    with EasyML() as client:
        project = client.projects.create("iris")
        dataset = client.datasets.upload(project, "iris.csv")
        training = client.trainings.start(project, dataset=dataset, target="species", algorithm="random_forest")
        for event in training.watch():
            print(event)
        version = client.models.get(training.result().model_version_id)
        print(client.predictions.predict(version, [{"sepal_length": 5.1, "sepal_width": 3.5}]).values)

`AsyncEasyML` is the same for asyncio. Errors are a tree under `EasyMLError`. The messages of the contract, generated,
are in `easyml.v1`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from easyml_client.async_client import AsyncEasyML as AsyncEasyML
    from easyml_client.async_client import AsyncRollout as AsyncRollout
    from easyml_client.async_client import AsyncTraining as AsyncTraining
    from easyml_client.client import EasyML as EasyML
    from easyml_client.client import Rollout as Rollout
    from easyml_client.client import Training as Training
    from easyml_client.errors import AlreadyExists as AlreadyExists
    from easyml_client.errors import DeadlineExceeded as DeadlineExceeded
    from easyml_client.errors import DeploymentFailed as DeploymentFailed
    from easyml_client.errors import EasyMLError as EasyMLError
    from easyml_client.errors import InternalError as InternalError
    from easyml_client.errors import InvalidInput as InvalidInput
    from easyml_client.errors import LimitReached as LimitReached
    from easyml_client.errors import NotAllowed as NotAllowed
    from easyml_client.errors import NotFound as NotFound
    from easyml_client.errors import NotSignedIn as NotSignedIn
    from easyml_client.errors import Stale as Stale
    from easyml_client.errors import TrainingCancelled as TrainingCancelled
    from easyml_client.errors import TrainingFailed as TrainingFailed
    from easyml_client.errors import TransferCorrupted as TransferCorrupted
    from easyml_client.errors import Unavailable as Unavailable
    from easyml_client.errors import WrongState as WrongState
    from easyml_client.plans.selection import ModelSelectionCriteria as ModelSelectionCriteria
    from easyml_client.plans.trainings import Split as Split
    from easyml_client.tls import TLS as TLS

_HOMES = {
    "AsyncEasyML": "async_client",
    "AsyncRollout": "async_client",
    "AsyncTraining": "async_client",
    "EasyML": "client",
    "Rollout": "client",
    "Training": "client",
    "ModelSelectionCriteria": "plans.selection",
    "Split": "plans.trainings",
    "TLS": "tls",
    **dict.fromkeys(
        (
            "AlreadyExists",
            "DeadlineExceeded",
            "DeploymentFailed",
            "EasyMLError",
            "InternalError",
            "InvalidInput",
            "LimitReached",
            "NotAllowed",
            "NotFound",
            "NotSignedIn",
            "Stale",
            "TrainingCancelled",
            "TrainingFailed",
            "TransferCorrupted",
            "Unavailable",
            "WrongState",
        ),
        "errors",
    ),
}

__all__ = [*sorted(_HOMES), "__version__"]  # noqa: PLE0604 - names, all of them texts


def __getattr__(name: str) -> object:
    """Loads gRPC and the messages when they are first wanted: `easyml --help` does not."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
