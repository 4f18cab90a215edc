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
) -> None:
    """Add one event to ``session`` and say it in the log. kind: "subject.verb"; reason: a sentence."""
    session.add(
        Event(
            kind=kind,
            reason=reason,
            actor=actor,
            cluster_id=cluster_id,
            operation_id=operation_id,
            agent_id=agent_id,
            data=dict(data or {}),
        )
    )
    log.info("%s cluster=%s operation=%s agent=%s: %s", kind, cluster_id, operation_id, agent_id, reason)
