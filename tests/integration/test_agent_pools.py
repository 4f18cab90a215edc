"""Every pool does its jobs, ends those that take too long or are cancelled, drains, and loses nothing when it dies."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

from brain_clusters.agent.pools import refuse_missing_gevent
from brain_clusters.agent.watch import EXIT_STUCK
from brain_clusters.broker import names
from brain_clusters.errors import PermanentError
from tests.integration.agents import AgentStage, stage_fixtures

Until = Callable[..., Any]
WORK = "pooled_work:work"

# Does what the payload says.
HANDLERS = """
import asyncio
import os
import time
import redis

def client():
    return redis.Redis.from_url({url!r}, socket_timeout=60)

def work(payload, context):
    with client() as found:
        found.rpush("begun", f"{{os.getpid()}} {{context.attempt}}")
        context.log.info("begun")
        if payload.get("raise"):
            raise ValueError(payload["raise"])
        if "gate" in payload:
            found.blpop(payload["gate"], 50)
    if payload.get("sleep"):
        try:
            time.sleep(50)
        finally:
            with client() as found:
                found.rpush("ended", str(context.cancelled))
    if payload.get("spin"):
        end = time.monotonic() + 50
        while time.monotonic() < end:
            pass
    if payload.get("cooperative"):
        while not context.cancelled:
            time.sleep(0.01)
        return "in time"
    if payload.get("stuck"):
        import ctypes
        ctypes.PyDLL(None).sleep(50)  # holds the interpreter, as bad code in C does
    return {{"did": payload}}

async def later(payload, context):
    with client() as found:
        found.rpush("begun", f"{{os.getpid()}} {{context.attempt}}")
    loop = asyncio.get_running_loop()
    try:
        await asyncio.sleep(payload.get("sleep", 0))
    except asyncio.CancelledError:
        with client() as found:
            found.rpush("ended", str(context.cancelled))
        raise
    return id(loop)

def steps(payload, context):
    for number in range(4):
        yield number / 4, f"step {{number}}"
        if number == payload.get("wait_at"):
            with client() as found:
                found.blpop("gate", 50)
    return "all"

async def steps_later(payload, context):
    yield 0.5
    yield {{"fraction": 0.75, "message": "soon"}}
    yield None
    yield {{"result": "all, later"}}

def in_pieces(payload, context):
    before = context.restored
    if before is None:
        context.checkpoint({{"pieces": [1, 2]}})
        os.kill(os.getpid(), 9)
    return [before, context.attempt]
"""

WITH_GEVENT = pytest.param(
    "gevent",
    3,
    marks=pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="gevent is not installed"),
)
POOLS = [pytest.param("solo", 1), pytest.param("threads", 3), pytest.param("prefork", 2), WITH_GEVENT]
every_pool = pytest.mark.parametrize(("pool", "slots"), POOLS)


shared_stage, stage = stage_fixtures({"pooled_work": HANDLERS}, stuck_after=0.5)


def outcome(stage: AgentStage, job_id: str) -> tuple[str, Any]:
    """Wait for a job's end; return its status and its result, or its error's type."""
    stage.until(lambda: stage.record(job_id).get("status") not in (None, "queued", "running"), f"the end of {job_id}")
    record = stage.record(job_id)
    error = json.loads(record.get("error") or "null")
    return record["status"], error["type"] if error else json.loads(record["result"])


def cancel(stage: AgentStage, job_id: str, grace: float) -> None:
    stage.redis.set(names.cancel_key(job_id), json.dumps({"at": 0, "grace": grace}))


def begun(stage: AgentStage, number: int = 1) -> list[str]:
    stage.until(lambda: len(stage.list("begun")) >= number, f"{number} have begun")
    return stage.list("begun")


@every_pool
def test_jobs_succeed_and_fail_and_are_counted(stage: AgentStage, until: Until, pool: str, slots: int) -> None:
    agent = stage.agent(slots, pool=pool, handler=WORK)
    good = [stage.post(agent.queue, {"n": number}) for number in range(5)]
    bad = stage.post(agent.queue, {"raise": "no good"})
    assert [outcome(stage, job_id) for job_id in good] == [("succeeded", {"did": {"n": number}}) for number in range(5)]
    assert outcome(stage, bad) == ("failed", "ValueError")
    until(lambda: (agent.beat["completed"], agent.beat["failed"], agent.beat["in_flight"]) == (5, 1, 0))
    assert agent.beat["service_time"] > 0
    assert any("begun" in line and good[0] in line for line in agent.log.splitlines())
    agent.signal(signal.SIGTERM)
    assert agent.until_ended() == 0


@every_pool
def test_all_slots_work_at_once_and_the_beat_says_so(stage: AgentStage, until: Until, pool: str, slots: int) -> None:
    agent = stage.agent(slots, pool=pool, handler=WORK)
    jobs = [stage.post(agent.queue, {"gate": "gate"}) for _ in range(slots)]
    begun(stage, slots)
    until(lambda: agent.beat["in_flight"] == slots)
    agent.tell(True)
    until(lambda: agent.beat["draining"])
    stage.redis.rpush("gate", *["open"] * slots)
    assert {outcome(stage, job_id)[0] for job_id in jobs} == {"succeeded"}
    assert agent.until_ended() == 0


@every_pool
def test_an_attempt_that_waits_too_long_is_ended(stage: AgentStage, pool: str, slots: int) -> None:
    agent = stage.agent(slots, pool=pool, handler=WORK, timeout_seconds=0.3)
    late = stage.post(agent.queue, {"sleep": True})
    if pool == "threads":  # a system call in a thread cannot be interrupted, so the agent leaves
        assert agent.until_ended() == EXIT_STUCK
        assert stage.waiting(agent) == 1
        stage.agent(slots, pool=pool, handler=WORK, queue=agent.queue, max_attempts=1)
        assert outcome(stage, late) == ("dead", "JobTimeout")
        return
    assert outcome(stage, late) == ("failed", "JobTimeout")
    assert stage.list("ended") == ["True"]
    assert outcome(stage, stage.post(agent.queue, {"n": 1}))[0] == "succeeded"
    assert agent.code is None


@pytest.mark.parametrize(("pool", "slots"), POOLS[:3])
def test_code_that_computes_too_long_is_ended(stage: AgentStage, pool: str, slots: int) -> None:
    agent = stage.agent(slots, pool=pool, handler=WORK, timeout_seconds=0.3)
    assert outcome(stage, stage.post(agent.queue, {"spin": True})) == ("failed", "JobTimeout")
    assert outcome(stage, stage.post(agent.queue, {"n": 1}))[0] == "succeeded"
    assert agent.code is None


@pytest.mark.parametrize(
    ("pool", "slots", "doing"), [("solo", 1, "stuck"), pytest.param("gevent", 3, "spin", marks=WITH_GEVENT.marks)]
)
def test_code_that_lets_nothing_else_run_is_ended_with_its_agent(
    stage: AgentStage, pool: str, slots: int, doing: str
) -> None:
    agent = stage.agent(slots, pool=pool, handler=WORK, timeout_seconds=0.3)
    stage.post(agent.queue, {doing: True})
    assert agent.until_ended() == 1
    assert "pooled_work.py" in agent.log
    assert stage.waiting(agent) == 1


@every_pool
def test_a_running_job_that_is_cancelled_ends_and_its_agent_goes_on(stage: AgentStage, pool: str, slots: int) -> None:
    agent = stage.agent(slots, pool=pool, handler=WORK)
    doing = "spin" if pool == "threads" else "sleep"
    job_id = stage.post(agent.queue, {doing: True})
    begun(stage)
    cancel(stage, job_id, grace=0)
    assert outcome(stage, job_id)[1] == "JobCancelled"
    assert outcome(stage, stage.post(agent.queue, {"n": 1}))[0] == "succeeded"
    assert agent.code is None


@every_pool
def test_a_cancelled_job_is_asked_before_it_is_ended(stage: AgentStage, pool: str, slots: int) -> None:
    agent = stage.agent(slots, pool=pool, handler=WORK)
    job_id = stage.post(agent.queue, {"cooperative": True})
    begun(stage)
    cancel(stage, job_id, grace=50)
    assert outcome(stage, job_id) == ("succeeded", "in time")


@pytest.mark.parametrize(("pool", "slots"), [pytest.param("solo", 1), pytest.param("threads", 3)])
def test_a_killed_agent_returns_all_that_it_did(stage: AgentStage, pool: str, slots: int) -> None:
    agent = stage.agent(slots, pool=pool, handler=WORK)
    for _ in range(slots):
        stage.post(agent.queue, {"gate": "gate"})
    begun(stage, slots)
    agent.signal(signal.SIGKILL)
    assert agent.until_ended() == -signal.SIGKILL
    assert stage.waiting(agent) == slots


def test_a_killed_child_returns_its_job_and_is_replaced(stage: AgentStage, until: Until) -> None:
    agent = stage.agent(2, pool="prefork", handler=WORK)
    job_id = stage.post(agent.queue, {"gate": "gate"})
    child, attempt = begun(stage)[0].split()
    assert (int(child) != agent.pid, attempt) == (True, "1")
    until(lambda: agent.beat["in_flight"] == 1)
    os.kill(int(child), signal.SIGKILL)
    assert begun(stage, 2)[1].split()[1] == "2"
    until(lambda: agent.beat["in_flight"] == 1)
    stage.redis.rpush("gate", "open", "open")
    assert outcome(stage, job_id)[0] == "succeeded"
    until(lambda: (agent.beat["in_flight"], agent.beat["completed"]) == (0, 1))
    assert agent.code is None


def test_children_do_not_outlive_their_agent(stage: AgentStage, until: Until) -> None:
    agent = stage.agent(2, pool="prefork", handler=WORK)
    stage.post(agent.queue, {"gate": "gate"})
    child = int(begun(stage)[0].split()[0])
    agent.signal(signal.SIGKILL)
    assert agent.until_ended() == -signal.SIGKILL
    until(lambda: not os.path.exists(f"/proc/{child}"), "the end of the child")
    assert stage.waiting(agent) == 1


# --- kinds of handlers --------------------------------------------------------------------------------------------


@every_pool
def test_coroutines_of_one_process_share_one_loop_and_can_be_cancelled(
    stage: AgentStage, pool: str, slots: int
) -> None:
    agent = stage.agent(slots, pool=pool, handler="pooled_work:later", timeout_seconds=20)
    loops = {outcome(stage, stage.post(agent.queue, {}))[1] for _ in range(4)}
    assert len(loops) <= (slots if pool == "prefork" else 1)
    job_id = stage.post(agent.queue, {"sleep": 50})
    begun(stage, 5)
    cancel(stage, job_id, grace=0)
    assert outcome(stage, job_id)[1] == "JobCancelled"
    assert stage.list("ended") == ["True"]
    assert agent.code is None


def test_many_coroutines_run_at_once(stage: AgentStage, until: Until) -> None:
    agent = stage.agent(20, handler="pooled_work:later")
    jobs = [stage.post(agent.queue, {"sleep": 0.2}) for _ in range(40)]
    assert {outcome(stage, job_id)[0] for job_id in jobs} == {"succeeded"}


def test_what_generators_yield_is_progress_that_the_record_shows(stage: AgentStage, until: Until) -> None:
    agent = stage.agent(1, handler="pooled_work:steps")
    job_id = stage.post(agent.queue, {"wait_at": 0})
    until(lambda: "progress" in stage.record(job_id))
    progress = json.loads(stage.record(job_id)["progress"])
    assert (progress["fraction"], progress["message"]) == (0.0, "step 0")
    stage.redis.rpush("gate", "open")
    assert outcome(stage, job_id) == ("succeeded", "all")
    other = stage.agent(1, handler="pooled_work:steps_later")
    job_id = stage.post(other.queue, {})
    assert outcome(stage, job_id) == ("succeeded", "all, later")


def test_a_checkpoint_outlives_the_agent(stage: AgentStage) -> None:
    first = stage.agent(1, handler="pooled_work:in_pieces")
    job_id = stage.post(first.queue, {})
    assert first.until_ended() == -signal.SIGKILL
    assert stage.waiting(first) == 1
    stage.agent(1, handler="pooled_work:in_pieces", queue=first.queue)
    assert outcome(stage, job_id) == ("succeeded", [{"pieces": [1, 2]}, 2])


@every_pool
def test_a_command_is_ended_with_its_whole_group(stage: AgentStage, until: Until, pool: str, slots: int) -> None:
    pids = stage.folder / f"pids-{pool}"
    script = f"sleep 50 & echo $! >{pids}.new; mv {pids}.new {pids}; trap '' TERM; sleep 50; sleep 50"
    agent = stage.agent(slots, pool=pool, command=("/bin/sh", "-c", script))
    job_id = stage.post(agent.queue, {})
    until(pids.exists)
    cancel(stage, job_id, grace=0.1)
    assert outcome(stage, job_id)[1] == "JobCancelled"
    until(lambda: not os.path.exists(f"/proc/{pids.read_text().strip()}"), "the end of the grandchild")
    assert agent.code is None


# --- what is not there --------------------------------------------------------------------------------------------


def test_an_agent_on_gevent_says_when_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gevent", None)
    with pytest.raises(PermanentError, match=r"pool is gevent, which is not installed: pip install 'brain-clusters"):
        refuse_missing_gevent()
