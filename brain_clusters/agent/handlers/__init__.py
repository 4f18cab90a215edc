"""From a group's declaration to a callable that does its jobs: one module here for each kind of work."""

from __future__ import annotations

from brain_clusters.agent.context import JobContext
from brain_clusters.agent.errors import HandlerError
from brain_clusters.agent.handlers import commands, skills
from brain_clusters.agent.handlers.functions import Handler, load
from brain_clusters.domain.agents import AgentSpec

__all__ = ["Handler", "HandlerError", "JobContext", "for_spec", "load"]


def for_spec(spec: AgentSpec) -> Handler:
    """Return the callable that does the jobs of ``spec``'s group; raise PermanentError when it cannot be had."""
    if spec.handler is not None:
        return load(spec.handler)
    if spec.command is not None:
        return commands.handler(spec.command)
    return skills.handler(spec)
