"""``monitoring.alerts`` in a blueprint: what it means, and what is refused, with line and column."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from brain_clusters.blueprints.alerts import ALERT
from brain_clusters.blueprints.jsonschema import json_schema
from brain_clusters.blueprints.validator import format_faults, parse_blueprint
from brain_clusters.domain.alerts import AlertRule
from brain_clusters.domain.conditions import parse_condition
from brain_clusters.domain.planning import one_step_up
from brain_clusters.domain.specs import Count
from brain_clusters.errors import InvalidInput

HEAD = """metadata: {id: office, name: An office, version: "1.0"}
cluster: {type: department, min_workers: 1, max_workers: 8}
agents:
  - {role: supervisor, name: Head}
  - {role: worker, name: Clerks, count: 0-5}
  - {role: worker, name: Packers, count: 0-5}
"""


def blueprint(*entries: str) -> str:
    return HEAD + "monitoring:\n  alerts:\n" + "".join(f"    - {entry}\n" for entry in entries)


def faults(*entries: str) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        parse_blueprint(blueprint(*entries))
    return format_faults("f", caught.value.faults).splitlines()


def test_the_reference_format_is_an_alert_with_the_defaults() -> None:
    [rule] = parse_blueprint(blueprint("{condition: error_rate > 10%, action: notify_admin}")).alerts
    assert rule == AlertRule(
        "error_rate > 10%: notify_admin", parse_condition("error_rate > 10%"), ("notify_admin",), 0.0, None, 60.0,
        "warning",
    )  # fmt: skip


def test_everything_that_can_be_said_is_kept() -> None:
    entry = "{name: n, condition: load > 90%, action: [scale_up, notify_admin], for: 5m, resolve: load < 50, " \
            "resolve_after: 2m, severity: critical, x-note: ours}"  # fmt: skip
    found = parse_blueprint(blueprint(entry))
    load = parse_condition("load > 90")
    below = parse_condition("load < 50")
    assert found.alerts == (AlertRule("n", load, ("scale_up", "notify_admin"), 300, below, 120, "critical"),)


def test_without_alerts_there_are_none() -> None:
    assert parse_blueprint(HEAD).alerts == ()
    assert parse_blueprint(HEAD + "monitoring: {metrics: [load]}").alerts == ()


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{condition: eror_rate > 1, action: scale_up}",
         "f:9:19: 'condition' cannot be read: eror_rate is no metric; did you mean error_rate?"),
        ("{condition: load > 1s, action: scale_up}",
         "f:9:19: 'condition' cannot be read: load is a percentage: write 10% or 10"),
        ("{condition: load > 1, action: scaleup}",
         "f:9:37: 'action' must be one of notify_admin, scale_up, spawn_replacement, hibernate, or a list of them, "
         "not 'scaleup'; did you mean 'scale_up'?"),
        ("{condition: load > 1, action: [scale_up, hibernat]}",
         "f:9:48: entry 2 of 'action' must be one of notify_admin, scale_up, spawn_replacement, hibernate, "
         "not 'hibernat'; did you mean 'hibernate'?"),
        ("{condition: load > 1, action: [scale_up, scale_up]}",
         "f:9:29: 'action' names an action twice; name each once"),
        ("{condition: load > 1, action: []}", "f:9:29: 'action' must not be empty; give it a value, or remove it"),
        ("{condition: load > 1, action: hibernate, for: 8d}",
         "f:9:53: 'for' must be a duration of at most 7 days, not '8d'"),
        ("{condition: load > 1, action: hibernate, resolve_after: soon}",
         "f:9:63: 'resolve_after' must be a duration such as 90s, 5 minutes, 1h30m or 7 days "
         "(a bare number is seconds), not 'soon'"),
        ("{condition: load > 1, action: hibernate, resolve: load > 1}",
         "f:9:57: resolve and condition can be true at once, so neither would last; let them exclude each other"),
        ("{condition: load > 1, action: hibernate, severity: bad}",
         "f:9:58: 'severity' must be one of info, warning, critical, not 'bad'"),
        ("{condition: load > 1, action: hibernate, resolv: load < 1}",
         "f:9:48: unknown key 'resolv'; did you mean 'resolve'?"),
        ("{action: hibernate}", "f:9:7: 'condition' is missing; add it"),
    ],
)  # fmt: skip
def test_a_fault_has_its_place_and_says_what_to_do(entry: str, told: str) -> None:
    assert faults(entry) == [told]


def test_the_same_alert_twice_and_the_same_name_twice_are_refused() -> None:
    assert faults(
        "{condition: queue_wait_time > 5m, action: [scale_up, notify_admin]}",
        "{condition: queue_latency > 300, action: [notify_admin, scale_up]}",
        "{condition: load > 5, action: scale_up, name: a}",
        "{condition: load > 6, action: scale_up, name: a}",
        "{condition: load > 5, action: hibernate}",
    ) == [
        "f:10:19: alert 1 has this condition and action; remove one",
        "f:12:53: the name 'a' is taken by alert 3; choose another",
    ]


def test_every_field_of_a_rule_comes_from_a_key() -> None:
    stated = {"for_seconds": "for", "resolve_after_seconds": "resolve_after", "actions": "action"}
    assert {stated.get(one.name, one.name) for one in fields(AlertRule)} == set(ALERT)


def test_the_json_schema_knows_the_actions_and_the_defaults() -> None:
    schema = json.loads(json.dumps(json_schema()))
    alert = schema["properties"]["monitoring"]["properties"]["alerts"]["items"]
    assert alert["required"] == ["condition", "action"]
    words = ["notify_admin", "scale_up", "spawn_replacement", "hibernate"]
    action = alert["properties"]["action"]
    assert (action["type"], action["items"]["enum"]) == (["string", "array"], words)
    assert action["anyOf"] == [{"enum": words}, {"type": "array"}]
    assert alert["properties"]["for"]["default"] == 0
    assert alert["properties"]["resolve_after"]["default"] == 60
    assert alert["properties"]["severity"] == {
        "description": "How bad it is.", "type": "string", "default": "warning", "enum": ["info", "warning", "critical"]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("targets", "backlogs", "limit", "expected"),
    [
        ({"Head": 1, "Clerks": 1, "Packers": 1}, {"Packers": 9}, 8, {"Packers": 2}),
        ({"Head": 1}, {}, 8, {"Clerks": 1}),
        ({"Head": 1, "Clerks": 5, "Packers": 0}, {"Clerks": 99}, 12, {"Packers": 2}),
        ({"Head": 1, "Clerks": 4, "Packers": 2}, {"Clerks": 9, "Packers": 9}, 8, {"Clerks": 5}),
        ({"Head": 1, "Clerks": 4, "Packers": 3}, {"Clerks": 9}, 8, {}),
        ({"Head": 1, "Clerks": 5, "Packers": 5}, {"Clerks": 9}, 99, {}),
    ],
)
def test_one_step_up_goes_where_most_jobs_wait(
    targets: dict[str, int], backlogs: dict[str, int], limit: int, expected: dict[str, int]
) -> None:
    groups = parse_blueprint(HEAD).groups
    assert groups[1].count == Count(0, 5, scalable=True)
    assert one_step_up(targets, groups, backlogs, limit) == expected
