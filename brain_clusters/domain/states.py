"""The state machines: names of the states, and one table each of the moves they allow."""

from __future__ import annotations

from enum import StrEnum

from brain_clusters.errors import Conflict


class ClusterType(StrEnum):
    """What a cluster is for. ``campaign`` and ``team`` are accepted for the reference's blueprints."""

    DEPARTMENT = "department"
    PROJECT = "project"
    TEMPORARY = "temporary"
    PERSISTENT = "persistent"
    CAMPAIGN = "campaign"
    TEAM = "team"


class ClusterStatus(StrEnum):
    """Where a cluster stands. Computed from intent, rows and beats in ``domain.planning``."""

    PLANNING = "planning"
    SPAWNING = "spawning"
    ACTIVE = "active"
    SCALING_UP = "scaling_up"
    SCALING_DOWN = "scaling_down"
    HIBERNATED = "hibernated"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"


class AgentRole(StrEnum):
    """The place of an agent group in the hierarchy."""

    SUPERVISOR = "supervisor"
    LEAD = "lead"
    SPECIALIST = "specialist"
    WORKER = "worker"


class AgentStatus(StrEnum):
    """Where one agent stands.

    starting: wanted, not yet beating. idle, busy: beating. draining: takes no new job.
    stopped: left as asked. failed: died unasked.
    """

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


LIVE_AGENT_STATUSES = (AgentStatus.STARTING, AgentStatus.IDLE, AgentStatus.BUSY, AgentStatus.DRAINING)
READY_AGENT_STATUSES = (AgentStatus.IDLE, AgentStatus.BUSY)


class OperationStatus(StrEnum):
    """Where a recorded lifecycle command stands."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class OperationKind(StrEnum):
    """The lifecycle commands."""

    CREATE = "create"
    UPDATE = "update"
    SCALE = "scale"
    HIBERNATE = "hibernate"
    REACTIVATE = "reactivate"
    DESTROY = "destroy"
    ROLLOUT = "rollout"


class RolloutStatus(StrEnum):
    """Where a rollout stands.

    running: agents are being replaced. paused: none is, until somebody says so. reverting: the version failed, and the
    one before comes back. failed: it failed and was left as it is. superseded: another rollout came, or the end.
    """

    RUNNING = "running"
    PAUSED = "paused"
    REVERTING = "reverting"
    SUCCEEDED = "succeeded"
    REVERTED = "reverted"
    FAILED = "failed"
    SUPERSEDED = "superseded"


ROLLOUTS_UNDER_WAY = (RolloutStatus.RUNNING, RolloutStatus.PAUSED, RolloutStatus.REVERTING)


class JobStatus(StrEnum):
    """Where a job stands.

    queued: it waits for an agent, be it for the first time or again. running: an agent works on it, or it waits for the
    jobs that it handed down. failed: it raised, and no further attempt was allowed. dead: all its attempts are used up,
    by errors or because its agents died. cancelled: somebody asked for that.
    """

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DEAD = "dead"
    CANCELLED = "cancelled"


# A letter to the dead: these ended without success, keep their payload, and may be queued again.
DEAD_LETTER_STATUSES = (JobStatus.FAILED, JobStatus.DEAD)
FINISHED_JOB_STATUSES = (JobStatus.SUCCEEDED, *DEAD_LETTER_STATUSES, JobStatus.CANCELLED)


class Intent(StrEnum):
    """What the last accepted command wants a cluster to be."""

    RUNNING = "running"
    ASLEEP = "asleep"
    GONE = "gone"


# The commands that each intent accepts, and the intent they leave behind. A command is judged by the intent, not by
# the status, so that a wake-up sent while a cluster is still falling asleep is a fair command.
TRANSITIONS: dict[Intent, dict[OperationKind, Intent]] = {
    Intent.RUNNING: {
        OperationKind.UPDATE: Intent.RUNNING,
        OperationKind.SCALE: Intent.RUNNING,
        OperationKind.HIBERNATE: Intent.ASLEEP,
        OperationKind.DESTROY: Intent.GONE,
        OperationKind.ROLLOUT: Intent.RUNNING,
    },
    Intent.ASLEEP: {
        OperationKind.UPDATE: Intent.ASLEEP,
        OperationKind.REACTIVATE: Intent.RUNNING,
        OperationKind.DESTROY: Intent.GONE,
        OperationKind.ROLLOUT: Intent.ASLEEP,
    },
    Intent.GONE: {},
}


def advance(intent: Intent, kind: OperationKind, *, status: ClusterStatus) -> Intent:
    """Return the intent after ``kind``; raise Conflict naming ``status`` and what is possible instead."""
    moves = TRANSITIONS[intent]
    if kind in moves:
        return moves[kind]
    possible = [str(move) for move in moves]
    # A cluster that is still on its way to sleep says so, or "scaling_down" would read as a reason to allow scaling.
    state = f"{status} (on its way to {intent})" if intent is Intent.ASLEEP and status != "hibernated" else str(status)
    hint = f"possible now: {', '.join(possible)}" if possible else "nothing more can be done with it"
    raise Conflict(f"cannot {kind} a cluster that is {state}; {hint}", status=str(status), possible=possible)
