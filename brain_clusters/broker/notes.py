"""What a running job writes into its own record: how far it is, and where its next attempt may go on."""

from __future__ import annotations

import json
from typing import Any

import redis

from brain_clusters.broker import names
from brain_clusters.broker.client import temporary_when_away

PROGRESS_FIELD = "progress"
CHECKPOINT_FIELD = "checkpoint"
# Why an attempt ended, where that took its agent along: {"attempt": ..., "error": {"type": ..., "message": ...}}.
LAST_WORDS_FIELD = "last_words"

# KEYS: record. ARGV: field, value. A record that is gone is not made anew: it would have neither status nor end.
_NOTE = "return redis.call('EXISTS', KEYS[1]) == 1 and redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])"


class JobNotes:
    """Writes and reads notes of jobs. Raises TemporaryError when Redis is away."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def write(self, job_id: str, field: str, text: str) -> None:
        """Keep ``text`` in the job's record, if it is there."""
        with temporary_when_away():
            self._client.eval(_NOTE, 1, names.job_key(job_id), field, text)

    def read(self, job_id: str, field: str) -> Any:
        """Return the JSON value that was kept, or None."""
        with temporary_when_away():
            found: Any = self._client.hget(names.job_key(job_id), field)
        return None if found is None else json.loads(found)
