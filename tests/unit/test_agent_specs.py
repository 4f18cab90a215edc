"""What travels from the control plane to agents, whose code may be older or newer."""

from __future__ import annotations

import json
from dataclasses import asdict

from brain_clusters.agent.config import AgentConfig
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.domain.engines import Engine, Resources
from brain_clusters.domain.sharing import SharedMemory
from brain_clusters.domain.specs import Budget, Tree
from brain_clusters.domain.work import CeleryApp, HttpCall

FULL = AgentSpec(
    agent_id="a", cluster_id="c", group_name="g", role="worker", queue="q", command=("sort", "-r"),
    celery=CeleryApp(app="shop:app", queues=("q",)),
    http=HttpCall(url="https://example.org"), capabilities=("read",),
    budget=Budget(per_day=1.0), tree=Tree(), memory=SharedMemory(),
    engine=Engine("docker", "shop:1", Resources(0.5, 2**28), {"A": "env:A"}, {"network": "host"}),
)  # fmt: skip


def test_a_spec_comes_out_of_json_as_it_went_in() -> None:
    assert AgentSpec.from_dict(json.loads(json.dumps(FULL.as_dict()))) == FULL


def test_what_a_newer_control_plane_tells_besides_is_passed_over() -> None:
    told = json.loads(json.dumps(FULL.as_dict()))
    for part in (told, told["engine"], told["engine"]["resources"], told["budget"], told["tree"], told["memory"]):
        part["of_the_next_version"] = 1
    assert AgentSpec.from_dict(told) == FULL
    config = AgentConfig("redis://localhost", "host-1", "/run", "/logs")
    assert AgentConfig.from_dict({**asdict(config), "of_the_next_version": 1}) == config


def test_what_an_older_control_plane_does_not_tell_yet_has_its_default() -> None:
    plain = AgentSpec(agent_id="a", cluster_id="c", group_name="g", role="worker", queue="q")
    told = {"agent_id": "a", "cluster_id": "c", "group_name": "g", "role": "worker", "queue": "q"}
    assert AgentSpec.from_dict(told) == plain
