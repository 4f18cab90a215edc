"""Jobs as their pages show them: what was asked for, and the figures of one job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from brain_clusters.domain.states import DEAD_LETTER_STATUSES, JobStatus
from brain_clusters.services.jobs import UNFINISHED, Filters

# What "since" may be, and how many seconds ago that is.
SINCE: Mapping[str, int] = {"15 min": 900, "1 h": 3600, "6 h": 21_600, "1 day": 86_400, "7 days": 604_800}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a reader of the list of jobs asked for."""

    filters: Filters
    cluster: str | None
    status: str
    since: str

    @classmethod
    def of(cls, query: Mapping[str, Any]) -> Asked:
        """Return what a query says. A word that is no status is left out."""
        status, since = query.get("status") or "", query.get("since") or ""
        wanted = tuple(JobStatus(word) for word in status.split(",") if word in list(JobStatus))
        filters = Filters(
            statuses=wanted, group=query.get("group") or None, capability=query.get("capability") or None,
            error=query.get("error") or None, search=(query.get("q") or "").strip() or None,
            since=datetime.now(UTC) - timedelta(seconds=SINCE[since]) if since else None,
        )  # fmt: skip
        return cls(filters, query.get("cluster") or None, status, since)

    @property
    def narrowed(self) -> bool:
        """Whether it is anything but all jobs."""
        return bool(self.cluster) or self.filters != Filters()

    def body(self, among: str) -> str:
        """Return what is sent to treat all that match. among: dead, or unfinished."""
        of = DEAD_LETTER_STATUSES if among == "dead" else UNFINISHED
        known = self.filters
        told = {
            "cluster_id": self.cluster, "group": known.group, "capability": known.capability, "error": known.error,
            "search": known.search, "since": known.since and known.since.isoformat(),
            "status": ",".join(one for one in known.statuses if one in of),
        }  # fmt: skip
        return json.dumps({name: value for name, value in told.items() if value})


@dataclass(frozen=True, slots=True)
class Facts:
    """Figures of a job: how long it waited and ran (seconds, so far), and what it used, each by its name."""

    waited: float | None
    ran: float | None
    amount: float | None
    used: list[tuple[str, float]]


def facts(told: Mapping[str, Any]) -> Facts:
    """Return the figures of a job that a view told."""
    now, usage = datetime.now(UTC), told["usage"] or {}
    begun, ended = told["started_at"], told["finished_at"]
    waited = ((begun or ended or now) - (told["eta"] or told["created_at"])).total_seconds()
    figures = {**usage, **(usage.get("counters") or {})}
    used = [
        (name.replace("_", " "), value) for name, value in figures.items() if name != "amount" and _is_figure(value)
    ]
    amount = usage.get("amount")
    return Facts(
        max(0.0, waited), ((ended or now) - begun).total_seconds() if begun else None,
        amount if _is_figure(amount) else None, used,
    )  # fmt: skip


def _is_figure(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
