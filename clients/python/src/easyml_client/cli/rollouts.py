"""A deployment as it changes: a live picture for people, lines for pipes, JSON Lines for scripts."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from easyml_client.cli.output import clean, complain, interactive, print_done
from easyml_client.resources.base import plain

if TYPE_CHECKING:
    from rich.console import RenderableType

    from easyml_client.client import EasyML
    from easyml_client.resources.deployments import Deployment

_LOG_LINES = 5
_OVER = ("stopping", "stopped")
"""Nothing is on its way then."""


def until_it_arrives(client: EasyML, deployment: Deployment, *, as_json: bool) -> int:
    """Shows a deployment until its newest revision answers; exit code 1 when a replica of it cannot be had.

    Ctrl-C leaves it going on and says how to come back.
    """
    last = deployment
    try:
        for last in shown(client.deployments.watch(deployment), as_json=as_json):
            if last.settled or last.withdrawn or failure_of(last):
                break
    except KeyboardInterrupt as stopped:
        message = f"The deployment goes on. Come back with: easyml deployments watch {deployment.id}"
        raise KeyboardInterrupt(message) from stopped
    return told_end(last)


def follow(client: EasyML, deployment: Deployment, *, wait: bool, as_json: bool) -> int:
    """Show it until it arrives, if that is to be waited for; the exit code."""
    if not wait:
        come_back = f"easyml deployments watch {deployment.name}"
        sentence = f"Revision {deployment.latest_revision} of {deployment.name} is on its way: {come_back}"
        print_done(deployment, sentence, as_json=as_json)
        return 0
    code = until_it_arrives(client, deployment, as_json=as_json)
    if code == 0 and not (as_json or deployment.active_revision):
        complain(f"Ask it with: easyml predict --deployment {deployment.name} --row COLUMN=VALUE …")
    return code


def told_end(deployment: Deployment) -> int:
    """What came of it, for people; the exit code."""
    failed = failure_of(deployment)
    if failed:
        complain(failed)
        for replica in deployment.replicas:
            if replica.last_failure and replica.state != "ready":
                for line in replica.last_failure.log_lines[-_LOG_LINES:]:
                    complain(f"  {line}")
        complain(f"It is still tried: easyml deployments watch {deployment.id}")
        return 1
    if deployment.withdrawn:
        complain(deployment.withdrawn)
        return 1
    if deployment.awaits_promotion:
        progressing = deployment.condition("progressing")
        complain(progressing.message if progressing else "")
        complain(f"Go on with: easyml deployments promote {deployment.name}")
        complain(f"Or back with: easyml deployments rollback {deployment.name}")
    return 0


def failure_of(deployment: Deployment) -> str:
    """Why the newest revision is not there; empty if nothing fails."""
    failing = deployment.condition("replica_failure")
    if failing is None or not failing.status:
        return ""
    meanwhile = f" Revision {deployment.active_revision} answers meanwhile." if deployment.endpoints else ""
    return f"Revision {deployment.latest_revision} is not ready: {failing.message}{meanwhile}"


def shown(changes: Iterator[Deployment], *, as_json: bool) -> Iterator[Deployment]:
    """The changes, each shown before it is given on."""
    if as_json:
        return _each(changes, lambda now: print(json.dumps(plain(now), ensure_ascii=False), flush=True))
    if interactive():
        return _live(changes)
    return _each(changes, lambda now: print(clean(line_of(now)), flush=True))


def line_of(deployment: Deployment) -> str:
    """A deployment in one line."""
    available = deployment.condition("available")
    parts = [
        dt.datetime.now().astimezone().strftime("%H:%M:%S"),
        deployment.state or "",
        f"{deployment.ready_replicas} of {deployment.wanted_replicas} replicas",
        f"revision {deployment.active_revision or '-'} answers",
    ]
    if deployment.latest_revision != deployment.active_revision and deployment.state not in _OVER:
        parts.append(newest_of(deployment))
    if deployment.idle:
        parts.append("idle until somebody calls")
    if available is not None and not available.status and deployment.state == "failed":
        parts.append(available.message)
    return ", ".join(parts)


def newest_of(deployment: Deployment) -> str:
    """What a newer revision than the active one does."""
    newest = deployment.latest_revision
    if deployment.rolled_back or deployment.withdrawn:
        return f"revision {newest} was taken back"
    progressing = deployment.condition("progressing")
    if progressing is None or newest not in {each.revision for each in deployment.traffic}:
        return f"revision {newest} is on its way"
    return progressing.message[:1].lower() + progressing.message[1:].rstrip(".")


def _each(changes: Iterator[Deployment], show: Callable[[Deployment], None]) -> Iterator[Deployment]:
    for now in changes:
        show(now)
        yield now


def _live(changes: Iterator[Deployment]) -> Iterator[Deployment]:
    from rich.live import Live

    with Live(refresh_per_second=8) as live:
        for now in changes:
            live.update(picture(now), refresh=True)
            yield now


def picture(deployment: Deployment) -> RenderableType:
    """A deployment for people: its state, and a line for each process."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    colours = {"ready": "green", "progressing": "yellow", "degraded": "yellow", "failed": "red"}
    head = Text(f"{clean(deployment.name)}  ")
    head.append(deployment.state or "", style=colours.get(deployment.state or "", ""))
    head.append(f"  {deployment.ready_replicas}/{deployment.wanted_replicas} replicas")
    table = Table("REVISION", "REPLICA", "STATE", "ENDPOINT", "RESTARTS", box=None)
    for replica in deployment.replicas:
        weight = next((each.weight for each in deployment.traffic if each.revision == replica.revision), 0)
        table.add_row(
            f"{replica.revision} ({weight} %)",
            replica.id[:8],
            Text(replica.state or "", style=colours.get(replica.state or "", "")),
            replica.endpoint or "",
            str(replica.restarts),
        )
    if deployment.idle:
        head.append("  idle until somebody calls")
    failing = deployment.condition("replica_failure")
    note = [Text(clean(failing.message), style="red")] if failing is not None and failing.status else []
    if deployment.latest_revision != deployment.active_revision and deployment.state not in _OVER:
        note.append(Text(newest_of(deployment).capitalize()))
    return Group(head, table, *note)
