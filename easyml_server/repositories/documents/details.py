"""What versions hold in detail: documents that are written once, with the version, and go with it."""

from __future__ import annotations

from typing import Self
from uuid import UUID

from easyml_server.domain.results import ClassificationResults, ModelResults, RegressionResults
from easyml_server.domain.statistics import ColumnStatistics, TableStatistics
from easyml_server.repositories.documents.document import Document


class DatasetMetadataDocument(Document):
    """What the columns of a dataset version hold, in numbers."""

    collection = "dataset_metadata"

    columns: tuple[ColumnStatistics, ...]
    sampled_rows: int

    @classmethod
    def of(cls, version_id: UUID, statistics: TableStatistics) -> Self:
        """The document of a version."""
        return cls(id=version_id, columns=statistics.columns, sampled_rows=statistics.sampled_rows)

    def to_domain(self) -> TableStatistics:
        """The statistics."""
        return TableStatistics(self.columns, self.sampled_rows)


class ModelResultDocument(Document):
    """How a model version did on its test rows, in detail."""

    collection = "model_results"

    rows: int
    classification: ClassificationResults | None
    regression: RegressionResults | None

    @classmethod
    def of(cls, version_id: UUID, results: ModelResults) -> Self:
        """The document of a version."""
        return cls(
            id=version_id,
            rows=results.rows,
            classification=results.classification,
            regression=results.regression,
        )

    def to_domain(self) -> ModelResults:
        """The results."""
        return ModelResults(self.rows, self.classification, self.regression)
