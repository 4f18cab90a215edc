"""Which API a command talks to, and with which key."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from brain_clusters.cli.client import own_key
from brain_clusters.cli.contexts import LOCAL, Contexts
from brain_clusters.cli.upfile import UpFile
from brain_clusters.config import Settings
from brain_clusters.domain.addresses import is_loopback
from brain_clusters.errors import PermanentError


@dataclass(frozen=True, slots=True)
class Target:
    """An API. named_by, key_from: what said so, for people."""

    url: str
    key: str | None
    named_by: str
    key_from: str


def find(url: str | None, key: str | None, context: str | None) -> Target:
    """Return the API that is meant: a URL, else a context, else the current one, else the ``up`` that runs here.

    The key of this machine is sent to nobody but this machine. Raises PermanentError where none of them names an API.
    """
    if url is not None:
        if key is None and _is_here(url):
            return _with_own_key(Settings.from_env(), url, "--api or BRAIN_API_URL")
        return Target(url, key, "--api or BRAIN_API_URL", "--key or BRAIN_API_KEY")
    contexts = Contexts.load()
    name = context or contexts.current
    if name is None or name == LOCAL:
        return _local(key)
    found = contexts.get(name)
    named = f"the context {name}"
    if key is not None:
        return Target(found.api, key, named, "--key or BRAIN_API_KEY")
    return Target(found.api, found.read_key(), named, named)


def _local(key: str | None) -> Target:
    settings = Settings.from_env()
    running = UpFile.of_running(settings.home)
    if running is None:
        raise PermanentError(
            f"no 'up' runs for {settings.home}. Start one with 'brain-clusters up', or name the API to ask: --api URL, "
            "BRAIN_API_URL, or a context ('brain-clusters config set NAME --api URL')"
        )
    named = f"the 'up' that runs for {settings.home}"
    if key is not None:
        return Target(running.api_url, key, named, "--key or BRAIN_API_KEY")
    return _with_own_key(settings, running.api_url, named)


def _with_own_key(settings: Settings, url: str, named: str) -> Target:
    source = "BRAIN_API_KEYS" if settings.api_keys else str(settings.admin_key_path)
    return Target(url, own_key(settings), named, source)


def _is_here(url: str) -> bool:
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False  # no URL, which its user will be told
