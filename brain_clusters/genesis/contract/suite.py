"""The contract of ``genesis.driver.Driver`` as tests. docs/drivers.md tells how a driver's own tests inherit them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from brain_clusters.domain.engines import Engine
from brain_clusters.genesis.contract.ground import Ground
from brain_clusters.genesis.contract.jobs import EXIT_CODE
from brain_clusters.genesis.contract.killed import host_that_is_killed
from brain_clusters.genesis.contract.stage import Stage
from brain_clusters.genesis.driver import Factory, Phase

NOBODY = "contract.clerks.nobody"


class DriverContract:
    """Inherit this in a class ``TestMyDriver``, and give it the fixtures ``factory`` and ``engine``.

    It takes a fixture ``redis_url`` too: the address of a Redis database that is empty and that agents reach.
    """

    patience_seconds = 60.0
    """How long an agent may take on this engine for anything: to start, to do a job, to end."""

    @pytest.fixture
    def factory(self) -> Factory:
        """Return what makes the driver: what its entry point names."""
        raise NotImplementedError("give this class a fixture `factory` that returns the driver's factory")

    @pytest.fixture
    def engine(self) -> Engine:
        """Return what a blueprint's group says to be run by the driver, so that its agents can import this module."""
        raise NotImplementedError("give this class a fixture `engine` that returns an Engine")

    @pytest.fixture
    def agents_redis_url(self, redis_url: str) -> str:
        """Return the address of ``redis_url`` as agents reach it, where that is another."""
        return redis_url

    @pytest.fixture
    def unstartable(self, engine: Engine) -> Mapping[str, Mapping[str, Any]]:  # noqa: ARG002 - for those that override it
        """Return fields of specs that cannot run, each by a word that the reason or the log has to have."""
        return {"no_such_module": {"handler": "no_such_module:work"}}

    @pytest.fixture
    def ground(
        self, factory: Factory, engine: Engine, redis_url: str, agents_redis_url: str, tmp_path: Path
    ) -> Ground:  # fmt: skip
        """What the hosts of a test share. The addresses of Redis bear a password, to see that nobody tells it."""
        password = urlsplit(redis_url).password or f"hidden-{secrets.token_hex(8)}"
        return Ground(
            factory=factory, engine=engine, home=tmp_path, patience_seconds=self.patience_seconds,
            redis_url=_with_password(redis_url, password),
            agents_redis_url=_with_password(agents_redis_url, password),
            environ={"CONTRACT_SOURCE": "from the host's environment"},
        )  # fmt: skip

    @pytest.fixture
    def hosts(self, ground: Ground) -> Iterator[Callable[[str], Stage]]:
        """A function that returns a host by name, which leaves nothing behind."""
        with ExitStack() as clearing:

            def host(name: str) -> Stage:
                stage = Stage(ground, name)
                clearing.callback(stage.clear)
                return stage

            yield host

    @pytest.fixture
    def stage(self, hosts: Callable[[str], Stage]) -> Stage:
        """One host with its driver."""
        return hosts("a")

    # --- starting ---------------------------------------------------------------------------------------------

    def test_an_agent_that_is_started_runs_and_does_jobs(self, stage: Stage) -> None:
        agent = stage.agent()
        stage.does(agent)
        assert stage.sighted()[agent].phase is Phase.RUNNING

    def test_ten_agents_start_in_one_batch(self, stage: Stage) -> None:
        agents = stage.agents(10)
        for job in [stage.send(agent) for agent in agents]:
            stage.until_done(job)
        assert stage.sighted().keys() == set(agents)
        assert len({json.dumps(stage.told[agent].handle, sort_keys=True) for agent in agents}) == 10

    def test_an_agent_that_is_started_again_is_left_as_it_is(self, stage: Stage) -> None:
        spec, other = stage.spec(), stage.spec()
        stage.start(spec)
        stage.start(spec, other)
        stage.until_consuming([spec.agent_id, other.agent_id])
        handle = stage.sighted()[spec.agent_id].handle
        stage.start(spec, other)
        assert stage.sighted()[spec.agent_id].handle == handle
        _is_one(stage, spec.agent_id)
        assert stage.sighted().keys() == {spec.agent_id, other.agent_id}
        assert not stage.ends

    def test_handles_are_plain_json(self, stage: Stage) -> None:
        agent = stage.agent()
        handle = stage.told[agent].handle
        assert handle
        assert json.loads(json.dumps(handle)) == handle

    def test_what_cannot_start_is_told_with_a_reason_and_holds_up_no_other(
        self, stage: Stage, unstartable: Mapping[str, Mapping[str, Any]]
    ) -> None:
        *failing, good = stage.start(*(stage.spec(**fields) for fields in unstartable.values()), stage.spec())
        stage.until_consuming([good])
        stage.does(good)
        for agent, word in zip(failing, unstartable, strict=True):
            _until_explained(stage, agent, word)

    def test_variables_of_agents_are_given_by_reference(self, stage: Stage) -> None:
        environment = {"CONTRACT_TEXT": "as it is", "CONTRACT_NAME": "env:CONTRACT_SOURCE"}
        (agent,) = stage.start(stage.spec(engine=_with_environment(stage, environment)))
        stage.until_consuming([agent])
        for name in environment:
            stage.does(agent, "tell a variable", name)
        told = stage.redis.hgetall(f"{stage.keys}:variables")
        assert told == {b"CONTRACT_TEXT": b"as it is", b"CONTRACT_NAME": b"from the host's environment"}

    def test_a_variable_that_is_missing_is_told_by_its_name(self, stage: Stage) -> None:
        environment = {"CONTRACT_NAME": "env:CONTRACT_NOWHERE"}
        (agent,) = stage.start(stage.spec(engine=_with_environment(stage, environment)))
        _until_explained(stage, agent, "CONTRACT_NOWHERE")

    # --- ending -----------------------------------------------------------------------------------------------

    def test_an_agent_that_dies_by_itself_is_told_once_and_stays_in_sight_until_it_is_removed(
        self, stage: Stage
    ) -> None:
        agent = stage.agent()
        stage.send(agent, "die")
        ended = stage.until_ended(agent)
        assert ended.code == EXIT_CODE or ended.reason, "it is told neither what it exited with nor why it ended"
        for method in (stage.driver.stop, stage.driver.drain, stage.driver.resume):
            stage.call(method, [agent])
        stage.until_quiet()
        assert len(stage.ends[agent]) == 1
        assert stage.sighted()[agent].phase is stage.sighted([agent])[agent].phase is Phase.ENDED
        for _ in range(2):
            stage.call(stage.driver.remove, [agent])
            stage.until(lambda: not stage.sighted([agent]) and not stage.sighted(), "it is removed")
        assert len(stage.ends[agent]) == 1

    def test_an_idle_agent_that_is_stopped_ends(self, stage: Stage) -> None:
        agent = stage.agent()
        stage.call(stage.driver.stop, [agent])
        assert stage.until_ended(agent).code in (0, None)

    def test_an_agent_that_is_stopped_before_it_runs_ends(self, stage: Stage) -> None:
        (agent,) = stage.start(stage.spec())
        stage.call(stage.driver.stop, [agent])
        stage.until_ended(agent)

    def test_a_busy_agent_that_is_stopped_finishes_its_job_however_often_it_is_told(self, stage: Stage) -> None:
        agent, job = stage.busy_agent()
        for _ in range(3):
            stage.call(stage.driver.stop, [agent])
            stage.until_beats(agent, 2)
        later = stage.send(agent)
        stage.open_gate(job)
        stage.until_done(job)
        assert stage.until_ended(agent).code in (0, None)
        assert later not in stage.begun()

    def test_a_busy_agent_that_is_killed_ends_at_once_with_all_that_it_started(self, stage: Stage) -> None:
        agent = stage.agent()
        stage.send(agent, "start a child and wait")
        child = f"{stage.keys}:child"
        stage.until(lambda: stage.redis.exists(child), "the child lives")
        stage.call(stage.driver.stop, [agent])
        stage.call(stage.driver.stop, [agent], now=True)
        stage.until_ended(agent)
        stage.until(lambda: not stage.redis.exists(child), "the child is gone")

    def test_what_is_asked_of_agents_that_are_gone_or_unknown_succeeds(self, stage: Stage) -> None:
        gone = stage.agent()
        stage.call(stage.driver.stop, [gone], now=True)
        stage.until_ended(gone)
        stage.call(stage.driver.remove, [gone])
        both = [gone, NOBODY]
        for method in (stage.driver.drain, stage.driver.resume, stage.driver.stop, stage.driver.remove):
            stage.call(method, both)
        stage.call(stage.driver.stop, both, now=True)
        assert stage.sighted([NOBODY]) == {}
        assert stage.call(stage.driver.logs, NOBODY, 10) == ""

    # --- draining ---------------------------------------------------------------------------------------------

    def test_an_idle_agent_that_drains_leaves(self, stage: Stage) -> None:
        agent = stage.agent()
        stage.call(stage.driver.drain, [agent])
        assert stage.until_ended(agent).code in (0, None)

    def test_a_busy_agent_that_drains_finishes_its_job_takes_no_other_and_leaves(self, stage: Stage) -> None:
        agent, job = stage.busy_agent()
        for _ in range(2):
            stage.call(stage.driver.drain, [agent])
        stage.until_draining(agent, draining=True)
        later = stage.send(agent)
        stage.open_gate(job)
        stage.until_done(job)
        assert stage.until_ended(agent).code in (0, None)
        assert later not in stage.begun()

    def test_an_agent_whose_drain_is_undone_goes_on(self, stage: Stage) -> None:
        agent, job = stage.busy_agent()
        stage.call(stage.driver.drain, [agent])
        stage.until_draining(agent, draining=True)
        for _ in range(2):
            stage.call(stage.driver.resume, [agent])
        stage.until_draining(agent, draining=False)
        stage.open_gate(job)
        stage.does(agent)
        assert agent not in stage.ends

    # --- telling ----------------------------------------------------------------------------------------------

    def test_nothing_is_told_while_nothing_happens(self, stage: Stage) -> None:
        stage.agents(2)
        stage.until_quiet()
        news = [(stage.has_news(0.1), stage.look()) for _ in range(20)]
        assert not all(readable for readable, _ in news), "its descriptor is readable though there is nothing to tell"

    def test_the_descriptor_tells_that_there_is_something_to_tell(self, stage: Stage) -> None:
        agent = stage.agent()
        stage.until_quiet()
        stage.send(agent, "die")
        # Only what the descriptor says is heeded here; an engine may say it several times.
        while agent not in stage.ends:
            assert stage.has_news(self.patience_seconds), "an agent died, and the descriptor did not tell"
            stage.look()

    def test_agents_can_be_asked_for_by_id(self, stage: Stage) -> None:
        first, second = stage.agents(2)
        assert stage.sighted([first, NOBODY]).keys() == {first}
        assert stage.sighted([]) == {}
        assert stage.sighted().keys() == {first, second}

    def test_the_end_of_a_log_is_told_also_of_one_that_ended(self, stage: Stage) -> None:
        agent = stage.agent()
        stage.does(agent, "write", "a line that\nis broken")
        stage.until(lambda: "is broken" in stage.call(stage.driver.logs, agent, 100), "the log has it")
        assert len(stage.call(stage.driver.logs, agent, 1).splitlines()) == 1
        stage.call(stage.driver.stop, [agent], now=True)
        stage.until_ended(agent)
        assert "is broken" in stage.call(stage.driver.logs, agent, 100)

    def test_no_password_is_told(self, stage: Stage, ground: Ground) -> None:
        password = urlsplit(ground.redis_url).password
        assert password
        agent = stage.agent()
        stage.send(agent, "die")
        stage.until_ended(agent)
        assert password not in repr(stage.told)
        assert password not in stage.call(stage.driver.logs, agent, 1000)

    # --- hosts that come and go -------------------------------------------------------------------------------

    def test_agents_outlive_their_host_and_the_next_one_has_them(self, stage: Stage) -> None:
        idle, (busy, job) = stage.agent(), stage.busy_agent()
        stage.close()
        stage.until_beats(idle, 3)
        stage.open()
        assert stage.sighted().keys() == {idle, busy}
        stage.until_consuming([idle, busy])
        stage.does(idle)
        stage.open_gate(job)
        stage.until_done(job)
        stage.call(stage.driver.stop, [idle, busy])
        assert {stage.until_ended(agent).code for agent in (idle, busy)} <= {0, None}

    def test_the_host_after_one_that_was_killed_has_its_agents_and_misses_no_end(
        self, ground: Ground, hosts: Callable[[str], Stage]
    ) -> None:
        specs = [ground.spec("a") for _ in range(2)]
        lives, dies = (spec.agent_id for spec in specs)

        def work(killed: Stage) -> None:
            killed.until_consuming(killed.start(*specs))
            killed.send(dies, "die")
            killed.until(lambda: not killed.beat(dies), "it has died", looking=False)

        host_that_is_killed(ground, "a", work)
        stage = hosts("a")
        stage.until_ended(dies)
        stage.until_consuming([lives])
        assert stage.sighted().keys() == {lives, dies}
        stage.does(lives)
        stage.until_quiet()
        assert len(stage.ends[dies]) == 1

    def test_agents_that_a_host_was_starting_when_it_was_killed_are_started_once(
        self, ground: Ground, hosts: Callable[[str], Stage]
    ) -> None:
        specs = [ground.spec("a") for _ in range(4)]
        host_that_is_killed(ground, "a", lambda killed: killed.start(*specs))
        stage = hosts("a")
        agents = stage.start(*specs)
        stage.until_consuming(agents)
        for agent in agents:
            _is_one(stage, agent)
        assert stage.sighted().keys() == set(agents)
        assert not stage.ends

    def test_two_hosts_do_not_see_the_agents_of_each_other(self, hosts: Callable[[str], Stage]) -> None:
        one, two = hosts("a"), hosts("b")
        mine, others = one.agent(), two.agent()
        assert one.sighted().keys() == {mine}
        assert two.sighted().keys() == {others}
        two.send(others, "die")
        two.until_ended(others)
        one.until_quiet()
        assert one.told.keys() == {mine}
        one.does(mine)


def _with_password(url: str, password: str) -> str:
    """Return ``url`` with a password. A Redis that asks for none takes any of the user ``default``."""
    found = urlsplit(url)
    if found.password:
        return url
    return found._replace(netloc=f"default:{password}@{found.netloc}").geturl()


def _with_environment(stage: Stage, environment: Mapping[str, str]) -> Engine:
    return replace(stage.ground.engine, environment={**stage.ground.engine.environment, **environment})


def _is_one(stage: Stage, agent: str) -> None:
    """See that of two jobs one waits for the other: somebody else of the same name would take it."""
    jobs = [stage.send(agent, "wait") for _ in range(2)]
    stage.until(lambda: set(jobs) & set(stage.begun()), f"{agent} works")
    stage.until_beats(agent, 5)
    assert len(set(jobs) & set(stage.begun())) == 1, f"there are two of {agent}"
    for job in jobs:
        stage.open_gate(job)
    for job in jobs:
        stage.until_done(job)


def _until_explained(stage: Stage, agent: str, word: str) -> None:
    """Wait until it was told why an agent does not run: it was given up, or waits for what somebody may mend."""

    def explained() -> bool:
        told = stage.told.get(agent)
        if told is None or told.phase is Phase.RUNNING:
            return False
        return word in (told.reason or "") or word in stage.call(stage.driver.logs, agent, 50)

    stage.until(explained, f"the reason or the log of {agent} has the word {word}")
