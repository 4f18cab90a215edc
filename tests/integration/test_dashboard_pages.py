"""Pages of the dashboard without a browser: who is let in, what is escaped, files, and an empty installation."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient

from brain_clusters import dashboard
from brain_clusters.api.app import create_app
from brain_clusters.api.endpoint import declared
from brain_clusters.dashboard import words
from brain_clusters.dashboard.cluster_shape import turn
from brain_clusters.dashboard.site import digest
from brain_clusters.db.models import ScalingDecision
from brain_clusters.domain.access import Role
from brain_clusters.services import access, chart_data
from brain_clusters.services.access import NewKey
from brain_clusters.services.control import Control
from tests.integration.stage import Stage


def app_of(control: Control, *, keys: bool) -> Flask:
    app = create_app(replace(control, settings=replace(control.settings, insecure_dev=not keys)))
    dashboard.attach(app)
    return app


@pytest.fixture(scope="module")
def locked(control: Control) -> Flask:
    return app_of(control, keys=True)


@pytest.fixture(scope="module")
def open_app(control: Control) -> Flask:
    return app_of(control, keys=False)


@pytest.fixture
def pages(open_app: Flask) -> FlaskClient:
    return open_app.test_client()


def bearer(control: Control, **fields: object) -> dict[str, str]:
    with control.database.transaction() as session:
        return {"Authorization": f"Bearer {access.make(session, NewKey(name='k', **fields), 'tests')[1]}"}  # type: ignore[arg-type]


def test_every_view_of_the_dashboard_is_declared_as_a_page(locked: Flask) -> None:
    views = {name: view for name, view in locked.view_functions.items() if name.startswith("page_")}
    assert len(views) > 10
    for name, view in views.items():
        found = declared(view)
        assert found is not None, name
        assert found.page or name == "page_site.static_file"
        assert found.role is not None or name in ("page_site.static_file", "page_login.show")


def test_nobody_sees_a_page_without_signing_in(locked: Flask) -> None:
    client = locked.test_client()
    for path in ("/", "/clusters", "/clusters/x", "/clusters/x/costs", "/agents/x"):
        answered = client.get(path, headers={"Accept": "text/html"})
        assert answered.status_code == 303, path
        assert answered.headers["Location"].startswith("/login")
    assert client.get("/api/clusters").status_code == 401


def test_a_tenant_sees_its_own_clusters_only(locked: Flask, stage: Stage) -> None:
    mine, other = stage.active(name="Mine", tags=("a",)), stage.active(name="Theirs", tags=("b",))
    client, headers = locked.test_client(), bearer(stage.control, role=Role.VIEWER, tags=("a",))
    listing = client.get("/clusters", headers=headers).text
    assert mine in listing
    assert other not in listing
    assert other not in client.get("/", headers=headers).text
    for tab in ("", "/scaling", "/costs", "/jobs", "/events", "/blueprint"):
        assert client.get(f"/clusters/{mine}{tab}", headers=headers).status_code == 200
        assert client.get(f"/clusters/{other}{tab}", headers=headers).status_code == 404
    assert client.get(f"/agents/{stage.agents(other)[0].agent_id}", headers=headers).status_code == 404


def test_who_may_not_read_payloads_sees_no_log(locked: Flask, stage: Stage) -> None:
    agent_id = stage.agents(stage.active())[0].agent_id
    shown = locked.test_client().get(f"/agents/{agent_id}", headers=bearer(stage.control, role=Role.ADMIN)).text
    assert "right to read payloads" in shown


def test_text_stays_text(pages: FlaskClient, stage: Stage) -> None:
    evil = "<script>alert(1)</script>"
    cluster_id = stage.active(name=evil, description=evil, tags=(evil,))
    for path in ("/clusters", f"/clusters/{cluster_id}", f"/clusters?q={evil}", "/"):
        assert "<script>alert" not in pages.get(path).text, path


def test_pages_may_load_nothing_of_others_and_nothing_inline(pages: FlaskClient, stage: Stage) -> None:
    cluster_id = stage.active()
    for path in ("/", "/clusters", f"/clusters/{cluster_id}", f"/clusters/{cluster_id}/costs"):
        answered = pages.get(path)
        assert "script-src 'self'" in answered.headers["Content-Security-Policy"]
        assert answered.headers["Cache-Control"] == "no-store"
        assert not re.findall(r"""\sstyle=|\son[a-z]+=["']|(?:src|href)="https?:""", answered.text)


def test_files_are_kept_until_they_change(pages: FlaskClient) -> None:
    shown = pages.get("/").text
    [path] = re.findall(r'src="(/static/[^"]*app\.js)"', shown)
    answered = pages.get(path, buffered=True)
    assert (answered.status_code, answered.mimetype) == (200, "text/javascript")
    assert "immutable" in answered.headers["Cache-Control"]
    assert pages.get(path.replace(digest(), "older"), buffered=True).headers["Cache-Control"] == "no-cache"
    assert pages.get(f"/static/{digest()}/../site.py").status_code == 404


@pytest.mark.parametrize(("path", "taught"), [("/", "create demo"), ("/clusters", "create demo")])
def test_an_empty_installation_says_what_to_do_next(pages: FlaskClient, stage: Stage, path: str, taught: str) -> None:
    stage.sql("TRUNCATE events")
    assert taught in pages.get(path).text


def test_the_list_is_searched_sorted_and_paged(pages: FlaskClient, stage: Stage) -> None:
    for number in range(52):
        stage.create(name=f"Number {number:02}")
    assert "page 1 of 2" in pages.get("/clusters").text
    last = pages.get("/clusters?sort=name&page=9").text  # past the end is the last one
    assert "page 2 of 2" in last
    assert "Number 51" in last
    assert pages.get("/clusters?q=NUMBER+07").text.count('<tr id="row-') == 1
    assert "No cluster matches" in pages.get("/clusters?status=hibernated").text
    assert pages.get("/clusters?sort=secret").status_code == 422


def test_the_overview_tells_the_worst_first(pages: FlaskClient, stage: Stage) -> None:
    short, spent = stage.active(), stage.active()
    stage.sql("UPDATE clusters SET current_workers = 0, scaled_at = now() - interval '1 hour' WHERE id = :id", id=short)
    stage.sql("UPDATE clusters SET over_budget_on = (now() AT TIME ZONE 'UTC')::date WHERE id = :id", id=spent)
    stage.sql(
        "INSERT INTO jobs (id, cluster_id, group_name, status, error_key, finished_at) "
        "SELECT 'dead-' || n, :id, 'Packer', 'dead', 'ValueError: no', now() FROM generate_series(1, 3) AS n", id=spent
    )  # fmt: skip
    told = pages.get("/api/overview").json
    found = [(one["kind"], one["severity"], one["subject"], one["count"]) for one in told["attention"]["items"]]
    assert found == [
        ("unhealthy", "critical", short, 1), ("budget", "critical", spent, 1), ("dead_letters", "warning", spent, 3),
    ]  # fmt: skip
    assert told["clusters"] == {"total": 2, "by_status": {"active": 2}}
    assert told["agents"]["total"] == 6


def test_durations_and_amounts_read_as_people_write_them() -> None:
    shown: dict[Callable[..., str], list[tuple[float | None, str]]] = {
        words.duration: [(None, "–"), (0, "0 s"), (0.25, "250 ms"), (3.25, "3.2 s"), (61, "1 min"), (90_000, "1 d")],
        words.size: [(None, "–"), (12, "12 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")],
        words.money: [(None, "–"), (0, "0.00"), (0.0123, "0.0123"), (1234.5, "1\N{NARROW NO-BREAK SPACE}234.50")],
    }
    for function, pairs in shown.items():
        for value, text in pairs:
            assert function(value) == text


def test_charts_count_agents_by_state_from_their_own_times(stage: Stage) -> None:
    cluster_id = stage.active()
    stage.sql(
        "UPDATE cluster_agents SET spawned_at = now() - interval '9 minutes', ready_at = now() - interval '8 minutes'"
    )
    gone, leaving = (agent.agent_id for agent in stage.agents(cluster_id)[:2])
    stage.sql("UPDATE cluster_agents SET draining_at = now() - interval '1 minute' WHERE agent_id = :id", id=leaving)
    stage.sql(
        "UPDATE cluster_agents SET stopped_at = now() - interval '4 minutes', status = 'failed' WHERE agent_id = :id",
        id=gone,
    )
    with stage.control.database.transaction() as session:
        found = chart_data.charted(session, cluster_id, 900, 15)

    def at(minutes: float) -> tuple[int, int, int]:
        place = -1 - int(minutes * 60 / 15)
        return found.starting[place], found.ready[place], found.draining[place]

    assert [at(minutes) for minutes in (12, 8.5, 6, 2.5, 0)] == [(0, 0, 0), (3, 0, 0), (0, 3, 0), (0, 2, 0), (0, 1, 1)]
    assert found.waiting[-1] is None  # there is no sample


def test_a_hold_is_told_once() -> None:
    gate = {"gate": "cooldown", "reason": "9 s are left", "wanted": 3}
    row = ScalingDecision(
        id=1, action="hold", reason="Clerk: 9 s are left", before={"Clerk": 1, "Boss": 1},
        after={"Clerk": 3, "Boss": 1}, held={"Clerk": gate},
    )  # fmt: skip
    told = turn(row)
    assert (told.reason, told.changes) == ("", [("Clerk", 1, 3)])
    assert told.held == [("Clerk", "cooldown", "9 s are left")]
