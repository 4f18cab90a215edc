"""Rows of an installation that has been busy for hours: what the dashboard's tests and its screenshots show."""

from __future__ import annotations

import json
import math
import random
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from brain_clusters.broker import names
from brain_clusters.db.models import (
    Agent,
    Alert,
    Cluster,
    Event,
    Host,
    Job,
    Metrics,
    Operation,
    ScalingDecision,
    Usage,
)
from brain_clusters.domain.states import (
    LIVE_AGENT_STATUSES,
    AgentRole,
    AgentStatus,
    ClusterStatus,
    ClusterType,
    Intent,
    JobStatus,
    OperationKind,
    OperationStatus,
)
from brain_clusters.services import blueprints, submitting
from brain_clusters.services.control import Control
from brain_clusters.services.newjobs import NewJob

_SUPPORT = """\
metadata:
  id: support-desk
  name: Support desk
  version: "{version}"
  description: Answers tickets, and hands the hard ones up
cluster:
  type: department
  min_workers: 3
  max_workers: 16
  default_workers: 6
  scaling: {{metric: task_queue_length, scale_up_threshold: 5, scale_down_threshold: 1, cooldown_period: {cooldown}}}
agents:
  - {{role: supervisor, name: Head of desk, count: 1, capabilities: [planning], cost: {{per_hour: 0.9}}}}
  - {{role: lead, name: Triage, count: 1-2, reports_to: Head of desk, capabilities: [triage], cost: {{per_hour: 0.4}}}}
  - {{role: worker, name: Writers, count: 0-8, reports_to: Triage, capabilities: [answers], cost: {{per_hour: 0.25}}}}
  - {{role: specialist, name: Reviewers, count: {reviewers}, reports_to: Head of desk, cost: {{per_hour: 0.4}}}}
lifecycle:
  hibernate_conditions: [idle_time: 30 min, task_queue_empty: true]
  reactivate_triggers: [new_task_received, manual_trigger]
monitoring:
  alerts:
    - {{condition: queue_wait_time > 120, action: notify_admin}}
    - {{condition: error_rate > 10%, action: notify_admin}}
budget: {{per_day: 40, on_exceeded: hibernate}}
"""
_RENDER = """\
metadata: {id: image-pipeline, name: Image pipeline, version: "2.3"}
cluster: {type: project, min_workers: 1, max_workers: 40, default_workers: 4}
agents:
  - {role: supervisor, name: Planner, count: 1, cost: {per_hour: 0.2}}
  - {role: worker, name: Resizers, count: 0-30, reports_to: Planner, cost: {per_hour: 0.08}}
  - {role: worker, name: Uploaders, count: 0-8, reports_to: Planner, cost: {per_hour: 0.05}}
"""
# name, id, blueprint, status, its agents by group: (idle, busy, starting, draining), and how many are wanted.
_PLANS: Sequence[tuple[str, str, str, str, Mapping[str, tuple[int, int, int, int]], int]] = (
    ("Archive 2025", "archive-2025-1c0ffe", "image-pipeline", "destroyed", {}, 0),
    ("Nightly reports", "nightly-reports-77ab01", "image-pipeline", "hibernated", {}, 0),
    ("Quarter close", "quarter-close-5d2a90", "support-desk", "hibernated", {}, 0),
    ("Translation", "translation-0b94ce", "support-desk", "scaling_down",
     {"Head of desk": (0, 1, 0, 0), "Triage": (1, 0, 0, 0), "Writers": (1, 1, 0, 2), "Reviewers": (1, 0, 0, 0)}, 5),
    ("Invoices", "invoices-e4471d", "support-desk", "active",
     {"Head of desk": (1, 0, 0, 0), "Triage": (1, 0, 0, 0), "Writers": (2, 0, 0, 0)}, 4),
    ("Research swarm", "research-swarm-9f3e21", "image-pipeline", "scaling_up",
     {"Planner": (1, 0, 0, 0), "Resizers": (1, 3, 2, 0), "Uploaders": (0, 1, 0, 0)}, 9),
    ("Image pipeline", "image-pipeline-2b7d10", "image-pipeline", "scaling_up",
     {"Planner": (0, 1, 0, 0), "Resizers": (0, 14, 6, 0), "Uploaders": (1, 3, 0, 0)}, 25),
    ("Support desk", "support-desk-3fa81c", "support-desk", "active",
     {"Head of desk": (1, 0, 0, 0), "Triage": (0, 2, 0, 0), "Writers": (1, 6, 0, 0), "Reviewers": (1, 1, 0, 0)}, 12),
)  # fmt: skip
MAIN, PIPELINE, SWARM = "support-desk-3fa81c", "image-pipeline-2b7d10", "research-swarm-9f3e21"
_HEALTH = {SWARM: 0.62, PIPELINE: 0.76}
_WAITING = 26
_LOADS = {MAIN: 71.0, PIPELINE: 97.0, SWARM: 80.0}
_FIGURES = (
    (MAIN, 60, 12), (PIPELINE, 420, 19), (SWARM, 35, 6), ("invoices-e4471d", 3, 4), ("translation-0b94ce", 5, 4),
)  # fmt: skip
_ROLES = {"Head of desk": AgentRole.SUPERVISOR, "Planner": AgentRole.SUPERVISOR, "Triage": AgentRole.LEAD,
          "Reviewers": AgentRole.SPECIALIST}  # fmt: skip
_BOSSES = {"Triage": "Head of desk", "Writers": "Triage", "Reviewers": "Head of desk", "Resizers": "Planner",
           "Uploaders": "Planner"}  # fmt: skip
_STATES = (AgentStatus.IDLE, AgentStatus.BUSY, AgentStatus.STARTING, AgentStatus.DRAINING)
_ERRORS = (
    ("SMTPServerDisconnected", "the mail server closed the connection", 31),
    ("ValidationError", "ticket has no language", 9),
    ("TimeoutError", "no answer in 60 s", 4),
)


def build(control: Control) -> None:
    """Write the showcase into an empty installation. The same each time, but for its times, which end now."""
    for version, cooldown, reviewers in (("1.0", 60, "0-1"), ("1.1", 30, "0-3")):
        blueprints.store(control, _SUPPORT.format(version=version, cooldown=cooldown, reviewers=reviewers))
    blueprints.store(control, _RENDER)
    chance, now = random.Random(7), datetime.now(UTC)
    with control.database.transaction() as session:
        session.add(Host(id="host-a", capacity=64, pid=4242, seen_at=now, cpus=16.0, memory_bytes=64 << 30, holder="h"))
        lost = now - timedelta(minutes=4)
        session.add(Host(id="host-b", capacity=32, pid=4243, seen_at=lost, suspected_at=lost, holder="h"))
        agents: list[Agent] = []
        for number, plan in enumerate(_PLANS):
            agents += _cluster(session, plan, now - timedelta(days=9 - number, hours=3))
        _figures(session, chance, now)
        _decisions(session, now)
        _jobs(session, chance, now, [agent.agent_id for agent in agents if agent.cluster_id == MAIN])
        _usage(session, chance, now)
        _happenings(session, now)
    _beats(control, chance, agents)
    news = [NewJob(to="Writers", payload={"ticket": 49_000 + number}) for number in range(_WAITING)]
    submitting.submit(control, MAIN, news)


def _cluster(session: Session, plan: Any, created_at: datetime) -> list[Agent]:
    name, cluster_id, blueprint, status, groups, target = plan
    found, now = ClusterStatus(status), datetime.now(UTC)
    asleep = {"hibernated": Intent.ASLEEP, "destroyed": Intent.GONE}
    support = blueprint == "support-desk"
    session.add(
        Cluster(
            id=cluster_id, name=name, type=ClusterType.DEPARTMENT if support else ClusterType.PROJECT, status=found,
            blueprint_id=blueprint, blueprint_version="1.1" if support else "2.3",
            min_workers=3 if support else 1, max_workers=16 if support else 40,
            current_workers=sum(idle + busy + leaving for idle, busy, _, leaving in groups.values()),
            target_workers=target, group_targets={name: sum(of) - of[3] for name, of in groups.items()},
            health_score=_HEALTH.get(cluster_id, 1.0),
            load_percentage=_LOADS.get(cluster_id, 0.0),
            tasks_completed=18_204, tasks_failed=44, created_at=created_at, started_at=created_at,
            hibernated_at=now - timedelta(hours=5) if status == "hibernated" else None,
            destroyed_at=now - timedelta(hours=1) if status == "destroyed" else None,
            last_active=now - timedelta(hours=5, minutes=31) if status == "hibernated" else now - timedelta(seconds=4),
            description="Answers tickets, and hands the hard ones up" if support else None,
            tags=["customers", "eu"] if support else ["media"], intent=asleep.get(status, Intent.RUNNING),
            ready_since_wake=True, scaled_at=now - timedelta(minutes=6),
            over_budget_on=now.date() if name == "Invoices" else None, over_budget_limit=12.0,
        )
    )  # fmt: skip
    session.flush()
    return _agents(session, cluster_id, "1.1" if support else "2.3", groups)


def _agents(session: Session, cluster_id: str, version: str, groups: Any) -> list[Agent]:
    now, made, bosses = datetime.now(UTC), [], {}
    for group, counts in groups.items():
        states = [state for state, count in zip(_STATES, counts, strict=True) for _ in range(count)]
        for number, state in enumerate(states):
            began = now - timedelta(minutes=90 - 11 * number, seconds=number * 7)
            agent = Agent(
                id=uuid.uuid4(), cluster_id=cluster_id,
                agent_id=f"{cluster_id}.{group.lower().replace(' ', '-')}.{_hex(cluster_id, group, number)}",
                role=_ROLES.get(group, AgentRole.WORKER), group_name=group, status=state, blueprint_version=version,
                spawned_at=began if state is not AgentStatus.STARTING else now - timedelta(seconds=3 + number),
                ready_at=None if state is AgentStatus.STARTING else began + timedelta(seconds=1),
                draining_at=now - timedelta(seconds=40) if state is AgentStatus.DRAINING else None,
                host_id="host-a", handle={"pid": 21_000 + number}, supervisor_id=bosses.get(_BOSSES.get(group, "")),
                tasks_completed=120 + 31 * number, tasks_failed=number % 3, avg_task_duration=2.4 + number / 3,
                last_active=now - timedelta(seconds=2 + number), capabilities=["answers"], busy_seconds=2100.0,
                claimed_at=began,
                reason="waits for room: all 64 places of host-a are taken" if state is AgentStatus.STARTING else None,
            )  # fmt: skip
            session.add(agent)
            session.flush()
            bosses.setdefault(group, agent.id)
            made.append(agent)
    return made


def _hex(*parts: Any) -> str:
    return uuid.uuid5(uuid.NAMESPACE_URL, "/".join(map(str, parts))).hex[:8]


def _figures(session: Session, chance: random.Random, now: datetime) -> None:
    rows: list[dict[str, Any]] = []
    for cluster_id, most, agents in _FIGURES:
        for step in range(480):
            at = now - timedelta(seconds=15 * (479 - step))
            wave = max(0.0, math.sin(step / 30.0 - 1.85) + 0.35 * math.sin(step / 13.0)) / 1.35
            waiting = int(most * wave * (0.9 + 0.2 * chance.random()))
            ready = max(3, int(agents * (0.35 + 0.65 * max(0.0, math.sin((step - 9) / 30.0 - 1.85)))))
            busy = min(ready, int(ready * (0.3 + wave)))
            rows.append({
                "cluster_id": cluster_id, "timestamp": at, "cpu_usage": 30.0 * busy, "memory_usage": 1.1 * ready,
                "tasks_per_minute": round(busy * (17 + 3 * chance.random()), 1), "avg_response_time": 2400.0,
                "error_rate": 0.4, "active_agents": ready, "idle_agents": ready - busy, "busy_agents": busy,
                "failed_agents": 0, "queue_length": waiting, "queue_wait_time": round(waiting / 3.1, 1),
            })  # fmt: skip
    session.execute(insert(Metrics), rows)
    session.add(Alert(
        cluster_id=MAIN, name="queue_wait_time > 120: notify_admin", state="firing", since=now - timedelta(minutes=3),
        fired_at=now - timedelta(minutes=2), value=141.0,
    ))  # fmt: skip
    rng = range(0, 90, 6)
    for number in rng:  # agents that came and went, which the chart counts
        begin = now - timedelta(minutes=118 - number)
        session.add(Agent(
            cluster_id=MAIN, agent_id=f"{MAIN}.writers.gone{number:04d}", role=AgentRole.WORKER, group_name="Writers",
            status=AgentStatus.FAILED if number == 48 else AgentStatus.STOPPED, blueprint_version="1.1",
            spawned_at=begin, ready_at=begin + timedelta(seconds=20), draining_at=begin + timedelta(minutes=20),
            stopped_at=begin + timedelta(minutes=21), host_id="host-a",
            last_error="killed by SIGKILL: out of memory" if number == 48 else None,
        ))  # fmt: skip


def _decisions(session: Session, now: datetime) -> None:
    told: Sequence[tuple[int, str, str, int, int, str | None]] = (
        (95, "reactivate", "3 jobs wait, and the cluster sleeps", 0, 3, None),
        (71, "scale", "backlog 26 is above 5 for each of 3 agents; 26 jobs want 6 Writers", 3, 6, None),
        (64, "hold", "backlog 31 wants 8 Writers", 6, 8, "cooldown: 22 s of 30 s are left since the last change"),
        (63, "scale", "backlog 38 is above 5 for each of 6 agents; Reviewers follow", 6, 8, None),
        (31, "hold", "load is 12 %, below 30 %: 5 Writers would do", 8, 5, "stabilization: lower for 4 min of 5 min"),
        (26, "scale", "load was below 30 % for 5 min: 5 Writers do", 8, 5, None),
        (9, "hold", "the oldest job waits 96 s; 8 Writers are wanted", 5, 8, "unknown: beats of 2 agents are stale"),
        (6, "scale", "the oldest job waits 131 s: 7 Writers", 5, 7, None),
        (2, "hold", "backlog 52 wants 11 Writers", 7, 11, "maximum: the group holds at most 8, the cluster 16"),
    )
    for minutes, action, reason, before, after, held in told:
        session.add(ScalingDecision(
            cluster_id=MAIN, at=now - timedelta(minutes=minutes), action=action, reason=reason,
            before={"Head of desk": 1, "Triage": 2, "Writers": before, "Reviewers": 2},
            after={"Head of desk": 1, "Triage": 2, "Writers": after, "Reviewers": 2},
            held={} if held is None else {"Writers": {"gate": held.split(":")[0], "reason": held.split(": ")[1],
                                                      "wanted": after}},
            inputs={},
        ))  # fmt: skip


def _jobs(session: Session, chance: random.Random, now: datetime, agents: Sequence[str]) -> None:
    for number in range(60):
        made = now - timedelta(seconds=9 * number + 3)
        status = JobStatus.RUNNING if number < 8 else JobStatus.SUCCEEDED
        begun = made + timedelta(seconds=2)
        session.add(Job(
            id=f"job-{_hex('job', number)}", cluster_id=MAIN, group_name="Writers" if number % 3 else "Triage",
            status=status, created_at=made, published_at=made, started_at=begun, attempts=1,
            finished_at=begun + timedelta(seconds=2.4) if status is JobStatus.SUCCEEDED else None,
            agent_id=agents[number % len(agents)], payload={"ticket": 48_000 + number},
            result={"answer": "sent"} if status is JobStatus.SUCCEEDED else None,
        ))  # fmt: skip
    for kind, message, count in _ERRORS:
        for number in range(count):
            ended = now - timedelta(minutes=3 + 5 * number)
            session.add(Job(
                id=f"job-{_hex(kind, number)}", cluster_id="research-swarm-9f3e21" if kind != "TimeoutError" else MAIN,
                group_name="Resizers" if kind != "TimeoutError" else "Writers", status=JobStatus.DEAD, attempts=3,
                created_at=ended - timedelta(minutes=1), started_at=ended - timedelta(seconds=30), finished_at=ended,
                error={"type": kind, "message": message}, error_key=f"{kind}: {message}", payload={"to": number},
                agent_id=chance.choice(list(agents)),
            ))  # fmt: skip


def _usage(session: Session, chance: random.Random, now: datetime) -> None:
    for days in range(14):
        day = (now - timedelta(days=days)).date()
        for cluster_id, blueprint, version, groups in (
            (MAIN, "support-desk", "1.1", ("Head of desk", "Triage", "Writers", "Reviewers")),
            ("invoices-e4471d", "support-desk", "1.1", ("Head of desk", "Writers")),
            ("image-pipeline-2b7d10", "image-pipeline", "2.3", ("Planner", "Resizers")),
        ):
            for group in groups:
                hours = 3600.0 * (0.5 if day.weekday() > 4 else 1.0)
                session.add(Usage(
                    day=day, cluster_id=cluster_id, group_name=group, agent_id=f"{cluster_id}.{group}.sum",
                    blueprint_id=blueprint, blueprint_version=version, tags=["customers"],
                    starting_seconds=40.0, idle_seconds=hours * (2 + 3 * chance.random()),
                    busy_seconds=hours * (5 + 9 * chance.random()), draining_seconds=90.0,
                    saved_seconds=hours * (4 + 6 * chance.random()), jobs_succeeded=int(800 * chance.random()),
                    jobs_failed=int(4 * chance.random()),
                ))  # fmt: skip


def _happenings(session: Session, now: datetime) -> None:
    failed = uuid.uuid4()
    session.add(Operation(
        id=failed, kind=OperationKind.SCALE, status=OperationStatus.FAILED, cluster_id="research-swarm-9f3e21",
        origin="api", request={"target_workers": 9}, created_at=now - timedelta(minutes=22), generation=4,
        started_at=now - timedelta(minutes=22), finished_at=now - timedelta(minutes=12),
        error={"type": "StartTimeout", "message": "2 of 9 agents were not ready in 600 s"},
    ))  # fmt: skip
    for minutes, kind, actor, reason, cluster_id in (
        (22, "operation.accepted", "api", "scale was asked for over HTTP", "research-swarm-9f3e21"),
        (12, "operation.failed", "system", "scale: 2 of 9 agents were not ready in 600 s", "research-swarm-9f3e21"),
        (10, "agent.died", "system", "killed by SIGKILL: out of memory", "research-swarm-9f3e21"),
        (8, "budget.exceeded", "budget", "12.31 of 12 is spent today; nothing is held back", "invoices-e4471d"),
        (6, "operation.accepted", "autoscaler", "the oldest job waits 131 s: 7 Writers", MAIN),
        (6, "operation.succeeded", "system", "scale is done", MAIN),
        (3, "cluster.status", "system", "from active to scaling_down", "translation-0b94ce"),
        (2, "alert.firing", "alert", "queue_wait_time > 120: queue_wait_time is 141", MAIN),
        (1, "operation.accepted", "autoscaler", "backlog 388 wants 20 Resizers", "image-pipeline-2b7d10"),
    ):  # fmt: skip
        session.add(Event(at=now - timedelta(minutes=minutes), kind=kind, actor=actor, reason=reason,
                          cluster_id=cluster_id, operation_id=failed if "operation" in kind else None))  # fmt: skip
        session.flush()


def _beats(control: Control, chance: random.Random, agents: Sequence[Agent]) -> None:
    for number, agent in enumerate(agents):
        if agent.status not in LIVE_AGENT_STATUSES or agent.status is AgentStatus.STARTING:
            continue
        busy = agent.status in (AgentStatus.BUSY, AgentStatus.DRAINING)
        beat = {"state": "busy" if busy else "idle", "in_flight": int(busy), "completed": 120 + number, "failed": 1,
                "service_time": 2.4, "idle_since": datetime.now(UTC).timestamp() - 9, "slots": 1, "mean_time": 2.4,
                "cpu": round(20 + 70 * chance.random(), 1) if busy else 0.4,
                "memory": int((90 + 60 * chance.random()) * 2**20)}  # fmt: skip
        control.broker.redis.set(names.beat_key(agent.agent_id), json.dumps(beat))
        if busy:
            control.broker.redis.hset(f"brain:unacked:{agent.agent_id}", "one", "{}")
