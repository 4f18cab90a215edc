"""The replay benchmark: its engine's invariants, and the peers' rules on examples worked out by hand."""

from __future__ import annotations

import pytest

from brain_clusters.domain.windows import HOLD_LEAST_SECONDS
from tests.benchmarks.scaling import measure, oracle, plots, report, run, traces
from tests.benchmarks.scaling.celery_pool import CeleryPool
from tests.benchmarks.scaling.engine import Simulation, simulate
from tests.benchmarks.scaling.judoscale import Judoscale
from tests.benchmarks.scaling.keda import Hpa, Keda
from tests.benchmarks.scaling.knative import Knative, Kpa
from tests.benchmarks.scaling.measure import Figures, percentile, spreads, verdict
from tests.benchmarks.scaling.ours import Ours
from tests.benchmarks.scaling.ray_serve import Delays, RayServe
from tests.benchmarks.scaling.records import Run
from tests.benchmarks.scaling.scaler import Scaler
from tests.benchmarks.scaling.step import Step, step
from tests.benchmarks.scaling.traces import Trace

SMALL = ("burst", "trickle", "long jobs", "poisson slow", "eta batch", "outage")


class Plan(Scaler):
    """Wants what a plan says from its times on; the first tick is at 0 to 1 s."""

    name = "plan"
    interval = 1.0

    def __init__(self, plan: dict[float, int], maximum: int = 20) -> None:
        super().__init__(maximum)
        self.plan = plan

    def tick(self, now: float, view: Simulation) -> int | None:
        due = [at for at in self.plan if at <= now]
        return self.plan[max(due)] if due else None


def trace_of(jobs: list[tuple[float, float]], outage: tuple[float, float] | None = None) -> Trace:
    return Trace("given", [at for at, _ in jobs], [seconds for _, seconds in jobs], 100.0, outage=outage)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("scaler", run.SCALERS, ids=lambda scaler: scaler.name)
def test_every_job_is_done_once_and_once_more_for_each_interruption(scaler: type[Scaler], name: str) -> None:
    trace = traces.make(name, 3)
    found = simulate(trace, scaler(20, 3), 2.0, 3)
    assert found.most_agents <= 20
    if not found.undone:
        assert all(runs >= 1 for runs in found.runs)
        assert sum(found.runs) == len(trace.due) + found.interrupted
    assert min(found.waits) >= 0
    assert found.agent_seconds >= sum(trace.service) - 1e-6 or found.undone


@pytest.mark.parametrize("scaler", run.SCALERS, ids=lambda scaler: scaler.name)
def test_a_seed_fixes_a_run(scaler: type[Scaler]) -> None:
    def once() -> Run:
        return simulate(traces.make("outage", 5), scaler(20, 5), 2.0, 5)

    assert once() == once()


@pytest.mark.parametrize("name", SMALL)
def test_nobody_beats_the_oracles_p95_wait(name: str) -> None:
    trace = traces.make(name, 2)
    limit = measure.figures(trace, oracle.run(trace, 2.0)).p95
    for scaler in run.SCALERS:
        assert measure.figures(trace, simulate(trace, scaler(20, 2), 2.0, 2)).p95 >= limit - 1e-6


def test_the_oracle_starts_each_agent_a_start_before_it_is_needed_and_stops_it_between_far_jobs() -> None:
    found = oracle.run(trace_of([(10.0, 2.0), (10.0, 2.0), (13.0, 1.0), (50.0, 1.0)]), start_time=5.0)
    # Two starts of 5 s and 4 s of service; one waits 1 s and works 1 s; then 36 s are longer than a start.
    assert found.agent_seconds == pytest.approx(2 * 5 + 4 + 1 + 1 + 5 + 1)
    assert found.waits == [0.0, 0.0, 0.0, 0.0]


def test_the_oracle_has_jobs_wait_when_more_are_there_than_agents() -> None:
    assert oracle.begins(trace_of([(10.0, 4.0)] * 3), 2) == [10.0, 10.0, 14.0]


def test_an_agent_is_charged_from_the_request_to_its_end_and_serves_after_its_start() -> None:
    found = simulate(trace_of([(10.0, 3.0)]), Plan({0.0: 1, 30.0: 0}), 20.0, 1)
    assert found.waits[0] == pytest.approx(10.0, abs=1.0)  # asked for within the first second, ready 20 s later
    assert 29.0 <= found.agent_seconds <= 31.0
    assert found.actions == 2


def test_a_busy_agent_without_a_grace_finishes_before_it_goes() -> None:
    found = simulate(trace_of([(10.0, 60.0)]), Plan({0.0: 1, 20.0: 0}), 2.0, 1)
    assert (found.interrupted, found.runs) == (0, [1])
    assert found.agent_seconds == pytest.approx(70.0, abs=1.0)


def test_a_busy_agent_is_killed_after_its_grace_and_its_job_runs_again() -> None:
    plan = Plan({0.0: 1, 20.0: 0, 60.0: 1})
    plan.grace = 30.0
    found = simulate(trace_of([(10.0, 50.0)]), plan, 2.0, 1)
    assert (found.interrupted, found.runs) == (1, [2])
    assert found.waits[0] == pytest.approx(52.5, abs=1.0)


def test_a_leaving_busy_agent_is_taken_back_before_another_is_started() -> None:
    plan = Plan({0.0: 1, 20.0: 0, 30.0: 1, 80.0: 0})
    plan.undo = True
    found = simulate(trace_of([(10.0, 40.0), (60.0, 1.0)]), plan, 15.0, 1)
    assert found.waits[1] == 0.0
    assert found.agent_seconds == pytest.approx(80.0, abs=1.0)


def test_a_full_house_starts_the_next_agent_only_when_a_leaving_one_is_gone() -> None:
    plan = Plan({0.0: 1, 20.0: 0, 30.0: 1}, maximum=1)
    found = simulate(trace_of([(10.0, 40.0), (31.0, 1.0)]), plan, 2.0, 1)
    assert found.most_agents == 1
    assert found.waits[1] == pytest.approx(21.0, abs=1.0)  # gone at 50, another ready 2 s later


def test_while_the_broker_is_away_jobs_are_held_by_clients_and_nobody_gets_one() -> None:
    trace = trace_of([(10.0, 1.0), (25.0, 1.0)], outage=(20.0, 40.0))
    found = simulate(trace, Plan({0.0: 1}), 1.0, 1)
    assert found.waits == [0.0, 15.0]


def test_the_hpa_computes_the_documented_ratio_and_keeps_what_is_within_the_tolerance() -> None:
    assert Hpa(20).desired(0.0, metric=52, replicas=10) == 10  # 52 / (5 * 10) = 1.04
    assert Hpa(20).desired(0.0, metric=56, replicas=10) == 12  # 1.12: ceil(56 / 5)


def test_the_hpa_grows_by_four_pods_or_doubles_in_fifteen_seconds() -> None:
    hpa = Hpa(20)
    assert hpa.desired(0.0, metric=400, replicas=1) == 5
    assert hpa.desired(10.0, metric=400, replicas=5) == 5
    assert hpa.desired(15.0, metric=400, replicas=5) == 10
    assert hpa.desired(30.0, metric=400, replicas=10) == 20


def test_the_hpa_goes_down_to_the_highest_recommendation_of_five_minutes_and_not_below_one() -> None:
    hpa = Hpa(20)
    hpa.desired(0.0, metric=50, replicas=10)
    hpa.desired(150.0, metric=30, replicas=10)
    assert hpa.desired(285.0, metric=0, replicas=10) == 10
    assert hpa.desired(300.0, metric=0, replicas=10) == 6
    assert hpa.desired(700.0, metric=0, replicas=6) == 1


def test_keda_wakes_by_its_poll_and_sleeps_after_the_cooldown() -> None:
    found = simulate(Trace("one", [100.0], [1.0], 1000.0), Keda(20, 1), 2.0, 1)
    assert 2.0 <= found.waits[0] <= 32.0
    assert 300.0 < found.agent_seconds <= 362.0
    assert found.actions == 2


def test_keda_kills_a_job_that_is_longer_than_its_cooldown() -> None:
    # kedacore/keda issues 356 and 638: what is in work is in no list, so the deployment looks idle.
    found = simulate(Trace("one", [100.0], [600.0], 1000.0), Keda(20, 1), 2.0, 1)
    assert found.interrupted > 1
    assert found.undone == 1


def test_knative_divides_the_concurrency_by_seventy_percent() -> None:
    assert Kpa().desired(0.0, stable=7.0, panic=7.0, ready=8) == 10
    assert Kpa().desired(0.0, stable=1.0, panic=1.0, ready=8) == 4  # at most half of what is ready goes


def test_knative_panics_at_twice_what_is_ready_and_goes_down_a_stable_window_later() -> None:
    kpa = Kpa()
    assert kpa.desired(0.0, stable=2.0, panic=7.0, ready=4) == 10
    assert kpa.desired(60.0, stable=1.0, panic=1.0, ready=10) == 10
    assert kpa.desired(62.0, stable=1.0, panic=1.0, ready=10) == 5


def test_knative_starts_at_the_first_request_and_sleeps_after_a_stable_window() -> None:
    found = simulate(Trace("one", [100.0], [1.0], 1000.0), Knative(20, 1), 2.0, 1)
    assert found.waits == [2.0]
    assert found.ended == 1000.0
    assert found.agent_seconds <= 2 * 70.0


def test_celery_grows_at_each_message_and_shrinks_by_idle_processes_after_its_keepalive() -> None:
    found = simulate(Trace("five", [100.0] * 5, [10.0] * 5, 1000.0), CeleryPool(20, 1), 20.0, 1)
    assert max(found.waits) == pytest.approx(0.03)
    # Four more processes until the second timer after the last message, at most.
    assert 1000.0 + 4 * 30.0 < found.agent_seconds <= 1000.0 + 4 * 60.1


def test_celery_does_not_look_at_its_pool_when_an_eta_is_due() -> None:
    trace = Trace("eta", [100.0] * 3, [10.0] * 3, 200.0, known=[10.0] * 3)
    assert max(simulate(trace, CeleryPool(20, 1), 2.0, 1).waits) > 5.0


def test_ray_serve_scales_only_after_its_delays() -> None:
    delays = Delays()
    assert delays.passed(0.0, desired=5, target=1) == 1
    assert delays.passed(30.0, desired=7, target=1) == 1
    assert delays.passed(30.5, desired=7, target=1) == 7
    assert delays.passed(31.0, desired=0, target=7) == 7
    assert delays.passed(600.0, desired=7, target=7) == 7  # the decision was not the same without a break
    assert delays.passed(601.0, desired=0, target=7) == 7
    assert delays.passed(1201.5, desired=0, target=7) == 1  # to zero only from one
    assert delays.passed(1202.0, desired=0, target=1) == 1
    assert delays.passed(1803.0, desired=0, target=1) == 0


def test_ray_serve_aims_at_two_ongoing_requests_a_replica() -> None:
    found = simulate(Trace("ten", [100.0] * 10, [300.0] * 10, 2000.0), RayServe(20, 1), 1.0, 1)
    # One replica at once; ten ongoing over the whole window of 30 s ask for five, 30 s after the first push.
    assert sorted(found.waits)[0] == 1.0
    assert sorted(found.waits)[4] < 90.0
    assert found.most_agents == 5


def test_the_step_rule_goes_by_a_fifth() -> None:
    assert [step(11, n) for n in (1, 4, 5, 10)] == [2, 5, 7, 13]
    assert [step(1, n) for n in (1, 4, 10)] == [0, 3, 8]
    assert [step(waiting, 5) for waiting in (2, 10)] == [5, 5]


def test_the_step_rule_waits_a_cooldown_between_changes() -> None:
    found = simulate(Trace("many", [100.0] * 200, [10.0] * 200, 400.0), Step(20, 1), 2.0, 1)
    assert found.actions <= found.ended / 60 + 1


def test_judoscale_adds_one_at_a_time_and_takes_none_while_a_job_is_busy() -> None:
    found = simulate(Trace("two", [100.0, 100.0], [1500.0] * 2, 3000.0), Judoscale(20, 1), 1.0, 1)
    assert 10.0 < found.waits[1] < 41.0
    assert found.interrupted == 0


def test_ours_wakes_at_the_first_job_and_sleeps_when_it_had_none_for_a_while() -> None:
    ours = Ours(20, 1)
    found = simulate(Trace("one", [100.0], [1.0], 1000.0), ours, 2.0, 1)
    assert found.waits == [2.0]
    after = ours.policy.hibernate_after_seconds
    assert after <= found.overhead_seconds <= after + 3.0 + 2 * ours.interval
    assert HOLD_LEAST_SECONDS <= found.agent_seconds <= HOLD_LEAST_SECONDS + 3.0 + 4 * ours.interval


def test_ours_is_ready_when_a_job_with_an_eta_is_due() -> None:
    trace = Trace("eta", [100.0, 900.0], [1.0] * 2, 1500.0, known=[100.0, 100.0])
    assert simulate(trace, Ours(20, 1), 20.0, 1).waits[1] <= 1e-6


def test_traces_are_the_same_for_a_seed_and_others_for_another() -> None:
    for name in traces.MAKERS:
        one = traces.make(name, 1)
        assert one == traces.make(name, 1)
        assert one.due != traces.make(name, 2).due or one.service != traces.make(name, 2).service
        assert one.due == sorted(one.due)
        assert max(one.due) + traces.QUIET_AFTER <= one.horizon + 1e-6
        assert min(one.due) >= traces.QUIET_BEFORE


def test_percentiles_are_nearest_ranks() -> None:
    assert [percentile([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], share) for share in (0.5, 0.95, 0.99)] == [5, 10, 10]


def figures(p95: float, hours: float, actions: float = 1.0, interrupted: float = 0.0) -> Figures:
    return Figures(0.0, p95, p95, hours, 0.1, actions, interrupted, 0.0, 0.3)


def test_a_verdict_tells_each_miss_and_how_much() -> None:
    keda, celery = spreads([figures(9.0, 1.0)]), spreads([figures(0.5, 2.0)])
    limit = spreads([figures(0.0, 0.5)])
    ours = spreads([figures(2.0, 0.8), figures(4.0, 1.0, actions=3.0)])
    found = verdict(ours, {"KEDA": keda, "Celery": celery}, keda, limit, apart=("Celery",))
    assert (found.best_peer, found.wait, found.wait_apart) == ("Celery", 2.5, None)
    assert (found.hours, found.hours_with_head) == (pytest.approx(0.9), pytest.approx(1.0))
    assert (found.interrupted, found.actions, found.oracle, found.work) == (None, 1.0, 0.5, 0.3)
    assert not found.met


def test_the_report_and_the_pictures_hold_every_scaler() -> None:
    results = run.collect([run.replay(("trickle", 1), [2.0])], ["trickle"], [2.0])
    page = report.markdown(results, 1, 20, "command")
    for name in [*(scaler.name for scaler in run.SCALERS), oracle.NAME]:
        assert f"| trickle | {name} |" in page or f"| trickle | **{name}** |" in page
        assert name in plots.COLOURS
    samples = simulate(traces.make("trickle", 1), Ours(20, 1), 2.0, 1, sample=10.0).samples
    assert plots.timeline("t", {"ours": samples}).count("<polyline") == 2


def test_random_victims_are_starting_ones_first() -> None:
    simulation = Simulation(trace_of([]), Keda(20), 20.0, 1)
    for _ in range(3):
        simulation._spawn()
    assert simulation._victims(2) == simulation.starting[:0:-1]
