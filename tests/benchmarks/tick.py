"""One autoscaling tick over 1,000 clusters, beside reading the same queues with one LLEN a list.

The clusters have a supervisor and two groups each; 600 are awake with three agents that beat, 400 asleep, and in a
tenth of them jobs wait. Their agents are rows and beats without processes, as it is the tick that is measured.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import uuid
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import stage
from sqlalchemy import insert

from brain_clusters.broker import names
from brain_clusters.config import Settings
from brain_clusters.db.models import Agent, Cluster
from brain_clusters.domain.states import AgentRole, AgentStatus, ClusterStatus, ClusterType, Intent
from brain_clusters.embedded import EmbeddedServers
from brain_clusters.services import autoscale, blueprints
from brain_clusters.services.control import Control
from brain_clusters.services.setup import prepare

BLUEPRINT = """
metadata: {id: tick, name: Tick, version: "1"}
cluster: {type: persistent, min_workers: 1, max_workers: 9, default_workers: 3}
agents:
  - {role: supervisor, name: Head, count: 1}
  - {role: worker, name: Left, count: 0-4}
  - {role: worker, name: Right, count: 0-4}
"""
GROUPS = ("Head", "Left", "Right")
_SLEEPERS_SHARE = 0.4


def fill(control: Control, count: int) -> None:
    """Write the clusters, their agents and beats, and some backlog."""
    blueprints.store(control, BLUEPRINT)
    sleepers = int(count * _SLEEPERS_SHARE)
    clusters, agents = [], []
    pipe = control.broker.redis.pipeline(transaction=False)
    for number in range(count):
        asleep = number < sleepers
        clusters.append(_cluster(number, asleep))
        for group in () if asleep else GROUPS:
            agent_id = f"tick-{number}.{group.lower()}.x"
            agents.append(_agent(number, group, agent_id))
            beat = {"completed": 7, "failed": 0, "in_flight": 0, "idle_since": time.time(), "service_time": 0.5}
            pipe.set(names.beat_key(agent_id), json.dumps({**beat, "cpu": 1.0, "memory": 4e7}))
        if not asleep and number % 10 == 0:
            pipe.lpush(names.group_queue(f"tick-{number}", "left"), *[json.dumps({"headers": {}})] * 2)
    with control.database.transaction() as session:
        session.execute(insert(Cluster), clusters)
        session.execute(insert(Agent), agents)
    pipe.execute()


def _cluster(number: int, asleep: bool) -> dict[str, object]:
    return {
        "id": f"tick-{number}", "name": f"tick {number}", "type": ClusterType.PERSISTENT,
        "status": ClusterStatus.HIBERNATED if asleep else ClusterStatus.ACTIVE,
        "intent": Intent.ASLEEP if asleep else Intent.RUNNING,
        "blueprint_id": "tick", "blueprint_version": "1", "min_workers": 1, "max_workers": 9, "target_workers": 3,
        "group_targets": dict.fromkeys(GROUPS, 1), "ready_since_wake": True,
    }  # fmt: skip


def _agent(number: int, group: str, agent_id: str) -> dict[str, object]:
    role = AgentRole.SUPERVISOR if group == "Head" else AgentRole.WORKER
    return {
        "id": uuid.uuid4(), "cluster_id": f"tick-{number}", "agent_id": agent_id, "group_name": group, "role": role,
        "status": AgentStatus.IDLE, "blueprint_version": "1", "host_id": "elsewhere",
    }  # fmt: skip


def naive(control: Control, count: int) -> float:
    """Return the milliseconds of one LLEN per priority list of every group, in one pipeline."""
    began = time.perf_counter()
    pipe = control.broker.redis.pipeline(transaction=False)
    for number in range(count):
        for group in GROUPS:
            for name in names.priority_lists(names.group_queue(f"tick-{number}", group.lower())):
                pipe.llen(name)
    pipe.execute()
    return (time.perf_counter() - began) * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--clusters", type=int, default=1000)
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="brain-bench-"))
    servers = EmbeddedServers(home, say=lambda _line: None)
    try:
        settings = servers.start().fill(replace(Settings.from_env({}), home=home, tick_interval_seconds=0.2))
        prepare(settings)
        control = Control.open(settings, application="bench")
        fill(control, options.clusters)
        ticks, peers = [], []
        autoscale.tick(control)  # the first one meets every blueprint for the first time, and acts on the backlog
        for _ in range(options.runs):
            time.sleep(0.3)
            began = time.perf_counter()
            if not autoscale.tick(control):
                raise SystemExit("the tick was not due")
            ticks.append((time.perf_counter() - began) * 1000)
            peers.append(naive(control, options.clusters))
        stage.figures(f"tick over {options.clusters} clusters", ticks, "ms")
        stage.figures("reading their queues by LLEN alone", peers, "ms")
        control.close()
    finally:
        servers.remove()
        rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
