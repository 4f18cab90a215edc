"""A process that is a host whenever it is its turn: others may stand by for the same one, or have taken it over."""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Callable
from contextlib import suppress

from brain_clusters.errors import LeaseLost, TemporaryError
from brain_clusters.genesis.host import Host
from brain_clusters.processes import wake_pipe
from brain_clusters.services.hosting import HostDesk

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0


class Turns:
    """Runs hosts, one after the other, each from the moment when this process has the lease until it has lost it.

    local: whether the agents are processes of this machine. Then they are looked after while PostgreSQL is away, too:
    nobody else could.
    """

    def __init__(self, desk: HostDesk, make: Callable[[], Host], *, local: bool) -> None:
        self._desk, self._make, self._local = desk, make, local
        self._host: Host | None = None
        self._ends = False
        self._wake_read, self._wake_write = wake_pipe()

    def run(self) -> None:
        """Be the host in turn, until ``stop`` or ``abandon`` is called."""
        while self._wait():
            self._host = self._make()
            if self._ends:
                return
            try:
                self._host.run()
                return
            except LeaseLost as exc:
                log.warning("%s; it stands by", exc)
                self._host = None

    def stop(self, grace_seconds: float) -> None:
        """End; see ``Host.stop``. From a signal handler."""
        self._end()
        if self._host is not None:
            self._host.stop(grace_seconds)

    def abandon(self) -> None:
        """End and leave the agents running. From a signal handler."""
        self._end()
        if self._host is not None:
            self._host.abandon()

    def _end(self) -> None:
        self._ends = True
        with suppress(BlockingIOError):
            os.write(self._wake_write, b"!")

    def _wait(self) -> bool:
        """Wait until it is this process's turn; return False when it is to end instead."""
        told = False
        while not self._ends:
            try:
                if self._desk.take():
                    return True
                if not told:
                    log.warning("another process is this host; this one stands by")
                told = True
            except TemporaryError as exc:
                if self._local and self._desk.is_local:
                    return True
                log.warning("waiting: %s", exc)
            select.select([self._wake_read], [], [], _LOOK_SECONDS)
        return False
