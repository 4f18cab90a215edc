"""The stage of the tests of services: real servers, and no host. It does at its desk what a host would do."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from itertools import count
from typing import Any

from sqlalchemy import select, text

from brain_clusters.broker import names
from brain_clusters.db.models import Agent, Cluster, Job, Operation
from brain_clusters.domain.commands import Command, CreateCluster, Origin
from brain_clusters.domain.states import LIVE_AGENT_STATUSES, AgentStatus, ClusterStatus
from brain_clusters.genesis.desk import Ended
from brain_clusters.services import autoscale, lifecycle, operations, submitting
from brain_clusters.services.control import Control
from brain_clusters.services.hosting import HostDesk
from brain_clusters.services.newjobs import NewJob

SHOP = """
metadata: {id: shop, name: A shop, version: "1"}
cluster:
  type: project
  min_workers: 1
  max_workers: 8
  default_workers: 3
  scaling: {scale_up_threshold: 2, scale_down_threshold: 1, cooldown_period: 0}
agents:
  - {role: supervisor, name: Boss, count: 1}
  - {role: specialist, name: Clerk, count: 1, reports_to: Boss, capabilities: [sums]}
  - {role: worker, name: Packer, count: 0-5, capabilities: [boxes]}
  - {role: worker, name: Driver, count: 0-3}
lifecycle:
  hibernate_conditions: [idle_time: 1 hour, task_queue_empty: true]
  destroy_conditions: [hibernated_duration: 7 days]
"""
ORIGIN = Origin("test", "a test asks for it")
BEAT = {"state": "idle", "in_flight": 0, "completed": 0, "failed": 0, "service_time": None, "idle_since": 1.7e9,
        "cpu": 2.0, "memory": 1000, "slots": 1}  # fmt: skip


class Stage:
    """The collaborators of services, and what a host and a worker would do with them."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.redis = control.broker.redis
        self._numbers = count(1)

    # --- commands

    def submit(self, command: Command, origin: Origin = ORIGIN) -> Operation:
        return lifecycle.submit(self.control, command, origin).operation

    def run(self, operation: Operation) -> bool:
        return operations.run(self.control, operation.id)

    def do(self, command: Command) -> Operation:
        """Submit a command and run it, as a lifecycle worker does."""
        operation = self.submit(command)
        assert self.run(operation)
        return self.operation(operation)

    def create(self, **fields: Any) -> str:
        """Return a cluster whose agents are only planned."""
        made = CreateCluster(**{"blueprint_id": "shop", "name": "Shop", "id": f"shop-{uuid.uuid4().hex[:8]}", **fields})
        cluster_id = self.do(made).cluster_id
        assert cluster_id is not None
        return cluster_id

    def active(self, **fields: Any) -> str:
        """Return a cluster whose agents are all there."""
        cluster_id = self.create(**fields)
        self.settle(cluster_id)
        assert self.cluster(cluster_id).status is ClusterStatus.ACTIVE
        return cluster_id

    # --- the host's part

    def desk(self, name: str = "host-1", capacity: int = 1000) -> HostDesk:
        return HostDesk(self.control, name, capacity)

    def settle(self, cluster_id: str, host: str = "host-1") -> None:
        """Start what is pending, and let go what drains, until nothing more is to do."""
        desk = self.desk(host)
        while True:
            desk.claim(1000)
            starting = self.agents(cluster_id, AgentStatus.STARTING)
            draining = self.agents(cluster_id, AgentStatus.DRAINING)
            if not starting and not draining:
                return
            self.beat(*starting)
            desk.ready({agent.agent_id: {"pid": 1, "started": "1"} for agent in starting})
            desk.ended([Ended(agent.agent_id, asked=True) for agent in draining])

    def beat(self, *agents: Agent, **fields: Any) -> None:
        for agent in agents:
            self.redis.set(names.beat_key(agent.agent_id), json.dumps({**BEAT, **fields}))

    # --- what is there

    def cluster(self, cluster_id: str) -> Cluster:
        with self.control.database.transaction() as session:
            return session.get_one(Cluster, cluster_id)

    def operation(self, operation: Operation | uuid.UUID) -> Operation:
        operation_id = operation if isinstance(operation, uuid.UUID) else operation.id
        with self.control.database.transaction() as session:
            return session.get_one(Operation, operation_id)

    def unfinished(self, cluster_id: str) -> list[uuid.UUID]:
        """The operations of a cluster that have no outcome yet."""
        with self.control.database.transaction() as session:
            query = select(Operation.id).where(Operation.cluster_id == cluster_id, Operation.finished_at.is_(None))
            return list(session.scalars(query.order_by(Operation.created_at)))

    def agents(self, cluster_id: str, *statuses: AgentStatus) -> list[Agent]:
        with self.control.database.transaction() as session:
            wanted = statuses or LIVE_AGENT_STATUSES
            query = select(Agent).where(Agent.cluster_id == cluster_id, Agent.status.in_(wanted))
            return list(session.scalars(query.order_by(Agent.spawned_at)))

    def groups(self, cluster_id: str, *statuses: AgentStatus) -> dict[str, int]:
        return dict(Counter(agent.group_name for agent in self.agents(cluster_id, *statuses)))

    def job(self, job_id: str) -> Job:
        with self.control.database.transaction() as session:
            return session.get_one(Job, job_id)

    def post(self, cluster_id: str, **new: Any) -> Job:
        """Accept and send a job, as the API does."""
        return submitting.submit(self.control, cluster_id, [NewJob(**new)]).jobs[0].as_row()

    def waiting(self, cluster_id: str, group: str) -> int:
        queue = names.group_queue(cluster_id, group)
        return sum(int(self.redis.llen(name)) for name in names.priority_lists(queue))  # type: ignore[arg-type]

    # --- time

    def tick(self) -> bool:
        """Run a tick now, whenever the last one was."""
        self.sql("DELETE FROM ticks")
        return autoscale.tick(self.control)

    def sql(self, statement: str, **values: Any) -> None:
        with self.control.database.transaction() as session:
            session.execute(text(statement), values)

    def earlier(self, table: str, column: str, seconds: float) -> None:
        """Let every ``column`` of ``table`` be ``seconds`` earlier, instead of waiting for so long."""
        self.sql(f"UPDATE {table} SET {column} = {column} - make_interval(secs => :seconds)", seconds=seconds)
