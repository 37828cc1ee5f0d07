"""MLflow: the pipeline saved as a model of its scikit-learn flavour, for `mlflow models serve`."""

import sys

import mlflow.sklearn
import model

if __name__ == "__main__":
    mlflow.sklearn.save_model(model.load(), sys.argv[1], pip_requirements=[], serialization_format="cloudpickle")
