"""Files of datasets and models: the adapter of `ports.artifacts`."""
