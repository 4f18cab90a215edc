"""The Docker driver: an agent is a container on the engine of DOCKER_HOST."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from docker import APIClient

from brain_clusters.domain.agents import AgentSpec, Loads
from brain_clusters.errors import Conflict, NotFound
from brain_clusters.genesis.docker.cleaning import Cleaner
from brain_clusters.genesis.docker.containers import GONE, Containers
from brain_clusters.genesis.docker.daemon import address_of, connect
from brain_clusters.genesis.docker.recipe import Owner, Recipe
from brain_clusters.genesis.docker.spawning import Spawner
from brain_clusters.genesis.driver import Driver, Kit, Phase, Sighting
from brain_clusters.genesis.watching import Watch

# A call that makes the host wait, and one that makes a thread of its own wait: creating takes long on a busy engine.
_CALL_SECONDS = 10
_WORK_SECONDS = 120
_CALLS_AT_ONCE = 4


class DockerDriver(Driver):
    """Runs agents as containers of one host. What it is made of exists once the engine has answered."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._address = address_of(kit.environ)
        self._calls = ThreadPoolExecutor(_CALLS_AT_ONCE, thread_name_prefix="docker-call")
        self._cleaner = Cleaner(self._calls, self._remove)
        self._clients: list[APIClient] = []
        self._api: APIClient
        self._containers: Containers
        self._watch: Watch | None = None
        self._spawner: Spawner

    @classmethod
    def make(cls, kit: Kit) -> DockerDriver:
        """Return the driver of the engine that DOCKER_HOST names."""
        return cls(kit)

    def open(self) -> None:
        """Connect, begin to watch, and start what an earlier host had only made."""
        self._disconnect()  # what a try that failed has left
        owner = Owner(self._kit.installation(), self._kit.host_id)
        self._api, work = self._connect(_CALL_SECONDS), self._connect(_WORK_SECONDS)
        self._containers = Containers(self._api, self._address, owner)
        with self._containers.translated():
            memory = int(self._api.info()["MemTotal"])
        found = self._containers.all()
        recipe = Recipe(self._kit, owner, work, memory_bytes=memory)
        watch = self._watch = Watch(self._containers, gone=GONE)
        self._spawner = Spawner(work, recipe, self._containers, watch, self._cleaner.holds)
        for sighting in found:
            if sighting.phase is Phase.STARTING:
                self._spawner.begin(sighting.agent_id, None)
        watch.start()

    def _connect(self, timeout_seconds: int) -> APIClient:
        self._clients.append(connect(self._kit.environ, timeout_seconds=timeout_seconds))
        return self._clients[-1]

    def _disconnect(self) -> None:
        while self._clients:
            self._clients.pop().close()

    @property
    def _watching(self) -> Watch:
        assert self._watch is not None  # noqa: S101 - nothing else is called before open() succeeded
        return self._watch

    def start(self, specs: Sequence[AgentSpec]) -> Sequence[Sighting]:
        """Have threads make and start containers; tell what is known of those that are there."""
        told = []
        for spec in specs:
            known = self._watching.last(spec.agent_id)
            if known is None or not known.handle:
                self._watching.expect([spec.agent_id])
                self._spawner.begin(spec.agent_id, spec)
            told.append(known or Sighting(spec.agent_id, Phase.STARTING))
        return told

    def drain(self, agent_ids: Sequence[str]) -> None:
        """Leave the word for them in Redis."""
        self._kit.words.tell(agent_ids, drain=True)

    def resume(self, agent_ids: Sequence[str]) -> None:
        """Take the word back."""
        self._kit.words.tell(agent_ids, drain=False)

    def stop(self, agent_ids: Sequence[str], *, now: bool = False) -> None:
        """Signal them: `docker stop` would kill after a while. What only begins to start is removed."""
        running = set(agent_ids) - self._spawner.cancel(agent_ids)
        self._each(running, lambda agent_id: self._signal(agent_id, "SIGKILL" if now else "SIGTERM"))

    def _signal(self, agent_id: str, name: str) -> None:
        try:
            with self._containers.translated():
                self._api.kill(self._containers.owner.name(agent_id), signal=name)
        except (NotFound, Conflict):
            pass  # it is gone, or has ended

    def _each(self, agent_ids: Iterable[str], call: Callable[[str], None]) -> None:
        """Call for each, several at once; all are tried before the first error is raised."""
        calls = [self._calls.submit(call, agent_id) for agent_id in agent_ids]
        errors = [error for one in calls if (error := one.exception()) is not None]
        if errors:
            raise errors[0]

    def sight(self, agent_ids: Sequence[str] | None = None) -> Sequence[Sighting]:
        """List the containers of this host, those that are on their way, and those that could not be started."""
        found = {sighting.agent_id: sighting for sighting in self._containers.all()}
        for agent_id in self._spawner.pending() - found.keys():
            found[agent_id] = Sighting(agent_id, Phase.STARTING)
        # The last word: a container that could not be started looks as if it were still to be.
        found |= {sighting.agent_id: sighting for sighting in self._watching.ended()}
        if agent_ids is None:
            return list(found.values())
        return [found[agent_id] for agent_id in agent_ids if agent_id in found]

    # --- what happens -------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor of the watch."""
        return self._watching.fileno()

    def changes(self) -> Sequence[Sighting]:
        """Take what the watch has seen."""
        return self._watching.changes()

    def upkeep(self, warm: Sequence[Loads] | None) -> Mapping[str, int]:  # noqa: ARG002 - nothing is shared
        """Try again what the engine did not do."""
        self._spawner.retry()
        self._cleaner.retry()
        return {}

    def remove(self, agent_ids: Sequence[str]) -> None:
        """Have their containers removed, with their volumes and logs."""
        self._watching.forget(agent_ids)
        self._cleaner.add(agent_ids)

    def _remove(self, agent_id: str) -> None:
        self._kit.words.tell([agent_id], drain=False)
        self._containers.remove(self._containers.owner.name(agent_id))

    def logs(self, agent_id: str, lines: int) -> str:
        """Return the end of its container's log."""
        try:
            with self._containers.translated():
                found: bytes = self._api.logs(self._containers.owner.name(agent_id), tail=lines)
        except NotFound:
            return ""
        return found.decode(errors="replace")

    def close(self) -> None:
        """End what was begun, and disconnect."""
        if self._watch is not None:
            self._spawner.close()
        self._calls.shutdown()
        if self._watch is not None:
            self._watch.close()
        self._disconnect()
