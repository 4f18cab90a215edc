"""The blueprints that are shipped, their handlers, their README and the JSON Schema."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from brain_clusters.blueprints.jsonschema import json_schema
from brain_clusters.blueprints.nodes import escape
from brain_clusters.blueprints.schema import BLUEPRINT
from brain_clusters.blueprints.schema_scaling import FIELDS
from brain_clusters.blueprints.validator import load_blueprint
from brain_clusters.domain.specs import Count, ScalingPolicy
from brain_clusters.domain.states import AgentRole

FOLDER = Path(__file__).parents[2] / "blueprints"
FILES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_blueprint_is_valid_and_its_handlers_exist(path: Path) -> None:
    for group in load_blueprint(path).groups:
        if group.handler:
            module, function = group.handler.split(":")
            assert callable(getattr(importlib.import_module(module), function))


def test_the_marketing_blueprint_has_the_promised_shape() -> None:
    path = FOLDER / "marketing.yaml"
    blueprint = load_blueprint(path)
    roles = [group.role for group in blueprint.groups]
    assert blueprint.id == "marketing-v1"
    assert (blueprint.min_workers, blueprint.max_workers, blueprint.default_workers) == (4, 20, 6)
    assert [roles.count(role) for role in (AgentRole.SUPERVISOR, AgentRole.SPECIALIST, AgentRole.WORKER)] == [1, 3, 5]
    assert {group.count for group in blueprint.groups if group.role is AgentRole.WORKER} == {Count(0, 5, True)}
    assert blueprint.group("Image Generator") is not None
    assert len(path.read_text().splitlines()) > 200


def test_the_demo_blueprint_is_quick() -> None:
    blueprint = load_blueprint(FOLDER / "demo.yaml")
    assert (blueprint.id, blueprint.min_workers, blueprint.max_workers, blueprint.default_workers) == ("demo", 1, 9, 1)
    assert (blueprint.scaling.target_latency_seconds, blueprint.scaling.cooldown_seconds) == (2, 1)
    assert blueprint.lifecycle.hibernate is not None
    assert blueprint.lifecycle.hibernate.idle_seconds == 3


def keys_of(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, rule in schema.items():
        yield key, rule
        yield from keys_of(rule.get("conditions", {}))
        inner = rule.get("schema", {})
        inner = inner.get("schema", {}) if "list" in rule["type"] else inner
        yield from keys_of(inner)


def test_the_readme_tells_of_every_key() -> None:
    words = re.sub(r"```.*?```", "", (FOLDER / "README.md").read_text(), flags=re.DOTALL)
    told = set(re.findall(r"[a-z_0-9]+", " ".join(re.findall(r"`([^`]+)`", words))))
    assert {key for key, _ in keys_of(BLUEPRINT)} - told == set()


def test_every_key_has_a_description() -> None:
    assert [key for key, rule in keys_of(BLUEPRINT) if not rule.get("meta", {}).get("description")] == []


def test_every_field_of_the_scaling_policy_comes_from_a_key() -> None:
    assert set(ScalingPolicy.__dataclass_fields__) == {*FIELDS.values(), "schedule", "paused"}


def test_the_json_schema_is_json_and_refuses_unknown_keys_except_x_keys() -> None:
    schema = json.loads(json.dumps(json_schema()))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["required"] == ["metadata", "cluster", "agents"]
    assert schema["additionalProperties"] is False
    assert schema["patternProperties"] == {"^x-": True}
    group = schema["properties"]["agents"]["items"]
    assert group["required"] == ["role", "name"]
    assert group["properties"]["role"]["enum"] == ["supervisor", "lead", "specialist", "worker"]
    assert group["properties"]["concurrency"] == {
        "description": "How many jobs one agent does at a time.",
        "type": "integer",
        "minimum": 1,
        "maximum": 1000,
        "default": 1,
    }
    assert group["properties"]["reports_to"]["type"] == ["string", "null"]
    scaling = schema["properties"]["cluster"]["properties"]["scaling"]["properties"]
    assert scaling["target_latency"]["default"] == 30.0
    assert scaling["paused"]["enum"] == [False, True, "in", "out"]
    triggers = schema["properties"]["lifecycle"]["properties"]["reactivate_triggers"]["anyOf"][1]["items"]["anyOf"]
    assert triggers[1] == {"enum": ["new_task_received", "manual_trigger"]}


def test_steps_of_a_pointer_are_escaped() -> None:
    assert escape("a/b", 0, "c~d") == "/a~1b/0/c~0d"


def test_the_archive_program_reads_and_writes_json(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "a.txt").write_text("a")
    target = tmp_path / "reports.tar.gz"
    argv = [sys.executable, "-m", "brain_clusters.examples.archive"]
    payload = json.dumps({"folder": str(tmp_path / "reports"), "to": str(target)})
    done = subprocess.run(argv, input=payload, capture_output=True, text=True, cwd=FOLDER.parent)
    assert json.loads(done.stdout) == {"archive": str(target), "members": 2, "bytes": target.stat().st_size}
    missing = json.dumps({"folder": str(tmp_path / "none"), "to": str(target)})
    refused = subprocess.run(argv, input=missing, capture_output=True, text=True, cwd=FOLDER.parent)
    assert (refused.returncode, refused.stderr) == (1, f"{tmp_path / 'none'} is not a folder\n")
