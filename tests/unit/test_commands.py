"""The commands as data."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from typing import get_args

import pytest

from brain_clusters.domain.agents import AgentSpec
from brain_clusters.domain.commands import (
    Command,
    CreateCluster,
    DestroyCluster,
    ReactivateCluster,
    ScaleCluster,
    UpdateCluster,
    as_request,
)
from brain_clusters.domain.states import ClusterType, OperationKind


def test_there_is_one_command_for_each_kind_of_operation() -> None:
    assert {command.kind for command in get_args(Command)} == set(OperationKind)


def test_a_request_holds_only_what_the_command_states() -> None:
    assert as_request(DestroyCluster(cluster_id="c")) == {"cluster_id": "c"}
    assert as_request(UpdateCluster(cluster_id="c", name="N")) == {"cluster_id": "c", "name": "N"}


def test_zero_is_a_statement() -> None:
    assert as_request(ScaleCluster(cluster_id="c", target_workers=0)) == {"cluster_id": "c", "target_workers": 0}
    assert as_request(CreateCluster(blueprint_id="b", name="n", min_workers=0))["min_workers"] == 0
    assert as_request(ScaleCluster(cluster_id="c", groups={"w": 0}))["groups"] == {"w": 0}


def test_a_request_is_json() -> None:
    command = CreateCluster(
        blueprint_id="b", name="n", type=ClusterType.PROJECT, tags=("a", "b"), config={"deep": [1, {"x": None}]}
    )
    assert json.loads(json.dumps(as_request(command))) == {
        "blueprint_id": "b", "name": "n", "type": "project", "tags": ["a", "b"], "config": {"deep": [1, {"x": None}]},
    }  # fmt: skip
    assert as_request(ReactivateCluster(cluster_id="c", groups={"w": 2}))["groups"] == {"w": 2}


def test_a_command_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        DestroyCluster(cluster_id="c").cluster_id = "d"  # type: ignore[misc]


def test_an_agent_spec_survives_json() -> None:
    spec = AgentSpec(
        agent_id="a", cluster_id="c", group_name="G", role="worker", queue="q", command=("cat", "-"),
        capabilities=("x",), config={"k": [1]}, timeout_seconds=1.5,
    )  # fmt: skip
    assert AgentSpec.from_dict(json.loads(json.dumps(spec.as_dict()))) == spec
    plain = AgentSpec(agent_id="a", cluster_id="c", group_name="G", role="worker", queue="q")
    assert AgentSpec.from_dict(json.loads(json.dumps(plain.as_dict()))) == plain
