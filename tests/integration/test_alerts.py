"""Alerts on a real PostgreSQL and Redis, with a real worker and a real receiver of web hooks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import event, func, select, text

from brain_clusters.api.app import create_app
from brain_clusters.broker import names
from brain_clusters.broker.backlog import Reading
from brain_clusters.broker.client import Broker
from brain_clusters.config import Settings, child_environment
from brain_clusters.db.models import Agent, Alert, Cluster, Event, Job, Operation
from brain_clusters.domain.commands import CreateCluster, DestroyCluster, HibernateCluster, Origin
from brain_clusters.domain.states import AgentStatus, ClusterStatus, Intent, JobStatus
from brain_clusters.errors import TemporaryError
from brain_clusters.genesis.desk import Ended
from brain_clusters.ports import free_port
from brain_clusters.services import alerts, blueprints, lifecycle, notify, observation, operations, sensing
from brain_clusters.services.control import Control
from brain_clusters.services.figures import Figures, figures
from brain_clusters.services.hosting import HostDesk
from brain_clusters.services.memory import Memory
from brain_clusters.services.observation import SeenCluster

Until = Callable[..., Any]
ORIGIN = Origin("test", "a test asks for it")
NOW = datetime(2025, 1, 31, 8, tzinfo=UTC)
SHOP = """
metadata: {{id: {id}, name: A shop, version: "1"}}
cluster: {{type: project, min_workers: 1, max_workers: 4, default_workers: 3 {scaling}}}
agents:
  - {{role: supervisor, name: Boss}}
  - {{role: worker, name: Packer, count: 0-5}}
  - {{role: worker, name: Driver, count: 0-3}}
monitoring:
  alerts: [{alerts}]
"""
BEAT = {"in_flight": 0, "completed": 0, "failed": 0, "service_time": None, "idle_since": 1.7e9, "cpu": 2.0,
        "memory": 10_000_000}  # fmt: skip


class Stage:
    """The collaborators of services, and clusters with the alerts that a test asks for."""

    def __init__(self, control: Control) -> None:
        self.control = control

    def cluster(self, *alerts: str, scaling: str = "") -> str:
        """Return a new cluster of a new blueprint with ``alerts``."""
        blueprint = f"shop-{uuid.uuid4().hex[:8]}"
        scaling = scaling and f", scaling: {scaling}"
        blueprints.store(self.control, SHOP.format(id=blueprint, alerts=", ".join(alerts), scaling=scaling))
        made = lifecycle.submit(self.control, CreateCluster(blueprint_id=blueprint, name="S", id=blueprint), ORIGIN)
        assert operations.run(self.control, made.operation.id)
        return made.cluster.id

    def ready(self, cluster_id: str) -> list[Agent]:
        """Let a cluster's agents be there, as a host would, with fresh beats."""
        desk = HostDesk(self.control, "host-1", 1000)
        desk.claim(1000)
        agents = self.agents(cluster_id)
        desk.ready({agent.agent_id: {"pid": 1, "started": "1"} for agent in agents})
        for agent in agents:
            self.control.broker.redis.set(names.beat_key(agent.agent_id), json.dumps(BEAT))
        return self.agents(cluster_id)

    def agents(self, cluster_id: str) -> list[Agent]:
        live = (AgentStatus.STARTING, AgentStatus.IDLE, AgentStatus.BUSY)
        with self.control.database.transaction() as session:
            query = select(Agent).where(Agent.cluster_id == cluster_id, Agent.status.in_(live))
            return list(session.scalars(query.order_by(Agent.spawned_at)))

    def row(self, cluster_id: str) -> Cluster:
        with self.control.database.transaction() as session:
            return session.get_one(Cluster, cluster_id)

    def events(self, *kinds: str) -> list[Event]:
        with self.control.database.transaction() as session:
            found = select(Event).where(Event.kind.in_(kinds) if kinds else Event.kind.startswith("alert."))
            return list(session.scalars(found.order_by(Event.id)))

    def kinds(self) -> list[str]:
        return [one.kind for one in self.events()]

    def outcome(self, action: str) -> str:
        """Return what came of an action of the newest alert."""
        return str(self.events("alert.acted")[-1].data["outcomes"][action])

    def states(self) -> dict[str, str]:
        with self.control.database.transaction() as session:
            return dict(session.execute(select(Alert.cluster_id, Alert.state)).all())

    def see(self, cluster_id: str, second: float = 0, **values: float | None) -> None:
        """Look at one cluster's alerts, ``second`` seconds after the start, with these values."""
        self.look({cluster_id: values}, second)

    def look(self, values: dict[str, dict[str, float | None]], second: float = 0, **fields: Any) -> None:
        with self.control.database.transaction() as session:
            seen = observation.load(session)
        looks = {
            key: Figures(key, seen[key].blueprint, seen[key].generation, found, **fields)
            for key, found in values.items()
        }
        alerts.evaluate(self.control, looks, NOW + timedelta(seconds=second))

    def forget(self) -> None:
        """Let events be older, and sweeps and ticks be due, instead of waiting."""
        with self.control.database.transaction() as session:
            session.execute(text("UPDATE events SET at = at - interval '7 seconds'"))
            session.execute(text("DELETE FROM ticks"))

    def watch(self, *, redis: bool = True) -> None:
        """Look at everything as the tick does."""
        alerts.watch(self.control, *self.seen(redis=redis))

    def seen(self, *, redis: bool = True) -> tuple[dict[str, SeenCluster], Reading | None]:
        """Return what a tick sees."""
        with self.control.database.transaction() as session:
            found = observation.load(session)
        return found, sensing.read(self.control, found, Memory()) if redis else None

    def count(self, table: Any) -> int:
        with self.control.database.transaction() as session:
            return session.scalar(select(func.count()).select_from(table)) or 0


@pytest.fixture
def stage(control: Control) -> Iterator[Stage]:
    """A stage on an empty database and an empty Redis."""
    control.broker.redis.flushdb()
    with control.database.transaction() as session:
        session.execute(text("TRUNCATE events, jobs, operations, cluster_agents, clusters, hosts, ticks CASCADE"))
    yield Stage(control)
    control.broker.redis.flushdb()


@pytest.fixture
def cut_off(stage: Stage) -> Iterator[Stage]:
    """The same stage with a web hook, and a Redis that does not answer."""
    settings = replace(stage.control.settings, admin_webhook_url="http://127.0.0.1:1/")
    control = replace(stage.control, settings=settings, broker=Broker(f"redis://127.0.0.1:{free_port()}/0"))
    yield Stage(control)
    control.broker.close()


# --- told once --------------------------------------------------------------------------------------------------


def test_an_alert_is_told_when_it_fires_and_when_it_is_over_and_its_row_stays(stage: Stage) -> None:
    shop = stage.cluster("{condition: error_rate > 10%, action: notify_admin, for: 5s, resolve_after: 10s}")
    for second, rate in [(0, 50), (4, 50), (5, 60), (6, 60), (20, 0), (29, 0), (30, 0), (31, 0)]:
        stage.see(shop, second, error_rate=rate)
    assert stage.kinds() == ["alert.firing", "alert.acted", "alert.resolved", "alert.acted"]
    firing, resolved = stage.events("alert.firing", "alert.resolved")
    assert (firing.cluster_id, firing.actor, firing.reason) == (shop, "alert", "error_rate > 10%: error_rate is 60")
    assert (firing.data["value"], firing.data["threshold"], firing.data["severity"]) == (60, 10, "warning")
    assert firing.data["since"] == firing.data["fired_at"] == resolved.data["fired_at"]
    assert resolved.data["since"] == (NOW + timedelta(seconds=30)).isoformat()
    assert stage.states() == {shop: "resolved"}


def test_only_what_is_not_ok_has_a_row(stage: Stage) -> None:
    shop = stage.cluster("{condition: error_rate > 10%, action: notify_admin, for: 5s}")
    for second, rate, states in [(0, 0, {}), (1, 50, {shop: "pending"}), (2, 0, {}), (3, None, {})]:
        stage.see(shop, second, error_rate=rate)
        assert stage.states() == states
    assert stage.kinds() == []


def test_all_clusters_cost_one_query_for_reading_and_one_statement_for_writing(stage: Stage) -> None:
    shops = [stage.cluster("{condition: error_rate > 10%, action: notify_admin, for: 9s}") for _ in range(4)]
    with statements(stage.control) as seen:
        stage.look({shop: {"error_rate": 50.0} for shop in shops})
    assert sum("FROM alerts" in one for one in seen) == 1
    assert sum("INSERT INTO alerts" in one for one in seen) == 1
    with statements(stage.control) as seen:
        stage.look({shop: {"error_rate": 0.0} for shop in shops})
    assert [one.split()[0] for one in seen if " alerts" in one and "SELECT" not in one] == ["DELETE"]


def test_the_log_has_the_level_of_the_severity(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    for severity in ("info", "warning", "critical"):
        shop = stage.cluster(f"{{condition: running > 1, action: notify_admin, severity: {severity}}}")
        with caplog.at_level("INFO"):
            stage.see(shop, running=5)
    told = [one.levelname for one in caplog.records if one.message.startswith("alert firing")]
    assert told == ["INFO", "WARNING", "CRITICAL"]


def test_the_end_of_a_cluster_ends_its_alerts(stage: Stage) -> None:
    shop = stage.cluster("{condition: running > 1, action: notify_admin}")
    stage.see(shop, running=5)
    lifecycle.submit(stage.control, DestroyCluster(cluster_id=shop), ORIGIN)
    stage.watch()
    assert stage.events("alert.resolved")[0].reason == "running > 1 is over: the cluster was destroyed"
    assert stage.states() == {shop: "resolved"}


def test_a_cluster_that_is_gone_before_a_tick_sees_it_leaves_no_alert_firing(stage: Stage) -> None:
    shop = stage.cluster("{condition: running > 1, action: notify_admin}")
    stage.see(shop, running=5)
    destroyed = lifecycle.submit(stage.control, DestroyCluster(cluster_id=shop), ORIGIN)
    assert operations.run(stage.control, destroyed.operation.id)
    assert stage.row(shop).status is ClusterStatus.DESTROYED
    alerts.end_destroyed(stage.control)
    assert stage.states() == {shop: "firing"}
    with stage.control.database.transaction() as session:
        session.execute(text("UPDATE clusters SET destroyed_at = now() - interval '1 minute'"))
    for _ in range(2):
        alerts.end_destroyed(stage.control)
    assert stage.states() == {shop: "resolved"}
    assert stage.kinds().count("alert.resolved") == 1


# --- what the tick knows ----------------------------------------------------------------------------------------


def test_what_waits_runs_fails_and_is_missing_becomes_figures(stage: Stage) -> None:
    watched = "error_rate > 1 and held > 0 and worker_failure > 0 and queue_latency > 0 and cpu_usage > 0"
    shop = stage.cluster(f"{{condition: {watched}, action: notify_admin}}")
    first, second, _ = stage.ready(shop)
    HostDesk(stage.control, "host-1", 1000).ended([Ended(first.agent_id, asked=False, error="killed")])
    stage.control.broker.redis.hset(names.unacked_key(second.agent_id), "tag", "{}")
    stage.control.broker.publish_jobs(names.group_queue(shop, "packer"), [Job(id="waits", payload=1)])
    with stage.control.database.transaction() as session:
        done = {"cluster_id": shop, "group_name": "Packer", "started_at": func.now() - timedelta(seconds=2)}
        ended = [JobStatus.SUCCEEDED, JobStatus.SUCCEEDED, JobStatus.SUCCEEDED, JobStatus.FAILED]
        session.add_all(
            Job(id=f"j{number}", status=status, finished_at=func.now(), **done) for number, status in enumerate(ended)
        )
        session.add(Job(id="later", cluster_id=shop, group_name="Packer", eta=func.now() + timedelta(hours=1)))
    with stage.control.database.transaction() as session:
        seen = observation.load(session)
    found = figures(stage.control, seen, sensing.read(stage.control, seen, Memory()))[shop]
    values = dict(found.values)
    assert 0 <= (values.pop("queue_latency") or 0) < 60
    assert 0 < (values.pop("memory_usage") or 0) < 50
    assert values == {
        "error_rate": 25.0, "tasks_per_minute": 4.0, "avg_response_time": 2000.0, "queue_length": 1, "running": 1,
        "held": 1, "load": 100.0, "cpu_usage": 4.0, "active_agents": 2, "idle_agents": 2, "busy_agents": 0,
        "starting_agents": 1, "draining_agents": 0, "missing_agents": 1, "worker_failure": 1, "health_score": 0.5,
    }  # fmt: skip
    assert found.backlogs == {"Boss": 0, "Packer": 1, "Driver": 0}
    blind = figures(stage.control, seen, None)[shop].values
    known = {"active_agents", "idle_agents", "busy_agents", "starting_agents", "draining_agents",
             "missing_agents", "worker_failure", "health_score"}  # fmt: skip
    assert {name for name, value in blind.items() if value is not None} == known


def test_nothing_is_asked_for_that_no_alert_uses(stage: Stage) -> None:
    stage.cluster()
    found = stage.seen()
    with statements(stage.control) as seen:
        alerts.watch(stage.control, *found)
    assert not any("alerts" in one or "FROM jobs" in one for one in seen)
    stage.cluster("{condition: running > 1, action: notify_admin}")
    found = stage.seen()
    with statements(stage.control) as seen:
        alerts.watch(stage.control, *found)
    assert sum("FROM alerts" in one for one in seen) == 1
    assert not any("FROM jobs" in one or "GROUP BY" in one for one in seen)


def test_a_redis_that_is_away_neither_fires_nor_ends_an_alert(stage: Stage) -> None:
    shop = stage.cluster("{condition: queue_length > 0, action: notify_admin, resolve_after: 0}")
    stage.watch(redis=False)
    assert stage.states() == {}
    stage.control.broker.publish_jobs(names.group_queue(shop, "packer"), [Job(id="waits", payload=1)])
    stage.watch()
    stage.watch(redis=False)
    assert stage.states() == {shop: "firing"}
    stage.control.broker.redis.flushdb()
    stage.watch()
    assert stage.states() == {shop: "resolved"}


# --- actions ----------------------------------------------------------------------------------------------------


def test_scale_up_makes_one_step_to_where_most_jobs_wait(stage: Stage) -> None:
    shop = stage.cluster("{condition: queue_length > 5, action: scale_up}")
    before = stage.row(shop)
    assert before.group_targets == {"Boss": 1, "Packer": 1, "Driver": 1}
    stage.look({shop: {"queue_length": 9}}, backlogs={"Driver": 9})
    stage.look({shop: {"queue_length": 9}}, 100, backlogs={"Driver": 9})
    after = stage.row(shop)
    assert (after.group_targets, after.generation) == ({"Boss": 1, "Packer": 1, "Driver": 2}, before.generation + 1)
    accepted = stage.events("operation.accepted")[-1]
    assert (accepted.actor, "queue_length is 9" in accepted.reason) == ("alert", True)
    assert str(accepted.operation_id) in stage.outcome("scale_up")


def test_an_action_that_is_not_possible_is_a_line_of_history_and_stops_no_other(stage: Stage) -> None:
    condition = "condition: running > 1"
    full = stage.cluster(
        f"{{{condition}, action: [scale_up, notify_admin]}}", "{condition: load > 1, action: scale_up}"
    )
    asleep = stage.cluster(f"{{{condition}, action: hibernate}}")
    paused = stage.cluster(f"{{{condition}, action: [scale_up, hibernate]}}", scaling="{paused: out}")
    stage.see(full, load=50)
    assert stage.row(full).target_workers == 4
    lifecycle.submit(stage.control, HibernateCluster(cluster_id=asleep), ORIGIN)
    stage.look({shop: {"running": 5.0} for shop in (full, asleep, paused)})
    told = {one.cluster_id: one.data["outcomes"] for one in stage.events("alert.acted")}
    assert told[full]["scale_up"].startswith("not done: the cluster's max_workers and the counts")
    assert told[full]["notify_admin"] == "logged"
    assert told[asleep]["hibernate"].startswith("not done: cannot hibernate a cluster that is")
    assert told[paused]["scale_up"] == "not done: cluster.scaling.paused holds it"
    assert stage.row(paused).intent is Intent.ASLEEP


def test_spawn_replacement_takes_the_pause_from_agents_that_died_young(stage: Stage) -> None:
    shop = stage.cluster("{condition: worker_failure > 2, action: spawn_replacement}")
    desk = HostDesk(stage.control, "host-1", 1000)
    for _ in range(2):
        agents = stage.ready(shop)
        desk.ended([Ended(agent.agent_id, asked=False, error="killed") for agent in agents])
    assert any(agent.not_before for agent in stage.agents(shop))
    stage.watch()
    assert [agent.not_before for agent in stage.agents(shop)] == [None] * 3
    assert stage.outcome("spawn_replacement") == "3 agents start without their pause"


# --- faults in between ------------------------------------------------------------------------------------------


def test_what_could_not_be_done_is_done_later_and_once(stage: Stage, cut_off: Stage) -> None:
    shop = stage.cluster("{condition: running > 1, action: [scale_up, notify_admin]}")
    cut_off.see(shop, running=5)
    assert stage.kinds() == ["alert.firing"]
    assert stage.row(shop).target_workers == 4
    with stage.control.database.transaction() as session:
        session.execute(text("UPDATE alerts SET fired_at = now()"))
    stage.watch()
    assert stage.kinds() == ["alert.firing"]  # it may still be at it
    stage.forget()
    for _ in range(3):
        stage.watch()
        stage.forget()
    assert stage.kinds() == ["alert.firing", "alert.acted"]
    assert stage.row(shop).target_workers == 4
    with stage.control.database.transaction() as session:
        commands = session.scalars(select(Operation).where(Operation.origin == "alert")).all()
    assert len(commands) == 1
    assert str(commands[0].id) in stage.outcome("scale_up")


def test_a_worker_that_died_before_it_noted_what_it_did_makes_no_second_command(stage: Stage) -> None:
    shop = stage.cluster("{condition: running > 1, action: scale_up}")
    stage.see(shop, running=5)
    with stage.control.database.transaction() as session:
        session.execute(text("DELETE FROM events WHERE kind = 'alert.acted'"))
        session.execute(text("UPDATE alerts SET fired_at = now()"))
    stage.forget()
    stage.watch()
    assert stage.kinds() == ["alert.firing", "alert.acted"]
    assert stage.count(Operation) == 2  # the creation, and one step


# --- the web hook -----------------------------------------------------------------------------------------------


@dataclass
class Receiver:
    """A real receiver of web hooks. answers: the next ones; 200 when there are none left."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    received: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)


@contextmanager
def receiver(*answers: int) -> Iterator[Receiver]:
    found = Receiver(answers=list(answers))

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = found.answers.pop(0) if found.answers else 200
            found.received.append(({"path": self.path, **self.headers}, body))
            self.send_response(status)
            self.send_header("Location", f"{found.url}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def worker(settings: Settings, log: Path) -> Iterator[None]:
    """Run a real lifecycle worker."""
    environment = {**child_environment(settings, os.environ), "PYTHONWARNINGS": "ignore"}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "brain_clusters", "worker"], env=environment, stdout=output, stderr=output
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def with_hook(stage: Stage, url: str) -> Stage:
    return Stage(replace(stage.control, settings=replace(stage.control.settings, admin_webhook_url=url)))


def test_a_worker_posts_each_alert_once_and_again_after_a_refusal(stage: Stage, tmp_path: Path, until: Until) -> None:
    with receiver(500, 429) as hook:
        hooked = with_hook(stage, f"http://me:pass%20word@{hook.url.removeprefix('http://')}/hook?a=b")
        shop = hooked.cluster(
            "{condition: error_rate > 10%, action: notify_admin, severity: critical, name: errors, resolve_after: 0}"
        )
        hooked.see(shop, error_rate=50)
        with worker(hooked.control.settings, tmp_path / "worker.log"):
            until(lambda: "alert.notified" in stage.kinds(), "the first web hook")
            hooked.see(shop, 60, error_rate=0)
            until(lambda: stage.kinds().count("alert.notified") == 2, "the second web hook")
    firing, resolved = stage.events("alert.firing", "alert.resolved")
    assert [(body["state"], body["id"]) for _, body in hook.received] == [("firing", firing.id)] * 3 + [
        ("resolved", resolved.id)
    ]
    headers, body = hook.received[0]
    assert headers["path"] == "/hook?a=b"
    assert headers["Authorization"] == "Basic bWU6cGFzcyB3b3Jk"
    assert headers["Idempotency-Key"] == f"brain-alert-{firing.id}"
    assert body == {
        "id": firing.id, "cluster_id": shop, "alert": "errors", "state": "firing", "severity": "critical",
        "condition": "error_rate > 10%", "value": 50, "threshold": 10, "since": NOW.isoformat(),
        "fired_at": NOW.isoformat(), "text": "error_rate > 10%: error_rate is 50",
    }  # fmt: skip
    assert [one.data["attempts"] for one in stage.events("alert.notified")] == [3, 1]
    assert hook.url not in (tmp_path / "worker.log").read_text()


def fired(stage: Stage) -> int:
    """Let an alert fire, and return its event's id."""
    stage.see(stage.cluster("{condition: running > 1, action: notify_admin}"), running=5)
    return stage.events("alert.firing")[-1].id


def test_a_message_that_comes_twice_is_posted_once(stage: Stage) -> None:
    with receiver() as hook:
        hooked = with_hook(stage, hook.url)
        event_id = fired(hooked)
        for attempt in (1, 1, 2):
            notify.send(hooked.control, event_id, attempt=attempt)
        assert len(hook.received) == 1
    notify.send(stage.control, event_id, attempt=1)
    notify.send(hooked.control, 10**9, attempt=1)


@pytest.mark.parametrize("status", [301, 307, 400, 404])
def test_a_refusal_and_a_redirect_are_final(stage: Stage, status: int) -> None:
    with receiver(status) as hook:
        hooked = with_hook(stage, hook.url)
        event_id = fired(hooked)
        for _ in range(2):
            notify.send(hooked.control, event_id, attempt=1)
        assert len(hook.received) == 1
    [unsent] = stage.events("alert.unsent")
    assert unsent.reason == f"after 1 attempts: the web hook answered {status}"


def test_a_receiver_that_stays_away_is_given_up_after_the_last_attempt(stage: Stage) -> None:
    hooked = with_hook(stage, f"http://127.0.0.1:{free_port()}/secret")
    event_id = fired(hooked)
    with pytest.raises(TemporaryError, match="does not answer") as raised:
        notify.send(hooked.control, event_id, attempt=notify.ATTEMPTS - 1)
    assert "secret" not in str(raised.value)
    notify.send(hooked.control, event_id, attempt=notify.ATTEMPTS)
    assert stage.kinds()[-1] == "alert.unsent"


# --- the API ----------------------------------------------------------------------------------------------------


@pytest.fixture
def client(stage: Stage) -> FlaskClient:
    return create_app(stage.control).test_client()


def test_the_api_shows_every_alert_and_where_it_stands(stage: Stage, client: FlaskClient) -> None:
    shop = stage.cluster(
        "{condition: queue_wait_time > 5m, action: notify_admin, name: late, resolve: queue_latency < 1m}",
        "{condition: error_rate > 10%, action: [scale_up, notify_admin]}",
    )
    stage.see(shop, queue_latency=400, error_rate=0)
    found = client.get(f"/api/clusters/{shop}/alerts").json
    assert found["total"] == 2
    late, errors = found["alerts"]
    moment = datetime.fromisoformat(late.pop("since"))
    assert moment == datetime.fromisoformat(late.pop("fired_at")) == NOW
    assert late == {
        "name": "late", "condition": "queue_wait_time > 5m", "resolve": "queue_latency < 1m",
        "action": ["notify_admin"], "for_seconds": 0, "resolve_after_seconds": 60, "severity": "warning",
        "state": "firing", "value": 400, "resolved_at": None,
    }  # fmt: skip
    assert (errors["name"], errors["state"]) == ("error_rate > 10%: scale_up, notify_admin", "ok")
    assert (errors["since"], errors["fired_at"], errors["value"]) == (None, None, None)
    assert client.get("/api/clusters/nobody/alerts").status_code == 404


@contextmanager
def statements(control: Control) -> Iterator[list[str]]:
    """Yield a list that fills with every statement that is sent meanwhile."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(" ".join(statement.split()))

    event.listen(control.database.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(control.database.engine, "before_cursor_execute", note)
