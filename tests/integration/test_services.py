"""The use cases on a real PostgreSQL and a real Redis. There is no host: the tests do at its desk what it would do."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import Engine, event, func, select

from brain_clusters.broker import backlog, names
from brain_clusters.broker.jobs import JobRecords, JobReport
from brain_clusters.config import Settings
from brain_clusters.db.models import Agent, Cluster, Event, Job, Metrics, Operation, StoredBlueprint
from brain_clusters.domain.commands import (
    AUTOSCALER,
    CreateCluster,
    DestroyCluster,
    HibernateCluster,
    Origin,
    ReactivateCluster,
    ScaleCluster,
    UpdateCluster,
)
from brain_clusters.domain.states import (
    AgentStatus,
    ClusterStatus,
    Intent,
    JobStatus,
    OperationKind,
    OperationStatus,
)
from brain_clusters.errors import BrainError, Conflict, InvalidInput, NotFound, TemporaryError
from brain_clusters.genesis.desk import Ended
from brain_clusters.ports import free_port
from brain_clusters.services import (
    autoscale,
    blueprints,
    jobs,
    lifecycle,
    memory,
    metrics,
    operations,
    outcomes,
    requests,
    scheduled,
    workers,
)
from brain_clusters.services.control import Control
from brain_clusters.services.hosting import HostDesk
from brain_clusters.services.reconcile import act, reconcile
from tests.integration.stage import ORIGIN, SHOP, Stage
from workers.lifecycle import accept

# --- submit and record ------------------------------------------------------------------------------------------


def test_a_command_is_recorded_with_its_cluster_and_its_reason_before_it_is_published(stage: Stage) -> None:
    operation = stage.submit(CreateCluster(blueprint_id="shop", name="My Shop!", tags=("a",), target_workers=4))
    assert operation.status is OperationStatus.PENDING
    assert operation.request == {"blueprint_id": "shop", "name": "My Shop!", "tags": ["a"], "target_workers": 4}
    assert operation.cluster_id is not None
    assert operation.cluster_id.startswith("my-shop-")
    cluster = stage.cluster(operation.cluster_id)
    assert (cluster.status, cluster.intent, cluster.target_workers) == (ClusterStatus.PLANNING, Intent.RUNNING, 4)
    assert cluster.group_targets == {"Boss": 1, "Clerk": 1, "Packer": 1, "Driver": 1}
    assert stage.agents(cluster.id) == []
    with stage.control.database.transaction() as session:
        accepted = session.scalars(select(Event)).one()
    assert (accepted.kind, accepted.actor, accepted.operation_id) == ("operation.accepted", "test", operation.id)
    [message] = stage.redis.lrange(names.LIFECYCLE_QUEUE, 0, -1)  # type: ignore[misc]
    assert json.loads(message)["headers"]["task"] == names.RUN_OPERATION_TASK


def test_creating_counts_the_blueprints_instances_and_destroying_counts_them_down(stage: Stage) -> None:
    def counted() -> tuple[int, int, float]:
        with stage.control.database.transaction() as session:
            found = session.get_one(StoredBlueprint, ("shop", "1"))
            return found.instances_created, found.instances_active, found.success_rate

    cluster_id = stage.active()
    assert counted() == (1, 1, 1.0)
    stage.do(DestroyCluster(cluster_id=cluster_id))
    stage.settle(cluster_id)
    assert counted() == (1, 0, 1.0)


@pytest.mark.parametrize(
    ("fields", "error", "pointers"),
    [
        ({"blueprint_id": "nobody"}, NotFound, []),
        ({"target_workers": 9}, InvalidInput, ["/target_workers"]),
        ({"target_workers": 0}, InvalidInput, ["/target_workers"]),
        ({"min_workers": 5, "max_workers": 4}, InvalidInput, ["/min_workers"]),
        ({"max_workers": 99, "target_workers": 11}, InvalidInput, ["/target_workers"]),
        ({"min_workers": 11, "max_workers": 99}, InvalidInput, ["/target_workers"]),
        ({"parent_cluster_id": "nobody"}, InvalidInput, ["/parent_cluster_id"]),
    ],
)
def test_what_cannot_be_created_is_refused_and_leaves_nothing(
    stage: Stage, fields: dict[str, Any], error: type[BrainError], pointers: list[str]
) -> None:
    with pytest.raises(error) as raised:
        stage.submit(CreateCluster(**{"blueprint_id": "shop", "name": "S", **fields}))
    assert [fault.pointer for fault in getattr(raised.value, "faults", ())] == pointers
    with stage.control.database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Cluster)) == 0
        assert session.scalar(select(func.count()).select_from(Operation)) == 0


def test_an_id_is_given_once(stage: Stage) -> None:
    stage.submit(CreateCluster(blueprint_id="shop", name="S", id="taken"))
    with pytest.raises(Conflict, match="'taken'"):
        stage.submit(CreateCluster(blueprint_id="shop", name="S", id="taken"))


@pytest.mark.parametrize(
    ("command", "pointer"),
    [
        ({}, ""),
        ({"target_workers": 9}, "/target_workers"),
        ({"target_workers": 0}, "/target_workers"),
        ({"groups": {"Nobody": 1}}, "/groups/Nobody"),
        ({"groups": {"Packer": 6}}, "/groups/Packer"),
        ({"groups": {"Clerk": 2}}, "/groups/Clerk"),
        ({"groups": {"Packer": 5, "Driver": 3}}, "/groups"),
        ({"target_workers": 3, "groups": {"Packer": 5}}, "/target_workers"),
    ],
)
def test_what_cannot_be_scaled_is_refused_with_a_pointer(stage: Stage, command: dict[str, Any], pointer: str) -> None:
    cluster_id = stage.create()
    before = stage.cluster(cluster_id)
    with pytest.raises(InvalidInput) as raised:
        stage.submit(ScaleCluster(cluster_id=cluster_id, **command))
    assert [fault.pointer for fault in raised.value.faults] == [pointer]
    after = stage.cluster(cluster_id)
    assert (after.generation, after.group_targets) == (before.generation, before.group_targets)


def test_groups_are_named_by_name_or_slug_and_the_rest_follows_the_target(stage: Stage) -> None:
    cluster_id = stage.create()
    stage.submit(ScaleCluster(cluster_id=cluster_id, groups={"driver": 2}))
    assert stage.cluster(cluster_id).group_targets == {"Boss": 1, "Clerk": 1, "Packer": 1, "Driver": 2}
    stage.submit(ScaleCluster(cluster_id=cluster_id, target_workers=7, groups={"Driver": 1}))
    assert stage.cluster(cluster_id).group_targets == {"Boss": 1, "Clerk": 1, "Packer": 4, "Driver": 1}


def test_scaling_follows_what_waits(stage: Stage) -> None:
    cluster_id = stage.create()
    stage.redis.lpush(names.group_queue(cluster_id, "driver"), *["{}"] * 9)
    stage.submit(ScaleCluster(cluster_id=cluster_id, target_workers=5))
    assert stage.cluster(cluster_id).group_targets == {"Boss": 1, "Clerk": 1, "Packer": 0, "Driver": 3}


def test_narrower_bounds_move_the_target_with_them(stage: Stage) -> None:
    cluster_id = stage.create(target_workers=6)
    stage.submit(UpdateCluster(cluster_id=cluster_id, max_workers=4, name="New", tags=(), config={"a": 1}))
    cluster = stage.cluster(cluster_id)
    assert (cluster.target_workers, cluster.max_workers, cluster.name, cluster.tags) == (4, 4, "New", [])
    with pytest.raises(InvalidInput):
        stage.submit(UpdateCluster(cluster_id=cluster_id, min_workers=5))


@pytest.mark.parametrize("command", [ScaleCluster, UpdateCluster, HibernateCluster, ReactivateCluster, DestroyCluster])
def test_a_cluster_that_is_not_there_is_not_found(stage: Stage, command: type[Any]) -> None:
    with pytest.raises(NotFound):
        stage.submit(command(cluster_id="nobody"))


def test_every_command_is_judged_by_what_the_last_one_wants(stage: Stage) -> None:
    cluster_id = stage.create()
    with pytest.raises(Conflict) as raised:
        stage.submit(ReactivateCluster(cluster_id=cluster_id))
    assert raised.value.possible == ("update", "scale", "hibernate", "destroy", "rollout")
    stage.submit(HibernateCluster(cluster_id=cluster_id))
    with pytest.raises(Conflict):
        stage.submit(ScaleCluster(cluster_id=cluster_id, target_workers=4))
    stage.submit(DestroyCluster(cluster_id=cluster_id))
    for command in (ReactivateCluster(cluster_id=cluster_id), DestroyCluster(cluster_id=cluster_id)):
        with pytest.raises(Conflict, match="nothing more can be done"):
            stage.submit(command)


def test_a_guarded_command_gives_way_to_one_that_came_first(stage: Stage) -> None:
    cluster_id = stage.create()
    seen = stage.cluster(cluster_id).generation
    stage.submit(ScaleCluster(cluster_id=cluster_id, target_workers=5))
    for command in (
        ScaleCluster(cluster_id=cluster_id, groups={"Packer": 1}, if_generation=seen),
        HibernateCluster(cluster_id=cluster_id, if_generation=seen),
        DestroyCluster(cluster_id=cluster_id, if_generation=seen),
    ):
        with pytest.raises(Conflict, match="another command came first"):
            stage.submit(command)
    assert stage.cluster(cluster_id).target_workers == 5


def test_commands_at_once_are_one_after_the_other(stage: Stage) -> None:
    cluster_id = stage.create()
    before = stage.cluster(cluster_id).generation

    def scale(target: int) -> Operation:
        return stage.submit(ScaleCluster(cluster_id=cluster_id, target_workers=target))

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(scale, [2, 3, 4, 5, 6, 7]))
    cluster = stage.cluster(cluster_id)
    assert sorted(operation.generation for operation in made) == list(range(before + 1, before + 7))
    last = max(made, key=lambda operation: operation.generation)
    assert cluster.target_workers == last.request["target_workers"] == sum(cluster.group_targets.values())


# --- queued commands --------------------------------------------------------------------------------------------


def queued(message: str) -> Origin:
    return Origin("celery", "queued", message_id=message)


def test_a_message_that_comes_twice_is_one_operation(stage: Stage) -> None:
    arguments = {"blueprint_id": "shop", "name": "S"}
    with ThreadPoolExecutor(4) as pool:
        accepted = list(
            pool.map(lambda _: accept(stage.control, OperationKind.CREATE, (), arguments, queued("m-1")), range(4))
        )
    assert len({found["operation_id"] for found in accepted}) == 1
    assert {found["status"] for found in accepted} == {"accepted"}
    with stage.control.database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Cluster)) == 1


def test_an_invalid_queued_command_is_a_failed_operation_with_its_reason(stage: Stage) -> None:
    told = accept(stage.control, OperationKind.SCALE, (), {"cluster_id": "nobody", "target_workers": 3}, queued("m"))
    assert told["status"] == "failed"
    operation = stage.operation(uuid.UUID(told["operation_id"]))
    assert operation.status is OperationStatus.FAILED
    assert operation.error == {"type": "NotFound", "message": "there is no cluster 'nobody'"}
    wrong = accept(stage.control, OperationKind.CREATE, ("positional",), {}, queued("m2"))
    assert wrong["status"] == "failed"


def test_a_failed_message_that_comes_again_stays_failed(stage: Stage) -> None:
    arguments = {"blueprint_id": "later", "name": "S"}
    first = accept(stage.control, OperationKind.CREATE, (), arguments, queued("m"))
    blueprints.store(stage.control, SHOP.replace("id: shop", "id: later"))
    again = accept(stage.control, OperationKind.CREATE, (), arguments, queued("m"))
    assert (again["status"], again["operation_id"]) == ("failed", first["operation_id"])


def test_a_queued_command_says_every_fault(stage: Stage) -> None:
    with pytest.raises(InvalidInput) as raised:
        requests.parse_queued_command(OperationKind.SCALE, {"target_workers": True, "size": 3})
    assert {fault.pointer for fault in raised.value.faults} == {"/cluster_id", "/target_workers", "/size"}


# --- running operations -----------------------------------------------------------------------------------------


def test_an_operation_is_claimed_once_by_many_workers(stage: Stage) -> None:
    operation = stage.submit(CreateCluster(blueprint_id="shop", name="S"))
    with ThreadPoolExecutor(8) as pool:
        ours = list(pool.map(lambda _: stage.run(operation), range(8)))
    assert sum(ours) == 1
    assert operation.cluster_id is not None
    assert len(stage.agents(operation.cluster_id)) == 3
    assert stage.operation(operation).attempts == 1


def test_a_plan_makes_rows_that_know_their_place(stage: Stage) -> None:
    cluster_id = stage.create(target_workers=5)
    agents = stage.agents(cluster_id, AgentStatus.STARTING)
    by_group = {agent.group_name: agent for agent in agents}
    assert stage.groups(cluster_id) == {"Boss": 1, "Clerk": 1, "Packer": 2, "Driver": 1}
    assert by_group["Boss"].supervisor_id is None
    assert {agent.supervisor_id for agent in agents if agent.group_name != "Boss"} == {by_group["Boss"].id}
    assert len({agent.agent_id for agent in agents}) == 5
    assert stage.cluster(cluster_id).status is ClusterStatus.SPAWNING


def test_an_operation_succeeds_when_its_agents_are_there(stage: Stage) -> None:
    operation = stage.do(CreateCluster(blueprint_id="shop", name="S", id="s"))
    assert operation.status is OperationStatus.RUNNING
    stage.settle("s")
    operation, cluster = stage.operation(operation), stage.cluster("s")
    assert operation.status is OperationStatus.SUCCEEDED
    assert operation.result == {"status": "active", "current_workers": 3, "target_workers": 3}
    assert (cluster.status, cluster.current_workers, cluster.health_score) == (ClusterStatus.ACTIVE, 3, 1.0)
    assert cluster.started_at is not None


def test_an_operation_whose_agents_do_not_come_fails_by_its_deadline_and_says_why(stage: Stage) -> None:
    operation = stage.do(CreateCluster(blueprint_id="shop", name="S", id="s"))
    stage.earlier("operations", "deadline_at", 3600)
    stage.tick()
    operation = stage.operation(operation)
    assert operation.status is OperationStatus.FAILED
    assert operation.error is not None
    assert operation.error["type"] == "timeout"
    assert "0 of 3 agents were ready in time" in operation.error["message"]
    assert "No host took them" in operation.error["message"]
    stage.settle("s")
    assert stage.cluster("s").status is ClusterStatus.ACTIVE  # what was asked for is still made true


def test_a_worker_that_died_over_an_operation_is_followed_by_another(stage: Stage) -> None:
    operation = stage.submit(CreateCluster(blueprint_id="shop", name="S", id="s"))
    stage.sql("UPDATE operations SET status = 'running', lease_until = now() + interval '1 minute', attempts = 1")
    assert not stage.run(operation)
    stage.redis.flushdb()
    assert operations.sweep(stage.control) == 0
    stage.earlier("operations", "lease_until", 3600)
    assert operations.sweep(stage.control) == 1
    assert stage.redis.llen(names.LIFECYCLE_QUEUE) == 1
    assert stage.run(operation)
    assert stage.operation(operation).attempts == 2
    assert len(stage.agents("s")) == 3


def test_an_operation_that_was_not_delivered_is_published_again_once(stage: Stage) -> None:
    stage.submit(CreateCluster(blueprint_id="shop", name="S"))
    stage.redis.flushdb()
    assert operations.sweep(stage.control) == 0
    stage.earlier("operations", "published_at", 60)
    assert operations.sweep(stage.control) == 1
    assert operations.sweep(stage.control) == 0
    assert stage.redis.llen(names.LIFECYCLE_QUEUE) == 1


def test_an_operation_is_accepted_while_redis_is_away_and_delivered_later(stage: Stage, cut_off: Stage) -> None:
    operation = cut_off.submit(CreateCluster(blueprint_id="shop", name="S", id="s"))
    assert operation.status is OperationStatus.PENDING
    stage.earlier("operations", "published_at", 60)
    assert operations.sweep(stage.control) == 1
    assert stage.run(operation)


def test_a_later_command_that_wants_the_contrary_ends_the_earlier_one(stage: Stage) -> None:
    created = stage.do(CreateCluster(blueprint_id="shop", name="S", id="s"))
    slept = stage.do(HibernateCluster(cluster_id="s"))
    assert stage.operation(created).error == {
        "type": "superseded", "message": "a later command wants the cluster asleep",
    }  # fmt: skip
    assert stage.operation(slept).status is OperationStatus.SUCCEEDED  # no host had taken the agents yet
    woken = stage.submit(ReactivateCluster(cluster_id="s"))
    destroyed = stage.do(DestroyCluster(cluster_id="s"))
    assert stage.operation(destroyed).status is OperationStatus.SUCCEEDED
    assert stage.operation(woken).status is OperationStatus.FAILED
    assert not stage.run(woken)


def test_commands_of_one_direction_share_their_outcome(stage: Stage) -> None:
    cluster_id = stage.active()
    scales = [stage.do(ScaleCluster(cluster_id=cluster_id, target_workers=target)) for target in (5, 4)]
    stage.settle(cluster_id)
    assert [stage.operation(one).status for one in scales] == [OperationStatus.SUCCEEDED] * 2
    assert len(stage.agents(cluster_id)) == 4


def test_a_destruction_that_was_over_before_its_worker_came_still_ends(stage: Stage) -> None:
    cluster_id = stage.active()
    destroyed = stage.submit(DestroyCluster(cluster_id=cluster_id))
    with stage.control.database.transaction() as session:
        reconcile(session, cluster_id)  # a host that had news just then
    stage.settle(cluster_id)
    assert stage.cluster(cluster_id).status is ClusterStatus.DESTROYED
    assert stage.run(destroyed)
    assert stage.operation(destroyed).status is OperationStatus.SUCCEEDED


def test_reconciling_twice_does_nothing_twice(stage: Stage) -> None:
    cluster_id = stage.create()
    before = stage.agents(cluster_id)
    for _ in range(3):
        with stage.control.database.transaction() as session:
            followup = reconcile(session, cluster_id)
        assert (followup.wake, followup.purge) == (False, [])
    assert [agent.id for agent in stage.agents(cluster_id)] == [agent.id for agent in before]


def test_a_cluster_goes_through_its_statuses(stage: Stage) -> None:
    cluster_id = stage.active()
    stage.do(ScaleCluster(cluster_id=cluster_id, target_workers=5))
    assert stage.cluster(cluster_id).status is ClusterStatus.SCALING_UP
    stage.settle(cluster_id)
    stage.do(ScaleCluster(cluster_id=cluster_id, target_workers=3))
    assert stage.cluster(cluster_id).status is ClusterStatus.SCALING_DOWN
    assert len(stage.agents(cluster_id, AgentStatus.DRAINING)) == 2
    stage.settle(cluster_id)
    stage.do(HibernateCluster(cluster_id=cluster_id))
    stage.settle(cluster_id)
    asleep = stage.cluster(cluster_id)
    assert (asleep.status, asleep.current_workers, stage.agents(cluster_id)) == (ClusterStatus.HIBERNATED, 0, [])
    stage.do(ReactivateCluster(cluster_id=cluster_id))
    assert stage.cluster(cluster_id).status is ClusterStatus.SPAWNING
    stage.settle(cluster_id)
    stage.do(DestroyCluster(cluster_id=cluster_id))
    assert stage.cluster(cluster_id).status is ClusterStatus.DESTROYING
    stage.settle(cluster_id)
    assert stage.cluster(cluster_id).destroyed_at is not None
    with stage.control.database.transaction() as session:
        query = select(Event.data["to"].astext).where(Event.kind == "cluster.status").order_by(Event.id)
        assert list(session.scalars(query)) == [
            "spawning", "active", "scaling_up", "active", "scaling_down", "active", "scaling_down", "hibernated",
            "spawning", "active", "destroying", "destroyed",
        ]  # fmt: skip


def test_waking_restores_the_minimum_and_an_agent_wherever_a_job_waits(stage: Stage) -> None:
    cluster_id = stage.active()
    stage.do(HibernateCluster(cluster_id=cluster_id))
    stage.settle(cluster_id)
    stage.redis.lpush(names.group_queue(cluster_id, "driver"), "{}", "{}", "{}")
    stage.do(ReactivateCluster(cluster_id=cluster_id, groups={"Packer": 1}))
    assert stage.cluster(cluster_id).group_targets == {"Boss": 1, "Clerk": 1, "Packer": 1, "Driver": 1}


def test_destroying_fails_the_jobs_that_wait_and_empties_the_queues(stage: Stage) -> None:
    cluster_id = stage.active()
    job = stage.post(cluster_id, to="Clerk", payload={"secret": 1})
    assert stage.waiting(cluster_id, "clerk") == 1
    stage.do(DestroyCluster(cluster_id=cluster_id))
    stage.settle(cluster_id)
    found = stage.job(job.id)
    assert (found.status, found.payload) == (JobStatus.FAILED, None)
    assert found.error is not None
    assert found.error["type"] == "ClusterDestroyed"
    assert stage.waiting(cluster_id, "clerk") == 0
    with pytest.raises(Conflict):
        stage.post(cluster_id)


def test_what_is_sent_to_a_destroyed_cluster_is_swept_away(stage: Stage) -> None:
    cluster_id = stage.active()
    stage.do(DestroyCluster(cluster_id=cluster_id))
    stage.settle(cluster_id)
    stage.redis.lpush(names.group_queue(cluster_id, "packer"), "{}")
    metrics.prune(stage.control)
    assert stage.waiting(cluster_id, "packer") == 0


# --- the host's desk --------------------------------------------------------------------------------------------


def test_two_hosts_that_claim_at_once_never_take_the_same_and_none_takes_more_than_its_room(stage: Stage) -> None:
    for _ in range(5):
        stage.create(target_workers=8)
    desks = [stage.desk(f"host-{number}") for number in range(4)]

    def grab(desk: HostDesk) -> list[list[str]]:
        return [[spec.agent_id for spec in desk.claim(3)] for _ in range(5)]

    with ThreadPoolExecutor(4) as pool:
        found = [batch for batches in pool.map(grab, desks) for batch in batches]
    assert max(len(batch) for batch in found) <= 3
    # One may have left to another what that was to take, and which had looked for the last time.
    stage.earlier("cluster_agents", "spawned_at", 60)
    rest = [spec.agent_id for spec in desks[0].claim(40)]
    taken = [agent_id for batch in [*found, rest] for agent_id in batch]
    assert len(taken) == len(set(taken)) == 40


def test_a_host_is_told_what_to_run_and_how(stage: Stage) -> None:
    cluster_id = stage.create()
    desk = stage.desk()
    specs = {spec.group_name: spec for spec in desk.claim(10)}
    assert specs["Clerk"].queue == names.group_queue(cluster_id, "clerk")
    assert (specs["Clerk"].cluster_id, specs["Clerk"].capabilities) == (cluster_id, ("sums",))
    assert {wanted.spec.agent_id for wanted in desk.wanted()} == {spec.agent_id for spec in specs.values()}
    assert not any(wanted.draining for wanted in desk.wanted())


def test_ready_and_ended_may_be_told_twice(stage: Stage) -> None:
    cluster_id = stage.create()
    desk = stage.desk()
    agents = [spec.agent_id for spec in desk.claim(10)]
    for _ in range(2):
        desk.ready({agent_id: {"pid": 5, "started": "9"} for agent_id in agents})
    assert stage.cluster(cluster_id).status is ClusterStatus.ACTIVE
    assert stage.agents(cluster_id)[0].handle == {"pid": 5, "started": "9"}
    for _ in range(2):
        desk.ended([Ended(agents[0], asked=False, error="killed by SIGKILL")])
    assert len(stage.agents(cluster_id, AgentStatus.FAILED)) == 1
    assert len(stage.agents(cluster_id)) == 3
    assert stage.cluster(cluster_id).status is ClusterStatus.SCALING_UP
    desk.ready({agents[0]: {"pid": 6}, "nobody": {"pid": 7}})
    desk.ended([Ended("nobody", asked=False)])
    assert len(stage.agents(cluster_id, AgentStatus.FAILED)) == 1


def test_an_agent_that_dies_is_replaced_at_once_and_those_that_go_on_dying_ever_later(stage: Stage) -> None:
    cluster_id = stage.create()
    desk = stage.desk()
    desk.claim(10)
    delays = []
    for _ in range(4):
        [boss] = [agent for agent in stage.agents(cluster_id) if agent.group_name == "Boss"]
        desk.ended([Ended(boss.agent_id, asked=False, error="exited with 1")])
        [next_boss] = [agent for agent in stage.agents(cluster_id) if agent.group_name == "Boss"]
        delays.append(next_boss.not_before is not None)
    assert delays == [False, True, True, True]
    assert desk.claim(10) == []
    assert stage.cluster(cluster_id).health_score == 0.0
    stage.earlier("cluster_agents", "not_before", 3600)
    assert [spec.group_name for spec in desk.claim(10)] == ["Boss"]


def test_an_agent_that_drains_and_dies_has_left_as_asked(stage: Stage) -> None:
    cluster_id = stage.active()
    stage.do(HibernateCluster(cluster_id=cluster_id))
    draining = stage.agents(cluster_id, AgentStatus.DRAINING)
    stage.desk().ended([Ended(agent.agent_id, asked=False, error="killed by SIGKILL") for agent in draining])
    assert stage.agents(cluster_id, AgentStatus.FAILED) == []
    assert stage.cluster(cluster_id).status is ClusterStatus.HIBERNATED


def by_autoscaler(stage: Stage, cluster_id: str, **groups: int) -> Operation:
    """Scale as the autoscaler does, and run it."""
    operation = stage.submit(ScaleCluster(cluster_id=cluster_id, groups=groups), Origin(AUTOSCALER, "few jobs"))
    assert stage.run(operation)
    return stage.operation(operation)


def with_packers(stage: Stage, count: int) -> str:
    """Return a cluster with so many packers and no driver, of a blueprint that the ticks here leave as it is."""
    thresholds = "scale_up_threshold: 2, scale_down_threshold: 1"
    text = SHOP.replace("id: shop", "id: steady").replace(
        thresholds, "scale_up_threshold: 100000, scale_down_threshold: 0"
    )
    blueprints.store(stage.control, text)
    cluster_id = stage.active(blueprint_id="steady")
    stage.do(ScaleCluster(cluster_id=cluster_id, groups={"Packer": count, "Driver": 0}))
    stage.settle(cluster_id)
    return cluster_id


def work(stage: Stage, *agents: Agent) -> None:
    """Have agents hold a job each, and a tick see it."""
    for agent in agents:
        stage.redis.hset(names.unacked_key(agent.agent_id), "tag", "{}")
    stage.beat(*agents, in_flight=1, state="busy")
    stage.tick()


def packers(stage: Stage, cluster_id: str, *statuses: AgentStatus) -> list[Agent]:
    return [agent for agent in stage.agents(cluster_id, *statuses) if agent.group_name == "Packer"]


def test_a_scale_up_undoes_drains_before_it_starts_agents(stage: Stage) -> None:
    cluster_id = stage.active(target_workers=6)
    before = {agent.agent_id for agent in stage.agents(cluster_id)}
    stage.do(ScaleCluster(cluster_id=cluster_id, target_workers=3))
    assert len(stage.agents(cluster_id, AgentStatus.DRAINING)) == 3
    up = stage.do(ScaleCluster(cluster_id=cluster_id, target_workers=6))
    assert {agent.agent_id for agent in stage.agents(cluster_id)} == before
    assert stage.groups(cluster_id, AgentStatus.IDLE) == {"Boss": 1, "Clerk": 1, "Packer": 2, "Driver": 2}
    assert not any(agent.draining_at for agent in stage.agents(cluster_id))
    assert not any(wanted.draining for wanted in stage.desk().wanted())
    assert stage.operation(up).status is OperationStatus.SUCCEEDED
    assert stage.cluster(cluster_id).status is ClusterStatus.ACTIVE


def test_a_cluster_that_is_woken_while_it_falls_asleep_keeps_its_agents(stage: Stage) -> None:
    cluster_id = stage.active()
    before = {agent.agent_id for agent in stage.agents(cluster_id)}
    slept = stage.do(HibernateCluster(cluster_id=cluster_id))
    assert len(stage.agents(cluster_id, AgentStatus.DRAINING)) == 3
    woken = stage.do(ReactivateCluster(cluster_id=cluster_id, groups={"Packer": 1}))
    assert stage.operation(slept).status is OperationStatus.FAILED
    assert {agent.agent_id for agent in stage.agents(cluster_id)} == before
    assert stage.operation(woken).status is OperationStatus.SUCCEEDED
    assert stage.cluster(cluster_id).status is ClusterStatus.ACTIVE


def test_an_agent_that_was_just_leaving_when_its_drain_was_undone_is_replaced_without_a_failure(stage: Stage) -> None:
    cluster_id = stage.active()
    stage.do(ScaleCluster(cluster_id=cluster_id, target_workers=2))
    [leaving] = stage.agents(cluster_id, AgentStatus.DRAINING)
    stage.do(ScaleCluster(cluster_id=cluster_id, target_workers=3))
    stage.desk().ended([Ended(leaving.agent_id, asked=True)])
    assert stage.agents(cluster_id, AgentStatus.FAILED) == []
    [replacement] = stage.agents(cluster_id, AgentStatus.STARTING)
    assert replacement.not_before is None
    assert replacement.group_name == leaving.group_name


def test_an_agent_that_has_left_before_its_drain_is_undone_stays_ended(stage: Stage) -> None:
    cluster_id = stage.active()
    stage.do(ScaleCluster(cluster_id=cluster_id, target_workers=2))
    [leaving] = stage.agents(cluster_id, AgentStatus.DRAINING)
    stage.desk().ended([Ended(leaving.agent_id, asked=True)])
    stage.do(ScaleCluster(cluster_id=cluster_id, target_workers=3))
    assert stage.agents(cluster_id, AgentStatus.STOPPED)[0].agent_id == leaving.agent_id
    assert len(stage.agents(cluster_id, AgentStatus.STARTING)) == 1


def test_agents_that_drain_before_they_were_ready_are_gone_for_good(stage: Stage) -> None:
    cluster_id = stage.create()
    stage.desk().claim(10)
    stage.do(ScaleCluster(cluster_id=cluster_id, target_workers=2))
    [leaving] = stage.agents(cluster_id, AgentStatus.DRAINING)
    stage.do(ScaleCluster(cluster_id=cluster_id, target_workers=3))
    assert stage.agents(cluster_id, AgentStatus.DRAINING)[0].agent_id == leaving.agent_id
    assert len(stage.agents(cluster_id, AgentStatus.STARTING)) == 3


def test_an_agent_that_is_being_killed_for_its_late_drain_is_not_told_to_go_on(stage: Stage) -> None:
    text = SHOP.replace("id: shop", "id: hasty").replace(
        "cooldown_period: 0", "cooldown_period: 0, scale_down: {drain_timeout: 1 minute, on_timeout: stop}"
    )
    blueprints.store(stage.control, text)
    cluster_id = stage.active(blueprint_id="hasty", target_workers=4)
    stage.do(ScaleCluster(cluster_id=cluster_id, target_workers=2))
    late, fair = sorted(agent.agent_id for agent in stage.agents(cluster_id, AgentStatus.DRAINING))
    stage.sql(f"UPDATE cluster_agents SET draining_at = now() - interval '61 s' WHERE agent_id = '{late}'")
    stage.do(ScaleCluster(cluster_id=cluster_id, target_workers=4))
    assert [agent.agent_id for agent in stage.agents(cluster_id, AgentStatus.DRAINING)] == [late]
    assert fair in {agent.agent_id for agent in stage.agents(cluster_id, AgentStatus.IDLE)}
    assert len(stage.agents(cluster_id, AgentStatus.STARTING)) == 1


def test_a_person_may_let_busy_agents_leave_when_they_are_done(stage: Stage) -> None:
    cluster_id = with_packers(stage, 3)
    work(stage, *packers(stage, cluster_id))
    stage.do(ScaleCluster(cluster_id=cluster_id, groups={"Packer": 1}))
    assert len(packers(stage, cluster_id, AgentStatus.DRAINING)) == 2


def test_another_name_lets_no_busy_agent_leave_that_the_autoscaler_waits_for(stage: Stage) -> None:
    cluster_id = with_packers(stage, 3)
    work(stage, *packers(stage, cluster_id))
    by_autoscaler(stage, cluster_id, Packer=1)
    stage.do(UpdateCluster(cluster_id=cluster_id, name="Another name"))
    assert packers(stage, cluster_id, AgentStatus.DRAINING) == []
    stage.do(UpdateCluster(cluster_id=cluster_id, max_workers=7))
    assert len(packers(stage, cluster_id, AgentStatus.DRAINING)) == 2


def test_the_autoscaler_waits_for_busy_agents_and_its_operation_with_it(stage: Stage) -> None:
    cluster_id = with_packers(stage, 3)
    first, second, third = packers(stage, cluster_id)
    work(stage, first, second)
    down = by_autoscaler(stage, cluster_id, Packer=0)
    assert [agent.agent_id for agent in packers(stage, cluster_id, AgentStatus.DRAINING)] == [third.agent_id]
    assert stage.cluster(cluster_id).status is ClusterStatus.SCALING_DOWN
    stage.settle(cluster_id)
    stage.earlier("operations", "deadline_at", 3600)
    work(stage, first, second)
    assert stage.operation(down).status is OperationStatus.RUNNING
    # One is done: the next tick but one lets it go.
    stage.redis.delete(names.unacked_key(first.agent_id))
    stage.beat(first)
    stage.tick()
    stage.tick()
    assert [agent.agent_id for agent in packers(stage, cluster_id, AgentStatus.DRAINING)] == [first.agent_id]
    assert [agent.agent_id for agent in packers(stage, cluster_id, AgentStatus.BUSY)] == [second.agent_id]
    # A person's word counts more.
    stage.do(HibernateCluster(cluster_id=cluster_id))
    assert packers(stage, cluster_id, AgentStatus.BUSY) == []


def test_agents_that_still_finish_do_not_fail_the_operation_that_starts_others(stage: Stage) -> None:
    cluster_id = with_packers(stage, 2)
    work(stage, *packers(stage, cluster_id))
    by_autoscaler(stage, cluster_id, Packer=1)
    up = by_autoscaler(stage, cluster_id, Driver=1)
    stage.settle(cluster_id)
    stage.earlier("operations", "deadline_at", 3600)
    stage.tick()
    assert stage.operation(up).status is OperationStatus.RUNNING
    for agent in packers(stage, cluster_id):
        stage.redis.delete(names.unacked_key(agent.agent_id))
        stage.beat(agent)
    stage.tick()
    stage.tick()
    stage.settle(cluster_id)
    assert stage.operation(up).status is OperationStatus.SUCCEEDED
    assert stage.groups(cluster_id) == {"Boss": 1, "Clerk": 1, "Packer": 1, "Driver": 1}


def test_agents_that_no_host_has_taken_are_not_started_to_be_drained(stage: Stage) -> None:
    cluster_id = stage.create()
    stage.do(ScaleCluster(cluster_id=cluster_id, target_workers=2))
    assert stage.groups(cluster_id) == {"Boss": 1, "Clerk": 1}
    assert stage.agents(cluster_id, AgentStatus.DRAINING) == []


def test_a_host_that_leaves_gives_back_what_it_did_not_start(stage: Stage) -> None:
    stage.create()
    desk = stage.desk("leaving")
    desk.beat({})
    assert stage.redis.exists(names.host_key("leaving"))
    taken = {spec.agent_id for spec in desk.claim(10)}
    desk.leave()
    assert not stage.redis.exists(names.host_key("leaving"))
    assert {spec.agent_id for spec in stage.desk("staying").claim(10)} == taken


def test_what_a_dead_agent_held_is_back_in_its_queue(stage: Stage) -> None:
    cluster_id = stage.active()
    stage.post(cluster_id, to="Clerk")
    [clerk] = [agent for agent in stage.agents(cluster_id) if agent.group_name == "Clerk"]
    queue = names.group_queue(cluster_id, "clerk")
    stage.redis.lmove(queue, names.claim_key(clerk.agent_id), "RIGHT", "LEFT")
    stage.desk().release(clerk.agent_id)
    assert stage.waiting(cluster_id, "clerk") == 1


def test_what_a_dead_lifecycle_worker_held_is_back_in_the_queue(stage: Stage) -> None:
    stage.submit(CreateCluster(blueprint_id="shop", name="S"))
    stage.redis.lmove(names.LIFECYCLE_QUEUE, names.claim_key("worker.h.1"), "RIGHT", "LEFT")
    stage.redis.sadd(names.WORKERS_SET, "worker.h.1")
    stage.redis.set(names.beat_key("worker.h.1"), "worker")
    assert workers.release_dead(stage.control) == 0
    stage.redis.delete(names.beat_key("worker.h.1"))
    assert workers.release_dead(stage.control) == 1
    assert stage.redis.llen(names.LIFECYCLE_QUEUE) == 1


# --- jobs -------------------------------------------------------------------------------------------------------


def test_a_job_goes_to_a_group_a_capability_or_the_supervisor(stage: Stage) -> None:
    cluster_id = stage.active()
    sent = [stage.post(cluster_id, **to) for to in ({"to": "packer"}, {"capability": "sums"}, {})]
    assert [job.group_name for job in sent] == ["Packer", "Clerk", "Boss"]
    for wrong, pointer in (({"to": "Nobody"}, "/to"), ({"capability": "magic"}, "/capability")):
        with pytest.raises(InvalidInput) as raised:
            stage.post(cluster_id, **wrong)
        assert [fault.pointer for fault in raised.value.faults] == [pointer]
    with pytest.raises(NotFound):
        stage.post("nobody")


def test_a_job_for_a_group_of_none_starts_its_first_agent(stage: Stage) -> None:
    cluster_id = stage.active(target_workers=2)
    stage.post(cluster_id, to="Driver")
    assert stage.cluster(cluster_id).group_targets == {"Boss": 1, "Clerk": 1, "Packer": 0, "Driver": 1}


def test_a_job_for_a_sleeping_cluster_wakes_it(stage: Stage) -> None:
    cluster_id = stage.active()
    stage.do(HibernateCluster(cluster_id=cluster_id))
    stage.settle(cluster_id)
    stage.post(cluster_id, to="Packer")
    cluster = stage.cluster(cluster_id)
    assert (cluster.intent, cluster.group_targets["Packer"]) == (Intent.RUNNING, 1)


def test_jobs_are_accepted_while_redis_is_away_and_delivered_later(stage: Stage, cut_off: Stage) -> None:
    cluster_id = stage.active()
    job = cut_off.post(cluster_id, to="Clerk", payload=1)
    assert stage.job(job.id).published_at is None
    assert outcomes.sweep(stage.control, {}) == 0
    stage.earlier("jobs", "created_at", 60)
    assert outcomes.sweep(stage.control, {}) == 1
    assert outcomes.sweep(stage.control, {}) == 0
    assert stage.waiting(cluster_id, "clerk") == 1


def headers(stage: Stage, cluster_id: str, group: str = "clerk") -> list[dict[str, Any]]:
    """Return the headers of what waits in a group's list, the next first."""
    entries: Any = stage.redis.lrange(names.group_queue(cluster_id, group), 0, -1)
    return [json.loads(entry)["headers"] for entry in reversed(entries)]


def test_a_job_for_later_waits_in_postgresql_and_wakes_nobody(stage: Stage) -> None:
    cluster_id = stage.active()
    stage.do(HibernateCluster(cluster_id=cluster_id))
    stage.settle(cluster_id)
    soon, late = stage.post(cluster_id, to="Clerk", delay="90 s"), stage.post(cluster_id, to="Clerk", delay=7200)
    packed = stage.post(cluster_id, to="Packer", delay="1 day")
    stage.earlier("jobs", "created_at", 60)
    stage.tick()
    assert stage.cluster(cluster_id).intent is Intent.ASLEEP
    assert stage.waiting(cluster_id, "clerk") == 0
    assert soon.eta is not None
    assert packed.eta is not None
    with stage.control.database.transaction() as session:
        due = {key: found.due_at for key, found in scheduled.waiting(session).items()}
    assert due == {(cluster_id, "Clerk"): soon.eta.timestamp(), (cluster_id, "Packer"): packed.eta.timestamp()}
    assert outcomes.sweep(stage.control, {}) == 0
    assert stage.job(late.id).published_at is None


def test_jobs_are_published_shortly_before_they_are_due_and_say_when(stage: Stage) -> None:
    cluster_id = stage.active()
    soon, late = stage.post(cluster_id, to="Clerk", delay="50 s"), stage.post(cluster_id, to="Clerk", delay=7200)
    assert scheduled.publish_due(stage.control, 10) == 0
    assert scheduled.publish_due(stage.control, 60) == 1
    assert scheduled.publish_due(stage.control, 60) == 0
    [sent] = headers(stage, cluster_id)
    assert soon.eta is not None
    assert (sent["id"], datetime.fromisoformat(sent["eta"])) == (soon.id, soon.eta)
    assert sent[names.PUBLISHED_HEADER] == soon.eta.timestamp()
    assert stage.job(soon.id).published_at is not None
    assert stage.job(late.id).published_at is None
    depth = backlog.read(stage.redis, [names.group_queue(cluster_id, "clerk")], [])
    assert [(found.length, found.held) for found in depth.queues.values()] == [(0, 1)]


def test_a_job_whose_time_has_come_is_published_as_a_plain_one(stage: Stage, cut_off: Stage) -> None:
    cluster_id = stage.active()
    late, now = stage.post(cluster_id, to="Clerk", delay=60), cut_off.post(cluster_id, to="Clerk", delay=0)
    stage.earlier("jobs", "eta", 90)
    with pytest.raises(TemporaryError):
        scheduled.publish_due(cut_off.control, 0)
    assert scheduled.publish_due(stage.control, 0) == 2
    assert [(sent["id"], sent["eta"]) for sent in headers(stage, cluster_id)] == [(now.id, None), (late.id, None)]


def test_two_that_publish_at_once_publish_each_job_once(stage: Stage) -> None:
    cluster_id = stage.active()
    stage.post(cluster_id, to="Clerk", delay=60)
    stage.sql(
        "INSERT INTO jobs (id, cluster_id, group_name, status, attempts, eta) SELECT 'many-' || n, :id, 'Clerk',"
        " 'queued', 0, now() + make_interval(secs => n / 100.0) FROM generate_series(1, 4500) AS n",
        id=cluster_id,
    )
    with ThreadPoolExecutor(3) as pool:
        counts = list(pool.map(lambda _: scheduled.publish_due(stage.control, 100), range(3)))
    rest = scheduled.publish_due(stage.control, 100)
    assert sum(counts) + rest == 4501
    ids = [sent["id"] for sent in headers(stage, cluster_id)]
    assert (len(ids), len(set(ids))) == (4501, 4501)
    with stage.control.database.transaction() as session:
        assert scheduled.waiting(session) == {}


@pytest.mark.parametrize("new", [{"eta": "2999-01-01T00:00:00Z"}, {"delay": "366 days"}, {"eta": "soon"}])
def test_a_time_that_cannot_be_kept_is_refused(stage: Stage, new: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        stage.post(stage.active(), **new)


def test_a_job_that_waits_in_redis_for_its_time_is_not_lost(stage: Stage) -> None:
    cluster_id = stage.active()
    job = stage.post(cluster_id, to="Clerk", delay=50)
    assert scheduled.publish_due(stage.control, 60) == 1
    stage.earlier("jobs", "published_at", 3600)
    for _ in range(2):
        stage.tick()
        assert stage.redis.zcard(names.eta_key(names.group_queue(cluster_id, "clerk"))) == 1
        assert stage.waiting(cluster_id, "clerk") == 0
    stage.redis.flushdb()
    stage.tick()
    assert stage.waiting(cluster_id, "clerk") == 0  # not due: nobody misses it
    stage.earlier("jobs", "eta", 55)
    stage.tick()
    assert stage.waiting(cluster_id, "clerk") == 0  # due for 5 s
    stage.earlier("jobs", "eta", 10)
    stage.tick()
    assert [sent["id"] for sent in headers(stage, cluster_id)] == [job.id]


def test_a_group_with_parked_messages_is_not_idle(stage: Stage) -> None:
    cluster_id = stage.active()
    job = stage.post(cluster_id, to="Clerk")
    queue = names.group_queue(cluster_id, "clerk")
    stage.redis.zadd(names.eta_key(queue), {str(stage.redis.rpop(queue)): time.time() + 60})
    stage.earlier("jobs", "published_at", 3600)
    stage.tick()
    assert stage.waiting(cluster_id, "clerk") == 0
    stage.redis.delete(names.eta_key(queue))
    stage.tick()
    assert [sent["id"] for sent in headers(stage, cluster_id)] == [job.id]


def test_destroying_a_cluster_fails_the_jobs_that_wait_for_their_time(stage: Stage) -> None:
    cluster_id = stage.active()
    waits, parked = stage.post(cluster_id, to="Clerk", delay=7200), stage.post(cluster_id, to="Clerk", delay=60)
    assert scheduled.publish_due(stage.control, 90) == 1
    stage.tick()
    queue = names.group_queue(cluster_id, "clerk")
    assert stage.redis.exists(names.eta_key(queue))
    stage.do(DestroyCluster(cluster_id=cluster_id))
    stage.settle(cluster_id)
    for job in (waits, parked):
        assert stage.job(job.id).status is JobStatus.FAILED
    assert not stage.redis.exists(names.eta_key(queue))
    assert scheduled.publish_due(stage.control, 10_000) == 0


def reported(stage: Stage, job_id: str, cluster_id: str, status: JobStatus = JobStatus.SUCCEEDED, **rest: Any) -> None:
    """Record an outcome as an agent does."""
    given = {"group_name": "Clerk", "agent_id": "a", "attempts": 1, "started_at": 1.7e9, "finished_at": 1.7e9 + 2}
    JobRecords(stage.redis).finish(JobReport(id=job_id, cluster_id=cluster_id, status=status, **{**given, **rest}))


def test_outcomes_are_stored_and_counted_once(stage: Stage) -> None:
    cluster_id = stage.active()
    done, failed = stage.post(cluster_id, to="Clerk", payload=1), stage.post(cluster_id, to="Clerk")
    for _ in range(2):
        reported(stage, done.id, cluster_id, result={"sum": 3})
    reported(stage, failed.id, cluster_id, JobStatus.FAILED, error={"type": "E", "message": "m"})
    reported(stage, "of-another-client", cluster_id, result=None)
    reported(stage, "of-nobody", "no-such-cluster")
    stored = stage.redis.xrange(names.FINISHED_STREAM)
    assert outcomes.collect(stage.control) == 4
    for _, entry in stored:  # type: ignore[union-attr]
        stage.redis.xadd(names.FINISHED_STREAM, entry)  # a collector died before it forgot them
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: outcomes.collect(stage.control), range(3)))
    cluster = stage.cluster(cluster_id)
    assert (cluster.tasks_completed, cluster.tasks_failed) == (2, 1)
    found = stage.job(done.id)
    assert (found.status, found.result, found.payload) == (JobStatus.SUCCEEDED, {"sum": 3}, None)
    assert jobs.get(stage.control, "of-another-client").group_name == "Clerk"
    assert stage.redis.xlen(names.FINISHED_STREAM) == 0


def test_a_running_job_is_seen_in_its_agents_record(stage: Stage) -> None:
    cluster_id = stage.active()
    job = stage.post(cluster_id, to="Clerk")
    assert JobRecords(stage.redis).begin(job.id, "agent-7").attempt == 1
    found = jobs.get(stage.control, job.id)
    assert (found.status, found.agent_id, found.attempts) == (JobStatus.RUNNING, "agent-7", 1)
    with pytest.raises(NotFound):
        jobs.get(stage.control, "nobody")


def test_jobs_that_redis_lost_are_published_again_and_finished_ones_are_not(stage: Stage) -> None:
    cluster_id = stage.active()
    lost, finished = stage.post(cluster_id, to="Clerk", payload="x"), stage.post(cluster_id, to="Clerk")
    stage.redis.flushdb()
    reported(stage, finished.id, cluster_id)
    stage.redis.delete(names.FINISHED_STREAM)  # the record is there, its announcement is not
    stage.beat(*stage.agents(cluster_id))
    stage.tick()
    assert stage.waiting(cluster_id, "clerk") == 0  # too young to be called lost
    stage.earlier("jobs", "published_at", 60)
    stage.tick()
    entries: Any = stage.redis.lrange(names.group_queue(cluster_id, "clerk"), 0, -1)
    assert [json.loads(entry)["headers"]["id"] for entry in entries] == [lost.id]
    assert stage.job(finished.id).status is JobStatus.SUCCEEDED
    stage.tick()
    assert stage.waiting(cluster_id, "clerk") == 1


def test_a_job_that_still_waits_is_not_published_again(stage: Stage) -> None:
    cluster_id = stage.active()
    stage.post(cluster_id, to="Clerk")
    stage.earlier("jobs", "published_at", 3600)
    stage.tick()
    assert stage.waiting(cluster_id, "clerk") == 1


# --- the tick ---------------------------------------------------------------------------------------------------


def test_two_beats_at_once_make_one_tick(stage: Stage) -> None:
    with ThreadPoolExecutor(4) as pool:
        ran = list(pool.map(lambda _: autoscale.tick(stage.control), range(4)))
    assert sum(ran) == 1


def test_the_tick_sees_who_works_and_how_much(stage: Stage) -> None:
    cluster_id = stage.active()
    clerk = next(agent for agent in stage.agents(cluster_id) if agent.group_name == "Clerk")
    stage.redis.hset(names.unacked_key(clerk.agent_id), "tag", "m")
    stage.beat(clerk, completed=4, failed=1, service_time=0.25)
    stage.tick()
    busy = stage.agents(cluster_id, AgentStatus.BUSY)
    assert [(agent.agent_id, agent.tasks_completed, agent.tasks_failed) for agent in busy] == [(clerk.agent_id, 4, 1)]
    assert busy[0].avg_task_duration == 0.25
    assert stage.cluster(cluster_id).load_percentage == pytest.approx(33.3)


def test_the_tick_scales_a_group_whose_jobs_wait_and_keeps_its_inputs(stage: Stage) -> None:
    cluster_id = stage.active()
    stage.redis.lpush(names.group_queue(cluster_id, "packer"), *["{}"] * 20)
    stage.tick()
    assert stage.cluster(cluster_id).group_targets == {"Boss": 1, "Clerk": 1, "Packer": 4, "Driver": 0}
    with stage.control.database.transaction() as session:
        accepted = session.scalars(
            select(Event).where(Event.kind == "operation.accepted", Event.actor == "autoscaler")
        ).one()
    assert "Packer: 20 waiting and 0 running jobs: up from 1 to 4" in accepted.reason
    assert accepted.data["signals"]["Packer"]["ready"] == 20
    before = stage.cluster(cluster_id).generation
    stage.tick()
    assert stage.cluster(cluster_id).generation == before


def test_the_tick_wakes_a_sleeping_cluster_for_a_job_of_a_plain_celery_client(stage: Stage, redis_url: str) -> None:
    cluster_id = stage.active()
    stage.do(HibernateCluster(cluster_id=cluster_id))
    stage.settle(cluster_id)
    stage.tick()
    assert stage.cluster(cluster_id).intent is Intent.ASLEEP
    plain = Celery(broker=redis_url, set_as_current=False)
    plain.send_task(names.JOB_TASK, [{"n": 1}], queue=names.group_queue(cluster_id, "packer"))
    plain.close()
    stage.tick()
    cluster = stage.cluster(cluster_id)
    assert (cluster.intent, cluster.group_targets["Packer"]) == (Intent.RUNNING, 1)


def test_jobs_that_waited_when_sleep_was_asked_for_do_not_wake_the_cluster(stage: Stage) -> None:
    cluster_id = stage.active()
    queue = names.group_queue(cluster_id, "packer")
    stage.redis.lpush(queue, "{}", "{}")
    stage.do(HibernateCluster(cluster_id=cluster_id))
    stage.settle(cluster_id)
    stage.tick()
    assert stage.cluster(cluster_id).intent is Intent.ASLEEP
    stage.redis.lpush(queue, "{}")
    stage.tick()
    assert stage.cluster(cluster_id).intent is Intent.RUNNING


def test_an_idle_cluster_sleeps_by_its_rules_and_not_while_a_beat_is_missing(stage: Stage) -> None:
    cluster_id = stage.active()
    stage.tick()
    assert stage.cluster(cluster_id).intent is Intent.RUNNING
    for column in ("last_active", "scaled_at", "created_at"):
        stage.earlier("clusters", column, 7200)
    agents = stage.agents(cluster_id)
    stage.redis.delete(*(names.beat_key(agent.agent_id) for agent in agents))
    stage.tick()
    assert stage.cluster(cluster_id).intent is Intent.RUNNING
    stage.beat(*agents)
    stage.tick()
    assert stage.cluster(cluster_id).intent is Intent.ASLEEP


def test_a_cluster_that_slept_for_long_is_destroyed_by_its_rules(stage: Stage) -> None:
    cluster_id = stage.active()
    stage.do(HibernateCluster(cluster_id=cluster_id))
    stage.settle(cluster_id)
    stage.earlier("clusters", "hibernated_at", 6 * 86_400)
    stage.tick()
    assert stage.cluster(cluster_id).intent is Intent.ASLEEP
    stage.earlier("clusters", "hibernated_at", 2 * 86_400)
    stage.tick()
    assert stage.cluster(cluster_id).intent is Intent.GONE


def test_with_redis_away_a_tick_decides_nothing(stage: Stage, cut_off: Stage) -> None:
    cluster_id = stage.active(target_workers=6)
    for column in ("last_active", "scaled_at", "created_at"):
        stage.earlier("clusters", column, 7200)
    before = stage.cluster(cluster_id).generation
    assert cut_off.tick()
    cluster = stage.cluster(cluster_id)
    assert (cluster.generation, cluster.intent, cluster.target_workers) == (before, Intent.RUNNING, 6)


def test_with_postgresql_away_everything_says_to_try_again(settings: Settings) -> None:
    away = replace(settings, database_url=f"postgresql+psycopg2://brain@127.0.0.1:{free_port()}/none")
    control = Control.open(away, application="away")
    with pytest.raises(TemporaryError):
        autoscale.tick(control)
    with pytest.raises(TemporaryError):
        lifecycle.submit(control, CreateCluster(blueprint_id="shop", name="S"), ORIGIN)
    control.close()


def test_a_beat_that_makes_no_sense_stops_no_tick(stage: Stage) -> None:
    cluster_id = stage.active()
    first, *_ = stage.agents(cluster_id)
    stage.redis.set(names.beat_key(first.agent_id), '{"completed": "many"}')
    stage.redis.lpush(names.group_queue(cluster_id, "packer"), '{"brain_published_at": 1.2.3}', *["{}"] * 20)
    stage.tick()
    assert stage.cluster(cluster_id).group_targets["Packer"] > 1


# --- metrics ----------------------------------------------------------------------------------------------------


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """Yield a list that fills with every statement that is sent meanwhile."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


def test_metrics_are_written_in_bulk_and_pruned_by_age(stage: Stage) -> None:
    clusters = [stage.active() for _ in range(3)]
    with statements(stage.control.database.engine) as seen:
        stage.tick()
    assert sum("INSERT INTO cluster_metrics" in statement for statement in seen) == 1
    with stage.control.database.transaction() as session:
        rows = session.scalars(select(Metrics)).all()
    assert {row.cluster_id for row in rows} == set(clusters)
    assert {(row.active_agents, row.queue_length, row.cpu_usage) for row in rows} == {(3, 0, 6.0)}
    old = "UPDATE cluster_metrics SET timestamp = now() - interval '8 days' WHERE cluster_id = :one"
    stage.sql(old, one=clusters[0])
    metrics.prune(stage.control)
    with stage.control.database.transaction() as session:
        assert set(session.scalars(select(Metrics.cluster_id))) == set(clusters[1:])


def test_pruning_keeps_what_is_young_or_unfinished(stage: Stage) -> None:
    cluster_id = stage.active()
    waiting, done = stage.post(cluster_id, to="Clerk"), stage.post(cluster_id, to="Clerk")
    reported(stage, done.id, cluster_id)
    outcomes.collect(stage.control)
    for table, column in (("jobs", "created_at"), ("jobs", "finished_at"), ("events", "at")):
        stage.earlier(table, column, 400 * 86_400)
    live = len(stage.agents(cluster_id))
    metrics.prune(stage.control)
    assert stage.job(waiting.id).status is JobStatus.QUEUED
    assert len(stage.agents(cluster_id)) == live
    with stage.control.database.transaction() as session:
        assert session.get(Job, done.id) is None
        assert session.scalar(select(func.count()).select_from(Event)) == 0


def test_a_followup_may_be_acted_on_twice(stage: Stage) -> None:
    cluster_id = stage.create()
    stage.submit(DestroyCluster(cluster_id=cluster_id))
    with stage.control.database.transaction() as session:
        followup = reconcile(session, cluster_id)
    assert followup.purge == [names.group_queue(cluster_id, group) for group in ("boss", "clerk", "packer", "driver")]
    for _ in range(2):
        act(stage.control, followup)


def test_a_longer_polling_interval_makes_the_tick_pass_a_cluster_by(stage: Stage) -> None:
    slow = SHOP.replace("id: shop", "id: slow").replace(
        "cooldown_period: 0", "cooldown_period: 0, polling_interval: 60"
    )
    blueprints.store(stage.control, slow)
    cluster_id = stage.active(blueprint_id="slow")
    stage.redis.lpush(names.group_queue(cluster_id, "packer"), "{}", "{}")
    stage.tick()
    before = stage.cluster(cluster_id).target_workers
    stage.redis.lpush(names.group_queue(cluster_id, "packer"), *["{}"] * 20)
    stage.tick()
    assert stage.cluster(cluster_id).target_workers == before
    kept = memory.load(stage.control.broker)
    kept.of(cluster_id).looked_at -= 60
    memory.save(stage.control.broker, kept)
    stage.tick()
    assert stage.cluster(cluster_id).target_workers > before
