"""A blueprint for an existing Celery application, as text with comments: one group for each of its queues."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from brain_clusters.domain.specs import slug

_MOST_AGENTS = 5
_MOST_SLOTS = 64
_POOLS = ("solo", "threads", "prefork")
_SHOWN = 20

_HEAD = """\
# Written by `brain-clusters import celery {app}` from the queues and routes of the application.
# Its agents are the application's own workers: nothing of it changes, and its clients go on as they do.
metadata:
  id: {id}
  name: {name}
  version: "1"
  description: {description}

cluster:
  type: project
  min_workers: 1
  max_workers: {most}

agents:
  # A blueprint has exactly one supervisor. This one has no work: it is the only agent while nothing waits.
  - role: supervisor
    name: Supervisor
    count: 1
"""
_TAIL = """
lifecycle:
  hibernate_conditions:
    - idle_time: 5 minutes
    - task_queue_empty: true
  reactivate_triggers:
    - new_task_received
    - manual_trigger
"""


def blueprint_text(found: Mapping[str, Any], *, own_broker: bool) -> str:
    """Return the blueprint of what ``agent.survey`` found. own_broker: it is on the Redis of this installation."""
    queues: Mapping[str, Sequence[str]] = found["queues"]
    identity = slug(str(found["name"])) or "application"
    head = _HEAD.format(
        app=found["app"], id=_quoted(identity), name=_quoted(str(found["name"])[:100]),
        description=_quoted(f"The workers of {found['app']}."), most=1 + _MOST_AGENTS * len(queues),
    )  # fmt: skip
    broker = None if own_broker else _broker(str(found["broker"]), identity)
    names = _group_names(list(queues))
    groups = "".join(
        "\n" + "\n".join(_group(name, queue, tasks, found, broker))
        for (queue, tasks), name in zip(queues.items(), names, strict=True)
    )
    unsure = "".join(f"\n# Which queue {task} goes to is decided at each call: {why}" for task, why in _lines(found))
    return f"{head}{groups}\n{unsure}{_TAIL}"


def _lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for task, why in found["unsure"].items():
        yield task, " ".join(why.split())[:100]


def _group(
    name: str, queue: str, tasks: Sequence[str], found: Mapping[str, Any], broker: tuple[str, str] | None
) -> Iterator[str]:
    listed = ", ".join(tasks[:_SHOWN]) + (f" and {len(tasks) - _SHOWN} more" if len(tasks) > _SHOWN else "")
    yield f"  # Tasks: {listed}." if tasks else "  # No task that the application has registered is routed here."
    yield "  - role: worker"
    yield f"    name: {_quoted(name)}"
    yield f"    count: 0-{_MOST_AGENTS}"
    yield from _slots(found)
    yield "    celery:"
    yield f"      app: {_quoted(str(found['app']))}"
    yield f"      queues: [{_quoted(queue)}]"
    if broker is not None:
        yield f"      broker: {_quoted(broker[0])}{broker[1]}"


def _slots(found: Mapping[str, Any]) -> Iterator[str]:
    slots, pool = found["concurrency"], found["pool"]
    if isinstance(slots, int) and slots > 1:
        told = f"  # the application says {slots}" if slots > _MOST_SLOTS else ""
        if pool != "solo":
            yield f"    concurrency: {min(slots, _MOST_SLOTS)}{told}"
    if pool in _POOLS:
        yield f"    pool: {pool}"
    elif pool is not None:
        yield f"    # The application's worker_pool, {' '.join(str(pool).split())[:50]}, is not supported here."


def _broker(url: str, identity: str) -> tuple[str, str]:
    """Return how the blueprint names the broker, and a comment. Passwords are not written into blueprints."""
    if urlsplit(url).password is None and "password=" not in url:
        return url, ""
    variable = re.sub(r"[^A-Z0-9]", "_", identity.upper()) + "_BROKER_URL"
    return f"env:{variable}", "  # set it, to the application's broker, where the system runs"


def _group_names(queues: Sequence[str]) -> list[str]:
    """Return a name for the group of each queue, none of which makes the same slug as another."""
    names, taken = [], {"supervisor", ""}
    for number, queue in enumerate(queues, 1):
        name = queue[:60] if slug(queue[:60]) not in taken else f"{queue[:50]} {number}"
        if slug(name) in taken:
            name = f"queue {number}"
        taken.add(slug(name))
        names.append(name)
    return names


def _quoted(text: str) -> str:
    """Return ``text`` as YAML in double quotes, which JSON is."""
    return json.dumps(text)
