"""What all agents of a host share, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from brain_clusters.domain.engines import known


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Times in seconds. run_dir and log_dir are folders of the host; handler_path: where handlers are found, too.

    orphan_after: an agent whose host is silent for so long, while Redis answers, leaves by itself.
    deaf_after: an idle agent that hears nothing of its queue for so long, though jobs wait there, ends itself.
    told_by_redis: whether the word to drain may be in Redis, as nothing on this machine can tell it.
    stuck_after: how long code has to heed JobTimeout or JobCancelled before its agent ends itself.
    """

    redis_url: str
    host_id: str | None
    run_dir: str
    log_dir: str
    handler_path: tuple[str, ...] = ()
    beat_interval: float = 2.0
    beat_stale: float = 10.0
    orphan_after: float = 60.0
    stuck_after: float = 5.0
    deaf_after: float = 25.0
    told_by_redis: bool = False
    job_ttl: int = 86_400
    log_level: str = "INFO"
    log_format: str = "auto"
    http_allowed_networks: tuple[str, ...] = ()
    llm_base_url: str | None = None
    llm_api_key: str | None = None

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> AgentConfig:
        """Return what ``dataclasses.asdict`` made of one, be it of a newer version with more fields."""
        return cls(**known(cls, found))
