"""What server and workers must have in common: a model of other libraries may not load, or predict something else."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "easyml-server",
    "distributed",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "lightgbm",
    "xgboost",
    "skops",
    "skl2onnx",
    "onnxmltools",
    "onnx",
)
_OTHER_NAMES = {"xgboost": "xgboost-cpu"}
_NOT_INSTALLED = ""


def installed() -> dict[str, str]:
    """Versions by name, of this environment; nothing is imported for it."""
    return {"Python": ".".join(platform.python_version_tuple()[:2]), **{name: _version(name) for name in PACKAGES}}


def differences(theirs: Mapping[str, str], ours: Mapping[str, str]) -> Iterator[str]:
    """What differs, as a part of a sentence each."""
    for name, version_here in ours.items():
        version_there = theirs.get(name, _NOT_INSTALLED)
        if version_there != version_here:
            yield f"{name} {version_there or 'is not installed'} there, {version_here or 'not installed'} here"


def _version(name: str) -> str:
    for each in (name, _OTHER_NAMES.get(name, name)):
        try:
            return version(each)
        except PackageNotFoundError:
            continue
    return _NOT_INSTALLED
