"""Parameters that contradict each other are refused, with a place and a remedy; what is merely unwise is not."""

from __future__ import annotations

import pytest

from brain_clusters.blueprints.validator import format_faults, parse_blueprint
from brain_clusters.domain.specs import VISIBILITY_SECONDS
from brain_clusters.errors import InvalidInput

# The groups hold 1 to 5 agents, which is also what the cluster may have.
SMALL = """\
metadata: {id: small, name: Small, version: 1.10}
cluster:
  type: project
  min_workers: 1
  max_workers: 5
  scaling: {SCALING}
agents:
  - {role: supervisor, name: Boss}
  - {role: worker, name: Hands, count: 0-4}
"""
OFFICE = "start: 0 8 * * *, end: 0 18 * * *"


def written(scaling: str, *, old: str = "", new: str = "", below: str = "") -> str:
    assert old in SMALL
    return SMALL.replace(old or "\0", new).replace("SCALING", scaling) + below


def faults(text: str) -> list[str]:
    try:
        parse_blueprint(text)
    except InvalidInput as refused:
        return format_faults("f", refused.faults).splitlines()
    return []


@pytest.mark.parametrize(
    ("scaling", "fault"),
    [
        ("scale_up_threshold: 2, scale_down_threshold: 5",
         "f:6:58: scale_down_threshold is 5; it must be below scale_up_threshold (2)"),
        ("metric: queue_latency, scale_up_threshold: 0.5",
         "f:6:56: scale_up_threshold is 0.5, below the default of scale_down_threshold (1); state "
         "scale_down_threshold, below it"),
        ("scale_up_threshold: 80%",
         "f:6:33: scale_up_threshold is 80%, but task_queue_length is measured in jobs; give a number, or another "
         "metric"),
        ("metric: queue_latency, scale_up_threshold: 9, scale_down_threshold: 5 %",
         "f:6:81: scale_down_threshold is 5 %, but queue_latency is measured in seconds; give a number, or another "
         "metric"),
        ("metric: cpu_usage, scale_up_threshold: 120",
         "f:6:52: scale_up_threshold is 120, but cpu_usage is a percentage; give at most 100"),
        ("windows: {panic: 1m, stable: 60}",
         "f:6:30: windows.panic is 1m, not shorter than windows.stable (60 s); lower windows.panic or raise "
         "windows.stable"),
        ("windows: {stable: 5}",
         "f:6:31: windows.panic is 6 s, not shorter than windows.stable (5 s); lower windows.panic or raise "
         "windows.stable"),
        ("polling_interval: 10 s, target_latency: 5 s",
         "f:6:53: target_latency is 5 s, shorter than polling_interval (10 s): nobody would look in time; raise it or "
         "lower polling_interval"),
        ("polling_interval: 10, windows: {panic: 9}",
         "f:6:52: windows.panic is 9 s, shorter than polling_interval (10 s): it would see no change; raise it or "
         "lower polling_interval"),
        ("scale_down: {drain_timeout: 9 years, on_timeout: wait}",
         "f:6:41: 'drain_timeout' must be a duration such as"),
        ("scale_down: {drain_timeout: 1500 days}",
         "f:6:41: scale_down.drain_timeout is 1500 days, but the broker keeps a message for its agent for 100000000 s "
         "only; lower it"),
        ("scale_down: {drain_timeout: 0, on_timeout: stop}",
         "f:6:41: scale_down.drain_timeout is 0 s and on_timeout is stop, so a busy agent would be killed at once; "
         "raise it, or let on_timeout be wait"),
        ("idle_workers: 5",
         "f:6:27: idle_workers is 5, more than any scalable agent group can hold (4); lower it or raise a count"),
        ("buffer_workers: 5",
         "f:6:29: buffer_workers is 5, more than any scalable agent group can hold (4); lower it or raise a count"),
        ("fallback: {workers: 6}",
         "f:6:33: fallback.workers is 6, more than max_workers (5); lower it or raise max_workers"),
        ("fallback: {workers: 5}",
         "f:6:33: fallback.workers is 5, more than any scalable agent group can hold (4); lower it or raise a count"),
        (f"schedule: [{{{OFFICE}, min_workers: 6}}]",
         "f:6:73: min_workers of this schedule is 6, more than max_workers (5); lower it or raise max_workers"),
        ("schedule: [{start: 0 0 30 2 *, end: 0 0 1 3 *, min_workers: 1}]",
         "f:6:32: 'start' must be a cron expression that fires: no month that it names has so many days"),
        ("schedule: [{start: 0 8 * * 0, end: 0 8 * * sun, min_workers: 1}]",
         "f:6:48: start and end fire at the same times, so this schedule is never in force; change one of them"),
        ("schedule: [{start: 0 8 * * mon, end: 0 8 * * *, min_workers: 1}]",
         "f:6:50: every start is also an end, so this schedule is never in force; change one of them"),
    ],
)  # fmt: skip
def test_a_contradiction_within_scaling_is_refused(scaling: str, fault: str) -> None:
    [found] = faults(written(scaling))
    assert found.startswith(fault)


@pytest.mark.parametrize(
    ("scaling", "old", "new", "fault"),
    [
        ("", "max_workers: 5", "max_workers: 9\n  default_workers: 6",
         "f:6:20: default_workers is 6, more than the agent groups can hold (5); lower it or raise a count"),
        ("", "max_workers: 5", "max_workers: 9\n  default_workers: 0",
         "f:6:20: default_workers is 0, less than min_workers (1); raise it"),
        ("", "name: Hands, count: 0-4}", "name: Hands, count: 2}\n  - {role: worker, name: Feet, count: 1-2}",
         None),
        ("idle_workers: 1", "count: 0-4", "count: 4",
         "f:6:27: idle_workers is 1, but no agent group is scalable; give one a count such as 0-5, or remove it"),
        ("buffer_workers: 4", "max_workers: 5", "max_workers: 4",
         "f:6:29: buffer_workers is 4 in each scalable agent group, with the others 5 agents, more than max_workers "
         "(4); lower it or raise max_workers"),
        ("policy: step, fallback: {workers: 6}", "max_workers: 5", "max_workers: 9",
         "f:6:47: fallback.workers is 6, more than the agent groups can hold (5); lower it or raise a count"),
        ("policy: step, fallback: {workers: 5}", "max_workers: 5", "max_workers: 9", None),
        (f"schedule: [{{{OFFICE}, min_workers: 6}}]", "max_workers: 5", "max_workers: 9",
         "f:6:73: min_workers of this schedule is 6, more than the agent groups can hold (5); lower it or raise"),
        ("scale_down: {on_timeout: stop, drain_timeout: 1m}", "count: 0-4", "timeout: 15 minutes",
         "f:6:59: scale_down.drain_timeout is 1m and on_timeout is stop, so a job of 'Hands', whose timeout is 15 "
         "minutes, could be killed before it; state at least 15 minutes, or let on_timeout be wait"),
        ("scale_down: {on_timeout: stop}", "count: 0-4", "timeout: 2h",
         "f:6:38: scale_down.drain_timeout is 3600 s and on_timeout is stop, so a job of 'Hands'"),
        ("scale_down: {on_timeout: stop, drain_timeout: 2h}", "count: 0-4", "timeout: 2h", None),
        ("scale_down: {drain_timeout: 1m}", "count: 0-4", "timeout: 2h", None),
    ],
)  # fmt: skip
def test_a_contradiction_with_the_cluster_or_its_groups_is_refused(
    scaling: str, old: str, new: str, fault: str | None
) -> None:
    found = faults(written(scaling, old=old, new=new))
    assert len(found) == (fault is not None), found
    assert fault is None or found[0].startswith(fault)


def test_fewer_default_workers_than_the_groups_need_are_refused() -> None:
    text = written("", old="max_workers: 5", new="max_workers: 9\n  default_workers: 2").replace("0-4", "2-4")
    assert faults(text) == [
        "f:6:20: default_workers is 2, less than the 3 agents that the groups need at least; raise it"
    ]


@pytest.mark.parametrize(
    "scaling",
    [
        "scale_up_threshold: 0.5",
        "metric: queue_latency, scale_up_threshold: 0",
        "metric: queue_latency, scale_up_threshold: 1",
        "metric: cpu_usage, scale_up_threshold: 100, scale_down_threshold: 20%",
        "metric: load_percentage, scale_up_threshold: 150, scale_down_threshold: 50",
        "polling_interval: 1 hour",
        "target_latency: 1 s",
        "polling_interval: 2, target_latency: 2, windows: {panic: 2, stable: 2.5}",
        f"scale_down: {{drain_timeout: {VISIBILITY_SECONDS}}}",
        "idle_workers: 4, buffer_workers: 4, fallback: {workers: 4}",
        "fallback: {failure_threshold: 3, workers: 1}",
        f"schedule: [{{{OFFICE}, min_workers: 5}}, {{{OFFICE}, min_workers: 0}}, {{{OFFICE}, min_workers: 1}}]",
        "schedule: [{start: 0 0 * * *, end: 0 0 * * mon-sat, min_workers: 1}]",
        "schedule: [{start: 0 0 29 2 *, end: 0 0 1 3 *, min_workers: 1}]",
    ],
)
def test_what_is_merely_unwise_is_allowed(scaling: str) -> None:
    assert faults(written(scaling)) == []


@pytest.mark.parametrize(
    ("lifecycle", "fault"),
    [
        ("hibernate_conditions: [idle_time: 1 hour, task_queue_empty: false]",
         "f:10:73: task_queue_empty is false, but a cluster never sleeps while jobs wait; say true, or remove it"),
        ("hibernate_conditions: {task_queue_empty: false}", "f:10:54: task_queue_empty is false"),
        ("hibernate_conditions: [load_below: 0 %]",
         "f:10:48: load_below is 0 %, and no load is below that; raise it, or remove it"),
        ("reactivate_triggers: [manual_trigger: false]",
         "f:10:13: nothing would wake this cluster: manual_trigger is false, and no job and no schedule does; add "
         "new_task_received, a schedule, or manual_trigger"),
        ("reactivate_triggers: {new_task_received: false, manual_trigger: false}", "f:10:13: nothing would wake"),
        ("reactivate_triggers: [schedule: 0 0 31 4 *]", "f:10:45: 'schedule' must be a cron expression that fires"),
    ],
)  # fmt: skip
def test_a_lifecycle_that_cannot_be_is_refused(lifecycle: str, fault: str) -> None:
    [found] = faults(written("", below=f"lifecycle: {{{lifecycle}}}"))
    assert found.startswith(fault)


@pytest.mark.parametrize(
    "lifecycle",
    [
        "hibernate_conditions: [idle_time: 0, task_queue_empty, x-note: 1, load_below: 0.1%]",
        "reactivate_triggers: []",
        "reactivate_triggers: [new_task_received: false]",
        "reactivate_triggers: [manual_trigger: false, schedule: 0 8 * * *]",
        "reactivate_triggers: [manual_trigger: false, new_task_received]",
        "destroy_conditions: [hibernated_duration: 1 day, manual_trigger: false]",
    ],
)
def test_a_lifecycle_that_can_be_is_allowed(lifecycle: str) -> None:
    assert faults(written("", below=f"lifecycle: {{{lifecycle}}}")) == []


def test_a_schedule_that_asks_for_agents_is_a_way_to_wake() -> None:
    below = "lifecycle: {reactivate_triggers: [manual_trigger: false]}"
    assert faults(written(f"schedule: [{{{OFFICE}, min_workers: 1}}]", below=below)) == []


def test_a_faulty_value_makes_no_second_fault() -> None:
    for scaling in ("windows: {panic: x, stable: 1}", "polling_interval: x, target_latency: 1", "idle_workers: x",
                    "scale_down: {drain_timeout: x, on_timeout: stop}", "scale_down: 5", "windows: 5", "schedule: [5]",
                    f"schedule: [{{{OFFICE}, min_workers: x}}]", "fallback: {workers: x}"):  # fmt: skip
        assert len(faults(written(scaling))) == 1, scaling
    assert len(faults(written("idle_workers: 9").replace("0-4", "x"))) == 1


def test_more_faults_than_are_told_end_in_a_list_of_them_too() -> None:
    groups = "".join(f"  - {{role: x, name: w{n}, count: x, timeout: x, x: 1, z: 1}}\n" for n in range(60))
    found = faults(written("", below=groups))
    assert len(found) > 100
    assert any("there are more than 100 faults" in line for line in found)


def test_no_job_may_hand_down_so_much_at_once_that_redis_stands_still() -> None:
    assert faults(written("", old="max_workers: 5", new="max_workers: 5\n  delegation: {max_fan_out: 10000}")) == []
    found = faults(written("", old="max_workers: 5", new="max_workers: 5\n  delegation: {max_fan_out: 10001}"))
    assert len(found) == 1
    assert "max_fan_out" in found[0]
    assert "10000" in found[0]
