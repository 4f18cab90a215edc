"""The kinds of things that are shown: where the API has them, and the columns of their tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from brain_clusters.cli.words import age, percent, size, span, word
from brain_clusters.errors import InvalidInput

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column. read: its cell's text of a row."""

    title: str
    read: Callable[[Row], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of things. plural: the name of the API's list, too; key: the field that names one.

    below: whether a list is of one cluster, in the API; wide: columns that only ``-o wide`` shows.
    """

    plural: str
    singular: str
    key: str = "id"
    short: str = ""
    columns: Sequence[Column] = ()
    wide: Sequence[Column] = field(default=())

    def matches(self, name: str) -> bool:
        """Return whether a person means this kind by ``name``."""
        return name.lower() in (self.plural, self.singular, self.short)


def _of(title: str, name: str | None = None, show: Callable[[Any], str] = word) -> Column:
    key = name or title.lower().replace(" ", "_")
    return Column(title, lambda row: show(row.get(key)))


def _agents(row: Row) -> str:
    return f"{row.get('current_workers')}/{row.get('target_workers')}"


def _blueprint(row: Row) -> str:
    return f"{row.get('blueprint_id')} {row.get('blueprint_version')}"


def _took(row: Row) -> str:
    begin, end = row.get("started_at"), row.get("finished_at")
    if begin is None or end is None:
        return word(None)
    from datetime import datetime

    return span(max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()))


def _error(row: Row) -> str:
    found = row.get("error")
    if isinstance(found, Mapping):
        return word(f"{found.get('type')}: {found.get('message')}")
    return word(found)


CLUSTERS = Kind(
    plural="clusters", singular="cluster", short="c",
    columns=(
        _of("ID"), _of("STATUS"), Column("AGENTS", _agents), _of("LOAD", "load_percentage", percent),
        Column("BLUEPRINT", _blueprint), _of("AGE", "created_at", age),
    ),
    wide=(
        _of("NAME"), _of("TYPE"), _of("MIN", "min_workers"), _of("MAX", "max_workers"), _of("DONE", "tasks_completed"),
        _of("FAILED", "tasks_failed"), _of("HEALTH", "health_score"), _of("ACTIVE", "last_active", age),
        _of("PARENT", "parent_cluster_id"), _of("BUDGET", "budget_per_day"), _of("TAGS"),
    ),
)  # fmt: skip
AGENTS = Kind(
    plural="agents", singular="agent", short="a", key="agent_id",
    columns=(
        _of("ID", "agent_id"), _of("STATUS"), _of("JOBS", "tasks_completed"), _of("CPU", "cpu", percent),
        _of("MEMORY", "memory", size), _of("AGE", "spawned_at", age),
    ),
    wide=(
        _of("CLUSTER", "cluster_id"), _of("GROUP"), _of("ROLE"), _of("BEAT"), _of("IN FLIGHT"),
        _of("FAILED", "tasks_failed"), _of("MEAN", "avg_task_duration", span), _of("DRIVER"), _of("HOST", "host_id"),
        _of("PID"), _of("REASON"), _of("LAST ERROR"),
    ),
)  # fmt: skip
JOBS = Kind(
    plural="jobs", singular="job", short="j",
    columns=(
        _of("ID"), _of("STATUS"), _of("GROUP"), Column("TOOK", _took), _of("AGE", "created_at", age),
    ),
    wide=(
        _of("CLUSTER", "cluster_id"), _of("ATTEMPTS"), _of("PRIORITY"), _of("AGENT", "agent_id"), _of("ETA"),
        _of("PARENT", "parent_id"), Column("ERROR", _error),
    ),
)  # fmt: skip
BLUEPRINTS = Kind(
    plural="blueprints", singular="blueprint", short="b",
    columns=(
        _of("ID"), _of("VERSION"), _of("NAME"), _of("CLUSTERS", "instances_active"), _of("AGE", "created_at", age),
    ),
    wide=(
        _of("ACTIVE", "is_active"), _of("MADE", "instances_created"), _of("SUCCESS", "success_rate"), _of("AUTHOR"),
        _of("TAGS"), _of("DESCRIPTION"),
    ),
)  # fmt: skip
OPERATIONS = Kind(
    plural="operations", singular="operation", short="o",
    columns=(
        _of("ID"), _of("KIND"), _of("STATUS"), _of("CLUSTER", "cluster_id"), _of("AGE", "created_at", age),
    ),
    wide=(Column("TOOK", _took), _of("ORIGIN"), _of("ATTEMPTS"), Column("ERROR", _error), _of("REQUEST")),
)  # fmt: skip
EVENTS = Kind(
    plural="events", singular="event", short="e",
    columns=(_of("AGE", "at", age), _of("KIND"), _of("CLUSTER", "cluster_id"), _of("REASON")),
    wide=(
        _of("ID"), _of("AT"), _of("ACTOR"), _of("AGENT", "agent_id"), _of("OPERATION", "operation_id"), _of("DATA"),
    ),
)  # fmt: skip
HOSTS = Kind(
    plural="hosts", singular="host", short="h",
    columns=(
        _of("ID"), _of("DRIVER"), _of("LEASE"), Column("AGENTS", lambda row: f"{row['agents']}/{row['capacity']}"),
        _of("CPUS", "cpus_used"), _of("MEMORY", "memory_bytes_used", size), _of("SEEN", "seen_at", age),
    ),
    wide=(_of("OF CPUS", "cpus"), _of("OF MEMORY", "memory_bytes", size)),
)  # fmt: skip
KEYS = Kind(
    plural="keys", singular="key", short="k",
    columns=(
        _of("ID"), _of("NAME"), _of("ROLE"), _of("STATUS"), _of("TAGS"),
        _of("USED", "last_used_at", age), _of("EXPIRES", "expires_at"),
    ),
    wide=(
        _of("PAYLOADS"), _of("CREATED BY"), _of("CREATED AT"), _of("FROM", "last_used_from"), _of("REVOKED AT"),
    ),
)  # fmt: skip
ROLLOUTS = Kind(
    plural="rollouts", singular="rollout", short="r",
    columns=(
        _of("ID"), _of("STATUS"), _of("CLUSTER", "cluster_id"), _of("FROM", "from_version"), _of("TO", "to_version"),
        _of("AGE", "created_at", age),
    ),
    wide=(_of("PROGRESS"), _of("UNDO"), _of("FINISHED AT"), _of("REASON")),
)  # fmt: skip
KINDS = (CLUSTERS, AGENTS, JOBS, BLUEPRINTS, OPERATIONS, EVENTS, HOSTS, KEYS)


def kind_of(name: str) -> Kind:
    """Return the kind that a person means by ``name``; raise InvalidInput."""
    for kind in KINDS:
        if kind.matches(name):
            return kind
    raise InvalidInput(f"{name!r} is no kind; use {', '.join(kind.plural for kind in KINDS)}")
