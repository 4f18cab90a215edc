"""Writing the usage ledger: one row for each agent and day (UTC), see ``db.models.Usage``.

An agent's seconds follow from its row, so ``fold`` writes what they are and not what they grew by: it may run at any
time, and twice. A finished job is added once, in the transaction that stores its outcome; a sleep when it ends. Rows
are written in the order of their key, after everything else in a transaction, so that no two wait for each other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Protocol

from sqlalchemy import BigInteger, Date, Float, Numeric, String, bindparam, cast, func, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.orm import Session

from brain_clusters.broker.counts import Done, Work
from brain_clusters.db.bulk import Columns, rows_of
from brain_clusters.db.models import Cluster, Job, Tick, Usage
from brain_clusters.db.scope import widened
from brain_clusters.domain import pricing
from brain_clusters.domain.planning import awake
from brain_clusters.domain.specs import AgentGroup, Blueprint
from brain_clusters.domain.states import DEAD_LETTER_STATUSES, JobStatus
from brain_clusters.services import blueprints, ticks
from brain_clusters.services.control import Control
from brain_clusters.services.counting import Counts, Key

_TOLD = ("calls", "input_tokens", "output_tokens")
_MOST = 1e15
_MOST_COUNTERS = 50
# Of PostgreSQL's advisory locks: any number that nothing else of ours takes.
_LOCK = 0x6D65746572
# Agents that ended so long before the last fold are looked at again: it may have read before they were written.
_OVERLAP_SECONDS = 300
_FOLD_SECONDS = 60.0
# The name of the note of when it was last brought up to date as a whole.
_FOLDED = "usage"


class FinishedJob(Protocol):
    """A job whose outcome was stored just now, as far as it costs."""

    id: str
    cluster_id: str
    group_name: str
    agent_id: str | None
    status: JobStatus
    finished_at: datetime | None
    usage: Mapping[str, Any] | None


# --- agents -----------------------------------------------------------------------------------------------------

# Each agent's life is cut into days, and each day's part into states: starting until it was ready, then idle or busy
# by its own count, then draining. 24 hours, since a day of the session's time zone may have 23.
_FOLD = """
WITH lived AS (
  SELECT a.*, c.blueprint_id, c.tags, greatest(a.spawned_at, a.claimed_at) AS born,
         coalesce(a.stopped_at, statement_timestamp()) AS gone
  FROM cluster_agents a JOIN clusters c ON c.id = a.cluster_id
  WHERE a.claimed_at IS NOT NULL AND (a.stopped_at IS NULL OR a.stopped_at > :since)
    AND (CAST(:ids AS text[]) IS NULL OR a.cluster_id = ANY(CAST(:ids AS text[])))
), cut AS (
  SELECT lived.*, least(coalesce(ready_at, draining_at, gone), coalesce(draining_at, gone), gone) AS up,
         least(coalesce(draining_at, gone), gone) AS leaves,
         midnight::date AS day, midnight AT TIME ZONE 'UTC' AS begins,
         midnight AT TIME ZONE 'UTC' + interval '24 hours' AS ends
  FROM lived, generate_series(date_trunc('day', greatest(born, :since) AT TIME ZONE 'UTC'),
                              gone AT TIME ZONE 'UTC', interval '1 day') AS midnight
), parts AS (
  SELECT cut.*,
    greatest(0, date_part('epoch', least(up, ends) - greatest(born, begins))) AS starting,
    greatest(0, date_part('epoch', least(leaves, ends) - greatest(up, begins))) AS stays,
    greatest(0, date_part('epoch', least(gone, ends) - greatest(leaves, begins))) AS drains,
    coalesce((busy_days -> to_char(day, 'YYYY-MM-DD') ->> 0)::float8, 0) AS worked,
    coalesce((busy_days -> to_char(day, 'YYYY-MM-DD') ->> 2)::float8, 0) AS slots
  FROM cut
)
INSERT INTO usage (day, cluster_id, group_name, agent_id, blueprint_id, blueprint_version, tags,
                   starting_seconds, idle_seconds, busy_seconds, draining_seconds, slot_seconds)
SELECT day, cluster_id, group_name, agent_id, blueprint_id, blueprint_version, tags,
       starting, stays - least(stays, worked), least(stays, worked), drains, slots
FROM parts ORDER BY day, cluster_id, group_name, agent_id
ON CONFLICT (day, cluster_id, group_name, agent_id) DO UPDATE SET
  tags = excluded.tags, starting_seconds = excluded.starting_seconds, idle_seconds = excluded.idle_seconds,
  busy_seconds = excluded.busy_seconds, draining_seconds = excluded.draining_seconds,
  slot_seconds = excluded.slot_seconds
"""


def fold(session: Session, cluster_ids: Sequence[str] | None = None) -> None:
    """Bring the seconds of agents up to date: of some clusters, or of all that changed since the last time."""
    with widened():  # the ledger is of all, whoever asks to have it brought up to date
        _fold(session, cluster_ids)


def _fold(session: Session, cluster_ids: Sequence[str] | None) -> None:
    # One at a time: who read earlier must not write later.
    session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    last = session.scalar(select(Tick.ran_at).where(Tick.name == _FOLDED))
    overlap = func.make_interval(0, 0, 0, 0, 0, 0, _OVERLAP_SECONDS)
    since = session.scalar(select(func.coalesce(cast(last, Tick.ran_at.type) - overlap, func.to_timestamp(0))))
    ids = None if cluster_ids is None else list(cluster_ids)
    session.execute(text(_FOLD).bindparams(bindparam("ids", ids, ARRAY(String))), {"since": since})
    if cluster_ids is None:
        mark = insert(Tick).values(name=_FOLDED, ran_at=func.statement_timestamp())
        session.execute(mark.on_conflict_do_update(index_elements=[Tick.name], set_={"ran_at": mark.excluded.ran_at}))


def keep(control: Control) -> None:
    """Bring the ledger up to date once a minute, so that nothing is missing when rows of agents are deleted."""
    if ticks.due(control, "metering", _FOLD_SECONDS):
        with control.database.transaction() as session:
            fold(session)


def busy_days(found: object) -> dict[str, list[float]]:
    """Return what a beat says about busy days, without what makes no sense: agents run users' code."""
    if not isinstance(found, Mapping):
        return {}
    return {day: list(seconds) for day, seconds in list(found.items())[:10] if _is_day(day, seconds)}


def _is_day(day: object, seconds: object) -> bool:
    try:
        date.fromisoformat(day)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return isinstance(seconds, list) and len(seconds) == 3 and all(_number(one) is not None for one in seconds)


# --- jobs -------------------------------------------------------------------------------------------------------

_SUMS: Columns = {
    "day": Date, "cluster_id": String, "group_name": String, "agent_id": String, "succeeded": BigInteger,
    "failed": BigInteger, "unpriced": BigInteger, "amount": Numeric, "calls": BigInteger, "input_tokens": BigInteger,
    "output_tokens": BigInteger, "counters": String,
}  # fmt: skip
# What is counted under the same name is added up.
_ADDED = """(SELECT coalesce(jsonb_object_agg(key, total), '{}') FROM (
  SELECT key, sum(value::numeric) AS total FROM (
    SELECT * FROM jsonb_each_text(usage.counters) UNION ALL SELECT * FROM jsonb_each_text(excluded.counters)
  ) AS both_of GROUP BY key) AS added)"""


def account(session: Session, changed: Iterable[FinishedJob]) -> None:
    """Add finished jobs to the ledger, and their prices to their rows. Call it once for each, where that is stored."""
    jobs = [job for job in changed if job.finished_at is not None]
    if not jobs:
        return
    groups = _groups(session, {job.cluster_id for job in jobs})
    sums: dict[tuple[Any, ...], _Sum] = {}
    prices: list[tuple[str, float]] = []
    for job in jobs:
        key = (job.finished_at.date(), job.cluster_id, job.group_name, job.agent_id or "")  # type: ignore[union-attr]
        price = sums.setdefault(key, _Sum()).add(job, groups.get((job.cluster_id, job.group_name)))
        if price is not None:
            prices.append((job.id, float(round(price, 6))))
    _write_sums(session, [(*key, *sums[key].row()) for key in sorted(sums)])
    _count_tokens(session, sums)
    if prices:
        given = rows_of("given", {"id": String, "amount": Float(53)}, prices)
        priced = func.coalesce(Job.usage, cast({}, JSONB)).op("||")(func.jsonb_build_object("amount", given.c.amount))
        session.execute(
            update(Job).where(Job.id == given.c.id).values(usage=priced).execution_options(synchronize_session=False)
        )


def _count_tokens(session: Session, sums: Mapping[tuple[Any, ...], _Sum]) -> None:
    counts = Counts()
    for (_, cluster_id, group, _), one in sums.items():
        for name, direction in (("input_tokens", "input"), ("output_tokens", "output")):
            if one.told[name]:
                counts.add(Key(cluster_id, group, "brain_tokens_total", direction), one.told[name] or 0)
    counts.write(session)


def account_counts(session: Session, counted: Mapping[Work, Done]) -> None:
    """Add finished tasks of other applications, which have no rows, to the ledger. What they used nobody knows."""
    groups = _groups(session, {work.cluster_id for work in counted})
    rows, counts = [], Counts()
    for work, done in sorted(counted.items(), key=lambda item: item[0]):
        group, ended = groups.get((work.cluster_id, work.group)), done.completed + done.failed
        if group is None:
            continue  # users' code can write there
        price = pricing.job_price(group.cost, None)
        unpriced = ended if price is None and pricing.priced_by_use(group.cost) else 0
        key = (work.day, work.cluster_id, work.group, work.agent_id)
        rows.append((*key, done.completed, done.failed, unpriced, (price or 0) * ended, *(None for _ in _TOLD), "{}"))
        for outcome, number in (("succeeded", done.completed), ("failed", done.failed)):
            if number:
                counts.add(Key(work.cluster_id, work.group, "brain_jobs_total", outcome), number)
    if rows:
        _write_sums(session, rows)
    counts.write(session)


class _Sum:
    """What the jobs of one agent on one day come to."""

    def __init__(self) -> None:
        self._succeeded = self._failed = self._unpriced = 0
        self._amount = Decimal(0)
        self.told: dict[str, float | None] = dict.fromkeys(_TOLD)
        self._counters: dict[str, float] = {}

    def add(self, job: FinishedJob, group: AgentGroup | None) -> Decimal | None:
        """Add one job; return its price, None where that is unknown or nothing about it has one."""
        self._succeeded += job.status is JobStatus.SUCCEEDED
        self._failed += job.status in DEAD_LETTER_STATUSES
        usage = sound_usage(job.usage)
        for name, value in usage.items():
            if name in self.told:
                self.told[name] = (self.told[name] or 0) + value
            elif name in self._counters or len(self._counters) < _MOST_COUNTERS:
                self._counters[name] = self._counters.get(name, 0) + value
        cost = {} if group is None else group.cost
        if not ("per_job" in cost or pricing.priced_by_use(cost)):
            return None
        is_done = job.status is not JobStatus.CANCELLED
        if not (is_done or pricing.priced_by_use(cost)):
            return None
        price = pricing.job_price(cost, usage or None) if is_done else pricing.use_price(cost, usage or None)
        self._unpriced += price is None
        self._amount += price or 0
        return price

    def row(self) -> tuple[Any, ...]:
        """Return the sums in the order of ``_SUMS``."""
        told = [None if value is None else int(value) for value in self.told.values()]
        return (self._succeeded, self._failed, self._unpriced, self._amount, *told, json.dumps(self._counters))


def sound_usage(found: object) -> dict[str, float]:
    """Return the figures of a job's usage that make sense. ``amount`` is ours to say."""
    if not isinstance(found, Mapping):
        return {}
    numbers = {str(name)[:100]: _number(value) for name, value in list(found.items())[:100] if name != "amount"}
    return {name: value for name, value in numbers.items() if value is not None}


def _number(found: object) -> float | None:
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return found if math.isfinite(found) and 0 <= found < _MOST else None


def _groups(session: Session, cluster_ids: Iterable[str]) -> dict[tuple[str, str], AgentGroup]:
    rows = session.execute(
        select(Cluster.id, Cluster.blueprint_id, Cluster.blueprint_version).where(Cluster.id.in_(set(cluster_ids)))
    )
    return {
        (cluster_id, group.name): group
        for cluster_id, blueprint_id, version in rows.all()
        for group in blueprints.parsed(session, blueprint_id, version).groups
    }


def _write_sums(session: Session, rows: Sequence[Sequence[Any]]) -> None:
    given = rows_of("given", _SUMS, rows)
    of = given.c
    chosen = (
        select(
            of.day, of.cluster_id, of.group_name, of.agent_id, Cluster.blueprint_id, Cluster.blueprint_version,
            Cluster.tags, of.succeeded, of.failed, of.unpriced, of.amount, of.calls, of.input_tokens, of.output_tokens,
            cast(of.counters, JSONB),
        )
        .join(Cluster, Cluster.id == of.cluster_id)
        .order_by(of.day, of.cluster_id, of.group_name, of.agent_id)
    )  # fmt: skip
    names = [
        *_KEY, "blueprint_id", "blueprint_version", "tags", "jobs_succeeded", "jobs_failed", "unpriced_jobs",
        "jobs_amount", *_TOLD, "counters",
    ]  # fmt: skip
    statement = insert(Usage).from_select(names, chosen)
    new = statement.excluded
    grown: dict[str, Any] = {
        name: getattr(Usage, name) + new[name]
        for name in ("jobs_succeeded", "jobs_failed", "unpriced_jobs", "jobs_amount")
    }
    # What nobody counted adds nothing to what somebody did.
    grown |= {name: func.coalesce(getattr(Usage, name) + new[name], getattr(Usage, name), new[name]) for name in _TOLD}
    session.execute(statement.on_conflict_do_update(index_elements=_KEY, set_={**grown, "counters": text(_ADDED)}))


_KEY = ["day", "cluster_id", "group_name", "agent_id"]

# --- sleep ------------------------------------------------------------------------------------------------------


def slept(session: Session, cluster: Cluster, blueprint: Blueprint) -> None:
    """Add the sleep of a cluster that ends now. Call it in the transaction that ends it, before it forgets since when.

    Saved are the agents that it would have kept: those that it wakes with when no job waits.
    """
    if cluster.hibernated_at is None:
        return
    counts = awake(blueprint.groups, cluster.min_workers, cluster.max_workers)
    for group in sorted(blueprint.groups, key=lambda group: group.name):
        warm = group.standby == "warm"
        if counts[group.name] or warm:
            session.execute(
                text(_SLEPT),
                {"id": cluster.id, "group": group.name, "agents": counts[group.name], "warm": int(warm)},
            )


_SLEPT = """
INSERT INTO usage (day, cluster_id, group_name, agent_id, blueprint_id, blueprint_version, tags, saved_seconds,
                   asleep_warm_seconds)
SELECT day, id, :group, '', blueprint_id, blueprint_version, tags, :agents * seconds, :warm * seconds
FROM (
  SELECT c.*, midnight::date AS day, date_part('epoch',
      least(statement_timestamp(), midnight AT TIME ZONE 'UTC' + interval '24 hours')
      - greatest(hibernated_at, midnight AT TIME ZONE 'UTC')) AS seconds
  FROM clusters c, generate_series(date_trunc('day', hibernated_at AT TIME ZONE 'UTC'),
                                   statement_timestamp() AT TIME ZONE 'UTC', interval '1 day') AS midnight
  WHERE c.id = :id
) AS nights ORDER BY day
ON CONFLICT (day, cluster_id, group_name, agent_id) DO UPDATE SET
  saved_seconds = usage.saved_seconds + excluded.saved_seconds,
  asleep_warm_seconds = usage.asleep_warm_seconds + excluded.asleep_warm_seconds
"""
