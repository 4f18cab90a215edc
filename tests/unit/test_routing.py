"""Where a job for any cluster goes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from brain_clusters.domain.routing import Candidate, route


def candidate(cluster_id: str = "a", **fields: Any) -> Candidate:
    return Candidate(**{"cluster_id": cluster_id, "group": "G", "jobs": 0, "agents": 1, "service_time": 2.0, **fields})


@pytest.mark.parametrize(
    ("fields", "wait"),
    [
        ({}, 0.0),
        ({"jobs": 1}, 2.0),
        ({"jobs": 3}, 6.0),
        ({"jobs": 3, "agents": 4}, 0.0),
        ({"jobs": 4, "agents": 4}, 0.5),
        ({"jobs": 4, "agents": 2, "slots": 2}, 0.5),
        ({"jobs": 2, "service_time": None}, 2.0),
        ({"agents": 0, "asleep": True, "start_time": 0.1}, 0.1),
        ({"agents": 0, "asleep": True, "start_time": 0.1, "jobs": 2}, 4.1),
        ({"agents": 0, "start_time": None}, 0.3),
        ({"jobs": None}, None),
        ({"agents": 0, "has_room": False}, None),
    ],
)
def test_the_expected_wait(fields: dict[str, Any], wait: float | None) -> None:
    assert candidate(**fields).expected_wait == pytest.approx(wait)


@pytest.mark.parametrize(
    ("candidates", "order"),
    [
        ([candidate("a", jobs=9), candidate("b", jobs=1)], "ba"),
        ([candidate("a", jobs=9), candidate("b", agents=0, asleep=True, start_time=0.2)], "ba"),
        ([candidate("a", jobs=2, agents=4), candidate("b", agents=0, asleep=True, start_time=0.01)], "ab"),
        ([candidate("a", jobs=2, agents=4), candidate("b", jobs=1, agents=4)], "ba"),
        ([candidate("b"), candidate("a")], "ab"),
        ([candidate("a", jobs=None), candidate("b", jobs=500)], "ba"),
        ([candidate("a", jobs=None, asleep=True), candidate("b", jobs=None)], "ba"),
        ([candidate("a", agents=0, has_room=False), candidate("b", jobs=50)], "ba"),
    ],
)
def test_the_shortest_wait_wins_whatever_the_order(candidates: list[Candidate], order: str) -> None:
    for shuffled in itertools.permutations(candidates):
        found = route(shuffled)
        assert "".join(one.cluster_id for one in (found.best, *found.others)) == order


def test_the_reason_tells_the_figures_and_the_next_best() -> None:
    found = route([candidate("a", jobs=3, agents=2), candidate("b", agents=0, asleep=True, start_time=60.0)])
    assert found.reason == (
        "about 2 s, with 3 jobs there for 2 slots; the next best is b: "
        "about 60 s, with 0 jobs there and an agent to be started, as it is asleep"
    )
    assert route([candidate(jobs=None)]).reason.startswith("no wait can be told, as what waits there is unknown")
