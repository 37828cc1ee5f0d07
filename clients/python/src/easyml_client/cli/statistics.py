"""What the columns of a table hold, as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easyml_client.cli.output import print_table, words

if TYPE_CHECKING:
    from easyml_client.resources.datasets import ColumnStatistics, NumberStatistics, TableStatistics


def share(part: int, whole: int) -> str:
    """A part in percent; never "100 %" or "0 %" of what is neither."""
    if not whole:
        return ""
    percent = 100 * part / whole
    if 0 < part < whole and not 1 <= percent <= 99:  # noqa: PLR2004 - beyond, a whole number would say too little
        return f"{min(max(percent, 0.1), 99.9):.1f} %"
    return f"{percent:.0f} %"


def print_statistics(statistics: TableStatistics, row_count: int) -> None:
    """Numbers, times and frequent values, each in a table of its own; those that no column has are left out."""
    numbers = [[column.name, *_numbers(column.numbers)] for column in statistics.columns if column.numbers]
    if numbers:
        print()
        print_table(["NUMBERS", "MIN", "25 %", "MEDIAN", "75 %", "MAX", "MEAN", "DEVIATION"], numbers)
        if statistics.sampled_rows < row_count:
            print(f"Quartiles and medians are those of {statistics.sampled_rows} rows drawn by chance.")
    times = [[column.name, column.times.earliest, column.times.latest] for column in statistics.columns if column.times]
    if times:
        print()
        print_table(["TIMES", "FIRST", "LAST"], times)
    frequent = [[column.name, _frequent(column)] for column in statistics.columns if column.frequent_values]
    if frequent:
        print()
        print_table(["VALUES", "MOST FREQUENT"], frequent)


def _numbers(numbers: NumberStatistics) -> list[float | None]:
    return [
        numbers.minimum,
        numbers.lower_quartile,
        numbers.median,
        numbers.upper_quartile,
        numbers.maximum,
        numbers.mean,
        numbers.standard_deviation,
    ]


def _frequent(column: ColumnStatistics) -> str:
    """Shares are of the rows with a value."""
    shown = [f"{words(each.value)} {share(each.count, column.value_count)}" for each in column.frequent_values]
    left = column.value_count - sum(each.count for each in column.frequent_values)
    return ", ".join([*shown, f"others {share(left, column.value_count)}"] if left else shown)
