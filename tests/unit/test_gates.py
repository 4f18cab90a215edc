"""What holds a change of one group's size back: each gate by its name, and what they remember."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from brain_clusters.domain.gates import GroupDecision, GroupState, Moment, decide_group
from brain_clusters.domain.scaling import ClusterDecision, ClusterView, decide
from brain_clusters.domain.signals import GroupSignals
from brain_clusters.domain.specs import AgentGroup, Blueprint, Count, ScalingPolicy
from brain_clusters.domain.states import AgentRole, ClusterType

# With a stated window, and by the formula alone; the learned window and the payback have tests of their own.
POLICY = ScalingPolicy(
    scale_up_threshold=10, scale_down_threshold=2, cooldown_seconds=60, payback_seconds=0,
    scale_down_stabilization_seconds=300,
)  # fmt: skip
# No window, no vote, no cooldown: what is left on the way down are the gates that look at signals.
HASTY = replace(POLICY, cooldown_seconds=0, scale_down_stabilization_seconds=0, scale_down_consecutive=1)
# A burst has to be a hundredfold to lift the limit.
CALM = replace(POLICY, panic_threshold=100)
WORKERS = AgentGroup("workers", AgentRole.WORKER, Count(0, 20, scalable=True))
LOOK_SECONDS = 2.0
# While the service time is unknown, running jobs are sized like waiting ones; with one, each slot at work is needed.
SHORT = {"service_time": 1.0}


def seen(ready: int | None = 0, running: int | None = 0, **rest: Any) -> GroupSignals:
    return GroupSignals(ready=ready, running=running, **rest)


def decided(
    signals: GroupSignals, target: int, policy: ScalingPolicy = POLICY, *, since: float = 1e9, ticks: int = 0
) -> GroupDecision:
    """One look at a group that has had its count for long, with nothing remembered but that."""
    moment = Moment(1000.0, target, since, ticks)
    return decide_group(policy, WORKERS, signals, moment, GroupState(target=target))


@dataclass
class Life:
    """A group that is looked at every 2 s. What is decided is done at once, and remembered."""

    target: int
    policy: ScalingPolicy = POLICY
    group: AgentGroup = WORKERS
    now: float = 1000.0
    changed: float = -1e9
    unknown: int = 0
    state: dict[str, GroupState] = field(default_factory=dict)

    def look(self, ready: int | None = 0, running: int | None = 0, **rest: Any) -> ClusterDecision:
        signals = GroupSignals(ready=ready, running=running, **{"agents_ready": self.target, **rest})
        blueprint = Blueprint("b", "B", "1", ClusterType.PROJECT, 0, 1000, 0, (self.group,), scaling=self.policy)
        view = ClusterView(
            blueprint, {"workers": self.target}, 0, 1000, self.now - self.changed, 0.0, unknown_ticks=self.unknown
        )
        found = decide(view, {"workers": signals}, self.state, self.now)
        self.state = dict(found.state)
        self.unknown = self.unknown + 1 if self.gate(found) == "unknown" else 0
        if found.groups:
            self.target, self.changed = found.groups["workers"], self.now
        self.now += LOOK_SECONDS
        return found

    def looks(self, seconds: float, ready: int | None = 0, running: int | None = 0, **rest: Any) -> list[int]:
        """Look for so long; return the count after each look."""
        found = []
        for _ in range(round(seconds / LOOK_SECONDS)):
            self.look(ready, running, **rest)
            found.append(self.target)
        return found

    @staticmethod
    def gate(found: ClusterDecision) -> str | None:
        return found.held["workers"].gate if "workers" in found.held else None


# --- scale_up_threshold -----------------------------------------------------------------------------------------


def test_up_needs_a_metric_strictly_above_its_threshold() -> None:
    found = decided(seen(10, 0, agents_ready=1), 1)
    assert (found.target, found.wanted, found.held) == (1, 2, "scale_up_threshold")
    text = "2 agents are needed for 10 waiting and 0 running jobs, but task_queue_length 10 is not above 10"
    assert found.reason == text
    found = decided(seen(11, 0, agents_ready=1), 1)
    assert (found.target, found.held, found.reason) == (3, None, "11 waiting and 0 running jobs: up from 1 to 3")


def test_a_job_that_waits_longer_than_the_target_latency_opens_the_gate_too() -> None:
    assert decided(seen(6, 0, agents_ready=1, oldest_age=30.0), 1).held == "scale_up_threshold"
    assert decided(seen(6, 0, agents_ready=1, oldest_age=30.1), 1).target == 2


# --- tolerance --------------------------------------------------------------------------------------------------


def test_a_growth_within_the_tolerance_is_not_worth_it() -> None:
    assert decided(seen(55, 0, agents_ready=10), 10).held == "tolerance"  # 11 instead of 10
    assert decided(seen(56, 0, agents_ready=10), 10).target == 12
    assert decided(seen(55, 0, agents_ready=10), 10, replace(POLICY, tolerance=0)).target == 11


def test_a_late_job_is_worth_any_growth() -> None:
    assert decided(seen(55, 0, agents_ready=10, oldest_age=31.0), 10).target == 11


def test_a_way_down_within_the_tolerance_is_not_worth_it_unless_it_leads_to_none() -> None:
    busy = replace(HASTY, scale_down_threshold=1000)
    assert decided(seen(45, 0, agents_ready=10), 10, busy).held == "tolerance"
    assert decided(seen(40, 0, agents_ready=10), 10, busy).target == 8
    assert decided(seen(0, 0, agents_ready=1), 1, replace(busy, tolerance=1)).target == 0


# --- scale_up.stabilization -------------------------------------------------------------------------------------


def test_a_need_has_to_last_for_the_stabilization_window_of_the_way_up() -> None:
    life = Life(2, replace(CALM, scale_up_stabilization_seconds=10))
    life.looks(20)
    held = [life.gate(life.look(20, 2)) for _ in range(5)]
    assert held == ["scale_up.stabilization"] * 5
    life.look(20, 2)
    assert life.target == 5


def test_a_need_that_ends_within_the_window_adds_nobody() -> None:
    life = Life(2, replace(CALM, scale_up_stabilization_seconds=10, scale_down_threshold=0))
    life.looks(20, 6)
    assert life.looks(8, 20, 2) == [2] * 4
    life.look(10, 0)
    assert life.looks(10, 20, 2) == [2] * 5


def test_the_lowest_need_of_the_window_counts() -> None:
    life = Life(2, replace(CALM, scale_up_stabilization_seconds=10))
    life.looks(20, 8)
    life.looks(4, 28, 2)  # 6
    life.looks(8, 20, 2)  # 5, the lowest
    life.looks(2, 28, 2)
    assert life.target == 5


def test_a_new_memory_waits_for_a_whole_window() -> None:
    life = Life(2, replace(CALM, scale_up_stabilization_seconds=10))
    assert life.looks(10, 20, 2) == [2] * 5
    assert life.looks(2, 20, 2) == [5]


def test_panic_waits_for_no_window() -> None:
    assert Life(2, replace(POLICY, scale_up_stabilization_seconds=10)).looks(2, 30, 2) == [7]


# --- scale_up.limit ---------------------------------------------------------------------------------------------


def test_a_group_grows_by_at_most_four_or_double_in_a_period() -> None:
    life = Life(3, CALM)
    found = life.look(90, 0)
    assert (life.target, life.gate(found), found.held["workers"].wanted) == (7, "scale_up.limit", 18)
    assert found.reason == "workers: 90 waiting and 0 running jobs: up from 3 to 7 of 18 wanted, the most in 15 s"
    assert life.looks(14, 90, 0) == [7] * 7
    assert life.gate(life.look(90, 0)) == "scale_up.limit"
    assert life.target == 14  # 15 s later, as double is more than four


def test_the_limit_counts_what_grew_step_by_step() -> None:
    life = Life(4, CALM)
    assert life.looks(2, 26, 0) == [6]
    assert life.looks(2, 60, 0) == [8]
    assert life.looks(10, 60, 0) == [8] * 5
    assert life.looks(2, 60, 0) == [8]
    assert life.looks(4, 60, 0)[-1] == 12


def test_the_limit_is_the_larger_of_percent_and_agents() -> None:
    assert Life(10, replace(CALM, scale_up_max_percent=50, scale_up_max_workers=2)).looks(2, 100) == [15]
    assert Life(10, replace(CALM, scale_up_max_percent=10, scale_up_max_workers=2)).looks(2, 100) == [12]


# --- panic ------------------------------------------------------------------------------------------------------


def test_panic_lifts_the_limit_and_a_demand_just_short_of_it_does_not() -> None:
    assert Life(5, POLICY).looks(2, 90, 0) == [18]
    assert Life(9, POLICY).looks(2, 90, 0) == [18]
    assert Life(5, replace(POLICY, panic_threshold=4)).looks(2, 90, 0) == [10]


def test_panic_sizes_by_the_short_window() -> None:
    signals = seen(20, 1, agents_ready=1, service_time=1.0, arrival_rate=1.0, burst_rate=12.0)
    # tau = 29.7; ceil((1 + 20 / 29.7) / 0.8) = 3, and with the burst ceil((12 + 20 / 29.7) / 0.8) = 16
    assert decided(signals, 1, CALM).target == 3
    assert decided(signals, 1).target == 16


def test_nothing_goes_down_in_panic_nor_a_window_later() -> None:
    life = Life(2, HASTY)
    life.look(50, 0)
    assert life.target == 10
    held = [life.gate(life.look()) for _ in range(3)]
    assert held[:2] == ["panic", "panic"]
    assert held[2] is None
    assert life.target == 0


def test_what_starts_is_not_ready_so_a_demand_for_it_is_a_burst() -> None:
    assert decided(seen(0, 3, agents_ready=0, agents_starting=3), 3).state.panic_until > 1000.0
    assert decided(seen(0, 3, agents_ready=3), 3).state.panic_until == 0.0


# --- scale_down_threshold ---------------------------------------------------------------------------------------


def test_down_needs_a_metric_strictly_below_its_threshold() -> None:
    assert decided(seen(2, 0, agents_ready=5), 5, HASTY).held == "scale_down_threshold"
    assert decided(seen(1, 0, agents_ready=5), 5, HASTY).target == 1
    assert Life(5).looks(400, 2)[-1] == 5
    assert Life(5).looks(400, 1)[-1] == 1


@pytest.mark.parametrize("metric", ["task_queue_length", "cpu_usage"])
def test_a_waiting_job_keeps_one_agent_whatever_the_formula_says(metric: Any) -> None:
    policy = replace(HASTY, metric=metric, scale_up_threshold=80, scale_down_threshold=20)
    signals = {"service_time": 0.0, "cpu_percent": 0.0}
    assert decided(seen(3, 0, agents_ready=2, **signals), 2, policy).target == 1
    assert decided(seen(3, 0, agents_ready=1, **signals), 1, policy).target == 1
    assert decided(seen(0, 0, agents_ready=1, **signals), 1, policy).target == 0
    assert decided(seen(3, 0, agents_ready=1, **signals), 1, replace(policy, activation_threshold=3)).target == 0


# --- unknown ----------------------------------------------------------------------------------------------------


def test_unknown_changes_nothing() -> None:
    found = decided(seen(None, None), 5)
    assert (found.target, found.held) == (5, "unknown")
    assert found.reason == "task_queue_length is unknown, so nothing changes"
    assert decided(seen(0, None), 5).held == "unknown"
    assert decided(seen(None, None), 0).target == 0
    assert decided(seen(0, 0, agents_ready=5, beats_fresh=False), 5, HASTY).held == "unknown"


def test_a_known_usage_takes_nobody_away_while_what_waits_is_unknown() -> None:
    policy = replace(HASTY, metric="cpu_usage", scale_up_threshold=80, scale_down_threshold=20)
    for ready, running in ((None, 0), (0, None), (None, None)):
        assert decided(seen(ready, running, agents_ready=4, cpu_percent=1.0), 4, policy).held == "unknown"
    assert decided(seen(0, 0, agents_ready=4, cpu_percent=1.0), 4, policy).target == 1


def test_a_missing_beat_does_not_hold_back_growth() -> None:
    assert decided(seen(50, 0, agents_ready=1, beats_fresh=False), 1).target == 10


def test_what_is_unknown_begins_the_votes_anew() -> None:
    life = Life(5, replace(HASTY, scale_down_consecutive=3))
    for _ in range(4):
        assert life.gate(life.look()) == "scale_down.consecutive"
        assert life.gate(life.look()) == "scale_down.consecutive"
        assert life.gate(life.look(None, None)) == "unknown"


def test_after_three_unknown_looks_a_group_goes_up_to_its_fallback_and_never_down() -> None:
    policy = replace(POLICY, fallback_workers=4)
    assert Life(2, policy).looks(8, None, None) == [2, 2, 4, 4]
    assert Life(0, policy).looks(8, None, None) == [0, 0, 4, 4]
    assert Life(7, policy).looks(20, None, None) == [7] * 10
    assert Life(0, replace(policy, fallback_failure_threshold=1)).looks(2, None, None) == [4]
    assert Life(0, policy, replace(WORKERS, count=Count(0, 3, scalable=True))).looks(8, None, None)[-1] == 3
    found = decided(seen(None, None), 0, ticks=2)
    assert found.reason == "task_queue_length is unknown 3 times in a row: up from 0 to the 1 of fallback"


def test_a_usage_is_not_unknown_where_nobody_is_and_nothing_is_to_be_done() -> None:
    policy = replace(POLICY, metric="cpu_usage", scale_up_threshold=80, scale_down_threshold=20)
    assert Life(0, policy).looks(20) == [0] * 10
    assert Life(0, replace(policy, idle_workers=2)).looks(2) == [2]
    assert Life(1, policy).looks(8) == [1] * 4  # one agent has a usage, and nobody says which
    assert Life(0, policy).looks(6, None, None) == [0, 0, 1]


def test_known_looks_in_between_put_the_fallback_off() -> None:
    life = Life(0)
    for _ in range(4):
        assert life.looks(4, None, None) == [0, 0]
        assert life.looks(2) == [0]


# --- scale_down.stabilization -----------------------------------------------------------------------------------


def test_down_waits_until_the_highest_need_has_left_the_window() -> None:
    life = Life(5)
    life.looks(20, 0, 5, **SHORT)
    ended = life.now
    found = life.look()
    assert life.gate(found) == "scale_down.stabilization"
    assert "5 were needed 2 s ago, and the highest need of 300 s counts" in found.held["workers"].reason
    while life.target == 5:
        life.look()
    # The last need was seen 2 s before; after the window come three votes.
    assert life.now - LOOK_SECONDS - (ended - LOOK_SECONDS) == 300 + 2 * LOOK_SECONDS
    assert life.target == 0


def test_down_goes_to_the_highest_need_of_the_window_and_no_further() -> None:
    life = Life(8)
    life.looks(4, 0, 8, **SHORT)
    life.looks(200, 0, 3, **SHORT)
    life.looks(200, 0, 1, **SHORT)
    assert life.target == 3
    life.looks(300, 0, 1, **SHORT)
    assert life.target == 1


def test_a_new_memory_holds_the_count_for_a_window() -> None:
    life = Life(5)
    assert life.looks(300)[-1] == 5
    assert life.looks(6)[-1] == 0


def test_what_a_person_scaled_by_hand_holds_for_a_window() -> None:
    life = Life(1)
    life.looks(400, 0, 1)
    life.target = 6
    assert life.looks(300, 0, 1)[-1] == 6
    assert life.looks(6, 0, 1)[-1] == 1


def test_what_a_person_scaled_by_hand_counts_like_a_need_beside_older_ones() -> None:
    life = Life(5)
    life.looks(100, 0, 5, **SHORT)
    life.look(0, 1)
    life.target = 10
    assert life.looks(300, 0, 1)[-1] == 10
    assert life.looks(6, 0, 1)[-1] == 1


def test_what_a_person_scaled_down_stays_down_while_no_gate_opens() -> None:
    life = Life(8)
    life.looks(20, 0, 8, **SHORT)
    life.target = 3
    assert life.looks(400, 5, 3)[-1] == 3


# --- scale_down.consecutive -------------------------------------------------------------------------------------


def test_a_way_down_is_proposed_three_times_in_a_row_first() -> None:
    life = Life(5, replace(HASTY, scale_down_consecutive=3))
    assert [life.gate(life.look()) for _ in range(2)] == ["scale_down.consecutive"] * 2
    assert life.look(0, 5, **SHORT).groups == {}  # a need in between: the votes begin anew
    assert life.looks(6) == [5, 5, 0]


def test_the_votes_begin_anew_with_every_change() -> None:
    life = Life(9, replace(HASTY, scale_down_consecutive=3))
    assert life.looks(12, 0, 5, **SHORT) == [9, 9, 5, 5, 5, 5]
    assert life.looks(6) == [5, 5, 0]


# --- cooldown ---------------------------------------------------------------------------------------------------


def test_down_waits_for_the_cooldown_and_up_does_not() -> None:
    hasty = replace(HASTY, cooldown_seconds=60)
    assert decided(seen(0, 0, agents_ready=5), 5, hasty, since=59.9).held == "cooldown"
    assert decided(seen(0, 0, agents_ready=5), 5, hasty, since=60.0).target == 0
    assert decided(seen(50, 0, agents_ready=1), 1, since=0.0).target == 10


# --- busy -------------------------------------------------------------------------------------------------------


def test_nobody_who_works_or_holds_reserved_jobs_leaves() -> None:
    # Usage says that one of four is enough, but three have work.
    policy = replace(HASTY, metric="cpu_usage", scale_up_threshold=80, scale_down_threshold=20)
    found = decided(seen(0, 2, reserved=1, agents_ready=4, cpu_percent=10.0), 4, policy)
    assert (found.target, found.wanted) == (3, 1)
    found = decided(seen(0, 3, reserved=1, agents_ready=4, cpu_percent=10.0), 4, policy)
    assert (found.target, found.held) == (4, "busy")


def test_agents_that_leave_and_still_work_do_not_turn_a_way_down_into_one_up() -> None:
    # Two stay and have work, two more finish theirs before they leave.
    assert decided(seen(0, 2, leaving=2, agents_ready=2, agents_draining=2), 2).target == 2
    assert decided(seen(0, 4, agents_ready=2), 2).target == 2


# --- activation_threshold, and from zero ------------------------------------------------------------------------


def test_from_zero_one_job_wakes_the_group_whatever_the_threshold() -> None:
    assert decided(seen(1, 0), 0).target == 1
    assert decided(seen(11, 0), 0).target == 3
    found = decided(seen(0, 0), 0)
    assert (found.target, found.held) == (0, None)
    assert found.reason == "0 agents are right for 0 waiting and 0 running jobs"


def test_from_zero_the_activation_threshold_is_strict() -> None:
    policy = replace(POLICY, activation_threshold=3)
    found = decided(seen(3, 0), 0, policy)
    assert (found.target, found.wanted, found.held) == (0, 1, "activation_threshold")
    assert decided(seen(4, 0), 0, policy).target == 1


def test_a_job_below_the_activation_threshold_takes_no_reserve_away() -> None:
    policy = replace(POLICY, activation_threshold=3, idle_workers=2)
    assert decided(seen(0, 0), 0, policy).target == 2
    assert decided(seen(1, 0), 0, policy).target == 2


def test_from_zero_the_group_gets_at_least_its_minimum() -> None:
    group = replace(WORKERS, count=Count(2, 5, scalable=True))
    assert decide_group(POLICY, group, seen(1, 0), Moment(0.0, 0, 0.0), GroupState()).target == 2


@pytest.mark.parametrize("metric", ["queue_latency", "cpu_usage", "load_percentage", "task_queue_length"])
def test_from_zero_an_unknown_metric_holds_nothing_back(metric: Any) -> None:
    policy = ScalingPolicy(metric=metric, scale_up_threshold=80, scale_down_threshold=20)
    assert decided(seen(1, 0), 0, policy).target == 1


def test_what_woke_a_group_keeps_it_for_a_window_and_grows_it_without_a_limit() -> None:
    life = Life(0)
    assert life.looks(2, 1, 0) == [1]
    assert life.looks(2, 100, 0) == [20]
    assert life.looks(300)[-1] == 20


# --- what is kept in reserve ------------------------------------------------------------------------------------


def test_idle_workers_are_kept_while_there_is_nothing_to_do() -> None:
    assert Life(0, replace(POLICY, idle_workers=2)).looks(2) == [2]
    assert Life(7, replace(POLICY, idle_workers=2)).looks(400)[-1] == 2
    assert decided(seen(0, 1, agents_ready=2), 2, replace(POLICY, idle_workers=2)).target == 2


def test_buffer_workers_come_on_top_of_what_is_needed() -> None:
    policy = replace(POLICY, buffer_workers=2)
    assert Life(0, policy).looks(2) == [2]
    assert Life(0, policy).looks(2, 1, 0) == [3]
    assert Life(1, policy).looks(2, 11, 0) == [5]
    assert Life(9, policy).looks(400, 0, 3, **SHORT)[-1] == 5
    assert Life(3, policy).looks(2, 0, 3, **SHORT) == [5]


def test_a_reserve_opens_no_gate_for_more_than_itself() -> None:
    found = decided(seen(8, 1, agents_ready=1), 1, replace(POLICY, buffer_workers=1, queue_per_slot=1))
    assert (found.target, found.wanted) == (2, 10)


def test_a_reserve_comes_no_faster_than_the_limit_allows() -> None:
    life = Life(0, replace(POLICY, idle_workers=15))
    assert life.looks(2) == [4]
    assert life.looks(14) == [4] * 7
    assert life.looks(16) == [8] * 8
    assert life.looks(2) == [15]


def test_a_reserve_is_kept_within_the_tolerance_too() -> None:
    policy = replace(POLICY, idle_workers=11)
    assert decided(seen(0, 0, agents_ready=10), 10, policy).target == 11
    assert decided(seen(20, 0, agents_ready=10), 10, policy).target == 11
