"""MLflow: the adapter of `ports.tracker`."""
