"""One job from its delivery to its record. A redelivered job that is finished is not done again."""

from __future__ import annotations

import json
import logging
import random
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

from celery import Celery
from celery.exceptions import Ignore

from brain_clusters import logs, tracing
from brain_clusters.agent.attempts import Attempt, Outcome
from brain_clusters.agent.beats import Counters
from brain_clusters.agent.context import JobContext, as_json
from brain_clusters.agent.delegation import Delegating, Delegation, DelegationRefused, Team
from brain_clusters.agent.errors import HandlerError, JobCancelled, JobTimeout, Retry
from brain_clusters.agent.handlers import Handler
from brain_clusters.agent.watch import Watch
from brain_clusters.broker import names
from brain_clusters.broker.holding import QoS
from brain_clusters.broker.jobs import Delivery, JobRecords, JobReport
from brain_clusters.domain import pricing
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.domain.jobs import JobOptions
from brain_clusters.domain.states import JobStatus
from brain_clusters.domain.storable import storable_json, storable_text
from brain_clusters.errors import TemporaryError
from brain_clusters.failpoints import failpoint

log = logging.getLogger(__name__)

Value = TypeVar("Value")

RESULT_LIMIT_BYTES = 1024 * 1024
# How long a job waits for Redis to come back. After it the job is left to the sweep, which runs it again.
_PATIENCE_SECONDS = 300.0
# The share of a back-off that is waited, so that what failed together does not come back together.
_JITTER = (0.5, 1.0)
_NO_OPTIONS = JobOptions()


class JobFailed(Exception):
    """Tells Celery, and with it a client that waits on the result backend, that the job failed and why."""


class JobRunner:
    """Runs the jobs of one agent. Made in the zygote; ``spec`` and the rest are given to it after the fork."""

    def __init__(self) -> None:
        self.counters = Counters()

    def bind(self, spec: AgentSpec, handler: Handler, records: JobRecords, watch: Watch, *, acks: bool = True) -> None:
        """Take up the agent's own part. acks: whether this process, and no parent of it, is who acknowledges."""
        self.counters = Counters()  # anew: the zygote's are as old as the zygote
        self._spec, self._handler, self._records, self._acks = spec, handler, records, acks
        self._watch, self._delegating = watch, Delegating(records, spec)

    def __call__(
        self,
        job_id: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: JobOptions = _NO_OPTIONS,
        delivery: Delivery | None = None,
    ) -> Any:
        """Do one delivery of a job; return its result, or raise JobFailed, or Ignore when it is to be tried again."""
        job_id = storable_text(str(job_id))  # any client chooses its own, and PostgreSQL has to store it
        with logs.bound(job_id=job_id), self._span(job_id, options) if tracing.is_on() else nullcontext():
            return self._deliver(job_id, args, kwargs, options, delivery)

    def _span(self, job_id: str, options: JobOptions) -> AbstractContextManager[Any]:
        spec = self._spec
        told: dict[str, Any] = {"job_id": job_id, "cluster_id": spec.cluster_id, "agent_id": spec.agent_id}
        told |= tracing.messaging(spec.queue, "process", job_id)
        return tracing.span(f"job {spec.group_name}", "consumer", options.trace, expected=(Ignore,), **told)

    def _deliver(
        self, job_id: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: JobOptions, delivery: Delivery | None
    ) -> Any:
        failpoint("delivered")
        delivery = self._begun(job_id, delivery)
        if delivery.attempt == 0:
            log.info("the job was finished before; its acknowledgement was lost")
            return None
        started = time.time()
        attempt = Attempt(delivery, options, self._spec)
        refused = attempt.refusal(started)
        if refused is None:
            team = _patiently(lambda: self._delegating.team(job_id, options, delivery, started))
            outcome, usage = self._do(team, attempt, args, kwargs)
            if isinstance(outcome.result, Delegation):
                outcome = self._hand_down(team, outcome.result, usage)
            if outcome.status is JobStatus.RUNNING:  # it waits for others, and nothing is left to acknowledge
                self._acknowledged(delivery)
                raise Ignore
            # The parts before are with the last attempt, whichever that is.
            used = self._with_lost(delivery, team.usage(usage)) if outcome.again is None else usage
            report = self._report(job_id, delivery.attempt, team.started_at, outcome, used)
        else:
            outcome = self._explained(job_id, refused, delivery)
            begun = max(delivery.attempt - 1, int(delivery.goes_on))
            report = self._report(job_id, begun, None, outcome, self._with_lost(delivery, None))
        _note(report)
        counts = self._settle(attempt, report, outcome.again)
        failpoint("finished")
        if outcome.again is not None or not counts:
            raise Ignore
        if outcome.error is not None:
            raise JobFailed(outcome.error["message"])
        return outcome.result

    def _begun(self, job_id: str, delivery: Delivery | None) -> Delivery:
        """Return the delivery as it was counted; count it where the transport did not."""
        if delivery is not None and delivery.attempt >= 0:
            return delivery
        found = _patiently(lambda: self._records.begin(job_id, self._spec.agent_id))
        return found if delivery is None else replace(found, tag=delivery.tag, queue=delivery.queue)

    def _explained(self, job_id: str, refused: Outcome, delivery: Delivery) -> Outcome:
        """Return ``refused`` with the reason that the last attempt gave before it took its agent along, if it did."""
        if refused.status is not JobStatus.DEAD:
            return refused
        words = _patiently(lambda: self._watch.last_words(job_id, delivery.attempt - 1))
        return replace(refused, error=words or refused.error)

    def _do(
        self, team: Team, attempt: Attempt, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Outcome, dict[str, Any] | None]:
        """Run the handler; return what became of it, and what it used."""
        context = self._watch.context(
            self._spec, team.job_id, attempt.delivery.attempt, attempt.options.capability, attempt.timeout
        )
        context.root_id = attempt.options.root_id
        context.team, context.store = team, self._delegating.store
        began = time.monotonic()
        failed: bool | None = True
        self.counters.begin()
        try:
            outcome = self._outcome(context, attempt, args, kwargs)
            unended = outcome.again is not None or isinstance(outcome.result, Delegation)
            neither = unended or outcome.status is JobStatus.CANCELLED
            failed = None if neither else outcome.error is not None
        finally:
            self.counters.end(time.monotonic() - began, failed=failed)
        return outcome, context.usage.as_dict()

    def _outcome(self, context: JobContext, attempt: Attempt, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
        jitter = random.uniform(*_JITTER)  # noqa: S311 - not a secret
        try:
            failpoint("begun")
            payload = _payload(args, kwargs)
            result = self._watch.run(context, attempt.timeout, lambda: self._handler(payload, context))
            result = result if isinstance(result, Delegation) else _jsonable(result)
            failpoint("done")
            return Outcome(JobStatus.SUCCEEDED, result)
        except HandlerError as exc:
            return Outcome(JobStatus.FAILED, error=_error(type(exc).__name__, _said(exc)))
        except Retry as exc:
            return attempt.put_off(_error("Retry", _said(exc)), exc.after, jitter)
        except JobCancelled as exc:
            return Outcome(JobStatus.CANCELLED, error=_error("JobCancelled", _said(exc) or "cancelled while it ran"))
        except JobTimeout as exc:
            return attempt.failed(_error("JobTimeout", _said(exc) or "it took too long"), jitter)
        except BaseException as exc:  # whatever left here would leave the job without an outcome
            if type(exc).__name__ == "GreenletExit":  # gevent's way to end a greenlet with its process
                raise
            log.exception("the job failed")
            trace = traceback.format_exc(limit=-20)
            return attempt.failed(_error(type(exc).__name__, _said(exc) or type(exc).__name__, trace), jitter)

    def _settle(self, attempt: Attempt, report: JobReport, again: float | None) -> bool:
        """Record the outcome and acknowledge the message in one step; Celery has nothing left to acknowledge.

        Return whether the outcome counts.
        """
        delivery, parent = attempt.delivery, attempt.options.parent_id
        if again is None:
            counts = _patiently(lambda: self._records.finish(report, delivery, parent_id=parent))
        else:
            counts = _patiently(lambda: self._records.again(report, delivery, again))
        if not counts:
            log.warning("the job is not held here any more, and is done elsewhere")
        self._acknowledged(delivery)
        return counts

    def _acknowledged(self, delivery: Delivery) -> None:
        if delivery.tag and self._acks:
            QoS.settled.add(delivery.tag)

    def _hand_down(self, team: Team, delegation: Delegation, usage: dict[str, Any] | None) -> Outcome:
        """Hand work down; return that the job waits, or why it cannot."""
        try:
            if not _patiently(lambda: self._delegating.hand_down(team, delegation, usage)):
                log.info("the job waits already, or another agent does it")
            failpoint("handed_down")
            return Outcome(JobStatus.RUNNING)
        except DelegationRefused as exc:
            return Outcome(JobStatus.FAILED, error=_error("DelegationRefused", str(exc)))
        except JobCancelled as exc:
            return Outcome(JobStatus.CANCELLED, error=_error("JobCancelled", str(exc)))

    def _with_lost(self, delivery: Delivery, usage: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return ``usage`` with how many attempts took theirs along as their agent died, where it may have a price."""
        if not delivery.deaths or not (self._spec.llm is not None or pricing.priced_by_use(self._spec.cost)):
            return usage
        return {**(usage or {}), pricing.UNMETERED_ATTEMPTS: delivery.deaths}

    def _report(
        self, job_id: str, attempts: int, started: float | None, outcome: Outcome, usage: dict[str, Any] | None
    ) -> JobReport:
        return JobReport(
            id=job_id,
            cluster_id=self._spec.cluster_id,
            group_name=self._spec.group_name,
            agent_id=self._spec.agent_id,
            status=outcome.status,
            attempts=attempts,
            started_at=started,
            finished_at=time.time() if outcome.again is None else None,
            result=outcome.result,
            error=outcome.error,
            usage=usage,
        )


def _note(report: JobReport) -> None:
    """Tell the job's span what came of it."""
    if tracing.is_on():
        kind = (report.error or {}).get("type")
        tracing.note(outcome=report.status, attempt=report.attempts, **{"error.type": kind})


def _patiently(step: Callable[[], Value]) -> Value:
    """Take a step in Redis, and wait while it is away: a job failed for that would be lost, or its work done again."""
    deadline, pause = time.monotonic() + _PATIENCE_SECONDS, 0.1
    while True:
        try:
            return step()
        except TemporaryError:
            if time.monotonic() > deadline:
                raise
            log.warning("the job waits for Redis")
            time.sleep(pause)
            pause = min(2.0, pause * 2)


def _payload(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the payload of a message: its one argument, positional or named ``payload``."""
    if len(args) + len(kwargs) > 1 or (kwargs and "payload" not in kwargs):
        raise HandlerError("send one argument, the payload: send_task('brain.job', [payload], queue=...)")
    return args[0] if args else kwargs.get("payload")


def _jsonable(result: Any) -> Any:
    """Return ``result`` when it is JSON of a fair size; raise HandlerError that says what is wrong with it."""
    text = as_json(result, "result", RESULT_LIMIT_BYTES)
    sound = storable_json(text)  # else the result were lost
    return result if sound is text else json.loads(sound)


def _said(exc: BaseException) -> str:
    """Return the words of an exception; it is of the user's making, and may have none."""
    try:
        return str(exc)
    except Exception as failed:  # noqa: BLE001 - whatever it is
        return f"its message cannot be told: {type(failed).__name__}"


def _error(kind: str, message: str, trace: str | None = None) -> dict[str, Any]:
    error = {"type": storable_text(kind), "message": storable_text(message[:10_000])}
    return error | {"traceback": storable_text(trace[-10_000:])} if trace else error


def register(app: Celery) -> JobRunner:
    """Register the job task with ``app``; return the runner that serves it."""
    runner = JobRunner()

    @app.task(name=names.JOB_TASK, bind=True, typing=False, throws=(JobFailed,))  # type: ignore[untyped-decorator]
    def job(self: Any, *args: Any, **kwargs: Any) -> Any:
        options = JobOptions.from_header(self.request.get(names.OPTIONS_HEADER))
        if options.traceparent is None and (found := tracing.carried(self.request.get)):  # a client of somebody else
            options = replace(options, traceparent=found.get("traceparent"), tracestate=found.get("tracestate"))
        return runner(
            self.request.id, args, kwargs, options, Delivery.from_header(self.request.get(names.DELIVERY_HEADER))
        )

    return runner
