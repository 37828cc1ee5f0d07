"""`easyml deployments metrics`."""

from __future__ import annotations

import datetime as dt

from easyml_client.cli.common import EVERYWHERE, Common, ProjectOption, connected, project_for
from easyml_client.cli.output import Columns, complain, print_json, print_table, size, words

FIVE_MINUTES = dt.timedelta(minutes=5)
COLUMNS: Columns = {
    "REVISION": lambda each: each.revision,
    "REQUESTS": lambda each: each.requests,
    "ERRORS": lambda each: each.errors,
    "PER SECOND": lambda each: _rounded(each.requests_per_second),
    "P50 MS": lambda each: each.latency and _rounded(1000 * each.latency.p50_seconds),
    "P95 MS": lambda each: each.latency and _rounded(1000 * each.latency.p95_seconds),
    "P99 MS": lambda each: each.latency and _rounded(1000 * each.latency.p99_seconds),
    "ROWS": lambda each: _rounded(each.mean_rows),
    "BATCH": lambda each: _rounded(each.mean_batch_size),
    "REPLICAS": lambda each: each.replicas,
    "CPUS": lambda each: _rounded(each.cpu_cores),
    "MEMORY": lambda each: size(each.resident_bytes),
}


def metrics(
    deployment: str,
    /,
    *,
    window: dt.timedelta = FIVE_MINUTES,
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> None:
    """Show what the replicas of a deployment counted in the last while: calls, errors, latencies, batches, memory.

    Example: `easyml deployments metrics churn --window 15m`

    :param deployment: Name or id.
    :param window: How far to look back, from 1s to 1h; 5m if left out.
    """
    with connected(common) as client:
        of_project = project_for(client, deployment, project)
        found = client.deployments.metrics(deployment, project=of_project, window=window)
        if common.json:
            print_json(found)
            return
        print_table(list(COLUMNS), [[cell(each) for cell in COLUMNS.values()] for each in found.revisions])
        if found.start_time and found.end_time:
            complain(f"Counted in {words(found.end_time - found.start_time)} until {words(found.end_time)}.")


def _rounded(value: float) -> float:
    """To three digits: more are not known."""
    return float(f"{value:.3g}")
