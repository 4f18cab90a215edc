"""The Docker engine: how it is reached, and what its errors mean to us."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import docker.errors
import requests.exceptions
from docker import APIClient
from docker.utils import kwargs_from_env

from brain_clusters.errors import BrainError, Conflict, NotFound, PermanentError, TemporaryError

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
# At once; the SDK's own default is 10.
_MOST_CONNECTIONS = 32


class NoImage(NotFound):
    """The engine does not have the image."""


class EngineFault(TemporaryError):
    """The engine answered, with a fault of its own or that it is busy. Often the next try succeeds."""


def address_of(environ: Mapping[str, str]) -> str:
    """Return where the engine is, by DOCKER_HOST."""
    return environ.get("DOCKER_HOST") or DEFAULT_ADDRESS


def connect(environ: Mapping[str, str], *, timeout_seconds: int) -> APIClient:
    """Return a client of the engine that DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH name.

    Raises TemporaryError while it does not answer, and PermanentError when it never can.
    """
    address = address_of(environ)
    try:
        given = kwargs_from_env(environment={**environ, "DOCKER_HOST": address})
        return APIClient(**given, version="auto", timeout=timeout_seconds, max_pool_size=_MOST_CONNECTIONS)
    except Exception as exc:  # the SDK raises ValueError, OSError and others for a bad address
        raise _cannot_connect(exc, address) from exc


def _cannot_connect(exc: BaseException, address: str) -> BrainError:
    causes = list(_causes(exc))
    if any(isinstance(each, requests.exceptions.SSLError) for each in causes):
        return PermanentError(f"the Docker engine at {address} and this host do not trust each other: {causes[-1]}")
    if any(isinstance(each, docker.errors.APIError) for each in causes):
        return TemporaryError(f"the Docker engine at {address} answers with an error: {causes[-1]}")
    if any(isinstance(each, requests.exceptions.RequestException) for each in causes):
        return _away(causes, address)
    return PermanentError(
        f"DOCKER_HOST={address} cannot be used: {exc}; it is unix:///PATH, tcp://HOST:PORT or https://HOST:PORT, and "
        "with DOCKER_TLS_VERIFY the folder DOCKER_CERT_PATH holds ca.pem, cert.pem and key.pem"
    )


def _away(causes: list[BaseException], address: str) -> BrainError:
    """Return the error of an engine that does not answer."""
    # Not as an instance: requests hands causes on as text and arguments, not as causes.
    if "PermissionError" in repr(causes):
        return PermanentError(
            f"this account may not use the Docker engine at {address}: add it to the group that owns the socket, most "
            "often `docker`, or set DOCKER_HOST to an engine that it may use"
        )
    return TemporaryError(
        f"no Docker engine answers at {address}: start it, or set DOCKER_HOST to one that runs; agents that run go on"
    )


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


@contextmanager
def translated(address: str) -> Iterator[None]:
    """Turn the SDK's errors into ours."""
    try:
        yield
    except docker.errors.APIError as exc:
        raise _refusal(exc) from exc
    except requests.exceptions.HTTPError as exc:
        raise EngineFault(f"the Docker engine answers with an error: {exc}") from exc
    except requests.exceptions.RequestException as exc:
        raise _away(list(_causes(exc)), address) from exc
    except docker.errors.DockerException as exc:
        raise PermanentError(f"Docker's SDK refuses it: {exc}") from exc


def _refusal(exc: docker.errors.APIError) -> BrainError:
    told = str(exc.explanation or exc)
    status = exc.status_code or 500
    words = in_words(told)
    if words is not None:
        return PermanentError(words)
    if isinstance(exc, docker.errors.ImageNotFound):
        return NoImage(told)
    if status == 404:
        return NotFound(told)
    if status == 409:
        return Conflict(told)
    if status == 429 or status >= 500:
        return EngineFault(f"the Docker engine answers {status}: {told}")
    return PermanentError(f"the Docker engine refuses it: {told}")


# What engines say, and what that means. By text, as their status is 400, 404 or 500 with one version or another.
_WORDS = (
    (r'exec: "python".*(not found|no such file)', "its image has no python on its PATH; agents need one with "
     "brain-clusters installed"),
    (r"bind source path does not exist: (\S+)", "its volume {0} does not exist on the machine of the engine; make it"),
    (r"network (\S+) not found", "the engine has no network {0}; make it (docker network create {0}), or name another"),
    (r"cannot allocate memory", "the machine of the engine has no memory left for it"),
    (r"no space left on device", "the disk of the engine is full; docker system df shows by what"),
    (r"could not select device driver", "the engine has no GPUs to give; it needs the NVIDIA container toolkit"),
)  # fmt: skip


def in_words(told: str) -> str | None:
    """Return what the text of an error means, for those that are known not to mend themselves."""
    for pattern, words in _WORDS:
        if found := re.search(pattern, told, re.IGNORECASE):
            return words.format(*found.groups())
    return None
