"""Settings from the environment."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from brain_clusters.config import SECRET_MASK, Settings, child_environment, mask_url, user_environment
from brain_clusters.errors import ConfigError

PASSWORD = "hunter2-and-more"
KEY = "0123456789abcdef"


def test_without_variables_the_defaults_hold() -> None:
    settings = Settings.from_env({})
    assert settings.api_port == 8080
    assert settings.database_url is None
    assert settings.home == Path(".brain").absolute()


def test_values_are_read_and_typed() -> None:
    settings = Settings.from_env(
        {
            "BRAIN_API_PORT": "9000",
            "BRAIN_BEAT_INTERVAL_SECONDS": "0.5",
            "BRAIN_HANDLER_PATH": "a, b",
            "BRAIN_HOME": "/x",
        }
    )
    assert (settings.api_port, settings.beat_interval_seconds) == (9000, 0.5)
    assert (settings.handler_path, settings.home) == (("a", "b"), Path("/x"))


def test_a_variable_set_to_nothing_counts_as_not_set() -> None:
    assert Settings.from_env({"BRAIN_API_PORT": " "}).api_port == 8080


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("BRAIN_API_PORT", "http", "BRAIN_API_PORT: 'http' is not a whole number"),
        ("BRAIN_API_PORT", "65536", "must be from 0 to 65535"),
        ("BRAIN_TICK_INTERVAL_SECONDS", "nan", "must be from 0.2 to 60"),
        ("BRAIN_DATABASE_URL", "mysql://x", "must begin with postgresql://"),
        ("BRAIN_API_KEYS", "short", "at least 16 characters"),
        ("BRAIN_HOST_ID", "a host", "may hold up to 100"),
        ("BRAIN_ADMIN_WEBHOOK_URL", "file:///etc/passwd", "must be a URL such as https://"),
        ("BRAIN_ADMIN_WEBHOOK_URL", "http:///path", "must be a URL such as https://"),
        ("BRAIN_ADMIN_WEBHOOK_URL", "http://there/a b", "must be a URL such as https://"),
        ("BRAIN_ADMIN_WEBHOOK_URL", "http://there:70000/", "BRAIN_ADMIN_WEBHOOK_URL"),
        ("BRAIN_LOG_LEVEL", "loud", "'LOUD' is none of"),
    ],
)
def test_a_bad_value_fails_and_names_its_variable(variable: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({variable: value})
    assert variable in str(caught.value)
    assert message in str(caught.value)


def test_a_bad_secret_is_not_repeated_in_the_error() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({"BRAIN_DATABASE_URL": f"oracle://me:{PASSWORD}@there/x"})
    assert PASSWORD not in str(caught.value)


def test_describe_masks_secrets_and_names_sources() -> None:
    environ = {
        "BRAIN_DATABASE_URL": f"postgresql://me:{PASSWORD}@there/x",
        "BRAIN_REDIS_URL": f"redis://:{PASSWORD}@there/0",
        "BRAIN_API_KEYS": f"{KEY},{KEY}2",
        "BRAIN_ADMIN_WEBHOOK_URL": f"https://me:{PASSWORD}@there:8443/{KEY}?a={PASSWORD}",
    }
    rows = {row["variable"]: row for row in Settings.from_env(environ).describe(environ)}
    assert rows["BRAIN_DATABASE_URL"]["value"] == f"postgresql://me:{SECRET_MASK}@there/x"
    assert rows["BRAIN_ADMIN_WEBHOOK_URL"]["value"] == f"https://there:8443/{SECRET_MASK}"
    assert rows["BRAIN_REDIS_URL"]["source"] == "environment"
    assert rows["BRAIN_API_PORT"]["source"] == "default"
    assert not any(PASSWORD in row["value"] or KEY in row["value"] for row in rows.values())
    assert all(row["about"].endswith(".") for row in rows.values())


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://there/0", "redis://there/0"),
        ("redis://:p@ss@there/0", f"redis://:{SECRET_MASK}@there/0"),
        ("postgresql://there/x?password=p&y=1", f"postgresql://there/x?password={SECRET_MASK}&y=1"),
    ],
)
def test_passwords_in_urls_are_masked(url: str, shown: str) -> None:
    assert mask_url(url) == shown


def test_a_child_of_ours_reads_the_same_settings() -> None:
    settings = replace(
        Settings.from_env({"BRAIN_HOST_ID": "h1", "BRAIN_API_KEYS": f"{KEY},{KEY}2", "BRAIN_HANDLER_PATH": "a,b"}),
        database_url="postgresql://there/x",
        redis_url="redis://there/0",
        tick_interval_seconds=0.5,
        job_ttl_seconds=99,
    )
    assert Settings.from_env(child_environment(settings, {"PATH": "/bin"})) == settings


def test_a_child_of_ours_does_not_inherit_what_was_taken_back() -> None:
    settings = replace(Settings.from_env({"BRAIN_HOST_ID": "h1"}), host_id=None)
    assert "BRAIN_HOST_ID" not in child_environment(settings, {"BRAIN_HOST_ID": "h1"})


def test_users_code_gets_none_of_our_variables() -> None:
    assert user_environment({"BRAIN_DATABASE_URL": "secret", "PATH": "/bin"}) == {"PATH": "/bin"}


def test_no_two_settings_share_a_variable() -> None:
    variables = [item.metadata["variable"] for item in fields(Settings)]
    assert len(set(variables)) == len(variables)
    assert all(variable.startswith("BRAIN_") for variable in variables)
