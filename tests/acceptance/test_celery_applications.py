"""An existing Celery application, scaled, put to sleep and woken without changing a line of it."""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import kombu
import pytest
import redis
from celery import chain, chord, group

from .brain import PATIENCE_SECONDS, Brain, until

SETTINGS = """
broker_url = "{redis}/1"
result_backend = "{redis}/2"
task_serializer = "json"
result_serializer = "pickle"
result_accept_content = ["json", "pickle"]
task_default_queue = "studio"
task_routes = {{"studio.tasks.draw": {{"queue": "images"}}, "studio.tasks.post": {{"queue": "mail"}}}}
"""
BLUEPRINT = """
metadata: {{id: studio, name: Studio, version: "1"}}
cluster:
  type: project
  min_workers: 1
  max_workers: 8
  scaling: {{cooldown_period: 1s}}
agents:
  - {{role: supervisor, name: Boss, count: 1}}
  - role: worker
    name: Images
    count: 0-4
    standby: warm
    celery: {{app: "studio.app:app", queues: [images], broker: {broker}}}
  - role: worker
    name: Mail
    count: 0-2
    concurrency: 2
    celery: {{app: "studio.app:app", queues: [mail, studio], broker: {broker}}}
lifecycle:
  hibernate_conditions: [idle_time: 2s]
"""


class Studio:
    """The application as its own users see it, and the cluster that works for it."""

    def __init__(self, brain: Brain, tasks: ModuleType) -> None:
        self.brain, self.tasks = brain, tasks
        self.broker = brain.redis_url.rpartition("/")[0] if brain.redis_url.count("/") > 2 else brain.redis_url
        self.cluster = brain.cluster("studio", id="studio")

    def runs(self, task: str) -> list[dict[str, Any]]:
        path = self.brain.workshop / "studio" / "runs"
        lines = path.read_text().splitlines() if path.exists() else []
        return [run for line in lines if (run := json.loads(line))["task"] == task]

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(f"{self.broker}/1")

    def agents(self, of: str) -> dict[str, list[int]]:
        found = self.brain.agent_processes(self.cluster)
        return {agent: pids for agent, pids in found.items() if agent.startswith(f"{self.cluster}.{of}.")}


@pytest.fixture(scope="module")
def studio(brain_with: Callable[..., Brain]) -> Iterator[Studio]:
    brain = brain_with()
    url = brain.redis_url.rpartition("/")[0] if brain.redis_url.count("/") > 2 else brain.redis_url
    place = brain.workshop / "studio"
    shutil.copytree(Path(__file__).with_name("studio"), place, ignore=shutil.ignore_patterns("__pycache__"))
    (place / "settings.py").write_text(SETTINGS.format(redis=url))
    # Its address has a password, so the blueprint refers to it; who reads it there has to know it from the start.
    brain.stop()
    brain.variables["STUDIO_BROKER"] = f"{url}/1"
    brain.start()
    answer = brain.call("POST", "/api/blueprints", {"yaml": BLUEPRINT.format(broker="env:STUDIO_BROKER")})
    assert answer.status == 201, answer
    sys.path.insert(0, str(brain.workshop))
    try:
        yield Studio(brain, importlib.import_module("studio.tasks"))
    finally:
        sys.path.remove(str(brain.workshop))
        app = importlib.import_module("studio.app").app
        app.close()
        kombu.pools.reset()
        for name in [name for name in sys.modules if name.split(".")[0] == "studio"]:
            del sys.modules[name]


def test_what_waits_brings_workers_from_zero(studio: Studio) -> None:
    assert not studio.agents("images")
    sent = [studio.tasks.draw.delay(number, 0.05) for number in range(30)]
    assert [one.get(timeout=15) for one in sent] == [(number, number * number) for number in range(30)]
    seen = studio.brain.seen(studio.cluster)
    assert seen["status"] in ("active", "scaling_up", "scaling_down", "hibernated")
    until(lambda: studio.brain.seen(studio.cluster)["tasks_completed"] == 30, "thirty tasks are counted")
    costs = studio.brain.call("GET", f"/api/clusters/{studio.cluster}/costs?group_by=group").json
    assert next(row["jobs"]["succeeded"] for row in costs["rows"] if row["group"] == "Images") == 30


def test_a_plain_delay_wakes_what_sleeps_from_what_is_kept_warm(studio: Studio) -> None:
    until(lambda: studio.brain.seen(studio.cluster)["status"] == "hibernated", "the cluster sleeps")
    assert not studio.brain.agent_processes(studio.cluster)
    warm = until(lambda: kept(studio, "Images"), "the host tells of the zygote that it keeps")
    assert (warm["mode"], warm["zygotes"]) == ("warm", 1)
    assert kept(studio, "Mail") is None
    assert studio.tasks.draw.delay(7).get(timeout=PATIENCE_SECONDS) == (7, 49)


def kept(studio: Studio, of: str) -> Any:
    found = studio.brain.seen(studio.cluster)["standby"][of]
    return found if found["memory_bytes"] else None


def test_chains_groups_and_chords_have_the_right_results(studio: Studio) -> None:
    tasks = studio.tasks
    chained = chain(tasks.add.s(1, 2), tasks.add.s(3), tasks.draw.s())()
    grouped = group(tasks.draw.s(number) for number in range(10))()
    mixed = chord([tasks.draw.s(number) for number in range(10)], tasks.mix.s())()
    assert chained.get(timeout=PATIENCE_SECONDS) == (6, 36)
    assert grouped.get(timeout=PATIENCE_SECONDS) == [(number, number * number) for number in range(10)]
    assert mixed.get(timeout=PATIENCE_SECONDS) == 285


def test_retries_wait_and_come_back(studio: Studio) -> None:
    posted, patient = studio.tasks.post.delay("a@b", 2), studio.tasks.patient.delay(2)
    assert posted.get(timeout=PATIENCE_SECONDS) == "a@b"
    assert patient.get(timeout=PATIENCE_SECONDS) == 2
    assert len(studio.runs("post")) == 3
    assert [run["retries"] for run in studio.runs("patient")] == [0, 1, 2]


def test_a_task_that_fails_is_told_and_counted(studio: Studio) -> None:
    before = studio.brain.seen(studio.cluster)["tasks_failed"]
    with pytest.raises(ValueError, match="the paint is dry"):
        studio.tasks.broken.delay().get(timeout=PATIENCE_SECONDS)
    until(lambda: studio.brain.seen(studio.cluster)["tasks_failed"] == before + 1, "the failure is counted")

    def is_told() -> bool:
        agents = studio.brain.agents(studio.cluster, "?ended=true")
        return any(agent["last_error"] == "ValueError: the paint is dry" for agent in agents)

    until(is_told, "the agent's row tells the error")


def test_jobs_of_ours_are_refused(studio: Studio) -> None:
    answer = studio.brain.call("POST", f"/api/clusters/{studio.cluster}/jobs", {"to": "Images", "payload": 1})
    assert answer.status == 422, answer
    assert "studio.app:app" in json.dumps(answer.json)


def test_a_second_cluster_on_the_same_queues_is_refused(studio: Studio) -> None:
    answer = studio.brain.call("POST", "/api/clusters", {"blueprint_id": "studio", "name": "Another"})
    assert answer.status == 409, answer
    assert "'studio' serves the queue" in json.dumps(answer.json)


@pytest.mark.timeout(180)
def test_killed_workers_lose_nothing(studio: Studio) -> None:
    rng, numbers = random.Random(11), range(1000, 1200)
    sent = {number: studio.tasks.draw.delay(number, 0.03) for number in numbers}
    kills = 0

    def kill_one() -> bool:
        nonlocal kills
        done = {run["number"] for run in studio.runs("draw")}
        pids = [pid for pids in studio.agents("images").values() for pid in pids]
        if pids and len(done & set(numbers)) > 40 * kills:
            with suppress(ProcessLookupError):
                os.kill(rng.choice(pids), signal.SIGKILL)
                kills += 1
        return kills >= 4

    until(kill_one, "four workers are killed", 120)
    for number, result in sent.items():
        assert result.get(timeout=PATIENCE_SECONDS) == (number, number * number)
    runs = Counter(run["number"] for run in studio.runs("draw") if run["number"] in numbers)
    assert set(runs) == set(numbers)
    # One task at most for each kill, as each worker does one at a time.
    assert sum(runs.values()) - len(numbers) <= kills
    with studio.redis() as broker:
        until(lambda: not broker.keys("brain:unacked:*"), "nothing is held by the dead")
        assert not broker.keys("brain:dead:*")


def test_destroying_the_cluster_leaves_the_applications_queues_alone(studio: Studio) -> None:
    studio.tasks.add.apply_async((1, 1), countdown=3600)
    with studio.redis() as broker:
        until(lambda: broker.zcard("brain:eta:studio") == 1, "what waits for its time is parked")
        studio.brain.command("DELETE", f"/api/clusters/{studio.cluster}")
        until(lambda: broker.llen("studio") == 1, "it is where the application put it")
        studio.tasks.draw.delay(1)
        assert broker.llen("images") == 1
        assert not broker.exists("brain:eta:studio")
