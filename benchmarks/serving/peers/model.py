"""The stored model as each peer loads it: the scikit-learn pipeline, with the columns it was trained on.

Runs in the peer's environment, which knows nothing of EasyML.
"""

import json
import os
from pathlib import Path

import pandas as pd
import skops.io

MODEL_FOLDER = "EASYML_BENCH_MODEL"


def load():
    """The pipeline of the folder that the environment names; the file is our own, so its types are trusted."""
    path = Path(os.environ[MODEL_FOLDER]) / "model.skops"
    return skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))


def columns():
    """The names of its columns, in order."""
    manifest = json.loads((Path(os.environ[MODEL_FOLDER]) / "manifest.json").read_text())
    return [column["name"] for column in manifest["signature"]["inputs"]]


def frame(values):
    """A table from values by column, as the pipeline was trained on it."""
    return pd.DataFrame({name: values[name] for name in columns()})
