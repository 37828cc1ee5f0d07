"""The MLflow model of a version, as code: MLflow runs this file when the model is loaded, so nothing is unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow.models
import pandas as pd
from mlflow.pyfunc import PythonModel  # type: ignore[attr-defined]  # exported lazily


class EasyMLModel(PythonModel):
    """The stored pipeline, with the same preparation of columns as when it was trained."""

    def load_context(self, context: Any) -> None:
        """Load the pipeline, trusting the types of our own list and never those a file asks for."""
        import skops.io

        from easyml_server.domain.manifest import MANIFEST_FILENAME, load_manifest
        from easyml_server.domain.models import ArtifactFormat
        from easyml_server.ml.trusted_types import TRUSTED_TYPES

        folder = Path(context.artifacts["version"])
        self._manifest = load_manifest((folder / MANIFEST_FILENAME).read_bytes())
        stored = next(a for a in self._manifest.artifacts if a.format is ArtifactFormat.SKOPS)
        self._pipeline = skops.io.load(folder / stored.filename, trusted=list(TRUSTED_TYPES))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:  # noqa: ARG002 (MLflow's signature)
        """The predictions, one per row."""
        from easyml_server.ml.prepare import prepare

        return self._pipeline.predict(prepare(model_input, self._manifest.signature))


mlflow.models.set_model(EasyMLModel())
