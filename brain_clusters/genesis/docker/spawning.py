"""Makes and starts containers: several at once, again while the engine does not answer, and each of them once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from docker import APIClient
from docker.utils import parse_repository_tag

from brain_clusters.domain.agents import AgentSpec
from brain_clusters.errors import BrainError, Conflict, NotFound, PermanentError, TemporaryError
from brain_clusters.genesis.docker.containers import Containers, sighting_of
from brain_clusters.genesis.docker.daemon import EngineFault, NoImage
from brain_clusters.genesis.docker.recipe import Recipe
from brain_clusters.genesis.driver import Phase, Sighting
from brain_clusters.genesis.watching import Watch

log = logging.getLogger(__name__)

# Making and starting 24 containers takes 4.8 s one by one, 2.6 s with 8 at once, 2.5 s with 16 (Docker 20.10, 2 cores).
_AT_ONCE = 8
# An engine that answers with faults of its own is asked so often; one that does not answer, for ever.
_MOST_FAULTS = 5


@dataclass(slots=True)
class _Start:
    """An agent on its way. spec: None where its container was made by an earlier host. active: a thread is at it."""

    agent_id: str
    spec: AgentSpec | None
    cancelled: bool = False
    active: bool = False
    faults: int = 0


class Spawner:
    """Brings agents up, and tells ``watch`` what became of them.

    removing: whether the container that an agent had is still to be removed.
    """

    def __init__(
        self, api: APIClient, recipe: Recipe, containers: Containers, watch: Watch, removing: Callable[[str], bool]
    ) -> None:  # fmt: skip
        self._api = api
        self._recipe = recipe
        self._containers = containers
        self._watch = watch
        self._removing = removing
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="docker-start")
        self._lock = threading.Lock()
        self._pending: dict[str, _Start] = {}
        self._closed = False

    def begin(self, agent_id: str, spec: AgentSpec | None) -> None:
        """Begin to bring an agent up, unless that was begun."""
        with self._lock:
            if agent_id not in self._pending:
                self._pending[agent_id] = _Start(agent_id, spec)
                self._submit(self._pending[agent_id])

    def pending(self) -> set[str]:
        """Return the agents that are on their way."""
        with self._lock:
            return set(self._pending)

    def cancel(self, agent_ids: Iterable[str]) -> set[str]:
        """Have those end that are on their way; return which these are."""
        with self._lock:
            found = [self._pending[agent_id] for agent_id in agent_ids if agent_id in self._pending]
            for start in found:
                start.cancelled = True
                if not start.active:
                    self._submit(start)
            return {start.agent_id for start in found}

    def retry(self) -> None:
        """Go on with those that the engine held up."""
        with self._lock:
            for start in self._pending.values():
                if not start.active:
                    self._submit(start)

    def close(self) -> None:
        """End. What is made by then stays; what is not is for the next host."""
        self._closed = True
        self._pool.shutdown(cancel_futures=True)

    def _submit(self, start: _Start) -> None:
        start.active = True
        self._pool.submit(self._run, start)

    # --- in threads of the pool ---------------------------------------------------------------------------------

    def _run(self, start: _Start) -> None:
        if self._closed:
            return
        sighting = self._attempt(start)
        with self._lock:
            start.active = False
            if sighting is None:
                return
            if start.cancelled and sighting.phase is not Phase.ENDED:
                self._submit(start)
                return
            self._watch.tell([sighting])
            del self._pending[start.agent_id]

    def _attempt(self, start: _Start) -> Sighting | None:
        """Return how it is now; None when it has to be tried again."""
        try:
            return self._end(start) if start.cancelled else self._bring_up(start)
        except TemporaryError as exc:
            start.faults += isinstance(exc, EngineFault)
            if start.faults >= _MOST_FAULTS:
                return Sighting(start.agent_id, Phase.ENDED, reason=f"{exc}; tried {start.faults} times")
            self._watch.tell([Sighting(start.agent_id, Phase.STARTING, reason=str(exc))])
            return None
        except BrainError as exc:
            return Sighting(start.agent_id, Phase.ENDED, reason=str(exc))
        except Exception as exc:  # it must not stay between starting and ended because of a fault of ours
            log.exception("an agent could not be started", extra={"agent_id": start.agent_id})
            return Sighting(start.agent_id, Phase.ENDED, reason=f"the driver failed: {type(exc).__name__}")

    def _bring_up(self, start: _Start) -> Sighting:
        found = self._containers.one(start.agent_id) if start.spec is None else self._make(start, start.spec)
        if found is None:
            raise PermanentError("its container was removed before it was started")
        if found.phase is not Phase.STARTING:
            return found
        # It is on the engine from here on, which its handle says: that it vanishes is noticed.
        self._watch.tell([found])
        try:
            with self._containers.translated():
                self._api.start(found.handle["container"])
        except NotFound as exc:
            raise EngineFault(f"its container was removed before it was started: {exc}") from exc
        return Sighting(start.agent_id, Phase.RUNNING, found.handle)

    def _end(self, start: _Start) -> Sighting:
        """Remove what there is: it never was ready, so it does nothing that could be finished."""
        self._containers.remove(self._containers.owner.name(start.agent_id))
        return Sighting(start.agent_id, Phase.ENDED)

    def _make(self, start: _Start, spec: AgentSpec) -> Sighting:
        """Create the container, or take the one that is there: the reply to an earlier call may have been lost."""
        pull = spec.engine.docker.get("pull", "missing")
        arguments = self._recipe.arguments(spec)
        if pull == "always":
            self._pull(start, spec)
        try:
            return self._create(spec, arguments)
        except NoImage as exc:
            if pull == "never":
                raise PermanentError(
                    f"the engine has no image {arguments['image']}, and `pull: never` forbids to fetch one"
                ) from exc
        self._pull(start, spec)
        return self._create(spec, arguments)

    def _create(self, spec: AgentSpec, arguments: dict[str, Any]) -> Sighting:
        try:
            with self._containers.translated():
                made = self._api.create_container(**arguments)
        except Conflict:
            return self._adopt(spec.agent_id)
        return Sighting(spec.agent_id, Phase.STARTING, {"container": made["Id"]})

    def _adopt(self, agent_id: str) -> Sighting:
        """Return the container that has the agent's name. That of another host of ours is replaced: it is ours now."""
        try:
            found = self._containers.inspect(agent_id)
        except NotFound as exc:
            raise EngineFault(f"its name is taken, and there is no container of that name: {exc}") from exc
        if self._removing(agent_id) or found["State"]["Status"] == "removing":
            raise EngineFault("its former container is being removed")
        if self._containers.owner.owns(found["Config"]["Labels"]):
            return sighting_of(found)
        self._containers.remove(found["Id"])
        raise EngineFault("its container belonged to another host, which lost it")

    def _pull(self, start: _Start, spec: AgentSpec) -> None:
        image = self._recipe.image(spec)
        self._watch.tell([Sighting(spec.agent_id, Phase.STARTING, reason=f"its image {image} is being pulled")])
        repository, tag = parse_repository_tag(image)
        try:
            with self._containers.translated():
                for line in self._api.pull(repository, tag=tag or "latest", stream=True, decode=True):
                    if "error" in line:
                        raise PermanentError(str(line["error"]))
                    if start.cancelled or self._closed:
                        raise TemporaryError("it is not wanted any more")
        except (EngineFault, NotFound, PermanentError) as exc:
            raise PermanentError(
                f"the image {image} is not on the engine and cannot be pulled: {exc}; build it there, or set "
                "BRAIN_AGENT_IMAGE or the group's `image` to one that can"
            ) from exc
