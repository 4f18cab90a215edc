"""A job for any cluster: all that offer the capability are looked at, and the shortest expected wait wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from brain_clusters.broker import backlog, names
from brain_clusters.broker.backlog import Reading
from brain_clusters.db.models import Agent, Cluster
from brain_clusters.domain.engines import default_start_seconds
from brain_clusters.domain.routing import Candidate, Route, route
from brain_clusters.domain.signals import Learned
from brain_clusters.domain.sleeping import job_wakes
from brain_clusters.domain.specs import AgentGroup, Blueprint
from brain_clusters.domain.states import LIVE_AGENT_STATUSES, READY_AGENT_STATUSES, AgentStatus, Intent
from brain_clusters.errors import Conflict, Fault, InvalidInput, NotFound, TemporaryError
from brain_clusters.services import blueprints, desired, idempotency, memory
from brain_clusters.services.control import Control
from brain_clusters.services.idempotency import Key, Sent
from brain_clusters.services.measured import Measured, measured
from brain_clusters.services.newjobs import NewJob
from brain_clusters.services.sensing import memory_of

# Beyond so many clusters that offer the same, the newest are looked at.
_MOST_CLUSTERS = 1000
_CAPACITY = (AgentStatus.STARTING, *READY_AGENT_STATUSES)
_UNMEASURED = Measured()


@dataclass(frozen=True, slots=True)
class _Offer:
    """A group that offers the capability, in a cluster that takes jobs. agents: ids of its live ones by status."""

    cluster: Cluster
    blueprint: Blueprint
    group: AgentGroup
    agents: Mapping[str, AgentStatus]

    @property
    def queue(self) -> str:
        return names.group_queue(self.cluster.id, self.group.slug)


def add_job(control: Control, new: NewJob, key: Key | None) -> tuple[Sent, Route | None]:
    """Accept a job for the cluster that will begin it first; return it and why. None: an earlier request made it.

    Raises InvalidInput, with what is offered, when no cluster offers the capability.
    """
    candidates = _candidates(control, str(new.capability))
    while True:
        found = route(candidates)
        best = found.best
        try:
            sent = idempotency.add_jobs(control, best.cluster_id, [replace(new, to=best.group)], key)
            return sent, found if sent.submission else None
        except (Conflict, NotFound):  # it was destroyed since it was looked at
            candidates = [one for one in candidates if one.cluster_id != best.cluster_id]
            if not candidates:
                raise


def _candidates(control: Control, capability: str) -> list[Candidate]:
    with control.database.transaction() as session:
        offers = _offers(session, capability)
    try:
        known, remembered = measured(control), memory.load(control.broker)
        agent_ids = [agent_id for offer in offers for agent_id in offer.agents]
        reading = backlog.read(control.broker.redis, [offer.queue for offer in offers], agent_ids)
    except TemporaryError:  # the job is accepted all the same, as any is
        return [_candidate(offer, None, _UNMEASURED, None) for offer in offers]
    return [
        _candidate(
            offer,
            reading,
            known.get((offer.blueprint.id, offer.group.name), _UNMEASURED),
            memory_of(remembered, offer.cluster.id, offer.group.name),
        )
        for offer in offers
    ]


def _candidate(offer: _Offer, reading: Reading | None, measures: Measured, learned: Learned | None) -> Candidate:
    cluster, group = offer.cluster, offer.group
    agents = [one for one, status in offer.agents.items() if status in _CAPACITY]
    jobs = None
    if reading is not None:
        # What a draining agent holds needs nobody else.
        jobs = reading.queues[offer.queue].length + sum(reading.held[one] for one in agents)
    service = learned.service_time if learned and learned.service_time is not None else measures.service_time
    asleep = cluster.intent is Intent.ASLEEP
    room = asleep or sum(cluster.group_targets.values()) < cluster.max_workers
    return Candidate(
        cluster_id=cluster.id,
        group=group.name,
        jobs=jobs,
        agents=0 if asleep else len(agents),
        slots=group.concurrency,
        service_time=service,
        start_time=default_start_seconds(group.driver) if measures.start_time is None else measures.start_time,
        asleep=asleep,
        has_room=room and group.count.maximum > 0,
    )


def _offers(session: Session, capability: str) -> list[_Offer]:
    """Return the groups that offer a capability, in clusters that are awake or that a job wakes."""
    lives = Cluster.intent != Intent.GONE
    version = (Cluster.blueprint_id, Cluster.blueprint_version)
    known: set[str] = set()
    offering: dict[tuple[str, str], tuple[Blueprint, list[AgentGroup]]] = {}
    for key in session.execute(select(*version).where(lives).distinct()):
        with suppress(InvalidInput):  # stored by a version of ours that accepted more
            blueprint = blueprints.parsed(session, *key)
            ours = [group for group in blueprint.groups if group.celery is None]
            known.update(word for group in ours for word in group.capabilities)
            groups = [group for group in ours if capability in group.capabilities]
            if groups:
                offering[key[0], key[1]] = (blueprint, groups)
    query = select(Cluster).where(lives, tuple_(*version).in_(list(offering)))
    clusters = session.scalars(query.order_by(Cluster.created_at.desc()).limit(_MOST_CLUSTERS)).all()
    agents = _agents(session, [cluster.id for cluster in clusters])
    offers = []
    for cluster in clusters:
        blueprint, groups = offering[cluster.blueprint_id, cluster.blueprint_version]
        takes_jobs = cluster.intent is not Intent.ASLEEP or job_wakes(blueprint, asleep=True)
        if takes_jobs and not desired.over_budget(cluster, blueprint):
            offers += [_Offer(cluster, blueprint, group, agents.get((cluster.id, group.name), {})) for group in groups]
    if not offers:
        listed = ", ".join(repr(word) for word in sorted(known)) or "none"
        told = f"no cluster that takes jobs offers {capability!r}; the capabilities that there are: {listed}"
        raise InvalidInput("nobody can do the job", [Fault("/capability", told)])
    return offers


def _agents(session: Session, cluster_ids: Sequence[str]) -> dict[tuple[str, str], dict[str, AgentStatus]]:
    query = select(Agent.cluster_id, Agent.group_name, Agent.agent_id, Agent.status)
    found: dict[tuple[str, str], dict[str, AgentStatus]] = {}
    for cluster_id, group, agent_id, status in session.execute(
        query.where(Agent.cluster_id.in_(cluster_ids), Agent.status.in_(LIVE_AGENT_STATUSES))
    ):
        found.setdefault((cluster_id, group), {})[agent_id] = status
    return found
