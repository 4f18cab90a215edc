"""Tags of what can be edited, so that nobody overwrites what somebody else changed since it was read.

A tag is of what is edited only, and stays while what is observed changes: agents, figures, what waits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from brain_clusters.db.models import Cluster, StoredBlueprint
from brain_clusters.errors import Outdated

ANY = "*"
_EDITED = (
    "id", "name", "type", "blueprint_id", "blueprint_version", "parent_cluster_id", "min_workers", "max_workers",
    "description", "tags", "config", "budget_per_day", "intent", "paused",
)  # fmt: skip
_DIGITS = 16


def of_cluster(row: Cluster) -> str:
    """Return the tag of a cluster: of what PUT changes, of its blueprint's version, and of its intent.

    The numbers of agents are not in it, as the autoscaler changes them all the time.
    """
    return _tag([getattr(row, name) for name in _EDITED])


def of_blueprint(versions: Sequence[StoredBlueprint]) -> str | None:
    """Return the tag of a blueprint by its active versions; None when there is none."""
    told = sorted((row.id, row.version, row.updated_at.isoformat()) for row in versions)
    return _tag(told) if told else None


def guard(found: str | None, seen: Sequence[str], what: str) -> None:
    """Raise Outdated unless ``found`` is one of the tags that the caller has ``seen``; whoever saw none is let through.

    Call it with the row locked, or it may change before it is written.
    """
    if seen and (found is None or (ANY not in seen and found not in seen)):
        raise Outdated(f"{what} was changed since you read it; read it again, and send its new ETag as If-Match")


def _tag(told: Any) -> str:
    return sha256(json.dumps(told, default=str, sort_keys=True).encode()).hexdigest()[:_DIGITS]
