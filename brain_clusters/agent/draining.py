"""Draining: an agent takes no more messages, finishes those it has, and leaves, unless it is told to go on before.

A marker file beside its lock file says drain, its absence says go on, and SIGUSR1 says look. Two signals with a meaning
of their own would not do: of two that wait, Python handles that with the lower number first, and the last word is lost.
Warm shutdown (SIGTERM) cannot be undone, so the agent begins it by itself, at the moment when it holds nothing.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from celery.worker import state

from brain_clusters.agent.config import AgentConfig
from brain_clusters.agent.flight import runs_on_gevent
from brain_clusters.broker import names
from brain_clusters.broker.holding import QoS
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.processes import DRAIN_SIGNAL, drain_marker

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5


class Draining:
    """Whether this agent drains. working: the jobs that it works on, as it counts them itself.

    word: asks whether it was told to; None where the marker is set by somebody else.
    """

    def __init__(self, marker: Path, working: Callable[[], int], word: Callable[[], bool] | None = None) -> None:
        self._marker = str(marker)
        self._working = working
        self._word = word
        self._leaving = False

    @classmethod
    def of(cls, spec: AgentSpec, config: AgentConfig, client: redis.Redis, working: Callable[[], int]) -> Draining:
        """Return the draining of the agent ``spec``."""
        marker, key = drain_marker(Path(config.run_dir), spec.agent_id), names.drain_key(spec.agent_id)
        return cls(marker, working, (lambda: bool(client.exists(key))) if config.told_by_redis else None)

    def listen(self, consumer: Any) -> None:
        """Heed the marker from now on. After Celery has set its own handler for the signal."""
        self._consumer = consumer
        _each_round(consumer, self._leave_when_done)
        signal.signal(DRAIN_SIGNAL, lambda *_: self.look())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {DRAIN_SIGNAL})
        self.look()

    def hear(self) -> bool:
        """Ask for the word, if nobody else sets the marker; then look. Called by each beat. Raises RedisError."""
        if self._word is not None:
            if self._word():
                Path(self._marker).touch(0o600)
            else:
                Path(self._marker).unlink(missing_ok=True)
        return self.look()

    def look(self) -> bool:
        """Take messages or do not, by the marker; return whether it drains.

        Called by each beat, too: Python cannot handle a signal that comes just before a job blocks in a system call.
        It locks nothing, as it may interrupt anything, lock holders too.
        """
        QoS.taking = not os.path.exists(self._marker) and not self._leaving
        return not QoS.taking

    def _leave_when_done(self) -> None:
        """Called at least once a second."""
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


def _each_round(consumer: Any, look: Callable[[], None]) -> None:
    """Have ``look`` called about once a second for as long as the worker consumes."""
    if not runs_on_gevent():
        consumer.hub.on_tick.add(look)
        return

    # A worker on gevent has no event loop of Celery's.
    def repeat() -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            look()

    threading.Thread(target=repeat, name="rounds", daemon=True).start()
