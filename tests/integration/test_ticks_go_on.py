"""One cluster, one key or one row that makes no sense stops neither the tick nor any other cluster."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text

from brain_clusters.broker import names
from brain_clusters.broker.jobs import JobRecords, JobReport
from brain_clusters.db.models import Agent, Event, Job, ScalingDecision
from brain_clusters.domain.commands import CreateCluster, Origin
from brain_clusters.domain.states import JobStatus
from brain_clusters.services import (
    alerts,
    autoscale,
    blueprints,
    ledger,
    lifecycle,
    measured,
    memory,
    metrics,
    observation,
    operations,
    outcomes,
    sensing,
    submitting,
)
from brain_clusters.services.control import Control
from brain_clusters.services.figures import Figures
from brain_clusters.services.hosting import HostDesk
from brain_clusters.services.memory import Memory
from brain_clusters.services.newjobs import NewJob

KIOSK = """
metadata: {id: kiosk, name: Kiosk, version: "1"}
cluster: {type: project, min_workers: 0, max_workers: 8}
agents:
  - {role: supervisor, name: Boss, count: 1}
  - {role: worker, name: Packer, count: 0-5}
lifecycle: {reactivate_triggers: [new_task_received, schedule: "* * * * *"]}
monitoring: {alerts: [{condition: queue_length > 3, action: notify_admin}]}
"""


@pytest.fixture
def kiosk(control: Control) -> Iterator[str]:
    """A cluster whose supervisor is ready, on an empty database and an empty Redis."""
    control.broker.redis.flushdb()
    with control.database.transaction() as session:
        session.execute(text("TRUNCATE events, jobs, operations, cluster_agents, clusters, hosts, ticks CASCADE"))
    blueprints.store(control, KIOSK)
    create = CreateCluster(blueprint_id="kiosk", name="Kiosk", id=f"kiosk-{uuid.uuid4().hex[:8]}")
    accepted = lifecycle.submit(control, create, Origin("test", "a test asks for it"))
    operations.run(control, accepted.operation.id)
    desk = HostDesk(control, "host-1", 10)
    desk.ready({spec.agent_id: {} for spec in desk.claim(10)})
    yield accepted.cluster.id
    control.broker.redis.flushdb()


def tick(control: Control) -> None:
    with control.database.transaction() as session:
        session.execute(text("DELETE FROM ticks"))
    assert autoscale.tick(control)


def decisions(control: Control, cluster_id: str) -> list[str]:
    with control.database.transaction() as session:
        query = select(ScalingDecision.action).where(ScalingDecision.cluster_id == cluster_id)
        return list(session.scalars(query.order_by(ScalingDecision.id)))


def grows(control: Control, cluster_id: str) -> bool:
    """Return whether a tick sees a job that waits, and decides."""
    control.broker.redis.rpush(names.group_queue(cluster_id, "packer"), "{}")
    tick(control)
    return "scale" in decisions(control, cluster_id)


def report(cluster_id: str, job_id: str, **fields: Any) -> JobReport:
    given = {"attempts": 1, "started_at": 1.7e9, "finished_at": 1.7e9, **fields}
    return JobReport(
        id=job_id, cluster_id=cluster_id, group_name="Packer", agent_id="a", status=JobStatus.SUCCEEDED, **given
    )


# --- Redis, where users' code can write -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "poison",
    [
        {"at": "soon"},
        {"at": math.inf},
        {"clusters": {"KIOSK": [{"Packer": ["a", 1, 2, 3, 4, 5]}, {}, ["", 0.0]]}},
        {"clusters": {"KIOSK": [{"Packer": [1, 2, None, 3, 4, 5]}, {}, ["", 0.0]]}},
        {"clusters": {"KIOSK": [{}, {"Packer": [0, [["x", 1]], [], [], 0, 0, 0, None]}, ["", 0.0]]}},
        {"clusters": {"KIOSK": [{}, {"Packer": ["0", [], [], [], 0, 0, 0, None]}, ["", 0.0]]}},
        {"clusters": {"KIOSK": [{}, {"Packer": [0, [], [], [], None, 0, 0, None]}, ["", 0.0]]}},
        {"clusters": {"KIOSK": [{}, {}, ["", math.nan]]}},
    ],
)
def test_a_memory_that_makes_no_sense_is_no_memory(control: Control, kiosk: str, poison: dict[str, Any]) -> None:
    stored = json.dumps({"format": 1, "at": 1.0, "clusters": {}, **poison}).replace("KIOSK", kiosk)
    control.broker.redis.set("brain:scaling", stored)
    assert memory.load(control.broker) == Memory()
    assert grows(control, kiosk)


@pytest.mark.parametrize("poison", ["[1]", "{", '[["kiosk", "Packer", "slow", 1]]', '[["kiosk", "Packer", NaN, -1]]'])
def test_measures_that_make_no_sense_are_measured_anew(control: Control, kiosk: str, poison: str) -> None:
    control.broker.redis.set("brain:measured", poison)
    assert ("kiosk", "Boss") in measured.measured(control)
    assert control.broker.redis.get("brain:measured") != poison.encode()
    assert grows(control, kiosk)


@pytest.mark.parametrize("key", ["brain:scaling", "brain:measured", "QUEUE", "brain:unacked:BOSS", "brain:claim:BOSS"])
def test_a_key_of_another_type_hides_no_other_key(control: Control, kiosk: str, key: str) -> None:
    with control.database.transaction() as session:
        [boss] = session.scalars(select(Agent.agent_id))
    control.broker.redis.sadd(key.replace("QUEUE", names.group_queue(kiosk, "boss")).replace("BOSS", boss), "member")
    assert grows(control, kiosk)


def test_times_without_end_in_redis_are_no_times(control: Control, kiosk: str) -> None:
    with control.database.transaction() as session:
        [boss] = session.scalars(select(Agent.agent_id))
    beat = {"in_flight": 0, "completed": 1, "failed": 0, "idle_since": 1e15}
    control.broker.redis.set(names.beat_key(boss), json.dumps(beat))
    control.broker.redis.zadd(names.eta_key(names.group_queue(kiosk, "boss")), {"x": 1e300, "y": math.inf})
    assert grows(control, kiosk)


def test_an_outcome_that_makes_no_sense_keeps_no_other(control: Control, kiosk: str) -> None:
    records = JobRecords(control.broker.redis)
    control.broker.redis.xadd(names.FINISHED_STREAM, {"id": "strange"})
    control.broker.redis.xadd(names.FINISHED_STREAM, {"status": "failed"})
    records.finish(report(kiosk, "refused", result={"a\0b": 1}))
    records.finish(report(kiosk, "late", finished_at=1e18))
    records.finish(report(kiosk, "sound"))
    tick(control)
    with control.database.transaction() as session:
        assert list(session.scalars(select(Job.id))) == ["sound"]
    assert control.broker.redis.xlen(names.FINISHED_STREAM) == 0


def test_one_look_collects_several_batches_and_not_without_end(control: Control, kiosk: str) -> None:
    records = JobRecords(control.broker.redis)
    for number in range(12):
        records.finish(report(kiosk, f"job-{number}"))
    assert outcomes.collect(control, limit=2) == 10
    assert outcomes.collect(control, limit=2) == 2
    assert outcomes.collect(control, limit=2) == 0


def test_a_lost_job_whose_record_makes_no_sense_is_published_again(control: Control, kiosk: str) -> None:
    with control.database.transaction() as session:
        [job] = submitting.record(session, kiosk, [NewJob(to="Packer")]).jobs
        session.execute(text("UPDATE jobs SET published_at = now() - interval '1 minute'"))
    control.broker.redis.hset(names.job_key(job.id), "status", "odd")
    queue = names.group_queue(kiosk, "packer")
    assert outcomes.sweep(control, lambda: {(kiosk, "Packer"): queue}) == 1
    assert control.broker.redis.llen(queue) == 1


def test_a_clock_that_is_set_back_by_much_costs_the_memory(control: Control, kiosk: str) -> None:
    remembered = Memory(at=4e9)
    remembered.of(kiosk).told = ("x", 4e9)
    with control.database.transaction() as session:
        seen = observation.load(session)
    sensing.read(control, seen, remembered, rest=False)
    assert remembered.of(kiosk).told == ("", 0.0)


# --- PostgreSQL -------------------------------------------------------------------------------------------------


def test_jobs_of_a_cluster_whose_blueprint_cannot_be_read_keep_no_other(control: Control, kiosk: str) -> None:
    blueprints.store(control, KIOSK.replace("id: kiosk", "id: broken"))
    create = CreateCluster(blueprint_id="broken", name="Broken", id="broken")
    lifecycle.submit(control, create, Origin("test", "a test asks for it"))
    with control.database.transaction() as session:
        for cluster_id in ("broken", kiosk):
            for delay in (None, 0):
                submitting.record(session, cluster_id, [NewJob(to="Packer", delay=delay)])
        session.execute(text("UPDATE jobs SET created_at = now() - interval '1 minute'"))
        session.execute(text("UPDATE cluster_blueprints SET blueprint_yaml = 'no: 1' WHERE id = 'broken'"))
    blueprints._KNOWN.clear()
    tick(control)
    assert control.broker.redis.llen(names.group_queue(kiosk, "packer")) == 2
    with control.database.transaction() as session:
        session.execute(text("DELETE FROM clusters WHERE id = 'broken'"))
        session.execute(text("DELETE FROM cluster_blueprints WHERE id = 'broken'"))


def test_old_decisions_are_pruned(control: Control, kiosk: str) -> None:
    entry = ledger.Entry(kiosk, "hold", "old", {}, {}, {})
    with control.database.transaction() as session:
        ledger.write_holds(session, [entry])
        session.execute(text("UPDATE scaling_decisions SET at = now() - interval '31 days'"))
        ledger.write_holds(session, [entry])
    metrics.prune(control)
    assert decisions(control, kiosk) == ["hold"]


def test_two_ticks_at_once_tell_an_alert_once(control: Control, kiosk: str) -> None:
    with control.database.transaction() as session:
        seen = observation.load(session)[kiosk]
    found = Figures(kiosk, seen.blueprint, seen.generation, {"queue_length": 9.0})

    def look(second: int) -> None:
        alerts.evaluate(control, {kiosk: found}, datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, range(4)))
    with control.database.transaction() as session:
        assert len(session.scalars(select(Event.id).where(Event.kind == "alert.firing")).all()) == 1


def test_a_schedule_that_fires_between_two_looks_is_seen_whatever_redis_takes_for_the_time(
    control: Control, kiosk: str
) -> None:
    tick(control)
    with control.database.transaction() as session:
        before = observation.load(session)[kiosk].at
        earlier = memory.load(control.broker).seen_at
    assert earlier is not None
    assert earlier <= before
    with control.database.transaction() as session:
        session.execute(text("UPDATE clusters SET intent = 'asleep', hibernated_at = now() - interval '5 minutes'"))
        session.execute(text("UPDATE cluster_agents SET status = 'stopped', stopped_at = now()"))
    remembered = memory.load(control.broker)
    remembered.seen_at = earlier - 61  # a whole minute: the expression fired in it
    remembered.at = earlier + 3600  # Redis's clock goes an hour ahead
    memory.save(control.broker, remembered)
    tick(control)
    assert decisions(control, kiosk)[-1] == "reactivate"
