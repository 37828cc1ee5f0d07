"""What a user would write instead of asking the service: read the table, fit a pipeline, measure it, save it.

Run as a process that has imported its libraries; it does it all again for each line on standard input, and answers
with the seconds it took.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline


def train(table: Path, folder: Path) -> None:
    frame = pd.read_parquet(table)
    features, target = frame.drop(columns="target"), frame["target"].to_numpy(dtype=object)
    split = train_test_split(features, target, test_size=0.2, stratify=target, random_state=1)
    learned, held_out, learned_target, held_out_target = split
    prepare = ColumnTransformer([("numbers", SimpleImputer(strategy="median"), list(features.columns))])
    model = Pipeline([("prepare", prepare), ("forest", RandomForestClassifier(random_state=1))])
    model.fit(learned, learned_target)
    for rows, known in ((learned, learned_target), (held_out, held_out_target)):
        accuracy_score(known, model.predict(rows))
        probabilities = model.predict_proba(rows)
        roc_auc_score(known, probabilities[:, 1])
        log_loss(known, probabilities)
    skops.io.dump(model, folder / "model.skops")


def main(table: Path) -> None:
    print("READY", flush=True)
    for _ in sys.stdin:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            train(table, Path(folder))
            print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
