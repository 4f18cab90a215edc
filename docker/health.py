"""The health check of one container: ``python health.py api|worker|beat|host [ID]``. Exits 0 or says what is wrong.

Each asks for a trace that only a working process leaves, and that goes away by itself when it stops working.
"""

from __future__ import annotations

import socket
import sys
import urllib.request
from collections.abc import Callable

import redis

from brain_clusters.broker import names
from brain_clusters.config import Settings

_TIMEOUT_SECONDS = 5
# A worker polls its queue twice a second, except while all its slots are busy with commands.
_WORKER_SECONDS = 60.0


def _api(settings: Settings) -> None:
    """The API says that it can serve: PostgreSQL answers and has the schema that this code needs."""
    with urllib.request.urlopen(f"http://127.0.0.1:{settings.api_port}/readyz", timeout=_TIMEOUT_SECONDS):
        pass


def _worker(settings: Settings) -> None:
    """A connection of the worker's asked Redis for commands a moment ago."""
    _spoke(settings, _WORKER_SECONDS)


def _beat(settings: Settings) -> None:
    """The clock's connection published a tick a moment ago."""
    _spoke(settings, 5 * settings.tick_interval_seconds + 10)


def _host(settings: Settings) -> None:
    """The host's loop refreshed its key, which lives for 30 s. One of an engine elsewhere is named in the command."""
    host_id = sys.argv[2] if len(sys.argv) > 2 else settings.host_id or socket.gethostname()
    if not _redis(settings).exists(names.host_key(host_id)):
        sys.exit(f"host {host_id} has not said for 30 s that it lives")


def _spoke(settings: Settings, seconds: float) -> None:
    """Exit with a sentence unless a process of this container used its named connection ``seconds`` ago."""
    mine = f"worker.{socket.gethostname()}."  # begins the owner's name, as workers/app.py makes it
    idle = [float(client["idle"]) for client in _redis(settings).client_list() if client["name"].startswith(mine)]
    if not idle or min(idle) > seconds:
        sys.exit(f"no connection {mine}* was used within {seconds:g} s; the most recent: {min(idle, default=None)}")


def _redis(settings: Settings) -> redis.Redis:
    if settings.redis_url is None:
        sys.exit("BRAIN_REDIS_URL is not set")
    return redis.Redis.from_url(settings.redis_url, socket_timeout=_TIMEOUT_SECONDS, decode_responses=True)


_CHECKS: dict[str, Callable[[Settings], None]] = {"api": _api, "worker": _worker, "beat": _beat, "host": _host}

if __name__ == "__main__":
    try:
        _CHECKS[sys.argv[1]](Settings.from_env())
    except (OSError, redis.RedisError) as exc:
        sys.exit(f"{type(exc).__name__}: {exc}")
