"""Where trainings and converters run: the local worker pool and the workers' entry points."""
