"""The Kubernetes driver: a pod per agent, on the cluster of a kubeconfig or on that which the host itself runs in.

What its credentials have to be allowed, in the namespace of the agents and nowhere else, all in the core API group:

    pods        create, get, list, watch, delete
    pods/log    get
    events      list
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from brain_clusters.domain.agents import AgentSpec, Loads
from brain_clusters.errors import BrainError, Conflict, NotFound, PermanentError, TemporaryError
from brain_clusters.genesis.driver import Driver, Kit, Phase, Sighting
from brain_clusters.genesis.kubernetes import status
from brain_clusters.genesis.kubernetes.api import Api
from brain_clusters.genesis.kubernetes.errands import Errands
from brain_clusters.genesis.kubernetes.following import GONE, Following, Seen
from brain_clusters.genesis.kubernetes.manifest import pod_manifest
from brain_clusters.genesis.kubernetes.naming import Owner
from brain_clusters.genesis.kubernetes.notes import Lasting, Removed
from brain_clusters.genesis.kubernetes.refusals import Denied
from brain_clusters.genesis.watching import Watch

log = logging.getLogger(__name__)

# Calls at once. The API server queues more than its fair share of one client anyway.
_THREADS = 8
# The least that a kubelet takes notice of. At 0 the pod would be forgotten while its processes still end.
_KILL_SECONDS = 1
# Kubelets before 1.22 do not shorten a grace that has begun, and one that is cut off ends nothing: then the pod is
# given up, which has a kubelet that hears of it kill at once.
_GIVE_UP_SECONDS = 10.0
_LOG_LINES = 200
_WONDERING = ""  # no agent's id
_WONDER_SECONDS = 10.0


class KubernetesDriver(Driver):
    """Creates and deletes pods in the background, and tells what the watch of them shows."""

    def __init__(self, kit: Kit, api: Api) -> None:
        self._kit = kit
        self._api = api
        self._errands = Errands(_THREADS)
        # These exist once the cluster, and this installation's database, have answered.
        self._owner: Owner
        self._following: Following
        self._watch: Watch
        self._removed = Removed()
        # The ends of those whose pods are gone.
        self._ended: dict[str, Sighting] = {}
        # By agent: why this driver ends one, what one had written, and when one was first killed.
        self._verdicts: dict[str, str] = {}
        self._logs: dict[str, str] = {}
        self._killed: dict[str, float] = {}
        self._opened = False
        self._hopeless = Lasting(kit.settings.start_timeout_seconds)
        self._silent = Lasting(_WONDER_SECONDS)

    @classmethod
    def make(cls, kit: Kit) -> KubernetesDriver:
        """Return the driver of the cluster that the settings and the environment name."""
        settings = kit.settings
        api = Api(
            kit.environ, context=settings.kubernetes_context, namespace=settings.kubernetes_namespace,
            connections=_THREADS + 2,
        )  # fmt: skip
        return cls(kit, api)

    def open(self) -> None:
        """Load the credentials, try them, and begin to watch."""
        self._api.connect()
        self._owner = Owner(self._kit.installation(), self._kit.host_id)
        self._following = Following(self._api, self._owner.selector, self._judge)
        try:
            self._following.list_now()
        except Denied as exc:
            raise PermanentError(str(exc)) from exc
        self._watch = Watch(self._following, gone=GONE)
        self._watch.start()
        self._opened = True

    # --- starting -----------------------------------------------------------------------------------------------

    def start(self, specs: Sequence[AgentSpec]) -> Sequence[Sighting]:
        """Have pods created."""
        pending = self._errands.pending() - self._removed.agents.keys()
        return [self._begin(spec, asked=spec.agent_id in pending) for spec in specs]

    def _begin(self, spec: AgentSpec, *, asked: bool) -> Sighting:
        agent_id = spec.agent_id
        seen = self._following.known.get(agent_id)
        if seen is not None:
            return self._told(seen)
        if agent_id in self._ended:
            return self._ended[agent_id]
        if not asked:
            self._removed.agents.pop(agent_id, None)
            self._watch.expect([agent_id])
            self._errands.put(agent_id, partial(self._create, spec), partial(self._explain, agent_id))
        return Sighting(agent_id, Phase.STARTING)

    def _create(self, spec: AgentSpec) -> None:
        """Create the pod, or take the one that is there: the answer to an earlier call may have been lost."""
        try:
            self._api.create_pod(pod_manifest(spec, self._kit, self._owner))
        except Conflict:
            self._adopt(spec.agent_id)
        except NotFound as exc:
            told = f"{exc}: make the namespace, or name another by BRAIN_KUBERNETES_NAMESPACE"
            raise TemporaryError(told, delay_seconds=10) from exc
        except PermanentError as exc:
            self._tell_end(Sighting(spec.agent_id, Phase.ENDED, reason=str(exc)))

    def _adopt(self, agent_id: str) -> None:
        try:
            pod = self._api.get_pod(self._owner.pod_name(agent_id))
        except NotFound as exc:
            raise TemporaryError("an earlier pod of its name is just gone", delay_seconds=0) from exc
        metadata = pod["metadata"]
        if status.agent_of(pod) != agent_id:
            told = f"its pod would be called {metadata['name']}, and that is somebody else's"
            self._tell_end(Sighting(agent_id, Phase.ENDED, reason=told))
        elif metadata["uid"] in self._removed.uids or not self._owner.owns(metadata["labels"]):
            with suppress(NotFound):
                self._api.delete_pod(metadata["name"], _KILL_SECONDS)
            raise TemporaryError("an earlier pod of its name has to go first", delay_seconds=0.5)

    def _explain(self, agent_id: str, exc: TemporaryError) -> None:
        """Tell why an agent has no pod yet."""
        log.warning("an agent waits for its pod: %s", exc, extra={"agent_id": agent_id})
        self._tell_beside(agent_id, None, Sighting(agent_id, Phase.STARTING, reason=str(exc)))

    def _tell_beside(self, agent_id: str, before: Seen | None, sighting: Sighting) -> None:
        """Tell what the watch does not show, unless it shows something else than ``before``, be it by now."""
        if self._following.known.get(agent_id) is before:
            self._watch.tell([sighting])
            after = self._following.known.get(agent_id)
            if after is not None and after is not before:
                self._watch.tell([self._told(after)])

    # --- ending -------------------------------------------------------------------------------------------------

    def drain(self, agent_ids: Sequence[str]) -> None:
        """Leave word in Redis."""
        self._kit.words.tell(agent_ids, drain=True)

    def resume(self, agent_ids: Sequence[str]) -> None:
        """Take the word back."""
        self._kit.words.tell(agent_ids, drain=False)

    def stop(self, agent_ids: Sequence[str], *, now: bool = False) -> None:
        """Have pods deleted: their kubelet sends SIGTERM, waits as long as the group allows, and kills.

        A busy kubelet is slow to send it; by the word in Redis they take no more jobs until then.
        """
        if not now:
            self._kit.words.tell(agent_ids, drain=True)
        for agent_id in agent_ids:
            self._errands.put(agent_id, partial(self._kill if now else self._stop, agent_id))

    def _stop(self, agent_id: str) -> None:
        seen = self._following.known.get(agent_id)
        self._end(agent_id, _KILL_SECONDS if seen is None else max(_KILL_SECONDS, seen.stop_seconds))

    def _kill(self, agent_id: str) -> None:
        since = self._killed.setdefault(agent_id, time.monotonic())
        given_up = time.monotonic() - since > _GIVE_UP_SECONDS
        self._end(agent_id, 0 if given_up else _KILL_SECONDS)

    def _end(self, agent_id: str, grace_seconds: int) -> None:
        """Have the pod of an agent deleted that lives. What it wrote goes with it, and is kept here."""
        seen = self._following.known.get(agent_id)
        if seen is not None and seen.sighting.phase is Phase.ENDED:
            return
        if seen is not None and seen.sighting.phase is Phase.RUNNING:
            with suppress(BrainError):
                self._logs[agent_id] = self._api.read_log(self._owner.pod_name(agent_id), _LOG_LINES)
        self._delete(agent_id, grace_seconds)

    def _delete(self, agent_id: str, grace_seconds: int) -> None:
        try:
            self._api.delete_pod(self._owner.pod_name(agent_id), grace_seconds)
        except NotFound:
            if agent_id not in self._following.known:  # else the watch has more to tell of its end
                self._tell_end(Sighting(agent_id, Phase.ENDED))

    def _tell_end(self, ended: Sighting) -> None:
        """Tell of an end that no pod shows."""
        if ended.agent_id not in self._removed.agents:
            self._ended.setdefault(ended.agent_id, ended)
            self._watch.tell([ended])

    def remove(self, agent_ids: Sequence[str]) -> None:
        """Have what is left of ended pods deleted."""
        self._watch.forget(agent_ids)
        for agent_id in agent_ids:
            seen = self._following.known.pop(agent_id, None)
            self._removed.add(agent_id, None if seen is None else seen.uid)
            for notes in (self._ended, self._verdicts, self._logs, self._killed):
                notes.pop(agent_id, None)
            self._errands.put(agent_id, partial(self._clear, agent_id))

    def _clear(self, agent_id: str) -> None:
        self._delete(agent_id, _KILL_SECONDS)
        self._kit.words.tell([agent_id], drain=False)

    # --- seeing -------------------------------------------------------------------------------------------------

    def sight(self, agent_ids: Sequence[str] | None = None) -> Sequence[Sighting]:
        """List the pods; those that are still to be created count, too."""
        seen = [one for one in self._following.list_now() if one.uid not in self._removed.uids]
        found = {one.sighting.agent_id: self._told(one) for one in seen}
        # Those whose pods are gone, and those whose pods are still to be created.
        found |= self._ended
        for agent_id in self._errands.pending() - found.keys() - {_WONDERING}:
            found[agent_id] = Sighting(agent_id, Phase.STARTING)
        wanted = found.keys() if agent_ids is None else set(agent_ids)
        return [found[agent_id] for agent_id in found if agent_id in wanted and agent_id not in self._removed.agents]

    def fileno(self) -> int:
        """Return the descriptor of the watch."""
        return self._watch.fileno()

    def changes(self) -> Sequence[Sighting]:
        """Take what the watch told, and go on with what had to wait."""
        self._errands.go_on()
        return self._watch.changes()

    def _judge(self, seen: Seen) -> Sighting | None:
        """Return what is to be told of a pod that the watch shows; None for one that was removed. In its thread."""
        agent_id = seen.sighting.agent_id
        if seen.uid in self._removed.uids:
            return None
        if agent_id in self._removed.agents and seen.there:
            # It was created, after all, by a call that was given up: nobody wants it any more.
            self._errands.put(agent_id, partial(self._delete, agent_id, _KILL_SECONDS))
        elif not seen.there:
            self._ended[agent_id] = self._told(seen)
        return self._told(seen)

    def _told(self, seen: Seen) -> Sighting:
        verdict = self._verdicts.get(seen.sighting.agent_id)
        if verdict is None or seen.sighting.phase is not Phase.ENDED:
            return seen.sighting
        return replace(seen.sighting, reason=verdict, code=None)

    def logs(self, agent_id: str, lines: int) -> str:
        """Read the pod's log; of one that was stopped and has ended, what it had written when it was stopped."""
        seen = self._following.known.get(agent_id)
        if agent_id in self._logs and (seen is None or seen.sighting.phase is Phase.ENDED):
            return "\n".join(self._logs[agent_id].splitlines()[-lines:])
        try:
            return self._api.read_log(self._owner.pod_name(agent_id), lines)
        except (NotFound, PermanentError):
            return ""

    # --- now and then -------------------------------------------------------------------------------------------

    def upkeep(self, warm: Sequence[Loads] | None) -> Mapping[str, int]:  # noqa: ARG002 - pods share no imports
        """End what cannot start, and ask why others take long."""
        starting = {
            agent_id: seen
            for agent_id, seen in self._following.known.copy().items()
            if seen.sighting.phase is Phase.STARTING
        }
        hopeless = [agent_id for agent_id, seen in starting.items() if seen.hopeless]
        for agent_id in self._hopeless.overdue(hopeless):
            self._verdicts.setdefault(agent_id, str(starting[agent_id].sighting.reason))
            self._errands.put(agent_id, partial(self._kill, agent_id))
        for agent_id, since in list(self._killed.items()):
            if time.monotonic() - since > _GIVE_UP_SECONDS and agent_id in self._following.known:
                self._errands.put(agent_id, partial(self._kill, agent_id))
        silent = [agent_id for agent_id, seen in starting.items() if seen.sighting.reason is None]
        if self._silent.overdue(silent):
            self._silent.begin_anew()
            self._errands.put(_WONDERING, partial(self._wonder, {agent_id: starting[agent_id] for agent_id in silent}))
        return {}

    def _wonder(self, silent: Mapping[str, Seen]) -> None:
        """Tell what the cluster's events say of pods whose status says nothing, such as a volume that is missing."""
        try:
            warnings = self._api.read_warnings()
        except BrainError as exc:
            log.warning("the events of pods cannot be read: %s", exc)
            return
        for agent_id, seen in silent.items():
            if seen.uid in warnings:
                self._tell_beside(agent_id, seen, replace(seen.sighting, reason=warnings[seen.uid]))

    def close(self) -> None:
        """Finish what was begun, and stop to watch. Pods live on."""
        self._errands.close()
        if self._opened:
            self._watch.close()
        self._api.close()
