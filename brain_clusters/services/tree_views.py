"""A tree of jobs as it stands: rows, with what Redis knows of those that have not ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import or_, select
from sqlalchemy.orm import load_only

from brain_clusters.broker.delegating import Joins
from brain_clusters.broker.jobs import JobRecords
from brain_clusters.db.models import Job
from brain_clusters.domain.specs import Tree as Bounds
from brain_clusters.errors import TemporaryError
from brain_clusters.services import jobs
from brain_clusters.services.control import Control

# The most jobs that one answer shows: what a tree may hold unless its blueprint says more.
MOST_SHOWN = Bounds().max_jobs
_SHOWN = (
    Job.id, Job.cluster_id, Job.group_name, Job.status, Job.attempts, Job.agent_id, Job.created_at, Job.started_at,
    Job.finished_at, Job.error, Job.usage, Job.parent_id, Job.root_id,
)  # fmt: skip


@dataclass(slots=True)
class Node:
    """One job of a tree. waiting_for: how many of its children have not ended, where it waits for them."""

    job: Job
    waiting_for: int | None = None
    children: list[Node] = field(default_factory=list)

    @property
    def amount(self) -> float | None:
        """What it cost, in the currency of the installation; None where nobody knows."""
        found = (self.job.usage or {}).get("amount")
        return found if isinstance(found, (int, float)) else None


@dataclass(frozen=True, slots=True)
class Shown:
    """A tree. totals: jobs by status. amount: of all whose cost is known, None where it is of none. cut: has more."""

    top: Node
    totals: Mapping[str, int]
    amount: float | None
    cut: bool


def show(control: Control, job_id: str, *, from_root: bool = False) -> Shown:
    """Return the tree below ``job_id``, or the whole that it belongs to. Raises NotFound."""
    asked = jobs.get(control, job_id)
    root_id = asked.root_id or _root_known(control, job_id) or asked.id
    nodes, cut = _nodes(control, root_id, asked)
    top = nodes.get(root_id, nodes[asked.id]) if from_root else nodes[asked.id]
    members = _members(top)
    amounts = [node.amount for node in members if node.amount is not None]
    totals = Counter(str(node.job.status) for node in members)
    return Shown(top, dict(totals), round(sum(amounts), 6) if amounts else None, cut)


def _nodes(control: Control, root_id: str, asked: Job) -> tuple[dict[str, Node], bool]:
    """Return all nodes of a tree by id, joined to each other, and whether some were left out."""
    with control.database.transaction() as session:
        query = select(Job).where(or_(Job.root_id == root_id, Job.id == root_id)).options(load_only(*_SHOWN))
        rows = list(session.scalars(query.order_by(Job.created_at, Job.id).limit(MOST_SHOWN + 1)))
        session.expunge_all()
    known = {row.id for row in rows}
    below = _handed_down(control, root_id)
    missing = [job_id for job_id in (root_id, *below) if job_id not in known]
    found = jobs.with_reports(control, rows, []) | _without_rows(control, missing[: MOST_SHOWN + 1 - len(rows)])
    cut = len(found) > MOST_SHOWN
    nodes = {job_id: Node(job) for job_id, job in list(found.items())[:MOST_SHOWN]}
    nodes.setdefault(asked.id, Node(asked))
    for node in nodes.values():
        parent = nodes.get(node.job.parent_id or below.get(node.job.id, ""))
        if parent is not None:
            parent.children.append(node)
    for job_id, number in _pending(control, list(nodes)).items():
        nodes[job_id].waiting_for = number
    return nodes, cut


def _members(top: Node) -> list[Node]:
    found = [top]
    for node in found:  # it grows meanwhile
        found += node.children
    return found


def _without_rows(control: Control, job_ids: Sequence[str]) -> dict[str, Job]:
    """Return those of ``job_ids`` that an agent or its parent has told of."""
    try:
        records = JobRecords(control.broker.redis).get(job_ids) if job_ids else {}
    except TemporaryError:
        return {}
    return jobs.known_by_reports(control, records)


def _root_known(control: Control, job_id: str) -> str | None:
    try:
        return Joins(control.broker.redis).root_of(job_id)
    except TemporaryError:
        return None


def _handed_down(control: Control, root_id: str) -> dict[str, str]:
    try:
        return Joins(control.broker.redis).tree(root_id)
    except TemporaryError:  # then PostgreSQL tells, as of some seconds ago
        return {}


def _pending(control: Control, job_ids: Sequence[str]) -> dict[str, int]:
    try:
        return Joins(control.broker.redis).pending(job_ids)
    except TemporaryError:
        return {}
