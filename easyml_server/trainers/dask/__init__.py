"""Trainings on a Dask cluster; `distributed` is imported nowhere else."""
