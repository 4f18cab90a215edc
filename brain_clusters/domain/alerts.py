"""Alerts: when they fire and when they are over. Pure: values and the time come as arguments.

    ok -> pending -> firing <-> clearing -> resolved -> pending -> ...

``firing`` and ``resolved`` are told exactly once each. An unknown value moves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from brain_clusters.domain.conditions import Condition, Values

Severity = Literal["info", "warning", "critical"]
Action = Literal["notify_admin", "scale_up", "spawn_replacement", "hibernate"]
State = Literal["ok", "pending", "firing", "clearing", "resolved"]
Transition = Literal["firing", "resolved"]

LONGEST_FOR_SECONDS = 7 * 86_400.0
LONGEST_RESOLVE_AFTER_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class AlertRule:
    """One entry of the blueprint's ``monitoring.alerts``.

    for_seconds: how long the condition must hold before it fires. It is resolved when ``resolve`` holds, or without
    one when the condition is false by a margin, for resolve_after_seconds.
    """

    name: str
    condition: Condition
    actions: tuple[Action, ...]
    for_seconds: float = 0.0
    resolve: Condition | None = None
    resolve_after_seconds: float = 60.0
    severity: Severity = "warning"

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics that it looks at."""
        more = self.resolve.metrics if self.resolve else ()
        return tuple(dict.fromkeys((*self.condition.metrics, *more)))


@dataclass(frozen=True, slots=True)
class AlertState:
    """Where an alert stands. since: when this state began; value: of the condition's first metric, when last seen.

    pending: the condition holds, not yet for long enough. clearing: it still fires, and since then it could be over.
    fired_at, resolved_at: the last time of each; resolved_at is None while it fires.
    """

    state: State = "ok"
    since: datetime | None = None
    fired_at: datetime | None = None
    resolved_at: datetime | None = None
    value: float | None = None

    @property
    def is_firing(self) -> bool:
        """Whether it was told to fire, and not yet to be over."""
        return self.state in ("firing", "clearing")


def default_name(condition: Condition, actions: tuple[str, ...]) -> str:
    """Return what an alert without a name is called."""
    return f"{condition}: {', '.join(actions)}"


def step(rule: AlertRule, state: AlertState, values: Values, now: datetime) -> tuple[AlertState, Transition | None]:
    """Return the state after a look at ``values``, and what is to be told of it."""
    return _while_firing(rule, state, values, now) if state.is_firing else _while_quiet(rule, state, values, now)


def close(state: AlertState, now: datetime) -> tuple[AlertState, Transition | None]:
    """Return the state of an alert whose cluster is gone: whatever fires is over."""
    if state.is_firing:
        return _resolved(state, now), "resolved"
    return _quiet_again(state) if state.state == "pending" else state, None


def _while_quiet(
    rule: AlertRule, state: AlertState, values: Values, now: datetime
) -> tuple[AlertState, Transition | None]:
    holds = rule.condition.holds(values)
    if holds is None:
        return state, None
    if not holds:
        return (_quiet_again(state) if state.state == "pending" else state), None
    since = state.since if state.state == "pending" and state.since else now
    seen = replace(state, since=since, value=_value(rule, values, state))
    if (now - since).total_seconds() < rule.for_seconds:
        return replace(seen, state="pending"), None
    return replace(seen, state="firing", since=now, fired_at=now, resolved_at=None), "firing"


def _while_firing(
    rule: AlertRule, state: AlertState, values: Values, now: datetime
) -> tuple[AlertState, Transition | None]:
    seen = replace(state, value=_value(rule, values, state))
    if (over := _is_over(rule, values)) is None:
        return seen, None
    if not over:
        return replace(seen, state="firing", since=state.fired_at), None
    since = state.since if state.state == "clearing" and state.since else now
    if (now - since).total_seconds() >= rule.resolve_after_seconds:
        return _resolved(seen, now), "resolved"
    return replace(seen, state="clearing", since=since), None


def _is_over(rule: AlertRule, values: Values) -> bool | None:
    holds = rule.condition.holds(values)
    if holds is not False:
        return None if holds is None else False
    return rule.resolve.holds(values) if rule.resolve else rule.condition.is_clear(values)


def _value(rule: AlertRule, values: Values, state: AlertState) -> float | None:
    value = values.get(rule.condition.comparisons[0].metric)
    return state.value if value is None else value


def _resolved(state: AlertState, now: datetime) -> AlertState:
    return replace(state, state="resolved", since=now, resolved_at=now)


def _quiet_again(state: AlertState) -> AlertState:
    """Return the state before ``pending``: one that fired some time ago stays known as resolved."""
    if state.fired_at is None:
        return AlertState()
    return replace(state, state="resolved", since=state.resolved_at)
