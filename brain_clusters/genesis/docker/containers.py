"""What the engine shows of agents: its listing, its stream of events, and what they mean."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

import requests
from docker import APIClient
from docker.types import CancellableStream

from brain_clusters.errors import Conflict, NotFound
from brain_clusters.genesis.docker.daemon import translated
from brain_clusters.genesis.docker.recipe import AGENT_LABEL, Owner, out_of_memory
from brain_clusters.genesis.driver import Phase, Sighting

GONE = "its container was removed"
_TOLD = ["create", "start", "die", "destroy"]
# A stream that is silent for so long is opened anew, with a listing: a cut connection may look like silence.
_SILENCE_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
_PHASES = {"created": Phase.STARTING, "running": Phase.RUNNING, "paused": Phase.RUNNING, "restarting": Phase.RUNNING}


class Containers:
    """The containers of one host, as its engine shows them. Implements ``watching.Source``."""

    def __init__(self, api: APIClient, address: str, owner: Owner) -> None:
        self.owner = owner
        self._api = api
        self._address = address
        self._stream: CancellableStream[bytes] | None = None
        self._ending = False

    def translated(self) -> AbstractContextManager[None]:
        """Turn the errors of what is asked of this engine into ours."""
        return translated(self._address)

    def all(self) -> list[Sighting]:
        """Return every agent of this host. Raises TemporaryError."""
        with self.translated():
            entries = self._api.containers(all=True, filters=self.owner.filter)
        return [self._of_entry(entry) for entry in entries]

    def one(self, agent_id: str) -> Sighting | None:
        """Return one agent, None when it has no container. Raises TemporaryError."""
        try:
            found = self.inspect(agent_id)
        except NotFound:
            return None
        return sighting_of(found)

    def inspect(self, agent_id: str) -> dict[str, Any]:
        """Return what the engine knows of an agent's container. Raises NotFound or TemporaryError."""
        with self.translated():
            found: dict[str, Any] = self._api.inspect_container(self.owner.name(agent_id))
        return found

    def remove(self, container: str) -> None:
        """Remove a container by name or id, with what is in it; one that is gone or going is. Raises TemporaryError."""
        with suppress(NotFound, Conflict), self.translated():
            self._api.remove_container(container, v=True, force=True)

    def _of_entry(self, entry: Mapping[str, Any]) -> Sighting:
        """Return the sighting of an entry of a listing, which says little of those that ended."""
        agent_id = entry["Labels"][AGENT_LABEL]
        phase = _PHASES.get(entry["State"], Phase.ENDED)
        if phase is Phase.ENDED:
            return self.one(agent_id) or Sighting(agent_id, Phase.ENDED, reason=GONE)
        return Sighting(agent_id, phase, {"container": entry["Id"]})

    # --- the stream ---------------------------------------------------------------------------------------------

    def follow(self) -> Iterator[Sequence[Sighting]]:
        """Yield all, then each that an event is about, as it is by then: what an event says may be out of date."""
        with self.translated():
            response = self._open()
        # Its end, by silence or by a cut, is no error.
        self._stream = CancellableStream(response.iter_lines(chunk_size=None), response)
        try:
            if self._ending:
                return
            yield self.all()
            for line in self._stream:
                agent_id = json.loads(line)["Actor"]["Attributes"][AGENT_LABEL]
                yield [self.one(agent_id) or Sighting(agent_id, Phase.ENDED, reason=GONE)]
        finally:
            self._stream = None
            response.close()

    def _open(self) -> requests.Response:
        """Open the stream; a listing is made after it began. Not by ``APIClient.events``: that waits for ever."""
        filters = {**self.owner.filter, "type": ["container"], "event": _TOLD}
        response = self._api.get(
            f"{self._api.base_url}/v{self._api.api_version}/events",
            params={"filters": json.dumps(filters)}, stream=True, timeout=(_CONNECT_SECONDS, _SILENCE_SECONDS),
        )  # fmt: skip
        response.raise_for_status()
        return response

    def hang_up(self) -> None:
        """Close the stream, also one that is being opened."""
        self._ending = True
        stream = self._stream
        if stream is not None:
            with suppress(OSError, AttributeError):  # it may have ended just now
                stream.close()


def sighting_of(found: Mapping[str, Any]) -> Sighting:
    """Return what the inspection of a container means."""
    agent_id, state = found["Config"]["Labels"][AGENT_LABEL], found["State"]
    handle = {"container": found["Id"]}
    phase = _PHASES.get(state["Status"], Phase.ENDED)
    if phase is not Phase.ENDED:
        return Sighting(agent_id, phase, handle)
    code = _code(state["ExitCode"])
    if state["OOMKilled"]:
        return Sighting(agent_id, phase, handle, reason=out_of_memory(found["HostConfig"]["Memory"]), code=code)
    return Sighting(agent_id, phase, handle, reason=_how_it_ended(code), code=code)


def _code(told: int) -> int:
    """Return an exit code as Python tells it: an init reports a signal as 128 and its number."""
    numbers = {int(number) for number in signal.Signals}
    return 128 - told if told - 128 in numbers else told


def _how_it_ended(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exited with {code} unasked"
