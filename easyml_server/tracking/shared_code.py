"""The part of this package that a loaded MLflow model needs, so that a plain script can use it."""

from __future__ import annotations

import shutil
from pathlib import Path

import easyml_server

SHARED_CODE = (
    "__init__.py",
    "domain/__init__.py",
    "domain/algorithms.py",
    "domain/datasets.py",
    "domain/errors.py",
    "domain/experiments.py",
    "domain/manifest.py",
    "domain/models.py",
    "domain/spelling.py",
    "domain/statistics.py",
    "ml/__init__.py",
    "ml/prepare.py",
    "ml/trusted_types.py",
)


def copy_shared_code(folder: Path) -> Path:
    """Copy it below a folder; the package."""
    source = Path(easyml_server.__file__).parent
    target = folder / "easyml_server"
    for name in SHARED_CODE:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
    return target
