"""Every route, by every method, for every kind of caller: what each is answered, and that nothing leaks.

The routes are those of the application's own URL map. One that is not in ROUTES fails the first test.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import flask
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from brain_clusters.api.app import create_app
from brain_clusters.api.endpoint import declared
from brain_clusters.dashboard.mount import attach
from brain_clusters.domain.access import Role
from brain_clusters.services.control import Control
from tests.integration import tenants
from tests.integration.tenants import CANARY, HIDDEN, SECRET, SHOP, Tenant, make_key

V, O, A = Role.VIEWER, Role.OPERATOR, Role.ADMIN  # noqa: E741
MISSING, HERE = 404, 200


@dataclass(frozen=True, slots=True)
class Route:
    """What is promised of a route. role: the least that may call it, None is everybody.

    done: the status for those who may; foreign: that for who asks by the ids of another tenant, or, where the path
    has none, for who sees only some clusters. refused: that for roles below. fresh: each call needs a new thing to
    work on. endless: its answer has no end, so its head is asked for; what it sends is tested with the stream.
    payloads: only who may read those may call it.
    """

    role: Role | None
    done: int = 200
    foreign: int = MISSING
    body: Any = None
    fresh: bool = False
    refused: int = 403
    endless: bool = False
    payloads: bool = False


DESIRED = "cluster: {id: red-declared, blueprint: shop, tags: [red]}"
CLUSTER, JOB = "/api/clusters/<cluster_id>", "/api/jobs/<job_id>"
ROUTES: dict[str, Route] = {
    "GET /healthz": Route(None, foreign=HERE),
    "GET /readyz": Route(None, foreign=HERE),
    "GET /version": Route(None, foreign=HERE),
    "POST /login": Route(None, 422, 422, {}),
    "POST /logout": Route(V, 204, 204),
    "GET /api/me": Route(V, foreign=HERE),
    "GET /api/sessions": Route(V, foreign=HERE),
    "DELETE /api/sessions/<session_id>": Route(A, 204, MISSING, fresh=True, refused=MISSING),
    "GET /api/audit": Route(A, foreign=HERE),
    "GET /api/keys": Route(A, foreign=HERE),
    "POST /api/keys": Route(A, 201, 201, {"name": "n", "role": "viewer", "tags": ["red"]}),
    "DELETE /api/keys/<key_id>": Route(A, fresh=True),
    "POST /api/keys/<key_id>/rotate": Route(A, 201, fresh=True),
    "GET /api/clusters": Route(V, foreign=HERE),
    "POST /api/clusters": Route(O, 202, 202, {"blueprint_id": "shop", "name": "n"}),
    f"GET {CLUSTER}": Route(V),
    f"PUT {CLUSTER}": Route(O, 202, body={"description": "d"}),
    f"DELETE {CLUSTER}": Route(A, 202, fresh=True),
    f"POST {CLUSTER}/scale": Route(O, 202, body={"target_workers": 2}),
    f"POST {CLUSTER}/hibernate": Route(O, 202, fresh=True),
    f"POST {CLUSTER}/reactivate": Route(O, 409, MISSING, fresh=True),
    f"GET {CLUSTER}/agents": Route(V),
    "GET /api/agents/<agent_id>": Route(V),
    "GET /api/agents/<agent_id>/logs": Route(V, payloads=True),
    "POST /api/agents/<agent_id>/drain": Route(O, 202, fresh=True),
    "POST /api/agents/<agent_id>/replace": Route(O, 202, fresh=True),
    f"GET {CLUSTER}/hierarchy": Route(V),
    f"GET {CLUSTER}/metrics": Route(V),
    f"GET {CLUSTER}/events": Route(V),
    f"GET {CLUSTER}/alerts": Route(V),
    "GET /api/events": Route(V, foreign=HERE),
    "GET /api/events/stream": Route(V, foreign=HERE, endless=True),
    f"GET {CLUSTER}/costs": Route(V),
    "GET /api/costs": Route(V, foreign=HERE),
    f"GET {CLUSTER}/groups/<group>/backlog": Route(V),
    f"GET {CLUSTER}/rollouts": Route(V),
    "GET /api/rollouts/<rollout_id>": Route(V),
    f"POST {CLUSTER}/rollout": Route(O, 409),
    f"POST {CLUSTER}/rollout/undo": Route(O, 409),
    f"POST {CLUSTER}/rollout/pause": Route(O, 409),
    f"POST {CLUSTER}/rollout/resume": Route(O, 409),
    f"POST {CLUSTER}/pause": Route(O, 202),
    f"POST {CLUSTER}/resume": Route(O, 202),
    "POST /api/plan": Route(V, foreign=HERE, body={"documents": [DESIRED]}),
    "POST /api/apply": Route(O, foreign=HERE, body={"documents": [DESIRED]}),
    "GET /api/overview": Route(V, foreign=HERE),
    "GET /metrics": Route(V, foreign=403),
    "GET /api/openapi.json": Route(None, foreign=HERE),
    "GET /api/docs": Route(None, foreign=HERE),
    "GET /api/docs/<name>": Route(None, foreign=HERE),
    f"GET {CLUSTER}/scaling": Route(V),
    f"GET {CLUSTER}/scaling/explain": Route(V),
    f"POST {CLUSTER}/scaling/replay": Route(V, body={"yaml": SHOP}),
    f"GET {CLUSTER}/jobs": Route(V),
    f"POST {CLUSTER}/jobs": Route(O, 202, body={"payload": SECRET}),
    f"POST {CLUSTER}/jobs/cancel": Route(O, 202, body={"group": "nobody"}),
    f"GET {CLUSTER}/dead-letters": Route(V),
    f"POST {CLUSTER}/dead-letters/retry": Route(O, 202, body={"error_key": "none"}),
    f"POST {CLUSTER}/dead-letters/discard": Route(O, 202, body={"error_key": "none"}),
    "GET /api/jobs": Route(V, foreign=HERE),
    "GET /api/dead-letters": Route(V, foreign=HERE),
    "POST /api/jobs/cancel": Route(O, 202, 202, {"group": "nobody"}),
    "POST /api/jobs/retry": Route(O, 202, 202, {"error": "none"}),
    "POST /api/jobs/discard": Route(O, 202, 202, {"error": "none"}),
    "POST /api/jobs": Route(O, 202, 422, {"capability": "lettering", "payload": SECRET}),
    f"GET {JOB}": Route(V),
    f"GET {JOB}/tree": Route(V),
    f"POST {JOB}/retry": Route(O, 202, fresh=True),
    f"POST {JOB}/cancel": Route(O, 409, fresh=True),
    "GET /api/blueprints": Route(V, foreign=HERE),
    "POST /api/blueprints": Route(A, 200, 403, {"yaml": SHOP}),
    "POST /api/blueprints/validate": Route(V, foreign=HERE, body={"yaml": SHOP}),
    "GET /api/blueprints/<blueprint_id>": Route(V, foreign=HERE),
    "PUT /api/blueprints/<blueprint_id>": Route(A, 200, 403, {"yaml": HIDDEN}),
    "DELETE /api/blueprints/<blueprint_id>": Route(A, 409, 403),
    "GET /api/operations": Route(V, foreign=HERE),
    "GET /api/operations/<operation_id>": Route(V),
    "GET /api/hosts": Route(V, foreign=403),
}
# The catalogue of blueprints is everybody's, their figures are not.
SHARED = {"GET /api/blueprints/<blueprint_id>"}
SHARED_PAGES = {"page_blueprints.show"}


@dataclass(slots=True)
class World:
    """The API, two tenants in it, and a key of each kind."""

    app: flask.Flask
    control: Control
    red: Tenant
    blue: Tenant
    keys: dict[str, str]
    calls: Iterator[int] = field(default_factory=itertools.count)

    def call(self, name: str, key: str | None, route: Route, headers: dict[str, str] | None = None) -> TestResponse:
        """Call a route with the names of the blue tenant's things."""
        client = self.app.test_client()
        given = {"Authorization": f"Bearer {key}"} if key else {}
        return self._open(client, name, route, {**given, **(headers or {})})

    def _open(self, client: FlaskClient, name: str, route: Route, headers: dict[str, str]) -> TestResponse:
        method, rule = name.split(" ", 1)
        path = rule
        for argument in _arguments(rule):
            path = path.replace(f"<{argument}>", self._name(argument, route))
        # From everywhere, or the wrong keys that are tried here would be too many of one address.
        place = {"REMOTE_ADDR": f"198.51.{next(self.calls) // 250 % 250}.{next(self.calls) % 250}"}
        verb = "HEAD" if route.endless else method
        return client.open(path, method=verb, json=route.body, headers=headers, environ_base=place)

    def _name(self, argument: str, route: Route) -> str:
        control, names, tag = self.control, self.blue.names, self.blue.tag
        if not route.fresh:
            return names[argument]
        if argument == "cluster_id":
            return tenants.new_cluster(control, tag, CANARY, "hidden")
        if argument == "agent_id":
            return tenants.new_agent(control, tag, CANARY)
        if argument == "job_id":
            return tenants.dead_job(control, names["cluster_id"], CANARY)
        made = make_key(control, A, tag)
        if argument == "key_id":
            return made.split("_")[1]
        opened = self.app.test_client().post("/login", json={"key": made})
        return str(opened.json["session"]["id"])


def _arguments(rule: str) -> list[str]:
    return [part[1:-1] for part in rule.split("/") if part.startswith("<")]


@pytest.fixture(scope="module")
def world(control: Control) -> World:
    """Two tenants, and keys: by role, those of the red tenant, and those that are over."""
    mine = tenants.guarded(control)
    red, blue = tenants.seed(mine, "red", "own"), tenants.seed(mine, "blue", CANARY)
    keys = {f"{role}": make_key(mine, role) for role in Role}
    keys |= {f"red {role}": make_key(mine, role, "red", payloads=True) for role in Role}
    keys |= {over: make_key(mine, A, over=over, payloads=True) for over in ("revoked", "expired")}
    keys["reader"] = make_key(mine, V, payloads=True)
    return World(create_app(mine), mine, red, blue, keys)


def _routes(app: flask.Flask) -> set[str]:
    found = set()
    for rule in app.url_map.iter_rules():
        found |= {f"{method} {rule.rule}" for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    return found


def test_every_route_says_here_what_it_promises(world: World) -> None:
    assert _routes(world.app) == set(ROUTES)


@pytest.mark.parametrize("name", ROUTES)
def test_a_role_may_what_it_is_for_and_nothing_shows_payloads(world: World, name: str) -> None:
    route = ROUTES[name]
    for role in Role:
        answered = world.call(name, world.keys[role], route)
        allowed = (route.role is None or role.covers(route.role)) and not route.payloads
        assert answered.status_code == (route.done if allowed else route.refused), f"{role}: {answered.text[:300]}"
        assert SECRET not in answered.text, role
    if route.role is not None:
        for key in (None, "x" * 30, world.keys["revoked"], world.keys["expired"]):
            assert world.call(name, key, route).status_code == 401


@pytest.mark.parametrize("name", ROUTES)
def test_another_tenant_finds_nothing(world: World, name: str) -> None:
    route = ROUTES[name]
    for role in Role:
        answered = world.call(name, world.keys[f"red {role}"], route)
        allowed = route.role is None or role.covers(route.role)
        assert answered.status_code == (route.foreign if allowed else route.refused), f"{role}: {answered.text[:300]}"
        if name not in SHARED:
            assert CANARY not in answered.text + str(answered.headers), role
        assert str(tenants.FIGURE) not in answered.text, role


@pytest.mark.parametrize("name", [name for name in ROUTES if not name.startswith("GET") and ROUTES[name].role])
def test_a_session_changes_nothing_without_its_token(world: World, name: str) -> None:
    client = world.app.test_client()
    assert client.post("/login", json={"key": world.keys["admin"]}).status_code == 200
    refused = world._open(client, name, ROUTES[name], {})
    assert refused.status_code == 403
    assert "X-CSRF-Token" in refused.json["detail"]


def test_the_canaries_are_there(world: World) -> None:
    """Whom nothing is hidden from sees them, so their absence elsewhere says something."""
    seen = {}
    for name, route in ROUTES.items():
        if name.startswith("GET") and route.role not in (None, A) and not route.endless:
            answered = world.call(name, world.keys["reader"], route)
            seen[name] = (CANARY in answered.text, SECRET in answered.text)
    tells = {name for name, (canary, _) in seen.items() if canary}
    assert tells >= {
        "GET /api/clusters", f"GET {CLUSTER}", f"GET {CLUSTER}/agents", f"GET {CLUSTER}/events",
        f"GET {CLUSTER}/jobs", f"GET {CLUSTER}/dead-letters", f"GET {CLUSTER}/scaling", f"GET {CLUSTER}/costs",
        f"GET {JOB}", f"GET {JOB}/tree", "GET /api/operations", "GET /api/blueprints/<blueprint_id>",
        "GET /api/jobs", "GET /api/dead-letters",
    }  # fmt: skip
    assert {name for name, (_, secret) in seen.items() if secret} >= {
        f"GET {JOB}", f"GET {JOB}/tree", f"GET {CLUSTER}/jobs", f"GET {CLUSTER}/dead-letters", f"GET {CLUSTER}/agents",
        "GET /api/jobs", "GET /api/dead-letters",
    }  # fmt: skip


def test_pages_show_nothing_of_another_tenant(world: World) -> None:
    app = create_app(world.control)
    attach(app)
    for rule in app.url_map.iter_rules():
        found = declared(app.view_functions[rule.endpoint])
        if found is None or not found.page or found.role is None:
            continue
        path = rule.rule
        for argument in _arguments(path):
            path = path.replace(f"<{argument}>", world.blue.names[argument])
        assert app.test_client().get(path).headers["Location"].startswith("/login"), path
        for role in Role:
            answered = app.test_client().get(path, headers=as_red(world, role))
            assert answered.status_code in (200, 303, 403, 404), f"{path}: {answered.text[:300]}"
            told = "" if rule.endpoint in SHARED_PAGES else answered.text.replace(path, "")
            assert CANARY not in told, path
            assert str(tenants.FIGURE) not in told, path
        plain = app.test_client().get(path, headers={"Authorization": f"Bearer {world.keys['admin']}"})
        assert SECRET not in plain.text, path


# --- what a list of routes does not show --------------------------------------------------------------------------


def as_red(world: World, role: Role = A) -> dict[str, str]:
    return {"Authorization": f"Bearer {world.keys[f'red {role}']}"}


@pytest.mark.parametrize("which", ["job_id", "unstored", "running"])
def test_jobs_are_found_by_their_own_tenant_only(world: World, which: str) -> None:
    """Also those that only Redis knows."""
    client, job_id = world.app.test_client(), world.blue.names[which]
    for path, method in ((f"/api/jobs/{job_id}", "GET"), (f"/api/jobs/{job_id}/tree", "GET"),
                         (f"/api/jobs/{job_id}/cancel", "POST"), (f"/api/jobs/{job_id}/retry", "POST")):  # fmt: skip
        found = client.open(path, method=method, headers=as_red(world))
        missing = client.open(path.replace(job_id, "none"), method=method, headers=as_red(world))
        assert (found.status_code, missing.status_code) == (404, 404)
        assert json.dumps(found.json).replace(job_id, "none") == json.dumps(missing.json)
    headers = {"Authorization": f"Bearer {world.keys['reader']}"}
    assert SECRET in client.get(f"/api/jobs/{job_id}", headers=headers).text
    mine = client.get(f"/api/jobs/{world.red.names[which]}", headers=as_red(world))
    assert (mine.status_code, SECRET in mine.text) == (200, True)


def test_what_is_masked_says_so(world: World) -> None:
    client = world.app.test_client()
    plain = {"Authorization": f"Bearer {world.keys['viewer']}"}
    shown = client.get(f"/api/jobs/{world.blue.names['running']}", headers=plain).json
    assert (shown["payload"], shown["result"], shown["progress"], shown["redacted"]) == (None, None, None, True)
    dead = client.get(f"/api/jobs/{world.blue.names['job_id']}", headers=plain).json
    assert dead["error"] == {"type": "ValueError", "message": None, "redacted": True}
    mine = client.get(f"/api/jobs/{world.red.names['running']}", headers=as_red(world, V)).json
    assert "redacted" not in mine
    assert SECRET in mine["progress"]


def test_counts_are_of_one_s_own(world: World) -> None:
    client = world.app.test_client()
    for path, name in (("/api/clusters", "clusters"), ("/api/operations", "operations")):
        answered = client.get(path, query_string={"limit": 500}, headers=as_red(world, V)).json
        assert answered["total"] == len(answered[name]) > 0
    costs = client.get("/api/costs", headers=as_red(world, V)).json
    assert {row["cluster_id"].split("-")[0] for row in costs["rows"]} == {"red"}
    assert costs["totals"]["agent_seconds"]["idle"] == 1000
    blueprint = client.get("/api/blueprints/shop", headers=as_red(world, V)).json
    assert (blueprint["instances_created"], blueprint["instances_active"]) == (None, None)


def test_a_scoped_caller_s_clusters_are_its_own(world: World) -> None:
    client, new = world.app.test_client(), {"blueprint_id": "shop", "name": "n"}

    def created(**more: Any) -> TestResponse:
        return client.post("/api/clusters", json={**new, **more}, headers=as_red(world, O))

    assert created().json["cluster"]["tags"] == ["red"]
    assert created(tags=["red/eu"]).json["cluster"]["tags"] == ["red", "red/eu"]
    made = created(tags=["red", "red/eu"]).json["cluster"]
    assert made["tags"] == ["red", "red/eu"]
    for tags in (["blue"], ["red", "blue"], ["anything"]):
        assert created(tags=tags).status_code == 422
    assert created(parent_cluster_id=world.red.names["cluster_id"]).status_code == 202
    foreign = created(parent_cluster_id=world.blue.names["cluster_id"])
    missing = created(parent_cluster_id="none")
    assert (foreign.status_code, missing.status_code) == (422, 422)
    assert foreign.text.replace(world.blue.names["cluster_id"], "none") == missing.text
    taken = created(id=world.blue.names["cluster_id"])
    assert (taken.status_code, CANARY in taken.text) == (409, False)

    def changed(tags: list[str]) -> TestResponse:
        return client.put(f"/api/clusters/{made['id']}", json={"tags": tags}, headers=as_red(world, O))

    for tags, status in ((["red/us"], 422), (["red", "blue"], 422), ([], 422), (["red", "red/us"], 202)):
        assert changed(tags).status_code == status, tags
    admin = {"Authorization": f"Bearer {world.keys['admin']}"}
    shared = {"tags": ["red", "blue"]}
    assert client.put(f"/api/clusters/{made['id']}", json=shared, headers=admin).status_code == 202
    assert changed(["red"]).status_code == 422
    assert changed(["blue", "red", "red/x"]).status_code == 202


def test_who_has_several_tags_says_which(world: World) -> None:
    client = world.app.test_client()
    headers = {"Authorization": f"Bearer {make_key(world.control, O, 'red', 'green')}"}
    for tags, status in (([], 422), (["green"], 202), (["red", "green"], 202)):
        body = {"blueprint_id": "shop", "name": "n", "tags": tags}
        assert client.post("/api/clusters", json=body, headers=headers).status_code == status


def test_nobody_is_answered_what_another_one_s_request_made(world: World) -> None:
    client, body = world.app.test_client(), {"blueprint_id": "shop", "name": "n"}
    admin = {"Authorization": f"Bearer {world.keys['admin']}"}
    key = {"Idempotency-Key": "the same"}
    ids = [
        client.post("/api/clusters", json=body, headers={**one, **key}).json["operation"]["id"]
        for one in (admin, as_red(world, O), as_red(world, A), admin, as_red(world, O))
    ]
    assert len({*ids[:3]}) == 3
    assert ids[3:] == ids[:2]


def test_jobs_for_a_capability_go_to_one_s_own_clusters(world: World) -> None:
    body = {"capability": "filing", "payload": 1}
    client = world.app.test_client()
    for _ in range(3):
        answered = client.post("/api/jobs", json=body, headers=as_red(world, O)).json
        places = [answered["routing"], *answered["routing"]["others"]]
        assert {one["cluster_id"].split("-")[0] for one in places} & {"blue"} == set()
    unknown = client.post("/api/jobs", json={"capability": CANARY[:-1]}, headers=as_red(world, O))
    assert (unknown.status_code, CANARY in unknown.text) == (422, False)


def test_a_key_makes_keys_of_no_more_than_its_own(world: World) -> None:
    client, plain = world.app.test_client(), {"Authorization": f"Bearer {world.keys['admin']}"}

    def made(headers: dict[str, str], **fields: Any) -> int:
        body = {"name": "n", "role": "viewer", **fields}
        return client.post("/api/keys", json=body, headers=headers).status_code

    assert made(plain) == 201
    assert made(plain, payloads=True) == 422
    assert made(as_red(world), tags=["red"], payloads=True, role="admin") == 201
    for tags in ([], ["blue"], ["red", "blue"]):
        assert made(as_red(world), tags=tags) == 422
    reader = make_key(world.control, A, payloads=True).split("_")[1]
    assert client.post(f"/api/keys/{reader}/rotate", headers=plain).status_code == 422
    listed = client.get("/api/keys", headers=as_red(world)).json["keys"]
    assert {tuple(row["tags"]) for row in listed} == {("red",)}
    for method, path in (("DELETE", ""), ("POST", "/rotate")):
        both = make_key(world.control, V, "red", "blue").split("_")[1]
        assert client.open(f"/api/keys/{both}{path}", method=method, headers=as_red(world)).status_code == 404
