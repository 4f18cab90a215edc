"""Code and schema that do not fit: every process refuses with a sentence, and goes on when they fit again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from brain_clusters.api.app import create_app
from brain_clusters.broker import names
from brain_clusters.broker.app import make_app
from brain_clusters.config import Settings, child_environment
from brain_clusters.db import migrate
from brain_clusters.db.models import Operation
from brain_clusters.db.schema import Schema, revision
from brain_clusters.domain.commands import CreateCluster
from brain_clusters.domain.states import AgentStatus
from brain_clusters.errors import SchemaMismatch
from brain_clusters.services.control import Control
from brain_clusters.shipped import shipped
from tests.integration.stage import Stage

SCRIPTS = shipped("migrations")
HEAD = Schema(SCRIPTS).head
NEWER = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"
branch_labels = depends_on = None
{works_with}


def upgrade() -> None:
    op.add_column("clusters", sa.Column("added", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("clusters", "added")
"""
Until = Callable[..., Any]
WriteNewer = Callable[[str], Path]


@pytest.fixture
def engine(control: Control) -> Iterator[Engine]:
    """The engine of the module's database, which is brought back to the schema of this code."""
    yield control.database.engine
    with control.database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE clusters DROP COLUMN IF EXISTS added"))
        connection.execute(text("UPDATE alembic_version SET version_num = :head"), {"head": HEAD})
    migrate.upgrade(control.database.engine, SCRIPTS)


@pytest.fixture
def newer(tmp_path: Path) -> WriteNewer:
    """A function that returns our migrations and a newer one, which holds the given line."""

    def write(works_with: str) -> Path:
        found = tmp_path / "migrations"
        copytree(SCRIPTS, found, dirs_exist_ok=True)
        (found / "versions" / "9999_newer.py").write_text(NEWER.format(head=HEAD, works_with=works_with))
        return found

    return write


@pytest.fixture
def client(control: Control, engine: Engine) -> FlaskClient:
    """The API, which has just seen the schema that it needs."""
    client = create_app(control).test_client()
    assert client.get("/api/clusters").status_code == 200
    return client


def claim(engine: Engine, found: str) -> None:
    """Let the database claim to have the schema ``found``, as one that does not say what works with it."""
    with engine.begin() as connection:
        connection.execute(text("COMMENT ON TABLE alembic_version IS NULL"))
        connection.execute(text("UPDATE alembic_version SET version_num = :found"), {"found": found})


def order(stage: Stage) -> Operation:
    """Submit a command whose effect is agents."""
    return stage.submit(CreateCluster(blueprint_id="shop", name="Shop", id=f"shop-{uuid.uuid4().hex[:8]}"))


@contextmanager
def running(command: str, settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process of the system, which writes to ``log``, and end it."""
    with log.open("wb") as output:
        argv = [sys.executable, "-P", "-m", "brain_clusters", command]
        process = subprocess.Popen(argv, env=child_environment(settings), stderr=output, stdout=output)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


# --- the API ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", ["0001", "9999"])
def test_the_api_answers_503_that_names_both_schemas(
    control: Control, client: FlaskClient, engine: Engine, found: str
) -> None:
    claim(engine, found)
    with pytest.raises(SchemaMismatch):
        control.database.check_schema()
    for response in (
        client.get("/api/clusters"),
        client.post("/api/clusters", json={"blueprint_id": "x", "name": "n"}),
        client.delete("/api/clusters/none"),
    ):
        assert (response.status_code, response.mimetype) == (503, "application/problem+json")
        assert response.json["type"] == "urn:brain:problem:schema"
        assert found in response.json["detail"]
        assert HEAD in response.json["detail"]
        assert response.headers["Retry-After"]
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json["problems"] == [response.json["detail"]]
    assert client.get("/version").json["schema"] == HEAD
    claim(engine, HEAD)
    assert client.get("/readyz").status_code == 200
    assert client.get("/api/clusters").status_code == 200


def test_an_older_schema_says_which_command_to_run(client: FlaskClient, engine: Engine) -> None:
    claim(engine, "0001")
    assert "brain-clusters migrate" in client.get("/readyz").json["problems"][0]


def test_a_schema_that_changes_under_a_running_api_is_told_as_that_and_not_as_an_error_of_ours(
    client: FlaskClient, engine: Engine
) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE clusters RENAME COLUMN description TO about"))
    try:
        assert client.get("/api/clusters").status_code == 500  # a broken table is no other schema
        claim(engine, "9999")
        assert client.get("/api/clusters").status_code == 503
        claim(engine, HEAD)
        assert client.get("/readyz").status_code == 200
        claim(engine, "9999")  # seen as the right one a moment ago
        response = client.get("/api/clusters")
        assert (response.status_code, response.json["type"]) == (503, "urn:brain:problem:schema")
    finally:
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE clusters RENAME COLUMN about TO description"))


# --- newer schemas, and what they say of older code -------------------------------------------------------------


def test_older_code_goes_on_with_a_newer_schema_that_says_it_may(
    control: Control, client: FlaskClient, engine: Engine, newer: WriteNewer
) -> None:
    migrate.upgrade(engine, newer(f'works_with = "{HEAD}"'))
    control.database.check_schema()
    assert client.get("/readyz").status_code == 200
    assert client.get("/api/clusters").status_code == 200
    migrate.upgrade(engine, SCRIPTS)  # as the older version's start does it
    with engine.connect() as connection:
        assert revision(connection) == "9999"


@pytest.mark.parametrize("line", ["", 'works_with = "9999"'])
def test_older_code_refuses_a_newer_schema_that_does_not_say_so(
    control: Control, client: FlaskClient, engine: Engine, newer: WriteNewer, line: str
) -> None:
    migrate.upgrade(engine, newer(line))
    with pytest.raises(SchemaMismatch, match=f"9999.*{HEAD}.*start a version that knows 9999"):
        control.database.check_schema()
    assert client.get("/api/clusters").status_code == 503
    with pytest.raises(SchemaMismatch):
        migrate.upgrade(engine, SCRIPTS)


def word_of(engine: Engine) -> Any:
    with engine.connect() as connection:
        return connection.scalar(text("SELECT obj_description('alembic_version'::regclass)"))


def test_a_downgrade_takes_the_word_of_the_newer_one_back(engine: Engine, newer: WriteNewer) -> None:
    before = word_of(engine)
    scripts = newer('works_with = "9999"')
    migrate.upgrade(engine, scripts)
    assert word_of(engine).endswith(" 9999")
    migrate.downgrade(engine, scripts, HEAD)
    assert word_of(engine) == before


# --- workers, the clock and hosts -------------------------------------------------------------------------------


def test_a_worker_and_a_clock_wait_for_their_schema_and_take_nothing_meanwhile(
    settings: Settings, control: Control, engine: Engine, stage: Stage, tmp_path: Path, until: Until
) -> None:
    claim(engine, "0001")
    logs = {name: tmp_path / f"{name}.log" for name in ("worker", "beat")}
    with running("worker", settings, logs["worker"]), running("beat", settings, logs["beat"]):
        for log in logs.values():
            until(lambda log=log: f"schema is 0001, and this version needs {HEAD}" in log.read_text(), log.name)
        assert not stage.redis.exists(names.WORKERS_SET)
        assert not stage.redis.exists(names.LIFECYCLE_QUEUE)
        claim(engine, HEAD)
        operation = order(stage)
        until(lambda: stage.agents(operation.cluster_id or ""), "the command is run")


def test_a_command_that_a_running_worker_took_is_run_when_the_schema_fits_again(
    settings: Settings, engine: Engine, stage: Stage, cut_off: Stage, tmp_path: Path, until: Until
) -> None:
    log = tmp_path / "worker.log"
    assert settings.redis_url
    app = make_app(settings.redis_url, owner="tests")
    with running("worker", settings, log), app:
        until(lambda: stage.redis.exists(names.WORKERS_SET), "the worker runs")
        operation = order(cut_off)  # recorded, and published here, when the schema does not fit any more
        claim(engine, "9999")
        stage.control.broker.publish_operation(str(operation.id))
        until(lambda: not stage.redis.exists(names.LIFECYCLE_QUEUE), "the command is taken")
        app.send_task(names.TICK_TASK, queue=names.LIFECYCLE_QUEUE)
        until(lambda: "schema is 9999" in log.read_text(), "the worker says what is wrong")
        claim(engine, HEAD)
        until(lambda: stage.agents(operation.cluster_id or ""), "the command is run")


def test_a_host_waits_and_leaves_its_agents_alone(
    settings: Settings, engine: Engine, stage: Stage, tmp_path: Path, until: Until
) -> None:
    log = tmp_path / "host.log"
    with running("host", settings, log):
        cluster_id = stage.create()
        until(lambda: len(stage.agents(cluster_id, AgentStatus.IDLE)) == 3, "the agents are there")
        agents = stage.agents(cluster_id)
        pids = {agent.agent_id: agent.handle["pid"] for agent in agents}
        claim(engine, "9999")
        until(lambda: "waiting: the database's schema is 9999" in log.read_text(), "the host says what it waits for")
        victim = agents[-1].agent_id
        os.kill(pids.pop(victim), signal.SIGKILL)
        host_key = names.host_key(os.uname().nodename)
        stage.redis.delete(host_key)
        until(lambda: stage.redis.exists(host_key), "the host says that it lives")
        assert all(Path(f"/proc/{pid}").exists() for pid in pids.values())
        claim(engine, HEAD)
        until(lambda: victim not in {agent.agent_id for agent in stage.agents(cluster_id)}, "the death is reported")
        assert all(Path(f"/proc/{pid}").exists() for pid in pids.values())
