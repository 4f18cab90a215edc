"""Single agents over the API: looked at, drained, replaced, and what they wrote."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from brain_clusters import dashboard
from brain_clusters.api.app import create_app
from brain_clusters.broker import names, questions
from brain_clusters.config import Settings
from brain_clusters.db.models import Rollout
from brain_clusters.domain.commands import HibernateCluster, ScaleCluster
from brain_clusters.domain.specs import RolloutPolicy
from brain_clusters.domain.states import AgentStatus, RolloutStatus
from brain_clusters.services import agent_logs
from brain_clusters.services.reconcile import reconcile_each
from tests.integration.stage import Stage

LIVE = (AgentStatus.STARTING, AgentStatus.IDLE, AgentStatus.BUSY)


@pytest.fixture
def client(stage: Stage) -> FlaskClient:
    app = create_app(stage.control)
    dashboard.attach(app)
    return app.test_client()


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


def test_what_has_to_wait_for_others_is_done_by_a_later_tick(stage: Stage, client: FlaskClient) -> None:
    cluster_id = stage.active()
    agent_id = packer(stage, cluster_id)
    client.post(f"/api/agents/{agent_id}/replace")
    assert stage.groups(cluster_id, AgentStatus.STARTING) == {}, "others have just come, and have to prove themselves"
    age(stage)
    stage.tick()
    assert stage.groups(cluster_id, AgentStatus.STARTING) == {"Packer": 1}


def test_one_of_a_cluster_whose_rollout_failed_is_replaced_all_the_same(stage: Stage, client: FlaskClient) -> None:
    cluster_id = roomy(stage)
    rollout = Rollout(
        cluster_id=cluster_id, status=RolloutStatus.FAILED, from_version="0", to_version="1", reason="r", origin="o",
        policy=asdict(RolloutPolicy()), before={},
    )  # fmt: skip
    with stage.control.database.transaction() as session:
        session.add(rollout)
    assert client.post(f"/api/agents/{packer(stage, cluster_id)}/replace").status_code == 202
    assert stage.groups(cluster_id, AgentStatus.STARTING) == {"Packer": 1}


def test_a_drain_that_somebody_asked_for_outlives_what_its_host_tells(stage: Stage, client: FlaskClient) -> None:
    cluster_id = roomy(stage)
    stage.do(ScaleCluster(cluster_id=cluster_id, groups={"Packer": 3}))
    desk = stage.desk()
    desk.claim(100)
    (young,) = stage.agents(cluster_id, AgentStatus.STARTING)
    client.post(f"/api/agents/{young.agent_id}/drain")
    desk.ready({young.agent_id: {"pid": 1, "started": "1"}})
    stage.do(ScaleCluster(cluster_id=cluster_id, groups={"Packer": 4}))
    assert client.get(f"/api/agents/{young.agent_id}").json["status"] == "draining"


def test_what_an_agent_holds_is_told(stage: Stage, client: FlaskClient) -> None:
    cluster_id = roomy(stage)
    one = next(agent for agent in stage.agents(cluster_id) if agent.group_name == "Packer")
    for job_id, task in (("held", names.JOB_TASK), ("begun", names.JOB_TASK), ("foreign", "other.task")):
        message = {"headers": {"task": task, "id": job_id}, "properties": {}}
        stage.redis.hset(names.unacked_key(one.agent_id), job_id, json.dumps([message, "", "q"]))
    stage.redis.hset(names.unacked_key(one.agent_id), "broken", "{")
    stage.redis.hset(names.job_key("begun"), mapping={
        "cluster_id": cluster_id, "group_name": "Packer", "agent_id": one.agent_id, "status": "running",
        "attempts": "2", "started_at": "1",
    })  # fmt: skip
    stage.beat(one, at=2.0, in_flight=1, running_for=5.0, state="busy")
    found = client.get(f"/api/agents/{one.agent_id}").json
    assert (found["status"], found["running_for"], found["beat_at"]) == ("busy", 5.0, "1970-01-01T00:00:02+00:00")
    begun, held = found["jobs"]
    assert (begun["id"], begun["begun"], begun["attempts"]) == ("begun", True, 2)
    assert (held["id"], held["begun"], held["started_at"]) == ("held", False, None)
    page = client.get(f"/agents/{one.agent_id}")
    assert (page.status_code, "begun" in page.text, "1 job below" in page.text) == (200, True, True)


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


class Telling:
    """A host of another machine that tells logs, until the end of the context."""

    def __init__(self, stage: Stage, answers: Iterable[tuple[str | None, str | None]]) -> None:
        self._desk, self._answers, self._ended = stage.desk(), iter(answers), threading.Event()
        self._thread = threading.Thread(target=self._tell)
        self.asked: list[tuple[str, int]] = []

    def _tell(self) -> None:
        self._desk.beat({})
        while not self._ended.wait(0.02):
            for one in self._desk.asked():
                self.asked.append((one.agent_id, one.lines))
                self._desk.tell_log(one, *next(self._answers))

    def __enter__(self) -> Telling:
        self._desk.beat({})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)


def test_a_log_of_another_machine_or_engine_is_told_by_its_host(stage: Stage, client: FlaskClient) -> None:
    agent_id = packer(stage, roomy(stage))
    stage.sql("UPDATE cluster_agents SET driver = 'docker'")
    with Telling(stage, [("one\ntwo\nthree\n", None), (None, "the engine is away"), ("", None)]) as host:
        told = [client.get(f"/api/agents/{agent_id}/logs?tail=2").json for _ in range(2)]
        stage.sql("UPDATE cluster_agents SET status = 'stopped'")
        ended = client.get(f"/api/agents/{agent_id}/logs?tail=2").json
    assert (told[0]["lines"], told[0]["reason"]) == (["two", "three"], None)
    assert (told[1]["lines"], "cannot read its log: the engine is away" in told[1]["reason"]) == ([], True)
    assert "has no log of it any more" in ended["reason"]
    assert host.asked == [(agent_id, 2)] * 3


def test_a_log_that_nobody_can_read_says_why(stage: Stage, client: FlaskClient) -> None:
    cluster_id = roomy(stage)
    path = f"/api/agents/{packer(stage, cluster_id)}/logs"
    silent = client.get(path).json
    assert (silent["lines"], "host-1, which does not answer" in silent["reason"]) == ([], True)
    stage.sql("UPDATE cluster_agents SET host_id = NULL")
    assert "no host has taken the agent" in client.get(path).json["reason"]


def test_a_log_is_followed_on_another_machine(stage: Stage, client: FlaskClient) -> None:
    agent_id = packer(stage, roomy(stage))
    stage.sql("UPDATE cluster_agents SET driver = 'docker'")
    with Telling(stage, [("one\ntwo", None), ("two\nthree", None)]):
        answered = client.get(f"/api/agents/{agent_id}/logs?follow=true&tail=1", buffered=False)
        messages = iter(answered.response)
        assert next(messages) == b'data: {"line": "two"}\n\n'
        stage.sql("UPDATE cluster_agents SET status = 'stopped'")
        assert b"".join(messages) == b'data: {"line": "three"}\n\nevent: end\ndata: {}\n\n'
        answered.close()


def test_what_others_write_into_the_questions_is_none(stage: Stage) -> None:
    names_of = ["../../secret", "a\n", 7, None]
    texts = [json.dumps({"id": "q", "agent_id": name, "lines": 1}) for name in names_of]
    stage.redis.rpush(names.asked_list("host-1"), "{", "[]", *texts, json.dumps({"id": "q", "agent_id": "a"}))
    assert list(questions.take(stage.redis, "host-1", 100)) == []


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [
        ("", "ab", "ab"), ("ab", "ab", ""), ("ab", "abc", "c"), ("abc", "bcd", "d"), ("abc", "xyz", "xyz"),
        ("aaa", "aab", "b"), ("abc", "", ""), ("abcd", "cd", ""),
    ],
)  # fmt: skip
def test_the_new_lines_of_a_log_are_those_after_what_was_its_end(before: str, now: str, new: str) -> None:
    assert agent_logs.new_lines(list(before), list(now)) == list(new)


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
