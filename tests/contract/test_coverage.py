"""Every method of the contract, every reason and every limit has its tests; what they hold stands beside them.

Read in the files, so that a test that was left out of a run still counts, and one that was deleted no longer does.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache

import pytest

from easyml_server.domain.errors import Reason
from easyml_server.settings import Settings
from easyml_server.transport.server import CONTRACT
from tests.integration.test_reasons import IN_PROCESS, NEVER_SENT, SCENARIOS
from tests.servers import ROOT

METHODS = sorted(
    f"{service.name}/{method.name}"
    for file in CONTRACT
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)


@cache
def marked(kind: str) -> Mapping[str, tuple[str, ...]]:
    """The names of marks of a kind, with the tests that carry them."""
    found: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for function, mark in marks(ast.parse(path.read_text()), kind):
            for argument in mark.args:
                found[str(ast.literal_eval(argument))] += (f"{path.name}::{function}",)
    return found


def marks(module: ast.Module, kind: str) -> Iterator[tuple[str, ast.Call]]:
    for function in ast.walk(module):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for mark in function.decorator_list:
            if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == kind:
                assert function.name.startswith("test_"), function.name
                yield function.name, mark


@pytest.mark.parametrize("kind", ["answers", "refuses"])
def test_marks_name_methods_that_exist(kind: str) -> None:
    assert set(marked(kind)) <= set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_has_a_test_of_its_answer_and_one_of_its_refusal(method: str) -> None:
    assert marked("answers")[method], "its answer"
    assert marked("refuses")[method], "its refusal"


def test_each_reason_has_a_scenario() -> None:
    assert set(Reason) == {*SCENARIOS, *IN_PROCESS, *NEVER_SENT}


NO_LIMIT = {
    "HOST", "PORT", "DATA_DIR", "ALLOW_PLAINTEXT", "OPEN_REGISTRATION", "LOG_LEVEL", "LOG_FORMAT",
    "DATABASE_URL", "DATABASE_LISTEN_URL", "MONGODB_URL", "DASK_ADDRESS", "MIGRATE_AT_START", "ARTIFACT_URL",
    "SIGNING_KEY_FILE", "DVC_REMOTE", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTER_MODELS",
    "TLS_CERT_FILE", "TLS_KEY_FILE", "TLS_CLIENT_CA_FILE",
    "CONVERTERS", "MODEL_SERVERS", "WORKERS", "DRAIN_DELAY_SECONDS", "DRAIN_GRACE_SECONDS",
    "DEPLOYMENT_ORPHAN_SECONDS", "PRELOAD", "KUBECONFIG_FILE", "KUBERNETES_CONTEXT", "KUBERNETES_NAMESPACE",
    "KUBERNETES_IMAGE", "KUBERNETES_IMAGE_PULL_POLICY", "KUBERNETES_IMAGE_PULL_SECRET", "KUBERNETES_STORE_SECRET",
    "KUBERNETES_SERVICE_ACCOUNT",
}  # fmt: skip
"""Settings that refuse nobody anything: what is beyond them waits."""


LIMITS = sorted({name.upper() for name in Settings.model_fields} - NO_LIMIT)


@pytest.mark.parametrize("setting", LIMITS)
def test_each_limit_has_a_test_at_and_beyond_it(setting: str) -> None:
    assert marked("limits")[setting]


def test_marks_name_settings_that_exist() -> None:
    assert set(marked("limits")) <= set(LIMITS)
