"""One look at a cluster whose agents are of several versions, from its reconcile. The caller holds the cluster's row.

Whatever is there decides, and not what was done before: agents that are not of the cluster's version are replaced, and
so are those that somebody sent away. The row of the rollout says how, and when it has succeeded or failed. So every
step may be killed and is then made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from brain_clusters.db.models import Agent, Cluster, Rollout
from brain_clusters.domain import planning
from brain_clusters.domain import rollouts as rules
from brain_clusters.domain.rollouts import Course, Pace, Standing
from brain_clusters.domain.specs import Blueprint, RolloutPolicy
from brain_clusters.domain.states import ROLLOUTS_UNDER_WAY, AgentStatus, Intent, RolloutStatus
from brain_clusters.services import blueprints, history, leaving, rollouts
from brain_clusters.services.specs import spec_of

_HELD = (RolloutStatus.PAUSED, RolloutStatus.FAILED)


def look(session: Session, cluster: Cluster, agents: Sequence[Agent]) -> Course | None:
    """Judge a cluster's rollout and write down how far it is; return how to go on, None where nothing is replaced.

    agents: the live ones. It may give the cluster its former version back.
    """
    rollout = rollouts.newest(session, cluster.id)
    if rollout is not None and rollout.status not in (*ROLLOUTS_UNDER_WAY, RolloutStatus.FAILED):
        rollout = None
    if rollout is None and all(leaving.is_wanted(agent, cluster.blueprint_version) for agent in agents):
        return None
    _adopt(session, cluster, agents)
    now: datetime = session.scalars(select(func.clock_timestamp())).one()
    if rollout is not None and rollout.status in ROLLOUTS_UNDER_WAY:
        return _judge(session, cluster, rollout, agents, now)
    mixed = any(not leaving.is_wanted(agent, cluster.blueprint_version) for agent in agents)
    if not mixed or cluster.intent is not Intent.RUNNING:
        return None
    return Course(_pace(session, cluster, rollout), now)


def _pace(session: Session, cluster: Cluster, rollout: Rollout | None) -> Pace:
    stated = blueprints.parsed(session, cluster.blueprint_id, cluster.blueprint_version).rollout
    policy = stated if rollout is None else RolloutPolicy(**rollout.policy)
    held = rollout is not None and rollout.status in _HELD
    return Pace.of(policy, cluster.target_workers, cluster.max_workers, held=held)


def _adopt(session: Session, cluster: Cluster, agents: Sequence[Agent]) -> None:
    """Give agents the cluster's version that would be just the same in it: there is nothing to replace."""
    wanted = blueprints.parsed(session, cluster.blueprint_id, cluster.blueprint_version)
    same = []
    for agent in agents:
        if agent.blueprint_version != cluster.blueprint_version:
            theirs = blueprints.parsed(session, cluster.blueprint_id, agent.blueprint_version)
            if agent.group_name in unchanged_groups(theirs, wanted):
                same.append(agent)
    if not same:
        return
    ids = [agent.agent_id for agent in same]
    session.flush()
    # All at once: some of the others may be drained next, and a host that has several takes them in the same order.
    leaving.lock_agents(session, [agent.agent_id for agent in agents])
    session.execute(
        update(Agent)
        .where(Agent.agent_id.in_(ids))
        .values(blueprint_version=cluster.blueprint_version)
        .execution_options(synchronize_session=False)
    )
    for agent in same:
        set_committed_value(agent, "blueprint_version", cluster.blueprint_version)


def unchanged_groups(before: Blueprint, after: Blueprint) -> set[str]:
    """Return the groups whose agents are the same in both: whatever a driver is told of them."""
    both = ((group, after.group(group.name)) for group in before.groups)
    return {
        group.name
        for group, other in both
        if other is not None
        and other.name == group.name
        and replace(spec_of("", "", group, before), blueprint_id="")
        == replace(spec_of("", "", other, after), blueprint_id="")
    }


# --- verdicts ---------------------------------------------------------------------------------------------------


def _judge(
    session: Session, cluster: Cluster, rollout: Rollout, agents: Sequence[Agent], now: datetime
) -> Course | None:
    if cluster.intent is Intent.GONE:
        rollouts.end(session, cluster, rollout, RolloutStatus.SUPERSEDED, "the cluster is destroyed")
        return None
    if cluster.intent is Intent.ASLEEP:
        if agents:
            return None  # they leave, whatever their version is
        told = f"the cluster sleeps, and wakes in version {cluster.blueprint_version!r}, which nothing has tried yet"
        return _finished(session, cluster, rollout, now, told)
    pace = _pace(session, cluster, rollout)
    views = [leaving.view(agent, cluster.blueprint_version) for agent in agents]
    standing = rules.standing(cluster.group_targets, views, pace, now)
    if standing.done:
        told = f"all {standing.new} agents are of version {cluster.blueprint_version!r}"
        return _finished(session, cluster, rollout, now, told)
    _note(rollout, standing, now)
    if rollout.status is RolloutStatus.RUNNING and (why := _failure(session, cluster, rollout, standing, now)):
        _give_up(session, cluster, rollout, why)
        _adopt(session, cluster, agents)
        pace = _pace(session, cluster, rollout)
    return Course(pace, now)


def _finished(session: Session, cluster: Cluster, rollout: Rollout, now: datetime, told: str) -> Course:
    pace = _pace(session, cluster, rollout)
    rollout.progress = {"old": 0, "new": cluster.target_workers, "healthy": cluster.target_workers}
    back = rollout.status is RolloutStatus.REVERTING
    told = f"{rollout.reason}; back in version {cluster.blueprint_version!r}" if back else told
    status = RolloutStatus.REVERTED if back else RolloutStatus.SUCCEEDED
    left = blueprints.parsed(session, cluster.blueprint_id, rollout.to_version if back else rollout.from_version)
    present = blueprints.parsed(session, cluster.blueprint_id, cluster.blueprint_version)
    # Old agents may have handed work down to groups that are no more.
    rollout.stranded = rollouts.unfinished(session, cluster.id, left, present, {})
    rollouts.end(session, cluster, rollout, status, told + _stranded(rollout))
    return Course(pace, now, _unserved(left, present))


def _stranded(rollout: Rollout) -> str:
    if not rollout.stranded:
        return ""
    counts = ", ".join(f"{count} of {name!r}" for name, count in sorted(rollout.stranded.items()))
    return f". Unfinished jobs of groups that are no more wait until a version has these again: {counts}"


def _unserved(before: Blueprint, after: Blueprint) -> Blueprint | None:
    """Return the groups with an application of their own whose queues ``after`` does not serve any more."""
    served = {queue for group in after.foreign if group.celery for queue in group.celery.queues}
    gone = tuple(group for group in before.foreign if group.celery and served.isdisjoint(group.celery.queues))
    return replace(before, groups=gone) if gone else None


def _note(rollout: Rollout, standing: Standing, now: datetime) -> None:
    """Write down how far it is. While only old agents are waited for, no time passes: their jobs may take hours."""
    if standing.ahead_of(rollout.progress):
        rollout.progress_at = now
    rollout.pending_since = rollout.pending_since or now if standing.pending else None
    found = {"old": standing.old, "new": standing.new, "healthy": standing.healthy}
    if rollout.progress != found:
        rollout.progress = found


def _failure(session: Session, cluster: Cluster, rollout: Rollout, standing: Standing, now: datetime) -> str | None:
    policy = RolloutPolicy(**rollout.policy)
    youth = timedelta(seconds=max(policy.min_healthy_seconds, planning.YOUTH_SECONDS))
    young = or_(Agent.ready_at.is_(None), Agent.stopped_at - Agent.ready_at < youth)
    died = and_(
        Agent.cluster_id == cluster.id, Agent.blueprint_version == rollout.to_version,
        Agent.status == AgentStatus.FAILED, Agent.stopped_at > max(rollout.progress_at, rollout.created_at),
        young, Agent.reason.is_(None),  # it has one when its host was lost, which is no fault of the version
    )  # fmt: skip
    deaths = session.scalar(select(func.count()).where(died)) or 0
    since = max(rollout.progress_at, rollout.pending_since or now)
    waited = (now - since).total_seconds()
    why = rules.failure(policy, standing, deaths=deaths, waited_seconds=waited)
    if why is None:
        return None
    last = session.scalars(select(Agent.last_error).where(died).order_by(Agent.stopped_at.desc()).limit(1)).first()
    return f"version {rollout.to_version!r} failed: {why}" + (f". The last one: {last}" if last else "")


def _give_up(session: Session, cluster: Cluster, rollout: Rollout, why: str) -> None:
    """Go back to the version before, or leave everything as it is, as the policy has it."""
    rollout.reason = why
    if not rollout.policy["auto_revert"]:
        told = f"{why}. It stays as it is: undo it, or roll out a version that is mended"
        rollouts.end(session, cluster, rollout, RolloutStatus.FAILED, told)
        return
    rollout.status = RolloutStatus.REVERTING
    rollout.progress = {}
    failed = blueprints.parsed(session, cluster.blueprint_id, rollout.to_version)
    former = blueprints.parsed(session, cluster.blueprint_id, rollout.from_version)
    rollout.stranded = rollouts.unfinished(session, cluster.id, failed, former, {})
    bounds = (rollout.before["min_workers"], rollout.before["max_workers"])
    counts = {**rollout.before["group_targets"], **cluster.group_targets}  # it may have been scaled in the meantime
    rollouts.switch(session, cluster, former.version, bounds, rules.moved_targets(counts, former.groups, *bounds))
    cluster.generation += 1  # whoever decided by the version that failed has to look again
    told = f"{why}. Going back to {former.version!r}{_stranded(rollout)}"
    data = {"rollout_id": str(rollout.id), "stranded": dict(rollout.stranded)}
    history.record(
        session, "rollout.reverting", told, cluster_id=cluster.id, operation_id=rollout.operation_id, data=data
    )
