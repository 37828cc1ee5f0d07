"""Algorithms, experiments, their events and comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from easyml.v1 import algorithm_pb2, experiment_pb2, training_event_pb2, training_service_pb2
from easyml_server.domain.algorithms import Algorithm, Hyperparameter, SearchRange
from easyml_server.domain.errors import InvalidInput
from easyml_server.domain.events import (
    EventBody,
    Finished,
    FoldCompleted,
    IterationCompleted,
    LogLine,
    ResourceUsage,
    StageStarted,
    StateChanged,
    TrainingEvent,
    WarningRaised,
)
from easyml_server.domain.experiments import (
    ConfusionMatrix,
    Experiment,
    Failure,
    MetricValue,
    Objective,
    Split,
    SplitKind,
    TrainingSpec,
    TrainingWarning,
)
from easyml_server.services.events import Heartbeat
from easyml_server.services.plans import Plan, RequestedObjective, RequestedSplit, RequestedTraining
from easyml_server.services.trainings import Comparison
from easyml_server.transport.converters.enums import (
    DIRECTION,
    FAILURE_KIND,
    FAILURE_REASON,
    HYPERPARAMETER_TYPE,
    LOG_LEVEL,
    METRIC,
    PARTITION,
    TASK,
    TRAINING_STAGE,
    TRAINING_STATE,
    TRAINING_WARNING,
)
from easyml_server.transport.converters.values import (
    duration,
    find_id,
    from_struct,
    struct,
    text,
    timestamp,
    to_seconds,
    value,
)


def algorithm_to_proto(algorithm: Algorithm) -> algorithm_pb2.Algorithm:
    """An algorithm with its settings."""
    return algorithm_pb2.Algorithm(
        name=algorithm.name,
        task=TASK.to_proto(algorithm.task),
        display_name=algorithm.display_name,
        description=algorithm.description,
        implementation=algorithm.implementation,
        hyperparameters=[_hyperparameter_to_proto(parameter) for parameter in algorithm.hyperparameters],
        reports_iterations=algorithm.reports_iterations,
        predicts_probabilities=algorithm.predicts_probabilities,
        scales_inputs=algorithm.scales_inputs,
        supports_weights=algorithm.supports_weights,
    )


def _hyperparameter_to_proto(parameter: Hyperparameter) -> algorithm_pb2.Hyperparameter:
    return algorithm_pb2.Hyperparameter(
        name=parameter.name,
        description=parameter.description,
        type=HYPERPARAMETER_TYPE.to_proto(parameter.type),
        default_value=value(parameter.default),
        minimum=parameter.minimum,
        maximum=parameter.maximum,
        exclusive_minimum=parameter.exclusive_minimum,
        exclusive_maximum=parameter.exclusive_maximum,
        choices=parameter.choices,
        nullable=parameter.nullable,
        search_range=_range_to_proto(parameter.search_range),
        search_choices=parameter.search_choices,
    )


def _range_to_proto(search: SearchRange | None) -> algorithm_pb2.SearchRange | None:
    if search is None:
        return None
    return algorithm_pb2.SearchRange(low=search.low, high=search.high, log_scale=search.log_scale)


def experiment_to_proto(experiment: Experiment, *, full: bool) -> experiment_pb2.Experiment:
    """An experiment; without specification and measurements in a basic view."""
    message = experiment_pb2.Experiment(
        id=str(experiment.id),
        project_id=str(experiment.project_id),
        name=experiment.name,
        labels=experiment.labels,
        state=TRAINING_STATE.to_proto(experiment.state),
        dataset_name=experiment.dataset_name,
        dataset_sha256=experiment.dataset_sha256,
        train_rows=experiment.train_rows,
        test_rows=experiment.test_rows,
        split_sha256=experiment.split_sha256,
        model_version_id=text(experiment.model_version_id),
        failure=failure_to_proto(experiment.failure),
        last_sequence=experiment.last_sequence,
        queue_position=experiment.queue_position,
        mlflow_run_id=experiment.mlflow_run_id,
        creator_id=str(experiment.creator_id),
        create_time=timestamp(experiment.create_time),
        start_time=timestamp(experiment.start_time),
        end_time=timestamp(experiment.end_time),
        update_time=timestamp(experiment.update_time),
        etag=experiment.etag,
    )
    if full:
        message.spec.CopyFrom(spec_to_proto(experiment.spec))
        message.metrics.extend(metric_to_proto(metric) for metric in experiment.metrics)
        message.confusion_matrices.extend(_confusion_to_proto(m) for m in experiment.confusion_matrices)
        message.warnings.extend(warning_to_proto(warning) for warning in experiment.warnings)
    return message


def spec_to_proto(spec: TrainingSpec) -> experiment_pb2.TrainingSpec:
    """What a training does, with everything filled in."""
    message = experiment_pb2.TrainingSpec(
        dataset_id=str(spec.dataset_id),
        dataset_version_id=str(spec.dataset_version_id),
        target=spec.target,
        features=spec.features,
        task=TASK.to_proto(spec.task),
        algorithm=spec.algorithm,
        hyperparameters=struct(spec.hyperparameters),
        objective=_objective_to_proto(spec.objective),
        random_seed=spec.random_seed,
        model_name=spec.model_name,
        max_duration=duration(spec.max_seconds),
    )
    if spec.split_experiment_id is not None:
        message.split_experiment_id = str(spec.split_experiment_id)
    else:
        message.split.CopyFrom(_split_to_proto(spec.split))
    if spec.folds:
        message.cross_validation.folds = spec.folds
    return message


def _split_to_proto(split: Split) -> experiment_pb2.Split:
    message = experiment_pb2.Split(seed=split.seed)
    if split.kind is not SplitKind.COLUMN:
        message.test_size = split.test_size
    match split.kind:
        case SplitKind.RANDOM:
            message.random.SetInParent()
        case SplitKind.STRATIFIED:
            message.stratified.SetInParent()
        case SplitKind.GROUP:
            message.group.column = split.column
        case SplitKind.TIME:
            message.time.column = split.column
        case SplitKind.COLUMN:
            message.column.column = split.column
            message.column.test_values.extend(split.test_values)
    return message


def _objective_to_proto(objective: Objective) -> experiment_pb2.Objective:
    return experiment_pb2.Objective(
        metric=METRIC.to_proto(objective.metric),
        direction=DIRECTION.to_proto(objective.metric.direction),
        positive_class=objective.positive_class,
        class_weights=objective.class_weights,
        balance_classes=objective.balance_classes,
        weight_column=objective.weight_column,
    )


def to_requested(request: training_service_pb2.StartTrainingRequest) -> RequestedTraining:
    """A training as asked for."""
    spec = request.spec
    return RequestedTraining(
        project_id=UUID(request.project_id),
        name=request.name,
        labels=dict(request.labels),
        dataset_id=UUID(spec.dataset_id),
        dataset_version_id=find_id(spec.dataset_version_id),
        target=spec.target,
        features=tuple(spec.features),
        task=TASK.find(spec.task),
        algorithm=spec.algorithm,
        hyperparameters=from_struct(spec.hyperparameters, "spec.hyperparameters"),
        split=_to_requested_split(spec),
        objective=_to_requested_objective(spec.objective),
        folds=spec.cross_validation.folds if spec.HasField("cross_validation") else 0,
        random_seed=spec.random_seed if spec.HasField("random_seed") else None,
        model_name=spec.model_name.strip(),
        max_seconds=to_seconds(spec.max_duration) if spec.HasField("max_duration") else None,
    )


def _to_requested_split(spec: experiment_pb2.TrainingSpec) -> RequestedSplit:
    source = spec.WhichOneof("split_source")
    if source is not None and spec.HasField("test_size"):
        raise InvalidInput.at("spec.test_size", "Say test_size in the split, or alone without a split, not both.")
    if source == "split_experiment_id":
        return RequestedSplit(experiment_id=UUID(spec.split_experiment_id))
    split = spec.split
    kind = split.WhichOneof("kind")
    chosen = getattr(split, kind) if kind else None
    size = spec.test_size if spec.HasField("test_size") else None
    return RequestedSplit(
        kind=SplitKind(kind) if kind else None,
        column=getattr(chosen, "column", ""),
        test_values=tuple(getattr(chosen, "test_values", ())),
        test_size=split.test_size if split.HasField("test_size") else size,
        seed=split.seed if split.HasField("seed") else None,
    )


def _to_requested_objective(message: experiment_pb2.Objective) -> RequestedObjective:
    return RequestedObjective(
        metric=METRIC.find(message.metric),
        direction=DIRECTION.find(message.direction),
        positive_class=message.positive_class,
        class_weights=dict(message.class_weights),
        balance_classes=message.balance_classes,
        weight_column=message.weight_column,
    )


def plan_to_proto(plan: Plan) -> training_service_pb2.TrainingPlan:
    """What a training will do."""
    return training_service_pb2.TrainingPlan(
        spec=spec_to_proto(plan.spec),
        rows=plan.rows,
        estimated_memory_bytes=plan.memory_bytes,
        estimated_duration=duration(plan.seconds),
    )


def metric_to_proto(metric: MetricValue) -> experiment_pb2.MetricValue:
    """One measurement."""
    return experiment_pb2.MetricValue(
        metric=METRIC.to_proto(metric.metric),
        partition=PARTITION.to_proto(metric.partition),
        value=metric.value,
        standard_deviation=metric.standard_deviation,
    )


def _confusion_to_proto(matrix: ConfusionMatrix) -> experiment_pb2.ConfusionMatrix:
    return experiment_pb2.ConfusionMatrix(
        labels=matrix.labels, counts=matrix.counts, partition=PARTITION.to_proto(matrix.partition)
    )


def failure_to_proto(failure: Failure | None) -> experiment_pb2.Failure | None:
    """Why there is no model; None stays unset."""
    if failure is None:
        return None
    return experiment_pb2.Failure(
        kind=FAILURE_KIND.to_proto(failure.kind),
        reason=FAILURE_REASON.to_proto(failure.reason),
        message=failure.message,
        stage=TRAINING_STAGE.to_proto(failure.stage),
        exit_code=failure.exit_code,
    )


def warning_to_proto(warning: TrainingWarning) -> experiment_pb2.TrainingWarning:
    """One thing that was noticed."""
    return experiment_pb2.TrainingWarning(
        kind=TRAINING_WARNING.to_proto(warning.kind), column=warning.column, message=warning.message
    )


def event_to_proto(event: TrainingEvent) -> training_event_pb2.TrainingEvent:
    """One step of a training's history."""
    message = training_event_pb2.TrainingEvent(sequence=event.sequence, event_time=timestamp(event.event_time))
    _fill_body(message, event.body)
    return message


def _fill_body(message: training_event_pb2.TrainingEvent, body: EventBody) -> None:
    match body:
        case StateChanged():
            message.state_changed.state = TRAINING_STATE.to_proto(body.state)
        case StageStarted():
            message.stage_started.stage = TRAINING_STAGE.to_proto(body.stage)
        case FoldCompleted():
            fold = message.fold_completed
            fold.fold, fold.folds = body.fold, body.folds
            fold.metrics.extend(metric_to_proto(metric) for metric in body.metrics)
        case IterationCompleted():
            iteration = message.iteration_completed
            iteration.iteration, iteration.iterations, iteration.fold = body.iteration, body.iterations, body.fold
            iteration.values.update(body.values)
        case LogLine():
            message.log_line.level, message.log_line.text = LOG_LEVEL.to_proto(body.level), body.text
        case ResourceUsage():
            usage = message.resource_usage
            usage.memory_bytes, usage.cpu_seconds = body.memory_bytes, body.cpu_seconds
        case WarningRaised():
            message.warning.CopyFrom(warning_to_proto(body.warning))
        case Finished():
            message.finished.CopyFrom(
                training_event_pb2.TrainingFinished(
                    state=TRAINING_STATE.to_proto(body.state),
                    metrics=[metric_to_proto(metric) for metric in body.metrics],
                    model_version_id=text(body.model_version_id),
                    failure=failure_to_proto(body.failure),
                )
            )


def heartbeat_to_proto(heartbeat: Heartbeat) -> training_service_pb2.TrainingHeartbeat:
    """A sign of life."""
    return training_service_pb2.TrainingHeartbeat(
        heartbeat_time=timestamp(heartbeat.time),
        state=TRAINING_STATE.to_proto(heartbeat.session.state),
        stage=TRAINING_STAGE.to_proto(heartbeat.session.stage),
        progress=heartbeat.session.progress,
        estimated_remaining=duration(heartbeat.estimated_remaining),
        queue_position=heartbeat.queue_position,
    )


def comparison_to_proto(comparison: Comparison) -> training_service_pb2.CompareExperimentsResponse:
    """Experiments side by side."""
    rows: Sequence[training_service_pb2.ComparedExperiment] = [
        training_service_pb2.ComparedExperiment(
            rank=row.rank,
            experiment=experiment_to_proto(row.experiment, full=True),
            value=row.value,
            duration=duration(row.duration.total_seconds() if row.duration else None),
        )
        for row in comparison.rows
    ]
    return training_service_pb2.CompareExperimentsResponse(
        experiments=rows,
        metric=METRIC.to_proto(comparison.metric),
        partition=PARTITION.to_proto(comparison.partition),
        direction=DIRECTION.to_proto(comparison.direction),
        differing_hyperparameters=comparison.differing,
        same_test_rows=comparison.same_test_rows,
    )
