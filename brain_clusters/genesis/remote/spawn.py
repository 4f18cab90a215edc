"""The dialect ``spawn``: a service that knows one call, ``POST /api/genesis/spawn``, made once for each agent.

That is all that is known of the reference's Genesis, so nothing else is asked for: that an agent lives is seen by its
beats, it drains by the word in Redis, and ``DELETE /api/genesis/agents/{id}`` kills it, where there is such a call.
docs/drivers.md says what is assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from brain_clusters.broker import backlog
from brain_clusters.broker.client import connect
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.errors import BrainError, InvalidInput
from brain_clusters.genesis.driver import Driver, Kit, Sighting, Words
from brain_clusters.genesis.remote.client import GenesisClient, Refused
from brain_clusters.genesis.remote.pulse import Pulse
from brain_clusters.genesis.watching import Watch

_SPAWN = "/api/genesis/spawn"
_AGENTS = "/api/genesis/agents"
# Where a service has no such call; for the call that it must have, these are refusals.
_NO_SUCH_CALL = (404, 405, 501)
_EXISTS = 409


class SpawnDriver(Driver):
    """Has agents spawned one by one. What was not taken is owed, and sent again at each upkeep.

    hang_up: closes what ``pulse`` asks.
    """

    def __init__(self, client: GenesisClient, words: Words, pulse: Pulse, hang_up: Callable[[], None]) -> None:
        self._client = client
        self._hang_up = hang_up
        self._words = words
        self._pulse = pulse
        self._owed: dict[str, AgentSpec] = {}
        self._watch = Watch(pulse, gone="its beats ceased")

    @classmethod
    def make(cls, kit: Kit) -> SpawnDriver:
        """Return the driver of the service that the settings name."""
        client = connect(str(kit.agent["redis_url"]))
        pulse = Pulse(
            lambda agent_ids: backlog.read(client, [], agent_ids).beats.keys(),
            first_seconds=kit.settings.start_timeout_seconds,
            stale_seconds=kit.settings.beat_stale_seconds,
        )
        return cls(GenesisClient.of(kit.settings, again=(408, 425, 429)), kit.words, pulse, client.close)

    def open(self) -> None:
        """Begin to follow the beats. Whether the service answers is seen by the first spawn."""
        self._watch.start()

    def start(self, specs: Sequence[AgentSpec]) -> Sequence[Sighting]:
        """Have each spawned that does not beat already."""
        ids = [spec.agent_id for spec in specs]
        self._watch.expect(ids)
        there = {one.agent_id for one in self.sight(ids)}
        self._owed.update({spec.agent_id: spec for spec in specs if spec.agent_id not in there})
        self._pay([agent_id for agent_id in ids if agent_id not in there])
        return self._pulse.sightings(ids)

    def drain(self, agent_ids: Sequence[str]) -> None:
        """Put the word into Redis."""
        self._words.tell(agent_ids, drain=True)
        self._pulse.note_told(agent_ids, drains=True)

    def resume(self, agent_ids: Sequence[str]) -> None:
        """Take the word back."""
        self._words.tell(agent_ids, drain=False)
        self._pulse.note_told(agent_ids, drains=False)

    def stop(self, agent_ids: Sequence[str], *, now: bool = False) -> None:
        """Put the word into Redis; now: also have the service kill them, if it knows how."""
        self._words.tell(agent_ids, drain=True)
        self._pulse.note_told(agent_ids, drains=True)
        for agent_id in agent_ids:
            if self._owed.pop(agent_id, None) is not None:
                self._pulse.refuse(agent_id, "it was stopped before the Genesis service had spawned it")
        for agent_id in agent_ids if now else ():
            self._kill(agent_id)

    def sight(self, agent_ids: Sequence[str] | None = None) -> Sequence[Sighting]:
        """Return those that beat, and those that were spawned and are to beat soon."""
        if agent_ids is not None:
            self._pulse.find(agent_ids)
        return self._pulse.sightings(agent_ids)

    def fileno(self) -> int:
        """Return the watch's descriptor."""
        return self._watch.fileno()

    def changes(self) -> Sequence[Sighting]:
        """Take what the watch saw."""
        return self._watch.changes()

    def remove(self, agent_ids: Sequence[str]) -> None:
        """Forget them. One that begins after all, or was only out of sight, is told to leave."""
        self._words.tell(agent_ids, drain=True)
        self._watch.forget(agent_ids)
        self._pulse.forget(agent_ids)

    def logs(self, agent_id: str, lines: int) -> str:  # noqa: ARG002
        """Return nothing: there is no call for it."""
        return ""

    def upkeep(self, warm: object) -> Mapping[str, int]:  # noqa: ARG002
        """Spawn what is owed."""
        self._pay(list(self._owed))
        return {}

    def close(self) -> None:
        """Stop to follow."""
        self._watch.close()
        self._hang_up()
        self._client.close()

    # --- calls --------------------------------------------------------------------------------------------------

    def _pay(self, agent_ids: Sequence[str]) -> None:
        """Spawn what is owed; the first that fails for now keeps the others, too, so that a host is not held up."""
        for place, agent_id in enumerate(agent_ids):
            try:
                self._client.call("POST", _SPAWN, body_of(self._owed[agent_id]))
            except InvalidInput as exc:
                if not (isinstance(exc, Refused) and exc.status == _EXISTS):
                    self._pulse.refuse(agent_id, str(exc))
                    del self._owed[agent_id]
                    continue
            except BrainError as exc:
                self._pulse.delay(agent_ids[place:], str(exc))
                return
            del self._owed[agent_id]
            self._pulse.expect(agent_id)

    def _kill(self, agent_id: str) -> None:
        try:
            self._client.call("DELETE", f"{_AGENTS}/{quote(agent_id, safe='')}")
        except Refused as exc:
            if exc.status not in _NO_SUCH_CALL:
                raise


def body_of(spec: AgentSpec) -> dict[str, Any]:
    """Return the body of the call for ``spec``. Raises InvalidInput where its group does not say of what.

    The group's ``config`` may name the service's blueprint (``genesis_blueprint``; else it is ours) and the traits
    (``trait_overrides``; else all its numbers, texts and truth values). Three traits say what it is to work for.
    """
    config = dict(spec.config)
    blueprint = config.pop("genesis_blueprint", spec.blueprint_id)
    if not isinstance(blueprint, str) or not blueprint:
        raise InvalidInput("config.genesis_blueprint must be the id of a blueprint of the Genesis service")
    traits = config.get("trait_overrides")
    if not isinstance(traits, Mapping):
        traits = {key: value for key, value in config.items() if isinstance(value, bool | int | float | str)}
    ours = {"brain.cluster_id": spec.cluster_id, "brain.group": spec.group_name, "brain.queue": spec.queue}
    return {
        "blueprint_id": blueprint,
        "agent_id": spec.agent_id,
        "trait_overrides": {**traits, **ours},
        "seed": seed_of(spec.agent_id),
    }


def seed_of(agent_id: str) -> int:
    """Return the seed of an agent: the same each time, below 2**31."""
    return int.from_bytes(sha256(agent_id.encode()).digest()[:4]) >> 1
