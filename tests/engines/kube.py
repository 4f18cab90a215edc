"""A namespace of the tests' own on the Kubernetes of KUBECONFIG, and how to look at and hurt what runs in it."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_AGENT_ID = "brain-clusters/agent-id"


class Kube:
    """One namespace, as an operator sees it."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    @classmethod
    @contextmanager
    def made(cls) -> Iterator[Kube]:
        """A new namespace; it is deleted with all that is in it."""
        found = cls(f"brain-test-{uuid.uuid4().hex[:8]}")
        found.kubectl("create", "namespace", found.namespace)
        try:
            yield found
        finally:
            # Or the namespace waits for each of them to end by itself.
            found.kubectl("delete", "pods", "--all", "--grace-period=0", "--force")
            found.kubectl("delete", "namespace", found.namespace)

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """Run kubectl in the namespace; return what it printed."""
        command = ["kubectl", "--namespace", self.namespace, *arguments]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def apply(self, manifest: Mapping[str, Any]) -> None:
        """Make an object, or change it."""
        self.kubectl("apply", "-f", "-", given=json.dumps(manifest))

    def pods(self, selector: str = "") -> dict[str, Any]:
        """Return the pods of agents by the agents' ids."""
        found = json.loads(self.kubectl("get", "pods", "--selector", selector, "--output", "json"))["items"]
        return {pod["metadata"]["annotations"][_AGENT_ID]: pod for pod in found}

    def delete_pod(self, agent: str, *, now: bool = False) -> None:
        """Delete the pod of an agent as an operator does, with the pod's own grace or with none.

        Without a grace the pod is forgotten at once, and its processes have two more seconds.
        """
        how = ["--grace-period=0", "--force"] if now else ["--wait=false"]
        self.kubectl("delete", "pod", self.name(agent), *how)

    def kill(self, agent: str) -> None:
        """Kill the processes in the pod of an agent. They all have one user."""
        self.kubectl("exec", self.name(agent), "--", "sh", "-c", "kill -9 -1")

    def name(self, agent: str) -> str:
        """Return the name of an agent's pod."""
        return str(self.pods()[agent]["metadata"]["name"])

    def left_after(self, seconds: float) -> list[str]:
        """Return what pods there still are after so long; the last ones may be about to go."""
        deadline = time.monotonic() + seconds
        while (left := self.pods()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return [f"{agent} {pod['status']['phase']}" for agent, pod in left.items()]

    @contextmanager
    def cordoned(self) -> Iterator[None]:
        """Let no node take new pods for a moment. All who share the cluster feel it, so be quick."""
        nodes = self.kubectl("get", "nodes", "--output", "name").split()
        try:
            self.kubectl("cordon", *nodes)
            yield
        finally:
            self.kubectl("uncordon", *nodes)
