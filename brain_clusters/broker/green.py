"""The transport of agents on gevent, whose worker has no event loop: it asks for messages, and acknowledges between."""

from __future__ import annotations

from queue import Empty
from typing import Any

from brain_clusters.broker import transport

TRANSPORT = "brain_clusters.broker.green:Transport"

# What greenlets finished is acknowledged between two looks, and makes room for the next messages.
_LOOK_SECONDS = 0.05


class Transport(transport.Transport):
    """The transport for ``broker_transport``."""

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:  # noqa: ARG002 - kombu's signature
        """Wait for one message for a moment. Kombu's own would sleep for ``polling_interval`` between two looks."""
        try:
            self.cycle.get(self._deliver, timeout=min(_LOOK_SECONDS, timeout or _LOOK_SECONDS))
        except Empty:
            raise TimeoutError from None
