"""Agents that are started by themselves, as containers and pods start theirs: here as plain processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis

from brain_clusters.broker import names
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.domain.engines import Engine
from brain_clusters.domain.work import CeleryApp
from brain_clusters.examples.plain_driver import PlainDriver
from brain_clusters.genesis.contract.ground import Ground
from brain_clusters.genesis.contract.stage import Stage
from brain_clusters.ports import free_port

SHOP = """
import os
from celery import Celery
app = Celery("shop", broker={url!r}, backend=None)
app.conf.task_default_queue = "orders"

@app.task
def pack(key):
    import redis
    redis.Redis.from_url({url!r}).rpush(key, "packed")
"""


@pytest.fixture
def stage(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.chdir(tmp_path)  # where agents find handlers
    ground = Ground(
        factory=PlainDriver, engine=Engine(), redis_url=redis_url, agents_redis_url=redis_url, home=tmp_path / "home",
        patience_seconds=60.0,
    )  # fmt: skip
    found = Stage(ground, "a")
    yield found
    found.clear()


def run(given: str | None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run an agent that ends by itself."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("BRAIN_")}
    return subprocess.run(
        [sys.executable, "-P", "-m", "brain_clusters.agent.alone"], capture_output=True, text=True, check=False,
        env={**environ, **({} if given is None else {"BRAIN_AGENT": given}), **variables},
    )  # fmt: skip


def given(redis_url: str = "redis://127.0.0.1:1/0", config: Mapping[str, Any] = {}, **fields: Any) -> str:
    spec = AgentSpec(agent_id="a", cluster_id="c", group_name="g", role="worker", queue="q").as_dict()
    paths = {"run_dir": "/nowhere", "log_dir": "/nowhere"}
    return json.dumps(
        {"spec": {**spec, **fields}, "config": {"redis_url": redis_url, "host_id": None, **paths, **config}}
    )


# --- what it is given -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (None, "BRAIN_AGENT is not set"),
        ("", "BRAIN_AGENT: must be JSON"),
        ("{not json, but a secret", "BRAIN_AGENT: must be JSON"),
        ("[]", "BRAIN_AGENT: must be JSON"),
        ("null", "BRAIN_AGENT: must be JSON"),
        ('{"spec": {}}', "BRAIN_AGENT: must be JSON"),
        ('{"spec": "a secret", "config": {}}', "BRAIN_AGENT: must be JSON"),
        ('{"spec": {}, "config": {}}', "comes from another version of brain-clusters"),
        (given(handler="no_such_module:work"), "'no_such_module:work' cannot be imported: ModuleNotFoundError"),
        # What a newer control plane tells besides is passed over.
        (
            given(handler="no_such_module:work", of_the_next_version=1, config={"of_it": 1}),
            "'no_such_module:work' cannot",
        ),
    ],
)
def test_what_it_can_never_be_is_told_in_one_line_and_by_its_exit_code(told: str | None, said: str) -> None:
    done = run(told)
    assert done.returncode == os.EX_CONFIG, done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "secret" not in done.stderr


def test_the_address_of_redis_can_be_given_beside_the_rest(stage: Stage, redis_url: str) -> None:
    environment = {"BRAIN_AGENT_REDIS_URL": redis_url}
    elsewhere = f"redis://127.0.0.1:{free_port()}/0"
    spec = stage.spec()
    config = {**stage.ground.kit("a", stage.driver._kit.words).agent, "redis_url": elsewhere}  # type: ignore[attr-defined]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "brain_clusters.agent.alone"],
        env={**os.environ, "BRAIN_AGENT": json.dumps({"spec": spec.as_dict(), "config": config}), **environment},
        stderr=subprocess.DEVNULL,
    )
    try:
        stage.until(lambda: stage.beat(spec.agent_id), "it beats")
    finally:
        process.terminate()
        assert process.wait() == 0


# --- what it does -----------------------------------------------------------------------------------------------


def test_it_drains_by_the_word_in_redis_and_goes_on_when_that_is_gone(stage: Stage) -> None:
    agent, job = stage.busy_agent()
    stage.redis.set(names.drain_key(agent), "")
    stage.until_draining(agent, draining=True)
    later = stage.send(agent)
    stage.until_beats(agent, 3)
    stage.redis.delete(names.drain_key(agent))
    stage.until_draining(agent, draining=False)
    stage.open_gate(job)
    stage.until_done(later)
    stage.redis.set(names.drain_key(agent), "")
    assert stage.until_ended(agent).code == 0


def test_the_word_to_drain_may_be_there_before_it_is(stage: Stage) -> None:
    spec = stage.spec()
    stage.redis.set(names.drain_key(spec.agent_id), "")
    (agent,) = stage.start(spec)
    assert stage.until_ended(agent).code == 0


def test_jobs_do_not_see_what_it_was_given_though_proc_shows_it(stage: Stage) -> None:
    agent = stage.agent()
    for name in ("BRAIN_AGENT", "BRAIN_AGENT_REDIS_URL", "PATH"):
        stage.does(agent, "tell a variable", name)
    found = stage.redis.hgetall(f"{stage.keys}:variables")
    assert found[b"BRAIN_AGENT"] == found[b"BRAIN_AGENT_REDIS_URL"] == b""
    assert found[b"PATH"]
    # The environment that a process was started with stays readable for its own user; docs/drivers.md says so.
    pid = stage.told[agent].handle["pid"]
    assert b"BRAIN_AGENT=" in Path(f"/proc/{pid}/environ").read_bytes()


def test_several_slots_and_greenlets_work_as_in_forked_agents(stage: Stage) -> None:
    pytest.importorskip("gevent")
    for fields in ({"concurrency": 2}, {"concurrency": 2, "pool": "gevent"}, {"concurrency": 2, "pool": "prefork"}):
        (agent,) = stage.start(stage.spec(**fields))
        stage.until_consuming([agent])
        jobs = [stage.send(agent, "wait") for _ in range(2)]
        stage.until(lambda jobs=jobs: set(jobs) <= set(stage.begun()), "both are begun")  # type: ignore[misc]
        stage.call(stage.driver.drain, [agent])
        stage.until_draining(agent, draining=True)
        for job in jobs:
            stage.open_gate(job)
        assert stage.until_ended(agent).code == 0


def test_it_can_be_a_worker_of_an_existing_application(stage: Stage, redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "alone_shop.py").write_text(SHOP.format(url=redis_url))
    work = CeleryApp(app="alone_shop:app", queues=("orders",))
    (agent,) = stage.start(stage.spec(handler=None, celery=work))
    stage.until_consuming([agent])
    key = f"{stage.keys}:packed"
    _send_with_celery(redis_url, key)
    stage.until(lambda: stage.redis.llen(key), "the task is done")
    stage.call(stage.driver.drain, [agent])
    assert stage.until_ended(agent).code == 0


def test_one_that_leaves_a_module_missing_is_told_by_its_log(stage: Stage) -> None:
    (agent,) = stage.start(stage.spec(handler=None, celery=CeleryApp(app="no_such_shop:app", queues=("orders",))))
    assert stage.until_ended(agent).code == os.EX_CONFIG
    assert "no_such_shop" in stage.call(stage.driver.logs, agent, 3)


def _send_with_celery(url: str, key: str) -> None:
    from celery import Celery

    with Celery("somebody", broker=url, backend=None, set_as_current=False) as app:
        app.send_task("alone_shop.pack", args=[key], queue="orders")
    with redis.Redis.from_url(url) as client:
        assert client.ping()
