"""The conditions of alerts: "error_rate > 10% and queue_latency >= 5m" as data. Text is read, never executed.

A condition is one comparison, or several joined by ``and``. Truth has three values: a metric without a value is
unknown, and None comes back where the answer depends on it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import pairwise
from typing import Literal

from brain_clusters.domain.durations import parse_duration

Unit = Literal["percent", "seconds", "milliseconds", "number", "share"]
Values = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that alerts can watch. highest: the largest value that it can have; None is no limit. None is below 0.

    A percentage without a limit can be above 100: of one core, or of what the agents can do at a time.
    """

    unit: Unit
    description: str
    highest: float | None = None


METRICS: dict[str, Metric] = {
    "error_rate": Metric("percent", "jobs that failed, of those that ended in the last minute", 100.0),
    "tasks_per_minute": Metric("number", "jobs that ended in the last minute"),
    "avg_response_time": Metric("milliseconds", "how long the jobs that ended in the last minute took, on average"),
    "queue_length": Metric("number", "jobs that wait"),
    "queue_latency": Metric("seconds", "how long the oldest of them has waited"),
    "running": Metric("number", "jobs that agents hold"),
    "held": Metric("number", "jobs that wait for their time"),
    "load": Metric("percent", "jobs that run or wait, of what the ready agents do at a time"),
    "cpu_usage": Metric("percent", "CPU time of all agents together, of one core"),
    "memory_usage": Metric("percent", "memory of all agents together, of the machine's", 100.0),
    "active_agents": Metric("number", "agents that are ready"),
    "idle_agents": Metric("number", "agents that are ready and do nothing"),
    "busy_agents": Metric("number", "agents that do a job"),
    "starting_agents": Metric("number", "agents that are being started"),
    "draining_agents": Metric("number", "agents that finish their work and leave"),
    "missing_agents": Metric("number", "agents that are wanted and not ready"),
    "worker_failure": Metric("number", "agents that died unasked in the last 60 s"),
    "health_score": Metric("share", "the share of wanted agents that is ready, lowered by those that died", 1.0),
}
ALIASES = {
    "load_percentage": "load",
    "failed_agents": "worker_failure",
    "task_queue_length": "queue_length",
    "queue_wait_time": "queue_latency",
}

MAX_LENGTH = 200
MAX_COMPARISONS = 10
_LARGEST = 1e12
# How far beyond its threshold a value must have come back, as a share of the threshold.
MARGIN = 0.1
_EXAMPLE = "write METRIC OPERATOR VALUE, such as error_rate > 10% or queue_latency >= 5m"
_COMPARISON = re.compile(r"([a-z_][a-z0-9_]{0,39}) ?([<>=!]=|[<>]) ?([0-9][^<>=!]*)")
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,15})?")
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric (by its proper name), an operator, and a threshold in the metric's unit."""

    metric: str
    op: str
    threshold: float

    def holds(self, values: Values) -> bool | None:
        """Return whether it is true; None while the metric is unknown."""
        return self._compare(values, self.threshold)

    def is_clear(self, values: Values) -> bool | None:
        """Return whether it is false by MARGIN of the threshold; None while the metric is unknown."""
        margin = MARGIN * self.threshold
        if self.op in (">", ">="):
            moved = self.threshold - margin
        elif self.op in ("<", "<="):
            highest = METRICS[self.metric].highest
            # A share below 0.95 must not have to come back to 1.045.
            moved = self.threshold + (margin if highest is None else min(margin, (highest - self.threshold) / 2))
        else:
            moved = self.threshold
        held = self._compare(values, moved)
        return None if held is None else not held

    def _compare(self, values: Values, threshold: float) -> bool | None:
        value = values.get(self.metric)
        return None if value is None else _OPERATORS[self.op](value, threshold)


@dataclass(frozen=True, slots=True)
class Condition:
    """Comparisons that must all be true. text is how it was written."""

    comparisons: tuple[Comparison, ...]
    text: str = field(compare=False)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that it looks at, by their proper names."""
        return tuple(dict.fromkeys(one.metric for one in self.comparisons))

    def holds(self, values: Values) -> bool | None:
        """Return whether it is true. One false comparison makes it false, whatever is unknown."""
        return _all(one.holds(values) for one in self.comparisons)

    def is_clear(self, values: Values) -> bool | None:
        """Return whether one of its comparisons is false by the margin."""
        held = _all(_not(one.is_clear(values)) for one in self.comparisons)
        return _not(held)

    def __str__(self) -> str:
        return self.text


def _not(truth: bool | None) -> bool | None:
    return None if truth is None else not truth


def _all(truths: Iterator[bool | None]) -> bool | None:
    found = list(truths)
    return False if False in found else None if None in found else True


# --- reading ----------------------------------------------------------------------------------------------------


def parse_condition(text: object) -> Condition:
    """Return what ``text`` says. Raise ValueError with a sentence."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"a condition is text: {_EXAMPLE}")
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a condition has at most {MAX_LENGTH} characters")
    plain = " ".join(text.split())
    lower = plain.lower()
    if " or " in lower:
        raise ValueError("a condition joins comparisons by 'and' only; for 'or' write two alerts")
    parts = lower.split(" and ")
    if len(parts) > MAX_COMPARISONS:
        raise ValueError(f"a condition has at most {MAX_COMPARISONS} comparisons")
    found = Condition(tuple(_comparison(part) for part in parts), plain)
    _check_sense(found)
    return found


def _comparison(text: str) -> Comparison:
    match = _COMPARISON.fullmatch(text)
    if match is None:
        hint = "write == to compare for equality; " if re.search(r"[^<>=!]=[^=]", text) else ""
        raise ValueError(f"{hint}{_EXAMPLE}")
    name, op, value = match.groups()
    metric = ALIASES.get(name, name)
    if metric not in METRICS:
        raise ValueError(f"{name} is no metric{_hint(name)}")
    threshold = round(_threshold(name, METRICS[metric].unit, value), 6)
    if threshold > _LARGEST:
        raise ValueError(f"{name} never comes to so large a number")
    return Comparison(metric, op, threshold)


def _hint(name: str) -> str:
    near = get_close_matches(name, [*METRICS, *ALIASES], n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(METRICS)}"


def _threshold(name: str, unit: Unit, text: str) -> float:
    number = _NUMBER.fullmatch(text)
    if unit == "percent":
        percent = _NUMBER.fullmatch(text.removesuffix("%").rstrip())
        if percent is None:
            raise ValueError(f"{name} is a percentage: write 10% or 10")
        return float(percent[0])
    if unit in ("seconds", "milliseconds"):
        scale = 1 if unit == "seconds" else 1000
        if number:
            return float(number[0])
        try:
            return scale * parse_duration(text)
        except ValueError:
            raise ValueError(f"{name} is a time: write 30s, 5m or 1h30m (a bare number is {unit})") from None
    if number is None:
        example = "a number from 0 to 1: write 0.8" if unit == "share" else "a plain number: write 5"
        raise ValueError(f"{name} is {example}")
    return float(number[0])


# --- sense ------------------------------------------------------------------------------------------------------


def _check_sense(condition: Condition) -> None:
    """Raise ValueError for what is always or never true."""
    for metric in condition.metrics:
        same = [one for one in condition.comparisons if one.metric == metric]
        truths = [all(one.holds({metric: value}) for one in same) for value in _samples(metric, same)]
        highest = METRICS[metric].highest
        span = "is 0 or more" if highest is None else f"is from 0 to {highest:g}"
        if not any(truths):
            raise ValueError(f"what is asked of {metric} is never true; it {span}")
        if all(truths):
            raise ValueError(f"what is asked of {metric} is always true; it {span}")


def overlap(first: Condition, second: Condition) -> bool:
    """Return whether two conditions on the same metrics can be true at once. On different metrics: False."""
    if set(first.metrics) != set(second.metrics):
        return False
    both = [*first.comparisons, *second.comparisons]
    return all(_possible(metric, [one for one in both if one.metric == metric]) for metric in first.metrics)


def _possible(metric: str, comparisons: Sequence[Comparison]) -> bool:
    samples = _samples(metric, comparisons)
    return any(all(one.holds({metric: value}) for one in comparisons) for value in samples)


def _samples(metric: str, comparisons: Sequence[Comparison]) -> list[float]:
    """Return a value of every interval that the thresholds cut the metric's range into, and the thresholds."""
    highest = METRICS[metric].highest
    top = highest if highest is not None else max(one.threshold for one in comparisons) + 1
    ends = sorted({0.0, top, *(one.threshold for one in comparisons if one.threshold <= top)})
    return [*ends, *((low + high) / 2 for low, high in pairwise(ends))]
