"""Autoscaling ticks over thousands of clusters, beside what no tick could do without: its reads, and nothing else.

A cluster has a supervisor and two groups. 40 % sleep; 50 % are awake with three idle agents; 10 % work: four agents,
three of them busy, and two jobs waiting. Agents are rows, beats and unacknowledged messages without processes, as it
is the tick that is measured, and no tick has anything to change, as acting is not. ``--all-work`` lets every cluster
that is awake work. The floors, in the same run: one LLEN a list, one HLEN and one GET an agent in one pipeline; and
the same rows by one SELECT a table on the bare driver.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
import uuid

import stage
from sqlalchemy import insert

from brain_clusters.broker import names
from brain_clusters.db.models import Agent, Cluster
from brain_clusters.domain.states import AgentRole, AgentStatus, ClusterStatus, ClusterType, Intent
from brain_clusters.services import autoscale, blueprints
from brain_clusters.services.control import Control

BLUEPRINT = """
metadata: {id: tick, name: Tick, version: "1"}
cluster: {type: persistent, min_workers: 3, max_workers: 9, default_workers: 3, scaling: {target_latency: 1 hour}}
agents:
  - {role: supervisor, name: Head, count: 1}
  - {role: worker, name: Left, count: 1-4}
  - {role: worker, name: Right, count: 1-4}
"""
GROUPS = ("Head", "Left", "Right")
_ASLEEP, _IDLE = 4, 9  # of ten: below the first they sleep, below the second they idle, the others work
_CHUNK = 2000


def kind_of(number: int, all_work: bool) -> str:
    """Return what the cluster of that number does: asleep, idle or working."""
    place = number % 10
    return "asleep" if place < _ASLEEP else "idle" if place < _IDLE and not all_work else "working"


def fill(control: Control, count: int, all_work: bool) -> None:
    """Write the clusters, their agents, beats and messages."""
    blueprints.store(control, BLUEPRINT)
    for first in range(0, count, _CHUNK):
        clusters, agents = [], []
        pipe = control.broker.redis.pipeline(transaction=False)
        for number in range(first, min(count, first + _CHUNK)):
            kind = kind_of(number, all_work)
            clusters.append(_cluster(number, kind))
            for group in () if kind == "asleep" else ("Head", "Left", "Right") + ("Left",) * (kind == "working"):
                busy = kind == "working" and group != "Head"
                agents.append(_agent(number, group, busy, pipe))
            if kind == "working":
                message = json.dumps({"body": "W10=", "headers": {"eta": None, names.PUBLISHED_HEADER: time.time()}})
                pipe.lpush(names.group_queue(f"tick-{number}", "left"), message, message)
        with control.database.transaction() as session:
            session.execute(insert(Cluster), clusters)
            session.execute(insert(Agent), agents)
        pipe.execute()


def _cluster(number: int, kind: str) -> dict[str, object]:
    asleep, working = kind == "asleep", kind == "working"
    return {
        "id": f"tick-{number}", "name": f"tick {number}", "type": ClusterType.PERSISTENT,
        "status": ClusterStatus.HIBERNATED if asleep else ClusterStatus.ACTIVE,
        "intent": Intent.ASLEEP if asleep else Intent.RUNNING,
        "blueprint_id": "tick", "blueprint_version": "1", "min_workers": 3, "max_workers": 9,
        "target_workers": 4 if working else 3,
        "group_targets": {"Head": 1, "Left": 2 if working else 1, "Right": 1}, "ready_since_wake": True,
    }  # fmt: skip


def _agent(number: int, group: str, busy: bool, pipe: object) -> dict[str, object]:
    agent_id = f"tick-{number}.{group.lower()}.{uuid.uuid4().hex[:8]}"
    beat = {"completed": 7, "failed": 0, "in_flight": int(busy), "idle_since": time.time(), "service_time": 0.5}
    pipe.set(names.beat_key(agent_id), json.dumps({**beat, "cpu": 1.0, "memory": 4e7, "at": time.time()}))  # type: ignore[attr-defined]
    if busy:
        pipe.hset(names.unacked_key(agent_id), "tag", "{}")  # type: ignore[attr-defined]
    role = AgentRole.SUPERVISOR if group == "Head" else AgentRole.WORKER
    return {
        "id": uuid.uuid4(), "cluster_id": f"tick-{number}", "agent_id": agent_id, "group_name": group, "role": role,
        "status": AgentStatus.BUSY if busy else AgentStatus.IDLE, "blueprint_version": "1", "host_id": "elsewhere",
        "tasks_completed": 7,
    }  # fmt: skip


def bare_redis(control: Control, count: int, agent_ids: list[str]) -> float:
    """Return the milliseconds of one LLEN a list, one HLEN and one GET an agent, in one pipeline."""
    began = time.perf_counter()
    pipe = control.broker.redis.pipeline(transaction=False)
    for number in range(count):
        for group in GROUPS:
            for name in names.priority_lists(names.group_queue(f"tick-{number}", group.lower())):
                pipe.llen(name)
    for agent_id in agent_ids:
        pipe.hlen(names.unacked_key(agent_id))
        pipe.get(names.beat_key(agent_id))
    pipe.execute()
    return (time.perf_counter() - began) * 1000


def bare_sql(control: Control) -> tuple[float, list[str]]:
    """Return the milliseconds of reading the rows that a tick needs, and the agents' ids."""
    connection = control.database.engine.raw_connection()
    try:
        began = time.perf_counter()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT id, status, intent, blueprint_id, blueprint_version, group_targets, min_workers, max_workers, "
                "generation, extract(epoch from now() - scaled_at) FROM clusters WHERE status <> 'destroyed'"
            )
            cursor.fetchall()
            cursor.execute(
                "SELECT cluster_id, agent_id, group_name, status, tasks_completed, tasks_failed FROM cluster_agents "
                "WHERE status IN ('starting', 'idle', 'busy', 'draining')"
            )
            agent_ids = [row[1] for row in cursor.fetchall()]
        return (time.perf_counter() - began) * 1000, agent_ids
    finally:
        connection.close()


def measure(count: int, runs: int, all_work: bool) -> None:
    """Fill servers of their own, measure, print, and leave nothing."""
    with stage.collaborators(tick_interval_seconds=0.2) as control:
        fill(control, count, all_work)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(2):  # the first meets every cluster for the first time, and writes what it saw
            time.sleep(0.3)
            autoscale.tick(control)
        ticks, redis_floor, sql_floor = [], [], []
        for _ in range(runs):
            time.sleep(0.3)
            began = time.perf_counter()
            if not autoscale.tick(control):
                raise SystemExit("the tick was not due")
            ticks.append((time.perf_counter() - began) * 1000)
            taken, agent_ids = bare_sql(control)
            sql_floor.append(taken)
            redis_floor.append(bare_redis(control, count, agent_ids))
        stage.figures(f"tick over {count} clusters", ticks, "ms")
        stage.figures("  floor: the bare Redis pipeline", redis_floor, "ms")
        stage.figures("  floor: the bare SQL read", sql_floor, "ms")
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(f"  memory that the ticks took, at most: {grown:.0f} MB", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--clusters", type=int, nargs="+", default=[1000, 3000, 10_000])
    parser.add_argument("--all-work", action="store_true", help="let every cluster that is awake work")
    options = parser.parse_args()
    for count in options.clusters:
        measure(count, options.runs, options.all_work)


if __name__ == "__main__":
    main()
