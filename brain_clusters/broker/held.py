"""Which jobs an agent holds: the messages that it was given and has not acknowledged."""

from __future__ import annotations

import json

import redis

from brain_clusters.broker import names
from brain_clusters.broker.client import replies, temporary_when_away


def job_ids(client: redis.Redis, agent_id: str) -> list[str]:
    """Return the ids of our jobs among what an agent holds, in no order. Raises TemporaryError when Redis is away."""
    with temporary_when_away():
        pipe = client.pipeline(transaction=False)
        pipe.hvals(names.unacked_key(agent_id))
        pipe.lrange(names.claim_key(agent_id), 0, -1)
        entries, claims = replies(pipe)
    messages = [_first(entry) for entry in entries or ()] + [_read(claim) for claim in claims or ()]
    return list(dict.fromkeys(job_id for message in messages if (job_id := _job_id(message)) is not None))


def _read(text: bytes) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _first(entry: bytes) -> object:
    """Return the message of an entry of kombu's: (message, exchange, routing key)."""
    found = _read(entry)
    return found[0] if isinstance(found, list) and found else None


def _job_id(message: object) -> str | None:
    headers = message.get("headers") if isinstance(message, dict) else None
    if not isinstance(headers, dict) or headers.get("task") != names.JOB_TASK:
        return None
    return str(headers.get("id"))
