"""Which queues a group serves, and on which broker: one of ours, or those of the Celery application that it works for.

The queues of an application are not ours: they are counted, and never emptied.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from brain_clusters.broker import backlog, debts, names
from brain_clusters.broker.backlog import QueueDepth, Reading
from brain_clusters.broker.debts import Debt
from brain_clusters.broker.restore import restore
from brain_clusters.db.models import Cluster, Operation, Rollout
from brain_clusters.db.scope import widened
from brain_clusters.domain.commands import Command, CreateCluster, RolloutCluster
from brain_clusters.domain.specs import AgentGroup, Blueprint
from brain_clusters.domain.states import Intent
from brain_clusters.errors import Conflict, Fault, InvalidInput, TemporaryError
from brain_clusters.services import blueprints, tenancy
from brain_clusters.services.control import Control

log = logging.getLogger(__name__)


# A cluster's id, its blueprint, and its agents as (agent id, group name).
Members = Sequence[tuple[str, str]]
Looked = tuple[str, Blueprint, Members]


def queues_of(cluster_id: str, group: AgentGroup) -> tuple[str, ...]:
    """Return the queues that a group serves."""
    return (names.group_queue(cluster_id, group.slug),) if group.celery is None else group.celery.queues


def own_queues(cluster_id: str, blueprint: Blueprint) -> dict[str, str]:
    """Return the groups of a cluster that have a queue of ours, by that queue."""
    own = (group for group in blueprint.groups if group.celery is None)
    return {names.group_queue(cluster_id, group.slug): group.name for group in own}


def left_queues(session: Session, cluster: Cluster) -> list[str]:
    """Return queues of ours that a cluster served in other versions of its blueprint: something may wait there."""
    versions = session.execute(
        select(Rollout.from_version, Rollout.to_version).where(Rollout.cluster_id == cluster.id)
    ).all()
    found = {version for pair in versions for version in pair} - {cluster.blueprint_version}
    blueprint = cluster.blueprint_id
    return sorted({q for one in found for q in own_queues(cluster.id, blueprints.parsed(session, blueprint, one))})


# --- reading ----------------------------------------------------------------------------------------------------


def add_foreign(control: Control, clusters: Iterable[Looked], reading: Reading, soon_of: Mapping[str, float]) -> None:
    """Add to ``reading`` what groups find at the applications they work for, as if each had one queue of ours.

    A group whose broker does not answer has no depth there, which is not that nothing waits.
    soon_of: as in ``backlog.read``, by the name that the group's own queue would have.
    """
    places: dict[str, list[tuple[str, AgentGroup, list[str]]]] = {}
    brokers: dict[str, str | None] = {}
    for cluster_id, blueprint, agents in clusters:
        for group in blueprint.foreign:
            members = [agent_id for agent_id, of in agents if of == group.name]
            name = names.group_queue(cluster_id, group.slug)
            reading.queues.pop(name, None)
            for agent_id in members:  # until it is known better; the beats come to our own Redis
                reading.held[agent_id] = reading.beats.get(agent_id, {}).get("in_flight", 0)
            place = _place(control, group)
            if place is not None and group.celery is not None:
                brokers[place] = group.celery.broker
                places.setdefault(place, []).append((name, group, members))
    if not places:
        return
    questions = {place: (brokers[place], _reader(found, soon_of)) for place, found in places.items()}
    for place, told in control.brokers.ask(questions).items():
        for name, group, members in places[place]:
            reading.queues[name] = _sum([told.queues[queue] for queue in queues_of("", group)])
            reading.held.update({agent_id: told.held[agent_id] for agent_id in members})


def _reader(groups: Sequence[tuple[str, AgentGroup, list[str]]], soon_of: Mapping[str, float]) -> Any:
    queues = [queue for _, group, _ in groups for queue in queues_of("", group)]
    soon = {queue: soon_of[name] for name, group, _ in groups if name in soon_of for queue in queues_of("", group)}
    members = [agent_id for _, _, found in groups for agent_id in found]
    return lambda client: backlog.read(client, queues, members, soon_of=soon)


def _place(control: Control, group: AgentGroup) -> str | None:
    try:
        return control.brokers.place(None if group.celery is None else group.celery.broker)
    except ValueError as exc:
        log.warning("group=%s: its broker cannot be found: %s", group.name, exc)
        return None


def _sum(depths: Sequence[QueueDepth]) -> QueueDepth:
    oldest = [depth.oldest_published_at for depth in depths if depth.length]
    # The age of one of them being unknown, so is that of the oldest of all.
    known = [at for at in oldest if at is not None]
    return QueueDepth(
        length=sum(depth.length for depth in depths),
        oldest_published_at=min(known) if known and len(known) == len(oldest) else None,
        held=sum(depth.held for depth in depths),
        next_due_at=min((depth.next_due_at for depth in depths if depth.next_due_at is not None), default=None),
        due_soon=sum(depth.due_soon for depth in depths),
    )


def lengths(control: Control, cluster_id: str, blueprint: Blueprint) -> dict[str, int]:
    """Return how many jobs wait, by group; groups whose broker does not answer are left out.

    Raises TemporaryError when our own Redis is away.
    """
    own = own_queues(cluster_id, blueprint)
    found = backlog.read(control.broker.redis, list(own), []).queues
    lengths = {own[queue]: depth.length for queue, depth in found.items()}
    return lengths | _foreign_counts(
        control, blueprint,
        lambda queues: lambda client: sum(one.length for one in backlog.read(client, queues, []).queues.values()),
    )  # fmt: skip


def old_lengths(control: Control, cluster_id: str, blueprint: Blueprint, older_than: float) -> dict[str, int]:
    """Return how many jobs have waited for longer than so many seconds, or nobody knows how long, by group."""
    own, before = own_queues(cluster_id, blueprint), time.time() - older_than
    found = backlog.waiting_since(control.broker.redis, list(own), before) if own else {}
    return {own[queue]: count for queue, count in found.items()} | _foreign_counts(
        control, blueprint,
        lambda queues: lambda client: sum(backlog.waiting_since(client, queues, before).values()),
    )  # fmt: skip


def _foreign_counts(control: Control, blueprint: Blueprint, count: Callable[[tuple[str, ...]], Any]) -> dict[str, int]:
    questions: dict[str, Any] = {
        group.name: (group.celery.broker, count(group.celery.queues))
        for group in blueprint.foreign
        if group.celery is not None
    }
    answers: dict[str, int] = control.brokers.ask(questions) if questions else {}
    return answers


# --- who serves what --------------------------------------------------------------------------------------------


def guard(control: Control, session: Session, command: Command, message_id: str | None) -> None:
    """Refuse a new cluster, or another version of one, when another cluster serves one of its applications' queues.

    Both would be sized for all that waits there. Raises InvalidInput for a broker that cannot be found, and Conflict.
    message_id: of the command; one that came before has made its cluster.
    """
    if not isinstance(command, CreateCluster | RolloutCluster) or _came_before(session, message_id):
        return
    own, blueprint = _subject(session, command)
    if blueprint is None or not blueprint.foreign:
        return
    # Two creations at once: the second waits here until the first is committed.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("brain.foreign", 0))))
    wanted = _addresses(control, blueprint)
    query = select(Cluster.id, Cluster.blueprint_id, Cluster.blueprint_version, Cluster.tags)
    with widened():  # a queue is served once, whoever may see by whom
        rows = session.execute(query.where(Cluster.intent != Intent.GONE, Cluster.id != own)).all()
    for cluster_id, blueprint_id, version, tags in rows:
        other = blueprints.parsed(session, blueprint_id, version)
        taken = [queue for place, queue in _served(control, other) if (place, queue) in wanted]
        if taken:
            who = f"cluster {cluster_id!r}" if tenancy.sees(tags) else "another cluster"
            raise Conflict(
                f"{who} serves the queue {taken[0]!r} already, and two clusters would both be sized "
                "for what waits in it; destroy that one first, or give its blueprint what this one has more"
            )


def _subject(session: Session, command: CreateCluster | RolloutCluster) -> tuple[str, Blueprint | None]:
    """Return the cluster that a command is about, "" for a new one, and the blueprint that it is to have, if known."""
    if isinstance(command, CreateCluster):
        stored = blueprints.stored(session, command.blueprint_id, command.version)
        return "", blueprints.parsed(session, stored.id, stored.version)
    cluster = session.get(Cluster, command.cluster_id)
    if cluster is None or command.steer is not None or (command.undo and command.version is None):
        return command.cluster_id, None  # where it was before nobody else can have come: it had these queues, or has
    stored = blueprints.stored(session, cluster.blueprint_id, command.version)
    return cluster.id, blueprints.parsed(session, stored.id, stored.version)


def _came_before(session: Session, message_id: str | None) -> bool:
    query = select(Operation.id).where(Operation.message_id == message_id)
    return message_id is not None and session.execute(query).first() is not None


def _addresses(control: Control, blueprint: Blueprint) -> set[tuple[str, str]]:
    faults = []
    for group in blueprint.foreign:
        try:
            control.brokers.place(group.celery.broker if group.celery else None)
        except ValueError as exc:
            faults.append(Fault("/blueprint_id", f"the broker of group {group.name!r}: {exc}"))
    if faults:
        raise InvalidInput("a broker cannot be found", faults)
    return _served(control, blueprint)


def _served(control: Control, blueprint: Blueprint) -> set[tuple[str, str]]:
    return {
        (place, queue)
        for group in blueprint.foreign
        if (place := _place(control, group)) is not None
        for queue in queues_of("", group)
    }


# --- letting go -------------------------------------------------------------------------------------------------


def release(control: Control, agent_id: str) -> None:
    """Return what a dead agent held to its queue.

    When the broker of another application does not answer, that is owed, and ``pay`` does it later: the host must go
    on, and replace the dead. Raises TemporaryError when our own Redis is away.
    """
    debt = debts.fall_due(control.broker.redis, agent_id)
    if debt is not None:
        _pay(control, {agent_id: debt})
    restore(control.broker.redis, agent_id)


def pay(control: Control) -> int:
    """Return to their queues the messages of dead agents whose broker was away; return of how many agents."""
    return _pay(control, debts.owed(control.broker.redis))


def _pay(control: Control, owed: Mapping[str, Debt]) -> int:
    paid = control.brokers.ask({agent_id: (debt.broker, _restorer(agent_id, debt)) for agent_id, debt in owed.items()})
    for agent_id in paid:
        debts.settle(control.broker.redis, agent_id)
    return len(paid)


def _restorer(agent_id: str, debt: Debt) -> Callable[[Any], int]:
    return lambda client: restore(client, agent_id, queues=debt.queues, most_deaths=debt.most_deaths)


def unpark(control: Control, blueprint: Blueprint) -> None:
    """Put what was parked for a destroyed cluster's agents back into the applications' queues.

    Other workers of the application, which know nothing of our sorted sets, then hold it until its time, as ever.
    """
    for group in blueprint.foreign:
        if group.celery is not None:
            queues = group.celery.queues
            try:
                control.brokers.ask({group.name: (group.celery.broker, _unparker(queues))})
            except TemporaryError as exc:
                log.warning("group=%s: what waits for its time stays parked: %s", group.name, exc)


def _unparker(queues: Sequence[str]) -> Callable[[Any], int]:
    return lambda client: sum(backlog.unpark(client, queue) for queue in queues)
