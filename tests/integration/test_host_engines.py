"""What a host does with any engine: one whose calls fail or lose their replies, and one that does what a test says."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from brain_clusters.broker import names
from brain_clusters.domain.agents import AgentSpec, Loads
from brain_clusters.domain.engines import Engine
from brain_clusters.errors import TemporaryError
from brain_clusters.examples.plain_driver import PlainDriver
from brain_clusters.genesis import host as host_module
from brain_clusters.genesis import steward
from brain_clusters.genesis.contract.ground import Ground
from brain_clusters.genesis.contract.stage import Stage
from brain_clusters.genesis.desk import Asked, Ended, Wanted
from brain_clusters.genesis.driver import Driver, Kit, Phase, Sighting
from brain_clusters.genesis.host import Host
from tests.integration.paper_desk import PaperDesk

Until = Callable[..., Any]
CALLS = ("open", "start", "drain", "resume", "stop", "sight", "changes", "remove", "logs", "upkeep")


class Faulty(PlainDriver):
    """The plain driver, whose calls fail as often as ``fails`` says: before they have their effect, or after it."""

    def __init__(self, kit: Kit, fails: Counter[str], *, lost: bool) -> None:
        self.fails, self.lost = fails, lost
        super().__init__(kit)

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return self._failing(name, found) if name in CALLS else found

    def _failing(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def failing(*given: Any, **options: Any) -> Any:
            if not self.fails[name]:
                return call(*given, **options)
            self.fails[name] -= 1
            if self.lost:
                call(*given, **options)
            raise TemporaryError(f"the engine did not answer to {name}", delay_seconds=0.05)

        return failing


@dataclass
class Scripted(Driver):
    """An engine that shows what a test says, and writes down what is asked of it."""

    shown: dict[str, Sighting] = field(default_factory=dict)
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    news: list[Sighting] = field(default_factory=list)
    away: bool = False

    def __post_init__(self) -> None:
        self._read, self._write = os.pipe()

    def show(self, *sightings: Sighting) -> None:
        """Tell all of them by the same call of ``changes``."""
        self.shown |= {sighting.agent_id: sighting for sighting in sightings}
        self.news.extend(sightings)
        os.write(self._write, b"!")

    def times(self, name: str) -> int:
        return sum(asked == name for asked, _ in self.asked)

    def _ask(self, name: str, agent_ids: Sequence[str] = ()) -> None:
        self.asked.append((name, tuple(agent_ids)))
        if self.away:
            raise TemporaryError("the engine is away", delay_seconds=0.01)

    def open(self) -> None:
        self._ask("open")

    def start(self, specs: Sequence[AgentSpec]) -> Sequence[Sighting]:
        self._ask("start", [spec.agent_id for spec in specs])
        return [self.shown.setdefault(one.agent_id, Sighting(one.agent_id, Phase.STARTING)) for one in specs]

    def drain(self, agent_ids: Sequence[str]) -> None:
        self._ask("drain", agent_ids)

    def resume(self, agent_ids: Sequence[str]) -> None:
        self._ask("resume", agent_ids)

    def stop(self, agent_ids: Sequence[str], *, now: bool = False) -> None:
        self._ask("kill" if now else "stop", agent_ids)

    def sight(self, agent_ids: Sequence[str] | None = None) -> Sequence[Sighting]:
        self._ask("sight", agent_ids or ())
        return [one for name, one in self.shown.items() if agent_ids is None or name in agent_ids]

    def fileno(self) -> int:
        return self._read

    def changes(self) -> Sequence[Sighting]:
        self._ask("changes")
        found, self.news = self.news, []
        os.read(self._read, len(found)) if found else None
        return found

    def remove(self, agent_ids: Sequence[str]) -> None:
        self._ask("remove", agent_ids)
        for agent_id in agent_ids:
            self.shown.pop(agent_id, None)

    def logs(self, agent_id: str, lines: int) -> str:
        self._ask("logs")
        return "the last line"

    def upkeep(self, warm: Sequence[Loads] | None) -> dict[str, int]:
        self._ask("upkeep")
        return {}

    def close(self) -> None:
        self.asked.append(("close", ()))


class Running:
    """A host that runs in a thread."""

    def __init__(self, desk: PaperDesk, driver: Driver, capacity: int = 10) -> None:
        self.host = Host(desk, driver, capacity=capacity)
        self._thread = threading.Thread(target=self.host.run)
        self._thread.start()

    @property
    def runs(self) -> bool:
        return self._thread.is_alive()

    def end(self, how: Callable[[], None]) -> None:
        how()
        self._thread.join(60)
        assert not self.runs


@pytest.fixture
def stage(redis_url: str, tmp_path: Path) -> Iterator[Stage]:
    """What knows specs, jobs and beats; the driver of its own is closed."""
    ground = Ground(
        factory=PlainDriver, engine=Engine(), redis_url=redis_url, agents_redis_url=redis_url, home=tmp_path,
        patience_seconds=60.0,
    )  # fmt: skip
    found = Stage(ground, "a")
    found.close()
    yield found
    found.clear()


@pytest.fixture
def desk(stage: Stage) -> PaperDesk:
    return PaperDesk(stage.redis)


@pytest.fixture
def scripted(desk: PaperDesk) -> Iterator[Scripted]:
    driver = Scripted()
    yield driver
    for descriptor in (driver._read, driver._write):
        os.close(descriptor)


@pytest.fixture
def run(desk: PaperDesk) -> Iterator[Callable[[Driver], Running]]:
    """A function that runs a host on a driver until the end of the test."""
    running: list[Running] = []

    def start(driver: Driver) -> Running:
        running.append(Running(desk, driver))
        return running[-1]

    yield start
    for one in running:
        if one.runs:
            one.end(one.host.abandon)


def kit(stage: Stage) -> Kit:
    return stage.ground.kit(f"{stage.ground.name}-a", stage.driver._kit.words)  # type: ignore[attr-defined]


# --- an engine whose calls fail ---------------------------------------------------------------------------------


_DIED = "ended unasked"


@pytest.mark.parametrize("lost", [False, True], ids=["without-effect", "reply-lost"])
@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_fails_is_made_again_and_nothing_is_lost_or_done_twice(
    stage: Stage, desk: PaperDesk, run: Callable[[Driver], Running], until: Until, call: str, lost: bool
) -> None:
    if call in ("open", "changes") and lost:
        pytest.skip("a driver cannot lose what it says itself")
    driver = Faulty(kit(stage), Counter({call: 3}), lost=lost)
    spec, other = stage.spec(), stage.spec()
    desk.pending += [spec, other]
    running = run(driver)
    agent, dies = spec.agent_id, other.agent_id
    until(lambda: {agent, dies} <= desk.handles.keys(), "both are ready", 60)
    stage.send(dies, "die")
    job = stage.send(agent, "wait")
    until(lambda: job in stage.begun(), "it works")
    desk.wants(agent, draining=True)
    stage.until_draining(agent, draining=True)
    desk.wants(agent, draining=False)
    stage.until_draining(agent, draining=False)
    stage.open_gate(job)
    stage.until_done(job)
    desk.wants(agent, draining=True)
    until(lambda: not list(driver._folder.iterdir()), "both have ended and are removed", 60)
    assert desk.gone == {agent: Ended(agent, asked=True), dies: Ended(dies, asked=False, error=_DIED)}
    # Calls that nothing here needs, fail at the end.
    driver.fails.clear()
    running.end(lambda: running.host.stop(0))


# --- an engine that a test plays --------------------------------------------------------------------------------


def agent_of(desk: PaperDesk, until: Until, driver: Scripted, stage: Stage) -> str:
    """Return the id of an agent that the host has started and that its engine shows to consume."""
    spec = stage.spec()
    desk.pending.append(spec)
    desk.poke()
    until(lambda: spec.agent_id in driver.shown, "it is started")
    driver.show(Sighting(spec.agent_id, Phase.RUNNING, {"name": "x"}, ready=True))
    until(lambda: spec.agent_id in desk.handles, "it is told to be ready")
    return spec.agent_id


def test_why_an_agent_still_is_starting_is_told_and_cleared(
    stage: Stage, desk: PaperDesk, scripted: Scripted, run: Callable[[Driver], Running], until: Until
) -> None:
    run(scripted)
    spec = stage.spec()
    agent = spec.agent_id
    desk.pending.append(spec)
    desk.poke()
    for reason in ("its image is pulled", "no node has room", None):
        until(lambda: agent in scripted.shown, "it is started")
        scripted.show(Sighting(agent, Phase.STARTING, reason=reason))
        scripted.show(Sighting(agent, Phase.STARTING, reason=reason))
        until(lambda reason=reason: desk.reasons.get(agent, [""])[-1] == reason, "the reason is told")
    assert desk.reasons[agent] == ["its image is pulled", "no node has room", None]
    scripted.show(Sighting(agent, Phase.ENDED, reason="it cannot be pulled"))
    until(lambda: agent in desk.gone, "its end is told")
    assert desk.gone[agent] == Ended(agent, asked=False, error="it cannot be pulled")
    until(lambda: ("remove", (agent,)) in scripted.asked, "what it left is removed")


def test_readiness_before_it_runs_waits_for_the_handle(
    stage: Stage, desk: PaperDesk, scripted: Scripted, run: Callable[[Driver], Running], until: Until
) -> None:
    run(scripted)
    spec = stage.spec()
    scripted.shown[spec.agent_id] = Sighting(spec.agent_id, Phase.STARTING, ready=True)
    desk.pending.append(spec)
    desk.poke()
    until(lambda: scripted.times("start"), "it is started")
    scripted.show(Sighting(spec.agent_id, Phase.RUNNING, {"name": "x"}, ready=True))
    until(lambda: desk.handles, "it is told to be ready")
    assert desk.handles == {spec.agent_id: {"name": "x"}}


def test_the_first_beat_makes_ready_whom_the_engine_cannot_tell_to_consume(
    stage: Stage, desk: PaperDesk, scripted: Scripted, run: Callable[[Driver], Running], until: Until
) -> None:
    run(scripted)
    spec = stage.spec()
    scripted.shown[spec.agent_id] = Sighting(spec.agent_id, Phase.RUNNING, {"name": "x"})
    desk.pending.append(spec)
    desk.poke()
    until(lambda: scripted.times("changes") > 3, "the host has looked")
    assert not desk.handles
    stage.redis.set(names.beat_key(spec.agent_id), "{}")
    until(lambda: desk.handles == {spec.agent_id: {"name": "x"}}, "it is told to be ready")


def test_an_agent_that_does_not_die_is_killed_again_and_again(
    stage: Stage, desk: PaperDesk, scripted: Scripted, run: Callable[[Driver], Running], until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(steward, "_KILL_AGAIN_SECONDS", 0.1)
    run(scripted)
    agent = agent_of(desk, until, scripted, stage)
    desk.wants(agent, draining=True, draining_seconds=2, kill_after=1)
    until(lambda: scripted.times("kill") > 2 or desk.poke(), "it is killed again")
    scripted.show(Sighting(agent, Phase.ENDED, code=-9))
    until(lambda: agent in desk.gone, "its end is told")
    assert desk.gone[agent].asked


def test_while_its_engine_is_away_a_host_beats_and_takes_no_more_agents(
    stage: Stage, desk: PaperDesk, scripted: Scripted, run: Callable[[Driver], Running], until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(host_module, "_HOST_BEAT_SECONDS", 0.05)
    scripted.away = True
    run(scripted)
    until(lambda: desk.beats > 2, "it beats though its driver cannot be opened")
    scripted.away = False
    until(lambda: scripted.times("upkeep"), "it looks after its engine")
    scripted.away = True
    desk.pending += [stage.spec() for _ in range(50)]
    beats = desk.beats
    until(lambda: scripted.times("start") or desk.poke(), "it tries to start some")
    until(lambda: desk.beats > beats + 5 and (desk.poke() or True), "it beats though upkeep fails")
    assert len(desk.rows) == 10
    scripted.away = False
    until(lambda: len(scripted.shown) == 10 or desk.poke(), "those that it took are started")
    assert scripted.shown.keys() == desk.rows.keys()


def test_a_host_whose_engine_is_away_ends_all_the_same_and_leaves_its_agents_to_the_next(
    stage: Stage, desk: PaperDesk, scripted: Scripted, run: Callable[[Driver], Running], until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(host_module, "_KILLING_SECONDS", 0.2)
    running = run(scripted)
    agent = agent_of(desk, until, scripted, stage)
    scripted.away = True
    running.end(lambda: running.host.stop(0))
    assert not desk.left
    assert agent not in desk.gone
    assert scripted.asked[-1] == ("close", ())


def test_a_host_that_never_could_open_its_engine_stops(
    desk: PaperDesk, scripted: Scripted, run: Callable[[Driver], Running], until: Until
) -> None:
    scripted.away = True
    running = run(scripted)
    until(lambda: scripted.times("open") > 2, "it tries again")
    running.end(lambda: running.host.stop(60))
    assert desk.left


def test_a_host_that_is_told_to_leave_its_agents_leaves_them(
    stage: Stage, desk: PaperDesk, scripted: Scripted, run: Callable[[Driver], Running], until: Until
) -> None:
    running = run(scripted)
    agent = agent_of(desk, until, scripted, stage)
    running.end(running.host.abandon)
    assert not scripted.times("stop")
    assert not scripted.times("kill")
    assert scripted.shown.keys() == {agent}


@pytest.mark.parametrize(
    ("code", "reason", "asked", "error"),
    [
        (0, None, True, None),
        (None, None, True, None),
        (1, None, False, "ended unasked; its log ends: the last line"),
        (-9, "out of memory", False, "out of memory; its log ends: the last line"),
        (None, "its node is gone", False, "its node is gone"),
    ],
)
def test_an_end_that_no_host_saw_is_a_fault_only_where_it_left_a_reason(
    stage: Stage, desk: PaperDesk, scripted: Scripted, run: Callable[[Driver], Running], until: Until,
    code: int | None, reason: str | None, asked: bool, error: str | None,
) -> None:  # fmt: skip
    spec = stage.spec()
    agent = spec.agent_id
    desk.rows[agent] = Wanted(spec, draining=False, started=True)
    scripted.shown[agent] = Sighting(agent, Phase.ENDED, reason=reason, code=code)
    run(scripted)
    until(lambda: agent in desk.gone, "its end is told")
    assert desk.gone[agent] == Ended(agent, asked=asked, error=error)
    assert not scripted.times("start")


def test_an_agent_of_an_earlier_host_is_told_to_drain_before_its_first_beat_was_looked_for(
    stage: Stage, desk: PaperDesk, scripted: Scripted, run: Callable[[Driver], Running], until: Until
) -> None:
    spec = stage.spec()
    desk.rows[spec.agent_id] = Wanted(spec, draining=True, started=True)
    scripted.shown[spec.agent_id] = Sighting(spec.agent_id, Phase.RUNNING, {"name": "x"})
    run(scripted)
    until(lambda: scripted.times("drain"), "it is told to drain")
    assert not scripted.times("stop")


def test_an_end_is_told_once_though_the_engine_shows_it_again_and_again(
    stage: Stage, desk: PaperDesk, scripted: Scripted, run: Callable[[Driver], Running], until: Until
) -> None:
    run(scripted)
    agent = agent_of(desk, until, scripted, stage)
    scripted.show(*[Sighting(agent, Phase.ENDED, code=1)] * 3)
    until(lambda: ("remove", (agent,)) in scripted.asked, "what it left is removed")
    assert desk.gone[agent].error == "ended unasked; its log ends: the last line"
    assert scripted.times("logs") == 1


def test_a_host_tells_logs_and_why_it_cannot(
    stage: Stage, desk: PaperDesk, run: Callable[[Driver], Running], until: Until
) -> None:
    fails: Counter[str] = Counter()
    driver = Faulty(kit(stage), fails, lost=False)
    spec = stage.spec()
    desk.pending.append(spec)
    run(driver)
    until(lambda: spec.agent_id in desk.handles, "the agent")
    fails["logs"] = 1
    desk.questions = [Asked("first", spec.agent_id, 5), Asked("second", spec.agent_id, 5)]
    desk.poke()
    until(lambda: len(desk.told_logs) == 2, "the answers")
    assert desk.told_logs["first"] == (None, "the engine did not answer to logs")
    text, why = desk.told_logs["second"]
    assert (isinstance(text, str), why) == (True, None)
