"""The watch over running jobs: what it raises comes once, in the handler's own code, and nowhere else."""

from __future__ import annotations

import gc
import json
import logging
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis

from brain_clusters.agent.context import JobContext
from brain_clusters.agent.errors import JobCancelled, JobTimeout
from brain_clusters.agent.flight import Flight, Reason, ThreadStopper
from brain_clusters.agent.watch import Watch
from brain_clusters.broker import names
from brain_clusters.broker.client import connect

Until = Callable[..., Any]


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as found:
        found.flushdb()
        yield found


def context(job_id: str = "job-1") -> JobContext:
    return JobContext(job_id, 1, "cluster-1", "Group", "agent-1", {}, logging.getLogger("test"))


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def in_thread(call: Callable[[], Any]) -> None:
    """Run ``call`` in a thread of its own, as slots do, and raise what it raises."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as exc:
            raised.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def test_a_job_in_time_returns_its_value(client: redis.Redis) -> None:
    assert Watch(client).run(context(), 5.0, lambda: "value") == "value"
    assert Watch(client).run(context(), None, lambda: "value") == "value"


def test_a_job_that_takes_too_long_is_told_and_ended(client: redis.Redis) -> None:
    told = context()

    def handler() -> None:
        try:
            spin(30)
        except Exception:
            pytest.fail("except Exception must not catch it")
        finally:
            assert told.cancelled

    with pytest.raises(JobTimeout, match=r"took longer than 0.1 s"):
        in_thread(lambda: Watch(client).run(told, 0.1, handler))


def test_a_handler_that_heeds_it_by_an_exception_of_its_own_is_taken_at_its_word(client: redis.Redis) -> None:
    told = context()

    def handler() -> None:
        while not told.cancelled:
            time.sleep(0.001)
        raise ValueError("half done")

    client.set(names.cancel_key("job-1"), json.dumps({"at": 0, "grace": 30}))
    with pytest.raises(JobCancelled) as raised:
        in_thread(lambda: Watch(client).run(told, None, handler))
    assert isinstance(raised.value.__cause__, ValueError)


def test_what_must_not_be_disturbed_is_not_and_ends_just_after(client: redis.Redis) -> None:
    told, done = context(), []

    def handler() -> None:
        with told.undisturbed():
            spin(0.3)
            done.append("whole")
        done.append("never")

    with pytest.raises(JobTimeout):
        in_thread(lambda: Watch(client).run(told, 0.1, handler))
    assert done == ["whole"]


def test_a_wish_that_makes_no_sense_cancels_as_well(client: redis.Redis) -> None:
    client.set(names.cancel_key("job-1"), "now!")
    told = context()

    def handler() -> str:
        while not told.cancelled:
            time.sleep(0.001)
        return "heeded"

    assert Watch(client).run(told, None, handler) == "heeded"


def test_jobs_of_several_slots_are_told_apart(client: redis.Redis) -> None:
    watch, ended = Watch(client), {}

    def slot(number: int) -> None:
        try:
            ended[number] = watch.run(context(f"job-{number}"), 0.2 if number % 2 else 30.0, lambda: spin(0.5))
        except JobTimeout:
            ended[number] = "late"

    threads = [threading.Thread(target=slot, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == {number: "late" if number % 2 else None for number in range(6)}


class SlowStopper(ThreadStopper):
    """Takes its time before and after, so that jobs land meanwhile."""

    def stop(self, reason: Reason) -> None:
        time.sleep(2e-5)
        super().stop(reason)
        time.sleep(2e-5)


class Race:
    """Flies short jobs, and stops each just about when it ends."""

    def __init__(self, client: redis.Redis) -> None:
        self.watch = Watch(client)
        self.random = random.Random(1)
        self.flying: queue.SimpleQueue[Flight | None] = queue.SimpleQueue()
        self.ends = {"done": 0, "stopped": 0}
        self.unwatched = 0

    def stop_all(self) -> None:
        while (flight := self.flying.get()) is not None:
            time.sleep(self.random.random() * 1e-4)
            flight.ask(JobTimeout, 0.0)
            flight.stop(60.0)

    def handler(self, told: JobContext) -> None:
        assert told.flight is not None
        told.flight._stopper = SlowStopper()
        self.flying.put(told.flight)
        time.sleep(self.random.random() * 1e-4)

    def fly(self) -> None:
        for _ in range(10_000):
            told = context()
            try:
                self.watch.run(told, 60.0, partial(self.handler, told))
                end = "done"
            except JobTimeout as exc:
                end = "stopped"
                self.unwatched += not exc.args  # it came where nothing took it for what it is
            # From here on nothing may come. What does ends this thread, and the test with it.
            self.ends[end] += 1
            for _ in range(30):
                pass


class Finalized:
    """Takes long to go."""

    def __del__(self) -> None:
        spin(0.3)


def test_what_a_finalizer_swallows_is_raised_again(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # put back afterwards
    watch = Watch(client, stuck_after=60.0)
    watch.mind_finalizers()
    passed = []

    def handler() -> None:
        Finalized()
        passed.append("the finalizer")
        spin(30)

    with pytest.raises(JobTimeout, match=r"took longer than 0.1 s"):
        in_thread(lambda: watch.run(context(), 0.1, handler))
    assert passed == ["the finalizer"]


def test_what_others_finalizers_raise_is_told_as_ever(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))
    Watch(client).mind_finalizers()

    class Broken:
        def __del__(self) -> None:
            raise ValueError("no")

    Broken()
    assert told == [ValueError]


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Callbacks of the garbage collector (Hypothesis leaves one) swallow what comes while they run."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_nothing_is_ever_raised_outside_of_the_handlers_code(client: redis.Redis) -> None:
    race = Race(client)
    stopper = threading.Thread(target=race.stop_all)
    stopper.start()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        in_thread(race.fly)
    finally:
        sys.setswitchinterval(before)
        race.flying.put(None)
        stopper.join()
    assert sum(race.ends.values()) == 10_000
    assert min(race.ends.values()) > 100, race.ends
    assert race.unwatched == 0
    assert race.watch._flights == {}


def test_a_reason_is_given_once(client: redis.Redis) -> None:
    reasons: list[Reason | None] = []

    def handler() -> None:
        flight = told.flight
        assert flight is not None
        flight.ask(JobTimeout, 0.0)
        flight.ask(JobCancelled, 0.0)
        reasons.append(flight.reason)

    told = context()
    Watch(client).run(told, 60.0, handler)
    assert reasons == [JobTimeout]
