"""From a group's declaration to a callable that does its jobs: one module here for each kind of work."""

from __future__ import annotations

from brain_clusters.agent.config import AgentConfig
from brain_clusters.agent.context import JobContext
from brain_clusters.agent.errors import HandlerError
from brain_clusters.agent.handlers import commands, skills
from brain_clusters.agent.handlers.functions import Handler, load
from brain_clusters.domain.addresses import parse_networks
from brain_clusters.domain.agents import AgentSpec, Loads

__all__ = ["Handler", "HandlerError", "JobContext", "for_spec", "load", "preload"]


def for_spec(spec: AgentSpec, config: AgentConfig | None = None) -> Handler:
    """Return the callable that does the jobs of ``spec``'s group; raise PermanentError when it cannot be had.

    config: what groups with http and llm need to know of the installation.
    """
    if spec.handler is not None:
        return load(spec.handler)
    if spec.command is not None:
        return commands.handler(spec.command)
    if config is not None and (spec.http is not None or spec.llm is not None):
        return _of_nets(spec, config)
    return skills.handler(spec)


def preload(loads: Loads) -> None:
    """Import for a group's agents what ``for_spec`` would import in each. Raises PermanentError as that does."""
    if loads.llm:
        from brain_clusters.agent.handlers import llm

        llm.preload(loads.skills)
    else:
        skills.preload(loads.skills)


def _of_nets(spec: AgentSpec, config: AgentConfig) -> Handler:
    """Return the handler of a group with http or llm. Imported here, since only such groups need an HTTP client."""
    if spec.http is not None:
        from brain_clusters.agent.handlers import http

        return http.handler(spec.http, parse_networks(config.http_allowed_networks))
    from brain_clusters.agent.handlers import llm

    return llm.handler(spec, config)
