"""Writing the append-only history."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from brain_clusters.db.models import Event

log = logging.getLogger(__name__)


def record(
    session: Session,
    kind: str,
    reason: str,
    *,
    cluster_id: str | None,
    actor: str = "system",
    operation_id: uuid.UUID | None = None,
    agent_id: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> Event:
    """Add one event to ``session``, say it in the log and return it. kind: "subject.verb"; reason: a sentence."""
    event = Event(
        kind=kind,
        reason=reason,
        actor=actor,
        cluster_id=cluster_id,
        operation_id=operation_id,
        agent_id=agent_id,
        data=dict(data or {}),
    )
    session.add(event)
    ids = {"cluster_id": cluster_id, "operation_id": operation_id, "agent_id": agent_id}
    log.info("%s: %s", kind, reason, extra={"event": kind, **ids})
    return event
