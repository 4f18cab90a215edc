"""How all clusters are doing, in one look: totals, today's cost, and what needs attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from brain_clusters.db.models import Agent, Cluster, Job
from brain_clusters.domain.states import LIVE_AGENT_STATUSES, ClusterStatus
from brain_clusters.services import attention, costs
from brain_clusters.services.attention import Attention
from brain_clusters.services.control import Control
from brain_clusters.services.costs import Period
from brain_clusters.services.jobs import UNFINISHED
from brain_clusters.services.tallies import Tally


@dataclass(frozen=True, slots=True)
class Overview:
    """clusters, agents: how many, by status; gone ones are left out. unfinished: jobs that wait or run."""

    clusters: Mapping[str, int]
    agents: Mapping[str, int]
    unfinished: int
    today: Tally
    attention: Attention

    def as_dict(self) -> dict[str, Any]:
        """Return it as the API answers it."""
        return {
            "clusters": {"total": sum(self.clusters.values()), "by_status": dict(self.clusters)},
            "agents": {"total": sum(self.agents.values()), "by_status": dict(self.agents)},
            "jobs": {"unfinished": self.unfinished},
            "today": self.today.as_dict(),
            "attention": {
                "total": self.attention.total,
                "by_kind": self.attention.counts,
                "items": [
                    {name: getattr(item, name) for name in item.__dataclass_fields__} for item in self.attention.items
                ],
            },
        }


def overview(control: Control, *, hosts: bool) -> Overview:
    """Return the overview. hosts: whether its reader may see hosts, which belong to no cluster."""
    with control.database.transaction() as session:
        today = datetime.now(UTC).date()
        return Overview(
            clusters=statuses(session),
            agents=_agents(session),
            unfinished=session.scalar(select(func.count(Job.id)).where(Job.status.in_(UNFINISHED))) or 0,
            today=costs.report(session, Period(today, today), "day").totals,
            attention=attention.attention(session, lease_seconds=control.settings.host_lease_seconds, hosts=hosts),
        )


def statuses(session: Session) -> dict[str, int]:
    """Return how many clusters there are by status, without those that are gone."""
    rows = session.execute(
        select(Cluster.status, func.count(Cluster.id))
        .where(Cluster.status != ClusterStatus.DESTROYED)
        .group_by(Cluster.status)
    )
    return {str(status): count for status, count in sorted(rows, key=lambda row: list(ClusterStatus).index(row[0]))}


def _agents(session: Session) -> dict[str, int]:
    rows = session.execute(
        select(Agent.status, func.count(Agent.id)).where(Agent.status.in_(LIVE_AGENT_STATUSES)).group_by(Agent.status)
    )
    return {str(status): count for status, count in rows}
