"""The API under gunicorn: one process, many threads."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import flask
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import ThreadWorker

from brain_clusters import tracing
from brain_clusters.api.app import create_app
from brain_clusters.api.context import hub_of
from brain_clusters.config import Settings
from brain_clusters.domain.addresses import is_loopback
from brain_clusters.errors import ConfigError
from brain_clusters.services.control import Control
from brain_clusters.services.tokens import Tokens

_STOP_SECONDS = 2
_KEEPALIVE_SECONDS = 30
# What the API opens besides listeners' connections: requests, those to PostgreSQL and Redis, files.
_OTHER_DESCRIPTORS = 1500


def serve(settings: Settings, mount: Callable[[flask.Flask], None] = lambda _app: None) -> None:
    """Answer requests until SIGTERM, then exit. Raises ConfigError for an address that others reach without keys.

    mount: adds to the application what others have for it, such as pages.
    """
    if settings.insecure_dev and not is_loopback(settings.api_host):
        raise ConfigError(
            f"BRAIN_API_HOST={settings.api_host} can be reached by others, and BRAIN_INSECURE_DEV lets everybody in: "
            "unset one of the two"
        )

    if settings.jwt_issuer is not None:
        Tokens(settings)  # says here, and not in the worker, what is missing
    opened = ExitStack()

    def make() -> flask.Flask:
        _allow_descriptors(settings.api_listeners)
        tracing.start("api")
        opened.callback(tracing.stop)
        control = Control.open(settings, application="brain-api")
        threading.Thread(target=control.broker.warm_up, name="warm-up", daemon=True).start()
        app = create_app(control)
        mount(app)
        opened.callback(hub_of(app).close)
        return app

    Server(settings.api_host, settings.api_port, settings.api_threads, make, at_exit=opened.close).run()


def _allow_descriptors(listeners: int) -> None:
    """Let this process open as many as it may need; many systems begin with 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = listeners + _OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


class Worker(ThreadWorker):  # type: ignore[misc]
    """Gunicorn's worker with threads. A connection that the hub took over is not its own any more."""

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Close the connection or wait for its next request, as gunicorn does; count down for one that was taken."""
        if conn.sock.fileno() == -1:
            self.nr_conns -= 1
        else:
            super().finish_request(conn, fs)


class Log(Logger):  # type: ignore[misc]
    """Gunicorn's log, whose lines go where all others go, and look like them."""

    def setup(self, cfg: Any) -> None:
        """Leave the lines to the handlers of the process."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


class Server(BaseApplication):  # type: ignore[misc]
    """Gunicorn's entry. ``make`` is called in the worker, after the fork, where connections may be opened.

    at_exit: called in the worker when that ends.
    """

    def __init__(
        self, host: str, port: int, threads: int, make: Callable[[], flask.Flask],
        at_exit: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._threads = threads
        self._make = make
        self._at_exit = at_exit
        super().__init__()

    def load_config(self) -> None:
        """Tell gunicorn what it is to do."""
        chosen: dict[str, Any] = {
            "bind": self._bind,
            "workers": 1,
            "worker_class": f"{__name__}.{Worker.__name__}",
            "threads": self._threads,
            "keepalive": _KEEPALIVE_SECONDS,
            "graceful_timeout": _STOP_SECONDS,
            "loglevel": "warning",
            "logger_class": f"{__name__}.{Log.__name__}",
            "control_socket_disable": True,  # it would lie in the user's home
            "worker_exit": lambda _arbiter, _worker: self._at_exit(),
        }
        for name, value in chosen.items():
            if name in self.cfg.settings:  # older versions know fewer
                self.cfg.set(name, value)

    def load(self) -> flask.Flask:
        """Return the application with connections of its own."""
        return self._make()
