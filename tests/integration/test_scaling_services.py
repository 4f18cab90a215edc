"""The autoscaler on a real PostgreSQL and Redis: what it sees, remembers, writes down and does about it."""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import select

from brain_clusters.broker import names
from brain_clusters.broker.jobs import JobRecords, JobReport
from brain_clusters.db.models import Agent, Cluster, Operation, ScalingDecision
from brain_clusters.domain.commands import (
    AUTOSCALER,
    HibernateCluster,
    Origin,
    ScaleCluster,
)
from brain_clusters.domain.signals import GroupSignals
from brain_clusters.domain.states import ClusterStatus, Intent, JobStatus, OperationKind
from brain_clusters.domain.windows import GroupState
from brain_clusters.errors import Conflict
from brain_clusters.services import blueprints, ledger, lifecycle, memory, metrics, observation, sensing
from brain_clusters.services.memory import Memory
from brain_clusters.services.observation import SeenCluster
from tests.integration.stage import Stage

PACKERS = "brain.{}.packer"


# --- what a test sets up and looks at ---------------------------------------------------------------------------


def depot(
    stage: Stage, scaling: str = "", lifecycle: str = "hibernate_conditions: [idle_time: 1 hour]", more: str = ""
) -> str:
    """Store a blueprint of one fixed and one scalable group of its own, and return its id."""
    name = f"depot-{uuid.uuid4().hex[:8]}"
    text = f"""
        metadata: {{id: {name}, name: A depot, version: "1"}}
        cluster: {{type: project, min_workers: 1, max_workers: 9, default_workers: 1, scaling: {{{scaling}}}}}
        agents:
          - {{role: supervisor, name: Boss, count: 1}}
          - {{role: worker, name: Packer, count: 0-8}}
        lifecycle: {{{lifecycle}}}
        {more}
    """
    blueprints.store(stage.control, text)
    return name


def carried_out(stage: Stage, cluster_id: str) -> None:
    """Run what was asked for, as a lifecycle worker does, and let the host do its part."""
    with stage.control.database.transaction() as session:
        asked = select(Operation).where(Operation.cluster_id == cluster_id, Operation.status == "pending")
        pending = list(session.scalars(asked.order_by(Operation.created_at)))
    for operation in pending:
        stage.run(operation)
    stage.settle(cluster_id)


def sleeping(stage: Stage, cluster_id: str) -> str:
    """Let a cluster fall asleep, and one tick look at it."""
    stage.do(HibernateCluster(cluster_id=cluster_id))
    stage.settle(cluster_id)
    stage.tick()
    assert stage.cluster(cluster_id).status is ClusterStatus.HIBERNATED
    return cluster_id


def look(stage: Stage, cluster_id: str, *, rest: bool = False, remembered: Memory | None = None) -> SeenCluster:
    """Return what a tick would see of a cluster now; nothing is saved."""
    with stage.control.database.transaction() as session:
        found = observation.load(session)
    sensing.read(stage.control, found, remembered or memory.load(stage.control.broker), rest=rest)
    return found[cluster_id]


def rests(stage: Stage, cluster_id: str) -> bool:
    return look(stage, cluster_id, rest=True).resting


def packers(stage: Stage, cluster_id: str) -> GroupSignals:
    return look(stage, cluster_id).signals["Packer"]


def decisions(stage: Stage, cluster_id: str) -> list[ScalingDecision]:
    """Return the ledger of a cluster, oldest first."""
    with stage.control.database.transaction() as session:
        rows = select(ScalingDecision).where(ScalingDecision.cluster_id == cluster_id)
        return list(session.scalars(rows.order_by(ScalingDecision.id)))


def acts(stage: Stage, cluster_id: str) -> list[str]:
    return [row.action for row in decisions(stage, cluster_id)]


def gates(stage: Stage, cluster_id: str) -> list[dict[str, str]]:
    return [{name: gate["gate"] for name, gate in row.held.items()} for row in decisions(stage, cluster_id)]


def push(stage: Stage, cluster_id: str, jobs: int) -> None:
    stage.redis.lpush(PACKERS.format(cluster_id), *["{}"] * jobs)


def hold(stage: Stage, agent: Agent, jobs: int = 1, *, begun: int = 0, **beat: Any) -> None:
    """Give ``jobs`` to an agent, which has begun ``begun`` of them."""
    stage.redis.hset(names.unacked_key(agent.agent_id), mapping={f"tag-{n}": "m" for n in range(jobs)})
    stage.beat(agent, in_flight=begun, **beat)


def members(stage: Stage, cluster_id: str, group: str = "Packer") -> list[Agent]:
    return [agent for agent in stage.agents(cluster_id) if agent.group_name == group]


def remembered_earlier(stage: Stage, seconds: float) -> None:
    """Let all holds have been written down ``seconds`` earlier."""
    found = memory.load(stage.control.broker)
    for one in found.clusters.values():
        one.told = (one.told[0], one.told[1] - seconds)
    memory.save(stage.control.broker, found)


def whole(row: ScalingDecision) -> set[str]:
    """Return the names of all inputs of a decision."""
    view, situation = row.inputs["view"], row.inputs["situation"]
    assert isinstance(row.inputs["now"], float)
    return {*row.inputs, *view, *situation}


INPUTS = {
    "blueprint", "view", "situation", "signals", "state", "now",
    "targets", "min_workers", "max_workers", "since_change", "idle_seconds", "persistent", "unknown_ticks", "floor",
    "next_floor", "phase", "asleep_backlog", "hibernated_seconds", "look_ahead", "fired", "over_budget", "paused",
}  # fmt: skip


# --- the ledger -------------------------------------------------------------------------------------------------


def test_a_scale_is_stored_with_its_operation_and_all_inputs(stage: Stage) -> None:
    cluster_id = stage.active(blueprint_id=depot(stage))
    push(stage, cluster_id, 20)
    stage.tick()
    [row] = decisions(stage, cluster_id)
    assert (row.action, row.before) == ("scale", {"Boss": 1, "Packer": 0})
    assert row.after == stage.cluster(cluster_id).group_targets
    assert row.after["Packer"] > 0
    assert "20 jobs wait" in row.reason
    assert row.operation_id is not None
    operation = stage.operation(row.operation_id)
    assert (operation.kind, operation.cluster_id) == (OperationKind.SCALE, cluster_id)
    assert whole(row) == INPUTS
    assert row.inputs["signals"]["Packer"]["ready"] == 20
    assert row.inputs["blueprint"] == [stage.cluster(cluster_id).blueprint_id, "1"]


def test_a_decision_whose_command_came_too_late_is_not_stored(stage: Stage) -> None:
    cluster_id = stage.active(blueprint_id=depot(stage))
    entry = ledger.Entry(cluster_id, "scale", "r", {"Packer": 0}, {"Packer": 2}, {"now": 0.0})
    outdated = ScaleCluster(cluster_id=cluster_id, groups={"Packer": 2}, if_generation=0)
    with pytest.raises(Conflict):
        lifecycle.submit(stage.control, outdated, Origin(AUTOSCALER, "r"), entry)
    assert decisions(stage, cluster_id) == []
    with stage.control.database.transaction() as session:
        kinds = session.scalars(select(Operation.kind).where(Operation.cluster_id == cluster_id)).all()
    assert kinds == [OperationKind.CREATE]


def test_a_hold_is_stored_when_it_begins_when_its_gate_changes_and_again_after_a_while(stage: Stage) -> None:
    cluster_id = stage.active(blueprint_id=depot(stage, "activation_threshold: 3"))
    push(stage, cluster_id, 2)
    for _ in range(3):
        stage.tick()
    assert gates(stage, cluster_id) == [{"Packer": "activation_threshold"}]
    [first] = decisions(stage, cluster_id)
    assert (first.action, first.operation_id, first.before["Packer"], first.after["Packer"]) == ("hold", None, 0, 1)
    assert whole(first) == INPUTS
    remembered_earlier(stage, ledger.REPEAT_SECONDS)
    for _ in range(2):
        stage.tick()
    assert gates(stage, cluster_id) == [{"Packer": "activation_threshold"}] * 2
    stage.control.broker.redis.delete(PACKERS.format(cluster_id))
    stage.do(ScaleCluster(cluster_id=cluster_id, groups={"Packer": 3}))
    carried_out(stage, cluster_id)
    for _ in range(2):
        stage.tick()
    assert gates(stage, cluster_id)[2:] == [{"Packer": "scale_down.stabilization"}]


def test_sleep_and_waking_and_giving_up_are_stored_with_their_operations(stage: Stage) -> None:
    rules = "hibernate_conditions: [idle_time: 1 hour], destroy_conditions: [hibernated_duration: 7 days]"
    cluster_id = stage.active(blueprint_id=depot(stage, lifecycle=rules))
    for column in ("last_active", "scaled_at", "created_at"):
        stage.earlier("clusters", column, 7200)
    stage.tick()
    carried_out(stage, cluster_id)
    push(stage, cluster_id, 1)
    stage.tick()
    assert acts(stage, cluster_id) == ["hibernate", "reactivate"]
    stage.redis.delete(PACKERS.format(cluster_id))
    carried_out(stage, cluster_id)
    sleeping(stage, cluster_id)
    stage.earlier("clusters", "hibernated_at", 8 * 86_400)
    stage.tick()
    rows = decisions(stage, cluster_id)
    assert [row.action for row in rows] == ["hibernate", "reactivate", "destroy"]
    assert [stage.operation(row.operation_id).kind for row in rows if row.operation_id] == [
        OperationKind.HIBERNATE, OperationKind.REACTIVATE, OperationKind.DESTROY,
    ]  # fmt: skip
    assert all(whole(row) == INPUTS for row in rows)
    assert [row.after["Packer"] for row in rows] == [0, 1, 0]
    assert rows[0].before == {"Boss": 1, "Packer": 0}


def test_old_decisions_are_pruned_and_those_of_a_deleted_cluster_go_with_it(stage: Stage) -> None:
    kept, gone = (stage.active(blueprint_id=depot(stage)) for _ in range(2))
    for cluster_id in (kept, gone):
        push(stage, cluster_id, 20)
    stage.tick()
    for cluster_id in (kept, gone):
        carried_out(stage, cluster_id)
        push(stage, cluster_id, 400)
    stage.tick()
    assert (len(decisions(stage, kept)), len(decisions(stage, gone))) == (2, 2)
    old = decisions(stage, kept)[0].id
    age = stage.control.settings.decisions_retention_seconds + 60
    stage.sql("UPDATE scaling_decisions SET at = at - make_interval(secs => :age) WHERE id = :old", age=age, old=old)
    metrics.prune(stage.control)
    assert len(decisions(stage, kept)) == 1
    assert len(decisions(stage, gone)) == 2
    with stage.control.database.transaction() as session:
        session.delete(session.get_one(Cluster, gone))
    assert decisions(stage, gone) == []
    assert len(decisions(stage, kept)) == 1


def test_a_stored_decision_made_again_by_the_same_blueprint_is_the_same(stage: Stage) -> None:
    rules = "hibernate_conditions: [idle_time: 1 hour]"
    cluster_id = stage.active(blueprint_id=depot(stage, "cooldown_period: 0", rules))
    other = stage.active(blueprint_id=depot(stage, "activation_threshold: 5", rules))
    push(stage, cluster_id, 7)
    push(stage, other, 2)
    stage.tick()
    carried_out(stage, cluster_id)
    for agent in members(stage, cluster_id)[:2]:
        hold(stage, agent, 1, begun=1, service_time=3.7, running_for=1.25, completed=3)
    push(stage, cluster_id, 31)
    stage.tick()
    carried_out(stage, cluster_id)
    stage.redis.delete(PACKERS.format(cluster_id))
    stage.beat(*members(stage, cluster_id), service_time=3.7)
    stage.tick()
    sleeping(stage, other)
    push(stage, other, 30)
    stage.tick()
    rows = decisions(stage, cluster_id) + decisions(stage, other)
    assert {row.action for row in rows} == {"scale", "hold", "reactivate"}
    assert len(rows) >= 5
    for row in rows:
        with stage.control.database.transaction() as session:
            blueprint = blueprints.parsed(session, *row.inputs["blueprint"])
        again = ledger.choose_again(row.inputs, blueprint)
        assert (again.action, again.reason, again.after(row.before)) == (row.action, row.reason, row.after)
        assert {name: gate.gate for name, gate in again.held.items()} == {
            name: gate["gate"] for name, gate in row.held.items()
        }


# --- sensing ----------------------------------------------------------------------------------------------------


def test_what_is_reserved_runs_and_leaves_is_told_apart(stage: Stage) -> None:
    cluster_id = stage.active(blueprint_id=depot(stage))
    stage.do(ScaleCluster(cluster_id=cluster_id, groups={"Packer": 3}))
    carried_out(stage, cluster_id)
    first, second, third = members(stage, cluster_id)
    hold(stage, first, 1, begun=1, running_for=4.0)
    hold(stage, second, 1, begun=0)
    hold(stage, third, 1, begun=1, running_for=9.0)
    push(stage, cluster_id, 2)
    found = packers(stage, cluster_id)
    assert (found.ready, found.running, found.reserved, found.leaving, found.agents_ready) == (2, 2, 1, 0, 3)
    assert found.running_age == pytest.approx(6.5)
    stage.sql("UPDATE cluster_agents SET status = 'draining' WHERE agent_id = :id", id=third.agent_id)
    found = packers(stage, cluster_id)
    assert (found.ready, found.running, found.reserved, found.leaving) == (2, 1, 1, 1)
    assert (found.agents_ready, found.agents_draining) == (2, 1)
    assert found.running_age == pytest.approx(4.0)


def test_jobs_for_later_are_held_wherever_they_wait_and_due_soon_when_they_are(stage: Stage, redis_url: str) -> None:
    cluster_id = sleeping(stage, stage.active(blueprint_id=depot(stage)))
    for seconds in (20, 3600):
        stage.post(cluster_id, to="Packer", delay=seconds)
    found = packers(stage, cluster_id)
    assert (found.ready, found.held, found.due_soon) == (0, 2, 0)
    assert found.next_due == pytest.approx(20, abs=5)
    plain = Celery(broker=redis_url, set_as_current=False)
    queue = PACKERS.format(cluster_id)
    for countdown in (12, 7200):
        plain.send_task(names.JOB_TASK, [{}], queue=queue, countdown=countdown)
    found = packers(stage, cluster_id)
    assert (found.ready, found.held, found.due_soon) == (0, 4, 0)
    assert found.next_due == pytest.approx(12, abs=5)
    assert stage.redis.zcard(names.eta_key(queue)) == 2
    stage.earlier("jobs", "eta", 19)
    plain.send_task(names.JOB_TASK, [{}], queue=queue, countdown=2)
    plain.close()
    found = packers(stage, cluster_id)
    assert (found.ready, found.held, found.due_soon) == (0, 5, 2)


def test_the_start_time_is_the_p90_of_what_starts_took(stage: Stage) -> None:
    cluster_id = stage.active(blueprint_id=depot(stage))
    stage.do(ScaleCluster(cluster_id=cluster_id, groups={"Packer": 8}))
    carried_out(stage, cluster_id)
    stage.do(ScaleCluster(cluster_id=cluster_id, groups={"Packer": 5}))
    carried_out(stage, cluster_id)  # those that have left have taught, too
    took = "ready_at = spawned_at + make_interval(secs => row.number)"
    numbered = "SELECT agent_id, row_number() OVER () AS number FROM cluster_agents WHERE group_name = 'Packer'"
    stage.sql(f"UPDATE cluster_agents AS a SET {took} FROM ({numbered}) AS row WHERE a.agent_id = row.agent_id")
    stage.redis.delete("brain:measured")
    assert packers(stage, cluster_id).start_time == pytest.approx(7.3)  # of 1, 2 ... 8 s
    stage.sql("UPDATE cluster_agents SET ready_at = ready_at + interval '1 hour'")
    assert packers(stage, cluster_id).start_time == pytest.approx(7.3)  # asked once a minute


def test_where_starting_takes_long_a_sleeper_wakes_sooner(stage: Stage) -> None:
    cluster_id = stage.active(blueprint_id=depot(stage))
    stage.do(ScaleCluster(cluster_id=cluster_id, groups={"Packer": 2}))
    carried_out(stage, cluster_id)
    sleeping(stage, cluster_id)
    stage.post(cluster_id, to="Packer", delay=15)
    stage.tick()
    assert stage.cluster(cluster_id).intent is Intent.ASLEEP
    assert packers(stage, cluster_id).due_soon == 0
    stage.sql("UPDATE cluster_agents SET ready_at = spawned_at + interval '20 s'")
    stage.redis.delete("brain:measured")
    assert packers(stage, cluster_id).due_soon == 1
    stage.tick()
    assert (stage.cluster(cluster_id).intent, acts(stage, cluster_id)) == (Intent.RUNNING, ["reactivate"])


def test_a_replacement_that_had_to_wait_its_turn_was_not_slow_to_start(stage: Stage) -> None:
    cluster_id = stage.active(blueprint_id=depot(stage))
    stage.do(ScaleCluster(cluster_id=cluster_id, groups={"Packer": 1}))
    carried_out(stage, cluster_id)
    late = "not_before = spawned_at + interval '50 s', ready_at = spawned_at + interval '52 s'"
    stage.sql(f"UPDATE cluster_agents SET {late}")
    stage.redis.delete("brain:measured")
    assert packers(stage, cluster_id).start_time == pytest.approx(2.0)


def test_the_service_time_is_learned_and_outlives_a_sleep(stage: Stage) -> None:
    blueprint = depot(stage)
    cluster_id = stage.active(blueprint_id=blueprint)
    stage.do(ScaleCluster(cluster_id=cluster_id, groups={"Packer": 2}))
    carried_out(stage, cluster_id)
    assert packers(stage, cluster_id).service_time is None
    stage.tick()
    stage.beat(*members(stage, cluster_id), completed=4, service_time=2.5)
    stage.tick()
    assert packers(stage, cluster_id).service_time == pytest.approx(2.5)
    sleeping(stage, cluster_id)
    for _ in range(2):
        stage.tick()
    assert cluster_id not in memory.load(stage.control.broker).clusters
    stage.redis.delete("brain:measured")
    push(stage, cluster_id, 1)
    assert packers(stage, cluster_id).service_time == pytest.approx(2.5)
    push(stage, sister := stage.active(blueprint_id=blueprint), 1)
    assert packers(stage, sister).service_time == pytest.approx(2.5)  # as its blueprint's others have shown


def test_a_missing_beat_is_unknown_and_takes_nobody_away(stage: Stage) -> None:
    rules = "cooldown_period: 0, scale_down: {stabilization: 0, consecutive: 1}"
    cluster_id = stage.active(blueprint_id=depot(stage, rules))
    stage.do(ScaleCluster(cluster_id=cluster_id, groups={"Packer": 4}))
    carried_out(stage, cluster_id)
    silent = members(stage, cluster_id)[0]
    stage.redis.delete(names.beat_key(silent.agent_id))
    for ticks in (1, 2, 3):
        stage.tick()
        assert stage.cluster(cluster_id).group_targets["Packer"] == 4
        assert stage.cluster(cluster_id).unknown_ticks == ticks
    assert gates(stage, cluster_id) == [{"Packer": "unknown"}]
    stage.beat(silent)
    stage.tick()
    assert stage.cluster(cluster_id).group_targets["Packer"] == 0
    assert stage.cluster(cluster_id).unknown_ticks == 0


# --- at rest ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "disturb",
    [
        lambda stage, one: push(stage, one, 1),
        lambda stage, one: stage.redis.lpush(PACKERS.format(one) + "\x06\x169", "{}"),
        lambda stage, one: stage.post(one, to="Packer", delay="1 hour"),
        lambda stage, one: stage.redis.zadd(names.eta_key(PACKERS.format(one)), {"{}": time.time() + 3600}),
        lambda stage, one: stage.redis.delete(names.beat_key(stage.agents(one)[0].agent_id)),
        lambda stage, one: hold(stage, stage.agents(one)[0]),
        lambda stage, one: stage.sql("UPDATE cluster_agents SET status = 'draining' WHERE cluster_id = :id", id=one),
        lambda stage, one: stage.sql("UPDATE clusters SET status = 'scaling_up' WHERE id = :id", id=one),
        lambda stage, one: stage.sql("UPDATE clusters SET unknown_ticks = 1 WHERE id = :id", id=one),
        lambda stage, one: stage.sql("UPDATE clusters SET wake_at = now() WHERE id = :id", id=one),
        lambda stage, one: stage.earlier("clusters", "last_active", 3700),
        lambda stage, one: stage.submit(ScaleCluster(cluster_id=one, groups={"Packer": 1})),
    ],
    ids=[
        "a job", "a job of low priority", "a job for later", "a client's job for later", "a missing beat",
        "a reserved job", "an agent that leaves", "an unfinished status", "an unknown tick", "a time to wake",
        "its hour of idleness", "a command",
    ],
)  # fmt: skip
def test_a_resting_cluster_is_looked_at_again_for(stage: Stage, disturb: Any) -> None:
    cluster_id = stage.active(blueprint_id=depot(stage))
    stage.earlier("clusters", "created_at", 4000)
    stage.sql("UPDATE clusters SET last_active = now()")
    stage.tick()
    assert rests(stage, cluster_id)
    disturb(stage, cluster_id)
    assert not rests(stage, cluster_id)


@pytest.mark.parametrize(
    ("scaling", "more"),
    [
        ("schedule: [{start: '0 3 * * *', end: '0 4 * * *', min_workers: 2}]", ""),
        ("metric: cpu_usage", ""),
        ("", "monitoring: {alerts: [{condition: error_rate > 10%, action: notify_admin}]}"),
    ],
)
def test_a_cluster_with_something_to_watch_never_rests(stage: Stage, scaling: str, more: str) -> None:
    cluster_id = stage.active(blueprint_id=depot(stage, scaling, more=more))
    for _ in range(2):
        stage.tick()
        carried_out(stage, cluster_id)
    assert not rests(stage, cluster_id)


@pytest.mark.parametrize(
    "disturb",
    [
        lambda stage, one: push(stage, one, 1),
        lambda stage, one: stage.post(one, to="Packer", delay="1 hour"),
        lambda stage, one: stage.redis.zadd(names.eta_key(PACKERS.format(one)), {"{}": time.time() + 3600}),
        lambda stage, one: stage.earlier("clusters", "hibernated_at", 8 * 86_400),
    ],
    ids=["a job", "a job for later", "a client's job for later", "its time to be destroyed"],
)
def test_a_sleeping_cluster_is_looked_at_again_for(stage: Stage, disturb: Any) -> None:
    rules = "destroy_conditions: [hibernated_duration: 7 days]"
    cluster_id = sleeping(stage, stage.active(blueprint_id=depot(stage, lifecycle=rules)))
    assert rests(stage, cluster_id)
    disturb(stage, cluster_id)
    assert not rests(stage, cluster_id)


def test_a_sleeping_cluster_that_a_schedule_may_wake_never_rests(stage: Stage) -> None:
    rules = "reactivate_triggers: [schedule: '0 3 * * *']"
    cluster_id = sleeping(stage, stage.active(blueprint_id=depot(stage, lifecycle=rules)))
    assert not rests(stage, cluster_id)


def test_what_still_ebbs_away_keeps_a_cluster_from_resting(stage: Stage) -> None:
    cluster_id = stage.active(blueprint_id=depot(stage, "idle_workers: 1"))
    stage.tick()
    carried_out(stage, cluster_id)
    stage.tick()
    assert rests(stage, cluster_id)
    for _ in range(2):
        push(stage, cluster_id, 1)
        stage.tick()
    stage.redis.delete(PACKERS.format(cluster_id))
    stage.tick()
    assert packers(stage, cluster_id).arrival_rate > 0.01
    assert not rests(stage, cluster_id)


def test_what_a_window_learned_outlives_a_rest_that_is_shorter_than_its_lesson(stage: Stage) -> None:
    cluster_id = stage.active(blueprint_id=depot(stage, "idle_workers: 1"))
    stage.tick()
    carried_out(stage, cluster_id)
    found = memory.load(stage.control.broker)
    shrunk = GroupState(target=1, hold=90.0, shrunk_at=time.time() - 200)
    found.of(cluster_id).state = {"Packer": shrunk}
    memory.save(stage.control.broker, found)
    for _ in range(2):
        stage.tick()
        assert rests(stage, cluster_id)
    push(stage, cluster_id, 60)
    stage.tick()
    assert stage.cluster(cluster_id).group_targets["Packer"] > 1
    grown = memory.load(stage.control.broker).clusters[cluster_id].state["Packer"]
    assert grown.hold == pytest.approx(270.0)  # it shrank too soon
    stage.redis.delete(PACKERS.format(cluster_id))


def test_a_rest_that_is_longer_than_any_lesson_is_forgotten(stage: Stage) -> None:
    cluster_id = stage.active(blueprint_id=depot(stage, "idle_workers: 1"))
    stage.tick()
    carried_out(stage, cluster_id)
    found = memory.load(stage.control.broker)
    found.of(cluster_id).state = {"Packer": GroupState(target=1, hold=90.0, shrunk_at=time.time() - 1000)}
    memory.save(stage.control.broker, found)
    stage.tick()
    assert rests(stage, cluster_id)
    assert cluster_id not in memory.load(stage.control.broker).clusters


def test_a_lost_memory_takes_nobody_away_for_a_window(stage: Stage) -> None:
    rules = "cooldown_period: 0, scale_down: {stabilization: 600, consecutive: 1}"
    cluster_id = stage.active(blueprint_id=depot(stage, rules))
    stage.do(ScaleCluster(cluster_id=cluster_id, groups={"Packer": 4}))
    carried_out(stage, cluster_id)
    stage.tick()
    older_memory(stage, 599)
    stage.tick()
    assert stage.cluster(cluster_id).group_targets["Packer"] == 4
    stage.redis.delete("brain:scaling")
    stage.tick()
    older_memory(stage, 599)
    stage.tick()
    assert stage.cluster(cluster_id).group_targets["Packer"] == 4
    older_memory(stage, 601)
    stage.tick()
    assert stage.cluster(cluster_id).group_targets["Packer"] == 0


def older_memory(stage: Stage, seconds: float) -> None:
    """Let the needs that are remembered be at least ``seconds`` old."""
    found: Any = json.loads(stage.redis.get("brain:scaling"))  # type: ignore[arg-type]
    for _, state, *_ in found["clusters"].values():
        for one in state.values():
            one[1] = [[min(at, time.time() - seconds), count] for at, count in one[1]]
    stage.redis.set("brain:scaling", json.dumps(found))


def test_measures_that_make_no_sense_are_read_anew(stage: Stage) -> None:
    cluster_id = stage.active(blueprint_id=depot(stage))
    push(stage, cluster_id, 20)
    for nonsense in ("{", "7", '[["a"]]', '[["b", "g", "soon", null]]', '[[["b"], "g", 1, 1]]', "\x00"):
        stage.redis.set("brain:measured", nonsense)
        assert packers(stage, cluster_id).ready == 20
    stage.redis.set("brain:measured", "{")
    stage.tick()
    assert acts(stage, cluster_id) == ["scale"]


def test_a_memory_of_other_types_is_none(stage: Stage) -> None:
    cluster_id = stage.active(blueprint_id=depot(stage))
    stage.do(ScaleCluster(cluster_id=cluster_id, groups={"Packer": 4}))
    carried_out(stage, cluster_id)
    stage.tick()
    found: Any = json.loads(stage.redis.get("brain:scaling"))  # type: ignore[arg-type]
    assert found["clusters"][cluster_id][1]["Packer"][4] == 0
    found["clusters"][cluster_id][1]["Packer"][4] = "some"
    stage.redis.set("brain:scaling", json.dumps(found))
    assert memory.load(stage.control.broker) == Memory()
    push(stage, cluster_id, 200)
    stage.tick()
    assert "scale" in acts(stage, cluster_id)


def test_a_memory_that_makes_no_sense_is_none(stage: Stage) -> None:
    cluster_id = stage.active(blueprint_id=depot(stage))
    push(stage, cluster_id, 20)
    stage.tick()
    text = str(stage.redis.get("brain:scaling").decode())  # type: ignore[union-attr]
    for nonsense in (
        "{",
        "[]",
        '{"format": 1}',
        '{"format": 1, "at": 1, "clusters": {"x": [1]}}',
        "\x00",
        "null",
        "[" * 5000,
    ):
        stage.redis.set("brain:scaling", nonsense)
        assert memory.load(stage.control.broker) == Memory()
        assert stage.tick()
    stage.redis.set("brain:scaling", text)
    assert cluster_id in memory.load(stage.control.broker).clusters


def test_a_cluster_that_did_a_job_between_two_looks_is_not_idle(stage: Stage) -> None:
    cluster_id = stage.active(blueprint_id=depot(stage))
    for column in ("last_active", "scaled_at", "created_at"):
        stage.earlier("clusters", column, 7200)
    report = JobReport(
        id="quick", cluster_id=cluster_id, status=JobStatus.SUCCEEDED, group_name="Boss", agent_id="a", attempts=1,
        started_at=time.time(), finished_at=time.time(),
    )  # fmt: skip
    JobRecords(stage.redis).finish(report)
    stage.tick()
    assert stage.cluster(cluster_id).intent is Intent.RUNNING


# --- Redis away -------------------------------------------------------------------------------------------------


def test_with_redis_away_counts_are_held_then_go_up_to_the_fallback_and_never_down(
    stage: Stage, cut_off: Stage
) -> None:
    rules = "fallback: {failure_threshold: 3, workers: 2}"
    low = stage.active(blueprint_id=depot(stage, rules))
    high = stage.active(blueprint_id=depot(stage, rules))
    stage.do(ScaleCluster(cluster_id=high, groups={"Packer": 5}))
    carried_out(stage, high)
    asleep = sleeping(stage, stage.active(blueprint_id=depot(stage, rules)))
    for column in ("last_active", "scaled_at", "created_at", "hibernated_at"):
        stage.earlier("clusters", column, 86_400)
    for ticks in (1, 2):
        assert cut_off.tick()
        assert sizes(stage, low, high) == {low: 0, high: 5}
        assert {stage.cluster(one).unknown_ticks for one in (low, high)} == {ticks}
    assert gates(stage, low) == [{"Packer": "unknown"}]
    assert cut_off.tick()
    assert sizes(stage, low, high) == {low: 2, high: 5}
    row = decisions(stage, low)[-1]
    assert (row.action, row.after) == ("scale", {"Boss": 1, "Packer": 2})
    assert row.operation_id is not None
    assert stage.operation(row.operation_id).kind is OperationKind.SCALE
    assert "unknown 3 times in a row" in row.reason
    for _ in range(3):
        cut_off.tick()
    assert sizes(stage, low, high) == {low: 2, high: 5}
    assert stage.cluster(high).unknown_ticks == 6
    assert [row.action for row in decisions(stage, high) if row.action != "hold"] == []
    assert stage.cluster(asleep).intent is Intent.ASLEEP
    carried_out(stage, low)
    stage.beat(*stage.agents(low), *stage.agents(high))
    stage.tick()
    assert {stage.cluster(one).unknown_ticks for one in (low, high)} == {0}
    assert sizes(stage, low, high)[low] == 2


def sizes(stage: Stage, *cluster_ids: str) -> dict[str, int]:
    return {one: stage.cluster(one).group_targets["Packer"] for one in cluster_ids}


# --- work that is due -------------------------------------------------------------------------------------------


def test_a_sleeper_knows_when_to_wake_for_a_job_and_forgets_it_with_the_job(stage: Stage) -> None:
    cluster_id = sleeping(stage, stage.active(blueprint_id=depot(stage)))
    assert stage.cluster(cluster_id).wake_at is None
    job = stage.post(cluster_id, to="Packer", delay=600)
    stage.tick()
    found = stage.cluster(cluster_id)
    assert (found.intent, job.eta is None) == (Intent.ASLEEP, False)
    assert found.wake_at is not None
    assert job.eta is not None
    assert timedelta(0) < job.eta - found.wake_at < timedelta(seconds=5)
    stage.sql("DELETE FROM jobs")
    stage.tick()
    assert stage.cluster(cluster_id).wake_at is None


def test_the_tick_publishes_what_is_due_and_wakes_the_sleeper_before_it(stage: Stage) -> None:
    cluster_id = sleeping(stage, stage.active(blueprint_id=depot(stage)))
    job = stage.post(cluster_id, to="Packer", delay=600)
    stage.tick()
    ahead = stage.control.settings.tick_interval_seconds
    stage.earlier("jobs", "eta", 600 - ahead)
    stage.tick()
    assert stage.job(job.id).published_at is not None
    assert stage.redis.zcard(names.eta_key(PACKERS.format(cluster_id))) == 1
    found = stage.cluster(cluster_id)
    assert (found.intent, found.group_targets["Packer"]) == (Intent.RUNNING, 1)
    carried_out(stage, cluster_id)
    stage.tick()
    assert stage.cluster(cluster_id).wake_at is None
    row = next(row for row in decisions(stage, cluster_id) if row.action == "reactivate")
    assert "a job is due in" in row.reason


def test_a_schedule_of_reactivate_triggers_wakes_a_sleeper_once(stage: Stage) -> None:
    rules = "hibernate_conditions: [idle_time: 1 hour], reactivate_triggers: [schedule: '0 * * * *']"
    cluster_id = sleeping(stage, stage.active(blueprint_id=depot(stage, lifecycle=rules)))
    last_tick(stage, datetime.now(UTC) - timedelta(hours=1))
    stage.tick()
    assert stage.cluster(cluster_id).intent is Intent.ASLEEP  # it fell asleep after the hour
    stage.earlier("clusters", "hibernated_at", 7200)
    last_tick(stage, datetime.now(UTC) - timedelta(hours=1))
    stage.tick()
    assert stage.cluster(cluster_id).intent is Intent.RUNNING
    row = decisions(stage, cluster_id)[-1]
    assert (row.action, "of reactivate_triggers fired" in row.reason) == ("reactivate", True)
    carried_out(stage, cluster_id)
    stage.do(HibernateCluster(cluster_id=cluster_id))
    carried_out(stage, cluster_id)
    for _ in range(2):
        stage.tick()
    assert stage.cluster(cluster_id).intent is Intent.ASLEEP


def last_tick(stage: Stage, at: datetime) -> None:
    """Let the last tick have been at ``at``."""
    found = memory.load(stage.control.broker)
    found.seen_at = at.timestamp()
    memory.save(stage.control.broker, found)


def test_a_scaling_schedule_wakes_a_sleeper_and_keeps_its_agents(stage: Stage) -> None:
    now = datetime.now(UTC)
    begun, over = now - timedelta(hours=1), now + timedelta(hours=3)
    entry = f"{{start: '0 {begun.hour} * * *', end: '59 {over.hour} * * *', min_workers: 4}}"
    calm = depot(stage, "cooldown_period: 0")
    busy = depot(stage, f"cooldown_period: 0, schedule: [{entry}]")
    cluster_id = sleeping(stage, stage.active(blueprint_id=calm))
    stage.sql("UPDATE clusters SET blueprint_id = :busy", busy=busy)
    stage.tick()
    assert stage.cluster(cluster_id).intent is Intent.ASLEEP  # somebody put it to sleep while it was in force
    stage.earlier("clusters", "hibernated_at", 3 * 3600)
    stage.tick()
    assert stage.cluster(cluster_id).intent is Intent.RUNNING
    carried_out(stage, cluster_id)
    stage.tick()
    carried_out(stage, cluster_id)
    assert sum(stage.cluster(cluster_id).group_targets.values()) == 4
    assert stage.cluster(cluster_id).status is ClusterStatus.ACTIVE
    for column in ("last_active", "scaled_at", "created_at"):
        stage.earlier("clusters", column, 7200)
    older_memory(stage, 3600)
    for _ in range(4):
        stage.tick()
    assert gates(stage, cluster_id)[-1]["cluster"] == "schedule"
    assert stage.cluster(cluster_id).intent is Intent.RUNNING
    assert sum(stage.cluster(cluster_id).group_targets.values()) == 4


def test_a_running_cluster_with_a_job_that_is_due_soon_does_not_fall_asleep_over_it(stage: Stage) -> None:
    cluster_id = stage.active(blueprint_id=depot(stage))
    job = stage.post(cluster_id, to="Packer", delay=3600)
    for column in ("last_active", "scaled_at", "created_at"):
        stage.earlier("clusters", column, 7200)
    stage.earlier("jobs", "eta", 3600 - 30)
    stage.tick()
    assert stage.cluster(cluster_id).intent is Intent.RUNNING
    assert gates(stage, cluster_id)[-1] == {"cluster": "eta_horizon"}
    stage.earlier("jobs", "eta", -3600)
    stage.tick()
    assert stage.cluster(cluster_id).intent is Intent.ASLEEP
    carried_out(stage, cluster_id)
    stage.tick()
    assert stage.cluster(cluster_id).wake_at is not None
    assert stage.job(job.id).status is JobStatus.QUEUED
