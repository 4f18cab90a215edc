"""Which drivers are installed, by name: ours and those that packages bring by entry points."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points

ENTRY_POINTS = "brain_clusters.drivers"
# Here, so that what is not imported need not be installed either.
_OURS = {
    "kubernetes": "brain_clusters.genesis.kubernetes.driver:KubernetesDriver.make",
    "process": "brain_clusters.genesis.process.driver:ProcessDriver.make",
    "docker": "brain_clusters.genesis.docker.driver:DockerDriver.make",
    "remote": "brain_clusters.genesis.remote.driver:make",
}


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
