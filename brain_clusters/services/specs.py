"""What a driver needs to know of an agent, from its blueprint."""

from __future__ import annotations

from brain_clusters.broker import names
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.domain.sharing import shared_memory
from brain_clusters.domain.specs import AgentGroup, Blueprint


def spec_of(agent_id: str, cluster_id: str, group: AgentGroup, blueprint: Blueprint) -> AgentSpec:
    """Return what a driver needs to start an agent of ``group``."""
    return AgentSpec(
        agent_id=agent_id,
        cluster_id=cluster_id,
        blueprint_id=blueprint.id,
        group_name=group.name,
        role=str(group.role),
        queue=names.group_queue(cluster_id, group.slug),
        handler=group.handler,
        command=group.command,
        celery=group.celery,
        http=group.http,
        llm=group.llm,
        concurrency=group.concurrency,
        pool=group.pool,
        timeout_seconds=group.timeout_seconds,
        max_attempts=group.max_attempts,
        backoff_seconds=group.backoff_seconds,
        backoff_max_seconds=group.backoff_max_seconds,
        max_deliveries=group.max_deliveries,
        capabilities=group.capabilities,
        skills=group.skills,
        config=dict(group.config),
        cost=dict(group.cost),
        budget=blueprint.budget,
        tree=blueprint.tree,
        delegates={
            below.name: {
                "queue": names.group_queue(cluster_id, below.slug),
                "capabilities": list(below.capabilities),
            }
            for below in blueprint.groups
            if below.reports_to == group.name and below.celery is None  # that knows no jobs of ours
        },
        memory=shared_memory(blueprint.resources.get("memory")),
        drain_timeout_seconds=blueprint.scaling.drain_timeout_seconds,
        on_drain_timeout=blueprint.scaling.on_drain_timeout,
        engine=group.engine,
    )
