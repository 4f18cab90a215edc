"""``create``, ``scale``, ``hibernate``, ``wake``, ``pause``, ``resume`` and ``destroy``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import click

from brain_clusters.cli import options
from brain_clusters.cli.client import ApiClient, path_of
from brain_clusters.cli.kinds import CLUSTERS
from brain_clusters.cli.output import show, show_data
from brain_clusters.cli.progress import wait_for_operation
from brain_clusters.errors import BrainError, Conflict, InvalidInput

_IDS = click.argument(
    "clusters", nargs=-1, required=True, metavar="CLUSTER...", shell_complete=options.complete_clusters
)
# What the API calls otherwise than its command.
_COMMANDS = {"reactivate": "wake"}


@click.command()
@click.argument("blueprint", metavar="BLUEPRINT")
@click.option("--name", help="For people; the id, or the blueprint's, without it.")
@click.option("--id", "cluster_id", help="Made from the name without it.")
@click.option("--workers", "target_workers", type=int, help="All agents to start with, the supervisor included.")
@click.option("--min", "min_workers", type=int, help="The fewest agents while it is awake.")
@click.option("--max", "max_workers", type=int, help="The most agents.")
@click.option("--type", "type_", help="What it is for: department, project, temporary, persistent.")
@click.option("--parent", "parent_cluster_id", metavar="CLUSTER", help="The cluster that it belongs to.")
@click.option("--budget", "budget_per_day", type=float, help="The most that it may spend in a day.")
@click.option("--tag", "tags", multiple=True, help="A word to filter by; may be given several times.")
@click.option("--description", help="For people.")
@click.option("--config", metavar="JSON", help="Any JSON object of yours, kept with it.")
@options.waiting
@options.dry_run
@options.output
@options.connected
def create(
    api: ApiClient, blueprint: str, wait: bool, timeout: float, dry_run: bool, output: str, **given: Any
) -> None:
    """Make a cluster from BLUEPRINT.

    \b
    brain-clusters create marketing-v1 --name Q1 --id q1 --workers 6 --wait
    """
    body = _body(blueprint, given)
    if dry_run:
        api.get(path_of("blueprints", blueprint))
        show_data({"POST /api/clusters": body}, "json" if output == "json" else "yaml")
        return
    _begin(api, lambda: api.post("/api/clusters", body), wait=timeout if wait else None, output=output)


def _body(blueprint: str, given: dict[str, Any]) -> dict[str, Any]:
    text, tags = given.pop("config"), given.pop("tags")
    given["id"], given["type"] = given.pop("cluster_id"), given.pop("type_")
    given["name"] = given["name"] or given["id"] or blueprint
    body = {"blueprint_id": blueprint} | {name: value for name, value in given.items() if value is not None}
    if tags:
        body["tags"] = list(tags)
    if text is not None:
        try:
            body["config"] = json.loads(text)
        except ValueError as exc:
            raise InvalidInput(f"--config is no JSON: {exc}") from exc
    return body


@click.command()
@options.cluster_argument
@click.argument("sizes", nargs=-1, required=True, metavar="N | GROUP=N...")
@options.waiting
@options.dry_run
@options.output
@options.connected
def scale(
    api: ApiClient, cluster: str, sizes: tuple[str, ...], wait: bool, timeout: float, dry_run: bool, output: str
) -> None:
    """Set the number of all agents of CLUSTER, the supervisor included, or that of single groups.

    \b
    brain-clusters scale q1 9 --wait
    brain-clusters scale q1 'Image Generator=3' Copywriter=2
    """
    body = _sizes(sizes)
    if dry_run:
        seen = _possible(api, cluster, "scale")
        told = body.get("target_workers") or ", ".join(f"{name}={count}" for name, count in body["groups"].items())
        click.echo(f"would scale {cluster} from {seen['target_workers']} agents ({_groups(seen)}) to {told}")
        return
    path = path_of("clusters", cluster, "scale")
    _begin(api, lambda: api.post(path, body), wait=timeout if wait else None, output=output)


def _groups(seen: dict[str, Any]) -> str:
    return ", ".join(f"{name}={count}" for name, count in (seen.get("group_targets") or {}).items())


def _sizes(sizes: Sequence[str]) -> dict[str, Any]:
    if len(sizes) == 1 and sizes[0].isdecimal():
        return {"target_workers": int(sizes[0])}
    groups = {}
    for text in sizes:
        name, _, count = text.rpartition("=")
        if not name or not count.isdecimal():
            raise InvalidInput(f"{text!r} is no size; write a number for all agents, or GROUP=NUMBER for each group")
        groups[name] = int(count)
    return {"groups": groups}


@click.command()
@_IDS
@options.waiting
@options.dry_run
@options.output
@options.connected
def hibernate(api: ApiClient, **given: Any) -> None:
    """Put CLUSTERs to sleep: their agents finish what they do and leave. The next job wakes one."""
    _each(api, "hibernate", lambda cluster: api.post(path_of("clusters", cluster, "hibernate")), **given)


@click.command()
@_IDS
@options.waiting
@options.dry_run
@options.output
@options.connected
def wake(api: ApiClient, **given: Any) -> None:
    """Wake CLUSTERs."""
    _each(api, "reactivate", lambda cluster: api.post(path_of("clusters", cluster, "reactivate")), **given)


@click.command()
@_IDS
@options.yes
@options.waiting
@options.dry_run
@options.output
@options.connected
def destroy(api: ApiClient, clusters: tuple[str, ...], yes: bool, dry_run: bool, **given: Any) -> None:
    """Stop all agents of CLUSTERs for good. They stay as history. Asks before."""
    if not dry_run:
        seen = [_possible(api, cluster, "destroy") for cluster in clusters]
        agents = sum(one["current_workers"] for one in seen)
        options.confirm(f"Destroy {', '.join(clusters)} with {agents} agents?", yes=yes)
    _each(api, "destroy", lambda cluster: api.delete(path_of("clusters", cluster)), clusters, dry_run=dry_run, **given)


@click.command()
@_IDS
@options.output
@options.connected
def pause(api: ApiClient, clusters: tuple[str, ...], output: str) -> None:
    """Have the autoscaler leave CLUSTERs alone: none is scaled, put to sleep or woken until 'resume'."""
    _all(
        clusters,
        lambda cluster: _told(
            api.post(path_of("clusters", cluster, "pause"), {}), output, "is left alone by the autoscaler"
        ),
    )


@click.command()
@_IDS
@options.output
@options.connected
def resume(api: ApiClient, clusters: tuple[str, ...], output: str) -> None:
    """Have the autoscaler look after CLUSTERs again."""
    _all(
        clusters,
        lambda cluster: _told(api.post(path_of("clusters", cluster, "resume"), {}), output, "is looked after again"),
    )


def _told(answer: Any, output: str, word: str) -> None:
    seen = answer["cluster"]
    if output == "table":
        click.echo(f"{seen['id']} {word}")
    else:
        show(answer if output in ("json", "yaml") else seen, CLUSTERS, output)


def _each(
    api: ApiClient, kind: str, send: Callable[[str], Any], clusters: Sequence[str], *,
    wait: bool, timeout: float, dry_run: bool, output: str,
) -> None:  # fmt: skip
    """Do the same with several clusters; all are asked for before any is waited for."""
    if dry_run:
        for cluster in clusters:
            seen = _possible(api, cluster, kind)
            click.echo(
                f"would {_named(kind)} {cluster}, which is {seen['status']} with {seen['current_workers']} agents"
            )
        return
    answers: list[Any] = []
    _all(
        clusters,
        lambda cluster: answers.append(send(cluster)),
        after=lambda: _finish(api, answers, wait, timeout, output),
    )


def _finish(api: ApiClient, answers: Sequence[Any], wait: bool, timeout: float, output: str) -> None:
    for answer in answers:
        _show(api, answer, wait=timeout if wait else None, output=output)


def _all(clusters: Sequence[str], do: Callable[[str], None], after: Callable[[], None] = lambda: None) -> None:
    """Do it with each, whether or not another fails; raise the first failure at the end, having told the others."""
    from brain_clusters.cli.faults import show_error

    failures: list[BrainError] = []
    for cluster in clusters:
        try:
            do(cluster)
        except BrainError as exc:
            failures.append(exc)
    after()
    for failure in failures[1:]:
        show_error(failure)
    if failures:
        raise failures[0]


def _begin(api: ApiClient, send: Callable[[], Any], *, wait: float | None, output: str) -> None:
    _show(api, send(), wait=wait, output=output)


def _show(api: ApiClient, answer: Any, *, wait: float | None, output: str) -> None:
    """Show what was accepted; with ``wait``, in seconds, what became of it."""
    operation, cluster = answer["operation"], answer["cluster"]
    if wait is not None:
        operation = wait_for_operation(api, operation, wait)
        cluster = api.get(path_of("clusters", cluster["id"]))
    if output in ("json", "yaml"):
        show_data({"operation": operation, "cluster": cluster}, output)
    elif output != "table":
        show(cluster, CLUSTERS, output)
    elif wait is not None:
        click.echo(f"{cluster['id']} is {cluster['status']} with {cluster['current_workers']} agents")
    else:
        click.echo(f"{cluster['id']}: {_named(operation['kind'])} accepted (operation {operation['id']})")


def _possible(api: ApiClient, cluster: str, kind: str) -> dict[str, Any]:
    """Return a cluster that accepts a command now; raise Conflict, with what it does accept."""
    seen: dict[str, Any] = api.get(path_of("clusters", cluster))
    if kind not in seen["possible"]:
        possible = [_named(one) for one in seen["possible"]]
        raise Conflict(f"cannot {_named(kind)} {cluster}", status=seen["status"], possible=possible)
    return seen


def _named(kind: str) -> str:
    """Return the command that is meant by the API's name of one."""
    return _COMMANDS.get(kind, kind)
