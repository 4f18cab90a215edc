"""One job from its delivery to its record. A redelivered job that is finished is not done again."""

from __future__ import annotations

import json
import logging
import re
import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from celery import Celery

from brain_clusters.agent.beats import Counters
from brain_clusters.agent.context import JobContext
from brain_clusters.agent.errors import HandlerError
from brain_clusters.agent.handlers import Handler
from brain_clusters.broker import names
from brain_clusters.broker.jobs import JobRecords, JobReport
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.domain.states import JobStatus
from brain_clusters.errors import TemporaryError

log = logging.getLogger(__name__)

Value = TypeVar("Value")

RESULT_LIMIT_BYTES = 1024 * 1024
# How long a job waits for Redis to come back. After it the job is left to the sweep, which runs it again.
_PATIENCE_SECONDS = 300.0

# NUL as JSON writes it; a backslash before it that is itself escaped is part of the text.
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


class JobFailed(Exception):
    """Tells Celery, and with it a client that waits on the result backend, that the job failed and why."""


class JobRunner:
    """Runs the jobs of one agent. Made in the zygote; ``spec`` and the rest are given to it after the fork."""

    def __init__(self) -> None:
        self.counters = Counters()

    def bind(self, spec: AgentSpec, handler: Handler, records: JobRecords) -> None:
        """Take up the agent's own part."""
        self.counters = Counters()  # anew: the zygote's are as old as the zygote
        self._spec, self._handler, self._records = spec, handler, records

    def __call__(self, job_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do one delivery of a job; return its result or raise JobFailed."""
        job_id = _clean(str(job_id))  # any client chooses its own, and PostgreSQL has to store it
        attempt = _patiently(job_id, lambda: self._records.begin(job_id, self._spec.agent_id))
        if attempt == 0:
            log.info("job %s was finished before; its acknowledgement was lost", job_id)
            return None
        started = time.time()
        self.counters.begin()
        try:
            result, error = self._outcome(job_id, attempt, args, kwargs)
        finally:
            failed = "error" not in locals() or error is not None
            self.counters.end(time.time() - started, failed=failed)
        report = self._report(job_id, attempt, started, result, error)
        _patiently(job_id, lambda: self._records.finish(report))
        if error is not None:
            raise JobFailed(error["message"])
        return result

    def _outcome(
        self, job_id: str, attempt: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any] | None]:
        spec = self._spec
        if attempt > spec.max_deliveries:
            return None, _error("AgentDied", f"{spec.max_deliveries} agents died while they did this job; given up")
        context = JobContext(
            job_id, attempt, spec.cluster_id, spec.group_name, spec.agent_id, spec.config, logging.getLogger("job")
        )
        try:
            return _jsonable(self._handler(_payload(args, kwargs), context)), None
        except HandlerError as exc:
            return None, _error("HandlerError", str(exc))
        except (Exception, SystemExit) as exc:
            log.exception("job %s failed", job_id)
            return None, _error(type(exc).__name__, str(exc) or type(exc).__name__, traceback.format_exc(limit=-20))

    def _report(
        self, job_id: str, attempt: int, started: float, result: Any, error: dict[str, Any] | None
    ) -> JobReport:
        return JobReport(
            id=job_id,
            cluster_id=self._spec.cluster_id,
            group_name=self._spec.group_name,
            agent_id=self._spec.agent_id,
            status=JobStatus.SUCCEEDED if error is None else JobStatus.FAILED,
            attempts=attempt,
            started_at=started,
            finished_at=time.time(),
            result=result,
            error=error,
        )


def _patiently(job_id: str, step: Callable[[], Value]) -> Value:
    """Take a step in Redis, and wait while it is away: a job failed for that would be lost, or its work done again."""
    deadline, pause = time.monotonic() + _PATIENCE_SECONDS, 0.1
    while True:
        try:
            return step()
        except TemporaryError:
            if time.monotonic() > deadline:
                raise
            log.warning("job %s waits for Redis", job_id)
            time.sleep(pause)
            pause = min(2.0, pause * 2)


def _payload(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the payload of a message: its one argument, positional or named ``payload``."""
    if len(args) + len(kwargs) > 1 or (kwargs and "payload" not in kwargs):
        raise HandlerError("send one argument, the payload: send_task('brain.job', [payload], queue=...)")
    return args[0] if args else kwargs.get("payload")


def _jsonable(result: Any) -> Any:
    """Return ``result`` when it is JSON of a fair size; raise HandlerError that says what is wrong with it."""
    try:
        text = json.dumps(result, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as exc:
        raise HandlerError(f"the handler returned what is not JSON: {exc}") from exc
    if len(text) > RESULT_LIMIT_BYTES:
        raise HandlerError(f"the result is {len(text)} bytes of JSON; the limit is {RESULT_LIMIT_BYTES}")
    # PostgreSQL stores no NUL in text, and a lone surrogate is no Unicode: replaced here, or the result were lost.
    if "\\u0000" in text or "\\ud" in text:
        result = json.loads(_NUL.sub(r"\1\\ufffd", text))
        text = json.dumps(result, ensure_ascii=False).encode(errors="replace").decode()
        return json.loads(text)
    return result


def _error(kind: str, message: str, trace: str | None = None) -> dict[str, Any]:
    error = {"type": _clean(kind), "message": _clean(message[:10_000])}
    return error | {"traceback": _clean(trace[-10_000:])} if trace else error


def _clean(text: str) -> str:
    """Return ``text`` without what PostgreSQL cannot store: NUL and lone surrogates."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def register(app: Celery) -> JobRunner:
    """Register the job task with ``app``; return the runner that serves it."""
    runner = JobRunner()

    @app.task(name=names.JOB_TASK, bind=True, typing=False, throws=(JobFailed,))  # type: ignore[untyped-decorator]
    def job(self: Any, *args: Any, **kwargs: Any) -> Any:
        return runner(self.request.id, args, kwargs)

    return runner
