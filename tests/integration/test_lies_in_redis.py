"""What users' code may write at our keys in Redis: neither the tick nor an agent nor a host may stop for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brain_clusters.broker import names
from brain_clusters.broker.jobs import JobRecords, JobReport
from brain_clusters.broker.restore import restore
from brain_clusters.domain.states import JobStatus
from brain_clusters.services import cancelling, jobs
from tests.integration.agents import AgentStage, Until
from tests.integration.stage import Stage

HANDLER = """
import asyncio
import redis

client = redis.Redis.from_url({url!r})


class Odd(BaseException):
    pass


class Mute(Exception):
    def __str__(self):
        raise ValueError


def work(payload, context):
    own = {{"record": names_of("job", context.job_id), "stream": "brain:finished"}}
    if payload["how"] in own:
        client.delete(own[payload["how"]])
        client.set(own[payload["how"]], "a lie")
        return "done"
    raise {{"odd": Odd("odd"), "interrupt": KeyboardInterrupt(), "cancelled": asyncio.CancelledError(), "mute": Mute(),
           "generator": GeneratorExit()}}[payload["how"]]


def names_of(kind, which):
    return f"brain:{{kind}}:{{which}}"
"""


def report(cluster_id: str, job_id: str) -> JobReport:
    return JobReport(
        id=job_id, cluster_id=cluster_id, group_name="Clerk", agent_id="a", status=JobStatus.SUCCEEDED, attempts=1,
        started_at=1.7e9, finished_at=1.7e9,
    )  # fmt: skip


@pytest.mark.parametrize("key", ["brain:job:JOB", "brain:join:JOB", names.ACCEPTED_STREAM, names.COUNTS, "QUEUE"])
def test_a_key_of_another_type_stops_no_tick(stage: Stage, key: str, caplog: pytest.LogCaptureFixture) -> None:
    cluster_id = stage.active()
    stage.beat(*stage.agents(cluster_id))
    lied, sound = (stage.post(cluster_id, to="Clerk") for _ in range(2))
    queue = names.group_queue(cluster_id, "clerk")
    stage.redis.delete(queue)
    stage.earlier("jobs", "published_at", 60)
    stage.redis.xadd(names.FINISHED_STREAM, {"id": lied.id})
    JobRecords(stage.redis).finish(report(cluster_id, sound.id))
    stage.redis.set(key.replace("JOB", lied.id).replace("QUEUE", queue), "a lie")
    assert stage.tick()
    assert stage.tick()
    assert "tick knows nothing" not in caplog.text
    assert stage.job(sound.id).status is JobStatus.SUCCEEDED
    assert jobs.get(stage.control, lied.id).status is JobStatus.QUEUED
    if key != "QUEUE":
        assert stage.waiting(cluster_id, "clerk") == 1
    assert cancelling.cancel(stage.control, lied.id).status is JobStatus.CANCELLED


def test_a_stream_of_another_type_is_begun_anew(stage: Stage) -> None:
    cluster_id = stage.active()
    stage.redis.set(names.FINISHED_STREAM, "a lie")
    assert stage.tick()
    stage.redis.set(names.FINISHED_STREAM, "a lie")
    JobRecords(stage.redis).finish(report(cluster_id, "sound"))
    assert stage.tick()
    assert stage.job("sound").status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("entry", ["[{}, '', 'q']", "[1, 2, 3]", "7", '[{"headers": {}, "properties": {}}, "", "q"]'])
def test_what_was_never_a_message_is_set_aside_when_its_owner_has_died(stage: Stage, entry: str) -> None:
    stage.redis.hset(names.unacked_key("dead"), "tag", entry.replace("'", '"'))
    assert restore(stage.redis, "dead") == 0
    assert stage.redis.llen(names.UNREADABLE_LIST) == 1


# --- agents -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def agents(redis_url: str, tmp_path_factory: pytest.TempPathFactory, until: Until) -> Iterator[AgentStage]:
    folder: Path = tmp_path_factory.mktemp("agents")
    found = AgentStage(redis_url, folder, until, {"lying_work": HANDLER.format(url=redis_url)})
    yield found
    found.close()


@pytest.mark.parametrize("slots", [1, 2], ids=["solo", "threads"])
def test_whatever_a_handler_raises_or_writes_each_job_has_its_outcome(agents: AgentStage, slots: int) -> None:
    agent = agents.agent(slots, handler="lying_work:work")
    hows = ["odd", "interrupt", "cancelled", "mute", "generator", "record", "stream"]
    sent = {how: agents.post(agent.queue, {"how": how}) for how in hows}
    records = JobRecords(agents.redis)

    def ended() -> dict[str, Any] | None:
        found = records.get(list(sent.values()))
        told = {how: found[one].status for how, one in sent.items() if one in found and found[one].finished_at}
        return told if len(told) == len(sent) else None

    statuses = agents.until(ended, "the end of all jobs")
    assert statuses == {how: JobStatus.SUCCEEDED if how in {"record", "stream"} else JobStatus.FAILED for how in hows}
    agents.until(lambda: not agents.redis.hlen(names.unacked_key(agent.id)), "nothing is held")
    assert agent.code is None
    agents.clear()
