"""What tests share: real servers in a home of their own, and the collaborators of services on them."""

from __future__ import annotations

import itertools
import re
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import flask
import hypothesis
import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import create_engine, text

from brain_clusters.api.app import create_app
from brain_clusters.api.endpoint import declared
from brain_clusters.config import Settings
from brain_clusters.db.migrate import upgrade
from brain_clusters.embedded import EmbeddedServers, ServerUrls, running
from brain_clusters.services.blueprints import store
from brain_clusters.services.control import Control
from brain_clusters.shipped import shipped
from tests import documented

# Its assertions say what they found, as ours do.
pytest.register_assert_rewrite("brain_clusters.genesis.contract")
# No bounds on time in tests, nothing left behind, the same examples every time, and few: the rules are small.
# Nothing here judges by the clock: neither a deadline for an example nor the time that examples take to be made.
hypothesis.settings.register_profile(
    "brain", deadline=None, database=None, max_examples=60, derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)  # fmt: skip
hypothesis.settings.load_profile("brain")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a report be sent from one process to another: what tests log may be no Unicode, as what they try is not."""
    report = yield
    report.sections = [(name, told.encode(errors="replace").decode()) for name, told in report.sections]
    return report


# A Redis server has sixteen databases; modules that follow each other this far apart may share one.
_redis_numbers = itertools.cycle(range(16))


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    """A function that waits for a condition, returns what it found, and fails with a sentence when it never comes."""

    def wait(condition: Callable[[], Any], what: str = "what was awaited", seconds: float = 30.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{what} did not happen in {seconds:g} s"
            time.sleep(0.005)
        return found

    return wait


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUrls]:
    """PostgreSQL and Valkey for the whole run; their data are deleted at its end."""
    home = tmp_path_factory.mktemp("servers") / "home"
    embedded = EmbeddedServers(home, say=lambda _: None)
    try:
        embedded.start()
        urls = running(home)
        assert urls is not None
        yield urls
    finally:
        embedded.remove()


@pytest.fixture(scope="module")
def database_url(servers: ServerUrls) -> Iterator[str]:
    """A migrated database for one module."""
    assert servers.database_url
    admin = create_engine(servers.database_url, isolation_level="AUTOCOMMIT")
    name = f"test_{uuid.uuid4().hex[:12]}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    url = admin.url.set(database=name).render_as_string(hide_password=False)
    engine = create_engine(url)
    upgrade(engine, shipped("migrations"))
    engine.dispose()
    yield url
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture(scope="module")
def redis_url(servers: ServerUrls) -> str:
    """An empty Redis database for one module."""
    assert servers.redis_url
    url = f"{servers.redis_url.rsplit('/', 1)[0]}/{next(_redis_numbers)}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture(scope="module")
def settings(database_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings on the module's servers."""
    home = Path(tmp_path_factory.mktemp("home"))
    return Settings(home=home, database_url=database_url, redis_url=redis_url, insecure_dev=True)


@pytest.fixture(scope="module")
def control(settings: Settings) -> Iterator[Control]:
    """The collaborators of services, for one module."""
    control = Control.open(settings, application="tests")
    yield control
    control.close()


_undocumented: list[str] = []


def _compare(sender: Flask, response: flask.Response) -> None:
    """Note when an answer of the API in this process is none that the document has."""
    rule, method = flask.request.url_rule, flask.request.method
    if sender.name != "brain_clusters.api" or rule is None or method not in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        return
    template = re.sub(r"<(?:[^:<>]+:)?([^:<>]+)>", r"{\1}", rule.rule)
    view = sender.view_functions.get(flask.request.endpoint or "")
    told = declared(view)
    if template.startswith("/api") and told is not None and not told.page:
        body = b"" if response.is_streamed else response.get_data()
        found = documented.fault(method, template, response.status_code, response.mimetype or "", body)
        if found is not None:
            _undocumented.append(found)


@pytest.fixture(scope="session", autouse=True)
def _every_answer() -> Iterator[None]:
    with flask.request_finished.connected_to(_compare):
        yield


@pytest.fixture(autouse=True)
def _answers_are_as_documented() -> Iterator[None]:
    """Fail a test whose answers of the API are not as /api/openapi.json says."""
    _undocumented.clear()
    yield
    assert not _undocumented, "\n".join(_undocumented)


OFFICE = """
metadata: {id: office, name: An office, version: "1.0"}
cluster: {type: department, min_workers: 1, max_workers: 8, default_workers: 2}
agents:
  - {role: supervisor, name: Head, count: 1, capabilities: [planning]}
  - {role: worker, name: Clerks, count: 0-5, reports_to: Head, capabilities: [filing]}
"""


@pytest.fixture(scope="module")
def api_app(control: Control) -> Flask:
    """The API in this process, with the blueprint ``office`` stored."""
    store(control, OFFICE)
    return create_app(control)


@pytest.fixture
def api(api_app: Flask) -> FlaskClient:
    """A client of the API in this process."""
    return api_app.test_client()


@pytest.fixture
def new_cluster(api: FlaskClient) -> Callable[..., str]:
    """A function that makes a cluster of the blueprint ``office`` and returns its id."""

    def make(**fields: Any) -> str:
        response = api.post("/api/clusters", json={"blueprint_id": "office", "name": "An office", **fields})
        assert response.status_code == 202, response.text
        return str(response.json["cluster"]["id"])

    return make
