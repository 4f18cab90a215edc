"""The filter between tenants, on every model and every form of statement: what SQL comes out. No server is needed."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, delete, event, func, select, text, union_all, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, aliased

from brain_clusters.db import scope
from brain_clusters.db.models import Base, Cluster, Job

ROOT = Path(__file__).parents[2] / "brain_clusters"
OWNED = sorted(
    (mapper.class_ for mapper in Base.registry.mappers if "cluster_id" in mapper.columns or mapper.class_ is Cluster),
    key=lambda of: of.__name__,
)
FORMS: dict[str, Callable[[Any, Any], Any]] = {
    "rows": lambda of, _: select(of),
    "columns": lambda _, key: select(key),
    "counted": lambda of, _: select(func.count()).select_from(of),
    "the total of a page": lambda of, _: select(func.count()).select_from(select(of).order_by(None).subquery()),
    "an aggregate": lambda _, key: select(func.max(key)),
    "joined": lambda of, key: select(Cluster.id).join(of, key == Cluster.id) if of is not Cluster else select(of),
    "an alias": lambda of, _: select(aliased(of)),
    "exists": lambda _, key: select(select(key).exists()),
    "a scalar subquery": lambda _, key: select(func.coalesce(select(func.count(key)).scalar_subquery(), 0)),
    "a common table": lambda _, key: select(select(key).cte("found").c[0]),
    "a union": lambda _, key: union_all(select(key), select(key)),
    "updated": lambda of, key: update(of).values({key.key: "x"}),
    "updated and returned": lambda of, key: update(of).values({key.key: "x"}).returning(key),
    "deleted": lambda of, _: delete(of),
}


def executed(statement: Any, *tags: str) -> str:
    """Return the SQL of a statement as a session narrowed to ``tags`` would send it to a server, which is not there."""
    seen = []
    engine = create_engine("postgresql+psycopg2://127.0.0.1:1/none")
    with Session(engine) as session, scope.narrowed(tags):

        def look(state: Any) -> None:
            scope.narrow(state)
            seen.append(str(state.statement.compile(dialect=postgresql.dialect())))

        event.listen(session, "do_orm_execute", look)
        with pytest.raises(OperationalError):
            session.execute(statement)
    engine.dispose()
    return seen[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("of", OWNED, ids=lambda of: of.__name__)
def test_every_statement_on_what_belongs_to_a_cluster_is_narrowed(of: Any, form: str) -> None:
    statement = FORMS[form](of, of.id if of is Cluster else of.cluster_id)
    narrowed = executed(statement, "red")
    assert narrowed.count("clusters.tags && ") + narrowed.count("clusters_1.tags && ") >= (
        2 if form == "a union" else 1
    )
    assert "&&" not in executed(statement)


@pytest.mark.parametrize("statement", [text("SELECT 1 FROM jobs"), select(Job.__table__), select(Job.__table__.c.id)])
def test_what_cannot_be_narrowed_is_stopped(statement: Any) -> None:
    with pytest.raises(RuntimeError, match="stopped"):
        executed(statement, "red")
    executed(statement)
    executed(select(func.now()), "red")


def test_what_is_streamed_keeps_its_filter_between_its_parts() -> None:
    seen = []

    def parts() -> Any:
        for _ in range(2):
            seen.append(scope.tags())
            yield len(seen)

    with scope.narrowed(("red",)):
        stream = scope.carried(parts())
        first = next(stream)
    outside = scope.tags()
    assert (first, next(stream), outside, seen) == (1, 2, (), [("red",), ("red",)])
    assert list(stream) == []
    assert scope.tags() == ()


# What asks the connection itself, or the table, and so passes the filter by; each with a reason in the code.
PASSING = {
    "services/observation.py",
    "services/metrics.py",
    "services/outcomes.py",
    "services/counting.py",
    "services/audit.py",
}


def test_only_known_places_pass_the_filter_by() -> None:
    found = set()
    for path in [*(ROOT / "services").glob("*.py"), *(ROOT / "api").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("__table__", "connection"):
                found.add(path.relative_to(ROOT).as_posix())
    assert found <= PASSING
