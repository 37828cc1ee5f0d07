"""Experiments: looked at, compared, deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from easyml.v1 import algorithm_pb2, experiment_pb2, project_pb2
from easyml.v1 import training_service_pb2 as pb
from easyml_client.plans.paging import pages
from easyml_client.plans.references import DatasetRef, ExperimentRef, ProjectRef, dataset_id, experiment_id, project_id
from easyml_client.resources.experiments import Comparison, Experiment
from easyml_client.resources.projects import DeletedResources
from easyml_client.steps import Plan, Stream, call
from easyml_client.values import enum_number


def get(experiment: ExperimentRef) -> Plan[Experiment]:
    """One experiment, as it is now."""
    request = pb.GetExperimentRequest(experiment_id=experiment_id(experiment))
    return Experiment.of((yield from call(request, pb.GetExperimentResponse)).experiment)


def list_(
    project: ProjectRef,
    *,
    states: Sequence[str] = (),
    dataset: DatasetRef | None = None,
    algorithm: str = "",
    labels: Mapping[str, str] | None = None,
    order_by: str | None = None,
    view: str | None = None,
    page_size: int = 0,
) -> Stream[Experiment]:
    """The experiments of a project, newest first; without metrics and spec unless the view is "full"."""
    request = pb.ListExperimentsRequest(
        project_id=(yield from project_id(project)),
        states=[enum_number("states", experiment_pb2.TrainingState, state) for state in states],
        dataset_id="" if dataset is None else (yield from dataset_id(dataset, project)),
        algorithm=algorithm,
        labels=labels or {},
        order_by=enum_number("order_by", pb.ExperimentOrder, order_by),
        view=enum_number("view", project_pb2.ResourceView, view),
        page_size=page_size,
    )
    yield from pages(request, pb.ListExperimentsResponse, lambda page: map(Experiment.of, page.experiments))


def compare(
    experiments: Sequence[ExperimentRef], *, metric: str | None = None, partition: str | None = None
) -> Plan[Comparison]:
    """Experiments of one project side by side, best first, by a metric on "test" (or "validation", "train") rows."""
    request = pb.CompareExperimentsRequest(
        experiment_ids=[experiment_id(each) for each in experiments],
        metric=enum_number("metric", algorithm_pb2.Metric, metric),
        partition=enum_number("partition", experiment_pb2.Partition, partition),
    )
    return Comparison.of((yield from call(request, pb.CompareExperimentsResponse)))


def delete(experiment: ExperimentRef, *, validate_only: bool = False, etag: str = "") -> Plan[DeletedResources]:
    """Delete an ended experiment with its events; its model version stays."""
    request = pb.DeleteExperimentRequest(
        experiment_id=experiment_id(experiment), validate_only=validate_only, etag=etag
    )
    return DeletedResources.of((yield from call(request, pb.DeleteExperimentResponse)).deleted)
