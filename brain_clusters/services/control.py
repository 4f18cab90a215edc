"""The collaborators of every use case, made once per process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import text

from brain_clusters.broker.brokers import Brokers
from brain_clusters.broker.client import Broker
from brain_clusters.config import Settings
from brain_clusters.db.listen import HOSTS_CHANNEL
from brain_clusters.db.schema import Schema
from brain_clusters.db.session import Database
from brain_clusters.errors import ConfigError
from brain_clusters.shipped import shipped


@dataclass(frozen=True, slots=True)
class Control:
    """Settings, database, broker, and the brokers of other applications. ``close`` when done.

    wake_hosts: tells all hosts, once rows are committed, that there is something to do; one that does not hear it looks
    every second anyway.
    """

    settings: Settings
    database: Database
    broker: Broker
    wake_hosts: Callable[[], None]
    brokers: Brokers = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "brokers", Brokers(self.settings.redis_url or "", self.broker.redis))

    @classmethod
    def open(cls, settings: Settings, *, application: str, broker: Broker | None = None) -> Control:
        """Make the collaborators of ``settings``, whose servers must be known. Connects to nothing yet."""
        if settings.database_url is None or settings.redis_url is None:
            raise ConfigError(
                "BRAIN_DATABASE_URL and BRAIN_REDIS_URL are not set, and no embedded servers run for "
                f"{settings.home}; set both, or start the system with `brain-clusters up`"
            )
        schema = Schema(shipped("migrations"))
        database = Database(settings.database_url, schema, pool_size=settings.api_threads, application=application)
        broker = broker or Broker(settings.redis_url, owner=application)

        def wake_hosts() -> None:
            with database.transaction() as session:
                session.execute(text(f"NOTIFY {HOSTS_CHANNEL}"))

        return cls(settings, database, broker, wake_hosts)

    def close(self) -> None:
        """Close every connection."""
        self.brokers.close()
        self.broker.close()
        self.database.close()
