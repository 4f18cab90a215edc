"""Jobs, from REST and from Celery clients that know nothing of us."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

from brain_clusters.client import Client, JobCancelled, JobFailed, Queue

from .brain import Brain, until

Measured = Callable[[str, float], None]


@pytest.fixture(scope="module")
def cluster(brain: Brain) -> Iterator[str]:
    """A cluster with an agent in each of its groups."""
    groups = {"Hands": 2, "Twos": 1, "Sorters": 1, "Idlers": 1}
    made = brain.cluster(target_workers=1)
    brain.command("POST", f"/api/clusters/{made}/scale", {"groups": groups})
    yield made
    brain.command("DELETE", f"/api/clusters/{made}")


def test_a_handler_from_the_handler_path_gets_the_payload_and_its_result_is_kept(brain: Brain, cluster: str) -> None:
    done = brain.outcome(brain.job(cluster, say={"text": "grüße", "n": [1, 2.5, None]}))
    assert done | {"status": "succeeded", "attempts": 1, "group": "Hands", "error": None} == done
    assert done["result"]["said"] == {"text": "grüße", "n": [1, 2.5, None]}
    assert done["started_at"] < done["finished_at"]


def test_the_python_client_sends_jobs_and_gets_their_results(brain: Brain, cluster: str) -> None:
    with Client(brain.api_url, key=brain.key) as client:
        assert client.submit(cluster, {"say": "one"}, to="Hands").result(timeout=60)["said"] == "one"
        sent = client.submit_many(cluster, [{"say": n} for n in range(50)], to="Hands", priority="high")
        assert [job.result(timeout=60)["said"] for job in sent] == list(range(50))
        assert client.submit_to("handiwork", {"say": "anywhere"}).result(timeout=60)["said"] == "anywhere"
        failed = client.submit(cluster, {"fail": "no row 7"}, to="Hands", key="once")
        with pytest.raises(JobFailed, match="no row 7"):
            failed.result(timeout=60)
        until(lambda: brain.get(f"/api/clusters/{cluster}/dead-letters")["total"] == 1, "the outcome is stored")
        failed.retry()
        with pytest.raises(JobFailed, match="no row 7"):
            failed.result(timeout=60)
        assert len(brain.marks(failed.id)) == 2
        asleep = client.submit(cluster, {}, to="Hands", delay="1 hour")
        asleep.cancel()
        with pytest.raises(JobCancelled):
            asleep.result(timeout=60)


def test_jobs_pushed_into_redis_are_done_too(brain: Brain, cluster: str) -> None:
    with Queue(brain.redis_url, cluster, "Hands") as queue:
        sent = [queue.submit({"say": 1}, priority="low"), *queue.submit_many([{"say": 2}, {"say": 3}], priority="high")]
    assert [brain.outcome(job)["result"]["said"] for job in sent] == [1, 2, 3]


def test_a_job_that_runs_says_so_and_which_agent_does_it(brain: Brain, cluster: str) -> None:
    gate = brain.gate()
    job = brain.job(cluster, gate=str(gate))
    agent = brain.until_begun(job)["agent"]
    seen = brain.get(f"/api/jobs/{job}")
    assert seen | {"status": "running", "agent_id": agent, "attempts": 1} == seen
    until(lambda: {one["agent_id"]: one["status"] for one in brain.agents(cluster)}[agent] == "busy", "it is busy")
    gate.touch()
    assert brain.outcome(job)["status"] == "succeeded"


def test_an_exception_fails_the_job_and_not_the_agent(brain: Brain, cluster: str) -> None:
    before = brain.agent_processes(cluster)
    failed = brain.outcome(brain.job(cluster, fail="the paper is empty"))
    assert failed["status"] == "failed"
    assert failed["error"] | {"type": "ValueError", "message": "the paper is empty"} == failed["error"]
    assert "workshop.py" in failed["error"]["traceback"]
    assert brain.outcome(brain.job(cluster, exit=3))["error"]["type"] == "SystemExit"
    assert brain.agent_processes(cluster) == before


def test_a_command_gets_the_payload_on_its_standard_input(brain: Brain, cluster: str) -> None:
    done = brain.outcome(brain.job(cluster, "Sorters", say="hello"))
    assert done["result"] == {"say": "hello"}


def test_a_group_without_a_handler_fails_its_jobs_and_says_what_to_add(brain: Brain, cluster: str) -> None:
    failed = brain.outcome(brain.job(cluster, "Idlers"))
    assert failed["status"] == "failed"
    assert "handler: package.module:function" in failed["error"]["message"]
    assert "'Idlers'" in failed["error"]["message"]


def test_jobs_go_by_name_by_capability_or_to_the_supervisor(brain: Brain, cluster: str) -> None:
    def group(body: dict[str, object]) -> str:
        answer = brain.call("POST", f"/api/clusters/{cluster}/jobs", {**body, "payload": {}})
        return str(brain.outcome(answer.json["job"]["id"])["group"])

    assert group({"to": "Hands"}) == "Hands"
    assert group({"capability": "handiwork"}) == "Hands"
    assert group({}) == "Boss"
    nobody = brain.call("POST", f"/api/clusters/{cluster}/jobs", {"to": "Feet", "payload": {}})
    assert nobody.status == 422
    assert "'Hands'" in nobody.json["errors"][0]["detail"]


def test_an_agent_with_two_slots_does_two_jobs_at_once(brain: Brain, cluster: str) -> None:
    gate = brain.gate()
    jobs = [brain.job(cluster, "Twos", gate=str(gate)) for _ in range(2)]
    pids = {brain.until_begun(job)["pid"] for job in jobs}
    assert len(pids) == 1
    gate.touch()
    assert {brain.outcome(job)["status"] for job in jobs} == {"succeeded"}


def test_a_plain_celery_client_gets_its_result_and_rest_knows_the_job_too(brain: Brain, cluster: str) -> None:
    queue = brain.queue(cluster, "Hands")
    with brain.celery() as app:
        sent = app.send_task("brain.job", [{"say": "from outside"}], queue=queue)
        assert sent.get(timeout=60)["said"] == "from outside"
        done = brain.outcome(sent.id)
        assert done | {"status": "succeeded", "cluster_id": cluster, "group": "Hands"} == done
        failed = app.send_task("brain.job", kwargs={"payload": {"fail": "no"}}, queue=queue)
        with pytest.raises(Exception, match="no"):
            failed.get(timeout=60)
        assert brain.outcome(failed.id)["error"]["message"] == "no"


def test_a_plain_celery_client_wakes_a_sleeping_cluster(brain: Brain, measured: Measured) -> None:
    cluster = brain.cluster(target_workers=1)
    queue = brain.queue(cluster, "Hands")
    brain.command("POST", f"/api/clusters/{cluster}/hibernate")
    with brain.celery() as app:
        sent_at = time.time()
        sent = app.send_task("brain.job", [{"say": "wake up"}], queue=queue)
        assert sent.get(timeout=60)["said"] == "wake up"
    measured("a plain Celery client's job wakes a cluster (tick 0.5 s)", brain.marks(sent.id)[0]["at"] - sent_at)
    until(lambda: brain.seen(cluster)["status"] == "active", "it is awake")
    brain.command("DELETE", f"/api/clusters/{cluster}")


def test_a_job_by_rest_wakes_a_sleeping_cluster_at_once(brain: Brain, measured: Measured) -> None:
    cluster = brain.cluster(target_workers=2)
    brain.command("POST", f"/api/clusters/{cluster}/hibernate")
    sent_at = time.time()
    job = brain.job(cluster)
    measured("a job by REST wakes a cluster, to the handler's first line", brain.until_begun(job)["at"] - sent_at)
    assert brain.outcome(job)["status"] == "succeeded"
    brain.command("DELETE", f"/api/clusters/{cluster}")


def test_a_job_that_kills_its_agents_is_given_up_and_the_others_run(brain: Brain, measured: Measured) -> None:
    cluster = brain.cluster(target_workers=2)
    began = time.monotonic()
    poison = brain.job(cluster, kill=True)
    others = [brain.job(cluster, say=n) for n in range(5)]
    failed = brain.outcome(poison)
    measured("a poison job is given up after 3 dead agents", time.monotonic() - began)
    assert failed["status"] == "dead"
    assert failed["error"]["type"] == "AgentDied"
    assert "3 agents died" in failed["error"]["message"]
    assert len({mark["pid"] for mark in brain.marks(poison)}) == 3
    assert [brain.outcome(job)["status"] for job in others] == ["succeeded"] * 5
    brain.until_agents(cluster, 2)
    brain.command("DELETE", f"/api/clusters/{cluster}")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(([1, 2],), "one argument"), (([], {"load": 1}), "one argument"), (([None],), "NoneType")],
)
def test_a_job_with_strange_arguments_fails_and_the_queue_goes_on(
    brain: Brain, cluster: str, arguments: tuple[object, ...], reason: str
) -> None:
    queue = brain.queue(cluster, "Hands")
    with brain.celery() as app:
        sent: AsyncResult = app.send_task("brain.job", *arguments, queue=queue)
        assert reason in brain.outcome(sent.id)["error"]["message"]
        assert app.send_task("brain.job", [{"say": 1}], queue=queue).get(timeout=60)["said"] == 1


def test_junk_in_a_group_s_queue_does_not_stop_it(brain: Brain, cluster: str) -> None:
    queue = brain.queue(cluster, "Boss")
    with brain.redis() as client, brain.celery() as app:
        client.lpush(queue, b"\x80\x04junk", b"{}", b'{"body": "x"}', b"[" * 10_000)
        app.send_task("somebody.elses", [1], queue=queue)
        app.send_task("brain.job", [{"say": "pickled"}], queue=queue, serializer="pickle")
        assert app.send_task("brain.job", [{"say": "fine"}], queue=queue).get(timeout=60)["said"] == "fine"
        until(lambda: client.llen(queue) == 0, "the queue is empty")
    assert len(brain.agent_processes(cluster)) == len(brain.agents(cluster))


def test_a_job_that_expired_before_an_agent_took_it_is_not_done(brain: Brain, cluster: str) -> None:
    late = datetime.now(UTC) - timedelta(seconds=10)
    with brain.celery() as app:
        sent = app.send_task("brain.job", [{}], queue=brain.queue(cluster, "Hands"), expires=late)
        with pytest.raises(TaskRevokedError):
            sent.get(timeout=60)
    assert brain.marks(sent.id) == []


TEAM = """
metadata: {id: team, name: Team, version: "1"}
cluster: {type: persistent, min_workers: 1, max_workers: 4, scaling: {cooldown_period: 1s}}
agents:
  - {role: supervisor, name: Lead, count: 1, handler: "team:lead"}
  - {role: worker, name: Staff, count: 0-3, handler: "team:part"}
resources: {memory: {size: 1MB}}
"""
TEAM_HANDLERS = """
def lead(payload, context):
    if context.results is None:
        return context.delegate("Staff", payload["parts"], state=context.memory.incr("trees"))
    return {"tree": context.state, "parts": [found["result"] for found in context.results]}

def part(payload, context):
    return {"part": payload, "nth": context.memory.incr("parts")}
"""


def test_a_supervisor_hands_work_down_to_a_group_that_sleeps_and_the_memory_outlasts_a_night(brain: Brain) -> None:
    (brain.workshop / "team.py").write_text(TEAM_HANDLERS)
    assert brain.call("POST", "/api/blueprints", {"yaml": TEAM}).status == 201
    cluster = brain.cluster("team")
    assert [agent.split(".")[1] for agent in brain.agent_processes(cluster)] == ["lead"]
    first = brain.outcome(brain.job(cluster, to="Lead", parts=["a", "b", "c"]))
    assert (first["status"], first["attempts"], first["result"]["tree"]) == ("succeeded", 1, 1)
    assert [found["part"] for found in first["result"]["parts"]] == ["a", "b", "c"]
    assert {found["nth"] for found in first["result"]["parts"]} == {1, 2, 3}
    brain.command("POST", f"/api/clusters/{cluster}/hibernate")
    assert brain.agent_processes(cluster) == {}
    second = brain.outcome(brain.job(cluster, to="Lead", parts=["d"]))
    assert second["result"] == {"tree": 2, "parts": [{"part": "d", "nth": 4}]}
    for job, size in ((first, 3), (second, 1)):
        tree = brain.get(f"/api/jobs/{job['id']}/tree")
        assert tree["totals"]["by_status"] == {"succeeded": 1 + size}
        top = tree["tree"]
        assert (top["id"], top["group"], top["status"]) == (job["id"], "Lead", "succeeded")
        assert [(child["group"], child["children"]) for child in top["children"]] == [("Staff", [])] * size
    brain.command("DELETE", f"/api/clusters/{cluster}")
