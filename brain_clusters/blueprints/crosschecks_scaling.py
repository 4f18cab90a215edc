"""Parameters of ``cluster.scaling`` that contradict each other, or what the cluster and its groups can hold.

What is merely unwise is allowed. ``stated`` is ``cluster.scaling`` without the defaults: two keys that differ in a
default only are nobody's mistake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from brain_clusters.blueprints.messages import clipped
from brain_clusters.domain.cron import covers
from brain_clusters.domain.durations import parse_duration, parse_percent
from brain_clusters.domain.specs import VISIBILITY_SECONDS, Count, ScalingPolicy, parse_count
from brain_clusters.errors import Fault

Groups = list[Mapping[str, Any]]
Scaling = Mapping[str, Any]

_UNITS = {"task_queue_length": "jobs", "queue_latency": "seconds"}


def scaling_faults(cluster: Mapping[str, Any], stated: Scaling, groups: Groups) -> Iterator[Fault]:
    """Yield every contradiction in the sound parts of ``cluster["scaling"]``."""
    scaling: Scaling = cluster.get("scaling", {})
    yield from _thresholds(scaling)
    yield from _units(scaling)
    yield from _windows(scaling, stated)
    yield from _polling(stated)
    yield from _draining(scaling, stated, groups)
    counts = [parse_count(group["count"]) for group in groups if "count" in group]
    # A count that could not be read might be the one that has the room.
    room = counts if len(counts) == len(groups) else []
    yield from _schedules(cluster, room)
    for key in ("idle_workers", "buffer_workers"):
        yield from _reserve(key, cluster, room)
    yield from _fallback(cluster, stated, room)


# --- looking up -------------------------------------------------------------------------------------------------


def _at(scaling: Scaling, key: str) -> Any:
    """Return the value of a key such as windows.panic, or None."""
    value: Any = scaling
    for step in key.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _fault(key: str, told: str) -> Fault:
    return Fault("/cluster/scaling/" + key.replace(".", "/"), told)


def _shown(value: Any) -> str:
    """Return a duration as it was written; a bare number is seconds."""
    return clipped(value) if isinstance(value, str) else f"{value:g} s"


def _longer(scaling: Scaling, key: str, other: str, *, or_equal: bool = False) -> bool:
    """Return whether the duration ``key`` is longer than ``other``; False where one is missing."""
    one, two = _at(scaling, key), _at(scaling, other)
    if one is None or two is None:
        return False
    return parse_duration(one) > parse_duration(two) or (or_equal and parse_duration(one) == parse_duration(two))


# --- the rules --------------------------------------------------------------------------------------------------


def _thresholds(scaling: Scaling) -> Iterator[Fault]:
    down, up = scaling.get("scale_down_threshold"), scaling.get("scale_up_threshold")
    low, high = (_number(value) for value in (down, up))
    lowest = ScalingPolicy().scale_down_threshold
    # The defaults do overlap (up above 0, down below 1): on a queue length, nothing lies between them.
    if down is not None and low >= high:
        told = "state scale_up_threshold, above it" if up is None else f"it must be below scale_up_threshold ({up})"
        yield _fault("scale_down_threshold", f"scale_down_threshold is {down}; {told}")
    elif down is None and 0 < high < lowest and scaling.get("metric") not in (None, "task_queue_length"):
        told = f"scale_up_threshold is {up}, below the default of scale_down_threshold ({lowest:g})"
        yield _fault("scale_up_threshold", f"{told}; state scale_down_threshold, below it")


def _number(threshold: float | str | None) -> float:
    return parse_percent(threshold) if isinstance(threshold, str) else threshold or 0.0


def _units(scaling: Scaling) -> Iterator[Fault]:
    metric = scaling.get("metric")
    for key in ("scale_up_threshold", "scale_down_threshold"):
        value = scaling.get(key)
        if isinstance(value, str) and value.strip().endswith("%") and metric in _UNITS:
            told = f"{key} is {clipped(value)}, but {metric} is measured in {_UNITS[metric]}"
            yield _fault(key, f"{told}; give a number, or another metric")
        elif metric == "cpu_usage" and _number(value) > 100:  # a load is above 100 % as soon as a job has to wait
            yield _fault(key, f"{key} is {value}, but {metric} is a percentage; give at most 100")


def _windows(scaling: Scaling, stated: Scaling) -> Iterator[Fault]:
    panic, stable = _at(scaling, "windows.panic"), _at(scaling, "windows.stable")
    keys = [key for key in ("windows.panic", "windows.stable") if _at(stated, key) is not None]
    if keys and _longer(scaling, "windows.panic", "windows.stable", or_equal=True):
        told = f"windows.panic is {_shown(panic)}, not shorter than windows.stable ({_shown(stable)})"
        yield _fault(keys[0], f"{told}; lower windows.panic or raise windows.stable")


def _polling(stated: Scaling) -> Iterator[Fault]:
    """Yield what is asked for within a time that is shorter than the one between two looks."""
    interval = stated.get("polling_interval")
    for key, what in (("target_latency", "nobody would look in time"), ("windows.panic", "it would see no change")):
        if _longer(stated, "polling_interval", key):
            told = f"{key} is {_shown(_at(stated, key))}, shorter than polling_interval ({_shown(interval)}): {what}"
            yield _fault(key, f"{told}; raise it or lower polling_interval")


def _draining(scaling: Scaling, stated: Scaling, groups: Groups) -> Iterator[Fault]:
    wait = _at(scaling, "scale_down.drain_timeout")
    if wait is None:
        return
    seconds, told = parse_duration(wait), f"scale_down.drain_timeout is {_shown(wait)}"
    key = "drain_timeout" if _at(stated, "scale_down.drain_timeout") is not None else "on_timeout"
    if seconds > VISIBILITY_SECONDS:
        kept = f"the broker keeps a message for its agent for {VISIBILITY_SECONDS} s only"
        yield _fault("scale_down.drain_timeout", f"{told}, but {kept}; lower it")
    if _at(scaling, "scale_down.on_timeout") != "stop":
        return
    slowest = max(groups, key=_longest_job, default={})
    if seconds == 0:
        told += " and on_timeout is stop, so a busy agent would be killed at once"
        yield _fault("scale_down.drain_timeout", f"{told}; raise it, or let on_timeout be wait")
    elif _longest_job(slowest) > seconds:
        name, limit = clipped(slowest.get("name", "a group")), _shown(slowest["timeout"])
        told += f" and on_timeout is stop, so a job of '{name}', whose timeout is {limit}, could be killed before it"
        yield _fault(f"scale_down.{key}", f"{told}; state at least {limit}, or let on_timeout be wait")


def _longest_job(group: Mapping[str, Any]) -> float:
    return parse_duration(group["timeout"]) if "timeout" in group else 0.0


def _schedules(cluster: Mapping[str, Any], counts: list[Count]) -> Iterator[Fault]:
    highest, most = cluster.get("max_workers"), sum(count.maximum for count in counts)
    for index, entry in enumerate(cluster.get("scaling", {}).get("schedule", ())):
        fewest, start, end = (dict(entry or {}).get(key) for key in ("min_workers", "start", "end"))
        told = f"min_workers of this schedule is {fewest}, more than"
        if fewest is not None and highest is not None and fewest > highest:
            fault = f"{told} max_workers ({highest}); lower it or raise max_workers"
            yield _fault(f"schedule.{index}.min_workers", fault)
        elif fewest is not None and counts and fewest > most:
            fault = f"{told} the agent groups can hold ({most}); lower it or raise a count"
            yield _fault(f"schedule.{index}.min_workers", fault)
        if start is not None and end is not None and covers(end, start):
            why = "start and end fire at the same times" if covers(start, end) else "every start is also an end"
            yield _fault(f"schedule.{index}.end", f"{why}, so this schedule is never in force; change one of them")


def _reserve(key: str, cluster: Mapping[str, Any], counts: list[Count]) -> Iterator[Fault]:
    """Yield why so many agents cannot be kept in each scalable group."""
    kept, highest = cluster.get("scaling", {}).get(key), cluster.get("max_workers")
    if not kept or not counts:
        return
    scalable = [count for count in counts if count.scalable]
    largest = max((count.maximum for count in scalable), default=0)
    agents = sum(max(count.minimum, min(kept, count.maximum)) if count.scalable else count.maximum for count in counts)
    if not scalable:
        yield _fault(
            key, f"{key} is {kept}, but no agent group is scalable; give one a count such as 0-5, or remove it"
        )
    elif kept > largest:
        told = f"{key} is {kept}, more than any scalable agent group can hold ({largest})"
        yield _fault(key, f"{told}; lower it or raise a count")
    elif highest is not None and sum(count.minimum for count in counts) <= highest < agents:
        told = f"{key} is {kept} in each scalable agent group, with the others {agents} agents"
        yield _fault(key, f"{told}, more than max_workers ({highest}); lower it or raise max_workers")


def _fallback(cluster: Mapping[str, Any], stated: Scaling, counts: list[Count]) -> Iterator[Fault]:
    """Yield why the cluster (policy step) or no group of it (policy target) can grow to so many agents."""
    workers, highest = _at(stated, "fallback.workers"), cluster.get("max_workers")
    scalable = [count.maximum for count in counts if count.scalable]
    by_group = scalable and cluster["scaling"].get("policy") == "target"
    most = max(scalable) if by_group else sum(count.maximum for count in counts)
    if workers is None:
        return
    if highest is not None and workers > highest:
        told = f"fallback.workers is {workers}, more than max_workers ({highest}); lower it or raise max_workers"
        yield _fault("fallback.workers", told)
    elif counts and workers > most:
        who = "any scalable agent group" if by_group else "the agent groups"
        told = f"fallback.workers is {workers}, more than {who} can hold ({most}); lower it or raise a count"
        yield _fault("fallback.workers", told)
