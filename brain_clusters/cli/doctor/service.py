"""The API: whether it answers, takes the key, and is of the same version; what it tells of hosts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from brain_clusters import __version__
from brain_clusters.cli.client import ApiClient
from brain_clusters.cli.doctor import Finding, failed, ok, warning
from brain_clusters.cli.target import Target
from brain_clusters.errors import BrainError, TemporaryError

_START = "start it ('brain-clusters up', or its service), or name another (--api, 'brain-clusters config use')"


def look(api: ApiClient, target: Target) -> Iterator[Finding]:
    """Yield what is found by asking the API."""
    try:
        version = api.get("/version")
    except BrainError as exc:
        yield failed("API", str(exc).partition(". Is it")[0], _START)
        return
    yield ok("API", f"{target.url} ({target.named_by}) answers")
    yield _version(version)
    yield from _readiness(api)
    try:
        api.get("/api/clusters", limit=1)
    except BrainError as exc:
        yield failed("key", str(exc), "name a key that it knows: --key, BRAIN_API_KEY, 'brain-clusters config set'")
        return
    yield ok("key", f"that of {target.key_from} is taken" if target.key else "none is needed")


def _version(found: Any) -> Finding:
    theirs = found["version"]
    if theirs == __version__:
        return ok("versions", f"API and command line are {theirs}")
    says = f"the API is {theirs}, the command line {__version__}"
    return warning("versions", says, f"install brain-clusters=={theirs} here, or upgrade the API")


def _readiness(api: ApiClient) -> Iterator[Finding]:
    try:
        ready = api.get("/readyz")
    except TemporaryError as exc:
        yield failed("API's servers", str(exc), "see PostgreSQL and schema")
        return
    except BrainError as exc:
        yield failed("API's servers", str(exc), "see the API's log")
        return
    if ready["redis"] != "up":
        yield failed("API's servers", "its Redis does not answer", "start it, or mend the API's BRAIN_REDIS_URL")
    else:
        yield ok("API's servers", "PostgreSQL and Redis answer it")
