"""Which skills are installed, by name. Told without importing any; ``agent.handlers.skills`` does that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import distributions

from brain_clusters.domain.specs import slug

ENTRY_POINTS = "brain_clusters.skills"


def key(name: str) -> str:
    """Return what makes two names of a skill the same."""
    return slug(name) or name


def any_installed(names: Iterable[str], path: Sequence[str]) -> bool:
    """Return whether one of ``names`` is installed on ``path``."""
    wanted = set(map(key, names))
    return any(
        key(entry.name) in wanted
        for distribution in distributions(path=list(path))
        for entry in distribution.entry_points.select(group=ENTRY_POINTS)
    )
