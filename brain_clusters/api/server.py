"""The API under gunicorn: one process, many threads."""

from __future__ import annotations

import threading
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
    if not settings.api_keys and not is_loopback(settings.api_host):
        raise ConfigError(
            f"BRAIN_API_HOST={settings.api_host} can be reached by others; set BRAIN_API_KEYS first, or keep 127.0.0.1"
        )
    _Server(settings).run()


class _Server(BaseApplication):  # type: ignore[misc]
    """Gunicorn's entry. ``load`` runs in the worker, after the fork, where connections may be opened."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        """Tell gunicorn what it is to do."""
        host = f"[{self._settings.api_host}]" if ":" in self._settings.api_host else self._settings.api_host
        chosen: dict[str, Any] = {
            "bind": f"{host}:{self._settings.api_port}",
            "workers": 1,
            "worker_class": "gthread",
            "threads": self._settings.api_threads,
            "keepalive": _KEEPALIVE_SECONDS,
            "graceful_timeout": _STOP_SECONDS,
            "loglevel": "warning",
            "control_socket_disable": True,  # it would lie in the user's home
        }
        for name, value in chosen.items():
            if name in self.cfg.settings:  # older versions know fewer
                self.cfg.set(name, value)

    def load(self) -> flask.Flask:
        """Return the application with connections of its own."""
        control = Control.open(self._settings, application="brain-api")
        threading.Thread(target=control.broker.warm_up, name="warm-up", daemon=True).start()
        return create_app(control)
