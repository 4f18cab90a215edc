"""The one row filter between tenants: which clusters' rows the statements at hand may see.

It lies in the session and not in queries, so that no query can forget it: every ORM statement on a cluster, or on
anything that belongs to one by ``cluster_id``, is narrowed, updates and deletes too. Statements written in SQL or on
bare tables cannot be, and are refused. What Redis holds by a caller's ids is shown after a look at its cluster here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import Table, TextClause, cast, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import ORMExecuteState, with_loader_criteria
from sqlalchemy.sql.visitors import iterate
from sqlalchemy.types import Text

from brain_clusters.db.models import Base, Cluster

_tags: ContextVar[tuple[str, ...]] = ContextVar("tags", default=())
_Item = TypeVar("_Item")


@contextmanager
def narrowed(tags: Sequence[str]) -> Iterator[None]:
    """Let statements of this thread see only clusters that have one of ``tags``; none of them means all."""
    token = _tags.set(tuple(tags))
    try:
        yield
    finally:
        _tags.reset(token)


def widened() -> Any:
    """Let statements see all clusters, for what concerns all and shows nothing of them to the caller."""
    return narrowed(())


def tags() -> tuple[str, ...]:
    """Return the tags that statements are narrowed to; none of them means all."""
    return _tags.get()


def carried(items: Iterator[_Item]) -> Iterator[_Item]:
    """Yield ``items``, each made with the filter as it is now: an answer that is streamed outlives its request."""
    given = tags()
    while True:
        with narrowed(given):
            try:
                item = next(items)
            except StopIteration:
                return
        yield item


def narrow(state: ORMExecuteState) -> None:
    """Add the filter to a statement that is about to be executed."""
    given = _tags.get()
    if not given or state.is_column_load or state.is_relationship_load:
        return
    if not state.is_orm_statement:
        _refuse_bare(state.statement)
        return
    state.statement = state.statement.options(*_criteria(given))


def _refuse_bare(statement: Any) -> None:
    """Raise RuntimeError for what the filter cannot be put into. Whoever means it says ``widened``."""
    if isinstance(statement, TextClause) or any(isinstance(part, Table) for part in iterate(statement)):
        raise RuntimeError("a statement that is not narrowed to the caller's clusters was stopped")


@lru_cache(maxsize=1000)
def _criteria(given: tuple[str, ...]) -> tuple[Any, ...]:
    """Return the filter on each model, and on its aliases, too."""
    wanted = cast(list(given), ARRAY(Text))
    seen = select(_CLUSTERS.c.id).where(_CLUSTERS.c.tags.overlap(wanted))
    return (
        with_loader_criteria(Cluster, Cluster.tags.overlap(wanted), include_aliases=True),
        *(with_loader_criteria(of, of.cluster_id.in_(seen), include_aliases=True) for of in _BELONGING),
    )


# The bare table: the filter itself is not filtered.
_CLUSTERS = Base.metadata.tables[Cluster.__tablename__]
_BELONGING: tuple[Any, ...] = tuple(
    mapper.class_ for mapper in Base.registry.mappers if "cluster_id" in mapper.columns and mapper.class_ is not Cluster
)
