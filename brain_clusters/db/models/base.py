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


def enum(kind: type[StrEnum], name: str, *, native: bool = True) -> Enum:
    """Return ``kind`` as the native enum ``name``, or as text, stored by value."""
    return Enum(kind, name=name, native_enum=native, values_callable=lambda members: [one.value for one in members])


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
        ClusterType: enum(ClusterType, "clustertype"),
        ClusterStatus: enum(ClusterStatus, "clusterstatus"),
        AgentRole: enum(AgentRole, "agentrole"),
        AgentStatus: enum(AgentStatus, "agentstatus"),
        OperationKind: enum(OperationKind, "operationkind"),
        OperationStatus: enum(OperationStatus, "operationstatus"),
        JobStatus: enum(JobStatus, "jobstatus"),
        RolloutStatus: enum(RolloutStatus, "rolloutstatus"),
        Intent: enum(Intent, "clusterintent"),
        Role: enum(Role, "accessrole"),
    }


EMPTY_JSON = text("'{}'::jsonb")
EMPTY_ARRAY = text("'{}'::text[]")
NOW = func.now()
