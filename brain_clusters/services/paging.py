"""Cursor pages: stable while rows come and go, and as quick at the end as at the beginning."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import Select, func, select, tuple_
from sqlalchemy.orm import Session

from brain_clusters.errors import Fault, InvalidInput

MOST_PER_PAGE = 500

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """One page. total counts all that match; next_cursor is None at the end."""

    items: Sequence[Row]
    total: int
    next_cursor: str | None


def page(
    session: Session,
    query: Select[Row],
    order: tuple[Any, ...],
    place: Callable[[Row], tuple[Any, ...]],
    *,
    limit: int,
    cursor: str | None,
    descending: bool = True,
    count_to: int | None = None,
) -> Page[Row]:
    """Return a page of ``query``, newest first by the columns of ``order``; ``place`` reads them from a row.

    Oldest first where it is not ``descending``. count_to: the most that ``total`` counts.

    Raises InvalidInput for a cursor that is none of ours.
    """
    # First of all: a cursor that is none is refused also where there is nothing.
    after = None if cursor is None else _decode(cursor, [column.type.python_type for column in order])
    total = counted(session, query, count_to)
    if not total:
        return Page([], 0, None)
    if after is not None:
        here, there = tuple_(*order), tuple_(*after)
        query = query.where(here < there if descending else here > there)
    columns = (column.desc() if descending else column.asc() for column in order)
    rows = session.scalars(query.order_by(None).order_by(*columns).limit(limit + 1)).all()
    more = len(rows) > limit
    return Page(rows[:limit], total, _encode(place(rows[limit - 1])) if more else None)


def counted(session: Session, query: Select[Any], most: int | None = None) -> int:
    """Return how many rows a query has, ``most`` where they are more than that."""
    return session.scalar(select(func.count()).select_from(query.order_by(None).limit(most).subquery())) or 0


def _encode(place: tuple[Any, ...]) -> str:
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in place]
    return base64.urlsafe_b64encode(json.dumps(plain).encode()).decode().rstrip("=")


def _decode(cursor: str, kinds: Sequence[type]) -> list[Any]:
    try:
        found = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not isinstance(found, list) or len(found) != len(kinds):
            raise ValueError(cursor)
        return [_READ[kind](value) for kind, value in zip(kinds, found, strict=True)]
    except (ValueError, TypeError, OverflowError, binascii.Error, RecursionError) as exc:
        raise InvalidInput(
            "the cursor is not valid",
            [Fault("/cursor", "use the next_cursor of the page before, unchanged, or leave it out")],
        ) from exc


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value or not value.isprintable():
        raise ValueError(value)
    return value


def _identity(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(value)
    return value


def _time(value: Any) -> datetime:
    # In UTC: PostgreSQL knows fewer offsets than Python.
    return datetime.fromisoformat(value).astimezone(UTC)


_READ: dict[type, Callable[[Any], Any]] = {datetime: _time, int: _identity, str: _text}
