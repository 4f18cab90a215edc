"""Skills that installed packages bring: entry points of the group ``brain_clusters.skills``, each a handler by name.

They do the jobs of groups that state no work of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from brain_clusters.agent.context import JobContext
from brain_clusters.agent.errors import HandlerError
from brain_clusters.agent.handlers.functions import Handler, load
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.errors import PermanentError
from brain_clusters.skills import ENTRY_POINTS, key


@lru_cache(maxsize=1)
def installed() -> dict[str, EntryPoint]:
    """Return what is installed, by name as ``key`` writes it. Looked for once: a zygote does it for its agents."""
    return {key(entry.name): entry for entry in entry_points(group=ENTRY_POINTS)}


def preload(names: Iterable[str]) -> None:
    """Import those of ``names`` that are installed. Raises PermanentError as ``find`` does."""
    for name in names:
        if key(name) in installed():
            find(name)


def find(name: str) -> Handler:
    """Return the skill ``name``; raise PermanentError that says what is installed, or why it cannot be imported."""
    entry = installed().get(key(name))
    if entry is None:
        raise PermanentError(f"no skill {name!r} is installed; installed are: {_listed(installed())}")
    return load(entry.value.partition("[")[0].strip())


def handler(spec: AgentSpec) -> Handler:
    """Return what does the jobs of a group by its skills and capabilities. Raises PermanentError as ``find`` does."""
    wanted = dict.fromkeys((*spec.capabilities, *spec.skills))
    found = {name: find(name) for name in wanted if key(name) in installed()}
    if not found:
        return _refusal(spec)
    by_key = {key(name): function for name, function in found.items()}
    alone = next(iter(by_key.values())) if len(by_key) == 1 else None

    def choose(payload: Any, context: JobContext) -> Any:
        asked = context.capability
        chosen = by_key.get(key(asked), alone) if asked is not None else alone
        if chosen is None:
            raise HandlerError(
                f"the group {spec.group_name!r} has several skills ({_listed(found)}), and the job asked for "
                f"{'none of them' if asked is None else repr(asked)}; send it with one of them as its capability"
            )
        return chosen(payload, context)

    return choose


def _refusal(spec: AgentSpec) -> Handler:
    sought = _listed((*spec.capabilities, *spec.skills)) if spec.capabilities or spec.skills else "it names none"
    message = (
        f"the group {spec.group_name!r} has no handler; add `handler: package.module:function` or `command: [program, "
        "argument]` to it in the blueprint, and store that as a new version, or install a package with one of its "
        f"capabilities and skills ({sought}); installed skills are: {_listed(installed())}"
    )

    def refuse(_payload: Any, _context: JobContext) -> Any:
        raise HandlerError(message)

    return refuse


def _listed(names: Sequence[str] | dict[str, Any]) -> str:
    return ", ".join(names) or "none"
