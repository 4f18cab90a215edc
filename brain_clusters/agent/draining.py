"""Draining: an agent takes no more messages, finishes those it has, and leaves, unless it is told to go on before.

SIGUSR1 says drain, SIGUSR2 says go on; both may be repeated. Warm shutdown (SIGTERM) cannot be undone, so the agent
begins it by itself, at the moment when it holds nothing.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from typing import Any

from celery.worker import state

from brain_clusters.broker.transport import QoS

log = logging.getLogger(__name__)

# Kept by the system, in a zygote's child, until the agent listens to them: their default is to kill.
SIGNALS = frozenset({signal.SIGUSR1, signal.SIGUSR2})


class Draining:
    """Whether this agent drains. working: the jobs that it works on, as it counts them itself."""

    def __init__(self, working: Callable[[], int]) -> None:
        self._working = working
        self._leaving = False

    @property
    def on(self) -> bool:
        """Whether it takes no more messages."""
        return not QoS.taking

    def listen(self, consumer: Any) -> None:
        """Hear the signals from now on, and those that came before. After Celery has set its own handlers for them."""
        self._consumer = consumer
        consumer.hub.on_tick.add(self._leave_when_done)
        signal.signal(signal.SIGUSR1, self._drain)
        signal.signal(signal.SIGUSR2, self._go_on)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    # The handlers only set a flag: they interrupt anything, a job's code and lock holders too.

    def _drain(self, *_: Any) -> None:
        QoS.taking = False

    def _go_on(self, *_: Any) -> None:
        QoS.taking = QoS.taking or not self._leaving

    def _leave_when_done(self) -> None:
        """Called in each round of the event loop, at least once a second."""
        if QoS.taking or self._holds():
            return
        self._leaving = True
        if QoS.taking:  # told to go on just before that was set
            self._leaving = False
            return
        log.info("drained; leaving")
        state.should_stop = os.EX_OK
        state.maybe_shutdown()

    def _holds(self) -> bool:
        """Whether it works on something, has it reserved, or asked for it.

        What waits for a time is not held: warm shutdown puts it back into the queue. After a loss of the connection
        Celery forgets what was reserved, so the agent's own count counts too.
        """
        asks = self._consumer.task_consumer.channel.asks
        return bool(asks or state.reserved_requests or state.active_requests or self._working())
