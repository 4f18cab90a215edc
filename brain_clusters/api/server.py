"""The API under gunicorn: one process, many threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import flask
from gunicorn.app.base import BaseApplication

from brain_clusters.api.app import create_app
from brain_clusters.config import Settings
from brain_clusters.domain.addresses import is_loopback
from brain_clusters.errors import ConfigError
from brain_clusters.services.control import Control

_STOP_SECONDS = 2
_KEEPALIVE_SECONDS = 30


def serve(settings: Settings) -> None:
    """Answer requests until SIGTERM, then exit. Raises ConfigError for an address that others reach without keys."""
    if settings.insecure_dev and not is_loopback(settings.api_host):
        raise ConfigError(
            f"BRAIN_API_HOST={settings.api_host} can be reached by others, and BRAIN_INSECURE_DEV lets everybody in: "
            "unset one of the two"
        )

    def make() -> flask.Flask:
        control = Control.open(settings, application="brain-api")
        threading.Thread(target=control.broker.warm_up, name="warm-up", daemon=True).start()
        return create_app(control)

    Server(settings.api_host, settings.api_port, settings.api_threads, make).run()


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
            "worker_class": "gthread",
            "threads": self._threads,
            "keepalive": _KEEPALIVE_SECONDS,
            "graceful_timeout": _STOP_SECONDS,
            "loglevel": "warning",
            "control_socket_disable": True,  # it would lie in the user's home
            "worker_exit": lambda _arbiter, _worker: self._at_exit(),
        }
        for name, value in chosen.items():
            if name in self.cfg.settings:  # older versions know fewer
                self.cfg.set(name, value)

    def load(self) -> flask.Flask:
        """Return the application with connections of its own."""
        return self._make()
