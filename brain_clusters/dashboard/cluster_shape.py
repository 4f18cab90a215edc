"""A cluster as its pages show it: the tree of its agents, its timeline, its costs, and its blueprint's versions."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from brain_clusters.dashboard import figures
from brain_clusters.dashboard.figures import Chart
from brain_clusters.db.models import Cluster, ScalingDecision, StoredBlueprint
from brain_clusters.db.session import Session
from brain_clusters.domain import budgets
from brain_clusters.domain.specs import AgentGroup, Blueprint, Budget
from brain_clusters.domain.states import READY_AGENT_STATUSES
from brain_clusters.errors import BrainError, NotFound
from brain_clusters.services import clusters, costs, explain
from brain_clusters.services.control import Control
from brain_clusters.services.costs import Period, Report

_CHIPS = 48
_DAYS = 30


@dataclass(frozen=True, slots=True)
class Member:
    """A live agent in the tree. state: as its fresh beat tells; beat: fresh, missing or unknown."""

    id: str
    state: str
    beat: str

    @property
    def short(self) -> str:
        """The part of its id that tells it from its siblings."""
        return self.id.rsplit(".", 1)[-1]


@dataclass(frozen=True, slots=True)
class Branch:
    """A group in the tree, with its agents, at most _CHIPS of them; ``more`` are left out."""

    group: AgentGroup
    target: int
    ready: int
    members: Sequence[Member]
    more: int
    below: Sequence[Branch]


def tree(control: Control, session: Session, cluster: Cluster, blueprint: Blueprint) -> Branch:
    """Return the hierarchy with the live state of each agent."""
    found = clusters.agents(session, cluster.id)
    beats = clusters.beats(control, [agent.agent_id for agent in found])
    members: dict[str, list[Member]] = {}
    for agent in found:
        beat = None if beats is None else beats.get(agent.agent_id)
        state = beat["state"] if beat is not None and agent.status in READY_AGENT_STATUSES else str(agent.status)
        told = "unknown" if beats is None else "missing" if beat is None else "fresh"
        members.setdefault(agent.group_name, []).append(Member(agent.agent_id, state, told))
    return _branch(blueprint, blueprint.supervisor, cluster, members)


def _branch(
    blueprint: Blueprint, group: AgentGroup, cluster: Cluster, members: Mapping[str, Sequence[Member]]
) -> Branch:
    top, found = blueprint.supervisor.name, members.get(group.name, ())
    below = [one for one in blueprint.groups if one.name != top and (one.reports_to or top) == group.name]
    return Branch(
        group, cluster.group_targets.get(group.name, 0), sum(one.state in READY_AGENT_STATUSES for one in found),
        found[:_CHIPS], max(0, len(found) - _CHIPS), [_branch(blueprint, one, cluster, members) for one in below],
    )  # fmt: skip


# --- the timeline -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Turn:
    """A decision. changes: the groups whose counts it changed, or would have; held: by which gates, each a sentence.

    reason: "" where the gates' sentences are all of it.
    """

    id: int
    at: datetime
    action: str
    reason: str
    changes: Sequence[tuple[str, int, int]]
    held: Sequence[tuple[str, str, str]]


def turn(row: ScalingDecision) -> Turn:
    """Return a decision as the timeline shows it."""
    names = [*row.before, *(name for name in row.after if name not in row.before)]
    changes = [(name, row.before.get(name, 0), row.after.get(name, 0)) for name in names]
    held = [(name, gate.get("gate", ""), gate.get("reason", "")) for name, gate in row.held.items()]
    reason = "" if row.reason == "; ".join(f"{name}: {told}" for name, _, told in held) else row.reason
    return Turn(row.id, row.at, row.action, reason, [one for one in changes if one[1] != one[2]], held)


def now(control: Control, cluster_id: str) -> dict[str, Any] | None:
    """Return what the next tick would do; None where nothing is decided, or nobody can tell."""
    try:
        return explain.explain(control, cluster_id)
    except BrainError:
        return None


# --- costs ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bill:
    """What a cluster cost: by day as a chart, by group, and today against its budget. priced: any group has a price."""

    chart: Chart
    groups: Report
    days: Report
    budget: Budget
    spent: Decimal
    priced: bool

    @property
    def share(self) -> float | None:
        """How much of today's budget is spent, from 0; None without one."""
        return float(self.spent) / self.budget.per_day if self.budget.per_day else None


def bill(session: Session, cluster: Cluster, blueprint: Blueprint, currency: str) -> Bill:
    """Return the bill of a cluster over the last _DAYS days."""
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=_DAYS - 1 - number) for number in range(_DAYS)]
    period = Period(days[0], today)
    by_day = costs.report(session, period, "day", cluster.id)
    return Bill(
        figures.of_costs(by_day.rows, days, currency),
        costs.report(session, period, "group", cluster.id),
        by_day,
        budgets.effective(blueprint.budget, cluster.budget_per_day),
        costs.spent(session, [cluster.id], today)[cluster.id].total,
        any(group.cost for group in blueprint.groups),
    )


# --- the blueprint ----------------------------------------------------------------------------------------------


def text_of(session: Session, blueprint_id: str, version: str) -> str:
    """Return a blueprint's text, also of a version that was retired; raise NotFound."""
    found = session.get(StoredBlueprint, (blueprint_id, version))
    if found is None:
        raise NotFound(f"there is no blueprint {blueprint_id!r} in version {version!r}")
    return found.blueprint_yaml


def difference(session: Session, blueprint_id: str, before: str, after: str) -> list[tuple[str, str]]:
    """Return the lines in which two versions differ, each with its class: gone, new, same or where."""
    old, new = (text_of(session, blueprint_id, one).splitlines() for one in (before, after))
    kinds = {"-": "gone", "+": "new", "@": "where"}
    lines = list(difflib.unified_diff(old, new, lineterm="", n=4))
    return [(kinds.get(line[:1], "same"), line) for line in lines[2:]]
