"""Conditions of ``lifecycle`` that contradict what a cluster is: it sleeps only without jobs, and it can be woken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from brain_clusters.blueprints.build import located_conditions
from brain_clusters.domain.durations import parse_duration, parse_percent
from brain_clusters.errors import Fault


def lifecycle_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield every contradiction in the sound parts of ``document["lifecycle"]``."""
    lifecycle: Mapping[str, Any] = document.get("lifecycle", {})
    yield from _replacing(document.get("rollout", {}))
    yield from _sleeping(lifecycle.get("hibernate_conditions", ()))
    if "reactivate_triggers" in lifecycle:
        schedule = document.get("cluster", {}).get("scaling", {}).get("schedule", ())
        yield from _waking(lifecycle["reactivate_triggers"], is_scheduled=bool(schedule))


def _replacing(stated: Mapping[str, Any]) -> Iterator[Fault]:
    if {"min_healthy_time", "progress_deadline"} <= stated.keys():
        needed, most = parse_duration(stated["min_healthy_time"]), parse_duration(stated["progress_deadline"])
        if most <= needed:
            told = f"no agent can be ready for {needed:g} s within {most:g} s; raise it, or lower min_healthy_time"
            yield Fault("/rollout/progress_deadline", f"progress_deadline is not longer than min_healthy_time: {told}")


def _sleeping(stated: Any) -> Iterator[Fault]:
    for place, key, value in located_conditions(stated):
        pointer = f"/lifecycle/hibernate_conditions{place}"
        if key == "task_queue_empty" and value is False:
            told = "task_queue_empty is false, but a cluster never sleeps while jobs wait; say true, or remove it"
            yield Fault(pointer, told)
        elif key == "load_below" and parse_percent(value) == 0:
            yield Fault(pointer, f"load_below is {value}, and no load is below that; raise it, or remove it")


def _waking(stated: Any, *, is_scheduled: bool) -> Iterator[Fault]:
    said = {key: value for _, key, value in located_conditions(stated)}
    # Unless it is stated, somebody who asks is heard.
    if said.get("manual_trigger") is False and not (
        said.get("new_task_received") or "schedule" in said or is_scheduled
    ):
        told = "nothing would wake this cluster: manual_trigger is false, and no job and no schedule does"
        yield Fault("/lifecycle/reactivate_triggers", f"{told}; add new_task_received, a schedule, or manual_trigger")
