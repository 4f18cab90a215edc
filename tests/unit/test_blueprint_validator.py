"""A whole blueprint: what is accepted, what is refused, and where the faults are said to be."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brain_clusters.blueprints.validator import format_faults, load_blueprint, parse_blueprint
from brain_clusters.domain.specs import Blueprint, Count, HibernateRules, ScalingPolicy, ScalingSchedule
from brain_clusters.domain.states import AgentRole, ClusterType
from brain_clusters.errors import InvalidInput, NotFound

SMALL = """\
metadata: {id: small, name: Small, version: 1.10}
cluster: {type: project, min_workers: 1, max_workers: 5}
agents:
  - {role: supervisor, name: Boss}
  - {role: worker, name: Image Generator, count: 0-4}
"""

REFERENCE = """\
metadata:
  id: sales-v2
  name: "Sales Department"
  version: "2.1.0"
  author: "Somebody"
  description: "Handles leads"
  tags: [sales, department]
cluster:
  type: campaign
  min_workers: 2
  max_workers: 12
  scaling:
    metric: task_queue_length
    scale_up_threshold: 20
    scale_down_threshold: 5
    cooldown_period: 300
agents:
  - role: supervisor
    name: Sales Lead
    count: 1
    capabilities: [task_delegation]
    config: {llm_model: some-model, temperature: 0.7, max_tokens: 4000}
  - role: specialist
    name: Lead Analyst
    count: 1
    reports_to: supervisor
    skills: [crm]
    config:
      llm_model: some-model
      temperature: 0
  - role: worker
    name: Mail Writer
    count: "0-5"
    reports_to: lead_analyst
resources:
  memory: {type: shared, size: 2GB}
  knowledge_base: [products, prices]
  tools: [crm, mail]
lifecycle:
  hibernate_conditions:
    - idle_time: 1 hour
    - task_queue_empty: true
    - load_below: 10%
  destroy_conditions:
    - hibernated_duration: 7 days
    - manual_trigger: true
  reactivate_triggers:
    - new_task_received
    - manual_trigger
    - schedule: "0 9 * * 1-5"
monitoring:
  metrics: [task_completion_rate, error_rate]
  alerts:
    - condition: error_rate > 10%
      action: notify_admin
"""


def faults(text: str) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        parse_blueprint(text)
    return format_faults("f", caught.value.faults).splitlines()


def changed(old: str, new: str) -> str:
    assert old in SMALL
    return SMALL.replace(old, new)


def scaling_of(text: str) -> ScalingPolicy:
    return parse_blueprint(changed("max_workers: 5", f"max_workers: 5, scaling: {text}")).scaling


def test_a_blueprint_in_the_reference_format_is_accepted_unchanged() -> None:
    blueprint = parse_blueprint(REFERENCE)
    assert blueprint.cluster_type is ClusterType.CAMPAIGN
    assert [group.role for group in blueprint.groups] == [AgentRole.SUPERVISOR, AgentRole.SPECIALIST, AgentRole.WORKER]
    assert [group.reports_to for group in blueprint.groups] == [None, "Sales Lead", "Lead Analyst"]
    assert blueprint.groups[0].config == {"llm_model": "some-model", "temperature": 0.7, "max_tokens": 4000}
    assert blueprint.groups[2].count == Count(0, 5, scalable=True)
    assert blueprint.scaling.cooldown_seconds == 300
    assert blueprint.lifecycle.hibernate == HibernateRules(3600.0, True, 10.0)
    assert blueprint.lifecycle.destroy.hibernated_seconds == 7 * 86400
    assert blueprint.lifecycle.reactivate.schedules == ("0 9 * * 1-5",)
    assert blueprint.default_workers == 2


def test_what_is_left_out_has_its_default() -> None:
    blueprint = parse_blueprint(SMALL)
    assert blueprint.version == "1.10"
    assert blueprint.scaling == ScalingPolicy()
    assert blueprint.lifecycle.hibernate is None
    assert blueprint.groups[0].count == Count(1, 1, scalable=False)
    assert blueprint.groups[1].reports_to == "Boss"
    assert blueprint.groups[1].max_deliveries == 3
    assert blueprint.default_workers == 1


def test_a_group_keeps_all_that_it_states() -> None:
    stated = "handler: a.b:C.d, concurrency: 8, timeout: 1m30s, max_deliveries: 5, driver: process, description: Hi"
    group = parse_blueprint(changed("count: 0-4", f"count: 3, {stated}, skills: [x], cost: {{per_hour: 1}}")).groups[1]
    assert (group.handler, group.concurrency, group.timeout_seconds) == ("a.b:C.d", 8, 90.0)
    assert (group.max_deliveries, group.driver, group.description) == (5, "process", "Hi")
    assert (group.skills, group.cost, group.count) == (("x",), {"per_hour": 1}, Count(3, 3, scalable=False))
    assert parse_blueprint(changed("count: 0-4", "command: [cat, -]")).groups[1].command == ("cat", "-")


def test_all_scaling_parameters_are_kept() -> None:
    policy = scaling_of(
        "{metric: cpu_usage, scale_up_threshold: 80%, scale_down_threshold: 20, target_latency: 1m, paused: true,"
        " windows: {stable: 2m, panic: 10}, scale_up: {max_percent: 50, period: 1m}, fallback: {workers: 3},"
        " scale_down: {consecutive: 5, drain_timeout: 1h, on_timeout: stop}, hibernate: {after: 5m},"
        " schedule: [{start: 0 8 * * mon-fri, end: 0 18 * * mon-fri, min_workers: 2}], dry_run: true}"
    )
    assert (policy.scale_up_threshold, policy.scale_down_threshold) == (80.0, 20)
    assert (policy.stable_window_seconds, policy.panic_window_seconds, policy.panic_threshold) == (120, 10, 2.0)
    assert (policy.scale_up_max_percent, policy.scale_up_period_seconds, policy.scale_up_max_workers) == (50, 60, 4)
    assert (policy.scale_down_consecutive, policy.drain_timeout_seconds, policy.on_drain_timeout) == (5, 3600, "stop")
    assert (policy.fallback_workers, policy.hibernate_after_seconds, policy.paused) == (3, 300, "both")
    assert policy.schedule == (ScalingSchedule("0 8 * * mon-fri", "0 18 * * mon-fri", 2, "UTC"),)
    assert policy.dry_run


def test_a_stated_list_of_triggers_is_the_whole_list() -> None:
    triggers = parse_blueprint(SMALL + "lifecycle: {reactivate_triggers: [manual_trigger]}").lifecycle.reactivate
    assert (triggers.new_task_received, triggers.manual_trigger) == (False, True)
    assert parse_blueprint(SMALL).lifecycle.reactivate.new_task_received


def test_conditions_may_be_one_mapping() -> None:
    lifecycle = parse_blueprint(SMALL + "lifecycle: {hibernate_conditions: {idle_time: 5, load_below: 3}}").lifecycle
    assert lifecycle.hibernate == HibernateRules(5.0, True, 3.0)


def test_x_keys_are_ignored_at_every_level_but_kept_in_config() -> None:
    text = changed("name: Boss", "name: Boss, x-note: 1, config: {x-own: k}").replace("id: small", "id: small, x-a: 1")
    blueprint = parse_blueprint(
        "x-top: [1]\n" + text + "lifecycle: {x-l: 1, hibernate_conditions: [idle_time: 1, x-h: 2]}"
    )
    assert blueprint.groups[0].config == {"x-own": "k"}
    assert blueprint.lifecycle.hibernate == HibernateRules(1.0, True, None)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("id: small", "id: a b", "f:1:16: 'id' must be 1 to 100 letters"),
        ("id: small, ", "", "f:1:1: 'id' is missing; add it"),
        ("version: 1.10", "version: true", "f:1:45: 'version' must be text, not true"),
        ("type: project", "type: projct", "f:2:17: 'type' must be one of"),
        ("min_workers: 1", "min_workers: true", "f:2:39: 'min_workers' must be a whole number, not true"),
        ("min_workers: 1", "min_workers: 6", "f:2:39: min_workers is 6, more than max_workers (5)"),
        ("max_workers: 5", "max_workers: 5, default_workers: 0", "f:2:75: default_workers is 0, less than min_workers"),
        ("max_workers: 5", "max_workers: 5, default_workers: 6", "f:2:75: default_workers is 6, more than max_workers"),
        ("min_workers: 1, max_workers: 5", "min_workers: 7, max_workers: 9", "f:2:39: the agent groups have at most 5"),
        ("count: 0-4", "count: 7", "f:2:55: the agent groups need at least 8 agents, more than max_workers (5)"),
        ("max_workers: 5", "max_workers: 5, scaling: {scale_up_threshold: 3, scale_down_threshold: 3}",
         "f:2:113: scale_down_threshold is 3; it must be below scale_up_threshold (3)"),
        ("max_workers: 5", "max_workers: 5, scaling: {scale_down_threshold: 3}",
         "f:2:90: scale_down_threshold is 3; state scale_up_threshold, above it"),
        ("max_workers: 5", "max_workers: 5, scaling: {target_latency: soon}",
         "f:2:84: 'target_latency' must be a durat"),
        ("max_workers: 5", "max_workers: 5, scaling: {schedule: [{start: 0 8 * * *, end: x, min_workers: 1}]}",
         "f:2:103: 'end' must be a cron expression"),
        ("name: Boss", "name: Boss, handlr: a:b", "f:4:36: unknown key 'handlr'; did you mean 'handler'?"),
        ("name: Boss", "name: Boss, count: 2", "f:4:43: the supervisor's count must be 1"),
        ("name: Boss", "name: Boss, count: 0-1", "f:4:43: the supervisor's count must be 1"),
        ("name: Boss", "name: Boss, reports_to: Image Generator", "f:4:48: the supervisor reports to nobody"),
        ("role: supervisor", "role: lead", "f:3:1: no agent group has the role supervisor"),
        ("role: worker", "role: supervisor", "f:5:12: agent group 1 is the supervisor already"),
        ("count: 0-4", "count: many", "f:5:50: 'count' must be a whole number such as 2, or a range"),
        ("count: 0-4", "count: 4-0", "f:5:50: 'count' must be a range from a lower to a higher number"),
        ("count: 0-4", "reports_to: Bos", "f:5:55: reports_to names 'Bos', and no agent group is called so; did you"),
        ("count: 0-4", "reports_to: image generator",
         "f:5:55: the groups report in a circle: Image Generator -> Image"),
        ("count: 0-4", "handler: a, concurrency: 65", "f:5:52: 'handler' must name a function as package.module:"),
        ("count: 0-4", "command: []", "f:5:43: 'command' must not be empty"),
        ("count: 0-4", "command: [a, '']", "f:5:56: entry 2 of 'command' must not be empty"),
        ("count: 0-4", "command: [a], handler: a:b", "f:5:43: a group's jobs are done in one way, not by handler"),
        ("count: 0-4", "timeout: 0", "f:5:52: 'timeout' must be a duration longer than 0"),
        ("name: Image Generator", "name: boss", "f:5:26: the name 'boss' is taken (agent group 1 is named 'Boss'"),
        ("name: Image Generator", "name: '***'", "f:5:26: the name '***' has no letter a-z and no digit"),
        ("name: Image Generator", "name: \"a\\0b\"", "f:5:26: 'name' holds a NUL character"),
    ],
)  # fmt: skip
def test_a_fault_is_told_where_it_is(old: str, new: str, fault: str) -> None:
    found = faults(changed(old, new))
    assert [line for line in found if line.startswith(fault)], found


def test_a_circle_of_groups_is_one_fault() -> None:
    ring = "".join(f"  - {{role: worker, name: w{n}, reports_to: w{(n + 1) % 3}}}\n" for n in range(3))
    assert faults(SMALL.replace("max_workers: 5", "max_workers: 9") + ring) == [
        "f:6:42: the groups report in a circle: w0 -> w1 -> w2 -> w0; break it"
    ]


def test_faults_of_the_text_the_schema_and_between_the_parts_come_together_in_order() -> None:
    text = changed("type: project", "type: x").replace("count: 0-4", "reports_to: Bss")
    assert [line.split(" ")[0] for line in faults(text + "a: .nan\n")] == ["f:2:17:", "f:5:55:", "f:6:4:"]


def test_one_mistake_makes_one_fault() -> None:
    for old, new in (("role: supervisor", "role: boss"), ("name: Boss", "name: 5"), ("count: 0-4", "count: x")):
        assert len(faults(changed(old, new))) == 1
    assert len(faults(changed("name: Boss", "name: .nan"))) == 1


def test_the_message_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("metadata: 5")
    with pytest.raises(InvalidInput, match=r"mine\.yaml is not a valid blueprint: 3 faults"):
        load_blueprint(path)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path, Path("a\0b")):
        with pytest.raises(NotFound, match="check the path"):
            load_blueprint(path)


def test_a_huge_file_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(10**12)  # sparse: reading it whole could not end well
    with pytest.raises(InvalidInput) as caught:
        load_blueprint(path)
    assert "larger than 256 KiB" in caught.value.faults[0].message


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.text(), st.binary()))
def test_arbitrary_text_is_invalid_input_and_nothing_else(text: str | bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_blueprint(text)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(REFERENCE) - 1), st.integers(0, 30), st.text(alphabet="[]{}:,&*-#'\" \n0aé<!|", max_size=4))
def test_a_damaged_blueprint_is_a_blueprint_or_invalid_input(start: int, length: int, put: str) -> None:
    found: Blueprint | InvalidInput
    try:
        found = parse_blueprint(REFERENCE[:start] + put + REFERENCE[start + length :])
    except InvalidInput as refused:
        found = refused
    assert isinstance(found, Blueprint) or all(fault.line and fault.column for fault in found.faults)


def test_a_budget_without_a_limit_has_nothing_to_exceed() -> None:
    found = faults(SMALL + "budget: {on_exceeded: stop}")
    assert [line.split(": ", 1)[1] for line in found] == ["there is no limit to exceed; state per_day or per_tree"]
    assert parse_blueprint(SMALL + "budget: {per_tree: 1, on_exceeded: stop}").budget.per_tree == 1
