"""Settings: one frozen object made from ``BRAIN_*`` variables. The only reader of the environment.

Passed down to whoever needs it, never imported as a global. A bad value fails at start and names its variable.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from brain_clusters import setting
from brain_clusters.errors import ConfigError

SECRET_MASK = "********"  # noqa: S105


def mask_path(url: str) -> str:
    """Return the scheme and host of ``url``; the secret of a web hook is most often its path."""
    found = urlsplit(url)
    return f"{found.scheme}://{found.netloc.rpartition('@')[2]}/{SECRET_MASK}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be set. Units are in the names. ``None`` servers mean: the embedded ones."""

    home: Path = setting.declare(  # noqa: RUF009 - it is dataclasses.field
        "BRAIN_HOME",
        setting.path,
        None,
        "The directory of data, logs and sockets; .brain in the working directory without it.",
    )
    database_url: str | None = setting.declare(
        "BRAIN_DATABASE_URL", setting.url("postgresql", "postgresql+psycopg2"), None,
        "PostgreSQL; without it an embedded server is started.", secret=True,
    )  # fmt: skip
    redis_url: str | None = setting.declare(
        "BRAIN_REDIS_URL", setting.url("redis", "rediss"), None,
        "Redis or Valkey; without it an embedded server is started.", secret=True,
    )  # fmt: skip
    api_host: str = setting.declare("BRAIN_API_HOST", str, "127.0.0.1", "The address that the API binds to.")
    api_port: int = setting.declare(
        "BRAIN_API_PORT", setting.number(int, 0, 65535), 8080, "The API's port; 0 takes a free one."
    )
    api_threads: int = setting.declare(
        "BRAIN_API_THREADS", setting.number(int, 1, 256), 16, "Requests answered at once."
    )
    api_listeners: int = setting.declare(
        "BRAIN_API_LISTENERS", setting.number(int, 1, 100_000), 1000,
        "The most that may listen to events at once, per process of the API; each takes a file descriptor.",
    )  # fmt: skip
    api_keys: tuple[str, ...] = setting.declare(
        "BRAIN_API_KEYS",
        setting.keys,
        (),
        "Admins' keys for Authorization: Bearer, by commas, besides those that are made with `brain-clusters keys`.",
        secret=True,
    )
    insecure_dev: bool = setting.declare(
        "BRAIN_INSECURE_DEV", setting.switch, False,
        "1: no key is needed, whoever reaches the API is an admin; on loopback only.",
    )  # fmt: skip
    jwt_issuer: str | None = setting.declare(
        "BRAIN_JWT_ISSUER", setting.web_hook, None,
        "Whose tokens are accepted beside keys, as their claim iss has it, such as https://login.example.org/realms/us.",
    )  # fmt: skip
    jwt_audience: str | None = setting.declare(
        "BRAIN_JWT_AUDIENCE", setting.word, None, "What tokens have to be for, as their claim aud has it."
    )
    jwt_jwks_url: str | None = setting.declare(
        "BRAIN_JWT_JWKS_URL", setting.web_hook, None,
        "Where the issuer's keys are; found by its /.well-known/openid-configuration without it.",
    )  # fmt: skip
    jwt_role_claim: str = setting.declare(
        "BRAIN_JWT_ROLE_CLAIM", setting.word, "role", "The claim of a token's role; a path has dots."
    )
    jwt_roles: tuple[tuple[str, str], ...] = setting.declare(
        "BRAIN_JWT_ROLES", setting.roles, (("viewer", "viewer"), ("operator", "operator"), ("admin", "admin")),
        "Which of that claim's words mean which role, as ops=operator,root=admin.",
    )  # fmt: skip
    jwt_tags_claim: str | None = setting.declare(
        "BRAIN_JWT_TAGS_CLAIM", setting.word, None,
        "The claim of a token's tags, which it then has to have; * is all. Tokens see all clusters without it.",
    )  # fmt: skip
    jwt_payloads_claim: str = setting.declare(
        "BRAIN_JWT_PAYLOADS_CLAIM", setting.word, "payloads", "The claim that is true where a token may read payloads."
    )
    rate_limit: int = setting.declare(
        "BRAIN_RATE_LIMIT", setting.number(int, 0, 10_000_000), 6000,
        "Requests a minute that one key may send; an address without a key a tenth of it. 0: no limit.",
    )  # fmt: skip
    trusted_proxies: int = setting.declare(
        "BRAIN_TRUSTED_PROXIES", setting.number(int, 0, 10), 0,
        "How many proxies before the API are yours: only so many entries of X-Forwarded-For, -Proto and -Host count.",
    )  # fmt: skip
    allowed_hosts: tuple[str, ...] = setting.declare(
        "BRAIN_ALLOWED_HOSTS", setting.host_names, (),
        "The names that the API is called by, by commas; requests to others are refused. Any name without it.",
    )  # fmt: skip
    session_seconds: int = setting.declare(
        "BRAIN_SESSION_SECONDS", setting.number(int, 60, 31_536_000), 43_200,
        "How long who signed in to the dashboard stays so, at most; their key may end sooner.",
    )  # fmt: skip
    blueprints_path: Path | None = setting.declare(  # noqa: RUF009 - it is dataclasses.field
        "BRAIN_BLUEPRINTS_PATH", setting.path, None, "A folder of blueprints to store at start, besides our examples."
    )
    handler_path: tuple[str, ...] = setting.declare(
        "BRAIN_HANDLER_PATH",
        setting.words,
        (),
        "Folders where handlers are imported from, besides the working directory.",
    )
    host_id: str | None = setting.declare(
        "BRAIN_HOST_ID", setting.host_id, None, "This host's name; the machine's node name without it."
    )
    drivers: tuple[str, ...] = setting.declare(
        "BRAIN_DRIVERS", setting.drivers, ("process",),
        "The drivers whose hosts `brain-clusters up` starts, by commas: process, docker, kubernetes, remote.",
    )  # fmt: skip
    agent_image: str | None = setting.declare(
        "BRAIN_AGENT_IMAGE", setting.word, None,
        "The image of agents in containers and pods; brain-clusters of this very version without it.",
    )  # fmt: skip
    agent_redis_url: str | None = setting.declare(
        "BRAIN_AGENT_REDIS_URL", setting.url("redis", "rediss"), None,
        "Redis as containers and pods reach it; BRAIN_REDIS_URL without it.", secret=True,
    )  # fmt: skip
    kubernetes_namespace: str | None = setting.declare(
        "BRAIN_KUBERNETES_NAMESPACE", setting.dns_label, None,
        "The namespace of pods; that of the kubeconfig's context, or the host's own in a cluster, without it.",
    )  # fmt: skip
    kubernetes_context: str | None = setting.declare(
        "BRAIN_KUBERNETES_CONTEXT", setting.word, None, "The context of the kubeconfig; its current one without it."
    )
    kubernetes_secret: str | None = setting.declare(
        "BRAIN_KUBERNETES_SECRET", setting.dns_subdomain, None,
        "The Secret of that namespace whose key BRAIN_AGENT_REDIS_URL pods are given; the address itself without it.",
    )  # fmt: skip
    host_on_stop: str = setting.declare(
        "BRAIN_HOST_ON_STOP", setting.one_of("drain", "leave"), "drain",
        "What a host does at SIGTERM: drain its agents, or leave them to the next host, as a rollout wants it.",
    )  # fmt: skip
    docker_volumes: tuple[str, ...] = setting.declare(
        "BRAIN_DOCKER_VOLUMES", setting.words, (),
        "Volumes, and folders of the Docker engine's machine with all below, that blueprints may mount, by commas.",
    )  # fmt: skip
    docker_network: str | None = setting.declare(
        "BRAIN_DOCKER_NETWORK", setting.word, None,
        "The network of agents' containers: `host`, or a name; the Docker engine's default without it.",
    )  # fmt: skip
    genesis_url: str | None = setting.declare(
        "BRAIN_GENESIS_URL", setting.web_address, None,
        "The Genesis service that the driver remote has agents started by, such as https://genesis.example.org:8090.",
    )  # fmt: skip
    genesis_key: tuple[str, ...] = setting.declare(
        "BRAIN_GENESIS_KEY", setting.keys, (),
        "The key of the Genesis service: the driver sends the first, the service accepts each, by commas.",
        secret=True,
    )  # fmt: skip
    genesis_dialect: str = setting.declare(
        "BRAIN_GENESIS_DIALECT", setting.one_of("native", "spawn"), "native",
        "What the Genesis service speaks: native, or spawn (only POST /api/genesis/spawn).",
    )  # fmt: skip
    genesis_plain_http: str = setting.declare(
        "BRAIN_GENESIS_PLAIN_HTTP", setting.one_of("refuse", "allow"), "refuse",
        "Whether key and Redis address may go to another machine by http://, readable for all in between.",
    )  # fmt: skip
    host_capacity: int = setting.declare(
        "BRAIN_HOST_CAPACITY", setting.number(int, 1, 10_000), 200, "The most agents that this host runs."
    )
    host_cpus: float | None = setting.declare(
        "BRAIN_HOST_CPUS", setting.cores, None,
        "The cores that this host has for agents; those of the machine without it, unlimited for other drivers.",
    )  # fmt: skip
    host_memory: int | None = setting.declare(
        "BRAIN_HOST_MEMORY", setting.memory, None,
        "The memory that this host has for agents, as 8GiB; the machine's without it, unlimited for other drivers.",
    )  # fmt: skip
    host_lease_seconds: float = setting.declare(
        "BRAIN_HOST_LEASE_SECONDS", setting.number(float, 3, 3600), 30.0,
        "A host that PostgreSQL hears nothing of for so long has lost its place; the same for all processes.",
    )  # fmt: skip
    worker_concurrency: int = setting.declare(
        "BRAIN_WORKER_CONCURRENCY", setting.number(int, 1, 64), 4, "Lifecycle commands that one worker runs at once."
    )
    tick_interval_seconds: float = setting.declare(
        "BRAIN_TICK_INTERVAL_SECONDS", setting.number(float, 0.2, 60), 2.0, "The pause between two autoscaling ticks."
    )
    beat_interval_seconds: float = setting.declare(
        "BRAIN_BEAT_INTERVAL_SECONDS", setting.number(float, 0.2, 60), 2.0, "The pause between two beats of an agent."
    )
    beat_stale_seconds: float = setting.declare(
        "BRAIN_BEAT_STALE_SECONDS", setting.number(float, 1, 600), 10.0, "A beat older than this is unknown."
    )
    start_timeout_seconds: float = setting.declare(
        "BRAIN_START_TIMEOUT_SECONDS", setting.number(float, 1, 3600), 60.0,
        "An operation whose agents are not ready by then has failed.",
    )  # fmt: skip
    stop_grace_seconds: float = setting.declare(
        "BRAIN_STOP_GRACE_SECONDS", setting.number(float, 0, 3600), 10.0,
        "How long a stopping host waits for busy agents; their jobs go back to the queue after it.",
    )  # fmt: skip
    operation_lease_seconds: float = setting.declare(
        "BRAIN_OPERATION_LEASE_SECONDS", setting.number(float, 1, 600), 10.0,
        "A claimed operation whose worker is silent for so long is given to another.",
    )  # fmt: skip
    job_ttl_seconds: int = setting.declare(
        "BRAIN_JOB_TTL_SECONDS", setting.number(int, 60, 31_536_000), 604_800,
        "How long finished jobs are kept, and with them their results.",
    )  # fmt: skip
    dead_letter_ttl_seconds: int = setting.declare(
        "BRAIN_DEAD_LETTER_TTL_SECONDS", setting.number(int, 60, 315_360_000), 2_592_000,
        "How long jobs that ended without success are kept, no shorter than others.",
    )  # fmt: skip
    metrics_interval_seconds: float = setting.declare(
        "BRAIN_METRICS_INTERVAL_SECONDS", setting.number(float, 1, 3600), 10.0, "The pause between two metrics rows."
    )
    metrics_clusters: int = setting.declare(
        "BRAIN_METRICS_CLUSTERS", setting.number(int, 1, 100_000), 1000,
        "Clusters that /metrics tells apart; those beyond, the newest, are summed up as `_other`.",
    )  # fmt: skip
    metrics_retention_seconds: int = setting.declare(
        "BRAIN_METRICS_RETENTION_SECONDS",
        setting.number(int, 60, 31_536_000),
        604_800,
        "How long metrics rows are kept.",
    )
    decisions_retention_seconds: int = setting.declare(
        "BRAIN_DECISIONS_RETENTION_SECONDS", setting.number(int, 60, 315_360_000), 604_800,
        "How long the autoscaler's decisions and their inputs are kept.",
    )  # fmt: skip
    history_retention_seconds: int = setting.declare(
        "BRAIN_HISTORY_RETENTION_SECONDS", setting.number(int, 60, 315_360_000), 2_592_000,
        "How long events, ended operations and rows of ended agents are kept.",
    )  # fmt: skip
    audit_retention_seconds: int = setting.declare(
        "BRAIN_AUDIT_RETENTION_SECONDS", setting.number(int, 60, 3_153_600_000), 31_536_000,
        "How long lines of the audit are kept.",
    )  # fmt: skip
    usage_retention_seconds: int = setting.declare(
        "BRAIN_USAGE_RETENTION_SECONDS", setting.number(int, 86_400, 3_153_600_000), 34_560_000,
        "How long the usage ledger is kept, from which costs are told.",
    )  # fmt: skip
    currency: str = setting.declare(
        "BRAIN_CURRENCY", setting.currency, "USD", "The currency of all prices and budgets, by ISO 4217."
    )
    admin_webhook_url: str | None = setting.declare(
        "BRAIN_ADMIN_WEBHOOK_URL", setting.web_hook, None,
        "Where alerts with the action notify_admin are posted to, as JSON.", secret=True, mask=mask_path,
    )  # fmt: skip
    http_allowed_networks: tuple[str, ...] = setting.declare(
        "BRAIN_HTTP_ALLOWED_NETWORKS", setting.networks, (),
        "Networks that are not public and that blueprints may send requests to, such as 10.1.0.0/16, by commas.",
    )  # fmt: skip
    llm_base_url: str | None = setting.declare(
        "BRAIN_LLM_BASE_URL", setting.url("http", "https"), None,
        "The OpenAI-compatible endpoint of groups with llm, such as https://api.openai.com/v1.",
    )  # fmt: skip
    llm_api_key: str | None = setting.declare(
        "BRAIN_LLM_API_KEY", setting.reference, None,
        "Its key, by reference: env:NAME or file:PATH, as the agents find it.", secret=True,
    )  # fmt: skip
    log_level: str = setting.declare("BRAIN_LOG_LEVEL", str.upper, "INFO", "DEBUG, INFO, WARNING or ERROR.")
    log_format: str = setting.declare(
        "BRAIN_LOG_FORMAT", setting.one_of("auto", "json", "text"), "auto",
        "How lines are logged: json, text, or auto, which is text on a terminal and JSON elsewhere.",
    )  # fmt: skip
    commit: str | None = setting.declare("BRAIN_COMMIT", str, None, "The commit that was built, shown by /version.")

    @property
    def admin_key_path(self) -> Path:
        """Where the first start writes an admin's key, and this machine's command line reads it."""
        return self.home / "admin.key"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Return the settings of ``environ`` (the process's own by default); raise ConfigError on a bad value."""
        environ = os.environ if environ is None else environ
        known = {item.metadata["variable"]: item for item in fields(cls)}
        values: dict[str, Any] = {}
        for variable, item in known.items():
            text = environ.get(variable, "").strip()
            if not text:  # set to nothing counts as not set, as compose files do it
                continue
            try:
                values[item.name] = item.metadata["parse"](text)
            except ValueError as exc:
                shown = "its value" if item.metadata["secret"] else repr(text)
                raise ConfigError(f"{variable}: {shown} {exc}. {item.metadata['about']}") from exc
        if "home" not in values:  # the default follows the working directory of now, not that of the import
            values["home"] = Path(".brain").absolute()
        settings = cls(**values)
        if settings.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise ConfigError(f"BRAIN_LOG_LEVEL: {settings.log_level!r} is none of DEBUG, INFO, WARNING, ERROR")
        return settings

    def describe(self, environ: Mapping[str, str] | None = None) -> list[dict[str, str]]:
        """Return a row per setting: variable, value (secrets masked), source and what it is for."""
        environ = os.environ if environ is None else environ
        rows = []
        for item in fields(self):
            variable = item.metadata["variable"]
            source = "environment" if environ.get(variable, "").strip() else "default"
            rows.append(
                {
                    "variable": variable,
                    "value": self._shown(item.name, item.metadata["mask"], secret=item.metadata["secret"]),
                    "source": source,
                    "about": item.metadata["about"],
                }
            )
        return rows

    def _shown(self, name: str, mask: Callable[[str], str] | None, *, secret: bool) -> str:
        value = getattr(self, name)
        if value is None:
            return "(embedded)" if name in ("database_url", "redis_url") else "(none)"
        if secret and isinstance(value, str):
            return (mask or mask_url)(value)
        if isinstance(value, tuple) and secret:
            return ",".join(SECRET_MASK for _ in value) or "(none)"
        return setting.written(value) or "(none)"


def mask_url(url: str) -> str:
    """Return ``url`` with its password masked, also one given as a query parameter."""
    # Greedy up to the last "@": a password may hold one unquoted.
    url = re.sub(r"(://[^:/@]*):.*@", rf"\1:{SECRET_MASK}@", url)
    return re.sub(r"(?i)([?&](?:password|sslpassword)=)[^&]*", rf"\1{SECRET_MASK}", url)


def wants_traces(environ: Mapping[str, str] | None = None) -> bool:
    """Return whether spans have somewhere to go, by OpenTelemetry's own variables, as agents have them, too."""
    environ = os.environ if environ is None else environ
    named = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    return any(environ.get(name) for name in named) and not off


def user_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for agents: the user's own variables, and none of ours, which hold credentials."""
    environ = os.environ if environ is None else environ
    return {key: value for key, value in environ.items() if not key.startswith("BRAIN_")}


def resolve(text: str, environ: Mapping[str, str] | None = None) -> str:
    """Return what ``env:NAME`` or ``file:PATH`` refers to, and other text as it is. Raises ValueError with a sentence.

    environ: the variables, the process's own by default. No variable of ours is given: agents do not have them, and
    every process must find the same.
    """
    kind, _, name = text.partition(":")
    if kind == "file":
        try:
            return Path(name).expanduser().read_text().strip()
        except (OSError, ValueError) as exc:
            raise ValueError(f"{text} cannot be read: {type(exc).__name__}") from None
    if kind != "env":
        return text
    found = user_environment(environ).get(name, "").strip()
    if not found:
        raise ValueError(f"{text} is not set in the environment of this process; an agent has that of its host")
    return found


def extend_environment(given: Iterable[tuple[str, str]]) -> None:
    """Set variables of this process, each to what its text refers to. Raises ValueError with a sentence."""
    for name, text in given:
        os.environ[name] = resolve(text)


def agent_environment() -> dict[str, Any]:
    """Return what an agent that is started by itself is given, {"spec": ..., "config": ...}; jobs do not see it.

    Raises ConfigError when it is not given.
    """
    given, redis_url, agent_id = (
        os.environ.pop(name, None) for name in ("BRAIN_AGENT", "BRAIN_AGENT_REDIS_URL", "BRAIN_AGENT_ID")
    )
    if given is None:
        raise ConfigError("BRAIN_AGENT is not set: drivers start agents in containers and pods, nobody else does")
    try:
        found = json.loads(given)
        spec, config = dict(found["spec"]), dict(found["config"])
    except (ValueError, KeyError, TypeError) as exc:
        # Its text is not shown: it may hold the password of Redis.
        raise ConfigError(
            f"BRAIN_AGENT: must be JSON with the objects spec and config ({type(exc).__name__})"
        ) from None
    if redis_url is not None:
        config["redis_url"] = redis_url
    if agent_id is not None:
        # Another at each start: what an earlier start held is then known to have died with it, and counts as a death.
        spec["agent_id"] = f"{agent_id}.{secrets.token_hex(4)}"
    return {"spec": spec, "config": config}


def child_environment(settings: Settings, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a process of ours that reads the same settings, however these were made."""
    found = dict(os.environ if environ is None else environ)
    for item in fields(settings):
        value = getattr(settings, item.name)
        if value is None:
            found.pop(item.metadata["variable"], None)
        else:
            found[item.metadata["variable"]] = setting.written(value)
    return found


def user_config_home(environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder of this user's configurations, by the XDG base directories."""
    given = (os.environ if environ is None else environ).get("XDG_CONFIG_HOME", "")
    return Path(given) if given.startswith("/") else Path.home() / ".config"


def failpoint_setting() -> str | None:
    """Return ``BRAIN_FAILPOINT``, which tests of faults set and nobody else; see ``brain_clusters.failpoints``."""
    return os.environ.get("BRAIN_FAILPOINT")
