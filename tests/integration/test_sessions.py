"""Sessions: opened with a key, bound to it, of no use to pages of others, and ended from everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import flask
import pytest
from flask.testing import FlaskClient
from sqlalchemy import text
from werkzeug.test import TestResponse

from brain_clusters.api import pages
from brain_clusters.api.app import create_app
from brain_clusters.api.endpoint import endpoint
from brain_clusters.config import Settings
from brain_clusters.db.models import SignIn
from brain_clusters.domain.access import Role
from brain_clusters.services import access
from brain_clusters.services.access import NewKey
from brain_clusters.services.control import Control

FIXED = "a-key-of-the-environment"
SITE = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def guarded(settings: Settings) -> Iterator[Control]:
    """The collaborators of an API that asks for a key."""
    control = Control.open(replace(settings, insecure_dev=False, api_keys=(FIXED,)), application="tests")
    yield control
    control.close()


@pytest.fixture
def key(guarded: Control) -> Callable[..., tuple[str, str]]:
    """A function that makes a key and returns its id and its text."""

    def make(role: Role = Role.ADMIN, **fields: Any) -> tuple[str, str]:
        with guarded.database.transaction() as session:
            row, shown = access.make(session, NewKey(name=f"a {role}", role=role, **fields), "a test")
            return row.id, shown

    return make


@pytest.fixture
def app(guarded: Control) -> flask.Flask:
    """The API with a page of a dashboard."""
    app = create_app(guarded)

    @app.get("/screens/<name>")
    @endpoint(Role.OPERATOR, query={"tab": {"type": "string"}}, page=True)
    def screen(name: str, query: dict[str, Any]) -> flask.Response:
        return flask.Response(f"<h1>{name} {query}</h1>", mimetype="text/html")

    pages.attach(app, lambda status, title, detail: flask.Response(f"<h1>{status} {title}</h1>", mimetype="text/html"))
    return app


@pytest.fixture
def browser(app: flask.Flask) -> FlaskClient:
    """A browser, which keeps cookies."""
    return app.test_client()


def sign_in(browser: FlaskClient, key: str) -> str:
    """Sign in and return the token against forged requests."""
    answered = browser.post("/login", json={"key": key})
    assert answered.status_code == 200, answered.text
    return str(answered.json["csrf_token"])


def cookie_of(answered: TestResponse) -> str:
    [found] = [value for name, value in answered.headers if name == "Set-Cookie"]
    return str(found)


def test_a_key_opens_a_session_whose_cookie_no_script_and_no_other_site_has(
    browser: FlaskClient, key: Callable[..., tuple[str, str]], guarded: Control
) -> None:
    key_id, shown = key(Role.OPERATOR, tags=("red",), payloads=True)
    assert "; Secure" in cookie_of(browser.post("/login", json={"key": shown}, base_url="https://localhost"))
    answered = browser.post("/login", json={"key": shown})
    cookie = cookie_of(answered)
    for part in ("brain_session=", "HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"):
        assert part in cookie
    assert "Secure" not in cookie
    me = browser.get("/api/me").json
    assert me == {
        "name": "a operator", "role": "operator", "payloads": True, "tags": ["red"], "key_id": key_id,
        "method": "session", "csrf_token": answered.json["csrf_token"], "session": answered.json["session"],
    }  # fmt: skip
    secret = cookie.split("=", 1)[1].split(";", 1)[0]
    with guarded.database.transaction() as session:
        stored = session.query(SignIn).filter_by(key_id=key_id).all()
        assert secret not in repr([vars(row) for row in stored])


def test_a_wrong_key_opens_nothing(browser: FlaskClient) -> None:
    refused = browser.post("/login", json={"key": "brain_000000000000_" + "x" * 43})
    assert (refused.status_code, refused.mimetype) == (401, "application/problem+json")
    assert "Set-Cookie" not in refused.headers
    assert browser.post("/login", json={}).status_code == 422
    assert browser.get("/api/me").status_code == 401


def test_a_form_leads_on_to_pages_of_ours_only(browser: FlaskClient) -> None:
    for wanted, led in (
        ("/screens/x?tab=jobs", "/screens/x?tab=jobs"), ("https://evil.example/", "/"), ("//evil.example", "/"),
        ("/\\evil.example", "/"), ("/\t/evil.example", "/"), ("javascript:alert(1)", "/"), ("/login?next=/", "/"),
        ("", "/"),
    ):  # fmt: skip
        answered = browser.post("/login", data={"key": FIXED, "next": wanted})
        assert (answered.status_code, answered.headers["Location"]) == (303, led)
    assert browser.get("/api/me").json["key_id"].startswith("env-")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_a_cookie_alone_changes_nothing(browser: FlaskClient, method: str) -> None:
    token = sign_in(browser, FIXED)
    good = {"X-CSRF-Token": token}
    path = "/api/clusters/none"
    for headers in (
        {}, SITE, {"X-CSRF-Token": token[:-1]}, {"X-CSRF-Token": "é"}, {**good, "Origin": "https://evil.example"},
        {**good, "Origin": "null"}, {**good, "Sec-Fetch-Site": "cross-site"}, {**good, "Sec-Fetch-Site": "same-site"},
        {**good, "Origin": "http://localhost:3000"}, {**good, "Origin": "https://localhost"},
    ):  # fmt: skip
        assert browser.open(path, method=method, headers=headers, json={}).status_code == 403, headers
    for headers in (good, {**good, **SITE}):
        assert browser.open(path, method=method, headers=headers, json={}).status_code in (404, 405)


def test_another_session_s_token_is_refused(app: flask.Flask, browser: FlaskClient) -> None:
    mine, token = browser, sign_in(app.test_client(), FIXED)
    sign_in(mine, FIXED)
    assert mine.delete("/api/clusters/none", headers={"X-CSRF-Token": token}).status_code == 403


def test_nobody_is_signed_in_by_a_page_of_somebody_else(browser: FlaskClient) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert browser.post("/login", data={"key": FIXED}, headers=headers).status_code == 403


def test_signing_out_ends_the_session_for_whoever_kept_its_cookie(browser: FlaskClient, app: flask.Flask) -> None:
    token = sign_in(browser, FIXED)
    kept = browser.get_cookie("brain_session")
    assert kept is not None
    assert browser.post("/logout").status_code == 403
    gone = browser.post("/logout", headers={"X-CSRF-Token": token})
    assert gone.status_code == 204
    assert "Expires=Thu, 01 Jan 1970" in cookie_of(gone)
    thief = app.test_client()
    thief.set_cookie("brain_session", kept.value)
    assert thief.get("/api/me").status_code == 401


@pytest.mark.parametrize("how", ["revoked", "expired", "session over"])
def test_a_session_dies_with_its_key(
    browser: FlaskClient, key: Callable[..., tuple[str, str]], guarded: Control, how: str
) -> None:
    key_id, shown = key(expires_at=datetime.now(UTC) + timedelta(hours=1))
    sign_in(browser, shown)
    assert browser.get("/api/me").status_code == 200
    with guarded.database.transaction() as session:
        if how == "revoked":
            access.revoke(session, key_id)
        else:
            table = "api_keys" if how == "expired" else "sessions"
            which = "id" if how == "expired" else "key_id"
            session.execute(text(f"UPDATE {table} SET expires_at = now() WHERE {which} = :id"), {"id": key_id})
    assert browser.get("/api/me").status_code == 401


def test_a_session_lasts_no_longer_than_its_key(browser: FlaskClient, key: Callable[..., tuple[str, str]]) -> None:
    ends = datetime.now(UTC) + timedelta(minutes=5)
    _, shown = key(expires_at=ends)
    sign_in(browser, shown)
    assert browser.get("/api/me").json["session"]["expires_at"] == ends.isoformat()


def test_a_key_taken_from_the_environment_takes_its_sessions_along(browser: FlaskClient, guarded: Control) -> None:
    sign_in(browser, FIXED)
    cookie = browser.get_cookie("brain_session")
    assert cookie is not None
    other = create_app(replace(guarded, settings=replace(guarded.settings, api_keys=()))).test_client()
    other.set_cookie("brain_session", cookie.value)
    assert other.get("/api/me").status_code == 401


def test_sessions_are_listed_and_ended_by_who_opened_them_and_by_admins(
    app: flask.Flask, key: Callable[..., tuple[str, str]]
) -> None:
    (one_id, one), (two_id, two), (_, foreign) = key(Role.VIEWER, tags=("red",)), key(Role.VIEWER), key(tags=("red",))
    viewer, other = app.test_client(), app.test_client()
    token = sign_in(viewer, one)
    sign_in(other, two)

    def seen(shown: str) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {shown}"}
        rows = app.test_client().get("/api/sessions", headers=headers).json["sessions"]
        return {row["key_id"]: row["id"] for row in rows}

    assert set(seen(one)) == {one_id}
    assert one_id in seen(foreign)
    assert two_id not in seen(foreign)
    assert {one_id, two_id} <= set(seen(FIXED))
    mine, theirs = seen(one)[one_id], seen(two)[two_id]
    headers = {"X-CSRF-Token": token}
    assert [row["current"] for row in viewer.get("/api/sessions").json["sessions"]] == [True]
    assert viewer.delete(f"/api/sessions/{theirs}", headers=headers).status_code == 404
    assert viewer.delete("/api/sessions/%25", headers=headers).status_code == 404
    assert viewer.delete(f"/api/sessions/{mine[:-1]}", headers=headers).status_code == 404
    admin = {"Authorization": f"Bearer {FIXED}"}
    assert app.test_client().delete(f"/api/sessions/{theirs}", headers=admin).status_code == 204
    assert other.get("/api/me").status_code == 401
    assert viewer.delete(f"/api/sessions/{mine}", headers=headers).status_code == 204
    assert viewer.get("/api/me").status_code == 401


def test_a_wrong_key_beside_a_cookie_is_refused(browser: FlaskClient) -> None:
    """Whoever sends a key means that one."""
    sign_in(browser, FIXED)
    for sent in ("Bearer wrong", "Basic eA==", ""):
        assert browser.get("/api/me", headers={"Authorization": sent}).status_code == 401


# --- pages --------------------------------------------------------------------------------------------------------


def test_pages_lead_to_the_sign_in_and_back(browser: FlaskClient) -> None:
    led = browser.get("/screens/x?tab=jobs&a=b")
    assert (led.status_code, led.headers["Location"]) == (303, "/login?next=/screens/x%3Ftab%3Djobs%26a%3Db")
    assert browser.get("/nowhere", headers={"Accept": "text/html,*/*"}).headers["Location"] == "/login?next=/nowhere"
    for path in ("/api/clusters", "/api/nowhere", "/api", "/metrics"):
        refused = browser.get(path, headers={"Accept": "text/html"})
        assert (refused.status_code, refused.mimetype) == (401, "application/problem+json")
    assert browser.get("/nowhere").status_code == 401
    wrong = browser.post("/login", data={"key": "x" * 20, "next": "/screens/x"})
    assert (wrong.status_code, wrong.headers["Location"]) == (303, "/login?error=key&next=/screens/x")


def test_errors_of_pages_are_pages_and_nothing_of_them_can_run(
    browser: FlaskClient, key: Callable[..., tuple[str, str]]
) -> None:
    sign_in(browser, key(Role.VIEWER)[1])
    refused = browser.get("/screens/x")
    assert (refused.status_code, refused.mimetype) == (403, "text/html")
    assert browser.get("/nowhere", headers={"Accept": "text/html"}).mimetype == "text/html"
    assert browser.get("/api/nowhere", headers={"Accept": "text/html"}).mimetype == "application/problem+json"
    sign_in(browser, FIXED)
    page = browser.get("/screens/x")
    assert page.status_code == 200
    policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Referrer-Policy"] == "same-origin"
    assert page.headers["X-Content-Type-Options"] == "nosniff"


def test_without_keys_pages_need_no_session(settings: Settings) -> None:
    control = Control.open(settings, application="tests")
    try:
        me = create_app(control).test_client().get("/api/me").json
        assert (me["method"], me["role"], me["csrf_token"]) == ("local", "admin", None)
    finally:
        control.close()
