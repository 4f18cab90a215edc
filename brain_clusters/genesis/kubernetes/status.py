"""What a pod's status means for its agent, and what of it a person should read."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from brain_clusters.genesis.driver import Phase, Sighting
from brain_clusters.genesis.kubernetes.api import Pod
from brain_clusters.genesis.kubernetes.naming import AGENT_ID

# A container that waits for one of these has begun nothing, and begins nothing until somebody mends something.
_HOPELESS = frozenset(
    ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError",
     "CreateContainerConfigError", "CreateContainerError", "RunContainerError")
)  # fmt: skip
_ON_ITS_WAY = frozenset(("ContainerCreating", "PodInitializing"))
_SIGNALED = 128


def agent_of(pod: Pod) -> str | None:
    """Return the id of the agent that a pod is; None for what is no agent's."""
    found: str | None = pod["metadata"].get("annotations", {}).get(AGENT_ID)
    return found


def is_leaving(pod: Pod) -> bool:
    """Whether somebody had it deleted, and it has not ended yet."""
    return pod["metadata"].get("deletionTimestamp") is not None


def is_hopeless(pod: Pod) -> bool:
    """Whether it cannot start as things are."""
    return _state(pod).get("waiting", {}).get("reason") in _HOPELESS


def sighting(pod: Pod, agent_id: str) -> Sighting:
    """Return what is to be told of a pod that is there."""
    handle = {"pod": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]}
    node = pod["spec"].get("nodeName")
    if node is not None:
        handle["node"] = node
    status, state = pod.get("status", {}), _state(pod)
    if status.get("phase") in ("Succeeded", "Failed"):
        reason, code = _end(status, state.get("terminated", {}))
        return Sighting(agent_id, Phase.ENDED, handle, reason=reason, code=code)
    if "running" in state or "terminated" in state:
        return Sighting(agent_id, Phase.RUNNING, handle, reason=_lost_node(pod))
    return Sighting(agent_id, Phase.STARTING, handle, reason=_delay(pod))


def vanished(pod: Pod, agent_id: str) -> Sighting:
    """Return what is to be told of a pod that is there no more, as it was last seen."""
    last = sighting(pod, agent_id)
    if last.phase is Phase.ENDED:
        return last
    disruption = _condition(pod.get("status", {}), "DisruptionTarget", "True").get("message")
    code = _code(_state(pod).get("terminated", {}))
    told = f"its pod was deleted: {disruption}" if disruption else "its pod was deleted"
    return Sighting(agent_id, Phase.ENDED, last.handle, reason=None if code == 0 else told, code=code)


def _state(pod: Pod) -> Mapping[str, Any]:
    """Return the state of the agent's container, the pod's only one: {running, waiting or terminated: {...}}."""
    states = pod.get("status", {}).get("containerStatuses") or [{}]
    found: Mapping[str, Any] = states[0].get("state", {})
    return found


def _condition(status: Mapping[str, Any], kind: str, value: str) -> Mapping[str, Any]:
    conditions = status.get("conditions") or []
    return next((one for one in conditions if one["type"] == kind and one["status"] == value), {})


def _delay(pod: Pod) -> str | None:
    """Return why it has not started, None while everything is on its way."""
    unscheduled = _condition(pod.get("status", {}), "PodScheduled", "False")
    if unscheduled:
        return f"{unscheduled.get('reason', 'Unschedulable')}: {unscheduled.get('message', 'no node for it yet')}"
    waiting = _state(pod).get("waiting", {})
    reason, message = waiting.get("reason"), waiting.get("message") or ""
    if reason is None or reason in _ON_ITS_WAY:
        return None
    image = pod["spec"]["containers"][0]["image"]
    # Registries that do not answer are told without the image that was asked for.
    return _sentence(f"{reason} of {image}" if "Image" in reason and image not in message else reason, message)


def _lost_node(pod: Pod) -> str | None:
    """Return that nobody knows what became of it, as its node tells nothing any more."""
    status = pod.get("status", {})
    lost = status.get("reason") == "NodeLost" or _condition(status, "Ready", "Unknown")
    return f"its node {pod['spec'].get('nodeName')} does not answer" if lost else None


def _end(status: Mapping[str, Any], terminated: Mapping[str, Any]) -> tuple[str | None, int | None]:
    """Return (why it ended, what it exited with); no reason for one that just left."""
    code = _code(terminated)
    if status.get("phase") == "Succeeded":
        return None, code or 0
    if status.get("reason"):  # Evicted, DeadlineExceeded, OutOfcpu, Shutdown, ...: the kubelet's doing
        return _sentence(status["reason"], status.get("message")), code
    reason = terminated.get("reason")
    if reason == "OOMKilled":
        return "OOMKilled: it took more memory than its group's resources allow", code
    if reason not in (None, "Error", "Completed"):  # such as ContainerCannotRun: then the code is the runtime's
        return _sentence(reason, terminated.get("message")), None
    return (None if code is None else _how(code)), code


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code} unasked"


def _code(terminated: Mapping[str, Any]) -> int | None:
    """Return an exit code; negative for a signal, which container runtimes tell as 128 more."""
    code: int | None = terminated.get("exitCode")
    if code is None:
        return None
    number = terminated.get("signal") or code - _SIGNALED
    return -number if number in {int(one) for one in signal.Signals} else code


def _sentence(reason: str | None, message: str | None) -> str:
    return f"{reason}: {message}"[:1000] if message else str(reason)
