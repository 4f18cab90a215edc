"""The tick: one look at all clusters, a choice for each by ``domain.choosing``, commands through everyone's door."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from brain_clusters import logs
from brain_clusters.broker.backlog import Reading
from brain_clusters.domain.choosing import Choice, choose
from brain_clusters.domain.commands import (
    AUTOSCALER,
    Command,
    DestroyCluster,
    HibernateCluster,
    Origin,
    ReactivateCluster,
    ScaleCluster,
)
from brain_clusters.domain.signals import GroupSignals, as_inputs
from brain_clusters.domain.specs import ScalingPolicy
from brain_clusters.domain.states import Intent
from brain_clusters.errors import BrainError, TemporaryError
from brain_clusters.services import (
    alerts,
    budgets,
    ledger,
    lifecycle,
    lost_hosts,
    memory,
    metrics,
    observation,
    observed,
    operations,
    outcomes,
    placement,
    scheduled,
    sensing,
    ticks,
    trees,
)
from brain_clusters.services.control import Control
from brain_clusters.services.memory import Memory
from brain_clusters.services.observation import SeenCluster
from brain_clusters.services.reconcile import Followup, act, reconcile

log = logging.getLogger(__name__)

# A little less than a whole interval, or beat's own jitter would skip every second tick.
_SHARE_OF_PAUSE = 0.8
_USUAL_PAUSE_SECONDS = ScalingPolicy().polling_interval_seconds


def tick(control: Control) -> bool:
    """Run one tick, unless one ran just now; return whether it did.

    With Redis away nothing is known: counts are held and, after some ticks, brought up to their fallback. With
    PostgreSQL away it raises TemporaryError.
    """
    if not ticks.due(control, "autoscale", _SHARE_OF_PAUSE * control.settings.tick_interval_seconds):
        return False
    with _without_garbage_collection():
        _look_at_all(control)
    return True


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Pause the collector: it would walk over every row of a large installation several times, and find nothing."""
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()


def _look_at_all(control: Control) -> None:
    operations.sweep(control)
    try:
        observed.add_counts(control)
        scheduled.publish_due(control, scheduled.horizon_seconds(control))
        trees.collect(control)
        outcomes.collect(control)  # before the clusters are read: what was done since the last look was no idleness
        clusters = _load(control)
        remembered = memory.load(control.broker)
        last_look = remembered.seen_at
        reading = sensing.read(control, clusters, remembered)
    except TemporaryError as exc:
        log.warning("tick knows nothing: %s", exc)
        clusters = _load(control)
        _blind(control, clusters)
        alerts.watch(control, clusters, None)
        _settle(control, clusters)
        return
    remembered.seen_at = next((cluster.at for cluster in clusters.values()), None)
    observed.write(control, clusters, reading)
    budgets.look(control, clusters)
    choices = Choices(control, remembered, last_look, reading.now)
    for cluster in clusters.values():
        if not cluster.resting:
            with _alone(cluster):
                choices.make(cluster)
    choices.write_down(clusters)
    memory.save(control.broker, remembered)
    _settle(control, clusters)
    outcomes.sweep(control, lambda: _idle_groups(clusters, reading))
    metrics.sample(control, clusters, reading)
    alerts.watch(control, clusters, reading)
    lost_hosts.watch(control)


def _load(control: Control) -> dict[str, SeenCluster]:
    with control.database.transaction() as session:
        return observation.load(session)


@contextmanager
def _alone(cluster: SeenCluster) -> Iterator[None]:
    """Keep what goes wrong with one cluster from all others. A server that is away concerns them all, and passes."""
    with logs.bound(cluster_id=cluster.id):
        try:
            yield
        except TemporaryError:
            raise
        except BrainError as exc:
            log.info("the cluster stays as it is: %s", exc)  # most often another command came first
        except Exception:
            log.exception("the cluster was left out of this tick")


# --- choices ----------------------------------------------------------------------------------------------------


class Choices:
    """The choices of one tick. Times in seconds since the epoch: now by Redis's clock; last_look, when the tick before
    read the clusters, by PostgreSQL's.
    """

    def __init__(self, control: Control, remembered: Memory, last_look: float | None, now: float) -> None:
        self._control, self._memory = control, remembered
        self._last_look, self._now = last_look, now
        self._holds: list[ledger.Entry] = []
        self._unknown: dict[str, int] = {}
        self._wake_at: dict[str, float | None] = {}

    def make(self, cluster: SeenCluster) -> None:
        """Choose for one cluster, and act. Raises what its command raises."""
        if cluster.intent is Intent.GONE:
            return
        known, pause = self._memory.clusters.get(cluster.id), _pause(cluster)
        if known is not None and self._now - known.looked_at < _SHARE_OF_PAUSE * pause:
            return
        settings = self._control.settings
        look_ahead = max(settings.tick_interval_seconds, pause)
        situation = cluster.situation(settings.start_timeout_seconds, look_ahead, self._last_look)
        state = known.state if known else {}
        choice = choose(situation, cluster.signals, state, self._now)
        self._note(cluster, choice)

        def entry() -> ledger.Entry:
            return ledger.Entry(
                cluster_id=cluster.id,
                action=choice.action,
                reason=choice.reason,
                before=cluster.group_targets,
                after=choice.after(cluster.group_targets),
                held=choice.held,
                inputs=ledger.inputs(situation, cluster.signals, state, self._now),
            )

        if choice.action == "hold" and self._is_news(cluster, ledger.signature(choice.held)):
            self._holds.append(entry())
        command = command_of(cluster, choice)
        if command is not None:
            inputs = {"signals": as_inputs(cluster.signals)}
            lifecycle.submit(self._control, command, Origin(AUTOSCALER, choice.reason, inputs=inputs), entry())
        # After the command: one that was refused has changed nothing, and so nothing is to be remembered of it.
        if known or choice.state or choice.held:
            self._memory.of(cluster.id).state = dict(choice.state)
            self._memory.of(cluster.id).looked_at = self._now

    def _note(self, cluster: SeenCluster, choice: Choice) -> None:
        """Note what is to be written about the cluster itself: how long it has been unknown, and when it must wake."""
        unknown = any(gate.gate == "unknown" for gate in choice.held.values())
        ticks_unknown = cluster.unknown_ticks + 1 if unknown else 0
        if ticks_unknown != cluster.unknown_ticks:
            self._unknown[cluster.id] = ticks_unknown
        wake_at = None if choice.wake_in is None else self._now + choice.wake_in
        before = cluster.wake_at
        if (wake_at is None) != (before is None) or abs((wake_at or 0.0) - (before or 0.0)) > 1.0:
            self._wake_at[cluster.id] = wake_at

    def _is_news(self, cluster: SeenCluster, signature: str) -> bool:
        """Return whether a hold is another than the last one, or has gone on for long; take note that it is told."""
        if self._memory.at is None and cluster.unknown_ticks:
            return False  # nothing is remembered while Redis is away, and it was written down at the first tick
        found = self._memory.of(cluster.id)
        before, at = found.told
        if signature == before and self._now - at < ledger.REPEAT_SECONDS:
            return False
        found.told = (signature, self._now)
        return True

    def write_down(self, clusters: Mapping[str, SeenCluster]) -> None:
        """Write the holds, and what was noted of clusters, in one transaction."""
        if not (self._holds or self._unknown or self._wake_at):
            return
        rows = [
            (
                name,
                self._unknown.get(name, clusters[name].unknown_ticks),
                self._wake_at.get(name, clusters[name].wake_at),
            )
            for name in sorted({*self._unknown, *self._wake_at})
        ]
        with self._control.database.transaction() as session:
            ledger.write_holds(session, self._holds)
            observed.note(session, rows)


def _pause(cluster: SeenCluster) -> float:
    """Return the seconds between two choices that the blueprint asks for, where that is longer than usual."""
    stated = cluster.blueprint.scaling.polling_interval_seconds
    return stated if stated > _USUAL_PAUSE_SECONDS else 0.0


def command_of(cluster: SeenCluster, choice: Choice) -> Command | None:
    """Return the command that carries a choice out, or None."""
    if choice.action == "scale":
        return ScaleCluster(cluster_id=cluster.id, groups=choice.groups, if_generation=cluster.generation)
    if choice.action == "hibernate":
        return HibernateCluster(cluster_id=cluster.id, if_generation=cluster.generation)
    if choice.action == "destroy":
        return DestroyCluster(cluster_id=cluster.id, if_generation=cluster.generation)
    if choice.action == "reactivate":
        return ReactivateCluster(cluster_id=cluster.id, groups=choice.groups)
    return None


def _blind(control: Control, clusters: Mapping[str, SeenCluster]) -> None:
    """Choose without any signal: hold what there is and, when that has lasted, go up to the fallback. Never down."""
    choices = Choices(control, Memory(), None, next((cluster.at for cluster in clusters.values()), 0.0))
    nothing = GroupSignals(beats_fresh=False)
    for cluster in clusters.values():
        if cluster.intent is Intent.RUNNING:
            cluster.signals = {group.name: nothing for group in cluster.blueprint.groups}
            with _alone(cluster):
                choices.make(cluster)
    choices.write_down(clusters)


# --- what comes after -------------------------------------------------------------------------------------------


def _settle(control: Control, clusters: Mapping[str, SeenCluster]) -> None:
    """Look again at clusters on their way: deadlines pass, and an agent's first beat may have told nobody.

    First say why agents wait: that is the error of what ends with its deadline.
    """
    with control.database.transaction() as session:
        placement.explain(session, control.settings.host_lease_seconds)
    for cluster in clusters.values():
        if cluster.to_settle:
            with _alone(cluster):
                followup = Followup()
                with control.database.transaction() as session:
                    followup = reconcile(session, cluster.id)
                act(control, followup)


def _idle_groups(clusters: Mapping[str, SeenCluster], reading: Reading) -> dict[tuple[str, str], str]:
    """Return the queue of every group where nothing waits, nothing is held, and no agent says that it works.

    After a loss in Redis only the agent itself knows that it works on a job.
    """
    working = {
        (cluster.id, agent.group)
        for cluster in clusters.values()
        for agent in cluster.agents
        if reading.beats.get(agent.agent_id, {}).get("in_flight")
    }
    return {
        (cluster.id, group.name): queue
        for cluster in clusters.values()
        for group, queue in zip(cluster.blueprint.groups, cluster.queues, strict=True)
        if cluster.intent is not Intent.GONE
        and (cluster.resting or _is_empty(cluster.signals[group.name]))
        and (cluster.id, group.name) not in working
    }


def _is_empty(signals: GroupSignals) -> bool:
    return signals.backlog == 0 and signals.leaving == 0 and signals.held == 0
