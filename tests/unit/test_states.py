"""The state machine of a cluster's intent."""

from __future__ import annotations

import itertools

import pytest

from brain_clusters.domain.states import (
    FINISHED_JOB_STATUSES,
    LIVE_AGENT_STATUSES,
    READY_AGENT_STATUSES,
    AgentStatus,
    ClusterStatus,
    Intent,
    JobStatus,
    OperationKind,
    advance,
)
from brain_clusters.errors import Conflict

ALLOWED = {
    (Intent.RUNNING, OperationKind.UPDATE): Intent.RUNNING,
    (Intent.RUNNING, OperationKind.SCALE): Intent.RUNNING,
    (Intent.RUNNING, OperationKind.HIBERNATE): Intent.ASLEEP,
    (Intent.RUNNING, OperationKind.DESTROY): Intent.GONE,
    (Intent.RUNNING, OperationKind.ROLLOUT): Intent.RUNNING,
    (Intent.ASLEEP, OperationKind.UPDATE): Intent.ASLEEP,
    (Intent.ASLEEP, OperationKind.REACTIVATE): Intent.RUNNING,
    (Intent.ASLEEP, OperationKind.DESTROY): Intent.GONE,
    (Intent.ASLEEP, OperationKind.ROLLOUT): Intent.ASLEEP,
}
STATUS = {
    Intent.RUNNING: ClusterStatus.ACTIVE,
    Intent.ASLEEP: ClusterStatus.HIBERNATED,
    Intent.GONE: ClusterStatus.DESTROYED,
}


@pytest.mark.parametrize(("intent", "kind"), list(itertools.product(Intent, OperationKind)))
def test_every_pair_of_intent_and_command_either_moves_or_says_what_is_possible(
    intent: Intent, kind: OperationKind
) -> None:
    if (intent, kind) in ALLOWED:
        assert advance(intent, kind, status=STATUS[intent]) is ALLOWED[intent, kind]
        return
    with pytest.raises(Conflict) as raised:
        advance(intent, kind, status=STATUS[intent])
    assert raised.value.status == STATUS[intent]
    assert set(raised.value.possible) == {str(move) for start, move in ALLOWED if start is intent}
    assert str(kind) in str(raised.value)
    assert str(STATUS[intent]) in str(raised.value)


def test_a_cluster_that_is_falling_asleep_says_so() -> None:
    with pytest.raises(Conflict, match=r"scaling_down \(on its way to asleep\); possible now: update, reactivate"):
        advance(Intent.ASLEEP, OperationKind.SCALE, status=ClusterStatus.SCALING_DOWN)


def test_a_cluster_that_is_gone_takes_nothing_more() -> None:
    with pytest.raises(Conflict, match="nothing more can be done with it"):
        advance(Intent.GONE, OperationKind.DESTROY, status=ClusterStatus.DESTROYING)


def test_the_names_of_states_are_those_that_users_and_the_database_see() -> None:
    assert [str(status) for status in ClusterStatus] == [
        "planning", "spawning", "active", "scaling_up", "scaling_down", "hibernated", "destroying", "destroyed",
    ]  # fmt: skip
    assert set(READY_AGENT_STATUSES) < set(LIVE_AGENT_STATUSES)
    assert set(AgentStatus) - set(LIVE_AGENT_STATUSES) == {AgentStatus.STOPPED, AgentStatus.FAILED}
    assert set(JobStatus) - set(FINISHED_JOB_STATUSES) == {JobStatus.QUEUED, JobStatus.RUNNING}
