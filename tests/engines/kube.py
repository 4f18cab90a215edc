"""A namespace of the tests' own on the Kubernetes of KUBECONFIG, and how to look at and hurt what runs in it."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Kube:
    """One namespace. Pods can be looked at and hurt as an operator would do it."""

    def __init__(self) -> None:
        self.namespace = f"brain-test-{uuid.uuid4().hex[:8]}"

    def kubectl(self, *arguments: str, given: str | None = None, check: bool = True) -> str:
        """Run kubectl in the namespace; return what it printed."""
        command = ["kubectl", "--namespace", self.namespace, *arguments]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
        return done.stdout

    def create(self) -> None:
        """Make the namespace."""
        self.kubectl("create", "namespace", self.namespace)

    def delete(self) -> None:
        """Delete the namespace and all that is in it, and wait until it is gone."""
        self.kubectl("delete", "pods", "--all", "--grace-period=0", "--force", check=False)
        self.kubectl("delete", "namespace", self.namespace)

    def apply(self, manifest: dict[str, Any]) -> None:
        """Make an object, or change it."""
        self.kubectl("apply", "-f", "-", given=json.dumps(manifest))

    def pods(self, selector: str = "") -> dict[str, Any]:
        """Return the pods by the ids of their agents."""
        found = json.loads(self.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
        return {pod["metadata"]["annotations"]["brain-clusters/agent-id"]: pod for pod in found}

    @contextmanager
    def cordoned(self) -> Iterator[None]:
        """Let no node take new pods for a moment. All tests that share the cluster feel it, so be quick."""
        nodes = self.kubectl("get", "nodes", "-o", "name").split()
        try:
            for node in nodes:
                self.kubectl("cordon", node)
            yield
        finally:
            for node in nodes:
                self.kubectl("uncordon", node)
