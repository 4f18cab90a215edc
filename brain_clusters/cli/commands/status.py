"""``status``: what runs, and what needs attention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from brain_clusters.cli import options
from brain_clusters.cli.client import ApiClient, path_of
from brain_clusters.cli.output import show_data, show_fields
from brain_clusters.cli.target import Target
from brain_clusters.cli.words import age, plain, word

_RECENT_SECONDS = 3600.0


@click.command()
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", help="How to show it.")
@options.targeted
def status(output: str, **given: Any) -> None:
    """Show what runs, and what needs attention. Exits 1 when the API does not answer or cannot work."""
    target = options.take_target(given)
    with options.client_of(target) as api:
        found = _read(api, target)
    if output != "table":
        show_data(found, output)
        return
    show_fields(_told(found))
    for line in found["attention"]:
        click.secho(f"! {plain(line)}", fg="yellow")
    if not found["attention"]:
        click.secho("nothing needs attention", fg="green")


def _read(api: ApiClient, target: Target) -> dict[str, Any]:
    version, ready = api.get("/version"), api.get("/readyz")
    clusters = api.every("/api/clusters", "clusters")["clusters"]
    hosts = api.get("/api/hosts")["hosts"]
    operations = api.get("/api/operations", limit=200)["operations"]
    live = [one for one in clusters if one["status"] != "destroyed"]
    found = {
        "api": target.url,
        "named_by": target.named_by,
        "version": version["version"],
        "redis": ready["redis"],
        "clusters": dict(Counter(one["status"] for one in live)),
        "agents": sum(one["current_workers"] for one in live),
        "wanted_agents": sum(one["target_workers"] for one in live if one["status"] != "hibernated"),
        "hosts": {one["id"]: one["lease"] for one in hosts},
        "operations_under_way": sum(one["status"] in ("pending", "running") for one in operations),
    }
    return found | {"attention": list(_attention(api, ready, live, hosts, operations))}


def _attention(
    api: ApiClient, ready: Any, clusters: list[Any], hosts: list[Any], operations: list[Any]
) -> Iterator[str]:
    if ready["redis"] != "up":
        yield "Redis does not answer: commands are accepted and wait; nothing is scaled"
    if not any(host["lease"] == "held" for host in hosts):
        yield "no host runs, so no agent can start; run 'brain-clusters host', or 'up' without --no-host"
    for host in hosts:
        if host["lease"] == "ended":
            yield f"host {host['id']} was seen {age(host['seen_at'])} ago for the last time"
    for one in operations:
        if one["status"] == "failed" and _is_recent(one["finished_at"]):
            yield f"{one['kind']} {one['cluster_id']} failed {age(one['finished_at'])} ago: {word(one['error'])}"
    for one in clusters:
        if one["over_budget_on"]:
            yield f"{one['id']} has spent its budget of {one['over_budget_on']}"
        if one["status"] != "hibernated" and one["health_score"] is not None and one["health_score"] < 0.5:
            yield f"{one['id']} has a health of {one['health_score']:.2f}; see 'describe cluster {one['id']}'"
    yield from _of_overview(api)


def _of_overview(api: ApiClient) -> Iterator[str]:
    """Yield what the API itself finds worth a look, where it tells."""
    from brain_clusters.errors import BrainError

    try:
        found = api.get(path_of("overview"))
    except BrainError:
        return
    for one in found.get("attention") or ():
        yield str(one.get("text") or one.get("message") or one) if isinstance(one, dict) else str(one)


def _is_recent(instant: str | None) -> bool:
    from datetime import UTC, datetime

    return instant is not None and (
        (datetime.now(UTC) - datetime.fromisoformat(instant)).total_seconds() < _RECENT_SECONDS
    )


def _told(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "API", f"{found['api']} ({found['named_by']}), version {found['version']}"
    yield "Redis", found["redis"]
    yield "hosts", word(found["hosts"])
    yield "clusters", ", ".join(f"{count} {name}" for name, count in found["clusters"].items()) or "none"
    yield "agents", f"{found['agents']} of {found['wanted_agents']}"
    yield "operations", f"{found['operations_under_way']} under way"
