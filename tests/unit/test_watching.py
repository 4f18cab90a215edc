"""Watching an engine: what its stream and its listings tell comes to the host once, and no end is missed."""

from __future__ import annotations

import queue
import select
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from brain_clusters.errors import TemporaryError
from brain_clusters.genesis.driver import Phase, Sighting
from brain_clusters.genesis.watching import Watch


def running(agent_id: str) -> Sighting:
    return Sighting(agent_id, Phase.RUNNING, {"container": agent_id})


def ended(agent_id: str, reason: str = "exited with 1") -> Sighting:
    return Sighting(agent_id, Phase.ENDED, {"container": agent_id}, reason=reason)


class Engine:
    """A stream that a test writes: sightings, or an exception that breaks it, or None for its end."""

    def __init__(self) -> None:
        self.agents: dict[str, Sighting] = {}
        self.stream: queue.Queue[Sequence[Sighting] | Exception | None] = queue.Queue()
        self.listings = 0

    def follow(self) -> Iterator[Sequence[Sighting]]:
        self.listings += 1
        yield list(self.agents.values())
        while (news := self.stream.get()) is not None:
            if isinstance(news, Exception):
                raise news
            yield news

    def hang_up(self) -> None:
        self.stream.put(None)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def watch(engine: Engine) -> Iterator[Watch]:
    watch = Watch(engine, gone="it is gone")
    yield watch
    watch.close()


Until = Callable[..., Any]


def told(watch: Watch, until: Until) -> list[Sighting]:
    return list(until(watch.changes, "something is told"))


def test_what_is_there_and_what_changes_is_told_once(engine: Engine, watch: Watch, until: Until) -> None:
    engine.agents["a"] = running("a")
    watch.start()
    assert told(watch, until) == [running("a")]
    engine.stream.put([running("a")])
    engine.stream.put([ended("a")])
    assert told(watch, until) == [ended("a")]


def test_the_descriptor_is_readable_while_there_is_something_to_take(watch: Watch) -> None:
    def readable() -> bool:
        return bool(select.select([watch.fileno()], [], [], 0)[0])

    assert not readable()
    watch.tell([running("a"), running("b")])
    assert readable()
    assert watch.changes() == [running("a"), running("b")]
    assert not readable()
    assert watch.changes() == []


def test_what_vanished_while_the_stream_was_broken_has_ended(engine: Engine, watch: Watch, until: Until) -> None:
    engine.agents |= {"a": running("a"), "b": running("b")}
    watch.start()
    assert len(told(watch, until)) == 2
    del engine.agents["a"]
    engine.stream.put(TemporaryError("the connection broke"))
    assert told(watch, until) == [Sighting("a", Phase.ENDED, reason="it is gone")]


def test_a_fault_in_the_source_does_not_end_the_watch(
    engine: Engine, watch: Watch, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    watch.start()
    engine.stream.put(KeyError("Actor"))
    until(lambda: engine.listings == 2, "it is followed again")
    assert "following the engine's events failed" in caplog.text


def test_what_is_not_on_the_engine_yet_is_not_missed_by_a_listing(engine: Engine, watch: Watch, until: Until) -> None:
    waiting = Sighting("a", Phase.STARTING, reason="its image is pulled")
    watch.tell([waiting])
    engine.agents["b"] = running("b")
    watch.start()
    until(lambda: engine.listings, "it was listed")
    engine.stream.put([running("c")])
    seen: dict[str, Sighting] = {}
    until(lambda: seen.update({one.agent_id: one for one in watch.changes()}) or "c" in seen, "c is told")
    assert seen["a"] == waiting


def test_an_end_is_final(watch: Watch) -> None:
    watch.tell([ended("a"), running("a"), ended("a", "another word for it")])
    assert watch.changes() == [ended("a")]


def test_late_news_of_removed_agents_is_not_told_unless_they_are_started_again(watch: Watch) -> None:
    watch.tell([ended("a")])
    watch.forget(["a"])
    watch.tell([ended("a")])
    assert watch.changes() == []
    watch.expect(["a", "b"])
    watch.tell([running("a")])
    assert watch.changes() == [running("a")]


def test_ends_are_known_until_they_are_removed(watch: Watch) -> None:
    watch.tell([running("a"), ended("b")])
    assert watch.ended() == [ended("b")]
    watch.forget(["b"])
    assert watch.ended() == []
