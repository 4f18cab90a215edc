"""Several hosts: who is one, what each takes, and what becomes of the agents of one that does not answer."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from brain_clusters.api.app import create_app
from brain_clusters.broker import fences, names
from brain_clusters.broker.jobs import Delivery, JobRecords, JobReport
from brain_clusters.broker.restore import restore
from brain_clusters.db.models import Agent, Host, Operation
from brain_clusters.domain.commands import ScaleCluster
from brain_clusters.domain.engines import Resources
from brain_clusters.domain.states import AgentStatus, JobStatus, OperationStatus
from brain_clusters.errors import LeaseLost
from brain_clusters.genesis.desk import Ended
from brain_clusters.processes import LifeLock
from brain_clusters.services import blueprints, lost_hosts
from brain_clusters.services.hosting import HostDesk
from tests.integration.stage import Stage

GIB = 1024**3
# Two sizes of agents, and some that state none.
YARD = """
metadata: {id: yard, name: A yard, version: "1"}
cluster: {type: project, min_workers: 1, max_workers: 40, default_workers: 1}
agents:
  - {role: supervisor, name: Boss, count: 1}
  - {role: worker, name: Small, count: 0-20, resources: {cpu: 0.5, memory: 256MiB}}
  - {role: worker, name: Big, count: 0-5, resources: {cpu: 4, memory: 8GiB}}
  - {role: worker, name: Boxes, count: 0-5}
"""


@pytest.fixture
def yard(stage: Stage) -> Callable[..., str]:
    """A function that makes a cluster with so many agents by group, besides its Boss. Boxes run on another engine."""
    blueprints.store(stage.control, YARD)

    def make(**groups: int) -> str:
        cluster_id = stage.create(blueprint_id="yard", target_workers=1)
        if groups:
            scale(stage, cluster_id, **groups)
        return cluster_id

    return make


def scale(stage: Stage, cluster_id: str, **groups: int) -> Operation:
    operation = stage.do(ScaleCluster(cluster_id=cluster_id, groups=groups))
    stage.sql("UPDATE cluster_agents SET driver = 'docker' WHERE group_name = 'Boxes'")
    return operation


def host(stage: Stage, host_id: str) -> Host | None:
    with stage.control.database.transaction() as session:
        return session.get(Host, host_id)


def by_another(stage: Stage, host_id: str, holder: str = "/another") -> None:
    """Let another process be the host from now on."""
    stage.sql("UPDATE hosts SET holder = :holder, seen_at = now() WHERE id = :id", id=host_id, holder=holder)


def placed(stage: Stage, cluster_id: str) -> dict[str | None, int]:
    found: dict[str | None, int] = {}
    for agent in stage.agents(cluster_id):
        found[agent.host_id] = found.get(agent.host_id, 0) + 1
    return found


def lose(stage: Stage, host_id: str) -> int:
    """Let a host be silent for so long that it is given up; return how many agents were."""
    stage.sql("UPDATE hosts SET seen_at = seen_at - interval '31 s' WHERE id = :id", id=host_id)
    assert lost_hosts.watch(stage.control) == 0  # it is only suspected
    stage.earlier("hosts", "suspected_at", 10)
    return lost_hosts.watch(stage.control)


# --- who is the host --------------------------------------------------------------------------------------------


def test_one_process_at_a_time_is_a_host_and_another_takes_over_when_its_lease_has_ended(stage: Stage) -> None:
    first = stage.desk()
    assert first.take()
    by_another(stage, "host-1")
    second = stage.desk()
    assert not second.take()
    stage.earlier("hosts", "seen_at", 29)
    assert not second.take()
    stage.earlier("hosts", "seen_at", 2)
    assert second.take()


def test_a_process_that_lost_its_lease_can_write_nothing(stage: Stage) -> None:
    cluster_id = stage.active()
    desk = stage.desk()
    desk.beat({})
    agent = stage.agents(cluster_id)[0]
    stage.do(ScaleCluster(cluster_id=cluster_id, groups={"Packer": 3}))
    before = {row.agent_id: (row.status, row.host_id, row.handle, row.reason) for row in stage.agents(cluster_id)}
    by_another(stage, "host-1")
    for call in (
        lambda: desk.claim(10), desk.wanted, desk.leave, lambda: desk.beat({}),
        lambda: desk.ready({agent.agent_id: {"pid": 2}}),
        lambda: desk.explain({agent.agent_id: "it says so"}),
        lambda: desk.ended([Ended(agent.agent_id, asked=False, error="it says so")]),
    ):  # fmt: skip
        with pytest.raises(LeaseLost):
            call()
    assert {
        row.agent_id: (row.status, row.host_id, row.handle, row.reason) for row in stage.agents(cluster_id)
    } == before
    found = host(stage, "host-1")
    assert found is not None
    assert found.holder == "/another"


def test_the_next_process_on_a_machine_does_not_wait_for_the_lease_of_a_dead_one(stage: Stage, tmp_path: Path) -> None:
    dead = LifeLock(tmp_path / "host.held")
    place = dead.name()
    assert place is not None
    assert HostDesk(stage.control, "host-1", 10, lock=LifeLock(tmp_path / "host.held")).take()
    by_another(stage, "host-1", f"{place}/another")
    desk = HostDesk(stage.control, "host-1", 10, lock=LifeLock(tmp_path / "host.held"))
    assert not desk.take()  # it lives
    dead.release()
    assert desk.take()


def test_a_lock_file_is_known_by_a_name_that_no_copy_of_it_has(tmp_path: Path) -> None:
    lock = LifeLock(tmp_path / "a" / "host.held")
    name = lock.name()
    assert name == lock.name()
    assert LifeLock(tmp_path / "a" / "host.held").name() is None
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert LifeLock(tmp_path / "b" / "host.held").name() not in (name, None)
    lock.release()
    assert LifeLock(tmp_path / "a" / "host.held").name() == name
    assert LifeLock(Path(os.devnull) / "host.held").name() is None


def test_a_process_that_took_over_from_one_that_only_seemed_dead_is_not_taken_for_it(
    stage: Stage, tmp_path: Path
) -> None:
    frozen = LifeLock(tmp_path / "host.held")
    place = frozen.name()
    HostDesk(stage.control, "host-1", 10).take()
    by_another(stage, "host-1", f"{place}/frozen")
    stage.earlier("hosts", "seen_at", 31)
    assert HostDesk(stage.control, "host-1", 10, lock=LifeLock(tmp_path / "host.held")).take()
    found = host(stage, "host-1")
    assert found is not None
    assert found.holder is not None
    assert not found.holder.startswith(str(place))


# --- time -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_clocks_of_hosts_and_workers_do_not_matter(
    stage: Stage, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster_id, clock = stage.active(), time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 3600 * hours)
    stage.desk().beat({})
    stage.desk("host-2").beat({})
    for _ in range(2):
        assert lost_hosts.watch(stage.control) == 0
        stage.earlier("hosts", "suspected_at", 10)
    assert len(stage.agents(cluster_id)) == 3


def test_when_the_clock_of_the_database_is_set_back_a_dead_host_is_lost_all_the_same(stage: Stage) -> None:
    cluster_id = stage.active()
    stage.desk("host-2").beat({})
    stage.earlier("hosts", "seen_at", -3600)
    assert lost_hosts.watch(stage.control) == 0
    assert lose(stage, "host-1") == 3
    assert {agent.host_id for agent in stage.agents(cluster_id)} == {None}


def test_hosts_that_were_silent_because_the_database_was_away_lose_nothing(stage: Stage) -> None:
    cluster_id = stage.active()
    desks = [stage.desk("host-1"), stage.desk("host-2")]
    for desk in desks:
        desk.beat({})
    stage.earlier("hosts", "seen_at", 600)
    assert lost_hosts.watch(stage.control) == 0
    for desk in desks:
        desk.beat({})
    stage.earlier("hosts", "suspected_at", 600)
    assert lost_hosts.watch(stage.control) == 0
    assert placed(stage, cluster_id) == {"host-1": 3}


# --- lost -------------------------------------------------------------------------------------------------------


def test_the_agents_of_a_lost_host_are_fenced_and_replaced_and_what_they_held_returns_later(stage: Stage) -> None:
    cluster_id = stage.active()
    stage.desk("host-2").beat({})
    before = stage.agents(cluster_id)
    clerk = next(agent for agent in before if agent.group_name == "Clerk")
    stage.post(cluster_id, to="Clerk")
    stage.redis.lmove(names.group_queue(cluster_id, "clerk"), names.claim_key(clerk.agent_id), "RIGHT", "LEFT")
    assert lose(stage, "host-1") == 3
    assert all(stage.redis.exists(names.fenced_key(agent.agent_id)) for agent in before)
    lost = stage.agents(cluster_id, AgentStatus.FAILED)
    assert {agent.agent_id for agent in lost} == {agent.agent_id for agent in before}
    assert {agent.last_error for agent in lost} == {"its host host-1 has not answered for 30 s"}
    assert host(stage, "host-1") is None
    assert len(stage.desk("host-2").claim(10)) == 3  # at once: they did not die young
    # Those that can be reached have seen their fences first.
    assert stage.waiting(cluster_id, "clerk") == 0
    stage.redis.zadd(names.LOST, {agent.agent_id: 0 for agent in before})
    lost_hosts.watch(stage.control)
    assert stage.waiting(cluster_id, "clerk") == 1
    assert not stage.redis.exists(names.LOST)


def test_agents_that_a_lost_host_had_not_started_are_no_failures(stage: Stage) -> None:
    cluster_id = stage.create(target_workers=8)
    stage.desk("host-2").beat({})
    assert stage.desk("host-1").claim(100)
    assert lose(stage, "host-1") == placed_before(stage, cluster_id)
    assert stage.agents(cluster_id, AgentStatus.FAILED) == []
    assert all(agent.not_before is None for agent in stage.agents(cluster_id))


def placed_before(stage: Stage, cluster_id: str) -> int:
    return len(stage.agents(cluster_id, AgentStatus.STOPPED))


def test_agents_that_work_are_left_alone_while_no_other_host_could_replace_them(stage: Stage) -> None:
    cluster_id = stage.active()
    boss, *others = stage.agents(cluster_id)
    stage.redis.delete(names.beat_key(boss.agent_id))
    assert lose(stage, "host-1") == 1
    assert {agent.agent_id for agent in stage.agents(cluster_id, AgentStatus.IDLE)} == {one.agent_id for one in others}
    # The host is there again, and they are still its own.
    desk = stage.desk("host-1")
    assert desk.take()
    assert {wanted.spec.agent_id for wanted in desk.wanted()} == {one.agent_id for one in others}


def test_a_host_of_another_driver_replaces_nobody(stage: Stage) -> None:
    stage.active()
    HostDesk(stage.control, "docker", 10, "docker").beat({})
    assert lose(stage, "host-1") == 0


def test_agents_whose_end_was_written_down_by_one_that_died_then_are_replaced_by_the_tick(stage: Stage) -> None:
    cluster_id = stage.active()
    ended = stage.agents(cluster_id)[0].agent_id
    stage.sql("UPDATE cluster_agents SET status = 'failed', stopped_at = now() WHERE agent_id = :ended", ended=ended)
    stage.tick()
    assert len(stage.agents(cluster_id, AgentStatus.STARTING)) == 1


def test_a_host_that_comes_back_while_it_is_given_up_keeps_its_agents(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster_id = stage.active()
    stage.desk("host-2").beat({})
    fence = fences.fence

    def fence_and_come_back(*given: Any) -> None:
        fence(*given)
        assert stage.desk("host-1").take()

    monkeypatch.setattr(fences, "fence", fence_and_come_back)
    assert lose(stage, "host-1") == 0
    assert placed(stage, cluster_id) == {"host-1": 3}
    assert not any(stage.redis.exists(names.fenced_key(agent.agent_id)) for agent in stage.agents(cluster_id))


# --- what counts ------------------------------------------------------------------------------------------------


def report(agent_id: str, job_id: str, result: Any) -> JobReport:
    return JobReport(job_id, "c", "g", agent_id, JobStatus.SUCCEEDED, 1, time.time(), time.time(), result)


def test_the_outcome_of_an_agent_that_was_given_up_does_not_count_and_its_message_stays(stage: Stage) -> None:
    records, held = JobRecords(stage.redis), names.unacked_key("lost")
    stage.redis.hset(held, "tag", '[{"body": 1},"","queue"]')
    records.begin("job", "lost")
    fences.fence(stage.redis, ["lost"])
    delivery = Delivery(1, tag="tag", queue="queue")
    assert not records.finish(report("lost", "job", 1), delivery)
    assert not records.again(report("lost", "job", 1), delivery, 1.0)
    assert stage.redis.hexists(held, "tag")
    assert stage.redis.hget(names.job_key("job"), "status") == b"running"
    assert not stage.redis.exists(names.FINISHED_STREAM)


def test_the_outcome_of_an_agent_whose_job_another_has_begun_does_not_count(stage: Stage) -> None:
    records = JobRecords(stage.redis)
    sent = '{"body": "", "headers": {}, "properties": {"delivery_info": {"routing_key": "queue"}}}'
    stage.redis.hset(names.unacked_key("first"), "tag", f'[{sent},"","queue"]')
    records.begin("job", "first")
    assert restore(stage.redis, "first") == 1
    stage.redis.hset(names.unacked_key("second"), "tag", stage.redis.rpop("queue") or "")
    records.begin("job", "second")
    delivery = Delivery(1, tag="tag", queue="queue")
    assert not records.finish(report("first", "job", 1), delivery)
    assert records.finish(report("second", "job", 2), delivery)
    assert records.get(["job"])["job"].result == 2
    assert stage.redis.xlen(names.FINISHED_STREAM) == 1


# --- what hosts have --------------------------------------------------------------------------------------------


def test_two_hosts_share_evenly_and_the_second_need_not_be_quick(stage: Stage, yard: Callable[..., str]) -> None:
    first, second = stage.desk("host-1"), stage.desk("host-2")
    first.beat({})
    second.beat({})
    cluster_id = yard(Small=19)
    for desk in (first, first, second):
        desk.claim(100)
    assert placed(stage, cluster_id) == {"host-1": 10, "host-2": 10}


def test_agents_wait_neither_for_a_host_that_is_silent_nor_for_one_that_does_not_take_them(
    stage: Stage, yard: Callable[..., str]
) -> None:
    stage.desk("host-2").beat({})
    first, cluster_id = stage.desk("host-1"), yard(Small=9)
    first.claim(100)
    assert placed(stage, cluster_id) == {"host-1": 5, None: 5}
    stage.earlier("cluster_agents", "spawned_at", 3)
    first.claim(100)
    assert placed(stage, cluster_id) == {"host-1": 10}
    stage.earlier("hosts", "seen_at", 7)
    other = yard(Small=9)
    first.claim(100)
    assert placed(stage, other) == {"host-1": 10}


def test_a_host_takes_no_more_than_its_resources_allow(stage: Stage, yard: Callable[..., str]) -> None:
    desk = HostDesk(stage.control, "host-1", 100, has=Resources(cpu=2.0, memory_bytes=GIB))
    cluster_id = yard(Small=9)
    desk.claim(100)
    assert len(desk.wanted()) == 5  # the Boss states nothing, and four times a half is two
    assert placed(stage, cluster_id) == {"host-1": 5, None: 5}


def why(stage: Stage, cluster_id: str) -> set[str | None]:
    return {agent.reason for agent in stage.agents(cluster_id, AgentStatus.STARTING)}


def test_an_agent_that_no_host_takes_says_why_until_one_does(stage: Stage, yard: Callable[..., str]) -> None:
    HostDesk(stage.control, "host-1", 100, has=Resources(cpu=5.5, memory_bytes=10 * GIB)).beat({})
    cluster_id = yard(Big=2, Boxes=1)
    HostDesk(stage.control, "host-1", 100, has=Resources(cpu=5.5, memory_bytes=10 * GIB)).claim(100)
    stage.tick()
    assert why(stage, cluster_id) == {None}  # it may only just have come
    stage.earlier("cluster_agents", "spawned_at", 5)
    stage.tick()
    no_docker = "no host of the driver docker runs: start one with brain-clusters host --driver docker"
    assert why(stage, cluster_id) - {None} == {
        no_docker,
        "no host of the driver process has room: it needs 4 cores and 8 GiB; the roomiest, host-1, has 1.5 cores and "
        "2 GiB left",
    }
    shown = create_app(stage.control).test_client().get(f"/api/clusters/{cluster_id}/agents").json
    assert no_docker in {agent["reason"] for agent in shown["agents"]}
    HostDesk(stage.control, "host-2", 100).claim(100)
    assert why(stage, cluster_id) == {None, no_docker}


def test_an_operation_whose_agents_found_no_host_says_why_it_failed(stage: Stage, yard: Callable[..., str]) -> None:
    cluster_id = yard()
    operation = scale(stage, cluster_id, Boxes=1)
    stage.earlier("cluster_agents", "spawned_at", 5)
    stage.earlier("operations", "deadline_at", 3600)
    HostDesk(stage.control, "host-1", 100).claim(100)
    stage.tick()
    found = stage.operation(operation)
    assert found.status is OperationStatus.FAILED
    assert found.error is not None
    assert "waits: no host of the driver docker runs: start one with" in found.error["message"]


@pytest.fixture
def asked(stage: Stage) -> FlaskClient:
    return create_app(stage.control).test_client()


def test_hosts_are_listed_with_what_they_have_and_what_of_it_is_used(
    stage: Stage, yard: Callable[..., str], asked: FlaskClient
) -> None:
    yard(Small=3)
    HostDesk(stage.control, "host-1", 50, has=Resources(cpu=4.0, memory_bytes=8 * GIB)).claim(50)
    HostDesk(stage.control, "docker", 20, "docker").beat({})
    stage.sql("UPDATE hosts SET seen_at = seen_at - interval '31 s' WHERE id = 'docker'")
    found = asked.get("/api/hosts").json
    assert found["total"] == 2
    docker, first = found["hosts"]
    assert first.pop("seen_at")
    assert first == {
        "id": "host-1", "driver": "process", "lease": "held", "capacity": 50, "agents": 4, "cpus": 4.0,
        "cpus_used": 1.5, "memory_bytes": 8 * GIB, "memory_bytes_used": 3 * 256 * 1024**2,
    }  # fmt: skip
    assert (docker["lease"], docker["cpus"], docker["memory_bytes"], docker["agents"]) == ("ended", None, None, 0)
    stage.sql("UPDATE hosts SET holder = NULL WHERE id = 'docker'")
    assert asked.get("/api/hosts").json["hosts"][0]["lease"] == "given_up"
    assert asked.get("/api/hosts?no=such").status_code == 422


def test_a_row_that_another_locks_does_not_hold_up_the_others(stage: Stage, yard: Callable[..., str]) -> None:
    cluster_id = yard(Small=3)
    first = stage.agents(cluster_id)[0]
    with stage.control.database.transaction() as session:
        session.get(Agent, first.id, with_for_update=True)
        assert len(stage.desk().claim(10)) == 3
    assert len(stage.desk().claim(10)) == 1


def test_one_that_was_passed_for_long_is_kept_a_place_and_takes_it_when_it_is_free(
    stage: Stage, yard: Callable[..., str]
) -> None:
    def desk() -> HostDesk:
        return HostDesk(stage.control, "host-1", 100, has=Resources(cpu=5.0, memory_bytes=16 * GIB))

    first = yard(Small=4)
    desk().claim(100)
    big = yard(Big=1)
    small = yard(Small=1)
    desk().claim(100)
    assert placed(stage, small) == {"host-1": 2}  # it passed the big one
    stage.sql("UPDATE cluster_agents SET spawned_at = spawned_at - interval '61 s' WHERE cluster_id = :id", id=big)
    later = yard(Small=1)
    desk().claim(100)
    assert placed(stage, later) == {"host-1": 1, None: 1}  # its Boss states nothing
    desk().ended([Ended(agent.agent_id, asked=True) for agent in stage.agents(first) if agent.cpu])
    desk().claim(100)
    assert placed(stage, big) == {"host-1": 2}
