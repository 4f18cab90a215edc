"""Tokens of an issuer: a real server of keys that rotate, and every token that must not be let in."""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flask.testing import FlaskClient

from brain_clusters.api.app import create_app
from brain_clusters.config import Settings
from brain_clusters.errors import ConfigError, TemporaryError
from brain_clusters.services import tokens
from brain_clusters.services.control import Control
from brain_clusters.services.tokens import Tokens

AUDIENCE = "brain"


class Issuer:
    """Publishes its keys over HTTP, and signs. keys: private ones by id; down: it answers with errors."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.extra: list[dict[str, Any]] = []
        self.reads, self.down, self.named = 0, False, ""
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = issuer.answer(self.path)
                data = json.dumps(found).encode()
                self.send_response(500 if issuer.down else 200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def answer(self, path: str) -> dict[str, Any]:
        """Return the document at a path."""
        if path.startswith("/.well-known"):
            return {"issuer": self.named or self.url, "jwks_uri": f"{self.url}/keys"}
        self.reads += 1
        return {"keys": [*(self._public(kid, key) for kid, key in self.keys.items()), *self.extra]}

    def _public(self, kid: str, key: Any) -> dict[str, Any]:
        kind = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
        return {**json.loads(kind.to_jwk(key.public_key())), "kid": kid, "use": "sig"}

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Return the claims of a good token, with some changed; None takes one out."""
        now = int(time.time())
        good = {"iss": self.url, "aud": AUDIENCE, "sub": "ann", "exp": now + 300, "nbf": now - 1, "role": "operator"}
        return {name: value for name, value in {**good, **changed}.items() if value is not None}

    def token(self, kid: str = "one", algorithm: str = "RS256", **changed: Any) -> str:
        """Return a signed token."""
        return jwt.encode(self.claims(**changed), self.keys[kid], algorithm=algorithm, headers={"kid": kid})


@pytest.fixture(scope="module")
def private() -> dict[str, Any]:
    """Private keys, which take their time to be made."""
    made: dict[str, Any] = {name: rsa.generate_private_key(65537, 2048) for name in ("one", "two", "foreign")}
    return {**made, "curve": ec.generate_private_key(ec.SECP256R1())}


@pytest.fixture
def issuer(private: dict[str, Any]) -> Iterator[Issuer]:
    """An issuer with two keys."""
    found = Issuer()
    found.keys = {"one": private["one"], "curve": private["curve"]}
    yield found
    found.server.shutdown()
    found.server.server_close()
    found.thread.join()


@pytest.fixture
def told(issuer: Issuer, settings: Settings) -> Settings:
    """The settings of an API that takes the issuer's tokens."""
    return replace(settings, insecure_dev=False, jwt_issuer=issuer.url, jwt_audience=AUDIENCE, rate_limit=0)


Asking = Callable[..., FlaskClient]


@pytest.fixture
def api_of(control: Control, told: Settings) -> Asking:
    """A function that opens the API, with some settings changed."""
    control.broker.redis.flushdb()

    def make(**changed: Any) -> FlaskClient:
        return create_app(replace(control, settings=replace(told, **changed))).test_client()

    return make


def me(client: FlaskClient, token: str) -> Any:
    return client.get("/api/me", headers={"Authorization": f"Bearer {token}"})


@pytest.mark.parametrize(("kid", "algorithm"), [("one", "RS256"), ("curve", "ES256")])
def test_a_good_token_is_who_it_says(api_of: Asking, issuer: Issuer, kid: str, algorithm: str) -> None:
    found = me(api_of(), issuer.token(kid, algorithm, payloads=True, email="ann@example.org")).json
    told = (found["name"], found["role"], found["payloads"], found["tags"], found["method"])
    assert told == ("ann@example.org", "operator", True, [], "token")
    assert found["key_id"].startswith("jwt-")
    assert issuer.reads == 1


BAD: dict[str, dict[str, Any]] = {
    "over": {"exp": 1}, "not yet": {"nbf": 4_000_000_000}, "without an end": {"exp": None}, "of nobody": {"sub": None},
    "for another": {"aud": "other"}, "for nobody": {"aud": None}, "of another issuer": {"iss": "https://evil.example"},
    "of no issuer": {"iss": None}, "without a role": {"role": None}, "of an unknown role": {"role": "root"},
    "with a role of another kind": {"role": {"admin": True}}, "with an end that is none": {"exp": "soon"},
    "with an end in milliseconds": {"exp": 4_000_000_000_000}, "with one that never comes": {"exp": float("inf")},
}  # fmt: skip


@pytest.mark.parametrize("changed", BAD.values(), ids=BAD)
def test_a_token_that_is_not_for_us_is_refused(api_of: Asking, issuer: Issuer, changed: dict[str, Any]) -> None:
    try:
        token = issuer.token(**changed)
    except TypeError:  # the library would not sign this one
        token = forged(issuer, {"alg": "RS256", "kid": "one"}, changed)
    refused = me(api_of(), token)
    assert (refused.status_code, refused.mimetype) == (401, "application/problem+json")


def forged(issuer: Issuer, header: dict[str, Any], changed: dict[str, Any], signature: bytes = b"") -> str:
    parts = [json.dumps(one).encode() for one in (header, issuer.claims(**changed))]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in [*parts, signature])


def test_no_signature_and_no_shared_secret_will_do(api_of: Asking, issuer: Issuer, private: dict[str, Any]) -> None:
    client = api_of()
    public = private["one"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    issuer.extra = [{"kty": "oct", "kid": "shared", "k": base64.urlsafe_b64encode(b"s" * 32).decode(), "alg": "HS256"}]
    import hmac

    def mac(header: dict[str, Any], secret: bytes) -> str:
        unsigned = forged(issuer, header, {"role": "admin"}).rsplit(".", 1)[0]
        signature = base64.urlsafe_b64encode(hmac.digest(secret, unsigned.encode(), "sha256")).decode().rstrip("=")
        return f"{unsigned}.{signature}"

    for token in (
        forged(issuer, {"alg": "none", "kid": "one"}, {"role": "admin"}),
        forged(issuer, {"alg": "None", "kid": "one"}, {}), forged(issuer, {"kid": "one"}, {}),
        mac({"alg": "HS256", "kid": "one"}, public), mac({"alg": "HS256", "kid": "shared"}, b"s" * 32),
        jwt.encode(issuer.claims(), private["foreign"], algorithm="RS256", headers={"kid": "one"}),
        jwt.encode(issuer.claims(), private["foreign"], algorithm="RS256", headers={"kid": "none"}),
        jwt.encode(issuer.claims(), private["one"], algorithm="RS256"),
        jwt.encode(issuer.claims(), private["one"], algorithm="RS256", headers={"kid": "curve"}),
        jwt.encode(issuer.claims(), private["foreign"], algorithm="RS256",
                   headers={"kid": "x", "jku": "https://evil.example/keys", "jwk": {"kty": "oct", "k": "eA"}}),
        issuer.token()[:-4] + "AAAA", "eyJ.eyJ.x", "eyJhbGciOiJub25lIn0..", "eyJ" + "é" * 20 + "..",
    ):  # fmt: skip
        assert me(client, token).status_code in (401, 429), token[:40]


def test_new_keys_are_found_and_old_ones_end(told: Settings, issuer: Issuer, private: dict[str, Any],
                                             monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    reader, old = Tokens(told), issuer.token()
    assert reader.identify(old) is not None
    issuer.keys = {"two": private["two"]}
    assert reader.identify(issuer.token("two")) is None, "the issuer is not asked again at once"
    for _ in range(20):
        reader.identify(issuer.token("two"))
    assert issuer.reads == 1
    later = time.monotonic() + 11
    monkeypatch.setattr(tokens, "time", SimpleNamespace(monotonic=lambda: later))
    assert reader.identify(issuer.token("two")) is not None
    assert reader.identify(old) is None
    assert issuer.reads == 2


def test_an_issuer_that_is_away_is_borne_for_a_day(told: Settings, issuer: Issuer,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    reader, begun = Tokens(told), time.monotonic()
    claims = {"exp": int(time.time()) + 200_000}
    assert reader.identify(issuer.token(**claims)) is not None
    issuer.down = True
    monkeypatch.setattr(tokens, "time", SimpleNamespace(monotonic=lambda: begun + 3600))
    assert reader.identify(issuer.token(**claims)) is not None
    monkeypatch.setattr(tokens, "time", SimpleNamespace(monotonic=lambda: begun + 90_000))
    with pytest.raises(TemporaryError):
        reader.identify(issuer.token(**claims))


def test_an_issuer_that_never_answered_is_503(api_of: Asking, issuer: Issuer) -> None:
    issuer.down = True
    answered = me(api_of(), issuer.token())
    assert (answered.status_code, "Retry-After" in answered.headers) == (503, True)


def test_a_description_of_another_issuer_is_not_believed(told: Settings, issuer: Issuer) -> None:
    issuer.named = "https://evil.example"
    with pytest.raises(TemporaryError):
        Tokens(told).identify(issuer.token())


def test_claims_are_read_where_they_are_said_to_be(api_of: Asking, issuer: Issuer) -> None:
    client = api_of(
        jwt_role_claim="realm_access.roles", jwt_roles=(("ops", "operator"), ("root", "admin")), jwt_tags_claim="teams",
        jwt_payloads_claim="https://example.org/payloads", jwt_jwks_url=f"{issuer.url}/keys",
    )  # fmt: skip

    def shown(**claims: Any) -> Any:
        found = me(client, issuer.token(role=None, **claims))
        return (found.json["role"], found.json["tags"]) if found.status_code == 200 else found.status_code

    assert shown(realm_access={"roles": ["ops", "root", "x"]}, teams=["red", "blue"]) == ("admin", ["red", "blue"])
    assert shown(realm_access={"roles": ["ops"]}, teams="red blue") == ("operator", ["red", "blue"])
    assert shown(realm_access={"roles": ["ops"]}, teams=["*"]) == ("operator", [])
    for nothing in ({}, {"teams": []}, {"teams": None}, {"teams": 5}):
        assert shown(realm_access={"roles": ["ops"]}, **nothing) == 401
    assert shown(realm_access=["ops"], teams=["red"]) == 401


def test_tokens_open_no_session_and_keys_still_work(api_of: Asking, issuer: Issuer) -> None:
    client = api_of(api_keys=("a-key-of-the-environment",))
    assert client.post("/login", json={"key": issuer.token()}).status_code in (401, 422)
    assert me(client, "a-key-of-the-environment").status_code == 200


def test_what_is_missing_is_said_at_the_start(told: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="BRAIN_JWT_AUDIENCE"):
        Tokens(replace(told, jwt_audience=None))
    with pytest.raises(ConfigError, match="https"):
        Tokens(replace(told, jwt_jwks_url="http://keys.example.org/"))
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(ConfigError, match=r"brain-clusters\[jwt\]"):
        Tokens(told)


def test_only_asymmetric_algorithms_are_known() -> None:
    assert not [name for name in tokens.ALGORITHMS if name.lower() == "none" or name.startswith("HS")]


def test_the_words_of_roles_are_read_from_the_environment() -> None:
    read = Settings.from_env({"BRAIN_JWT_ROLES": "ops = operator, root=admin"})
    assert read.jwt_roles == (("ops", "operator"), ("root", "admin"))
    for wrong in ("ops", "ops=boss", "=admin", ","):
        with pytest.raises(ConfigError, match="BRAIN_JWT_ROLES"):
            Settings.from_env({"BRAIN_JWT_ROLES": wrong})
