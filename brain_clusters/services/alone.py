"""Agents without a host: those of ``export``, and those that a Genesis service was asked for by itself.

Nobody knows for certain when one is dead. One whose beats ceased is given up: it gets its fence, so that nothing of it
counts any more, and what it held returns to its queue with that of the agents of lost hosts.
"""

from __future__ import annotations

import logging
from typing import Any

from brain_clusters.broker import fences, names
from brain_clusters.broker.client import replies, temporary_when_away
from brain_clusters.services.control import Control

log = logging.getLogger(__name__)


def give_up_silent(control: Control) -> int:
    """Give up those whose beats ceased and that did not say that they leave; return how many."""
    client = control.broker.redis
    with temporary_when_away():
        found: Any = client.smembers(names.ALONE_SET)
        agents = sorted(name.decode() for name in found)
        pipe = client.pipeline(transaction=False)
        for agent_id in agents:
            pipe.exists(names.beat_key(agent_id))
        silent = [agent_id for agent_id, beats in zip(agents, replies(pipe), strict=True) if not beats]
    if silent:
        log.warning("%d agents without a host are silent and given up: %s", len(silent), ", ".join(silent[:10]))
        fences.fence(client, silent)
        with temporary_when_away():
            client.srem(names.ALONE_SET, *silent)
    return len(silent)
