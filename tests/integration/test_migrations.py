"""The schema: up, down and up again, one truth, and several migrations at once."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, create_engine, inspect, select, text
from sqlalchemy.orm import Session

from brain_clusters.db import migrate
from brain_clusters.db.models import Base, Operation
from brain_clusters.db.schema import Schema, revision
from brain_clusters.domain.states import AgentRole, ClusterStatus, ClusterType, OperationKind
from brain_clusters.embedded import ServerUrls
from brain_clusters.errors import TemporaryError
from brain_clusters.ports import free_port
from brain_clusters.shipped import shipped

SCRIPTS = shipped("migrations")
REFERENCE = {"clusters", "cluster_agents", "cluster_blueprints", "cluster_metrics"}


@pytest.fixture
def engine(servers: ServerUrls) -> Iterator[Engine]:
    """An empty database."""
    assert servers.database_url
    admin = create_engine(servers.database_url, isolation_level="AUTOCOMMIT")
    name = f"migrations_{uuid.uuid4().hex[:12]}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    found = create_engine(admin.url.set(database=name))
    yield found
    found.dispose()
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def current(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return revision(connection)


def enums(engine: Engine) -> dict[str, list[str]]:
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT typname, enumlabel FROM pg_enum JOIN pg_type t ON t.oid = enumtypid ORDER BY enumsortorder")
        )
        found: dict[str, list[str]] = {}
        for name, label in rows:
            found.setdefault(name, []).append(label)
    return found


def test_up_down_and_up_again_leaves_no_difference_to_the_models(engine: Engine) -> None:
    assert current(engine) is None
    migrate.upgrade(engine, SCRIPTS)
    assert current(engine) == Schema(SCRIPTS).head
    assert migrate.differences(engine) == []
    assert set(inspect(engine).get_table_names()) == {*Base.metadata.tables, "alembic_version"}
    migrate.downgrade(engine, SCRIPTS)
    assert current(engine) is None
    assert inspect(engine).get_table_names() == ["alembic_version"]
    assert enums(engine) == {}
    migrate.upgrade(engine, SCRIPTS)
    assert migrate.differences(engine) == []


def test_an_upgrade_of_what_is_upgraded_does_nothing(engine: Engine) -> None:
    migrate.upgrade(engine, SCRIPTS)
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO cluster_blueprints (id, version, name, blueprint_yaml) VALUES ('b', '1', 'B', 'y')")
        )
    migrate.upgrade(engine, SCRIPTS)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM cluster_blueprints")) == 1


def test_the_enums_are_native_and_lower_case(engine: Engine) -> None:
    migrate.upgrade(engine, SCRIPTS)
    found = enums(engine)
    assert found["clustertype"] == [kind.value for kind in ClusterType]
    assert found["clusterstatus"] == [status.value for status in ClusterStatus]
    assert found["agentrole"] == [role.value for role in AgentRole]
    assert all(label == label.lower() for labels in found.values() for label in labels)


def test_the_reference_tables_are_there_with_foreign_keys_and_aware_times(engine: Engine) -> None:
    migrate.upgrade(engine, SCRIPTS)
    seen = inspect(engine)
    assert set(seen.get_table_names()) >= REFERENCE
    targets = {
        table: {key["referred_table"] for key in seen.get_foreign_keys(table)} for table in seen.get_table_names()
    }
    assert targets["clusters"] == {"cluster_blueprints", "clusters"}
    assert targets["cluster_agents"] == {"clusters", "cluster_agents"}
    assert targets["cluster_metrics"] == {"clusters"}
    with engine.connect() as connection:
        naive = connection.scalars(
            text(
                "SELECT table_name || '.' || column_name FROM information_schema.columns "
                "WHERE table_schema = 'public' AND data_type = 'timestamp without time zone'"
            )
        ).all()
    assert naive == []


def test_every_foreign_key_has_an_index_to_follow_it_by(engine: Engine) -> None:
    migrate.upgrade(engine, SCRIPTS)
    seen = inspect(engine)
    for table in seen.get_table_names():
        indexed = [index["column_names"] for index in seen.get_indexes(table)]
        indexed.append(seen.get_pk_constraint(table)["constrained_columns"])
        for key in seen.get_foreign_keys(table):
            columns = key["constrained_columns"]
            assert any(found[: len(columns)] == columns for found in indexed), f"{table}.{columns}"


def test_an_operation_has_a_kind_that_older_code_knows(engine: Engine) -> None:
    stored = text("SELECT kind::text, rolls_out FROM operations ORDER BY origin")
    migrate.upgrade(engine, SCRIPTS, "0011")
    with engine.begin() as connection:
        for origin, kind in (("a", "rollout"), ("b", "scale")):
            row = {"id": uuid.uuid4(), "kind": kind, "origin": origin}
            connection.execute(text("INSERT INTO operations (id, kind, origin) VALUES (:id, :kind, :origin)"), row)
    migrate.upgrade(engine, SCRIPTS)
    with engine.begin() as connection:
        assert [tuple(row) for row in connection.execute(stored)] == [("update", True), ("scale", False)]
    with Session(engine) as session:
        found = session.scalars(select(Operation).where(Operation.kind == OperationKind.ROLLOUT)).one()
        assert (found.origin, found.kind) == ("a", OperationKind.ROLLOUT)
        session.add(Operation(kind=OperationKind.ROLLOUT, origin="c"))
        session.commit()
        assert session.scalars(stored).all() == ["update", "scale", "update"]
    migrate.downgrade(engine, SCRIPTS)
    migrate.upgrade(engine, SCRIPTS)


def test_several_threads_may_upgrade_at_once(engine: Engine) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: migrate.upgrade(engine, SCRIPTS), range(4)))
    assert migrate.differences(engine) == []


def test_several_processes_may_upgrade_at_once(engine: Engine) -> None:
    program = (
        "import sys; from pathlib import Path; from sqlalchemy import create_engine\n"
        "from brain_clusters.db.migrate import upgrade\n"
        "upgrade(create_engine(sys.argv[1]), Path(sys.argv[2]))"
    )
    url = engine.url.render_as_string(hide_password=False)
    running = [subprocess.Popen([sys.executable, "-c", program, url, str(SCRIPTS)]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert current(engine) == Schema(SCRIPTS).head


def test_an_upgrade_that_fails_leaves_nothing_half_done(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE ticks (in_the_way int)"))
    with pytest.raises(Exception, match="ticks"):
        migrate.upgrade(engine, SCRIPTS)
    assert inspect(engine).get_table_names() == ["ticks"]
    assert enums(engine) == {}


def test_without_a_server_the_error_says_to_try_again() -> None:
    nobody = create_engine(f"postgresql+psycopg2://nobody@127.0.0.1:{free_port()}/none")
    with pytest.raises(TemporaryError):
        migrate.upgrade(nobody, SCRIPTS)
    nobody.dispose()
