"""The driver ``remote``: has a Genesis service start agents, by HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from brain_clusters.domain.agents import AgentSpec, Loads
from brain_clusters.errors import BrainError, TemporaryError
from brain_clusters.genesis.driver import Driver, Kit, Phase, Sighting
from brain_clusters.genesis.remote.client import GenesisClient, Refused
from brain_clusters.genesis.remote.following import Following
from brain_clusters.genesis.remote.forms import sent_config, sightings
from brain_clusters.genesis.remote.spawn import SpawnDriver
from brain_clusters.genesis.watching import Watch

_GONE = "the Genesis service does not know it any more; it ended while the service was away"
_NEVER = "it was stopped before the Genesis service had started it"
_NOT_FOUND = 404


def make(kit: Kit) -> Driver:
    """Return the driver for what the service speaks. Raises ConfigError."""
    return SpawnDriver.make(kit) if kit.settings.genesis_dialect == "spawn" else RemoteDriver.make(kit)


class RemoteDriver(Driver):
    """Speaks docs/genesis-openapi.yaml. host_id: whose agents it sees; config: what its agents are given.

    installation: as in ``Kit``; asked for once the service is there, as it may need a database.

    What the service has not taken yet is owed: it is STARTING, with the reason, and sent again at each upkeep.
    """

    def __init__(
        self, client: GenesisClient, polling: GenesisClient, host_id: str, config: Mapping[str, Any],
        installation: Callable[[], str],
    ) -> None:  # fmt: skip
        self._client = client
        self._path = f"/v1/hosts/{quote(host_id, safe='')}"
        self._config = dict(config)
        self._installation = installation
        self._lock = threading.Lock()
        self._versions: dict[str, int] = {}
        self._owed: dict[str, AgentSpec] = {}
        self._warm: Any = None
        self._warm_sent: Any = None
        self._memory: Mapping[str, int] = {}
        self._following = Following(
            polling, self._path, lambda ask: self._opening(ask, polling), self._sift, lambda: self._keep_warm(polling)
        )
        self._watch = Watch(self._following, gone=_GONE)

    @classmethod
    def make(cls, kit: Kit) -> RemoteDriver:
        """Return the driver of the service that the settings name."""
        config = sent_config({**kit.agent, "redis_url": kit.settings.agent_redis_url or kit.agent["redis_url"]})
        return cls(
            GenesisClient.of(kit.settings), GenesisClient.of(kit.settings), kit.host_id, config, kit.installation
        )

    def open(self) -> None:
        """Open this host at the service, and begin to follow."""
        self._open_host(self._client)
        self._watch.start()

    def start(self, specs: Sequence[AgentSpec]) -> Sequence[Sighting]:
        """Have them started, in one request. While that fails they are owed."""
        ids = [spec.agent_id for spec in specs]
        self._watch.expect(ids)
        self._owed.update({spec.agent_id: spec for spec in specs})
        return self._pay(ids)

    def drain(self, agent_ids: Sequence[str]) -> None:
        """Have the service tell them."""
        self._tell("drain", agent_ids)

    def resume(self, agent_ids: Sequence[str]) -> None:
        """Have the service tell them."""
        self._tell("resume", agent_ids)

    def stop(self, agent_ids: Sequence[str], *, now: bool = False) -> None:
        """Have the service end them, those that are owed, too: they may have been started all the same."""
        known = {one.agent_id for one in self._tell("stop", agent_ids, now=now)}
        never = [agent_id for agent_id in agent_ids if self._owed.pop(agent_id, None) and agent_id not in known]
        self._watch.tell(Sighting(agent_id, Phase.ENDED, reason=_NEVER) for agent_id in never)

    def sight(self, agent_ids: Sequence[str] | None = None) -> Sequence[Sighting]:
        """Ask the service for all."""
        found = [sighting for _, sighting in self._read(self._call("GET", "/agents"))]
        return found if agent_ids is None else [one for one in found if one.agent_id in set(agent_ids)]

    def fileno(self) -> int:
        """Return the watch's descriptor."""
        return self._watch.fileno()

    def changes(self) -> Sequence[Sighting]:
        """Take what the watch was told."""
        return self._watch.changes()

    def remove(self, agent_ids: Sequence[str]) -> None:
        """Have the service forget them."""
        self._tell("remove", agent_ids)
        self._watch.forget(agent_ids)
        with self._lock:
            for agent_id in agent_ids:
                self._versions.pop(agent_id, None)

    def logs(self, agent_id: str, lines: int) -> str:
        """Ask the service."""
        found = self._call("GET", f"/agents/{quote(agent_id, safe='')}/logs?lines={max(1, min(lines, 1000))}")
        return str(found.get("text", ""))

    def upkeep(self, warm: Sequence[Loads] | None) -> Mapping[str, int]:
        """Send what is owed; ``warm`` goes with the next poll. Raises nothing: a host beats after it."""
        if warm is not None:
            self._warm = [asdict(loads) for loads in warm]
        if self._owed:
            self._watch.tell(self._pay(list(self._owed)))
        return self._memory

    def close(self) -> None:
        """Stop to follow."""
        self._watch.close()
        self._following.close()
        self._client.close()

    # --- starting -----------------------------------------------------------------------------------------------

    def _pay(self, agent_ids: Sequence[str]) -> Sequence[Sighting]:
        """Send the specs that are owed of ``agent_ids``; return how it stands with them."""
        specs = [self._owed[agent_id] for agent_id in agent_ids]
        try:
            found = self._call("POST", "/agents", {"agents": [spec.as_dict() for spec in specs]})
            with self._lock:
                taken = self._news(self._read(found))
                self._watch.tell(taken)
        except BrainError as exc:
            return [Sighting(agent_id, Phase.STARTING, reason=str(exc)) for agent_id in agent_ids]
        for agent_id in agent_ids:
            del self._owed[agent_id]
        return taken

    # --- calls --------------------------------------------------------------------------------------------------

    def _tell(self, verb: str, agent_ids: Sequence[str], **more: bool) -> Sequence[Sighting]:
        found = self._call("POST", f"/agents/{verb}", {"agent_ids": list(agent_ids), **more})
        return [sighting for _, sighting in self._read(found)]

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        found = self._opening(lambda: self._client.call(method, f"{self._path}{path}", body), self._client)
        if not isinstance(found, dict):
            raise TemporaryError(f"what answers at {self._client.place} is no Genesis service")
        return found

    def _opening(self, ask: Callable[[], Any], client: GenesisClient) -> Any:
        """Return what ``ask`` returns; a service that has been started anew does not know this host, and is told."""
        try:
            return ask()
        except Refused as exc:
            if exc.status != _NOT_FOUND:
                raise
        self._open_host(client)
        return ask()

    def _open_host(self, client: GenesisClient) -> None:
        try:
            client.call("PUT", self._path, {"agent": self._config, "installation": self._installation()})
        except Refused as exc:
            if exc.status != _NOT_FOUND:
                raise
            raise TemporaryError(
                f"{exc}: no Genesis service that speaks the native dialect is there; see BRAIN_GENESIS_URL, "
                "BRAIN_GENESIS_DIALECT"
            ) from exc
        self._warm_sent = None

    # --- what is told -------------------------------------------------------------------------------------------

    def _read(self, found: Any) -> list[tuple[int, Sighting]]:
        return sightings(found, self._client.place)

    def _sift(self, found: Any, whole: bool) -> Sequence[Sighting]:
        """Take the watch's answers, in its thread."""
        self._memory = found.get("memory", self._memory)
        read = self._read(found)
        with self._lock:
            if whole:
                self._versions = {}
            return self._news(read)

    def _news(self, read: Sequence[tuple[int, Sighting]]) -> list[Sighting]:
        """Return what is no older than what came before: answers of two connections may pass each other."""
        news = []
        for version, sighting in read:
            if version >= self._versions.get(sighting.agent_id, 0):
                self._versions[sighting.agent_id] = version
                news.append(sighting)
        return news

    def _keep_warm(self, client: GenesisClient) -> None:
        warm = self._warm
        if warm != self._warm_sent:
            client.call("PUT", f"{self._path}/warm", {"warm": warm})
            self._warm_sent = warm
