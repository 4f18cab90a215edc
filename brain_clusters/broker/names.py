"""Names of queues, tasks and Redis keys, in this one place."""

from __future__ import annotations

LIFECYCLE_QUEUE = "brain.lifecycle"
JOB_TASK = "brain.job"
RUN_OPERATION_TASK = "brain.operations.run"
TICK_TASK = "brain.autoscale.tick"
SWEEP_TASK = "brain.sweep"
NOTIFY_TASK = "brain.notify"

# The header of our messages with ``domain.jobs.JobOptions``.
OPTIONS_HEADER = "brain"
# The header of our messages that says when they were published (seconds since the epoch, by the sender's clock).
PUBLISHED_HEADER = "brain_published_at"
# The header that an agent's transport adds to a job as it delivers it: ``broker.jobs.Delivery``.
DELIVERY_HEADER = "brain_delivery"
# The header of a job's message that goes on now that those which it handed down have ended.
JOINED_HEADER = "brain_joined"

# Kombu's lists of one queue, the most urgent first: priority 0 is the bare name [kombu.transport.redis].
PRIORITY_STEPS = (0, 3, 6, 9)
PRIORITY_SEPARATOR = "\x06\x16"

# Each queue has a sorted set of the messages that wait for their time: due time (seconds since the epoch) by message.
ETA_PREFIX = "brain:eta:"
# Each list may have a marker: the newest message in it that was looked at for a future ETA.
SIFT_PREFIX = "brain:sift:"

# A stream: what agents finished and PostgreSQL does not know yet.
FINISHED_STREAM = "brain:finished"
# A stream: jobs that other jobs handed down and PostgreSQL does not know yet.
ACCEPTED_STREAM = "brain:accepted"
# A set: every lifecycle worker that ever said it lives and is not known to have died.
WORKERS_SET = "brain:workers"
# A set: the agents without a host that said that they live, and have not said that they leave.
ALONE_SET = "brain:alone"
# Two hashes, by agent: where agents take the messages of other applications from, and those of them that died and whose
# messages are still to be returned. See ``debts``.
FOREIGN = "brain:foreign"
OWED = "brain:owed"
# A sorted set, by the time they were given up: agents whose host was lost, and that may hold messages still. See
# ``fences``.
LOST = "brain:lost"
# A hash: how many tasks of other applications were done since the last tick; and, by time, hashes of how many were in
# the last minute. See ``counts``.
COUNTS = "brain:counts"
RATES = "brain:rates:"
# The header that counts how many agents died with a task of another application.
DEATHS_HEADER = "brain_deaths"
# A list: messages that were not even JSON, kept for a person to look at.
UNREADABLE_LIST = "brain:unreadable"


def group_queue(cluster_id: str, group_slug: str) -> str:
    """Return the queue of one agent group. A slug holds no dot, so no two groups share a name."""
    return f"brain.{cluster_id}.{group_slug}"


def high_list(queue: str) -> str:
    """Return the list of ``queue``'s jobs of high priority, which comes before those that kombu knows.

    Priority 0 is kombu's most urgent and what a plain client sends that states none, so that nothing is above it. To
    publish into this list is to give it as the queue. Its messages bear no priority.
    """
    return f"{queue}{PRIORITY_SEPARATOR}high"


def priority_lists(queue: str) -> list[str]:
    """Return the Redis lists that make up ``queue``, the most urgent first: ours, then those that kombu knows."""
    return [high_list(queue), *kombu_lists(queue)]


def kombu_lists(queue: str) -> list[str]:
    """Return the Redis lists that make up ``queue`` as kombu knows it, by ``PRIORITY_STEPS``."""
    return [queue if not step else f"{queue}{PRIORITY_SEPARATOR}{step}" for step in PRIORITY_STEPS]


def eta_key(queue: str) -> str:
    """Return the sorted set of ``queue``'s messages that are not due yet, or were not taken yet."""
    return ETA_PREFIX + queue


def dead_list(queue: str) -> str:
    """Return the list of another application's messages that killed too many agents."""
    return f"brain:dead:{queue}"


def sift_key(name: str) -> str:
    """Return the key of the marker of a list: the newest message in it that was looked at for a future ETA."""
    return SIFT_PREFIX + name


def unacked_key(owner: str) -> str:
    """Return the hash of messages that ``owner`` (an agent or a worker) was given and has not acknowledged."""
    return f"brain:unacked:{owner}"


def claim_key(owner: str) -> str:
    """Return the list that holds a message that a blocking pop brought, until it is entered in ``unacked_key``."""
    return f"brain:claim:{owner}"


def beat_key(owner: str) -> str:
    """Return the key of an agent's or worker's beat; it expires when beats cease."""
    return f"brain:beat:{owner}"


def tree_key(root_id: str) -> str:
    """Return the hash with all that was handed down in one tree of jobs: parent by child."""
    return f"brain:tree:{root_id}"


def memory_keys(cluster_id: str) -> tuple[str, str, str]:
    """Return the keys of the memory that a cluster's agents share: values, when each ends, and their size."""
    return f"brain:memory:{cluster_id}", f"brain:memory_ends:{cluster_id}", f"brain:memory_size:{cluster_id}"


def host_key(host_id: str) -> str:
    """Return the key that a living host refreshes; its agents leave when it stays away."""
    return f"brain:host:{host_id}"


def asked_list(host_id: str) -> str:
    """Return the list of what the API asks a host. See ``questions``."""
    return f"brain:asked:{host_id}"


def answer_list(question_id: str) -> str:
    """Return the list where whoever asked waits for the answer."""
    return f"brain:answer:{question_id}"


def drain_key(agent_id: str) -> str:
    """Return the key whose presence tells an agent to drain that nothing on its machine can tell."""
    return f"brain:drain:{agent_id}"


def fenced_key(agent_id: str) -> str:
    """Return the key whose presence tells that an agent was given up: nothing that it does counts any more."""
    return f"brain:fenced:{agent_id}"


def job_key(job_id: str) -> str:
    """Return the hash with a job's state as its agent sees it."""
    return f"brain:job:{job_id}"


def cancel_key(job_id: str) -> str:
    """Return the key that says a job is to be cancelled: JSON {"at": epoch seconds, "grace": seconds}."""
    return f"brain:cancel:{job_id}"


def join_key(job_id: str) -> str:
    """Return the key of a job that waits for those it handed down."""
    return f"brain:join:{job_id}"


# --- budgets ----------------------------------------------------------------------------------------------------

# A hash: the clusters whose budget of a day was crossed, or would have been: id -> JSON {day, spent, limit, at}.
BUDGET_EXCEEDED_HASH = "brain:budget:exceeded"
# A hash: the same for trees of jobs: id of the root -> JSON {cluster_id, spent, limit, at}.
BUDGET_TREES_HASH = "brain:budget:exceeded_trees"


def budget_day_key(cluster_id: str, day: int) -> str:
    """Return what a cluster spent on a day, counted from 1970-01-01, in millionths.

    Beside it, with ``:reserved`` at its end, lies a sorted set of what calls in flight may still spend.
    """
    return f"brain:budget:day:{cluster_id}:{day}"


def budget_tree_key(root_id: str) -> str:
    """Return what a tree of jobs spent, in millionths; its reservations lie beside it, too."""
    return f"brain:budget:tree:{root_id}"
