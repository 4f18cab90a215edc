"""Who may call the API. No server is needed: nothing here is let through to one, or only to probes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from brain_clusters.api.app import create_app
from brain_clusters.api.server import serve
from brain_clusters.config import Settings
from brain_clusters.domain.addresses import is_loopback
from brain_clusters.errors import ConfigError
from brain_clusters.services.control import Control

KEY, OTHER_KEY = "a-long-enough-key-1", "a-long-enough-kéy-2"
Client = Callable[..., FlaskClient]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    opened: list[Control] = []

    def make(*keys: str) -> FlaskClient:
        settings = Settings(
            home=tmp_path,
            database_url="postgresql+psycopg2://127.0.0.1:1/none",
            redis_url="redis://127.0.0.1:1/0",
            api_keys=keys,
            insecure_dev=not keys,
        )
        opened.append(Control.open(settings, application="tests"))
        return create_app(opened[-1]).test_client()

    yield make
    for control in opened:
        control.close()


@pytest.mark.parametrize("path", ["/api/clusters", "/api/nothing", "/api", "/api/jobs/x"])
def test_with_keys_every_path_but_the_probes_needs_one(client: Client, path: str) -> None:
    refused = client(KEY).get(path)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    assert refused.mimetype == "application/problem+json"


@pytest.mark.parametrize("path", ["/healthz", "/version"])
def test_probes_need_no_key(client: Client, path: str) -> None:
    assert client(KEY).get(path, headers={"Host": "example.org"}).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        "",
        KEY,
        f"Basic {KEY}",
        "Bearer",
        "Bearer ",
        f"Bearer {KEY}x",
        f"Bearer {KEY[:-1]}",
        "Bearer ÿé",
        f"Bearer {KEY},{KEY}",
    ],
)
def test_a_wrong_key_is_refused(client: Client, sent: str) -> None:
    assert client(KEY, OTHER_KEY).get("/api/nothing", headers={"Authorization": sent}).status_code == 401


def test_each_key_is_let_in(client: Client) -> None:
    api = client("another-key-before-it", KEY)
    for sent in (f"Bearer {KEY}", f"bearer  {KEY}"):
        assert api.get("/api/nothing", headers={"Authorization": sent, "Host": "example.org"}).status_code == 404


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]", "[::1]:99", "127.0.0.9"]
)
def test_without_keys_the_names_of_loopback_are_answered(client: Client, host: str) -> None:
    assert client().get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "localhost.evil",
        "10.0.0.1",
        "[::2]",
        "localhost:x",
        "a b",
        "::1:8",
    ],
)
def test_without_keys_another_host_is_refused(client: Client, host: str) -> None:
    """DNS rebinding: a web page points its own name to 127.0.0.1."""
    response = client().get("/healthz", headers={"Host": host})
    assert response.status_code == 403
    assert response.mimetype == "application/problem+json"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "null"},
        {"Origin": ""},
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_without_keys_a_foreign_page_changes_nothing(client: Client, headers: dict[str, str], method: str) -> None:
    assert client().open("/api/nothing", method=method, headers=headers).status_code == 403


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-origin"}])
def test_own_pages_and_programs_may_change_things(client: Client, headers: dict[str, str]) -> None:
    assert client().post("/api/nothing", headers={"Host": "localhost:8080", **headers}).status_code == 404


def test_no_other_origin_is_allowed_to_read(client: Client) -> None:
    response = client().options("/api/clusters", headers={"Origin": "https://evil.example"})
    assert not [name for name, _ in response.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "example.org"])
def test_an_address_that_others_reach_is_refused_where_everybody_is_let_in(host: str) -> None:
    with pytest.raises(ConfigError, match="BRAIN_INSECURE_DEV"):
        serve(Settings(api_host=host, insecure_dev=True))


def test_loopback_is_known_by_its_addresses() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "localhost.example", ""))
