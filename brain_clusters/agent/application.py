"""An existing Celery application in our zygote: imported, judged, and made ready. Not a line of it changes.

What it decided stays: its tasks, serializers, accept_content, retries, routes, result backend, limits. Ours are the
transport, which knows who holds what; prefetching; remote control; and what the command line of a worker says: the
queues, pool, concurrency and logs. Late acknowledgement is a default of ours, which the application may overrule:
without it, whatever a killed worker was doing is lost.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from celery import Celery
from celery.app import defaults
from celery.platforms import check_privileges

from brain_clusters.broker import names
from brain_clusters.broker.app import TRANSPORT, transport_options
from brain_clusters.broker.brokers import place_of
from brain_clusters.config import mask_url, resolve
from brain_clusters.domain.agents import AgentSpec, Loads
from brain_clusters.errors import PermanentError

# What holds where the application says nothing else.
_DEFAULTS = {"task_acks_late": True, "task_reject_on_worker_lost": True}
_OURS: dict[str, Any] = {
    "broker_transport": TRANSPORT,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "worker_prefetch_multiplier": 1,
    "worker_enable_remote_control": False,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
}
# Those of our transport's options that the application has no say in.
_OWN_OPTIONS = ("unacked_key", "claim_key", "owner", "visibility_timeout", "polling_interval", "client_name")
# An idle worker waits on its connection for as long as polling_interval.
_LEAST_SOCKET_SECONDS = 2.0


def load(loads: Loads, own_url: str) -> Celery:
    """Import an application and make it ready for its workers. own_url: the Redis of this installation.

    Raises PermanentError with what is wrong and what to do: it cannot be imported, is no Celery application, or has a
    broker that we cannot serve.
    """
    for setting, value in _DEFAULTS.items():
        defaults.DEFAULTS[setting] = value
        defaults._OLD_DEFAULTS[defaults._TO_OLD_KEY[setting]] = value  # settings in upper case
    app = find(str(loads.app))
    try:
        _check_broker(app, loads, own_url)
        check_privileges(app.conf.accept_content)  # what the worker would refuse, and a log tell only
        app.conf.update(_OURS)
        app.set_default()
        app.set_current()
        app.loader.import_default_modules()
        app.finalize()
        app.tasks.pop(names.JOB_TASK, None)  # our own, which Celery shares among all apps of a process
        _ = app.amqp.queues, app.log, app.backend
    except PermanentError:
        raise
    except Exception as exc:
        raise PermanentError(f"the application {loads.app} cannot be used: {type(exc).__name__}: {exc}") from exc
    return app


def find(reference: str) -> Celery:
    """Return the application that "package.module:attribute" names. Raises PermanentError."""
    module_name, _, path = reference.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (module_name == exc.name or module_name.startswith(f"{exc.name}.")):
            raise PermanentError(
                f"there is no module {exc.name!r} for the application {reference}; it is looked for in the working "
                "directory and in BRAIN_HANDLER_PATH"
            ) from exc
        raise PermanentError(f"importing {module_name} failed: {exc}") from exc
    except (Exception, SystemExit) as exc:
        raise PermanentError(f"importing {module_name} failed: {type(exc).__name__}: {exc}") from exc
    for part in path.split("."):
        if not hasattr(found, part):
            known = sorted(name for name, value in vars(found).items() if isinstance(value, Celery))
            hint = f"; it has {', '.join(known)}" if known else ""
            raise PermanentError(f"the module {module_name} has no {part!r} for the application {reference}{hint}")
        found = getattr(found, part)
    if not isinstance(found, Celery):
        raise PermanentError(f"{reference} is no Celery application but of the type {type(found).__name__}")
    return found


def broker_of(app: Celery) -> str:
    """Return the address that the application's workers read from. Raises PermanentError where it is not one Redis."""
    url = app.conf.broker_read_url
    if isinstance(url, (list, tuple)) or ";" in (url or ""):
        raise PermanentError("the application names several brokers to fail over to; name one")
    try:
        place_of(str(url or "amqp://"))
    except ValueError as exc:
        raise PermanentError(f"the application's broker is not Redis: {exc}") from exc
    return str(url)


def _check_broker(app: Celery, loads: Loads, own_url: str) -> None:
    url = broker_of(app)
    try:
        declared = place_of(resolve(loads.broker) if loads.broker else own_url)
    except ValueError as exc:
        raise PermanentError(f"`broker: {loads.broker}` of the group: {exc}") from exc
    if place_of(url) != declared:
        told = f"as the group says (`broker: {loads.broker}`)" if loads.broker else "this installation's own"
        raise PermanentError(
            f"the application's broker is {mask_url(url)}, and not {declared}, {told}; write "
            f"`broker: redis://{place_of(url)}`, or `broker: env:NAME` for an address with a password, below `celery:`"
        )
    options = app.conf.broker_transport_options or {}
    if options.get("global_keyprefix"):
        raise PermanentError(
            "the application's broker has a global_keyprefix, which is not supported; give it a database"
        )
    steps = tuple(options.get("priority_steps", names.PRIORITY_STEPS))
    if (
        not set(steps) <= set(names.PRIORITY_STEPS)
        or options.get("sep", names.PRIORITY_SEPARATOR) != names.PRIORITY_SEPARATOR
    ):
        raise PermanentError(
            f"the application's broker_transport_options have priority_steps {list(steps)} or a sep of their own; "
            f"only kombu's {list(names.PRIORITY_STEPS)} are supported"
        )


def check_queues(app: Celery, queues: Sequence[str]) -> None:
    """Raise PermanentError for a queue that the application does not have, or that cannot wait for a worker."""
    known = app.amqp.queues
    for name in queues:
        if name not in known:
            if not app.conf.task_create_missing_queues:
                listed = ", ".join(sorted(known)) or "none"
                raise PermanentError(f"the application has no queue {name!r}; it has {listed}")
        elif known[name].exchange is not None and known[name].exchange.type == "fanout":
            raise PermanentError(
                f"the queue {name!r} is bound to a fanout exchange, whose messages wait for nobody; it cannot be served"
            )


def options_for(app: Celery, spec: AgentSpec) -> dict[str, Any]:
    """Return the options of the transport for one agent: the application's own, and what is ours."""
    ours, theirs = transport_options(spec.agent_id), dict(app.conf.broker_transport_options or {})
    if (theirs.get("socket_timeout") or _LEAST_SOCKET_SECONDS) < _LEAST_SOCKET_SECONDS:
        del theirs["socket_timeout"]
    return {**ours, **theirs, **{key: ours[key] for key in _OWN_OPTIONS}}


def pool_for(app: Celery, spec: AgentSpec) -> str:
    """Return the pool: as the group says, else one that heeds the application's time limits, where it has any."""
    if spec.pool is not None:
        return spec.pool
    limits: list[Any] = [app.conf.task_time_limit, app.conf.task_soft_time_limit]
    for task in app.tasks.values():
        limits += [task.time_limit, task.soft_time_limit]
    if any(limits):
        return "prefork"
    return "solo" if spec.concurrency == 1 else "threads"
