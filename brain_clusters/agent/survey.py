"""What an existing Celery application says of itself: its queues, which tasks go where, its broker and its pool.

Run in a process of its own, as importing an application may do anything:
``python -P -m brain_clusters.agent.survey PACKAGE.MODULE:ATTRIBUTE FILE [FOLDER...]`` writes it to FILE as JSON.
FOLDERs are looked in, too.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from celery import Celery

from brain_clusters.agent.application import broker_of, find
from brain_clusters.errors import PermanentError


def survey(reference: str) -> dict[str, Any]:
    """Return what there is to know of an application. Raises PermanentError.

    queues: by name, the tasks that are routed there; unsure: why a route could not be told, by task.
    """
    app = find(reference)
    url = broker_of(app)
    try:
        app.loader.import_default_modules()
        app.finalize()
        stated = app.conf.without_defaults()
        queues: dict[str, list[str]] = {name: [] for name in _queues(app)}
        unsure: dict[str, str] = {}
        for name in sorted(name for name in app.tasks if not name.startswith("celery.")):
            try:
                queues.setdefault(_queue_of(app, name), []).append(name)
            except Exception as exc:  # noqa: BLE001 - a router is code of theirs, and may need what only a call has
                unsure[name] = f"{type(exc).__name__}: {exc}"
        return {
            "name": str(app.main or reference.partition(":")[0]),
            "app": reference,
            "queues": queues,
            "unsure": unsure,
            "broker": url,
            "concurrency": stated.get("worker_concurrency"),
            "pool": stated.get("worker_pool"),
        }
    except Exception as exc:
        raise PermanentError(f"the application {reference} cannot be read: {type(exc).__name__}: {exc}") from exc


def _queues(app: Celery) -> list[str]:
    """Return the queues that the application declares, and those that its routes name, the default one first."""
    found = [str(app.conf.task_default_queue), *app.amqp.queues]
    routes = app.conf.task_routes or ()
    for route in (routes,) if isinstance(routes, dict) else routes:
        rules = route.values() if isinstance(route, dict) else (rule for _, rule in _pairs(route))
        for rule in rules:
            queue = rule.get("queue") if isinstance(rule, dict) else rule
            name = getattr(queue, "name", queue)
            if isinstance(name, str):
                found.append(name)
    return list(dict.fromkeys(found))


def _pairs(route: Any) -> list[tuple[Any, Any]]:
    """Return (pattern, rule) of a list of such; none of what is a function or names one."""
    return (
        [one for one in route if isinstance(one, tuple) and len(one) == 2] if isinstance(route, (list, tuple)) else []
    )


def _queue_of(app: Celery, task: str) -> str:
    own = getattr(app.tasks[task], "queue", None)
    options = {"queue": own} if own else {}
    route = app.amqp.router.route(options, task, args=(), kwargs={})
    queue = route.get("queue")
    if queue is not None:
        return str(getattr(queue, "name", queue))
    for name, declared in app.amqp.queues.items():
        exchange = getattr(declared.exchange, "name", None)
        if route.get("routing_key") == declared.routing_key and route.get("exchange", exchange) == exchange:
            return str(name)
    return str(app.conf.task_default_queue)


def main(reference: str, place: str, *folders: str) -> None:
    """Write what the application says of itself to a file, or why that cannot be told to standard error."""
    # As celery -A does; after Celery itself was imported, as an application's module may be called like it.
    sys.path.insert(0, os.getcwd())
    sys.path.extend(folders)
    try:
        found = survey(reference)
    except PermanentError as exc:
        sys.exit(str(exc))
    Path(place).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
