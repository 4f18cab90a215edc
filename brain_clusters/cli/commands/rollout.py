"""``rollout``: a cluster on another version of its blueprint, group by group, and back."""

from __future__ import annotations

from typing import Any

import click

from brain_clusters.cli import options
from brain_clusters.cli.client import ApiClient, path_of
from brain_clusters.cli.kinds import ROLLOUTS
from brain_clusters.cli.output import show, show_data, show_fields
from brain_clusters.cli.progress import poll, wait_for_operation
from brain_clusters.cli.words import NOTHING, age, span, word
from brain_clusters.errors import NotFound, PermanentError

_ENDED = ("succeeded", "failed", "reverted", "superseded")
_CLUSTER = options.cluster_argument


@click.group()
def rollout() -> None:
    """Bring a cluster to another version of its blueprint, or back.

    A running job ends on the version that it began with.
    """


@rollout.command()
@_CLUSTER
@click.option("--version", help="The blueprint's version; the newest without it.")
@click.option("--max-parallel", metavar="N|PERCENT", help="Agents replaced at once, such as 2 or 25%.")
@click.option("--min-healthy-time", metavar="DURATION", help="How long a new agent must be well before the next.")
@click.option("--progress-deadline", metavar="DURATION", help="It fails when nothing becomes better for so long.")
@click.option("--auto-revert/--no-auto-revert", default=None, help="Go back when new agents fail.")
@options.waiting
@options.output
@options.connected
def start(api: ApiClient, cluster: str, wait: bool, timeout: float, output: str, **given: Any) -> None:
    """Begin to bring CLUSTER to a version of its blueprint."""
    body = {name: value for name, value in given.items() if value is not None}
    if str(body.get("max_parallel", "")).isdecimal():
        body["max_parallel"] = int(body["max_parallel"])
    _begun(api, cluster, api.post(path_of("clusters", cluster, "rollout"), body), wait, timeout, output)


@rollout.command()
@_CLUSTER
@click.option("--version", help="The version to go back to; the one before without it.")
@options.waiting
@options.output
@options.connected
def undo(api: ApiClient, cluster: str, version: str | None, wait: bool, timeout: float, output: str) -> None:
    """Bring CLUSTER back to the version before."""
    body = {} if version is None else {"version": version}
    _begun(api, cluster, api.post(path_of("clusters", cluster, "rollout", "undo"), body), wait, timeout, output)


@rollout.command()
@_CLUSTER
@options.output
@options.connected
def pause(api: ApiClient, cluster: str, output: str) -> None:
    """Hold the rollout of CLUSTER where it is."""
    _accepted(api.post(path_of("clusters", cluster, "rollout", "pause"), {}), output)


@rollout.command()
@_CLUSTER
@options.output
@options.connected
def resume(api: ApiClient, cluster: str, output: str) -> None:
    """Go on with the rollout of CLUSTER."""
    _accepted(api.post(path_of("clusters", cluster, "rollout", "resume"), {}), output)


@rollout.command()
@_CLUSTER
@options.output
@options.connected
def history(api: ApiClient, cluster: str, output: str) -> None:
    """List the rollouts of CLUSTER, newest first."""
    show(api.every(path_of("clusters", cluster, "rollouts"), "rollouts"), ROLLOUTS, output)


@rollout.command()
@_CLUSTER
@click.option("-w", "--watch", is_flag=True, help="Follow it to its end; exits 1 when it failed or was reverted.")
@click.option("--timeout", default=3600.0, metavar="SECONDS", help="How long -w follows.")
@options.output
@options.connected
def status(api: ApiClient, cluster: str, watch: bool, timeout: float, output: str) -> None:
    """Show how the newest rollout of CLUSTER stands."""
    found = _newest(api, cluster)
    if watch:
        found = _follow(api, found, timeout)
    _told(found, output)
    if watch:
        _judge(found, timeout)


def _newest(api: ApiClient, cluster: str) -> Any:
    rows = api.get(path_of("clusters", cluster, "rollouts"), limit=1)["rollouts"]
    if not rows:
        raise NotFound(f"nothing was rolled out to {cluster} yet; 'brain-clusters rollout start {cluster}' begins one")
    return rows[0]


def _begun(api: ApiClient, cluster: str, answer: Any, wait: bool, timeout: float, output: str) -> None:
    """Show what was accepted; with ``wait``, what became of the rollout."""
    if not wait:
        _accepted(answer, output)
        return
    wait_for_operation(api, answer["operation"], timeout)
    found = _newest(api, cluster)
    _told(found, output)
    _judge(found, timeout)


def _accepted(answer: Any, output: str) -> None:
    operation = answer["operation"]
    if output in ("json", "yaml"):
        show_data(answer, output)
    elif output == "name":
        click.echo(operation["cluster_id"])
    else:
        click.echo(f"{operation['cluster_id']}: accepted (operation {operation['id']}); 'rollout status -w' follows it")


def _follow(api: ApiClient, found: Any, timeout: float) -> Any:
    path = path_of("rollouts", str(found["id"]))
    return poll(lambda: api.get(path), lambda one: one["status"] in _ENDED, _line, timeout)


def _judge(found: Any, timeout: float) -> None:
    """Raise PermanentError when it did not succeed."""
    if found["status"] not in _ENDED:
        raise PermanentError(f"it is not done after {span(timeout)} and goes on; 'rollout status -w' follows it")
    if found["status"] != "succeeded":
        raise PermanentError(f"the rollout {found['status']}: {found.get('reason') or 'no reason is told'}")


def _line(found: Any) -> str:
    return f"rollout {found['id']} is {found['status']}{_parts(found)}"


def _parts(found: Any) -> str:
    return f": {word(found['progress'])}" if found["progress"] else ""


def _told(found: Any, output: str) -> None:
    if output in ("json", "yaml"):
        show_data(found, output)
    elif output == "name":
        click.echo(found["id"])
    else:
        show_fields(
            (name, age(value) if name.endswith("_at") and value else word(value)) for name, value in _shown(found)
        )


def _shown(found: Any) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in found.items() if word(value) != NOTHING]
