"""Whether a job is begun, and what follows when an attempt fails."""

from __future__ import annotations

from typing import Any

import pytest

from brain_clusters.agent.attempts import Attempt
from brain_clusters.broker.jobs import Delivery
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.domain.jobs import JobOptions
from brain_clusters.domain.states import JobStatus

ERROR = {"type": "E", "message": "m"}
NOW = 1000.0


def attempt(number: int = 1, *, deaths: int = 0, cancelled: bool = False, **fields: Any) -> Attempt:
    """Return an attempt; fields named ``group_...`` are the group's, others the job's own."""
    group = {name.removeprefix("group_"): value for name, value in fields.items() if name.startswith("group_")}
    own = {name: value for name, value in fields.items() if not name.startswith("group_")}
    spec = AgentSpec(agent_id="a", cluster_id="c", group_name="g", role="worker", queue="q", **group)
    return Attempt(Delivery(number, deaths, cancelled), JobOptions(**own), spec)


@pytest.mark.parametrize(
    ("what", "status", "kind"),
    [
        (attempt(), None, None),
        (attempt(cancelled=True), JobStatus.CANCELLED, "JobCancelled"),
        (attempt(expires_at=NOW), JobStatus.FAILED, "Expired"),
        (attempt(expires_at=NOW + 1), None, None),
        (attempt(3, deaths=2), None, None),
        (attempt(4, deaths=3), JobStatus.DEAD, "AgentDied"),
        (attempt(2, deaths=1, group_max_deliveries=1), JobStatus.DEAD, "AgentDied"),
        (attempt(2, deaths=0, group_max_deliveries=1), None, None),
        (attempt(2, deaths=1, max_attempts=2), None, None),
        (attempt(3, deaths=1, max_attempts=2), JobStatus.DEAD, "AgentDied"),
        (attempt(9, deaths=8, max_attempts=9), None, None),
        (attempt(3, deaths=2, group_max_attempts=2), JobStatus.DEAD, "AgentDied"),
        (attempt(3, deaths=2, group_max_attempts=2, max_attempts=3), None, None),
    ],
)
def test_a_job_that_is_cancelled_expired_or_deadly_is_not_begun(
    what: Attempt, status: JobStatus | None, kind: str | None
) -> None:
    found = what.refusal(NOW)
    assert (found and found.status) == status
    assert (found and found.error and found.error["type"]) == kind


@pytest.mark.parametrize(
    ("what", "status"),
    [
        (attempt(), JobStatus.FAILED),
        (attempt(max_attempts=1), JobStatus.FAILED),
        (attempt(max_attempts=2), JobStatus.QUEUED),
        (attempt(2, max_attempts=2), JobStatus.DEAD),
        (attempt(group_max_attempts=2), JobStatus.QUEUED),
        (attempt(2, group_max_attempts=2), JobStatus.DEAD),
    ],
)
def test_what_raised_is_tried_again_as_often_as_was_asked_for(what: Attempt, status: JobStatus) -> None:
    found = what.failed(ERROR, 1.0)
    assert (found.status, found.error) == (status, ERROR)
    assert (found.again is not None) == (status is JobStatus.QUEUED)


@pytest.mark.parametrize(
    ("what", "status"),
    [
        (attempt(2), JobStatus.QUEUED),
        (attempt(3), JobStatus.DEAD),
        (attempt(1, max_attempts=1), JobStatus.FAILED),
        (attempt(4, max_attempts=5), JobStatus.QUEUED),
    ],
)
def test_a_handler_that_asks_for_it_gets_three_attempts_or_what_is_stated(what: Attempt, status: JobStatus) -> None:
    assert what.put_off(ERROR, None, 1.0).status is status


@pytest.mark.parametrize(
    ("number", "jitter", "fields", "waits"),
    [
        (1, 1.0, {}, 1.0),
        (3, 1.0, {}, 4.0),
        (3, 0.5, {}, 2.0),
        (20, 1.0, {}, 300.0),
        (5000, 1.0, {}, 300.0),
        (2, 1.0, {"backoff_seconds": 0.25, "group_backoff_seconds": 9.0}, 0.5),
        (4, 1.0, {"group_backoff_seconds": 2.0, "group_backoff_max_seconds": 10.0}, 10.0),
        (4, 1.0, {"backoff_max_seconds": 3.0}, 3.0),
        (4, 1.0, {"backoff_seconds": 0.0}, 0.0),
    ],
)
def test_the_wait_doubles_up_to_its_bound(number: int, jitter: float, fields: dict[str, float], waits: float) -> None:
    assert attempt(number, max_attempts=9999, **fields).failed(ERROR, jitter).again == waits


@pytest.mark.parametrize(("after", "waits"), [(7, 7.0), (0.5, 0.5), (-3, 0.0), (None, 1.0), (float("nan"), 1.0)])
def test_a_handler_may_say_how_long_to_wait(after: float | None, waits: float) -> None:
    assert attempt().put_off(ERROR, after, 1.0).again == waits
