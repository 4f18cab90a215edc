"""A project of Docker Compose from a clean checkout: what brings it up, asks, hurts and removes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from brain_clusters.client.rest import Rest
from brain_clusters.ports import free_port

ROOT = Path(__file__).parents[2]
KEY = "only-for-trying-out"
OURS = ("api", "worker", "beat", "host")
SERVERS = ("postgres", "redis")
PYTHON_VERSION = os.environ.get("PYTHON_VERSION", f"{sys.version_info.major}.{sys.version_info.minor}")
# Where this machine's pip is told that packages are elsewhere, the build is told so, too.
PIP = [f"--build-arg={name}" for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT") if name in os.environ]
# How long anything is waited for, an answer of the API too: as long as it takes on a machine that is very busy.
PATIENCE_SECONDS = 600.0
_POLL_SECONDS = 0.5


def run(*argv: str, check: bool = True, **options: Any) -> str:
    """Run a program and return what it wrote; fail with that when it fails and ``check`` is set."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    assert not check or done.returncode == 0, f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait until ``condition`` returns something true and return that; fail with a sentence when it never does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen in {PATIENCE_SECONDS:g} s"
        time.sleep(_POLL_SECONDS)
    return found


def clone(folder: Path, commit: str = "HEAD") -> Path:
    """Return a clean checkout of what is committed here, or skip where this is no checkout."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout, so there is none to start from")
    run("git", "clone", "--quiet", "--no-checkout", str(ROOT), str(folder))
    run("git", "-C", str(folder), "checkout", "--quiet", "--detach", run_git(commit))
    return folder


def run_git(name: str) -> str:
    """Return the commit that ``name`` is in this checkout."""
    return run("git", "-C", str(ROOT), "rev-parse", name).strip()


def need_images(names: Sequence[str]) -> None:
    """Skip unless the engine has each image or can pull it."""
    for name in names:
        have = subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False)
        if have.returncode and subprocess.run(["docker", "pull", "--quiet", name], check=False).returncode:
            pytest.skip(f"the engine has no image {name} and cannot pull it")


@dataclass
class Project:
    """A project by the compose file of ``checkout``, under a name, a port and image tags of its own."""

    checkout: Path
    name: str = field(default_factory=lambda: f"brain-compose-test-{uuid.uuid4().hex[:8]}")
    port: int = field(default_factory=free_port)
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tag = self.new_tag()
        self.rest = Rest(f"http://127.0.0.1:{self.port}", KEY, PATIENCE_SECONDS)

    def new_tag(self) -> str:
        """Return a tag for an image of this project, which goes with it."""
        self.tags.append(f"{self.name}-{len(self.tags)}")
        return self.tags[-1]

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run ``docker compose`` as somebody in the checkout does; return what it wrote."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("BRAIN_", "COMPOSE_"))}
        own = {
            "BRAIN_TAG": self.tag,
            "BRAIN_PUBLISHED_PORT": str(self.port),
            "BRAIN_COMMIT": run("git", "-C", str(self.checkout), "rev-parse", "HEAD").strip(),
            "PYTHON_VERSION": PYTHON_VERSION,
        }
        argv = ["docker", "compose", "--project-name", self.name, *arguments]
        return run(*argv, check=check, cwd=self.checkout, env={**environ, **own})

    def build(self) -> None:
        """Build the image, after the servers' images are known to be there."""
        need_images([f"python:{PYTHON_VERSION}-slim", *self.compose("config", "--images", *SERVERS).split()])
        self.compose("build", "--quiet", *PIP)

    def up(self, *arguments: str) -> None:
        """Bring everything up and wait until the API is ready.

        Not by --wait, which gives up at the first container that is unhealthy, as any may be on a very busy machine.
        """
        self.compose("up", "--detach", "--no-build", *arguments)
        self.rest.get("/readyz")

    def remove(self) -> None:
        """Remove all that the project made, its images too."""
        self.rest.close()
        self.compose("down", "--volumes", "--timeout", "1", "--remove-orphans")
        for tag in self.tags:
            run("docker", "image", "rm", "--force", f"brain-clusters:{tag}", check=False)

    def left(self) -> str:
        """Return the ids of containers, volumes, networks and images that the project has."""
        mine = f"--filter=label=com.docker.compose.project={self.name}"
        listings = [
            ("docker", "container", "ls", "--all", "--quiet", mine),
            ("docker", "volume", "ls", "--quiet", mine),
            ("docker", "network", "ls", "--quiet", mine),
            *(("docker", "image", "ls", "--quiet", f"brain-clusters:{tag}") for tag in self.tags),
        ]
        return "".join(run(*listing) for listing in listings)

    # --- containers

    def containers(self, *services: str) -> list[dict[str, Any]]:
        """Return what Docker knows of the containers of services, or of all that are to run."""
        ids = self.compose("ps", "--all", "--quiet", *(services or (*SERVERS, *OURS))).split()
        return list(json.loads(run("docker", "container", "inspect", *ids))) if ids else []

    def health(self, *services: str) -> dict[str, str]:
        """Return what Docker says of services by name."""
        found = self.containers(*services)
        return {
            one["Config"]["Labels"]["com.docker.compose.service"]: one["State"]["Health"]["Status"] for one in found
        }

    def python(self, service: str, program: str, *arguments: str) -> str:
        """Run a program in the container of a service of ours."""
        return self.compose("exec", "-T", service, "python", "-c", program, *arguments)

    def sql(self, query: str) -> list[str]:
        """Return the rows of a query."""
        asked = ("psql", "--username=brain", "--dbname=brain", "--tuples-only", "--no-align", "--command", query)
        return self.compose("exec", "-T", "postgres", *asked).split()

    # --- what clients do

    def cluster(self, blueprint: str, **fields: Any) -> str:
        """Create a cluster and return its id."""
        body = {"blueprint_id": blueprint, "name": blueprint, "id": f"c-{uuid.uuid4().hex[:8]}", **fields}
        return str(self.rest.post("/api/clusters", body)["cluster"]["id"])

    def seen(self, cluster: str) -> dict[str, Any]:
        """Return a cluster as the API shows it."""
        return dict(self.rest.get(f"/api/clusters/{cluster}"))

    def agents(self, cluster: str) -> list[dict[str, Any]]:
        """Return a cluster's live agents that beat."""
        found = self.rest.get(f"/api/clusters/{cluster}/agents")["agents"]
        return [one for one in found if one["beat"] == "fresh"]

    def submit(self, cluster: str, many: int, **job: Any) -> list[str]:
        """Have the API accept jobs, for the group Hands where nothing else is said; return their ids."""
        jobs = [job or {"to": "Hands"}] * many
        return [one["id"] for one in self.rest.post(f"/api/clusters/{cluster}/jobs", jobs)["jobs"]]

    def statuses(self, jobs: Sequence[str]) -> dict[str, int]:
        """Return how many of the jobs have which status."""
        found = [self.rest.get(f"/api/jobs/{job}")["status"] for job in jobs]
        return {status: found.count(status) for status in set(found)}
