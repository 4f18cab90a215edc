"""From a group's declaration to a callable that does its jobs: one module here for each kind of work."""

from __future__ import annotations

from typing import Any

from brain_clusters.agent.context import JobContext
from brain_clusters.agent.errors import HandlerError
from brain_clusters.agent.handlers import commands
from brain_clusters.agent.handlers.functions import Handler, load
from brain_clusters.domain.agents import AgentSpec

__all__ = ["Handler", "HandlerError", "JobContext", "for_spec", "load"]


def for_spec(spec: AgentSpec) -> Handler:
    """Return the callable that does the jobs of ``spec``'s group."""
    if spec.handler is not None:
        return load(spec.handler)
    if spec.command is not None:
        return commands.handler(spec.command, spec.timeout_seconds)
    return _no_handler(spec.group_name)


def _no_handler(group: str) -> Handler:
    def refuse(_payload: Any, _context: JobContext) -> Any:
        raise HandlerError(
            f"the group {group!r} has no handler; add `handler: package.module:function` or "
            "`command: [program, argument]` to it in the blueprint, and store that as a new version"
        )

    return refuse
