"""The history of all clusters in an order that stays: whoever has read up to a position has missed nothing before it.

Ids do not give that: a transaction that took a lower id may commit later. A position is (transaction, id), and only
events are read whose transaction is older than every one that still runs (``pg_snapshot_xmin``), so no later commit
goes before them. The price: a transaction that writes and stays open, in any database of the server, holds it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, text, tuple_
from sqlalchemy.orm import Session

from brain_clusters.db.models import Cluster, Event, EventHorizon
from brain_clusters.db.scope import widened
from brain_clusters.domain.positions import Position
from brain_clusters.errors import Fault, InvalidInput
from brain_clusters.services.paging import Page, page

_FIRST_RUNNING = text(
    "SELECT bound, EXISTS (SELECT FROM events WHERE txid >= bound) "
    "FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS bound) AS now"
)
_NEXT = text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
# Rows of a dump that was read into another server bear numbers of transactions that are yet to come there.
_REBASE = text(
    "UPDATE events SET txid = 0 WHERE id <= (SELECT max(id) FROM events "
    "WHERE txid >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint)"
)
_ID_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Entry:
    """An event in its place. tags: of its cluster; None where it belongs to none."""

    position: Position
    event: Event
    tags: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Events in order, all there are up to ``upto``. more: there are others after it.

    unsettled: some are committed and wait for older transactions to end; look again in a moment.
    """

    entries: Sequence[Entry]
    upto: Position
    more: bool
    unsettled: bool


@dataclass(frozen=True, slots=True)
class Start:
    """Where a reader begins. lost: events between what it had read and this place are not to be had any more."""

    position: Position
    lost: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """What a list of events is narrowed to. None is no filter.

    operation_id: with its cluster, by whose index it is found.
    """

    cluster_id: str | None = None
    operation_id: UUID | None = None
    kind: str | None = None
    since: datetime | None = None


def now(session: Session) -> Position:
    """Return the position that all events which can be read lie before, and all others after."""
    with widened():  # a number of the server's, and nothing of anybody
        return Position(session.execute(_FIRST_RUNNING).one()[0], 0)


def after(session: Session, position: Position, limit: int) -> Batch:
    """Return the events after ``position``, at most ``limit``, with the tags of their clusters."""
    # First the bound, then the rows: what was over before the one is seen by the other.
    bound, unsettled = session.execute(_FIRST_RUNNING).one()
    rows = session.execute(
        select(Event, Cluster.tags)
        .outerjoin(Cluster, Cluster.id == Event.cluster_id)
        .where(tuple_(Event.txid, Event.id) > position, Event.txid < bound)
        .order_by(Event.txid, Event.id)
        .limit(limit)
    ).all()
    entries = [Entry(position_of(event), event, None if tags is None else tuple(tags)) for event, tags in rows]
    more = len(entries) == limit
    upto = entries[-1].position if more else max(position, Position(bound, 0))
    return Batch(entries, upto, more, unsettled)


def position_of(event: Event) -> Position:
    """Return where an event lies."""
    return Position(event.txid, event.id)


def before_last(session: Session, count: int) -> Position:
    """Return a position that at most ``count`` of the events which can be read lie after, and nothing is lost after."""
    bound = now(session)
    query = select(Event).where(Event.txid < bound.txid).order_by(Event.txid.desc(), Event.id.desc())
    first = session.scalars(query.offset(count - 1).limit(1)).first()
    # Just before that event: ids begin with 1.
    found = _horizon(session) if first is None else Position(first.txid, first.id - 1)
    return max(found, _horizon(session))


def start(session: Session, told: str | None) -> Start:
    """Return where to begin for one who has read up to ``told``: a position, or an event's id. None: from now on.

    Raises InvalidInput when it is neither.
    """
    if told is None:
        return Start(now(session), lost=False)
    given = _given(session, told)
    with widened():
        upcoming = session.execute(_NEXT).scalar_one()
    if given is None or given.txid > upcoming:
        return Start(now(session), lost=True)
    horizon = _horizon(session)
    return Start(max(given, horizon), lost=given < horizon)


def _given(session: Session, told: str) -> Position | None:
    """Return the position that ``told`` names, None for an event that is not there."""
    if told.isascii() and told.isdigit() and len(told) <= _ID_DIGITS:
        found = session.get(Event, int(told))
        if found is None:
            horizon = _horizon(session)
            return Position(0, 0) if int(told) <= horizon.event_id else None
        return position_of(found)
    try:
        return Position.parse(told)
    except ValueError as exc:
        advice = "give the position that an event or a page told, or an event's id, or leave it out"
        raise InvalidInput("the place to begin at is not valid", [Fault("/last_event_id", advice)]) from exc


def _horizon(session: Session) -> Position:
    found = session.get(EventHorizon, 1)
    return Position(0, 0) if found is None else Position(found.txid, found.event_id)


def rebase(session: Session) -> None:
    """Put events that come from another server, by a dump, before all of this one."""
    session.execute(_REBASE)


def listing(session: Session, wanted: EventFilter, *, limit: int, cursor: str | None) -> tuple[Page[Event], Position]:
    """Return a page of events, newest first, and the position that every event not yet in the list lies after."""
    bound = now(session)
    query = select(Event).where(Event.txid < bound.txid)
    if wanted.cluster_id is not None:
        query = query.where(Event.cluster_id == wanted.cluster_id)
    if wanted.operation_id is not None:
        query = query.where(Event.operation_id == wanted.operation_id)
    if wanted.kind is not None:
        query = query.where(Event.kind == wanted.kind)
    if wanted.since is not None:
        query = query.where(Event.at >= wanted.since)
    found = page(session, query, (Event.txid, Event.id), position_of, limit=limit, cursor=cursor)
    return found, bound
