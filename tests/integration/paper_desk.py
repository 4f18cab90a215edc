"""A desk on paper: the rows of one host, which a test writes itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from typing import Any

import redis

from brain_clusters.broker import names
from brain_clusters.broker.restore import restore
from brain_clusters.domain.agents import AgentSpec, Loads
from brain_clusters.genesis.desk import Asked, Ended, Wanted


class PaperDesk:
    """The rows of one host, in memory; ``poke`` is what NOTIFY is to the real one."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self.pending: list[AgentSpec] = []
        self.rows: dict[str, Wanted] = {}
        self.handles: dict[str, Mapping[str, Any]] = {}
        self.reasons: dict[str, list[str | None]] = {}
        self.gone: dict[str, Ended] = {}
        self.questions: list[Asked] = []
        self.told_logs: dict[str, tuple[str | None, str | None]] = {}
        self.beats = 0
        self.left = False
        self._read, self._write = os.pipe()

    def fileno(self) -> int:
        return self._read

    def clear(self) -> None:
        os.read(self._read, 100)

    def poke(self) -> None:
        os.write(self._write, b"!")

    def beat(self, warm: Mapping[str, int]) -> None:
        self.beats += 1

    def warm(self) -> Sequence[Loads]:
        return []

    def wanted(self) -> Sequence[Wanted]:
        return list(self.rows.values())

    def claim(self, room: int) -> Sequence[AgentSpec]:
        taken, self.pending = self.pending[:room], self.pending[room:]
        self.rows |= {spec.agent_id: Wanted(spec, draining=False) for spec in taken}
        return taken

    def ready(self, handles: Mapping[str, Mapping[str, Any]]) -> None:
        self.handles |= handles

    def beating(self, agent_ids: Sequence[str]) -> Set[str]:
        return {one for one in agent_ids if self._client.exists(names.beat_key(one))}

    def explain(self, reasons: Mapping[str, str | None]) -> None:
        for agent_id, reason in reasons.items():
            self.reasons.setdefault(agent_id, []).append(reason)

    def release(self, agent_id: str) -> None:
        restore(self._client, agent_id)

    def ended(self, ended: Sequence[Ended]) -> None:
        for one in ended:
            self.rows.pop(one.agent_id, None)
            self.gone[one.agent_id] = one

    def asked(self) -> Sequence[Asked]:
        taken, self.questions = self.questions, []
        return taken

    def tell_log(self, asked: Asked, text: str | None, why: str | None = None) -> None:
        self.told_logs[asked.id] = (text, why)

    def leave(self) -> None:
        self.left = True

    # --- what the tests do

    def wants(self, agent_id: str, *, draining: bool, **fields: Any) -> None:
        """Write a row, and wake the host."""
        self.rows[agent_id] = Wanted(self.rows[agent_id].spec, draining=draining, started=True, **fields)
        self.poke()
