"""Which drivers are installed, by name: ours and those that packages bring by entry points."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec

from brain_clusters.errors import PermanentError

ENTRY_POINTS = "brain_clusters.drivers"
# Here, so that what is not imported need not be installed either.
_OURS = {
    "kubernetes": "brain_clusters.genesis.kubernetes.driver:KubernetesDriver.make",
    "process": "brain_clusters.genesis.process.driver:ProcessDriver.make",
    "docker": "brain_clusters.genesis.docker.driver:DockerDriver.make",
    "remote": "brain_clusters.genesis.remote.driver:make",
}

# What the extra of the same name brings. Found and not imported: `up` asks, too, and has no use for 60 MB of clients.
_PACKAGES = {"docker": "docker", "kubernetes": "kubernetes"}


@cache
def installed() -> dict[str, EntryPoint]:
    """Return the factory of each driver by name, not imported yet. A package cannot take the name of ours."""
    ours = {name: EntryPoint(name, value, ENTRY_POINTS) for name, value in _OURS.items()}
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)} | ours


def check_name(name: str) -> None:
    """Raise ValueError, with the names there are, for one that is not installed."""
    known = installed()
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"must be a driver that is installed here ({', '.join(sorted(known))}{hint})")


def check_usable(name: str) -> None:
    """Raise PermanentError, with what to do, where the package that an installed driver of ours needs is missing."""
    package = _PACKAGES.get(name)
    if package is None:
        return
    found = find_spec(package)
    # Any folder may bear the name; that is a namespace, which comes from no file.
    if found is None or found.origin is None:
        raise PermanentError(
            f"the driver {name} needs the package {package}, which is not installed here: run "
            f"{sys.executable} -m pip install 'brain-clusters[{name}]'"
        )
