"""Hosts whose lease has ended and that nobody took over: their agents are given up, fenced, and replaced elsewhere.

The steps, each by a look of the tick. A host is suspected when its lease has ended, and lost when it still is silent
_GRACE_SECONDS later: PostgreSQL or all the workers may have been away, and then every host seems silent at the first
look. Its agents get their fences before their rows end, so that none counts once it is replaced; what they held returns
to its queue when those that can be reached have seen theirs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.orm import Session, aliased

from brain_clusters.broker import backlog, fences
from brain_clusters.db.models import Agent, Host
from brain_clusters.domain.states import LIVE_AGENT_STATUSES
from brain_clusters.services import history, leaving, served
from brain_clusters.services.control import Control
from brain_clusters.services.leases import alive
from brain_clusters.services.leaving import Ending
from brain_clusters.services.reconcile import reconcile_each

log = logging.getLogger(__name__)

# A host that lives has told so by then: it beats every 2 s, and connects anew once a second.
_GRACE_SECONDS = 5.0
# More than an agent takes to look for its fence after its pause, and to end.
_ENDING_SECONDS = 2.0


def watch(control: Control) -> int:
    """Give up the agents of lost hosts, and return what such agents held; return how many were given up now."""
    given_up = sum(_give_up(control, host_id, replaced=replaced) for host_id, replaced in _lost(control))
    _return_messages(control)
    return given_up


def _lost(control: Control) -> list[tuple[str, bool]]:
    """Return the hosts that are lost, each with whether another one could run its agents. None may write any more.

    What locks the row of a host is its own transaction, maybe of one that was cut off in it: that passes, and nothing
    else must wait for it.
    """
    seconds = control.settings.host_lease_seconds
    long = Host.suspected_at <= func.now() - timedelta(seconds=_GRACE_SECONDS)
    silent = select(Host.id, Host.suspected_at.is_(None), long).where(~alive(seconds))
    with control.database.transaction() as session:
        ahead = select(Host.id).where(Host.seen_at > func.now()).with_for_update(skip_locked=True)
        # A clock that was set back: else a dead host would seem alive until it has caught up.
        _write(session, session.scalars(ahead).all(), seen_at=func.now())
        rows = session.execute(silent.with_for_update(skip_locked=True)).all()
        _write(session, [host_id for host_id, unsuspected, _ in rows if unsuspected], suspected_at=func.now())
        lost = [host_id for host_id, _, for_long in rows if for_long]
        _write(session, lost, holder=None)
        other = aliased(Host)
        lasts = other.seen_at >= func.now() - timedelta(seconds=seconds)
        replaced = exists().where(other.driver == Host.driver, other.id != Host.id, lasts)
        found = session.execute(select(Host.id, replaced).where(Host.id.in_(lost)))
        return [(host_id, bool(by_another)) for host_id, by_another in found]


def _write(session: Session, host_ids: Sequence[str], **values: Any) -> None:
    if host_ids:
        session.execute(
            update(Host).where(Host.id.in_(host_ids)).values(values).execution_options(synchronize_session=False)
        )


def _give_up(control: Control, host_id: str, *, replaced: bool) -> int:
    """Give up the agents of a lost host. One that beats is left at work while no other host could replace it."""
    with control.database.transaction() as session:
        agent_ids = _live(session, host_id)
    beats = backlog.read(control.broker.redis, [], agent_ids).beats
    gone = [agent_id for agent_id in agent_ids if replaced or agent_id not in beats]
    fences.fence(control.broker.redis, gone)
    reason = f"its host {host_id} has not answered for {control.settings.host_lease_seconds:g} s"
    endings = [Ending(agent_id, host_id, reason, beat=beats.get(agent_id), lost=True) for agent_id in gone]
    with control.database.transaction() as session:
        still = Host.id == host_id, Host.holder.is_(None)
        back = session.execute(select(Host.id).where(*still).with_for_update()).first() is None
        touched = set() if back else leaving.end_agents(session, endings)
        if touched:
            history.record(
                session, "host.lost", f"{host_id} has not answered", cluster_id=None,
                data={"host": host_id, "agents": len(gone)},
            )  # fmt: skip
        if not back and len(gone) == len(agent_ids):
            session.execute(delete(Host).where(*still))
    if back:
        fences.lift(control.broker.redis, gone)
        return 0
    if gone:
        log.warning("the host is lost; its %d agents are given up", len(gone), extra={"host_id": host_id})
    reconcile_each(control, touched)
    return len(gone)


def _live(session: Session, host_id: str) -> Sequence[str]:
    return session.scalars(
        select(Agent.agent_id).where(Agent.host_id == host_id, Agent.status.in_(LIVE_AGENT_STATUSES))
    ).all()


def _return_messages(control: Control) -> None:
    client = control.broker.redis
    due = fences.due(client, control.settings.beat_interval_seconds + _ENDING_SECONDS)
    for agent_id in due:
        served.release(control, agent_id)
    if due:
        fences.settle(client, due)
