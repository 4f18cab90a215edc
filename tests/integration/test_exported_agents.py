"""Agents that ``export`` had others start: real processes without a host, as their pods would run them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from werkzeug.serving import make_server

from brain_clusters.api.app import create_app
from brain_clusters.blueprints.validator import parse_blueprint
from brain_clusters.broker import names
from brain_clusters.cli import main
from brain_clusters.cli.commands.run import agent_config
from brain_clusters.config import Settings
from brain_clusters.domain.commands import HibernateCluster, UpdateCluster
from brain_clusters.domain.jobs import Priority
from brain_clusters.domain.states import JobStatus
from brain_clusters.services import alone, blueprints
from brain_clusters.services.control import Control
from brain_clusters.services.exporting import LEASE_SECONDS, Place, manifests
from tests.integration.stage import Stage

TEXT = """
metadata: {id: exported, name: Exported, version: "1"}
cluster: {type: project, min_workers: 1, max_workers: 4}
agents:
  - {role: supervisor, name: Desk, command: [cat]}
  - {role: worker, name: Waiters, count: 0-3, command: [sh, -c, "cat; until [ -e go ]; do sleep 0.05; done"]}
lifecycle: {reactivate_triggers: [manual_trigger]}
"""


@dataclass
class Deployment:
    """A Deployment's pods as processes of this machine, in a folder that is their working directory."""

    stage: Stage
    manifest: dict[str, Any]
    redis_url: str
    folder: Path
    pods: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, name: str) -> subprocess.Popen[bytes]:
        [container] = self.manifest["spec"]["template"]["spec"]["containers"]
        given = {each["name"]: each.get("value", "").replace("$$", "$") for each in container["env"]}
        given |= {"BRAIN_AGENT_ID": name, "BRAIN_AGENT_REDIS_URL": self.redis_url, "PATH": os.environ["PATH"]}
        given["TMPDIR"] = str(self.folder)  # what is left of one that is killed goes with the test
        command = [sys.executable, *container["command"][1:]]
        with open(self.folder / f"{name}.log", "wb") as log:
            pod = subprocess.Popen(command, cwd=self.folder, env=given, stderr=log, start_new_session=True)
        self.pods.append(pod)
        return pod

    def agents(self) -> set[str]:
        found: Any = self.stage.redis.smembers(names.ALONE_SET)
        return {name.decode() for name in found}

    def kill(self, pod: subprocess.Popen[bytes]) -> None:
        os.killpg(pod.pid, signal.SIGKILL)
        pod.wait()

    def end(self) -> None:
        for pod in self.pods:
            if pod.poll() is None:
                self.kill(pod)


@pytest.fixture
def cluster_id(stage: Stage) -> str:
    """A cluster that sleeps in the control plane, and that no job wakes."""
    blueprints.store(stage.control, TEXT)
    cluster_id = stage.active(blueprint_id="exported")
    stage.do(HibernateCluster(cluster_id=cluster_id))
    stage.settle(cluster_id)
    return cluster_id


@pytest.fixture
def waiters(stage: Stage, cluster_id: str, settings: Settings, redis_url: str, tmp_path: Path) -> Iterator[Deployment]:
    """The Deployment of the group Waiters, whose jobs end when the file ``go`` is there."""
    agent = {**agent_config(settings, ""), "host_id": None, "beat_stale": LEASE_SECONDS, "beat_interval": 0.2}
    place = Place(Settings(home=tmp_path, kubernetes_secret="place"), agent)
    found = list(manifests(cluster_id, parse_blueprint(TEXT, source="exported"), place))
    [manifest] = [each for each in found if each["kind"] == "Deployment" and "waiters" in each["metadata"]["name"]]
    deployment = Deployment(stage, manifest, redis_url, tmp_path)
    yield deployment
    deployment.end()


def is_running(stage: Stage, job_id: str) -> bool:
    return stage.redis.hget(names.job_key(job_id), "status") == b"running"


def test_a_job_is_done_while_its_cluster_sleeps(
    stage: Stage, cluster_id: str, waiters: Deployment, until: Callable[..., Any]
) -> None:
    (waiters.folder / "go").touch()
    waiters.start("pod-1")
    job = stage.post(cluster_id, to="Waiters", payload={"n": 1})
    until(lambda: stage.tick() and stage.job(job.id).status is JobStatus.SUCCEEDED, "the job is done")
    assert stage.job(job.id).result == {"n": 1}
    assert stage.cluster(cluster_id).current_workers == 0


def test_a_job_at_work_without_a_host_is_not_held_for_lost(
    stage: Stage, cluster_id: str, waiters: Deployment, until: Callable[..., Any]
) -> None:
    waiters.start("pod-1")
    job = stage.post(cluster_id, to="Waiters")
    until(lambda: is_running(stage, job.id), "the job runs")
    stage.sql("UPDATE jobs SET published_at = now() - interval '1 hour'")
    stage.tick()
    assert stage.waiting(cluster_id, "waiters") == 0
    (waiters.folder / "go").touch()
    until(lambda: stage.tick() and stage.job(job.id).status is JobStatus.SUCCEEDED, "the job is done")
    assert stage.job(job.id).attempts == 1


def test_what_a_killed_agent_held_is_done_by_another_once_its_beats_have_ceased(
    stage: Stage, cluster_id: str, waiters: Deployment, until: Callable[..., Any]
) -> None:
    pod = waiters.start("pod-1")
    job = stage.post(cluster_id, to="Waiters")
    until(lambda: is_running(stage, job.id), "the job runs")
    [dead] = waiters.agents()
    waiters.kill(pod)
    assert alone.give_up_silent(stage.control) == 0  # its last beat still counts
    stage.redis.delete(names.beat_key(dead))
    assert alone.give_up_silent(stage.control) == 1
    assert not waiters.agents()
    (waiters.folder / "go").touch()
    waiters.start("pod-2")
    until(lambda: stage.tick() and stage.job(job.id).status is JobStatus.SUCCEEDED, "the job is done")
    assert stage.job(job.id).attempts == 2


def test_what_was_only_cut_off_ends_when_it_is_back_and_nothing_of_it_counts(
    stage: Stage, cluster_id: str, waiters: Deployment, until: Callable[..., Any]
) -> None:
    pod = waiters.start("pod-1")
    job = stage.post(cluster_id, to="Waiters")
    until(lambda: is_running(stage, job.id), "the job runs")
    [silent] = waiters.agents()
    pod.send_signal(signal.SIGSTOP)
    stage.redis.delete(names.beat_key(silent))
    assert alone.give_up_silent(stage.control) == 1
    (waiters.folder / "go").touch()
    pod.send_signal(signal.SIGCONT)
    assert pod.wait(30) == -signal.SIGKILL  # by itself, with all that it started
    waiters.start("pod-2")
    until(lambda: stage.tick() and stage.job(job.id).status is JobStatus.SUCCEEDED, "the job is done")
    assert stage.job(job.id).attempts == 2


def test_a_pod_that_is_begun_anew_is_another_agent_so_that_its_death_counts(
    stage: Stage, cluster_id: str, waiters: Deployment, until: Callable[..., Any]
) -> None:
    pod = waiters.start("pod-1")
    job = stage.post(cluster_id, to="Waiters")
    until(lambda: is_running(stage, job.id), "the job runs")
    [dead] = waiters.agents()
    waiters.kill(pod)
    waiters.start("pod-1")
    until(lambda: len(waiters.agents()) == 2, "the new one is there")
    assert all(name.startswith("pod-1.") for name in waiters.agents())
    assert stage.redis.hlen(names.unacked_key(dead)) == 1


def test_told_to_end_it_finishes_its_job_and_says_that_it_leaves(
    stage: Stage, cluster_id: str, waiters: Deployment, until: Callable[..., Any]
) -> None:
    pod = waiters.start("pod-1")
    job = stage.post(cluster_id, to="Waiters")
    until(lambda: is_running(stage, job.id), "the job runs")
    pod.send_signal(signal.SIGTERM)
    (waiters.folder / "go").touch()
    assert pod.wait(30) == 0
    until(lambda: stage.tick() and stage.job(job.id).status is JobStatus.SUCCEEDED, "the job is done")
    assert not waiters.agents()  # so that nobody gives it up


@pytest.fixture
def api_url(control: Control) -> Iterator[str]:
    served = make_server("127.0.0.1", 0, create_app(control), threaded=True)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    thread.join()
    served.server_close()


def test_a_cluster_is_exported_as_the_api_tells_of_it(stage: Stage, cluster_id: str, api_url: str) -> None:
    stage.do(UpdateCluster(cluster_id=cluster_id, budget_per_day=5.0))
    done = CliRunner().invoke(main, ["export", "kubernetes", cluster_id, "--api", api_url])
    assert done.exit_code == 0, done.output
    objects = list(yaml.safe_load_all(done.output))
    assert [each["kind"] for each in objects] == ["TriggerAuthentication", "Deployment", "Deployment", "ScaledObject"]
    container = objects[1]["spec"]["template"]["spec"]["containers"][0]
    spec = json.loads(container["env"][0]["value"].replace("$$", "$"))["spec"]
    assert (spec["cluster_id"], spec["budget"]["per_day"]) == (cluster_id, 5.0)
    missing = CliRunner().invoke(main, ["export", "kubernetes", "nobody", "--api", api_url])
    assert missing.exit_code == 4
    assert "nobody" in missing.output


def test_kedas_question_counts_what_waits(
    stage: Stage, cluster_id: str, waiters: Deployment, settings: Settings, tmp_path: Path
) -> None:
    """KEDA asks for the length of a list, or of a sorted set [kedacore/keda pkg/scalers/redis_scaler.go, 2.17]."""
    for priority in (Priority.NORMAL, Priority.HIGH, Priority.NORMAL, Priority.LOW):
        stage.post(cluster_id, to="Waiters", priority=priority)
    stage.redis.zadd(names.eta_key(names.group_queue(cluster_id, "waiters")), {"not due yet": 4e9})
    place = Place(Settings(home=tmp_path, kubernetes_secret="place"), agent_config(settings, ""))
    found = manifests(cluster_id, parse_blueprint(TEXT, source="exported"), place)
    [scaled] = [each for each in found if each["kind"] == "ScaledObject"]
    ask = {b"list": stage.redis.llen, b"zset": stage.redis.zcard, b"none": stage.redis.llen}
    keys = [each["metadata"]["listName"] for each in scaled["spec"]["triggers"]]
    assert [ask[stage.redis.type(key)](key) for key in keys] == [1, 2, 0, 1, 0, 1]
