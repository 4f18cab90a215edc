"""What the API asks hosts, and what they answer: the logs that only they, or their engines, can read.

Neither is worth keeping: a question that nobody took, or an answer that nobody waits for, is gone after a few seconds.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import redis

from brain_clusters.broker import names
from brain_clusters.broker.client import temporary_when_away

_KEPT_SECONDS = 10
# One wait of Redis, shorter than what a connection of ours waits for a reply.
_WAIT_SECONDS = 1.0
MOST_LINES = 2000


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody wants to know of a host: the last lines of an agent's log."""

    id: str
    agent_id: str
    lines: int


@dataclass(frozen=True, slots=True)
class Answer:
    """text: the log; None with the reason why it could not be read."""

    text: str | None
    why: str | None = None


def ask(client: redis.Redis, host_id: str, agent_id: str, lines: int) -> str:
    """Ask a host for a log; return what ``wait`` takes. Raises TemporaryError when Redis is away."""
    question_id = uuid.uuid4().hex
    asked = json.dumps({"id": question_id, "agent_id": agent_id, "lines": lines})
    with temporary_when_away():
        pipe = client.pipeline(transaction=True)
        pipe.rpush(names.asked_list(host_id), asked)
        pipe.expire(names.asked_list(host_id), _KEPT_SECONDS)
        pipe.execute()
    return question_id


def wait(client: redis.Redis, question_id: str, seconds: float) -> Answer | None:
    """Return the answer, None when none comes within ``seconds``. Raises TemporaryError when Redis is away."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with temporary_when_away():
            found: Any = client.blpop([names.answer_list(question_id)], timeout=_WAIT_SECONDS)
        if found is not None:
            told = _object(found[1])
            return Answer(told.get("text"), told.get("why"))
    return None


def take(client: redis.Redis, host_id: str, limit: int) -> Iterator[Question]:
    """Yield what a host was asked, at most ``limit``; each once. Raises TemporaryError when Redis is away.

    Users' code can write here, too: what makes no sense, or names a file elsewhere, is nothing that was asked.
    """
    with temporary_when_away():
        found: Any = client.lpop(names.asked_list(host_id), limit)
    for text in found or ():
        told = _object(text)
        match (told.get("id"), told.get("agent_id"), told.get("lines")):
            case (str(question_id), str(agent_id), int(lines)) if agent_id.isprintable() and "/" not in agent_id:
                yield Question(question_id, agent_id, min(max(lines, 1), MOST_LINES))


def answer(client: redis.Redis, question_id: str, told: Answer) -> None:
    """Answer a question. Raises TemporaryError when Redis is away."""
    key = names.answer_list(question_id)
    with temporary_when_away():
        pipe = client.pipeline(transaction=True)
        pipe.rpush(key, json.dumps({"text": told.text, "why": told.why}))
        pipe.expire(key, _KEPT_SECONDS)
        pipe.execute()


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
