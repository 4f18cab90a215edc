"""From a fork to a consuming worker of an existing Celery application."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import redis
from celery import Celery
from celery.exceptions import Ignore, Reject, Retry
from celery.signals import task_postrun, task_prerun
from celery.utils.imports import symbol_by_name

from brain_clusters import logs
from brain_clusters.agent import application
from brain_clusters.agent.beats import Beats, Counters
from brain_clusters.agent.config import AgentConfig
from brain_clusters.agent.draining import Draining
from brain_clusters.agent.hearing import Hearing
from brain_clusters.agent.worker import (
    ALONE,
    EXIT_ALREADY_RUNNING,
    hold_identity,
    log_to_standard_error,
    once_it_consumes,
)
from brain_clusters.broker import counts, debts
from brain_clusters.broker.client import connect
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.errors import TemporaryError

_LAST_ERROR_CHARACTERS = 500


def run(app: Celery, spec: AgentSpec, config: AgentConfig, on_ready: Callable[[], None]) -> int:
    """Be the agent ``spec``, a worker of ``app``, until told to stop; return the exit code. See ``worker.run``."""
    assert spec.celery is not None  # noqa: S101 - for the type checker
    lock = hold_identity(Path(config.run_dir), spec.agent_id)
    if lock is None:
        return EXIT_ALREADY_RUNNING
    log_to_standard_error(spec, config)
    for chatty in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    application.check_queues(app, spec.celery.queues)
    client, counters = connect(config.redis_url), Counters()
    _count_requests(app, counters)
    app.conf.broker_transport_options = application.options_for(app, spec)
    draining = Draining.of(spec, config, client, counters.in_flight)
    account = _Account(client, spec, counters)
    account.open()  # before the first message: who returns what it held has to know where
    beats = Beats(
        client,
        spec.agent_id,
        lambda: {**account.told(), "slots": spec.concurrency, "draining": draining.hear()},
        Hearing(
            connect(application.broker_of(app)),
            spec.agent_id,
            spec.celery.queues,
            counters.in_flight,
            deaf_after=config.deaf_after,
        ),
        host_id=config.host_id,
        alone=config.told_by_redis,
    )

    once_it_consumes(config, draining, beats, on_ready)
    _bind_job_ids()
    worker = app.Worker(
        hostname=spec.agent_id,
        queues=list(spec.celery.queues),
        pool=application.pool_for(app, spec),
        concurrency=spec.concurrency,
        loglevel=config.log_level,
        **ALONE,
    )
    try:
        worker.start()
    finally:
        account.told()
    return int(worker.exitcode or 0)


class _Account:
    """What the agent tells the installation: where it takes messages from, and how many tasks it has done."""

    def __init__(self, client: redis.Redis, spec: AgentSpec, counters: Counters) -> None:
        self._client, self._spec, self._counters = client, spec, counters
        self._told = counts.Done()

    def open(self) -> None:
        """Tell where the messages come from. Raises TemporaryError, and then nothing may be taken."""
        work = self._spec.celery
        assert work is not None  # noqa: S101 - for the type checker
        debts.note(self._client, self._spec.agent_id, work.broker, work.queues, self._spec.max_deliveries)

    def told(self) -> dict[str, Any]:
        """Tell it again, with what was done since; return the counters."""
        now = self._counters.snapshot()
        with suppress(TemporaryError):  # the next beat tells it
            self.open()
            ended = now["completed"] + now["failed"]
            done = counts.Done(now["completed"], now["failed"], (now["mean_time"] or 0.0) * ended)
            before = self._told
            more = counts.Done(
                done.completed - before.completed, done.failed - before.failed, done.seconds - before.seconds
            )
            spec = self._spec
            counts.add(self._client, spec.cluster_id, spec.group_name, spec.agent_id, more)
            self._told = done
        return now


def _bind_job_ids() -> None:
    """Give what is logged in a task that task's id, in the process and thread that runs it."""
    running: ContextVar[tuple[ExitStack, ...]] = ContextVar("running", default=())  # a task may call another one

    def begin(task_id: str, **_: Any) -> None:
        stack = ExitStack()
        stack.enter_context(logs.bound(job_id=task_id))
        running.set((*running.get(), stack))

    def end(**_: Any) -> None:
        *before, stack = running.get() or (ExitStack(),)
        running.set(tuple(before))
        stack.close()

    task_prerun.connect(begin, weak=False)
    task_postrun.connect(end, weak=False)


def _count_requests(app: Celery, counters: Counters) -> None:
    """Have every task's requests counted, in this process, which the children of a pool tell how it went."""
    classes: dict[Any, type] = {}
    for task in app.tasks.values():
        base = symbol_by_name(task.Request)
        if base not in classes:
            classes[base] = type("CountedRequest", (_Counted, base), {"counters": counters})
        task.Request = classes[base]


class _Counted:
    """Mixed into the application's own class of requests."""

    counters: Counters
    _began: float | None = None

    def __init_subclass__(cls) -> None:
        """Count what ends well. Celery makes a subclass for each task, whose on_success calls no other one."""
        ends = cls.on_success  # type: ignore[attr-defined]

        def on_success(self: _Counted, failed__retval__runtime: Any, **kwargs: Any) -> Any:
            if not failed__retval__runtime[0]:  # else Celery calls on_failure
                self._end(failed=False)
            return ends(self, failed__retval__runtime, **kwargs)

        cls.on_success = on_success  # type: ignore[attr-defined]

    def on_accepted(self, pid: int, time_accepted: float) -> Any:
        self._began = time.monotonic()
        self.counters.begin()
        return super().on_accepted(pid, time_accepted)  # type: ignore[misc]

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        error = exc_info.exception
        error = getattr(error, "exc", error) if type(error).__name__ == "ExceptionWithTraceback" else error
        # To be tried again, or put back, is no end: the task goes on as another message.
        if isinstance(error, (Retry, Ignore, Reject)):
            self._end(failed=None)
        else:
            self._end(failed=True, error=f"{type(error).__name__}: {error}")
        return super().on_failure(exc_info, *args, **kwargs)  # type: ignore[misc]

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        if not soft:
            self._end(failed=True, error=f"TimeLimitExceeded: {timeout}")
        return super().on_timeout(soft, timeout)  # type: ignore[misc]

    def _end(self, *, failed: bool | None, error: str | None = None) -> None:
        began, self._began = self._began, None
        if began is not None:
            self.counters.end(time.monotonic() - began, failed=failed, error=error and error[:_LAST_ERROR_CHARACTERS])
