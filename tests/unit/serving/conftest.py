"""A model that was trained, for the tests of `serving`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.ml.training_jobs import FEATURES, a_job, a_mixed_table, succeed


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a classifier of three levels, stored as a graph and as a pipeline."""
    job = a_job(tmp_path_factory.mktemp("trained"), a_mixed_table(), target="level", features=FEATURES)
    succeed(job)
    return Path(job.output_path)
