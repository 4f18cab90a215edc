"""Secrets in people's documents: what is one, what is a reference, and that they are refused or masked."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import flask
import pytest

from brain_clusters.api import views
from brain_clusters.blueprints.validator import parse_blueprint
from brain_clusters.config import Settings
from brain_clusters.domain.secrecy import MASK, is_secret, secrets_in, without_secrets
from brain_clusters.errors import InvalidInput

CANARY = "canary-4711"
NAMED = (
    "password", "DB_PASSWORD", "dbPassword", "api_key", "apiKey", "API-KEY", "token", "access_token", "Authorization",
    "client_secret", "credentials", "private_key", "x.passphrase",
)  # fmt: skip
OTHERS = ("max_tokens", "tokens", "secret_name", "keyboard", "passwordless", "author", "tokenizer")
BLUEPRINT = """
metadata: {id: b, name: B, version: "1"}
cluster: {type: project, min_workers: 1, max_workers: 2}
agents:
  - {role: supervisor, name: Boss, count: 1}
  - {role: worker, name: Clerk, count: 1, reports_to: Boss, %s}
"""


@pytest.mark.parametrize("name", NAMED)
def test_a_secret_is_known_by_its_name(name: str) -> None:
    assert is_secret(name, CANARY)
    for reference in ("env:NAME", "file:/run/secrets/x", "secret:name/key", "Bearer env:NAME", "", MASK):
        assert not is_secret(name, reference), reference


@pytest.mark.parametrize(
    "name", ["max_tokens", "tokens", "secret_name", "keyboard", "passwordless", "author", "tokenizer"]
)
def test_other_names_are_none(name: str) -> None:
    assert not is_secret(name, CANARY)
    assert not is_secret("token", 5)


def test_an_address_with_a_password_is_one_under_any_name() -> None:
    assert is_secret("dsn", f"postgresql://user:{CANARY}@db/x")
    assert is_secret("broker", f"redis://:{CANARY}@redis:6379/0")
    assert not is_secret("dsn", "postgresql://user@db/x")


def test_all_of_them_are_found_wherever_they_are() -> None:
    document = {"a": [{"token": CANARY}, {"b/c": {"password": CANARY}}], "tokens": ["x"], "secret": [CANARY]}
    assert list(secrets_in(document)) == ["/a/0/token", "/a/1/b~1c/password", "/secret/0"]
    assert CANARY not in json.dumps(without_secrets(document))
    assert without_secrets({"tokens": ["x"], "n": 1}) == {"tokens": ["x"], "n": 1}


@pytest.mark.parametrize(
    "part",
    [
        "environment: {APP_TOKEN: %s}",
        "config: {smtp: {password: %s}}",
        "config: {dsn: 'amqp://u:%s@host/'}",
        "http: {url: 'https://example.org', headers: {Authorization: 'Bearer %s'}}",
        "celery: {app: 'a:b', queues: [q], broker: 'redis://:%s@host/0'}",
    ],
)
def test_blueprints_hold_no_secrets_and_what_refuses_them_does_not_repeat_them(part: str) -> None:
    text = BLUEPRINT % (part % CANARY)
    with pytest.raises(InvalidInput) as refused:
        parse_blueprint(text)
    told = json.dumps([fault.as_dict() for fault in refused.value.faults]) + str(refused.value)
    assert "env:NAME" in told
    assert CANARY not in told
    parse_blueprint(text, stored=True)  # what runs from an older version goes on


def test_references_are_what_blueprints_hold_instead() -> None:
    parse_blueprint(BLUEPRINT % "environment: {APP_TOKEN: 'env:APP_TOKEN'}, config: {password: 'file:/run/p'}")


def _row(names: tuple[str, ...], **given: Any) -> Any:
    return SimpleNamespace(**{**dict.fromkeys(names), **given})


def test_what_an_older_version_stored_is_masked_where_it_is_shown() -> None:
    config = {"api_token": CANARY, "plain": "shown"}
    event = _row(views._EVENT, data={"config": config}, txid=1, id=1)
    operation = _row(views._OPERATION, request={"config": config})
    with flask.Flask("test").test_request_context():
        for shown in (views.event(event), views.operation(operation)):
            told = json.dumps(shown, default=str)
            assert CANARY not in told
            assert "shown" in told


def test_settings_show_no_secret() -> None:
    secret = {
        "BRAIN_DATABASE_URL": f"postgresql://u:{CANARY}@h/d", "BRAIN_REDIS_URL": f"redis://:{CANARY}@h/0",
        "BRAIN_API_KEYS": f"{CANARY}-{CANARY}", "BRAIN_GENESIS_KEY": f"{CANARY}-{CANARY}",
        "BRAIN_ADMIN_WEBHOOK_URL": f"https://h/{CANARY}", "BRAIN_AGENT_REDIS_URL": f"redis://:{CANARY}@h/0",
    }  # fmt: skip
    assert CANARY not in json.dumps(Settings.from_env(secret).describe(secret))
