"""What the columns of a table hold."""

from __future__ import annotations

from easyml.v1 import dataset_pb2 as pb
from easyml_server.domain.statistics import ColumnStatistics, NumberStatistics, TableStatistics, TimeStatistics
from easyml_server.transport.converters.values import timestamp


def statistics_to_proto(statistics: TableStatistics | None) -> pb.TableStatistics | None:
    """Of all columns; None stays unset."""
    if statistics is None:
        return None
    return pb.TableStatistics(
        columns=[_column(column) for column in statistics.columns], sampled_rows=statistics.sampled_rows
    )


def _column(column: ColumnStatistics) -> pb.ColumnStatistics:
    return pb.ColumnStatistics(
        name=column.name,
        value_count=column.value_count,
        numbers=_numbers(column.numbers) if column.numbers else None,
        times=_times(column.times) if column.times else None,
        frequent_values=[pb.ValueCount(value=each.value, count=each.count) for each in column.frequent],
    )


def _numbers(numbers: NumberStatistics) -> pb.NumberStatistics:
    quartiles = numbers.quartiles
    return pb.NumberStatistics(
        minimum=numbers.minimum,
        maximum=numbers.maximum,
        mean=numbers.mean,
        standard_deviation=numbers.deviation,
        lower_quartile=quartiles.lower if quartiles else None,
        median=quartiles.median if quartiles else None,
        upper_quartile=quartiles.upper if quartiles else None,
        infinite_count=numbers.infinite_count,
    )


def _times(times: TimeStatistics) -> pb.TimeStatistics:
    return pb.TimeStatistics(earliest=timestamp(times.earliest), latest=timestamp(times.latest))
