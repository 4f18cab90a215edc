"""Work that a handler hands down to the groups that report to its own, by returning ``context.delegate(...)``.

The handler ends there, and its slot is free. When the last of what it handed down has ended, however it ended, the
handler is called again with the same payload, and with ``context.results`` and ``context.state``.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from brain_clusters import tracing
from brain_clusters.agent.errors import HandlerError, JobCancelled
from brain_clusters.broker.delegating import Child, Join, Joins, Parent
from brain_clusters.broker.jobs import Delivery, JobRecords
from brain_clusters.broker.shared import ClusterStore
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.domain.durations import parse_duration
from brain_clusters.domain.jobs import JobOptions, Priority
from brain_clusters.domain.specs import slug

STATE_LIMIT_BYTES = 1024 * 1024
PAYLOAD_LIMIT_BYTES = 1024 * 1024
_MOST_ATTEMPTS = 100
# Ids of jobs that were handed down are made of their parent's, so that a second attempt makes the same.
_NAMESPACE = uuid.UUID("6c1e9a0e-6a0b-5d5e-9f51-6b7261696e00")


class DelegationRefused(HandlerError):
    """A job cannot hand down what it wants to; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Order:
    """One job to hand down."""

    group: str
    queue: str
    payload: Any
    options: JobOptions
    priority: Priority


@dataclass(frozen=True, slots=True)
class Delegation:
    """What a handler returns to hand work down and be called again. Several are added up; one of them has the state."""

    orders: tuple[Order, ...]
    state: Any = None

    def __add__(self, other: object) -> Delegation:
        """Return both, in order."""
        if not isinstance(other, Delegation):
            return NotImplemented
        if self.state is not None and other.state is not None:
            raise DelegationRefused("state is given twice; give it with one of the delegations that are added up")
        return Delegation(self.orders + other.orders, self.state if other.state is None else other.state)


@dataclass(frozen=True, slots=True)
class Team:
    """Those whom one job may hand work to, and what came back from them. begun_at: of this part of the job.

    used: what attempts at its first part used that failed before this one.
    """

    spec: AgentSpec
    job_id: str
    options: JobOptions
    delivery: Delivery
    begun_at: float = 0.0
    join: Join | None = None

    @property
    def started_at(self) -> float:
        """When the job's first part was begun, in seconds since the epoch."""
        return self.begun_at if self.join is None else self.join.started_at

    def usage(self, used: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Return what the job has used with this part, as far as it was counted."""
        before = None if self.join is None else self.join.usage
        if not before or not used:
            return dict(before or used or {}) or None
        return {**before, **{key: _sum(before.get(key), value) for key, value in used.items()}}

    @property
    def results(self) -> list[dict[str, Any]] | None:
        """What came of the jobs handed down last, in the order of their payloads; None at the first call."""
        return None if self.join is None else self.join.results

    @property
    def state(self) -> Any:
        """The state that was given with them."""
        return None if self.join is None else self.join.state

    def delegate(
        self, to: str, payloads: Iterable[Any], *, state: Any, timeout: float | str | None,
        max_attempts: int | None, priority: str | None,
    ) -> Delegation:  # fmt: skip
        """See ``JobContext.delegate``."""
        group, capability = self._addressee(to)
        self._check_depth()
        trace = tracing.carrier()
        options = JobOptions(
            max_attempts=_attempts(max_attempts),
            timeout_seconds=_timeout(timeout),
            capability=capability,
            parent_id=self.job_id,
            root_id=self.options.root_id or self.job_id,
            depth=self.options.depth + 1,
            traceparent=trace.get("traceparent"),
            tracestate=trace.get("tracestate"),
        )
        if isinstance(payloads, (str, bytes, Mapping)) or not isinstance(payloads, Iterable):
            raise DelegationRefused("payloads is a list, with one payload for each job to hand down")
        queue, urgency = self.spec.delegates[group]["queue"], self._priority(priority)
        orders = tuple(Order(group, queue, _payload(each), options, urgency) for each in payloads)
        return Delegation(orders, _state(state))

    def children(self, delegation: Delegation, number: int) -> list[Child]:
        """Return the jobs of the ``number``th time that this one hands down. Raises DelegationRefused for too many."""
        most = self.spec.tree.max_fan_out
        if len(delegation.orders) > most:
            raise DelegationRefused(
                f"one job may hand down {most} jobs at once, and this one wants to hand down {len(delegation.orders)}; "
                "hand them down in several rounds, or raise cluster.delegation.max_fan_out"
            )
        return [
            Child(child_id(self.job_id, number, index), *_parts(order)) for index, order in enumerate(delegation.orders)
        ]

    def _addressee(self, to: str) -> tuple[str, str | None]:
        """Return the group that ``to`` means, and the capability if it is one."""
        below = self.spec.delegates
        for name in below:
            if isinstance(to, str) and (to == name or to == slug(name)):
                return name, None
        for name, about in below.items():
            if to in about["capabilities"]:
                return name, to
        raise DelegationRefused(self._possible(to))

    def _possible(self, to: object) -> str:
        below = self.spec.delegates
        if not below:
            return f"{self.spec.group_name!r} cannot hand work to {to!r}: no group reports to it"
        offered = sorted({word for about in below.values() for word in about["capabilities"]})
        able = f", which offer {', '.join(map(repr, offered))}" if offered else ""
        told = f"{self.spec.group_name!r} cannot hand work to {to!r}: those who report to it are "
        return f"{told}{', '.join(map(repr, below))}{able}"

    def _check_depth(self) -> None:
        most = self.spec.tree.max_depth
        if self.options.depth >= most:
            raise DelegationRefused(
                f"this job was handed down {self.options.depth} times, and cluster.delegation.max_depth is {most}; "
                "do the work here, or raise it"
            )

    def _priority(self, stated: str | None) -> Priority:
        try:
            return Priority(self.delivery.priority) if stated is None else Priority(stated)
        except ValueError:
            known = ", ".join(Priority)
            raise DelegationRefused(f"there is no priority {stated!r}; there are {known}") from None


def child_id(parent_id: str, number: int, index: int) -> str:
    """Return the id of the ``index``th job that ``parent_id`` hands down the ``number``th time."""
    return str(uuid.uuid5(_NAMESPACE, f"{parent_id}/{number}/{index}"))


class Delegating:
    """The part of an agent that hands work down for its jobs, and tells them what came of it. Raises TemporaryError."""

    def __init__(self, records: JobRecords, spec: AgentSpec) -> None:
        self._joins, self._spec = Joins(records.client, ttl_seconds=records.ttl_seconds), spec
        self._records = records
        bounds = spec.memory
        self.store = None if bounds is None else ClusterStore(records.client, spec.cluster_id, bounds)

    def team(self, job_id: str, options: JobOptions, delivery: Delivery, begun_at: float) -> Team:
        """Return what a delivery of a job needs to hand work down, or to go on after it."""
        join = self._joins.read(job_id) if delivery.goes_on else None
        return Team(self._spec, job_id, options, delivery, begun_at, join)

    def hand_down(self, team: Team, delegation: Delegation, usage: Mapping[str, Any] | None) -> bool:
        """Hand down and let the job wait; return False when that is not this agent's to do any more.

        usage: of this part of the job. Raises DelegationRefused, and JobCancelled for a job that is to end.
        """
        if not team.delivery.tag:
            raise DelegationRefused("this job's message is not held by its agent; only an agent can hand work down")
        spec = self._spec
        parent = Parent(
            team.job_id, spec.cluster_id, spec.group_name, spec.agent_id, team.options, team.delivery,
            1 if team.join is None else team.join.round + 1, team.started_at, team.usage(usage),
        )  # fmt: skip
        most, children = spec.tree.max_jobs, team.children(delegation, parent.round)
        what, count = self._joins.hand_down(parent, children, delegation.state, most=most)
        if what == "cancelled":
            raise JobCancelled("cancelled before it handed work down")
        if what == "full":
            raise DelegationRefused(
                f"a tree may hold {most} jobs, and this one holds {count}; {len(children)} more are too many: hand "
                "down fewer, or raise cluster.delegation.max_jobs"
            )
        return what == "waits"


def _sum(one: Any, other: Any) -> Any:
    """Return both figures together; of what cannot be added, the later."""
    return one + other if isinstance(one, (int, float)) and isinstance(other, (int, float)) else other


def _parts(order: Order) -> tuple[str, str, Any, dict[str, Any], Priority]:
    return order.group, order.queue, order.payload, order.options.as_header(), order.priority


def _payload(value: Any) -> Any:
    _sized(value, "a payload", PAYLOAD_LIMIT_BYTES)
    return value


def _state(value: Any) -> Any:
    _sized(value, "the state", STATE_LIMIT_BYTES)
    return value


def _sized(value: Any, what: str, limit: int) -> None:
    try:
        size = len(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as exc:
        raise DelegationRefused(f"{what} is not JSON: {exc}") from exc
    if size > limit:
        raise DelegationRefused(f"{what} is {size} bytes of JSON; the limit is {limit}")


def _timeout(stated: float | str | None) -> float | None:
    try:
        seconds = None if stated is None else parse_duration(stated)
    except ValueError as exc:
        raise DelegationRefused(f"timeout {exc}") from None
    if seconds == 0:
        raise DelegationRefused("timeout must be more than 0 seconds")
    return seconds


def _attempts(stated: int | None) -> int | None:
    if stated is not None and (type(stated) is not int or not 1 <= stated <= _MOST_ATTEMPTS):
        raise DelegationRefused(f"max_attempts is a whole number from 1 to {_MOST_ATTEMPTS}")
    return stated
