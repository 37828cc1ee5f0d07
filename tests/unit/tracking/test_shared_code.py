"""What is copied beside an MLflow model is all that the model needs of this package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from easyml_server.tracking.shared_code import SHARED_CODE, copy_shared_code

IMPORT = "import sys, importlib; sys.path.insert(0, sys.argv[1]); [importlib.import_module(n) for n in sys.argv[2:]]"


def test_the_shared_code_imports_nothing_that_was_left_behind(tmp_path: Path) -> None:
    copy_shared_code(tmp_path)
    paths = [Path("easyml_server", name).with_suffix("") for name in SHARED_CODE]
    modules = [".".join(path.parts) for path in paths if path.name != "__init__"]
    subprocess.run([sys.executable, "-I", "-c", IMPORT, str(tmp_path), *modules], check=True)
