"""What decisions leave for the next: needs of two windows, growth, votes, and how long to wait before shrinking.

Pure. Times in seconds, those of ``now``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from brain_clusters.domain.signals import GroupSignals
from brain_clusters.domain.sizing import start_seconds
from brain_clusters.domain.specs import ScalingPolicy

# Where the blueprint states no window for the way down it begins with so many start times, as an agent that is missed
# costs its start; it is never shorter than half a minute, nor longer than what Kubernetes' HorizontalPodAutoscaler
# waits by default. The figures were chosen by the replay benchmark; docs/benchmarks.md has what 300 s for all came to.
HOLD_STARTS = 3.0
HOLD_LEAST_SECONDS = 30.0
HOLD_MOST_SECONDS = 300.0
# What a way down that came too soon makes of the window.
_LESSON = 3.0
# Growth so many windows after a way down says that it came too soon.
_REGRET_WINDOWS = 3.0
# A way down that stood for so many windows says that the next may come sooner.
_CONTENT_WINDOWS = 6.0

Needs = tuple[tuple[float, int], ...]


@dataclass(frozen=True, slots=True)
class GroupState:
    """What earlier decisions left for the next. Times are those of ``now``, in seconds.

    target: the count that the last one left; another one now means that somebody else scaled.
    peaks, lows: (time, wanted) of the two stabilization windows, each only as far as it can still matter.
    grown: (time, agents) of each growth within ``scale_up.period``. votes: how often in a row fewer were proposed.
    panic_until: no way down before this time, and no limit on the way up. hold: the length that the window on the
    way down has learned, where the blueprint states none; shrunk_at: the last way down, by which it learns.
    """

    target: int | None = None
    peaks: Needs = ()
    lows: Needs = ()
    grown: Needs = ()
    votes: int = 0
    panic_until: float = 0.0
    hold: float = 0.0
    shrunk_at: float | None = None


def peaks_with(needs: Needs, now: float, wanted: int, window: float) -> Needs:
    """Add a need and keep those within the window that no later one reaches: the first is the highest of all."""
    kept = [(at, count) for at, count in needs if at > now - window and count > wanted]
    return (*kept, (now, wanted))


def lows_with(needs: Needs, now: float, wanted: int, window: float) -> Needs:
    """Add a need, and keep those within the window and the newest before it, which the window began with."""
    if window <= 0:
        return ()
    begins = max((at for at, _ in needs if at <= now - window), default=now - window)
    return (*((at, count) for at, count in needs if at >= begins), (now, wanted))


def lowest_need(lows: Needs, *, now: float, target: int, window: float) -> int:
    """Return the lowest need of the window; before the memory began, nothing more than the target was needed."""
    lowest = min((count for _, count in lows), default=target)
    known = bool(lows) and lows[0][0] <= now - window
    return lowest if known else min(target, lowest)


# --- the way down -----------------------------------------------------------------------------------------------


def hold_seconds(policy: ScalingPolicy, signals: GroupSignals, state: GroupState) -> float:
    """Return the window whose highest need counts on the way down: the stated one, or what was learned."""
    if policy.scale_down_stabilization_seconds is not None:
        return policy.scale_down_stabilization_seconds
    return min(HOLD_MOST_SECONDS, max(HOLD_LEAST_SECONDS, HOLD_STARTS * start_seconds(signals), state.hold))


def is_on_trial(state: GroupState, now: float) -> bool:
    """Return whether growth would still say that the last way down came too soon."""
    return state.shrunk_at is not None and now - state.shrunk_at <= _REGRET_WINDOWS * state.hold


def remembered(state: GroupState, *, now: float, before: int, after: int, period: float) -> GroupState:
    """Return the state after a count went from ``before`` to ``after``: growth, votes, and what the window learns.

    The window triples when growth follows a way down soon, and halves when a way down has stood for long.
    """
    recent = tuple(one for one in state.grown if one[0] > now - period)
    state = replace(state, target=after, grown=recent)
    since = None if state.shrunk_at is None else now - state.shrunk_at
    if after > before:
        hold = min(HOLD_MOST_SECONDS, _LESSON * state.hold) if is_on_trial(state, now) else state.hold
        return replace(state, grown=(*recent, (now, after - before)), votes=0, hold=hold, shrunk_at=None)
    if after < before:
        content = since is not None and since > _CONTENT_WINDOWS * state.hold
        return replace(state, votes=0, hold=state.hold / 2 if content else state.hold, shrunk_at=now)
    return state
