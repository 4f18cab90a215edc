"""The tables. Alembic's migrations are their history; autogenerate finds no difference between the two.

All times are timezone-aware UTC. Enum columns are native PostgreSQL enums with lower-case values.
"""

from brain_clusters.db.models.access import ApiKey, Audit, SignIn
from brain_clusters.db.models.base import Base
from brain_clusters.db.models.clusters import Agent, Cluster, Host, StoredBlueprint
from brain_clusters.db.models.figures import Alert, Metrics, TallyEntry, TallyRow, Usage
from brain_clusters.db.models.jobs import Job
from brain_clusters.db.models.operations import Event, EventHorizon, IdempotencyKey, Operation, ScalingDecision, Tick
from brain_clusters.db.models.rollouts import Rollout

__all__ = [
    "Agent",
    "Alert",
    "ApiKey",
    "Audit",
    "Base",
    "Cluster",
    "Event",
    "EventHorizon",
    "Host",
    "IdempotencyKey",
    "Job",
    "Metrics",
    "Operation",
    "Rollout",
    "ScalingDecision",
    "SignIn",
    "StoredBlueprint",
    "TallyEntry",
    "TallyRow",
    "Tick",
    "Usage",
]
