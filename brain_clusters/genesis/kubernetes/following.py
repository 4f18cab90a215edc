"""Keeps track of the pods of one host: lists them, watches them, and lists again when the watch lost its place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from brain_clusters.errors import TemporaryError
from brain_clusters.genesis.driver import Phase, Sighting
from brain_clusters.genesis.kubernetes import status
from brain_clusters.genesis.kubernetes.api import Api, Pod
from brain_clusters.genesis.kubernetes.naming import STOP_SECONDS
from brain_clusters.genesis.kubernetes.refusals import Expired

GONE = "its pod is gone"
# A watch that ends sooner than this, and told nothing, is no stream that can be followed.
_SOON_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A pod as it was last seen. uid: which pod of its name it is. there: it was not deleted yet.

    stop_seconds: how long it may finish what it does when it is stopped. hopeless: it cannot start as things are.
    """

    sighting: Sighting
    uid: str
    there: bool
    stop_seconds: int
    hopeless: bool


class Following:
    """The ``watching.Source`` of this driver. known: what was seen, by agent.

    judge: has the last word on what is told of a pod; None leaves it aside.
    """

    def __init__(self, api: Api, selector: str, judge: Callable[[Seen], Sighting | None]) -> None:
        self.known: dict[str, Seen] = {}
        self._api = api
        self._selector = selector
        self._judge = judge
        self._hung_up = False

    def list_now(self) -> list[Seen]:
        """Return all pods as they are now. Raises TemporaryError. What is known stays as the watch told it."""
        pods, _ = self._api.list_pods(self._selector)
        return [seen for pod in pods if (seen := _seen(pod)) is not None]

    def follow(self) -> Iterator[Sequence[Sighting]]:
        """Yield all, then those that change. A watch that was cut goes on where it was."""
        pods, version = self._api.list_pods(self._selector)
        seen = [one for pod in pods if (one := _seen(pod)) is not None]
        missing = self.known.keys() - {one.sighting.agent_id for one in seen}
        seen += [_lost(self.known[agent_id]) for agent_id in missing]
        yield [sighting for one in seen for sighting in self._note(one)]
        while not self._hung_up:
            began, told = time.monotonic(), False
            try:
                for kind, pod in self._api.watch_pods(self._selector, version):
                    version, told = pod["metadata"]["resourceVersion"], True
                    yield self._note(_seen(pod, there=kind != "DELETED"))
            except Expired:
                return
            if not told and time.monotonic() - began < _SOON_SECONDS and not self._hung_up:
                raise TemporaryError("Kubernetes ends the watch of pods as soon as it begins")

    def hang_up(self) -> None:
        """End the watch."""
        self._hung_up = True
        self._api.hang_up()

    def _note(self, seen: Seen | None) -> list[Sighting]:
        """Return what is to be told of a pod: nothing of what is none of ours, nor of bookmarks, which are no pods."""
        told = None if seen is None else self._judge(seen)
        if seen is None or told is None:
            return []
        if seen.there:
            self.known[told.agent_id] = seen
        else:
            self.known.pop(told.agent_id, None)
        return [told]


def _lost(seen: Seen) -> Seen:
    """Return what is seen of a pod whose end was not: it was deleted while nobody watched."""
    last = seen.sighting
    if last.phase is not Phase.ENDED:
        last = Sighting(last.agent_id, Phase.ENDED, last.handle, reason=GONE)
    return replace(seen, sighting=last, there=False)


def _seen(pod: Pod, *, there: bool = True) -> Seen | None:
    agent_id = status.agent_of(pod)
    if agent_id is None:
        return None
    metadata = pod["metadata"]
    return Seen(
        sighting=status.sighting(pod, agent_id) if there else status.vanished(pod, agent_id),
        uid=metadata["uid"],
        there=there,
        stop_seconds=int(metadata["annotations"].get(STOP_SECONDS, 0)),
        hopeless=there and status.is_hopeless(pod),
    )
