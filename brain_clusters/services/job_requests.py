"""What callers may say about jobs of all clusters."""

from __future__ import annotations

from brain_clusters.services.requests import CANCEL_MANY, JOB_FILTERS, NAME, TREAT_LETTERS, Schema

OF_CLUSTER: Schema = {"cluster_id": {**NAME, "meta": {"description": "Of this cluster; of all without it."}}}
STATUSES = {
    "type": "string", "minlength": 1, "maxlength": 200,
    "meta": {"description": "One, or several with commas in between."},
}  # fmt: skip
CANCEL_ANYWHERE: Schema = {**OF_CLUSTER, **CANCEL_MANY, "error": JOB_FILTERS["error"], "status": STATUSES}
TREAT_ANYWHERE: Schema = {**OF_CLUSTER, **JOB_FILTERS, "status": STATUSES, "limit": TREAT_LETTERS["limit"]}
