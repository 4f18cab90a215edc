"""What tests of services share: a stage on servers that have nothing in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import text, update

from brain_clusters.broker.client import Broker, connect
from brain_clusters.config import Settings
from brain_clusters.db.models import StoredBlueprint
from brain_clusters.ports import free_port
from brain_clusters.services import blueprints
from brain_clusters.services.control import Control
from tests.integration.counted import CountedBudgets
from tests.integration.dashboard_site import browser, looker, signed_in, site, visit  # noqa: F401 - fixtures
from tests.integration.stage import SHOP, Stage


@pytest.fixture
def stage(control: Control) -> Iterator[Stage]:
    """A stage on an empty database and an empty Redis."""
    control.broker.redis.flushdb()
    with control.database.transaction() as session:
        tables = (
            "events, jobs, operations, cluster_metrics, cluster_agents, clusters, hosts, ticks, idempotency_keys, "
            "usage, tallies, tally_entries"
        )
        session.execute(text(f"TRUNCATE {tables} CASCADE"))
        session.execute(update(StoredBlueprint).values(instances_created=0, instances_active=0, success_rate=0))
    blueprints.store(control, SHOP)
    yield Stage(control)
    control.broker.redis.flushdb()


@pytest.fixture
def budgets(redis_url: str) -> Iterator[CountedBudgets]:
    """Budgets in an empty Redis."""
    client = connect(redis_url)
    client.flushdb()
    yield CountedBudgets(client)
    client.close()


@pytest.fixture
def cut_off(stage: Stage, settings: Settings) -> Iterator[Stage]:
    """The same stage with a Redis that does not answer."""
    control = replace(stage.control, broker=Broker(f"redis://127.0.0.1:{free_port()}/0"))
    yield Stage(control)
    control.broker.close()
