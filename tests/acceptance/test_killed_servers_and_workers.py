"""kill -9 of the lifecycle worker, of Redis and of PostgreSQL, and a Redis that lost everything, all under load."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .brain import Brain, until

Measured = Callable[[str, float], None]
STEPS = ("claimed", "planned", "committed")


@pytest.fixture(scope="module")
def armed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By step of an operation: the file that, once it is there, has the next worker killed at that step."""
    folder = tmp_path_factory.mktemp("armed")
    return {step: folder / step for step in (*STEPS, "recorded")}


@pytest.fixture(scope="module")
def brain(brain_with: Callable[..., Brain], armed: dict[str, Path]) -> Brain:
    """A system whose workers can be killed at each step of an operation, and its API before it publishes one."""
    return brain_with(BRAIN_FAILPOINT=",".join(f"{step}:kill:{path}" for step, path in armed.items()))


@pytest.mark.parametrize("step", STEPS)
def test_an_operation_completes_once_though_its_worker_is_killed(
    brain: Brain, measured: Measured, armed: dict[str, Path], step: str
) -> None:
    cluster, worker = brain.cluster(target_workers=2), brain.child("worker")
    armed[step].touch()
    began = time.monotonic()
    answer = brain.call("POST", f"/api/clusters/{cluster}/scale", {"target_workers": 5})
    assert answer.status == 202
    operation = f"/api/operations/{answer.json['operation']['id']}"
    until(lambda: brain.get(operation)["status"] in ("succeeded", "failed"), "the operation is done")
    measured(f"an operation whose worker is killed when it has {step}, completes", time.monotonic() - began)
    done = brain.get(operation)
    assert done | {"status": "succeeded", "error": None} == done
    assert not armed[step].exists()
    assert brain.child("worker") != worker
    brain.until_agents(cluster, 5)
    assert len(brain.agents(cluster, "?ended=true")) == 5
    brain.command("DELETE", f"/api/clusters/{cluster}")


def test_a_command_survives_the_api_that_accepted_it_and_a_retry_finds_it(brain: Brain, armed: dict[str, Path]) -> None:
    cluster, key = brain.cluster(target_workers=2), "scale-once"
    path, wanted = f"/api/clusters/{cluster}/scale", {"target_workers": 4}
    armed["recorded"].touch()
    with pytest.raises((OSError, http.client.HTTPException)):
        brain.call("POST", path, wanted, Idempotency_Key=key)
    assert not armed["recorded"].exists()

    def again() -> Any:
        try:
            return brain.call("POST", path, wanted, Idempotency_Key=key)
        except (OSError, http.client.HTTPException):
            return None  # gunicorn has not replaced its worker yet

    answer = until(again, "the API answers again")
    assert answer.status == 202
    assert answer.headers["Idempotency-Replayed"] == "true"
    operation = f"/api/operations/{answer.json['operation']['id']}"
    until(lambda: brain.get(operation)["status"] == "succeeded", "the sweep delivered it and it is done")
    brain.until_agents(cluster, 4)
    commands = brain.get(f"/api/operations?cluster_id={cluster}")["operations"]
    assert [one["kind"] for one in commands] == ["scale", "create"]
    brain.command("DELETE", f"/api/clusters/{cluster}")


class Load:
    """Somebody who sends jobs and commands all the time and takes note of what was accepted."""

    def __init__(self, brain: Brain, cluster: str) -> None:
        self._brain, self._cluster = brain, cluster
        self._stopped = threading.Event()
        self.jobs: list[str] = []
        self.operations: list[str] = []
        self.refusals: Counter[int] = Counter()
        self.strange: list[Any] = []

    def run(self) -> None:
        """Send until stopped: ten jobs, then a command."""
        number = 0
        while not self._stopped.wait(0.02):
            number += 1
            if number % 10:
                self._send("jobs", {"to": "Hands", "payload": {"sleep": 0.05}}, self.jobs, "job")
            else:
                self._send("scale", {"groups": {"Hands": 3 + number // 10 % 3}}, self.operations, "operation")

    def _send(self, path: str, body: Any, accepted: list[str], what: str) -> None:
        try:
            answer = self._brain.call("POST", f"/api/clusters/{self._cluster}/{path}", body)
        except (OSError, http.client.HTTPException) as exc:
            self.strange.append(exc)
            return
        if answer.status == 202:
            accepted.append(answer.json[what]["id"])
        elif answer.status == 503 and answer.headers.get("Retry-After"):
            self.refusals[503] += 1
        else:
            self.strange.append(answer)

    def stop(self) -> None:
        """Send no more."""
        self._stopped.set()


@contextmanager
def nobody_else_ends(brain: Brain) -> Iterator[None]:
    """Require that all our own processes live through what is done in between."""
    names = ("api", "worker", "beat", "host")
    before = {name: brain.child(name) for name in names}
    yield
    assert {name: brain.child(name) for name in names} == before


@contextmanager
def load(brain: Brain, cluster: str) -> Iterator[Load]:
    """Keep ``cluster`` under load; at the end everything that was accepted must have been done."""
    sender = Load(brain, cluster)
    thread = threading.Thread(target=sender.run)
    thread.start()
    try:
        until(lambda: len(sender.jobs) > 20, "the load began")
        yield sender
    finally:
        sender.stop()
        thread.join()
    assert sender.strange == []
    for job in sender.jobs:
        done = brain.outcome(job)
        assert done["status"] == "succeeded", done

    def all_done() -> bool:
        return all(brain.get(f"/api/operations/{one}")["status"] == "succeeded" for one in sender.operations)

    until(all_done, "every accepted command succeeded")


def more(sender: Load, count: int) -> None:
    """Wait until ``count`` more jobs were accepted."""
    wanted = len(sender.jobs) + count
    until(lambda: len(sender.jobs) >= wanted, f"{count} more jobs were accepted")


def test_nothing_accepted_is_lost_when_redis_is_killed(brain: Brain, measured: Measured) -> None:
    cluster, gate = brain.cluster(target_workers=4), brain.gate()
    running = brain.job(cluster, gate=str(gate))
    brain.until_begun(running)
    with load(brain, cluster) as sender:
        began = time.monotonic()
        with nobody_else_ends(brain):
            brain.kill_server("valkey")
            more(sender, 20)
            brain.outcome(sender.jobs[-1])
        measured("Redis is killed: until a job that was sent afterwards is done", time.monotonic() - began)
        gate.touch()
    assert brain.outcome(running)["status"] == "succeeded"
    assert not sender.refusals
    brain.command("DELETE", f"/api/clusters/{cluster}")


def test_nothing_accepted_is_lost_when_redis_loses_everything(brain: Brain, measured: Measured) -> None:
    cluster, gate = brain.cluster(target_workers=4), brain.gate()
    running = brain.job(cluster, gate=str(gate))
    brain.until_begun(running)
    waiting = [brain.job(cluster, "Twos", sleep=0.01) for _ in range(20)]
    with load(brain, cluster) as sender, brain.redis() as client:
        began = time.monotonic()
        client.flushall()
        more(sender, 20)
        gate.touch()
    for job in waiting:
        assert brain.outcome(job)["status"] == "succeeded"
    assert brain.outcome(running)["status"] == "succeeded"
    measured("Redis lost everything: until all accepted jobs are done", time.monotonic() - began)
    brain.command("DELETE", f"/api/clusters/{cluster}")


def test_nothing_accepted_is_lost_when_postgresql_is_killed(brain: Brain, measured: Measured) -> None:
    cluster, gate = brain.cluster(target_workers=4), brain.gate()
    running = brain.job(cluster, gate=str(gate))
    brain.until_begun(running)
    with load(brain, cluster) as sender:
        began = time.monotonic()
        with nobody_else_ends(brain):
            brain.kill_server("postgres")
            more(sender, 20)
            brain.outcome(sender.jobs[-1])
        measured("PostgreSQL is killed: until a job that was sent afterwards is done", time.monotonic() - began)
        gate.touch()
    assert brain.outcome(running)["attempts"] == 1
    brain.until_agents(cluster, brain.seen(cluster)["target_workers"])
    brain.command("DELETE", f"/api/clusters/{cluster}")


def test_nothing_accepted_is_lost_when_the_worker_and_beat_are_killed(brain: Brain) -> None:
    cluster = brain.cluster(target_workers=4)
    with load(brain, cluster) as sender:
        brain.kill_child("worker")
        more(sender, 20)
        brain.kill_child("beat")
        more(sender, 20)
    brain.until_agents(cluster, brain.seen(cluster)["target_workers"])
    brain.command("DELETE", f"/api/clusters/{cluster}")


def test_two_beats_at_once_scale_no_more_than_one(brain: Brain) -> None:
    text = """
        metadata: {id: growing, name: Growing, version: "1"}
        cluster:
          type: project
          min_workers: 1
          max_workers: 9
          scaling: {target_latency: 1 s, cooldown_period: 60, scale_up: {max_workers: 8, period: 1 s}}
        agents:
          - {role: supervisor, name: Boss, count: 1, handler: "workshop:work"}
          - {role: worker, name: Hands, count: 0-8, handler: "workshop:work"}
    """
    assert brain.call("POST", "/api/blueprints", {"yaml": text}).status == 201
    cluster = brain.cluster("growing", target_workers=1)
    beats = [brain.spawn("beat", log="beat.log") for _ in range(2)]
    try:
        jobs = [brain.job(cluster, sleep=0.2) for _ in range(60)]
        for job in jobs:
            assert brain.outcome(job)["status"] == "succeeded"
    finally:
        for beat in beats:
            beat.terminate()
            beat.wait(30)
    seen = brain.seen(cluster)
    assert 1 < seen["target_workers"] <= 9
    brain.until_agents(cluster, seen["target_workers"])
    events = brain.get(f"/api/clusters/{cluster}/events?limit=200")["events"]
    asked = [event for event in events if event["kind"] == "operation.accepted" and event["actor"] == "autoscaler"]
    # Each decision saw what the one before it had done: none repeats the sizes of another.
    sizes = [tuple(sorted(event["data"]["groups"].items())) for event in asked]
    assert len(sizes) == len(set(sizes)), sizes
    assert len(brain.agents(cluster, "?ended=true")) == seen["target_workers"]
    brain.command("DELETE", f"/api/clusters/{cluster}")
