"""Lists and single things by kind: one place knows which path of the API has what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from brain_clusters.cli.client import ApiClient, path_of
from brain_clusters.cli.kinds import AGENTS, BLUEPRINTS, CLUSTERS, EVENTS, HOSTS, JOBS, KEYS, OPERATIONS, Kind
from brain_clusters.errors import InvalidInput, NotFound

# What a list may be narrowed by, besides a cluster.
FILTERS: dict[str, tuple[str, ...]] = {
    CLUSTERS.plural: ("status", "type", "tag", "name"),
    JOBS.plural: ("status", "group", "capability", "priority", "error", "parent", "since", "until"),
    AGENTS.plural: ("ended",),
    EVENTS.plural: ("kind", "since"),
}
_WITHOUT_PAGES = (HOSTS, KEYS)
_OF_A_CLUSTER = (AGENTS, JOBS, EVENTS, OPERATIONS)


def listing(
    api: ApiClient,
    kind: Kind,
    cluster: str | None,
    filters: dict[str, Any],
    most: int | None = None,
    *,
    past: bool = True,
) -> Any:
    """Return a list as the API names it, all pages in one, or the newest ``most``.

    past: with clusters that are destroyed. Raises InvalidInput for a filter that the kind does not have.
    """
    _check(kind, cluster, filters)
    if kind is CLUSTERS and not past:
        return _live_clusters(api, filters, most)
    if kind is AGENTS:
        return _agents(api, cluster, filters)
    if kind in _WITHOUT_PAGES:
        return api.get(path_of(kind.plural), **filters)
    if cluster is not None and kind in (JOBS, EVENTS) and "kind" not in filters and "since" not in filters:
        return api.every(path_of("clusters", cluster, kind.plural), kind.plural, most=most, **filters)
    return api.every(path_of(kind.plural), kind.plural, most=most, cluster_id=cluster, **filters)


def these(api: ApiClient, kind: Kind, ids: Sequence[str], cluster: str | None = None) -> Any:
    """Return the one thing, or a list where several are named; raise NotFound."""
    found = [one(api, kind, each, cluster) for each in ids]
    return found[0] if len(found) == 1 else {kind.plural: found, "total": len(found)}


def one(api: ApiClient, kind: Kind, name: str, cluster: str | None = None) -> Any:
    """Return one thing by its id; raise NotFound. Of a blueprint, ID@VERSION names a version."""
    if kind is BLUEPRINTS:
        blueprint, _, version = name.partition("@")
        return api.get(path_of("blueprints", blueprint), version=version or None)
    if kind in (HOSTS, KEYS, EVENTS):
        rows = listing(api, kind, cluster, {})[kind.plural]
        found = next((row for row in rows if str(row[kind.key]) == name), None)
        if found is None:
            raise NotFound(f"there is no {kind.singular} {name!r}; 'brain-clusters get {kind.plural}' lists them")
        return found
    return api.get(path_of(kind.plural, name))


def _check(kind: Kind, cluster: str | None, filters: dict[str, Any]) -> None:
    known = FILTERS.get(kind.plural, ())
    wrong = [f"--{name}" for name in filters if name not in known]
    if cluster is not None and kind not in _OF_A_CLUSTER:
        wrong.append("--cluster")
    if wrong:
        has = ", ".join(f"--{name}" for name in known) or "none"
        raise InvalidInput(f"{kind.plural} are not filtered by {', '.join(wrong)}; their filters: {has}")


def _live_clusters(api: ApiClient, filters: dict[str, Any], most: int | None) -> Any:
    found = api.every("/api/clusters", "clusters", **filters)
    live = [row for row in found["clusters"] if row["status"] != "destroyed"]
    return {**found, "clusters": live[:most], "total": len(live)}


def _agents(api: ApiClient, cluster: str | None, filters: dict[str, Any]) -> Any:
    if cluster is not None:
        return api.every(path_of("clusters", cluster, "agents"), "agents", **filters)
    clusters = api.every("/api/clusters", "clusters")["clusters"]
    wanted = [one["id"] for one in clusters if one["current_workers"] or one["target_workers"] or filters.get("ended")]
    rows = [row for each in wanted for row in _agents(api, each, filters)["agents"]]
    return {"agents": rows, "total": len(rows)}
