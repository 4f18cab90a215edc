"""A host's lease: one process at a time is a host, and writes as that. Its time is the database's, never its own.

``hosts.holder`` names the process; it is the fencing token of all that a host writes, looked at in the same
transaction. It changes hands when its lease has ended, that is when ``seen_at`` is too old, or when the holder is known
to be dead.
"""

from __future__ import annotations

import os
import uuid
from datetime import timedelta
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from brain_clusters.db.models import Host
from brain_clusters.domain.engines import Resources
from brain_clusters.errors import LeaseLost
from brain_clusters.processes import LifeLock


@cache
def _this_process() -> str:
    return uuid.uuid4().hex


def alive(lease_seconds: float) -> ColumnElement[bool]:
    """Return SQL for whether a host's lease lasts."""
    return Host.seen_at >= func.now() - timedelta(seconds=lease_seconds)


class Lease:
    """The lease of one host, as this process has it or wants it. Not safe for threads.

    lock: a file that the host's process on this machine holds locked. Where a dead holder held it, and this process
    does now, the end of the lease need not be waited for.
    """

    def __init__(
        self, host_id: str, driver: str, capacity: int, has: Resources, *, seconds: float, lock: LifeLock | None
    ) -> None:
        self._row = {
            "id": host_id, "driver": driver, "capacity": capacity, "pid": os.getpid(),
            "cpus": has.cpu, "memory_bytes": has.memory_bytes,
        }  # fmt: skip
        self._host_id = host_id
        self._seconds = seconds
        self._lock = lock
        self._held = False

    @property
    def is_local(self) -> bool:
        """Whether no other process of this machine is this host."""
        return self._lock is not None and self._lock.name() is not None

    def take(self, session: Session) -> bool:
        """Become the holder, or stay it; return False when another process is."""
        place = self._lock.name() if self._lock is not None else None
        values: dict[str, Any] = {**self._row, "holder": f"{place or ''}/{_this_process()}"}
        free = [Host.holder.is_(None), ~alive(self._seconds), Host.holder.endswith(f"/{_this_process()}")]
        if place is not None:
            free.append(Host.holder.startswith(f"{place}/"))
        taken = session.execute(
            insert(Host)
            .values(values)
            .on_conflict_do_update(
                index_elements=[Host.id],
                set_={**values, "seen_at": func.now(), "suspected_at": None},
                where=or_(*free),
            )
            .returning(Host.id)
        ).first()
        self._held = taken is not None
        return self._held

    def renew(self, session: Session) -> None:
        """Have the lease last from now on. Raises LeaseLost."""
        self.check(session)
        session.execute(
            update(Host).where(Host.id == self._host_id).values(seen_at=func.now(), suspected_at=None, **self._row)
        )

    def check(self, session: Session) -> None:
        """Make sure that this process is the holder for as long as the transaction lasts. Raises LeaseLost.

        One that never was it becomes it, if it may.
        """
        if not self._held:
            if not self.take(session):
                raise LeaseLost(f"another process is the host {self._host_id}")
            return
        mine = Host.id == self._host_id, Host.holder.endswith(f"/{_this_process()}")
        if session.execute(select(Host.id).where(*mine).with_for_update(read=True)).first() is None:
            self.drop()
            silent = f"{self._host_id} was not heard of for {self._seconds:g} s"
            raise LeaseLost(f"the host {silent}, and this process is not it any more")

    def drop(self) -> None:
        """Forget that this process is the holder, and let another of this machine be it."""
        self._held = False
        if self._lock is not None:
            self._lock.release()
