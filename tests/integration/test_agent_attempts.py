"""Jobs that are tried again, expire, are cancelled, or kill their agents: real agents, and any client's messages."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
from celery import Celery

from brain_clusters.broker import names
from brain_clusters.broker.app import make_app
from brain_clusters.broker.jobs import JobRecords, JobReport
from brain_clusters.broker.restore import restore
from brain_clusters.domain.states import JobStatus
from tests.integration.agents import Agent, AgentStage, stage_fixtures

WORK = "tried_work:work"
HANDLER = """
import os, signal
import redis
from brain_clusters.agent.errors import HandlerError, JobCancelled, Retry

client = redis.Redis.from_url({url!r})

def work(payload, context):
    client.rpush("begun", f"{{context.job_id}} {{context.attempt}}")
    if context.attempt > payload.get("times", 99):
        return context.attempt
    how = payload["how"]
    if how == "wait":
        client.blpop("gate", 30)
        return "waited"
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    raise {{"raise": ValueError("no"), "refuse": HandlerError("never"), "again": Retry(0.01, "busy"),
           "cancel": JobCancelled("stopped")}}[how]
"""


shared_stage, stage = stage_fixtures({"tried_work": HANDLER})


@pytest.fixture
def plain(redis_url: str) -> Iterator[Celery]:
    """A client as anybody has one."""
    with Celery(broker=redis_url, set_as_current=False) as app:
        yield app


def sent(plain: Celery, queue: str, how: str, times: int = 99, **options: Any) -> str:
    headers = {names.OPTIONS_HEADER: options} if options else {}
    payload = {"how": how, "times": times}
    return str(plain.send_task(names.JOB_TASK, [payload], queue=queue, headers=headers).id)


def ended(stage: AgentStage, job_id: str) -> JobReport:
    """Return the report of a job as soon as it is finished."""
    records = JobRecords(stage.redis)

    def found() -> JobReport | None:
        report = records.get([job_id]).get(job_id)
        return report if report is not None and report.finished_at is not None else None

    report: JobReport = stage.until(found, f"the end of {job_id}")
    return report


def nothing_left(stage: AgentStage, agent: Agent) -> bool:
    return not stage.redis.exists(
        names.unacked_key(agent.id), names.eta_key(agent.queue), *names.priority_lists(agent.queue)
    )


@pytest.mark.parametrize("slots", [1, 2], ids=["solo", "threads"])
def test_a_job_is_tried_again_until_it_succeeds(stage: AgentStage, plain: Celery, slots: int) -> None:
    agent = stage.agent(slots, handler=WORK)
    job_id = sent(plain, agent.queue, "raise", 2, max_attempts=3, backoff_seconds=0.02)
    report = ended(stage, job_id)
    assert (report.status, report.attempts, report.result, report.error) == (JobStatus.SUCCEEDED, 3, 3, None)
    assert stage.list("begun") == [f"{job_id} {number}" for number in (1, 2, 3)]
    assert nothing_left(stage, agent)
    assert [found.id for _, found in JobRecords(stage.redis).finished(10)] == [job_id]


@pytest.mark.parametrize(
    ("how", "options", "status", "attempts"),
    [
        ("raise", {}, JobStatus.FAILED, 1),
        ("raise", {"max_attempts": 2, "backoff_seconds": 0.01}, JobStatus.DEAD, 2),
        ("again", {}, JobStatus.DEAD, 3),
        ("refuse", {"max_attempts": 5}, JobStatus.FAILED, 1),
        ("cancel", {"max_attempts": 5}, JobStatus.CANCELLED, 1),
        ("raise", {"expires_at": 1.0}, JobStatus.FAILED, 0),
    ],
)
def test_a_job_ends_as_its_options_say(
    stage: AgentStage, plain: Celery, how: str, options: dict[str, Any], status: JobStatus, attempts: int
) -> None:
    agent = stage.agent(handler=WORK)
    report = ended(stage, sent(plain, agent.queue, how, **options))
    assert (report.status, report.attempts) == (status, attempts)
    assert report.error is not None
    assert len(stage.list("begun")) == attempts
    assert nothing_left(stage, agent)


def test_a_cancelled_job_is_not_begun(stage: AgentStage, plain: Celery) -> None:
    queue = "cancelled-before"
    job_id = sent(plain, queue, "raise")
    stage.redis.set(names.cancel_key(job_id), "{}")
    stage.agent(queue=queue, handler=WORK)
    assert ended(stage, job_id).status is JobStatus.CANCELLED
    assert stage.list("begun") == []


@pytest.mark.parametrize("options", [{}, {"max_attempts": 2}], ids=["max_deliveries", "max_attempts"])
def test_a_job_that_kills_its_agents_is_dead_after_as_many(
    stage: AgentStage, plain: Celery, options: dict[str, Any]
) -> None:
    job_id = sent(plain, "deadly", "die", **options)
    for _ in range(2):
        agent = stage.agent(queue="deadly", max_deliveries=2, handler=WORK)
        assert agent.until_ended() == -9
        restore(stage.redis, agent.id)
    last = stage.agent(queue="deadly", max_deliveries=2, handler=WORK)
    report = ended(stage, job_id)
    assert (report.status, report.attempts) == (JobStatus.DEAD, 2)
    assert report.error == {"type": "AgentDied", "message": "2 agents died while they did this job; given up"}
    assert nothing_left(stage, last)


def test_what_waits_for_its_next_attempt_is_parked_and_counted_as_queued(stage: AgentStage, plain: Celery) -> None:
    agent = stage.agent(handler=WORK)
    job_id = sent(plain, agent.queue, "raise", max_attempts=3, backoff_seconds=200)
    stage.until(lambda: stage.redis.zcard(names.eta_key(agent.queue)))
    report = JobRecords(stage.redis).get([job_id])[job_id]
    assert (report.status, report.attempts, report.finished_at) == (JobStatus.QUEUED, 1, None)
    assert report.error is not None
    [(message, due)] = stage.redis.zrange(names.eta_key(agent.queue), 0, -1, withscores=True)  # type: ignore[misc]
    assert json.loads(message)["headers"]["id"] == job_id
    assert time.time() < due < time.time() + 201
    assert not stage.redis.exists(names.unacked_key(agent.id))
    assert JobRecords(stage.redis).finished(10) == []


def test_a_sender_cannot_say_how_often_its_job_was_delivered(stage: AgentStage, plain: Celery) -> None:
    agent = stage.agent(handler=WORK)
    forged = {names.DELIVERY_HEADER: {"attempt": 77, "tag": "x", "queue": "y"}}
    job_id = plain.send_task(names.JOB_TASK, [{"times": 0}], queue=agent.queue, headers=forged).id
    assert ended(stage, job_id).attempts == 1


def test_what_a_living_agent_gives_back_unbegun_was_no_attempt(
    redis_url: str, stage: AgentStage, plain: Celery
) -> None:
    """As when it stops, or loses its connection, between a delivery and the beginning."""
    job_id = sent(plain, "given-back", "raise")
    app = make_app(redis_url, owner="gives-back")
    given: list[Any] = []
    with app.connection_for_read() as connection:
        with connection.Consumer(app.amqp.queues["given-back"], on_message=given.append, accept=["json"]):
            connection.drain_events(timeout=5)
        record: dict[bytes, bytes] = stage.redis.hgetall(names.job_key(job_id))  # type: ignore[assignment]
        assert (record[b"status"], record[b"attempts"]) == (b"running", b"1")
    app.close()
    assert len(given) == 1
    record = stage.redis.hgetall(names.job_key(job_id))  # type: ignore[assignment]
    assert (record[b"status"], record[b"attempts"]) == (b"queued", b"0")
    assert stage.redis.llen("given-back") == 1
    assert not stage.redis.exists(names.unacked_key("gives-back"))


@pytest.mark.parametrize("slots", [1, 2], ids=["solo", "threads"])
def test_a_job_that_runs_while_its_agents_connections_are_cut_runs_once(
    stage: AgentStage, plain: Celery, slots: int
) -> None:
    agent = stage.agent(slots, handler=WORK)
    first = sent(plain, agent.queue, "wait")
    stage.until(lambda: stage.list("begun"))
    cut: Any = stage.redis.client_list()
    for one in cut:
        if one["name"] == agent.id:
            with suppress(redis.ResponseError):
                stage.redis.client_kill_filter(_id=one["id"])
    if slots > 1:  # the free slot shows that it consumes again
        assert ended(stage, sent(plain, agent.queue, "raise", 0)).status is JobStatus.SUCCEEDED
    stage.redis.rpush("gate", "open")
    assert ended(stage, first).result == "waited"
    assert ended(stage, sent(plain, agent.queue, "raise", 0)).attempts == 1
    assert stage.list("begun").count(f"{first} 1") == 1
    assert len(stage.list("begun")) == slots + 1
    stage.until(lambda: nothing_left(stage, agent))


def test_a_record_that_is_no_record_stops_no_queue(stage: AgentStage, plain: Celery) -> None:
    queue = "odd-records"
    odd, sound = sent(plain, queue, "raise", 0), sent(plain, queue, "raise", 0)
    stage.redis.rpush(names.job_key(odd), "what users' code can write")
    stage.agent(2, queue=queue, handler=WORK)
    assert ended(stage, sound).status is JobStatus.SUCCEEDED


def test_a_job_of_high_priority_is_put_back_where_it_was(stage: AgentStage, plain: Celery) -> None:
    high = names.high_list("urgent")
    job_id = sent(plain, high, "die")
    agent = stage.agent(queue="urgent", handler=WORK)
    assert agent.until_ended() == -9
    assert stage.list("begun") == [f"{job_id} 1"]
    assert restore(stage.redis, agent.id) == 1
    assert stage.redis.llen(high) == 1
