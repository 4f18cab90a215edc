"""Single agents over the API: looked at, drained, replaced, and what they wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from brain_clusters.api.app import create_app
from brain_clusters.config import Settings
from brain_clusters.domain.commands import HibernateCluster, ScaleCluster
from brain_clusters.domain.states import AgentStatus
from brain_clusters.services.reconcile import reconcile_each
from tests.integration.stage import Stage

LIVE = (AgentStatus.STARTING, AgentStatus.IDLE, AgentStatus.BUSY)


@pytest.fixture
def client(stage: Stage) -> FlaskClient:
    return create_app(stage.control).test_client()


@pytest.fixture
def log_of(settings: Settings) -> Iterator[Path]:
    folder = settings.home / "logs" / "agents"
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    for file in folder.iterdir():
        file.unlink()


def packer(stage: Stage, cluster_id: str) -> str:
    return next(one.agent_id for one in stage.agents(cluster_id) if one.group_name == "Packer")


def roomy(stage: Stage, **fields: int) -> str:
    """Return a cluster with two packers, whose agents have all proved themselves."""
    cluster_id = stage.active(**fields)
    stage.do(ScaleCluster(cluster_id=cluster_id, groups={"Packer": 2}))
    stage.settle(cluster_id)
    age(stage)
    return cluster_id


def age(stage: Stage) -> None:
    stage.sql("UPDATE cluster_agents SET ready_at = ready_at - interval '1 hour'")


def test_an_agent_is_shown_with_its_beat(stage: Stage, client: FlaskClient) -> None:
    cluster_id = roomy(stage)
    stage.beat(*stage.agents(cluster_id))
    agent_id = packer(stage, cluster_id)
    told = client.get(f"/api/agents/{agent_id}").json
    assert (told["agent_id"], told["group"], told["beat"], told["memory"]) == (agent_id, "Packer", "fresh", 1000)
    assert client.get("/api/agents/nobody").status_code == 404


def test_a_drained_agent_leaves_and_its_group_gets_a_new_one(stage: Stage, client: FlaskClient) -> None:
    cluster_id = roomy(stage)
    agent_id = packer(stage, cluster_id)
    answered = client.post(f"/api/agents/{agent_id}/drain")
    assert (answered.status_code, answered.json["status"]) == (202, "draining")
    found = Counter(one.status for one in stage.agents(cluster_id) if one.group_name == "Packer")
    assert found == {AgentStatus.DRAINING: 1, AgentStatus.IDLE: 1, AgentStatus.STARTING: 1}
    reconcile_each(stage.control, [cluster_id])  # does not change its mind
    assert client.get(f"/api/agents/{agent_id}").json["status"] == "draining"
    assert client.post(f"/api/agents/{agent_id}/drain").status_code == 202
    stage.settle(cluster_id)
    assert client.get(f"/api/agents/{agent_id}").json["status"] == "stopped"
    assert stage.groups(cluster_id, *LIVE) == {"Boss": 1, "Clerk": 1, "Packer": 2}
    assert client.post(f"/api/agents/{agent_id}/drain").status_code == 409
    kinds = [one["kind"] for one in client.get(f"/api/clusters/{cluster_id}/events").json["events"]]
    assert kinds.count("agent.drained") == 2


def test_a_replaced_agent_works_on_until_the_new_one_is_there(stage: Stage, client: FlaskClient) -> None:
    cluster_id = roomy(stage)
    agent_id = packer(stage, cluster_id)
    answered = client.post(f"/api/agents/{agent_id}/replace")
    assert (answered.status_code, answered.json["status"]) == (202, "idle")
    assert stage.groups(cluster_id, *LIVE) == {"Boss": 1, "Clerk": 1, "Packer": 3}
    stage.settle(cluster_id)
    age(stage)
    reconcile_each(stage.control, [cluster_id])
    assert client.get(f"/api/agents/{agent_id}").json["status"] == "draining"
    assert client.post(f"/api/agents/{agent_id}/replace").status_code == 409
    stage.settle(cluster_id)
    assert stage.groups(cluster_id, *LIVE) == {"Boss": 1, "Clerk": 1, "Packer": 2}


def test_without_room_for_both_the_old_agent_leaves_first(stage: Stage, client: FlaskClient) -> None:
    cluster_id = roomy(stage, max_workers=4)
    agent_id = packer(stage, cluster_id)
    assert client.post(f"/api/agents/{agent_id}/replace").json["status"] == "draining"
    assert stage.groups(cluster_id, *LIVE) == {"Boss": 1, "Clerk": 1, "Packer": 1}
    stage.settle(cluster_id)
    reconcile_each(stage.control, [cluster_id])
    assert stage.groups(cluster_id, *LIVE) == {"Boss": 1, "Clerk": 1, "Packer": 2}


def test_nobody_is_replaced_in_a_cluster_that_goes_to_sleep(stage: Stage, client: FlaskClient) -> None:
    cluster_id = roomy(stage)
    agent_id = packer(stage, cluster_id)
    stage.do(HibernateCluster(cluster_id=cluster_id))
    assert client.post(f"/api/agents/{agent_id}/replace").status_code == 409


def test_the_end_of_a_log_is_told(stage: Stage, client: FlaskClient, log_of: Path) -> None:
    agent_id = packer(stage, roomy(stage))
    (log_of / f"{agent_id}.log").write_text("".join(f"line {number}\n" for number in range(5)))
    told = client.get(f"/api/agents/{agent_id}/logs?tail=2").json
    assert told == {"agent_id": agent_id, "lines": ["line 3", "line 4"], "reason": None}


def test_a_log_that_cannot_be_read_here_says_where_it_is(stage: Stage, client: FlaskClient, log_of: Path) -> None:
    agent_id = packer(stage, roomy(stage))
    told = client.get(f"/api/agents/{agent_id}/logs").json
    assert told["lines"] == []
    assert "host-1" in told["reason"]
    stage.sql("UPDATE cluster_agents SET driver = 'docker'")
    assert "docker logs" in client.get(f"/api/agents/{agent_id}/logs").json["reason"]
    assert client.get(f"/api/agents/{agent_id}/logs?follow=true").status_code == 404


def test_a_log_is_followed_to_the_end_of_its_agent(stage: Stage, client: FlaskClient, log_of: Path) -> None:
    agent_id = packer(stage, roomy(stage))
    log = log_of / f"{agent_id}.log"
    log.write_text("before\n")
    answered = client.get(f"/api/agents/{agent_id}/logs?follow=true", buffered=False)
    messages = iter(answered.response)
    assert b"before" in next(messages)
    with log.open("a") as file:
        file.write("after\nhalf")
    stage.sql("UPDATE cluster_agents SET status = 'stopped'")
    rest = b"".join(messages)
    assert b'"after"' in rest
    assert b"half" not in rest
    assert rest.endswith(b"event: end\ndata: {}\n\n")
    answered.close()
