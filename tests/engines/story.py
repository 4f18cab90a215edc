"""The whole story on one engine, through the real system: what every driver of an engine has to live through.

A class ``TestStoryOnX(EngineStory)`` with a class-wide fixture ``engine`` runs it. What its agents do is
``brain_clusters.genesis.contract.jobs``, which every image of ours has, and which tells by Redis what it did.
"""

from __future__ import annotations

import http.client
import json
import secrets
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from brain_clusters.genesis.contract.jobs import HANDLER
from tests.acceptance.brain import Brain, until

# What anything may take on an engine that is shared with other tests, and what agents may take there to start.
_PATIENCE_SECONDS = 300.0
_START_SECONDS = 240


@dataclass(frozen=True, kw_only=True)
class EngineUnderTest:
    """An engine, and how a test looks at it past our code.

    driver: its name. variables: settings of the system. group: keys of a blueprint's group for its agents.
    agents: the ids of a cluster's agents that run there. kill: kills the container or pod of an agent.
    leftovers: all that is there of this system, in words. unstartable: keys of a group whose agents cannot start, and
    a word of the reason.
    """

    driver: str
    variables: Mapping[str, str]
    agents: Callable[[str], set[str]]
    kill: Callable[[str], None]
    leftovers: Callable[[], Sequence[str]]
    unstartable: tuple[Mapping[str, Any], str]
    group: Mapping[str, Any] = field(default_factory=dict)


class Story:
    """A running system whose agents are on the engine."""

    def __init__(self, brain: Brain, engine: EngineUnderTest) -> None:
        self.brain = brain
        self.engine = engine

    def store(self, name: str, *groups: Mapping[str, Any], **scaling: Any) -> None:
        """Store a blueprint of a supervisor and ``groups``. Without ``scaling`` it never scales by itself."""
        still = {"scale_up_threshold": 100_000, "scale_down_threshold": 0, "target_latency": "1 hour"}
        boss = {"role": "supervisor", "name": "Boss", "count": 1, "handler": HANDLER, **self.engine.group}
        blueprint = {
            "metadata": {"id": name, "name": name, "version": "1"},
            "cluster": {
                "type": "project", "driver": self.engine.driver, "min_workers": 1, "max_workers": 30,
                "scaling": scaling or still,
            },
            "agents": [boss, *groups],
            "lifecycle": {
                "hibernate_conditions": [{"idle_time": "1 day"}],
                "reactivate_triggers": ["new_task_received", "manual_trigger"],
            },
        }  # fmt: skip
        answer = self.brain.call("POST", "/api/blueprints", {"yaml": json.dumps(blueprint)})
        assert answer.status in (200, 201), answer

    def hands(self, **keys: Any) -> dict[str, Any]:
        """Return a scalable group on the engine."""
        return {"role": "worker", "name": "Hands", "count": "0-20", "handler": HANDLER, **self.engine.group, **keys}

    def cluster(self, blueprint: str = "story", **fields: Any) -> Cluster:
        """Return a new cluster once all its agents are there."""
        body = {"blueprint_id": blueprint, "name": "A cluster", **fields}
        return Cluster(self, str(self.command("POST", "/api/clusters", body)["cluster"]["id"]))

    def command(self, method: str, path: str, body: Any = None) -> Any:
        """Send a lifecycle command, wait as long as its operation takes, and return the answer to it."""
        answer = self.brain.call(method, path, body)
        assert answer.status == 202, answer
        self.until_done(f"/api/operations/{answer.json['operation']['id']}")
        return answer.json

    def until_done(self, operation: str) -> None:
        """Wait until an operation has succeeded."""

        def succeeded() -> bool:
            found = self.brain.get(operation)
            assert found["status"] != "failed", found
            return bool(found["status"] == "succeeded")

        until(succeeded, f"{operation} succeeded", _PATIENCE_SECONDS)


class Cluster:
    """A cluster on the engine, and the jobs that a test sends it."""

    def __init__(self, story: Story, cluster_id: str) -> None:
        self._story = story
        self.brain = story.brain
        self.id = cluster_id
        self._keys = f"story:{cluster_id}"

    def scale(self, target: int) -> str:
        """Ask for a size, and do not wait for it; return the operation's path."""
        answer = self.brain.call("POST", f"/api/clusters/{self.id}/scale", {"target_workers": target})
        assert answer.status == 202, answer
        return f"/api/operations/{answer.json['operation']['id']}"

    def running(self) -> set[str]:
        """Return the agents that the engine runs."""
        return self._story.engine.agents(self.id)

    def until_agents(self, count: int) -> set[str]:
        """Wait until rows and engine agree on ``count`` agents; return these."""

        def settled() -> set[str] | None:
            rows, there = {row["agent_id"] for row in self.brain.agents(self.id)}, self.running()
            seen[:] = [f"{len(rows)} rows, {len(there)} on the engine: {sorted(rows)} {sorted(there)}"]
            return there if rows == there and len(there) == count else None

        seen: list[str] = []
        try:
            return until(settled, f"{self.id} has {count} agents", _PATIENCE_SECONDS) or set()
        except AssertionError as exc:
            raise AssertionError(f"{exc}; {seen}") from None

    def busy(self) -> set[str]:
        """Return the agents that are known to work."""
        return {row["agent_id"] for row in self.brain.agents(self.id) if row["status"] == "busy"}

    def payload(self, do: str) -> dict[str, Any]:
        """Return what a job is told: where it tells what it does, and a name of its own."""
        return {"redis": self.brain.redis_url, "keys": self._keys, "job": secrets.token_hex(6), "do": do}

    def send(self, do: str = "nothing", to: str = "Hands") -> tuple[str, str]:
        """Send a job; return its id and the name by which it tells of itself."""
        payload = self.payload(do)
        return self.brain.job(self.id, to, **payload), payload["job"]

    def begun(self, name: str) -> int:
        """Return how often a job has begun."""
        with self.brain.redis() as client:
            return [each.decode() for each in client.lrange(f"{self._keys}:begun", 0, -1)].count(name)

    def until_begun(self, name: str, times: int = 1) -> None:
        """Wait until a job has begun for the ``times``-th time."""
        until(lambda: self.begun(name) >= times, f"job {name} began {times} times", _PATIENCE_SECONDS)

    def open_gate(self, name: str) -> None:
        """Let a job go on that waits."""
        with self.brain.redis() as client:
            client.rpush(f"{self._keys}:gate:{name}", "open")

    def ended(self) -> dict[str, Any]:
        """Return the rows of ended agents by agent id."""
        rows = self.brain.agents(self.id, "?ended=true")
        return {row["agent_id"]: row for row in rows if row["status"] in ("stopped", "failed")}

    def destroy(self) -> None:
        """Destroy it; nothing of it runs any more."""
        self._story.command("DELETE", f"/api/clusters/{self.id}")
        assert self.running() == set()


class EngineStory:
    """The story. Each test makes a cluster of its own in a system that they share, and destroys it."""

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> EngineUnderTest:
        raise NotImplementedError("give this class a class-wide fixture `engine` that returns an EngineUnderTest")

    @pytest.fixture(scope="class")
    @classmethod
    def story(cls, engine: EngineUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
        """The system, of which nothing may be left on the engine when it has ended."""
        variables = {"BRAIN_START_TIMEOUT_SECONDS": str(_START_SECONDS), **engine.variables}
        brain = Brain(tmp_path_factory.mktemp("story") / "brain", variables)
        try:
            brain.start()
            story = Story(brain, engine)
            story.store("story", story.hands())
            yield story
        finally:
            try:
                brain.remove()
            finally:
                left = engine.leftovers()
        assert left == []

    @pytest.fixture(autouse=True)
    def _logs(self, story: Story, request: pytest.FixtureRequest) -> Iterator[None]:
        """Show the ends of the system's logs with a test that failed."""
        before = request.session.testsfailed
        yield
        if request.session.testsfailed > before and story.brain.folder.exists():
            print(story.brain.told())

    def test_a_cluster_is_created_scaled_and_destroyed(self, story: Story) -> None:
        cluster = story.cluster(target_workers=3)
        three = cluster.until_agents(3)
        story.command("POST", f"/api/clusters/{cluster.id}/scale", {"target_workers": 10})
        ten = cluster.until_agents(10)
        assert three < ten
        for target in (3, 5):
            story.command("POST", f"/api/clusters/{cluster.id}/scale", {"target_workers": target})
            cluster.until_agents(target)
        job, _ = cluster.send()
        done = story.brain.outcome(job, _PATIENCE_SECONDS)
        assert done["status"] == "succeeded", done
        assert done["agent_id"] in cluster.running()
        cluster.destroy()

    def test_a_scale_down_kills_nothing_that_is_busy(self, story: Story) -> None:
        cluster = story.cluster(target_workers=10)
        jobs = [cluster.send("wait") for _ in range(5)]
        for _, name in jobs:
            cluster.until_begun(name)
        until(lambda: len(cluster.busy()) == 5, "five are known to be busy", _PATIENCE_SECONDS)
        # Their beats say so before the rows do, by which victims are chosen; the tick writes these with the load.
        until(lambda: story.brain.seen(cluster.id)["load_percentage"] >= 45, "their rows say so", _PATIENCE_SECONDS)
        operation = cluster.scale(3)
        until(lambda: len(cluster.running()) <= 6, "the idle ones have left", _PATIENCE_SECONDS)
        # Two of the busy ones are to leave, and do so when they are done. The supervisor is the sixth.
        assert {story.brain.get(f"/api/jobs/{job}")["status"] for job, _ in jobs} == {"running"}
        for _, name in jobs:
            cluster.open_gate(name)
        for job, name in jobs:
            done = story.brain.outcome(job, _PATIENCE_SECONDS)
            assert done | {"status": "succeeded", "attempts": 1} == done
            assert cluster.begun(name) == 1
        story.until_done(operation)
        cluster.until_agents(3)
        assert {row["status"] for row in cluster.ended().values()} == {"stopped"}
        cluster.destroy()

    def test_a_drain_that_is_undone_leaves_the_busy_agent_at_work(self, story: Story) -> None:
        cluster = story.cluster(target_workers=2)
        (job, name), before = cluster.send("wait"), cluster.until_agents(2)
        cluster.until_begun(name)
        cluster.scale(1)
        until(
            lambda: [row for row in story.brain.agents(cluster.id) if row["status"] == "draining"],
            "it drains", _PATIENCE_SECONDS,
        )  # fmt: skip
        story.command("POST", f"/api/clusters/{cluster.id}/scale", {"target_workers": 2})
        cluster.open_gate(name)
        assert story.brain.outcome(job, _PATIENCE_SECONDS)["attempts"] == 1
        assert cluster.until_agents(2) == before
        cluster.destroy()

    def test_a_burst_is_met_with_agents_and_they_leave_after_it(self, story: Story) -> None:
        quick = {"stabilization": "1 s", "consecutive": 1}
        story.store(
            "burst", story.hands(count="0-6"),
            target_latency="1 s", cooldown_period=0, polling_interval="0.5 s", scale_down=quick,
            scale_up={"max_workers": 8, "period": "1 s"}, windows={"stable": "2 s", "panic": "1 s"},
        )  # fmt: skip
        cluster = story.cluster("burst", target_workers=1)
        jobs = [cluster.send("wait") for _ in range(30)]
        until(lambda: len(cluster.running()) == 7, "six agents and their supervisor are there", _PATIENCE_SECONDS)
        for _, name in jobs:
            cluster.open_gate(name)
        for job, _ in jobs:
            done = story.brain.outcome(job, _PATIENCE_SECONDS)
            assert done | {"status": "succeeded", "attempts": 1} == done
        until(lambda: len(cluster.running()) == 1, "they have left", _PATIENCE_SECONDS)
        assert not [row for row in cluster.ended().values() if row["status"] == "failed"]
        cluster.destroy()

    def test_a_hibernated_cluster_has_nothing_there_and_a_plain_client_wakes_it(self, story: Story) -> None:
        cluster = story.cluster(target_workers=3)
        story.command("POST", f"/api/clusters/{cluster.id}/hibernate")
        assert cluster.running() == set()
        queue = story.brain.queue(cluster.id, "Hands")
        payload = cluster.payload("nothing")
        with story.brain.celery() as app:
            app.send_task("brain.job", [payload], queue=queue, ignore_result=True)
        cluster.until_begun(payload["job"])
        until(lambda: story.brain.seen(cluster.id)["status"] == "active", "it is awake", _PATIENCE_SECONDS)
        cluster.until_agents(story.brain.seen(cluster.id)["target_workers"])
        cluster.destroy()

    def test_the_job_of_an_agent_that_is_killed_runs_again_and_the_agent_is_replaced(self, story: Story) -> None:
        cluster = story.cluster(target_workers=2)
        job, name = cluster.send("wait")
        cluster.until_begun(name)
        (busy,) = until(cluster.busy, "it is known to be busy", _PATIENCE_SECONDS)
        story.engine.kill(busy)
        cluster.until_begun(name, 2)
        cluster.open_gate(name)
        done = story.brain.outcome(job, _PATIENCE_SECONDS)
        assert done | {"status": "succeeded", "attempts": 2} == done
        assert done["agent_id"] != busy
        assert busy not in cluster.until_agents(2)
        died = cluster.ended()
        assert died.keys() == {busy}
        assert died[busy]["status"] == "failed"
        assert died[busy]["last_error"]
        cluster.destroy()

    @pytest.mark.parametrize("there", [0, 1, 4])
    def test_a_host_killed_while_it_starts_agents_leaves_neither_too_few_nor_too_many(
        self, story: Story, there: int
    ) -> None:
        cluster = story.cluster(target_workers=1)
        operation = cluster.scale(9)
        until(lambda: len(cluster.running()) > there, f"{there} more run", _PATIENCE_SECONDS)
        story.brain.kill_child(f"host {story.engine.driver}")
        story.until_done(operation)
        cluster.until_agents(9)
        assert not [row for row in cluster.ended().values() if row["status"] == "failed"]
        cluster.destroy()

    def test_a_worker_killed_while_agents_start_changes_nothing(self, story: Story) -> None:
        cluster = story.cluster(target_workers=1)
        operation = cluster.scale(6)
        story.brain.kill_child("worker")
        story.until_done(operation)
        cluster.until_agents(6)
        cluster.destroy()

    def test_agents_go_on_while_the_whole_control_plane_is_killed_in_mid_spawn(self, story: Story) -> None:
        cluster, brain = story.cluster(target_workers=3), story.brain
        job, name = cluster.send("wait")
        cluster.until_begun(name)
        operation = cluster.scale(8)
        until(lambda: len(cluster.running()) > 4, "some were started", _PATIENCE_SECONDS)
        names = ("api", "worker", "beat", "host", f"host {story.engine.driver}")
        children = {child: brain.child(child) for child in names}
        for process in children.values():
            process.send(signal.SIGKILL)
        until(
            lambda: all(brain.child(child) != process for child, process in children.items()),
            "all have successors", _PATIENCE_SECONDS,
        )  # fmt: skip
        until(lambda: _is_ready(brain), "the API is back", _PATIENCE_SECONDS)
        story.until_done(operation)
        cluster.until_agents(8)
        cluster.open_gate(name)
        done = brain.outcome(job, _PATIENCE_SECONDS)
        assert done | {"status": "succeeded", "attempts": 1} == done
        cluster.destroy()

    def test_after_the_loss_of_everything_but_the_engine_the_cluster_is_as_large_as_it_was_to_be(
        self, story: Story
    ) -> None:
        cluster, brain = story.cluster(target_workers=3), story.brain
        operation = cluster.scale(8)
        until(lambda: len(cluster.running()) > 4, "some were started", _PATIENCE_SECONDS)
        brain.kill_everything()
        brain.start()
        story.until_done(operation)
        cluster.until_agents(8)
        job, _ = cluster.send()
        assert brain.outcome(job, _PATIENCE_SECONDS)["status"] == "succeeded"
        cluster.destroy()

    def test_one_cluster_has_agents_on_this_machine_and_on_the_engine(self, story: Story) -> None:
        here = {"role": "worker", "name": "Here", "count": 2, "driver": "process", "handler": HANDLER}
        story.store("mixed", story.hands(count=2), here)
        cluster = story.cluster("mixed")
        there, processes = cluster.running(), story.brain.agent_processes(cluster.id)
        rows = {row["agent_id"]: row["group"] for row in story.brain.agents(cluster.id)}
        assert there == {agent for agent, group in rows.items() if group != "Here"}
        assert processes.keys() == {agent for agent, group in rows.items() if group == "Here"}
        for group, members in (("Hands", there), ("Here", processes.keys())):
            job, _ = cluster.send(to=group)
            assert story.brain.outcome(job, _PATIENCE_SECONDS)["agent_id"] in members
        cluster.destroy()
        assert story.brain.agent_processes(cluster.id) == {}

    def test_what_cannot_start_says_why_holds_up_no_other_and_is_no_storm(self, story: Story) -> None:
        keys, word = story.engine.unstartable
        story.store("broken", story.hands(), story.hands(name="Lost", count=2, **keys))
        made = story.brain.call("POST", "/api/clusters", {"blueprint_id": "broken", "name": "Broken"}).json
        cluster = Cluster(story, made["cluster"]["id"])

        def told() -> bool:
            rows = story.brain.agents(cluster.id, "?ended=true")
            return any(word in f"{row.get('reason')} {row['last_error']}" for row in rows)

        until(told, f"an agent's row has the word {word}", _PATIENCE_SECONDS)
        job, _ = cluster.send(to="Boss")
        assert story.brain.outcome(job, _PATIENCE_SECONDS)["status"] == "succeeded"
        assert len(cluster.ended()) <= 20
        cluster.destroy()


def _is_ready(brain: Brain) -> bool:
    """Whether the API answers that it is. The workers of one that was killed may have answered a moment ago."""
    with suppress(OSError, http.client.HTTPException):
        return bool(brain.call("GET", "/readyz").status == 200)
    return False
