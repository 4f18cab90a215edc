"""What callers ask for when they send jobs, and whether it makes sense to a blueprint. Nothing is read or written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from brain_clusters import tracing
from brain_clusters.db.models import Job
from brain_clusters.domain.durations import parse_duration, parse_end, parse_instant
from brain_clusters.domain.jobs import JobOptions, Priority
from brain_clusters.domain.specs import AgentGroup, Blueprint
from brain_clusters.domain.states import JobStatus
from brain_clusters.errors import Fault, InvalidInput

MOST_FAULTS = 100
PAYLOAD_LIMIT_BYTES = 1 << 20
_LONGEST_WAIT = timedelta(days=365)
_LATEST_END = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class NewJob:
    """What a caller asks for: a group by name, or a capability, or neither for the supervisor.

    eta (ISO 8601) or delay (a duration): not to be begun before; neither is as soon as possible. expires: an instant,
    or a duration from now: not to be begun after. timeout, backoff, backoff_max: durations. key: the caller's own, of
    which there is one job in a cluster.
    """

    to: str | None = None
    capability: str | None = None
    payload: Any = None
    eta: str | None = None
    delay: float | str | None = None
    priority: str = Priority.NORMAL
    timeout: float | str | None = None
    max_attempts: int | None = None
    backoff: float | str | None = None
    backoff_max: float | str | None = None
    expires: float | str | None = None
    key: str | None = None


@dataclass(slots=True)
class Accepted:
    """A job as it was accepted. replayed: it was there before, by its key.

    payload_json, terms_json: what its row is made from; those that have a row lack them.
    """

    id: str
    cluster_id: str
    group: AgentGroup
    payload: Any
    eta: datetime | None
    priority: str
    options: dict[str, Any]
    expires_at: datetime | None
    created_at: datetime
    payload_json: str = ""
    terms_json: str = ""
    replayed: bool = False

    def as_record(self) -> str:
        """Return the job's row as the text of a JSON object. A payload of null is JSON's null, for it is known."""
        return (
            f'{{"id": "{self.id}", "payload": {self.payload_json}, "created_at": "{self.created_at.isoformat()}", '
            f"{self.terms_json}}}"
        )

    def as_row(self) -> Job:
        """Return the job as a row that is not stored."""
        return Job(
            id=self.id, cluster_id=self.cluster_id, group_name=self.group.name, status=JobStatus.QUEUED,
            payload=self.payload, attempts=0, created_at=self.created_at, eta=self.eta, priority=self.priority,
            options=self.options, expires_at=self.expires_at,
        )  # fmt: skip


def _time(found: datetime | None) -> str:
    return "null" if found is None else f'"{found.isoformat()}"'


@dataclass(frozen=True, slots=True)
class _Terms:
    """What jobs that ask for the same have in common, payload and key apart."""

    group: AgentGroup
    eta: datetime | None
    priority: str
    options: dict[str, Any]
    expires_at: datetime | None

    def as_members(self) -> str:
        """Return what jobs have in common as the text of members of a JSON object."""
        return (
            f'"group_name": {json.dumps(self.group.name)}, "eta": {_time(self.eta)}, "priority": "{self.priority}", '
            f'"options": {json.dumps(self.options)}, "expires_at": {_time(self.expires_at)}'
        )


def accepted(
    cluster_id: str, blueprint: Blueprint, news: Sequence[NewJob], ids: Sequence[str], *, listed: bool
) -> list[Accepted]:
    """Return ``news`` as jobs of a cluster. listed: faults name the place in the list.

    Raises InvalidInput with every fault of all of them, of which MOST_FAULTS are told.
    """
    now, faults, found = datetime.now(UTC), list[Fault](), list[Accepted]()
    known: dict[tuple[Any, ...], tuple[_Terms, str] | list[Fault]] = {}
    for place, (new, job_id) in enumerate(zip(news, ids, strict=True)):
        asked = (new.to, new.capability, new.eta, new.delay, new.priority, new.timeout, new.max_attempts, new.backoff,
                 new.backoff_max, new.expires)  # fmt: skip
        judged = known.get(asked)
        if judged is None:
            read = _terms(blueprint, new, now)
            judged = known[asked] = read if isinstance(read, list) else (read, read.as_members())
        if isinstance(judged, list):
            faults += [Fault(f"/{place}{one.pointer}" if listed else one.pointer, one.message) for one in judged]
            if len(faults) >= MOST_FAULTS:
                break
            continue
        (terms, members), payload = judged, json.dumps(new.payload)
        if len(payload) > PAYLOAD_LIMIT_BYTES:
            text = f"the payload is {len(payload)} bytes of JSON; the limit is {PAYLOAD_LIMIT_BYTES}"
            faults.append(Fault(f"/{place}/payload" if listed else "/payload", text))
            continue
        # A microsecond apart, so that lists show them in the order that they were sent in.
        made = now + timedelta(microseconds=place)
        found.append(
            Accepted(
                job_id, cluster_id, terms.group, new.payload, terms.eta, terms.priority, terms.options,
                terms.expires_at, made, payload, members,
            )
        )  # fmt: skip
    if faults:
        raise InvalidInput("the jobs are not valid" if listed else "the job is not valid", faults[:MOST_FAULTS])
    return found


def _terms(blueprint: Blueprint, new: NewJob, now: datetime) -> _Terms | list[Fault]:
    """Return what ``new`` asks for, or what is wrong with it."""
    faults: list[Fault] = []
    group, fault = _group_for(blueprint, new)
    faults += [fault] if fault else []

    def read(name: str, parse: Any) -> Any:
        value = getattr(new, name)
        try:
            return None if value is None else parse(value)
        except ValueError as exc:  # whoever calls without the schema
            faults.append(Fault(f"/{name}", f"'{name}' {exc}"))
            return None

    def ahead(value: Any) -> datetime:
        return now + timedelta(seconds=parse_duration(value))

    pointer, eta = ("/eta", read("eta", parse_instant)) if new.eta is not None else ("/delay", read("delay", ahead))
    if eta is not None and eta > now + _LONGEST_WAIT:
        faults.append(Fault(pointer, "a job waits for at most 365 days; ask for less"))
        eta = None
    # What is past is now: nobody can begin it earlier.
    eta = None if eta is None else max(eta, now).astimezone(UTC)
    expires = read("expires", lambda value: parse_end(value, now))
    if expires is not None and expires > now + _LATEST_END:
        faults.append(Fault("/expires", "a job expires within 10 years; leave it out for one that never does"))
        expires = None
    if expires is not None and expires <= max(now, eta or now):
        faults.append(Fault("/expires", "the job would expire before it may begin; give it more time"))
    trace = tracing.carrier()
    options = JobOptions(
        max_attempts=new.max_attempts,
        backoff_seconds=read("backoff", parse_duration),
        backoff_max_seconds=read("backoff_max", parse_duration),
        timeout_seconds=read("timeout", parse_duration),
        expires_at=None if expires is None else expires.timestamp(),
        capability=new.capability,
        traceparent=trace.get("traceparent"),
        tracestate=trace.get("tracestate"),
    )
    if faults or group is None:
        return faults
    ends = None if expires is None else expires.astimezone(UTC)
    return _Terms(group, eta, str(new.priority), options.as_header(), ends)


def _group_for(blueprint: Blueprint, new: NewJob) -> tuple[AgentGroup | None, Fault | None]:
    if new.to is not None:
        found, pointer, known = blueprint.group(new.to), "/to", [group.name for group in blueprint.groups]
        what = f"group {new.to!r}"
    elif new.capability is not None:
        found, pointer = blueprint.with_capability(new.capability), "/capability"
        known = sorted({word for group in blueprint.groups for word in group.capabilities})
        what = f"group with the capability {new.capability!r}"
    else:
        return blueprint.supervisor, None
    if found is not None and found.celery is not None:
        told = f"{found.name!r} runs the Celery application {found.celery.app}; send it that application's own tasks"
        return None, Fault(pointer, told)
    listed = ", ".join(repr(word) for word in known) or "none"
    return found, None if found else Fault(pointer, f"there is no {what}; there are {listed}")
