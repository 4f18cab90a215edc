"""What the schema alone cannot tell: rules between the parts of a blueprint.

The document may lack parts: those that the schema already refused were taken out. A rule whose parts are not all
there is not applied, so that one mistake makes one fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from brain_clusters.blueprints.build import superior
from brain_clusters.blueprints.crosschecks_lifecycle import lifecycle_faults
from brain_clusters.blueprints.crosschecks_scaling import scaling_faults
from brain_clusters.blueprints.messages import clipped, nearest
from brain_clusters.blueprints.schema_work import KINDS
from brain_clusters.domain.secrecy import ADVICE, secrets_in
from brain_clusters.domain.sharing import parse_retention, parse_size
from brain_clusters.domain.specs import parse_count, slug
from brain_clusters.domain.states import AgentRole
from brain_clusters.errors import Fault

Groups = list[Mapping[str, Any]]


def cross_faults(document: Mapping[str, Any], stated: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield every fault between the sound parts of ``document``; ``stated`` is the same without the defaults."""
    cluster: Mapping[str, Any] = document.get("cluster", {})
    entries = document.get("agents", [])
    groups: Groups = [entry if isinstance(entry, dict) else {} for entry in entries]
    yield from _worker_bounds(cluster)
    yield from scaling_faults(cluster, stated.get("cluster", {}).get("scaling", {}), groups)
    yield from lifecycle_faults(document)
    yield from _memory(document.get("resources", {}).get("memory"))
    yield from _names(groups)
    yield from _supervisor(groups)
    yield from _work(groups)
    yield from _secrets(groups)
    yield from _budget(document.get("budget", {}))
    yield from _served(groups)
    if groups and all("name" in group and "role" in group for group in groups):
        yield from _hierarchy(groups)
    if groups and all("count" in group for group in groups):
        yield from _totals(cluster, groups)


def _worker_bounds(cluster: Mapping[str, Any]) -> Iterator[Fault]:
    lowest, highest = cluster.get("min_workers"), cluster.get("max_workers")
    default = cluster.get("default_workers")
    if lowest is not None and highest is not None and lowest > highest:
        told = f"min_workers is {lowest}, more than max_workers ({highest}); lower it or raise max_workers"
        yield Fault("/cluster/min_workers", told)
    elif default is not None and lowest is not None and default < lowest:
        told = f"default_workers is {default}, less than min_workers ({lowest}); raise it"
        yield Fault("/cluster/default_workers", told)
    elif default is not None and highest is not None and default > highest:
        told = f"default_workers is {default}, more than max_workers ({highest}); lower it"
        yield Fault("/cluster/default_workers", told)


def _names(groups: Groups) -> Iterator[Fault]:
    seen: dict[str, tuple[int, str]] = {}
    for index, group in enumerate(groups):
        name = group.get("name")
        if name is None:
            continue
        short = slug(name)
        if not short:
            told = f"the name '{clipped(name)}' has no letter a-z and no digit; queue names need one"
            yield Fault(f"/agents/{index}/name", told)
        elif short in seen:
            number, other = seen[short]
            alike = "" if other == name else ", which makes the same queue name"
            taken = f"agent group {number + 1} is named '{clipped(other)}'{alike}"
            told = f"the name '{clipped(name)}' is taken ({taken}); choose another"
            yield Fault(f"/agents/{index}/name", told)
        else:
            seen[short] = (index, name)


def _supervisor(groups: Groups) -> Iterator[Fault]:
    roles = [group.get("role") for group in groups]
    found = [index for index, role in enumerate(roles) if role == AgentRole.SUPERVISOR]
    if groups and not found and None not in roles:
        yield Fault("/agents", "no agent group has the role supervisor; give it to exactly one")
    for index in found[1:]:
        told = f"agent group {found[0] + 1} is the supervisor already; give this one another role"
        yield Fault(f"/agents/{index}/role", told)
    for index in found[:1]:
        if "count" in groups[index]:
            count = parse_count(groups[index]["count"])
            if (count.minimum, count.maximum) != (1, 1) or count.scalable:
                yield Fault(f"/agents/{index}/count", "the supervisor's count must be 1; a cluster has one supervisor")
        if groups[index].get("reports_to"):
            yield Fault(f"/agents/{index}/reports_to", "the supervisor reports to nobody; remove reports_to")


def _work(groups: Groups) -> Iterator[Fault]:
    for index, group in enumerate(groups):
        stated = [kind for kind in KINDS if kind in group]
        if len(stated) > 1:
            told = f"a group's jobs are done in one way, not by {' and '.join(stated)}; remove all but one"
            yield Fault(f"/agents/{index}/{stated[-1]}", told)
        if group.get("standby") == "warm" and stated in (["command"], ["http"]):
            told = f"a group with {stated[0]} imports nothing that standby could keep; remove it"
            yield Fault(f"/agents/{index}/standby", told)
        if "@" in urlsplit(str(group.get("http", {}).get("url", ""))).netloc:
            told = "an address holds no user and no password, which would be stored; send a header from env:NAME"
            yield Fault(f"/agents/{index}/http/url", told)
        pool, slots = group.get("pool"), group.get("concurrency", 1)
        if pool == "solo" and slots > 1:
            told = f"a solo pool does one job at a time, and concurrency is {slots}; choose threads, prefork or gevent"
            yield Fault(f"/agents/{index}/pool", told)
        elif pool == "gevent" and "celery" in group:
            yield Fault(
                f"/agents/{index}/pool", "workers of a Celery application cannot run on gevent here; choose threads"
            )
        elif slots > 64 and pool != "gevent":
            told = f"concurrency is {slots}; more than 64 slots need pool: gevent"
            yield Fault(f"/agents/{index}/concurrency", told)


def _secrets(groups: Groups) -> Iterator[Fault]:
    """Yield a fault for each secret that stands in the text: it is stored, and shown to all who may read blueprints."""
    for index, group in enumerate(groups):
        for part in ("environment", "config", "http", "celery"):
            for pointer in secrets_in(group.get(part), f"/agents/{index}/{part}"):
                if pointer != f"/agents/{index}/http/url":  # which has a rule of its own
                    yield Fault(pointer, f"a secret here {ADVICE}")


def _served(groups: Groups) -> Iterator[Fault]:
    """Yield a fault for each queue of an application that two groups serve: both would be sized for all of it."""
    seen: dict[tuple[str, str], int] = {}
    for index, group in enumerate(groups):
        work = group.get("celery") or {}
        for place, queue in enumerate(work.get("queues") or ()):
            first = seen.setdefault((work.get("broker") or "", queue), index)
            if first != index or work["queues"].index(queue) != place:
                told = f"agent group {first + 1} serves the queue '{clipped(queue)}' already; remove one of the two"
                yield Fault(f"/agents/{index}/celery/queues/{place}", told)


def _memory(stated: Any) -> Iterator[Fault]:
    """Yield what is wrong with the bounds of the shared memory. All else in it may be any data."""
    for key, parse in (("size", parse_size), ("retention", parse_retention)):
        if isinstance(stated, dict) and stated.get(key) is not None:
            try:
                parse(stated[key])
            except ValueError as exc:
                yield Fault(f"/resources/memory/{key}", f"{key} is {clipped(str(stated[key]))}; it {exc}")


def _budget(budget: Mapping[str, Any]) -> Iterator[Fault]:
    if budget.get("on_exceeded", "alert") != "alert" and "per_day" not in budget and "per_tree" not in budget:
        yield Fault("/budget/on_exceeded", "there is no limit to exceed; state per_day or per_tree")


def _hierarchy(groups: Groups) -> Iterator[Fault]:
    superiors = {group["name"]: superior(group, groups) for group in groups}
    faulty = False
    for index, group in enumerate(groups):
        wanted = group.get("reports_to")
        is_placed = superiors[group["name"]] is not None or group["role"] == AgentRole.SUPERVISOR
        if wanted and wanted != "supervisor" and not is_placed:
            faulty = True
            hint = nearest(wanted, ["supervisor", *superiors]) or "; name a group, or the word supervisor"
            told = f"reports_to names '{clipped(wanted)}', and no agent group is called so{hint}"
            yield Fault(f"/agents/{index}/reports_to", told)
    if not faulty:
        yield from _cycles(groups, superiors)


def _cycles(groups: Groups, superiors: Mapping[str, str | None]) -> Iterator[Fault]:
    """Yield one fault for each circle, at its first group in the order of the file."""
    known: set[str] = set()
    for group in groups:
        path: list[str] = []
        name: str | None = group["name"]
        while name is not None and name not in known:
            known.add(name)
            path.append(name)
            name = superiors[name]
        if name in path:
            circle = [*path[path.index(name) :], name]
            first = next(index for index, each in enumerate(groups) if each["name"] in circle)
            shown = " -> ".join(clipped(each) for each in circle[:8])
            yield Fault(f"/agents/{first}/reports_to", f"the groups report in a circle: {shown}; break it")


def _totals(cluster: Mapping[str, Any], groups: Groups) -> Iterator[Fault]:
    counts = [parse_count(group["count"]) for group in groups]
    fewest, most = sum(count.minimum for count in counts), sum(count.maximum for count in counts)
    lowest, highest = cluster.get("min_workers"), cluster.get("max_workers")
    if highest is not None and fewest > highest:
        told = f"the agent groups need at least {fewest} agents, more than max_workers ({highest}); raise it"
        yield Fault("/cluster/max_workers", told)
    if lowest is not None and most < lowest:
        told = f"the agent groups have at most {most} agents, fewer than min_workers ({lowest})"
        yield Fault("/cluster/min_workers", f"{told}; lower it or raise a count")
    yield from _default(cluster, fewest, most)


def _default(cluster: Mapping[str, Any], fewest: int, most: int) -> Iterator[Fault]:
    default, lowest, highest = (cluster.get(f"{key}_workers") for key in ("default", "min", "max"))
    if default is None or lowest is None or highest is None or not lowest <= default <= highest:
        return  # said already
    if default < fewest:
        told = f"default_workers is {default}, less than the {fewest} agents that the groups need at least; raise it"
        yield Fault("/cluster/default_workers", told)
    elif default > most >= lowest:
        told = f"default_workers is {default}, more than the agent groups can hold ({most}); lower it or raise a count"
        yield Fault("/cluster/default_workers", told)
