"""The ledger: every decision that changed something or was held back, with its inputs and its reason."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from brain_clusters.db.models import ScalingDecision
from brain_clusters.domain.choosing import Choice, Situation, choose
from brain_clusters.domain.scaling import ClusterView, Gate, State, held_as_json
from brain_clusters.domain.signals import GroupSignals, as_inputs, from_inputs
from brain_clusters.domain.specs import Blueprint
from brain_clusters.services import clusters
from brain_clusters.services.counting import Counts, Key
from brain_clusters.services.memory import state_as_json, state_from_json
from brain_clusters.services.paging import Page, page

HOLD = "hold"
# A hold that goes on the same way is written down again after so long.
REPEAT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision. action: scale, hibernate, reactivate, destroy or hold. after: the counts that were decided; for a
    hold, those that there would be without its gates.
    """

    cluster_id: str
    action: str
    reason: str
    before: Mapping[str, int]
    after: Mapping[str, int]
    inputs: Mapping[str, Any]
    held: Mapping[str, Gate] = field(default_factory=dict)


def signature(held: Mapping[str, Gate]) -> str:
    """Return what makes a hold the same as the one before: its gates, whatever the counts that they hold back."""
    return ";".join(f"{name}:{gate.gate}" for name, gate in sorted(held.items()))


def write(session: Session, entry: Entry, operation_id: uuid.UUID | None) -> None:
    """Add one decision to ``session``."""
    session.add(ScalingDecision(**_row(entry), operation_id=operation_id))
    _tally(session, [entry])


def write_holds(session: Session, entries: Iterable[Entry]) -> None:
    """Write decisions that changed nothing, in one statement."""
    held = list(entries)
    if held:
        session.execute(insert(ScalingDecision), [_row(entry) for entry in held])
        _tally(session, held)


def _tally(session: Session, entries: Iterable[Entry]) -> None:
    """Count decisions for monitors. A hold counts once for each gate that holds something back."""
    counts = Counts()
    for entry in entries:
        gates = {gate.gate for gate in entry.held.values()} if entry.action == HOLD else {""}
        for gate in gates:
            counts.add(Key(entry.cluster_id, "", "brain_decisions_total", f"{entry.action} {gate}"))
    counts.write(session)


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "cluster_id": entry.cluster_id,
        "action": entry.action,
        "reason": entry.reason,
        "before": dict(entry.before),
        "after": dict(entry.after),
        "held": held_as_json(entry.held),
        "inputs": dict(entry.inputs),
    }


_VIEW = (
    "targets", "min_workers", "max_workers", "since_change", "idle_seconds", "persistent", "unknown_ticks", "floor",
    "next_floor", "paused",
)  # fmt: skip
_SITUATION = ("phase", "asleep_backlog", "hibernated_seconds", "look_ahead", "fired", "over_budget")


def inputs(situation: Situation, signals: Mapping[str, GroupSignals], state: State, now: float) -> dict[str, Any]:
    """Return all that a choice was made from, as JSON-ready data. The blueprint is named, not copied."""
    view = situation.view
    return {
        "blueprint": [view.blueprint.id, view.blueprint.version],
        "view": {name: getattr(view, name) for name in _VIEW},
        "situation": {name: getattr(situation, name) for name in _SITUATION},
        "signals": as_inputs(signals),
        "state": state_as_json(state),
        "now": now,
    }


def choose_again(found: Mapping[str, Any], blueprint: Blueprint) -> Choice:
    """Make a stored choice again, as ``blueprint`` would. Its groups that were not there then saw nothing."""
    view = ClusterView(blueprint=blueprint, **{name: found["view"][name] for name in _VIEW if name in found["view"]})
    known = {name: found["situation"][name] for name in _SITUATION if name in found["situation"]}
    situation = Situation(view=view, **known)
    seen = from_inputs(found["signals"])
    signals = {group.name: seen.get(group.name, GroupSignals(ready=0, running=0)) for group in blueprint.groups}
    return choose(situation, signals, state_from_json(found["state"]), float(found["now"]))


def listing(
    session: Session, cluster_id: str, *, action: str | None, limit: int, cursor: str | None
) -> Page[ScalingDecision]:
    """Return a page of a cluster's decisions, newest first; ``action`` narrows it to one kind."""
    clusters.get(session, cluster_id)
    query = select(ScalingDecision).where(ScalingDecision.cluster_id == cluster_id)
    if action is not None:
        query = query.where(ScalingDecision.action == action)
    return page(session, query, (ScalingDecision.id,), lambda row: (row.id,), limit=limit, cursor=cursor)
