"""The one row filter between tenants: which clusters' rows the statements at hand may see.

It lies in the session and not in queries, so that no query can forget it: every ORM statement on a cluster, or on
anything that belongs to one by ``cluster_id``, is narrowed, updates and deletes too. Statements written in SQL or on
bare tables are not; the API has none that take a caller's ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy import cast, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import ORMExecuteState, with_loader_criteria
from sqlalchemy.types import Text

from brain_clusters.db.models import Base, Cluster

_tags: ContextVar[tuple[str, ...]] = ContextVar("tags", default=())


@contextmanager
def narrowed(tags: Sequence[str]) -> Iterator[None]:
    """Let statements of this thread see only clusters that have one of ``tags``; none of them means all."""
    token = _tags.set(tuple(tags))
    try:
        yield
    finally:
        _tags.reset(token)


def narrow(state: ORMExecuteState) -> None:
    """Add the filter to a statement that is about to be executed."""
    tags = _tags.get()
    if not tags or state.is_column_load or state.is_relationship_load:
        return
    wanted = cast(list(tags), ARRAY(Text))
    seen = select(_CLUSTERS.c.id).where(_CLUSTERS.c.tags.overlap(wanted))
    state.statement = state.statement.options(
        with_loader_criteria(Cluster, Cluster.tags.overlap(wanted)),
        *(with_loader_criteria(of, of.cluster_id.in_(seen)) for of in _BELONGING),
    )


# The bare table: the filter itself is not filtered.
_CLUSTERS = Base.metadata.tables[Cluster.__tablename__]
_BELONGING: tuple[Any, ...] = tuple(
    mapper.class_ for mapper in Base.registry.mappers if "cluster_id" in mapper.columns and mapper.class_ is not Cluster
)
