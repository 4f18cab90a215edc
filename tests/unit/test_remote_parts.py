"""The parts of the driver remote and of its service that need no network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence, Set
from typing import Any

import pytest

from brain_clusters.api.genesis.attached import Answers
from brain_clusters.errors import InvalidInput, NotFound, TemporaryError
from brain_clusters.genesis.driver import Phase, Sighting
from brain_clusters.genesis.remote.circuit import Circuit, pause_seconds
from brain_clusters.genesis.remote.forms import as_json, sightings
from brain_clusters.genesis.remote.journal import Journal
from brain_clusters.genesis.remote.pulse import Pulse
from brain_clusters.services.idempotency import Key

RUNS = Sighting("a", Phase.RUNNING, {"pid": 1}, ready=True)
ENDED = Sighting("a", Phase.ENDED, {"pid": 1}, reason="killed by SIGKILL", code=-9)


# --- the journal --------------------------------------------------------------------------------------------------


def told(page: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["agent_id"], one["phase"]) for one in page["agents"]]


def test_a_cursor_tells_what_came_after_it_and_each_agent_as_it_is_now() -> None:
    journal = Journal()
    start = journal.page()["cursor"]
    journal.note([RUNS, Sighting("b", Phase.STARTING)])
    middle = journal.page()["cursor"]
    journal.note([ENDED])
    assert told(journal.since(start, 0)) == [("a", "ended"), ("b", "starting")]
    assert told(journal.since(middle, 0)) == [("a", "ended")]
    assert told(journal.page(["b", "c"])) == [("b", "starting")]
    journal.forget(["a"])
    assert told(journal.since(middle, 0)) == []


def test_what_is_as_it_was_is_no_news() -> None:
    journal = Journal()
    journal.note([RUNS])
    cursor = journal.page()["cursor"]
    journal.note([RUNS])
    assert journal.page()["cursor"] == cursor


@pytest.mark.parametrize("cursor", ["", "1", "other.1", "other.", ".1"])
def test_a_cursor_of_another_journal_is_refused(cursor: str) -> None:
    with pytest.raises(NotFound):
        Journal().since(cursor, 0)


def test_who_waits_is_woken_by_what_comes() -> None:
    journal = Journal()
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(journal.since(journal.page()["cursor"], 60)))
    waiting.start()
    while not found and waiting.is_alive():
        journal.note([RUNS])
        journal.note([ENDED])
    waiting.join()
    assert told(found[0])[0][0] == "a"


# --- the wire -----------------------------------------------------------------------------------------------------


def test_a_sighting_is_the_same_after_the_wire_but_for_its_place() -> None:
    ((version, found),) = sightings({"agents": [as_json(ENDED, 7)]}, "http://there")
    assert version == 7
    assert found == Sighting("a", Phase.ENDED, {"genesis": "http://there", "pid": 1}, None, ENDED.reason, -9)


@pytest.mark.parametrize("answer", [None, {}, {"agents": {}}, {"agents": [{}]}, {"agents": [{"agent_id": "a"}]}, []])
def test_what_is_no_answer_is_told_as_such(answer: Any) -> None:
    with pytest.raises(TemporaryError, match="no Genesis service"):
        sightings(answer, "http://there")


# --- idempotency --------------------------------------------------------------------------------------------------


def test_the_same_key_has_work_done_once_unless_that_failed() -> None:
    answers, calls = Answers(), []

    def work() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise TemporaryError("not now")
        return len(calls)

    key = Key("k", "print")
    with pytest.raises(TemporaryError):
        answers.once(key, work)
    assert [answers.once(key, work) for _ in range(3)] == [2, 2, 2]
    with pytest.raises(InvalidInput):
        answers.once(Key("k", "another"), work)
    assert answers.once(None, work) == 3


# --- the circuit --------------------------------------------------------------------------------------------------


def test_an_open_circuit_says_why_and_a_closed_one_lets_pass() -> None:
    circuit = Circuit()
    circuit.check()
    circuit.open("it is away", 100.0)
    with pytest.raises(TemporaryError, match="it is away") as caught:
        circuit.check()
    assert 90 < caught.value.delay_seconds <= 100
    circuit.close()
    circuit.check()


def test_pauses_grow_up_to_a_bound() -> None:
    for attempt, most in ((1, 0.2), (2, 0.4), (3, 0.8), (4, 1.6), (5, 2.0), (1000, 2.0)):
        assert most / 2 <= pause_seconds(attempt) <= most


# --- the pulse ----------------------------------------------------------------------------------------------------


class Beating:
    """Who beats. away: Redis does not answer."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.away = False

    def __call__(self, agent_ids: Sequence[str]) -> Set[str]:
        if self.away:
            raise TemporaryError("Redis is away")
        return self.ids & set(agent_ids)


def phases(pulse: Pulse) -> dict[str, Phase]:
    return {one.agent_id: one.phase for one in next(pulse.follow())}


@pytest.mark.parametrize(("first", "stale", "phase"), [(0.0, 60.0, Phase.ENDED), (60.0, 60.0, Phase.STARTING)])
def test_an_agent_that_never_beats_has_a_time_to_begin(first: float, stale: float, phase: Phase) -> None:
    pulse = Pulse(Beating(), first_seconds=first, stale_seconds=stale)
    pulse.expect("a")
    assert phases(pulse) == {"a": phase}


def test_one_that_beat_and_is_silent_has_ended_at_once_only_if_it_was_to_leave() -> None:
    beating = Beating()
    pulse = Pulse(beating, first_seconds=60, stale_seconds=60)
    beating.ids = {"a", "b"}
    pulse.find(["a", "b", "c"])
    pulse.note_told(["a"], drains=True)
    beating.ids = set()
    assert phases(pulse) == {"a": Phase.ENDED, "b": Phase.RUNNING}


def test_time_in_which_redis_is_away_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("brain_clusters.genesis.remote.pulse.time.monotonic", lambda: now)
    beating = Beating()
    pulse = Pulse(beating, first_seconds=60, stale_seconds=10)
    beating.ids = {"a"}
    pulse.find(["a"])
    beating.ids, beating.away = set(), True
    now += 100
    with pytest.raises(TemporaryError):
        phases(pulse)
    beating.away = False
    assert phases(pulse) == {"a": Phase.RUNNING}
    ended: Callable[[], bool] = lambda: phases(pulse) == {"a": Phase.ENDED}  # noqa: E731
    for _ in range(5):
        now += 4
        assert not ended()
    now += 4
    assert ended()
