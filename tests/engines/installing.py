"""An installation from deploy/kubernetes in namespaces of its own, on the network of a node and on the tests' servers.

On that network since the servers of the tests listen on loopback only, and an engine for tests may have no services.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "deploy" / "kubernetes"
Manifest = dict[str, Any]


def kubectl(*arguments: str, given: str | None = None) -> str:
    """Run kubectl and return what it printed; fail with what it said."""
    done = subprocess.run(["kubectl", *arguments], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}{done.stdout}"
    return done.stdout


def built(folder: Path) -> list[Manifest]:
    """Return the objects that ``kubectl apply -k`` would apply."""
    return [found for found in yaml.safe_load_all(kubectl("kustomize", str(folder))) if found]


def apply(manifests: list[Manifest], *options: str) -> None:
    """Apply objects, and have the server judge every field."""
    given = yaml.safe_dump_all(manifests)
    kubectl("apply", "--server-side", "--force-conflicts", *options, "-f", "-", given=given)


@dataclass
class Installation:
    """deploy/kubernetes as applied for one test. prefix: of both namespaces. port: of the API on loopback."""

    prefix: str
    image: str
    port: int
    database_url: str
    redis_url: str
    settings: dict[str, str] = field(default_factory=dict)
    key: str = "only-for-this-very-test"

    @property
    def control_plane(self) -> str:
        """The namespace of the control plane."""
        return self.prefix

    @property
    def agents(self) -> str:
        """The namespace of agents."""
        return f"{self.prefix}-agents"

    def manifests(self) -> list[Manifest]:
        """Return the objects as they are applied here, Secrets and all."""
        objects = built(MANIFESTS)
        for each in objects:
            self._rename(each)
            for change in (self._set, self._to_the_node, _to_this_version):
                change(each)
        return [*objects, *self._secrets()]

    def install(self) -> None:
        """Apply all of it."""
        found = self.manifests()
        apply([each for each in found if each["kind"] == "Namespace"])
        apply([each for each in found if each["kind"] != "Namespace"])

    def remove(self) -> None:
        """Remove it, the host before its agents, and wait until nothing is left."""
        kubectl("delete", "namespace", "--ignore-not-found", self.control_plane)
        # Their namespace would wait for as long as busy ones may finish what they do.
        kubectl("-n", self.agents, "delete", "pods", "--all", "--grace-period=1", "--wait=false")
        kubectl("delete", "namespace", "--ignore-not-found", self.agents)

    def rollout(self) -> None:
        """Wait until every Deployment has the pods that it should have, and all of them are ready."""
        for name in kubectl("-n", self.control_plane, "get", "deployments", "-o", "name").split():
            kubectl("-n", self.control_plane, "rollout", "status", name, "--timeout=280s")

    def pods(self, namespace: str) -> dict[str, str]:
        """Return the uid of each pod by its name."""
        found = json.loads(kubectl("-n", namespace, "get", "pods", "-o", "json"))
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in found["items"]}

    def can(self, verb: str, what: str, namespace: str, account: str) -> bool:
        """Return whether Kubernetes lets a service account of the control plane do something."""
        subject = f"system:serviceaccount:{self.control_plane}:{account}"
        resource, _, part = what.partition("/")
        asked = [
            "kubectl",
            "auth",
            "can-i",
            verb,
            resource,
            f"--subresource={part}",
            "-n",
            namespace,
            f"--as={subject}",
        ]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() == "yes"

    def _rename(self, found: Any) -> None:
        for place in _places(found):
            for key, value in place.items() if isinstance(place, dict) else enumerate(place):
                if value in ("brain-clusters", "brain-clusters-agents") and _names_a_namespace(found, place, key):
                    place[key] = str(value).replace("brain-clusters", self.prefix)

    def _set(self, found: Manifest) -> None:
        if found["kind"] == "ConfigMap":
            found["data"] |= {"BRAIN_AGENT_IMAGE": self.image, "BRAIN_KUBERNETES_NAMESPACE": self.agents}
            found["data"] |= {"BRAIN_TICK_INTERVAL_SECONDS": "0.5", **self.settings}

    def _to_the_node(self, found: Manifest) -> None:
        if found["kind"] != "Deployment":
            return
        pod = found["spec"]["template"]["spec"]
        pod["hostNetwork"] = True
        if any("ports" in container for container in pod["containers"]):  # which two pods of a node cannot share
            found["spec"] |= {"replicas": 1, "strategy": {"type": "Recreate"}}
        for container in [*pod["initContainers"], *pod["containers"]]:
            container["image"] = self.image
            container["env"] = [*container.get("env", ()), *_api_server()]
            for variable in container["env"]:
                changed = {"BRAIN_API_PORT": str(self.port), "BRAIN_API_HOST": "127.0.0.1"}
                variable["value"] = changed.get(variable["name"], variable["value"])
            for port in container.get("ports", ()):
                port["containerPort"] = self.port
            for probe in ("livenessProbe", "readinessProbe"):
                if "httpGet" in container.get(probe, {}):
                    container[probe]["httpGet"]["host"] = "127.0.0.1"

    def _secrets(self) -> Iterator[Manifest]:
        urls = {"BRAIN_DATABASE_URL": self.database_url, "BRAIN_REDIS_URL": self.redis_url}
        yield secret("brain-clusters", self.control_plane, {**urls, "BRAIN_API_KEYS": self.key})
        yield secret("brain-clusters-agent", self.agents, {"BRAIN_AGENT_REDIS_URL": self.redis_url})


def secret(name: str, namespace: str, data: dict[str, str]) -> Manifest:
    """Return a Secret."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}


def _places(found: Any) -> Iterator[Any]:
    if isinstance(found, (dict, list)):
        yield found
        for each in found.values() if isinstance(found, dict) else found:
            yield from _places(each)


def _names_a_namespace(whole: Manifest, place: Any, key: object) -> bool:
    return key == "namespace" or (whole["kind"] == "Namespace" and place is whole["metadata"] and key == "name")


def _api_server() -> list[dict[str, str]]:
    """Return the variables by which a pod finds the API server, where no service leads there."""
    server = json.loads(kubectl("config", "view", "--minify", "-o", "json"))["clusters"][0]["cluster"]["server"]
    parts = urlsplit(server)
    return [
        {"name": "KUBERNETES_SERVICE_HOST", "value": str(parts.hostname)},
        {"name": "KUBERNETES_SERVICE_PORT", "value": str(parts.port or 443)},
    ]


def _to_this_version(found: Manifest) -> None:
    """Write a budget of disruptions as servers before 1.21 know it."""
    if found["kind"] == "PodDisruptionBudget" and "policy/v1\n" not in kubectl("api-versions"):
        found["apiVersion"] = "policy/v1beta1"
