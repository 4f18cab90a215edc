"""What all tables share: the root of the models, its types, and the defaults of columns."""

from __future__ import annotations

import uuid
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Date, DateTime, Enum, Float, MetaData, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID
from sqlalchemy.orm import DeclarativeBase

from brain_clusters.domain.access import Role
from brain_clusters.domain.states import (
    AgentRole,
    AgentStatus,
    ClusterStatus,
    ClusterType,
    Intent,
    JobStatus,
    OperationKind,
    OperationStatus,
    RolloutStatus,
)


def _enum(kind: type[StrEnum], name: str) -> Enum:
    """Return ``kind`` as the native enum ``name``, stored by value."""
    return Enum(kind, name=name, values_callable=lambda members: [member.value for member in members])


class Base(DeclarativeBase):
    """The root of the models, with names for constraints that migrations can count on."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012
        datetime: DateTime(timezone=True),
        date: Date,
        str: Text,
        dict[str, Any]: JSONB,
        dict[str, int]: JSONB,
        list[str]: ARRAY(Text),
        uuid.UUID: UUID(as_uuid=True),
        float: Float(53),
        ClusterType: _enum(ClusterType, "clustertype"),
        ClusterStatus: _enum(ClusterStatus, "clusterstatus"),
        AgentRole: _enum(AgentRole, "agentrole"),
        AgentStatus: _enum(AgentStatus, "agentstatus"),
        OperationKind: _enum(OperationKind, "operationkind"),
        OperationStatus: _enum(OperationStatus, "operationstatus"),
        JobStatus: _enum(JobStatus, "jobstatus"),
        RolloutStatus: _enum(RolloutStatus, "rolloutstatus"),
        Intent: _enum(Intent, "clusterintent"),
        Role: _enum(Role, "accessrole"),
    }


EMPTY_JSON = text("'{}'::jsonb")
EMPTY_ARRAY = text("'{}'::text[]")
NOW = func.now()
