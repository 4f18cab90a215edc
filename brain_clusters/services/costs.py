"""What was used and what it cost, read from the ledger. Amounts are in the currency of the installation.

An amount is None where it is not known as a whole: a group has no price, or a job used what nobody counted. What is
known of it is told beside it. The price of hours is that of the blueprint's version; prices of jobs were added up when
they ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Select, Text, cast, column, func, literal, select, true
from sqlalchemy.orm import Session

from brain_clusters.db.models import Cluster, Usage
from brain_clusters.domain import pricing
from brain_clusters.domain.planning import awake
from brain_clusters.domain.specs import AgentGroup, Blueprint
from brain_clusters.domain.states import ClusterStatus
from brain_clusters.errors import Fault, InvalidInput, NotFound
from brain_clusters.services import blueprints, metering
from brain_clusters.services.tallies import PAID_STATES, STATES, Tally

MOST_ROWS = 10_000
_SUMMED = (
    *(f"{state}_seconds" for state in STATES), "slot_seconds", "saved_seconds", "jobs_succeeded", "jobs_failed",
    "unpriced_jobs", "jobs_amount", "calls", "input_tokens", "output_tokens",
)  # fmt: skip

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Period:
    """Days (UTC), both included."""

    since: date
    until: date


@dataclass(frozen=True, slots=True)
class Report:
    """Rows, each the fields that name it and what they come to, in the order of these; and all of it once."""

    rows: Sequence[tuple[Mapping[str, Any], Tally]]
    totals: Tally


# The columns that name a row, by what is grouped by.
_NAMED: Mapping[str, tuple[str, ...]] = {
    "day": ("day",),
    "cluster": ("cluster_id",),
    "group": ("cluster_id", "group_name"),
    "agent": ("cluster_id", "group_name", "agent_id"),
    "blueprint": ("blueprint_id", "blueprint_version"),
    "tag": ("tag",),
}
_HEADINGS = {"group_name": "group"}


def report(
    session: Session, period: Period, group_by: str, cluster_id: str | None = None, *, most: int | None = MOST_ROWS
) -> Report:
    """Bring the ledger up to date and sum it up. Raises NotFound, and InvalidInput for more than ``most`` rows.

    By tag, what belongs to a cluster with several tags is told under each of them, and counted once in the totals.
    """
    if cluster_id is not None and not _is_known(session, cluster_id):
        raise NotFound(f"there is no cluster {cluster_id!r}")
    metering.fold(session, None if cluster_id is None else [cluster_id])
    rows: dict[Key, Tally] = {}
    totals = Tally()
    for key, sums, cost in _sums(session, period, _NAMED[group_by], cluster_id):
        rows.setdefault(key, Tally()).add(sums, cost)
        if group_by != "tag":
            totals.add(sums, cost)
    if group_by == "tag":
        for _, sums, cost in _sums(session, period, (), cluster_id):
            totals.add(sums, cost)
    for found, seconds, cost in _still_asleep(session, period, cluster_id):
        for key in _keys_of(found, group_by):
            rows.setdefault(key, Tally()).save(seconds, cost)
        totals.save(seconds, cost)
    for key, name, value in _counters(session, period, _NAMED[group_by], cluster_id):
        rows[key].counters[name] = value
    for _, name, value in _counters(session, period, (), cluster_id):
        totals.counters[name] = value
    if most is not None and len(rows) > most:
        told = f"that is {len(rows)} rows; at most {most} are told: ask for fewer days, or group by something else"
        raise InvalidInput("the report is too long", [Fault("/group_by", told)])
    names = names_of(group_by)
    ordered = sorted(rows, key=lambda key: tuple((part is None, str(part)) for part in key))
    return Report([(dict(zip(names, _shown_key(key), strict=True)), rows[key]) for key in ordered], totals)


def names_of(group_by: str) -> list[str]:
    """Return the fields that name a row of a report."""
    return [_HEADINGS.get(name, name) for name in _NAMED[group_by]]


def _shown_key(key: Key) -> list[Any]:
    return [part.isoformat() if isinstance(part, date) else part if part != "" else None for part in key]


def _is_known(session: Session, cluster_id: str) -> bool:
    """Return whether there is such a cluster, or was: the ledger outlives it."""
    if session.get(Cluster, cluster_id) is not None:
        return True
    return session.scalars(select(Usage.day).where(Usage.cluster_id == cluster_id).limit(1)).first() is not None


# --- the ledger -------------------------------------------------------------------------------------------------


def _narrowed(query: Select[Any], period: Period, named: Sequence[str], cluster_id: str | None) -> Select[Any]:
    query = query.select_from(Usage)
    if "tag" in named:
        tags = func.unnest(Usage.tags).table_valued(column("tag", Text), name="each_tag").render_derived()
        query = query.outerjoin(tags, true())
    query = query.where(Usage.day >= period.since, Usage.day <= period.until)
    return query if cluster_id is None else query.where(Usage.cluster_id == cluster_id)


def _named(named: Sequence[str]) -> list[Any]:
    return [column("tag", Text) if name == "tag" else getattr(Usage, name) for name in named]


def _sums(
    session: Session, period: Period, named: Sequence[str], cluster_id: str | None
) -> Iterator[tuple[Key, Mapping[str, Any], Mapping[str, float]]]:
    """Yield the sums under each heading, apart by the group whose prices hold."""
    keys = _named(named)
    priced = (Usage.blueprint_id, Usage.blueprint_version, Usage.group_name)
    sums = [func.sum(getattr(Usage, name)).label(f"sum_{name}") for name in _SUMMED]
    query = _narrowed(select(*keys, *priced, *sums), period, named, cluster_id).group_by(*keys, *priced)
    for row in session.execute(query):
        key, (blueprint_id, version, group), found = (
            row[: len(keys)],
            row[len(keys) : len(keys) + 3],
            row[-len(_SUMMED) :],
        )
        yield tuple(key), dict(zip(_SUMMED, found, strict=True)), _cost(session, blueprint_id, version, group)


def _counters(
    session: Session, period: Period, named: Sequence[str], cluster_id: str | None
) -> Iterator[tuple[Key, str, float]]:
    keys = _named(named)
    each = func.jsonb_each_text(Usage.counters).table_valued("key", "value", name="counted").render_derived()
    total = func.sum(cast(each.c.value, Usage.jobs_amount.type))
    query = _narrowed(select(*keys, each.c.key, total), period, named, cluster_id).join(each, true())
    for *key, name, value in session.execute(query.group_by(*keys, each.c.key)):
        yield tuple(key), name, float(value)


def _cost(session: Session, blueprint_id: str, version: str, group: str) -> Mapping[str, float]:
    try:
        found = blueprints.parsed(session, blueprint_id, version).group(group)
    except (NotFound, InvalidInput):
        return {}
    return {} if found is None else found.cost


# --- clusters that sleep ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asleep:
    """One group of a sleeping cluster, on one day."""

    cluster: Any
    group: AgentGroup
    day: date


def _still_asleep(
    session: Session, period: Period, cluster_id: str | None
) -> Iterator[tuple[_Asleep, float, Mapping[str, float]]]:
    """Yield what the sleeps that go on have saved so far; the ledger has those that are over."""
    query = select(
        Cluster.id, Cluster.blueprint_id, Cluster.blueprint_version, Cluster.tags, Cluster.min_workers,
        Cluster.max_workers, Cluster.hibernated_at, func.now().label("now"),
    ).where(Cluster.status == ClusterStatus.HIBERNATED, Cluster.hibernated_at.is_not(None))  # fmt: skip
    if cluster_id is not None:
        query = query.where(Cluster.id == cluster_id)
    for row in session.execute(query):
        try:
            blueprint = blueprints.parsed(session, row.blueprint_id, row.blueprint_version)
        except InvalidInput:
            continue
        yield from _nights(row, blueprint, period)


def _nights(row: Any, blueprint: Blueprint, period: Period) -> Iterator[tuple[_Asleep, float, Mapping[str, float]]]:
    counts = awake(blueprint.groups, row.min_workers, row.max_workers)
    day = max(period.since, row.hibernated_at.astimezone(UTC).date())
    while day <= min(period.until, row.now.astimezone(UTC).date()):
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        begin, end = max(row.hibernated_at, midnight), min(row.now, midnight + timedelta(days=1))
        seconds = max(0.0, (end - begin).total_seconds())
        for group in blueprint.groups:
            if counts[group.name]:
                yield _Asleep(row, group, day), counts[group.name] * seconds, group.cost
        day += timedelta(days=1)


def _keys_of(found: _Asleep, group_by: str) -> Sequence[Key]:
    row = found.cluster
    if group_by == "tag":
        return [(tag,) for tag in row.tags] or [(None,)]
    fields = {
        "day": found.day, "cluster_id": row.id, "group_name": found.group.name, "agent_id": "",
        "blueprint_id": row.blueprint_id, "blueprint_version": row.blueprint_version,
    }  # fmt: skip
    return [tuple(fields[name] for name in _NAMED[group_by])]


# --- budgets ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpentOn:
    """What a cluster spent on a day, as far as the ledger knows. by_use: of it, what calls of models cost."""

    total: Decimal = Decimal(0)
    by_use: Decimal = Decimal(0)

    @property
    def besides_use(self) -> Decimal:
        """What hours of agents and finished jobs cost."""
        return self.total - self.by_use


def spent(session: Session, cluster_ids: Sequence[str], day: date) -> dict[str, SpentOn]:
    """Return what each cluster spent on ``day``; what is unknown adds nothing."""
    wanted = (Usage.cluster_id, Usage.blueprint_id, Usage.blueprint_version, Usage.group_name)
    seconds = sum((getattr(Usage, f"{state}_seconds") for state in PAID_STATES), literal(0))
    jobs = Usage.jobs_succeeded + Usage.jobs_failed - Usage.unpriced_jobs
    rows = session.execute(
        select(*wanted, func.sum(seconds), func.sum(jobs), func.sum(Usage.jobs_amount))
        .where(Usage.day == day, Usage.cluster_id.in_(list(cluster_ids)))
        .group_by(*wanted)
    )
    found = dict.fromkeys(cluster_ids, SpentOn())
    for cluster_id, blueprint_id, version, group, ran, priced, amount in rows:
        cost = _cost(session, blueprint_id, version, group)
        per_job = Decimal(str(cost.get("per_job", 0))) * int(priced)
        by_use = max(Decimal(0), Decimal(amount) - per_job) if pricing.priced_by_use(cost) else Decimal(0)
        hours = pricing.time_price(cost, ran) or Decimal(0)
        before = found[cluster_id]
        found[cluster_id] = SpentOn(before.total + hours + amount, before.by_use + by_use)
    return found
