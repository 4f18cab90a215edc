"""Rollouts on a real PostgreSQL and a real Redis, with the tests at the host's desk."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import yaml
from flask.testing import FlaskClient
from sqlalchemy import select, text

from brain_clusters.db.models import Agent, Event, Operation, Rollout
from brain_clusters.domain.commands import (
    DestroyCluster,
    HibernateCluster,
    ReactivateCluster,
    RolloutCluster,
    ScaleCluster,
    UpdateCluster,
)
from brain_clusters.domain.states import (
    ROLLOUTS_UNDER_WAY,
    AgentStatus,
    ClusterStatus,
    JobStatus,
    OperationStatus,
    RolloutStatus,
)
from brain_clusters.errors import Conflict, InvalidInput, NotFound
from brain_clusters.genesis.desk import Ended
from brain_clusters.services import blueprints, explain, lifecycle, operations, rollouts
from brain_clusters.services.reconcile import reconcile_each

from .stage import SHOP, Stage

PACKER = 2  # the place of the group in the blueprint
READY_STATUSES = (AgentStatus.IDLE, AgentStatus.BUSY)


def shop(version: str, change: Callable[[dict[str, Any]], None] | None = None) -> str:
    """Return another version of the blueprint of the stage. Without a change all its Packers differ."""
    document = yaml.safe_load(SHOP)
    document["metadata"] |= {"id": "depot", "version": version}
    document["rollout"] = {"min_healthy_time": 0, "max_parallel": 1}
    if change is None:
        document["agents"][PACKER]["config"] = {"version": version}
    else:
        change(document)
    return str(yaml.safe_dump(document, sort_keys=False))


@pytest.fixture
def packing(stage: Stage) -> str:
    """An active cluster of version 1 with a Boss, a Clerk and three Packers; version 2 has other Packers."""
    stage.sql("DELETE FROM cluster_blueprints WHERE id = 'depot'")
    blueprints._KNOWN.clear()
    for version in (shop("1", lambda _: None), shop("2")):
        blueprints.store(stage.control, version)
    cluster_id = stage.create(blueprint_id="depot", version="1", target_workers=5)
    stage.do(ScaleCluster(cluster_id=cluster_id, groups={"Packer": 3, "Driver": 0}))
    stage.settle(cluster_id)
    return cluster_id


def versions(stage: Stage, cluster_id: str, group: str = "Packer") -> list[str]:
    return sorted(one.blueprint_version for one in stage.agents(cluster_id) if one.group_name == group)


def newest(stage: Stage, cluster_id: str) -> Rollout:
    with stage.control.database.transaction() as session:
        found = rollouts.newest(session, cluster_id)
    assert found is not None
    return found


def kinds(stage: Stage, cluster_id: str) -> list[str]:
    with stage.control.database.transaction() as session:
        query = select(Event.kind).where(Event.cluster_id == cluster_id, Event.kind.like("rollout.%"))
        return list(session.scalars(query.order_by(Event.id)))


def start_all(stage: Stage, cluster_id: str) -> list[Agent]:
    """Have everything that is pending ready, and return it. What drains goes on."""
    desk = stage.desk()
    desk.claim(1000)
    found = stage.agents(cluster_id, AgentStatus.STARTING)
    stage.beat(*found)
    desk.ready({agent.agent_id: {"pid": 1} for agent in found})
    return found


def leave_all(stage: Stage, cluster_id: str) -> None:
    drained = stage.agents(cluster_id, AgentStatus.DRAINING)
    stage.desk().ended([Ended(agent.agent_id, asked=True) for agent in drained])


def pass_deadline(stage: Stage, cluster_id: str, seconds: float = 61) -> None:
    reconcile_each(stage.control, [cluster_id])
    for column in ("progress_at", "pending_since"):
        stage.earlier("rollouts", column, seconds)


def die(stage: Stage, cluster_id: str, version: str) -> None:
    """Have the agents of a version that are starting die at their birth."""
    desk = stage.desk()
    desk.claim(1000)
    found = [one for one in stage.agents(cluster_id, AgentStatus.STARTING) if one.blueprint_version == version]
    desk.ended([Ended(agent.agent_id, asked=False, error="ImportError: no such handler") for agent in found])


def test_agents_are_replaced_one_by_one_and_the_others_stay(stage: Stage, packing: str) -> None:
    before = {one.agent_id: one.group_name for one in stage.agents(packing)}
    operation = stage.do(RolloutCluster(cluster_id=packing))
    assert stage.cluster(packing).blueprint_version == "2"
    seen = [versions(stage, packing)]
    while newest(stage, packing).status is RolloutStatus.RUNNING:
        start_all(stage, packing)
        seen.append(versions(stage, packing))
        leave_all(stage, packing)
        ready = [one for one in stage.agents(packing, *READY_STATUSES) if one.group_name == "Packer"]
        assert len(ready) >= 3
        reconcile_each(stage.control, [packing])
    assert seen[0] == ["1", "1", "1", "2"]
    assert max(len(found) for found in seen) == 4
    assert versions(stage, packing) == ["2", "2", "2"]
    kept = {one.agent_id for one in stage.agents(packing)} & before.keys()
    assert {before[agent] for agent in kept} == {"Boss", "Clerk"}
    assert {one.blueprint_version for one in stage.agents(packing)} == {"2"}
    assert stage.operation(operation).status is OperationStatus.SUCCEEDED
    assert newest(stage, packing).progress == {"old": 0, "new": 5, "healthy": 5}
    assert kinds(stage, packing) == ["rollout.started", "rollout.succeeded"]
    assert stage.cluster(packing).status is ClusterStatus.ACTIVE
    with stage.control.database.transaction() as session:
        counts = {row.version: row.instances_active for row in blueprints.versions(session, "depot")}
    assert counts["2"] == 1


def test_without_room_the_old_leave_first(stage: Stage, packing: str) -> None:
    stage.do(UpdateCluster(cluster_id=packing, max_workers=5))
    stage.do(RolloutCluster(cluster_id=packing, max_parallel=2))
    assert stage.agents(packing, AgentStatus.STARTING) == []
    assert len(stage.agents(packing, AgentStatus.DRAINING)) == 2
    leave_all(stage, packing)
    assert len(stage.agents(packing)) == 5
    stage.settle(packing)
    assert versions(stage, packing) == ["2", "2", "2"]
    assert newest(stage, packing).status is RolloutStatus.SUCCEEDED


def test_a_version_with_the_same_agents_replaces_none(stage: Stage, packing: str) -> None:
    def change(document: dict[str, Any]) -> None:
        document["cluster"]["scaling"]["cooldown_period"] = 5
        document["metadata"]["description"] = "the same agents"

    blueprints.store(stage.control, shop("same", change))
    before = {one.agent_id for one in stage.agents(packing)}
    operation = stage.do(RolloutCluster(cluster_id=packing))
    assert operation.status is OperationStatus.SUCCEEDED
    assert {one.agent_id for one in stage.agents(packing)} == before
    assert {one.blueprint_version for one in stage.agents(packing)} == {"same"}


def test_a_version_whose_agents_die_is_taken_back(stage: Stage, packing: str) -> None:
    old = {one.agent_id for one in stage.agents(packing)}
    operation = stage.do(RolloutCluster(cluster_id=packing))
    for _ in range(3):
        assert newest(stage, packing).status is RolloutStatus.RUNNING
        stage.sql("UPDATE cluster_agents SET not_before = NULL")
        die(stage, packing, "2")
    found = newest(stage, packing)
    assert found.status is RolloutStatus.REVERTING
    assert stage.cluster(packing).blueprint_version == "1"
    stage.settle(packing)
    reconcile_each(stage.control, [packing])
    found = newest(stage, packing)
    assert found.status is RolloutStatus.REVERTED
    assert "3 of its agents died" in found.reason
    assert "ImportError" in found.reason
    assert {one.agent_id for one in stage.agents(packing)} == old
    ended = stage.operation(operation)
    assert (ended.status, (ended.error or {})["type"]) == (OperationStatus.FAILED, "reverted")
    assert kinds(stage, packing) == ["rollout.started", "rollout.reverting", "rollout.reverted"]


def test_a_version_that_is_never_ready_fails_at_its_deadline(stage: Stage, packing: str) -> None:
    stage.do(RolloutCluster(cluster_id=packing, progress_deadline=60))
    pass_deadline(stage, packing)
    assert stage.tick()
    assert newest(stage, packing).status is RolloutStatus.REVERTING
    stage.settle(packing)
    assert stage.tick()
    assert newest(stage, packing).status is RolloutStatus.REVERTED
    assert versions(stage, packing) == ["1", "1", "1"]


def test_an_old_agent_with_hours_of_work_is_no_failure(stage: Stage, packing: str) -> None:
    stage.do(RolloutCluster(cluster_id=packing, progress_deadline=60))
    start_all(stage, packing)
    for _ in range(2):
        pass_deadline(stage, packing, 3600)
        assert stage.tick()
        assert newest(stage, packing).status is RolloutStatus.RUNNING
    leave_all(stage, packing)
    stage.settle(packing)
    assert newest(stage, packing).status is RolloutStatus.SUCCEEDED


def test_without_auto_revert_a_failed_version_stays_until_it_is_undone(stage: Stage, packing: str) -> None:
    stage.do(RolloutCluster(cluster_id=packing, auto_revert=False, progress_deadline=60))
    pass_deadline(stage, packing)
    assert stage.tick()
    assert newest(stage, packing).status is RolloutStatus.FAILED
    start_all(stage, packing)
    leave_all(stage, packing)
    reconcile_each(stage.control, [packing])
    assert set(versions(stage, packing)) == {"1", "2"}
    stage.do(RolloutCluster(cluster_id=packing, undo=True))
    stage.settle(packing)
    reconcile_each(stage.control, [packing])
    assert versions(stage, packing) == ["1", "1", "1"]
    assert newest(stage, packing).status is RolloutStatus.SUCCEEDED


def test_a_lost_host_is_no_fault_of_the_version(stage: Stage, packing: str) -> None:
    stage.do(RolloutCluster(cluster_id=packing))
    for _ in range(4):
        [started] = start_all(stage, packing)[:1]
        stage.sql("UPDATE cluster_agents SET status = 'failed', stopped_at = clock_timestamp(), reason = 'its host' "
                  "WHERE agent_id = :id", id=started.agent_id)  # fmt: skip
        reconcile_each(stage.control, [packing])
    assert newest(stage, packing).status is RolloutStatus.RUNNING


def test_undo_goes_to_the_version_before_and_undo_again_back(stage: Stage, packing: str) -> None:
    with pytest.raises(Conflict, match="had no version before '1'"):
        stage.submit(RolloutCluster(cluster_id=packing, undo=True))
    for undo, version in ((None, "2"), (True, "1"), (True, "2")):
        stage.do(RolloutCluster(cluster_id=packing, undo=undo))
        stage.settle(packing)
        reconcile_each(stage.control, [packing])
        assert stage.cluster(packing).blueprint_version == version
        assert versions(stage, packing) == [version] * 3
    with stage.control.database.transaction() as session:
        found = rollouts.listing(session, packing, limit=10, cursor=None)
    assert [(one.from_version, one.to_version, one.undo) for one in found.items] == [
        ("1", "2", True), ("2", "1", True), ("1", "2", False),
    ]  # fmt: skip


def test_a_new_rollout_takes_the_place_of_one_under_way(stage: Stage, packing: str) -> None:
    first = stage.do(RolloutCluster(cluster_id=packing))
    start_all(stage, packing)
    blueprints.store(stage.control, shop("3"))
    second = stage.do(RolloutCluster(cluster_id=packing))
    ended = stage.operation(first)
    assert (ended.status, (ended.error or {})["type"]) == (OperationStatus.FAILED, "superseded")
    stage.settle(packing)
    reconcile_each(stage.control, [packing])
    assert versions(stage, packing) == ["3", "3", "3"]
    assert stage.operation(second).status is OperationStatus.SUCCEEDED


def test_the_pace_of_a_rollout_is_changed_by_another_to_the_same_version(stage: Stage, packing: str) -> None:
    stage.do(RolloutCluster(cluster_id=packing))
    with pytest.raises(Conflict, match="is going to version '2' already"):
        stage.submit(RolloutCluster(cluster_id=packing))
    stage.do(RolloutCluster(cluster_id=packing, max_parallel="100%"))
    found = newest(stage, packing)
    assert (found.from_version, found.to_version) == ("1", "2")
    assert stage.groups(packing, AgentStatus.STARTING) == {"Packer": 3}


def test_a_paused_rollout_replaces_nobody_and_goes_on_when_it_is_resumed(stage: Stage, packing: str) -> None:
    first = stage.do(RolloutCluster(cluster_id=packing))
    paused = stage.do(RolloutCluster(cluster_id=packing, steer="pause"))
    assert paused.status is OperationStatus.SUCCEEDED
    stage.settle(packing)
    pass_deadline(stage, packing, 3600)
    assert stage.tick()
    assert versions(stage, packing) == ["1", "1", "2"]
    assert newest(stage, packing).status is RolloutStatus.PAUSED
    stage.do(RolloutCluster(cluster_id=packing, steer="resume"))
    stage.settle(packing)
    reconcile_each(stage.control, [packing])
    assert versions(stage, packing) == ["2", "2", "2"]
    assert stage.operation(first).status is OperationStatus.SUCCEEDED
    with pytest.raises(Conflict, match="no rollout"):
        stage.submit(RolloutCluster(cluster_id=packing, steer="pause"))


# --- other commands in the middle -------------------------------------------------------------------------------


def test_a_sleeping_cluster_just_switches(stage: Stage, packing: str) -> None:
    stage.do(HibernateCluster(cluster_id=packing))
    stage.settle(packing)
    operation = stage.do(RolloutCluster(cluster_id=packing))
    assert operation.status is OperationStatus.SUCCEEDED
    assert "nothing has tried" in newest(stage, packing).reason
    stage.do(ReactivateCluster(cluster_id=packing, groups={"Packer": 1}))
    stage.settle(packing)
    assert versions(stage, packing) == ["2"]


def test_a_cluster_that_is_put_to_sleep_and_woken_in_the_middle_ends_in_the_new_version(
    stage: Stage, packing: str
) -> None:
    stage.do(RolloutCluster(cluster_id=packing))
    start_all(stage, packing)
    stage.do(HibernateCluster(cluster_id=packing))
    stage.do(ReactivateCluster(cluster_id=packing, groups={"Packer": 2}))
    assert all(one.blueprint_version == "2" for one in stage.agents(packing, *READY_STATUSES))
    stage.settle(packing)
    reconcile_each(stage.control, [packing])
    assert versions(stage, packing) == ["2", "2"]
    assert newest(stage, packing).status is RolloutStatus.SUCCEEDED


def test_a_rollout_ends_with_its_cluster(stage: Stage, packing: str) -> None:
    operation = stage.do(RolloutCluster(cluster_id=packing))
    stage.do(DestroyCluster(cluster_id=packing))
    stage.settle(packing)
    assert newest(stage, packing).status is RolloutStatus.SUPERSEDED
    assert stage.operation(operation).status is OperationStatus.FAILED
    assert stage.cluster(packing).status is ClusterStatus.DESTROYED


@pytest.mark.parametrize("packers", [1, 5])
def test_a_cluster_that_is_scaled_in_the_middle_ends_with_its_size(stage: Stage, packing: str, packers: int) -> None:
    stage.do(RolloutCluster(cluster_id=packing))
    start_all(stage, packing)
    scaled = stage.do(ScaleCluster(cluster_id=packing, groups={"Packer": packers}))
    stage.settle(packing)
    reconcile_each(stage.control, [packing])
    assert versions(stage, packing) == ["2"] * packers
    assert stage.operation(scaled).status is OperationStatus.SUCCEEDED
    assert newest(stage, packing).status is RolloutStatus.SUCCEEDED


def test_an_idle_cluster_does_not_fall_asleep_in_the_middle(stage: Stage, packing: str) -> None:
    stage.do(RolloutCluster(cluster_id=packing))
    start_all(stage, packing)
    stage.earlier("clusters", "last_active", 7200)
    assert stage.tick()
    assert stage.cluster(packing).status is ClusterStatus.ACTIVE
    assert stage.cluster(packing).intent == "running"


def one_step(stage: Stage, cluster_id: str, chance: random.Random) -> None:
    """Do what some host does at some time to some agents: start, die, leave; or time passes."""
    desk = stage.desk()
    desk.claim(chance.choice([1, 1000]))
    starting = [one for one in stage.agents(cluster_id, AgentStatus.STARTING) if chance.random() < 0.5]
    draining = [one for one in stage.agents(cluster_id, AgentStatus.DRAINING) if chance.random() < 0.5]
    stage.beat(*starting)
    desk.ready({one.agent_id: {"pid": 1} for one in starting})
    desk.ended([Ended(one.agent_id, asked=True) for one in draining])
    dying = [one for one in stage.agents(cluster_id) if chance.random() < 0.05]
    desk.ended([Ended(one.agent_id, asked=False, error="it died") for one in dying])
    if chance.random() < 0.2:
        stage.sql("UPDATE cluster_agents SET not_before = NULL")
        assert stage.tick()


@pytest.mark.parametrize("seed", range(3))
def test_whatever_comes_in_the_middle_nothing_is_stuck(stage: Stage, packing: str, seed: int) -> None:
    chance = random.Random(seed)
    blueprints.store(stage.control, shop("3", without_drivers))
    for _ in range(25):
        command: Any = chance.choice(
            [
                RolloutCluster(
                    cluster_id=packing, version=chance.choice("123"), max_parallel=chance.choice([1, "50%"])
                ),
                RolloutCluster(cluster_id=packing, undo=True),
                RolloutCluster(cluster_id=packing, steer=chance.choice(["pause", "resume"])),
                ScaleCluster(cluster_id=packing, groups={"Packer": chance.randint(0, 5)}),
                HibernateCluster(cluster_id=packing),
                ReactivateCluster(cluster_id=packing),
            ]
        )
        with suppress(Conflict, InvalidInput):
            operation = stage.submit(command)
            if chance.random() < 0.9:  # else its worker was killed, and the sweep brings it again
                stage.run(operation)
        one_step(stage, packing, chance)
    with suppress(Conflict):
        stage.do(ReactivateCluster(cluster_id=packing))
    with suppress(Conflict):
        stage.do(RolloutCluster(cluster_id=packing, steer="resume"))
    version = stage.cluster(packing).blueprint_version
    for operation_id in stage.unfinished(packing):
        operations.run(stage.control, operation_id)
    for _ in range(3):
        stage.sql("UPDATE cluster_agents SET not_before = NULL")
        stage.settle(packing)
        reconcile_each(stage.control, [packing])
    found = newest(stage, packing)
    assert found.status not in ROLLOUTS_UNDER_WAY or found.status is RolloutStatus.REVERTING, found.reason
    assert stage.cluster(packing).blueprint_version == version
    if found.status is not RolloutStatus.FAILED:
        assert {one.blueprint_version for one in stage.agents(packing)} == {version}
    wanted = {name: count for name, count in stage.cluster(packing).group_targets.items() if count}
    assert stage.groups(packing) == wanted
    assert stage.cluster(packing).status is ClusterStatus.ACTIVE
    assert stage.unfinished(packing) == []


# --- groups that come and go ------------------------------------------------------------------------------------


def without_drivers(document: dict[str, Any]) -> None:
    document["agents"] = [one for one in document["agents"] if one["name"] != "Driver"]
    document["agents"].append({"role": "worker", "name": "Porter", "count": "1-2"})
    document["cluster"]["max_workers"] = 7


def test_groups_and_bounds_change_with_the_version(stage: Stage, packing: str) -> None:
    stage.do(ScaleCluster(cluster_id=packing, groups={"Driver": 2}))
    stage.settle(packing)
    blueprints.store(stage.control, shop("3", without_drivers))
    stage.do(RolloutCluster(cluster_id=packing))
    stage.settle(packing)
    reconcile_each(stage.control, [packing])
    assert stage.groups(packing) == {"Boss": 1, "Clerk": 1, "Packer": 3, "Porter": 1}
    row = stage.cluster(packing)
    assert (row.max_workers, row.target_workers) == (7, 6)
    assert newest(stage, packing).status is RolloutStatus.SUCCEEDED
    stage.do(RolloutCluster(cluster_id=packing, undo=True))
    stage.settle(packing)
    reconcile_each(stage.control, [packing])
    assert stage.groups(packing) == {"Boss": 1, "Clerk": 1, "Packer": 3}
    assert stage.cluster(packing).max_workers == 8


def test_a_version_that_lacks_a_group_with_jobs_is_refused(stage: Stage, packing: str) -> None:
    blueprints.store(stage.control, shop("3", without_drivers))
    job = stage.post(packing, to="Driver")
    with pytest.raises(Conflict, match="1 unfinished of 'Driver'"):
        stage.submit(RolloutCluster(cluster_id=packing))
    assert stage.cluster(packing).blueprint_version == "1"
    assert stage.job(job.id).status is JobStatus.QUEUED


def test_jobs_of_a_group_that_an_undo_takes_away_wait_and_are_told_of(stage: Stage, packing: str) -> None:
    blueprints.store(stage.control, shop("3", without_drivers))
    stage.do(RolloutCluster(cluster_id=packing))
    job = stage.post(packing, to="Porter")
    stage.do(RolloutCluster(cluster_id=packing, undo=True))
    stage.settle(packing)
    reconcile_each(stage.control, [packing])
    assert newest(stage, packing).stranded == {"Porter": 1}
    assert stage.job(job.id).status is JobStatus.QUEUED
    assert stage.waiting(packing, "porter") == 1
    stage.do(RolloutCluster(cluster_id=packing, version="3"))
    stage.settle(packing)
    assert stage.groups(packing)["Porter"] == 1


def test_bounds_of_ones_own_that_do_not_fit_are_refused(stage: Stage, packing: str) -> None:
    def more(document: dict[str, Any]) -> None:
        document["agents"][1]["count"] = 5
        document["cluster"]["default_workers"] = 6

    stage.do(UpdateCluster(cluster_id=packing, max_workers=5))
    blueprints.store(stage.control, shop("3", more))
    with pytest.raises(InvalidInput, match="do not fit version '3'") as raised:
        stage.submit(RolloutCluster(cluster_id=packing))
    assert [fault.pointer for fault in raised.value.faults] == ["/max_workers"]
    stage.do(RolloutCluster(cluster_id=packing, max_workers=8))
    assert stage.cluster(packing).group_targets == {"Boss": 1, "Clerk": 5, "Packer": 2, "Driver": 0}


def test_what_cannot_be_is_refused(stage: Stage, packing: str) -> None:
    with pytest.raises(NotFound, match="there is no version '9' of blueprint 'depot'"):
        stage.submit(RolloutCluster(cluster_id=packing, version="9"))
    with pytest.raises(Conflict, match="has version '1' already"):
        stage.submit(RolloutCluster(cluster_id=packing, version="1"))
    with pytest.raises(InvalidInput, match="could never succeed"):
        stage.submit(RolloutCluster(cluster_id=packing, min_healthy_time=60, progress_deadline=30))


# --- the autoscaler's pause -------------------------------------------------------------------------------------


def test_the_autoscaler_leaves_a_paused_cluster_alone_and_says_so(stage: Stage, packing: str) -> None:
    operation = stage.do(UpdateCluster(cluster_id=packing, paused=True))
    assert operation.status is OperationStatus.SUCCEEDED
    for _ in range(30):
        stage.post(packing, to="Driver")
    assert stage.tick()
    assert stage.cluster(packing).group_targets["Driver"] == 0
    told = explain.explain(stage.control, packing)
    assert told["paused"] is True
    assert told["held"]["Driver"]["gate"] == "paused"
    stage.do(UpdateCluster(cluster_id=packing, paused=False))
    assert stage.tick()
    assert stage.cluster(packing).group_targets["Driver"] > 0


def test_a_paused_cluster_neither_falls_asleep_nor_is_woken_by_a_job(stage: Stage, packing: str) -> None:
    stage.do(UpdateCluster(cluster_id=packing, paused=True))
    stage.earlier("clusters", "last_active", 7200)
    stage.beat(*stage.agents(packing))
    assert stage.tick()
    assert stage.cluster(packing).intent == "running"
    stage.do(HibernateCluster(cluster_id=packing))
    stage.settle(packing)
    stage.post(packing, to="Packer")
    assert stage.tick()
    assert stage.cluster(packing).status is ClusterStatus.HIBERNATED


# --- over HTTP --------------------------------------------------------------------------------------------------


def test_rollouts_over_http(stage: Stage, packing: str, api: FlaskClient) -> None:
    path = f"/api/clusters/{packing}"
    begun = api.post(f"{path}/rollout", json={"version": "2", "max_parallel": "50%", "min_healthy_time": "1 minute"})
    assert begun.status_code == 202
    rollout = begun.json["rollout"]
    assert (rollout["status"], rollout["max_parallel"], rollout["min_healthy_time"]) == ("running", "50%", 60)
    assert rollout["operation_id"] == begun.json["operation"]["id"]
    assert api.get(path).json["rollout"]["id"] == rollout["id"]
    assert api.post(f"{path}/rollout/pause").json["rollout"]["status"] == "paused"
    assert api.post(f"{path}/rollout/resume").json["rollout"]["status"] == "running"
    undone = api.post(f"{path}/rollout/undo")
    assert undone.json["rollout"]["to_version"] == "1"
    listed = api.get(f"{path}/rollouts?limit=1").json
    assert (listed["total"], listed["rollouts"][0]["undo"]) == (2, True)
    assert api.get(f"{path}/rollouts?cursor={listed['next_cursor']}").json["rollouts"][0]["status"] == "superseded"
    assert api.get(f"/api/rollouts/{rollout['id']}").json["status"] == "superseded"
    assert api.get("/api/rollouts/nothing").status_code == 404
    assert api.get("/api/clusters/nothing/rollouts").status_code == 404
    wrong = api.post(f"{path}/rollout", json={"max_parallel": 0, "version": 2})
    assert [one["pointer"] for one in wrong.json["errors"]] == ["/max_parallel", "/version"]
    assert api.post(f"{path}/pause").json["cluster"]["paused"] is True
    assert api.post(f"{path}/resume").json["cluster"]["paused"] is False


# --- at once ----------------------------------------------------------------------------------------------------


def test_a_worker_and_a_command_that_ends_its_operation_do_not_wait_for_each_other(
    stage: Stage, packing: str, until: Callable[..., object]
) -> None:
    first = stage.submit(RolloutCluster(cluster_id=packing, version="2"))
    told = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"

    def blocked() -> bool:
        with stage.control.database.transaction() as session:
            return bool(session.scalar(text(told)))

    with ThreadPoolExecutor(1) as pool, stage.control.database.transaction() as session:
        lifecycle.locked(session, packing)
        running = pool.submit(stage.run, first)
        until(lambda: running.done() or blocked(), "the worker waits")
        # The worker waits for the cluster, and so must not have what the command at hand writes next.
        mine = select(Operation.id).where(Operation.id == first.id).with_for_update(nowait=True)
        assert session.scalar(mine) == first.id
        session.commit()
        assert running.result(30)


def test_clusters_that_go_opposite_ways_at_once_do_not_wait_for_each_other(stage: Stage, packing: str) -> None:
    other = stage.create(blueprint_id="depot", version="2", target_workers=5)
    ways = [(packing, "2", "1"), (other, "1", "2")]

    def go(cluster_id: str, *versions: str) -> None:
        for version in versions * 10:
            stage.submit(RolloutCluster(cluster_id=cluster_id, version=version))

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(go, *way) for way in ways]:
            done.result(60)
