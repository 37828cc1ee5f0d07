"""Versions of datasets and models in DVC."""
