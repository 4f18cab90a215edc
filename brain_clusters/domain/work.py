"""What does a group's jobs: one of these, as plain frozen data. None of them is a group without work of its own.

Durations are seconds. A value ``env:NAME`` is a reference: it is read from the environment of the process that needs
it, and neither stored nor shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class CeleryApp:
    """An existing Celery application, whose worker the group's agents are.

    app: "package.module:attribute". queues: those of its queues that the group serves. broker: the application's
    broker as a redis:// URL or a reference, where it is not the Redis of this installation.
    """

    app: str
    queues: tuple[str, ...]
    broker: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCall:
    """A request for each job, with the payload as JSON body where the method has one. Headers may be references."""

    url: str
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmCall:
    """A conversation for each job with a model behind an OpenAI-compatible endpoint.

    tools: skills by name that the model may call. base_url, api_key: None is the installation's.
    """

    model: str
    system_prompt: str | None = None
    tools: tuple[str, ...] = ()
    temperature: float | None = None
    max_tokens: int | None = None
    base_url: str | None = None
    api_key: str | None = None


def celery_app(found: Mapping[str, Any] | None) -> CeleryApp | None:
    """Return what ``dataclasses.asdict`` wrote."""
    return None if found is None else CeleryApp(**{**found, "queues": tuple(found["queues"])})


def http_call(found: Mapping[str, Any] | None) -> HttpCall | None:
    """Return what ``dataclasses.asdict`` wrote."""
    return None if found is None else HttpCall(**found)


def llm_call(found: Mapping[str, Any] | None) -> LlmCall | None:
    """Return what ``dataclasses.asdict`` wrote."""
    return None if found is None else LlmCall(**{**found, "tools": tuple(found.get("tools", ()))})
