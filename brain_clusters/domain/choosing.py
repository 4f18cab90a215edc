"""One look at one cluster, whatever it is doing: scale it, let it sleep, wake it, give it up, or leave it. Pure.

The tick acts on a choice, ``explain`` shows the one of now, ``replay`` makes stored ones again by another blueprint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from brain_clusters.domain import scaling, sleeping
from brain_clusters.domain.scaling import CLUSTER, ClusterView, Gate, State
from brain_clusters.domain.signals import GroupSignals

Action = Literal["scale", "hibernate", "reactivate", "destroy", "hold", "none"]


@dataclass(frozen=True, slots=True)
class Situation:
    """A cluster and where it stands.

    phase: asleep; starting (its agents of the first start are not all there); changing (on its way to another size);
    settled. asleep_backlog, look_ahead and fired: see ``sleeping.waking``. hibernated_seconds: how long it has slept.
    over_budget: why it has to sleep for what it spent, see ``budgets.sleeps_for``.
    """

    view: ClusterView
    phase: Literal["asleep", "starting", "changing", "settled"]
    asleep_backlog: int = 0
    hibernated_seconds: float | None = None
    look_ahead: float = 2.0
    fired: str | None = None
    over_budget: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What to do. groups: the new counts of groups (scale), or what each begins with (reactivate).

    hold: a gate held something back; none: nothing was to be done. state: for the next look. wake_in: seconds until
    a sleeping cluster has to start for what is due; None when nothing is.
    """

    action: Action
    reason: str
    groups: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, Gate] = field(default_factory=dict)
    state: State = field(default_factory=dict)
    wake_in: float | None = None

    def after(self, before: Mapping[str, int]) -> dict[str, int]:
        """Return the counts that were decided; for a hold, those that there would be without its gates."""
        if self.action in ("hibernate", "destroy"):
            return dict.fromkeys(before, 0)
        wanted = {name: gate.wanted for name, gate in self.held.items() if self.action == "hold" and name in before}
        return {**before, **self.groups, **wanted}


def choose(situation: Situation, signals: Mapping[str, GroupSignals], state: State, now: float) -> Choice:
    """Choose what to do with a cluster. See ``scaling.decide`` for signals, state and now."""
    if situation.phase == "asleep":
        return _asleep(situation, signals)
    view = situation.view
    if situation.over_budget is not None:
        # Whatever waits, and whatever else is held: jobs that run are finished, no other begins.
        gate = Gate("budget", situation.over_budget, 0)
        return Choice("hibernate", f"budget: {situation.over_budget}", held={CLUSTER: gate})
    if situation.phase == "settled":
        sleep = sleeping.hibernation(view, signals)
        if sleep.sleeps:
            return Choice("hibernate", sleep.reason)
    else:
        sleep = sleeping.Sleep(False, "")
    decision = scaling.decide(view, signals, state, now, starting=situation.phase == "starting")
    held = dict(decision.held)
    if sleep.held is not None:
        held.setdefault(CLUSTER, sleep.held)
    if decision.groups:
        return Choice("scale", decision.reason, decision.groups, held, decision.state)
    reason = "; ".join(dict.fromkeys(_sentence(name, gate) for name, gate in held.items()))
    reason = reason or "; ".join(part for part in (decision.reason, sleep.reason) if part)
    return Choice("hold" if held else "none", reason, {}, held, decision.state)


def _sentence(name: str, gate: Gate) -> str:
    names_groups = name == CLUSTER or gate.gate in ("dry_run", "paused")  # in its reason, and all that are held
    return gate.reason if names_groups else f"{name}: {gate.reason}"


def _asleep(situation: Situation, signals: Mapping[str, GroupSignals]) -> Choice:
    if any(one.ready is None for one in signals.values()):
        gate = Gate("unknown", "what waits is unknown, so it sleeps on", 0)
        return Choice("hold", gate.reason, {}, {CLUSTER: gate})
    wake = sleeping.waking(
        situation.view,
        signals,
        asleep_backlog=situation.asleep_backlog,
        look_ahead=situation.look_ahead,
        fired=situation.fired,
    )
    if wake.wakes and situation.over_budget is not None:
        reason = f"{wake.reason}, but {situation.over_budget}"
        gate = Gate("budget", reason, sum(wake.groups.values()))
        return Choice("hold", f"budget: {reason}", {}, {CLUSTER: gate}, wake_in=wake.wake_in)
    if wake.wakes:
        return Choice("reactivate", wake.reason, wake.groups, wake_in=wake.wake_in)
    limit, slept = situation.view.blueprint.lifecycle.destroy.hibernated_seconds, situation.hibernated_seconds
    has_jobs = any(one.held or one.ready for one in signals.values())  # whatever keeps them from waking it
    if limit is not None and slept is not None and slept >= limit and not has_jobs:
        reason = f"it slept for {slept:.0f} s, as destroy_conditions ask for"
        if situation.view.blueprint.scaling.dry_run or situation.view.paused:
            name = "dry_run" if situation.view.blueprint.scaling.dry_run else "paused"
            gate = Gate(name, f"{name}: {reason}", 0)
            return Choice("hold", gate.reason, {}, {CLUSTER: gate}, wake_in=wake.wake_in)
        return Choice("destroy", reason, wake_in=wake.wake_in)
    return Choice("hold" if wake.held else "none", wake.reason, {}, wake.held, wake_in=wake.wake_in)
