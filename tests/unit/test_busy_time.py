"""How an agent counts the seconds that it works, on a clock that the tests move."""

from __future__ import annotations

import pytest

from brain_clusters.agent import beats
from brain_clusters.agent.beats import BusyTime, Counters


class Clock:
    """The clock of the module under test: seconds since the epoch, and the same as monotonic time."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now

    monotonic = time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that stands a minute before the midnight between 3 and 4 January 2026."""
    clock = Clock(1_767_484_740.0)
    monkeypatch.setattr(beats.time, "time", clock.time)
    monkeypatch.setattr(beats.time, "monotonic", clock.monotonic)
    return clock


def test_busy_is_when_at_least_one_slot_works_and_slots_add_up(clock: Clock) -> None:
    counters = Counters()
    clock.now += 5
    counters.begin()
    clock.now += 2
    counters.begin()
    clock.now += 3
    counters.end(5, failed=False)
    clock.now += 4
    assert counters.snapshot()["busy_days"] == {"2026-01-03": [9.0, 0.0, 12.0]}  # the running job counts so far
    clock.now += 1
    counters.end(8, failed=True)
    clock.now += 7
    found = counters.snapshot()
    assert (found["busy_seconds"], found["mean_time"]) == (10.0, 6.5)
    assert found["busy_days"] == {"2026-01-03": [10.0, 0.0, 13.0]}


def test_a_job_across_midnight_is_cut_there(clock: Clock) -> None:
    counters = Counters()
    counters.begin()
    clock.now += 100
    assert counters.snapshot()["busy_days"] == {"2026-01-03": [60.0, 0.0, 60.0], "2026-01-04": [40.0, 0.0, 40.0]}


def test_work_while_it_drains_is_told_apart(clock: Clock) -> None:
    counters = Counters()
    counters.begin()
    clock.now += 3
    counters.snapshot(draining=False)
    clock.now += 4
    assert counters.snapshot(draining=True)["busy_days"] == {"2026-01-03": [3.0, 4.0, 7.0]}


def test_what_was_cancelled_or_is_tried_again_is_neither_done_nor_failed(clock: Clock) -> None:
    counters = Counters()
    for failed in (False, True, None):
        counters.begin()
        clock.now += 2
        counters.end(2, failed=failed)
    found = counters.snapshot()
    assert (found["completed"], found["failed"], found["in_flight"], found["mean_time"]) == (1, 1, 0, 2.0)
    assert found["busy_seconds"] == 6.0


def test_only_the_last_days_are_kept(clock: Clock) -> None:
    busy = BusyTime()
    for _ in range(6):
        clock.now += 86_400
        busy.spend(1, draining=False)
    assert list(busy.days) == ["2026-01-07", "2026-01-08", "2026-01-09"]
    assert busy.total == 6 * 86_400
