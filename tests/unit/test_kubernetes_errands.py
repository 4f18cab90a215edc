"""Errands: each is done until it succeeds, an agent has one at a time, and the last word counts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from brain_clusters.errors import TemporaryError
from brain_clusters.genesis.kubernetes.errands import Errands
from brain_clusters.genesis.kubernetes.notes import Lasting, Removed

Until = Callable[..., Any]


@pytest.fixture
def errands() -> Iterator[Errands]:
    found = Errands(2)
    yield found
    found.close()


def test_an_errand_that_has_to_wait_is_tried_again_and_says_why(errands: Errands, until: Until) -> None:
    tried: list[int] = []
    told: list[str] = []

    def act() -> None:
        tried.append(1)
        if len(tried) < 3:
            raise TemporaryError(f"not yet, {len(tried)}", delay_seconds=0)

    errands.put("a", act, lambda exc: told.append(str(exc)))
    until(lambda: errands.go_on() or not errands.pending(), "it is done")
    assert (len(tried), told) == (3, ["not yet, 1", "not yet, 2"])


def test_a_fault_of_ours_is_tried_again_and_stops_no_other(errands: Errands, until: Until) -> None:
    done = threading.Event()

    def fail() -> None:
        raise ZeroDivisionError

    errands.put("a", fail)
    errands.put("b", done.set)
    until(done.is_set, "the other is done")
    until(lambda: errands.pending() == {"a"}, "the first one waits")


def test_a_new_errand_waits_for_the_attempt_that_runs_and_takes_the_place_of_the_old_one(
    errands: Errands, until: Until
) -> None:
    begun, go, order = threading.Event(), threading.Event(), list[str]()

    def first() -> None:
        begun.set()
        go.wait(30)
        order.append("first")
        raise TemporaryError("once more", delay_seconds=0)

    errands.put("a", first, lambda _: order.append("told of the first"))
    assert begun.wait(30)
    errands.put("a", lambda: order.append("second"))
    errands.put("a", lambda: order.append("third"))
    go.set()
    until(lambda: errands.go_on() or not errands.pending(), "all is done")
    assert order == ["first", "third"]


def test_what_was_begun_is_finished_at_the_end() -> None:
    done: list[int] = []
    errands = Errands(1)
    for number in range(5):
        errands.put(str(number), lambda number=number: done.append(number))  # type: ignore[misc]
    errands.close()
    assert done == [0, 1, 2, 3, 4]


def test_removed_agents_are_kept_in_mind_within_a_bound() -> None:
    removed = Removed()
    for number in range(10_005):
        removed.add(f"agent-{number}", f"uid-{number}")
    assert len(removed.agents) == len(removed.uids) == 10_000
    assert "agent-10004" in removed.agents


def test_what_is_so_no_more_begins_anew_when_it_is_so_again() -> None:
    now = Lasting(0.0)
    assert now.overdue(["a"]) == []
    assert now.overdue(["a", "b"]) == ["a"]
    assert now.overdue(["b"]) == ["b"]
    assert now.overdue(["a", "b"]) == ["b"]
    now.begin_anew()
    assert now.overdue(["a", "b"]) == []
