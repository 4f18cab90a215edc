"""How long pages of the dashboard take with 10,000 clusters: python -m tests.benchmarks.pages [CLUSTERS]

In this process, without the network: the middle of 15 requests after 2 that count for nothing, and the size.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import create_engine, text

from brain_clusters import dashboard
from brain_clusters.api.app import create_app
from brain_clusters.config import Settings
from brain_clusters.db.migrate import upgrade
from brain_clusters.embedded import EmbeddedServers, running
from brain_clusters.services.control import Control
from brain_clusters.shipped import shipped
from tests.integration import showcase

_FILL = (
    """INSERT INTO clusters (id, name, type, status, blueprint_id, blueprint_version, min_workers, max_workers,
         current_workers, target_workers, group_targets, tags, last_active, scaled_at, created_at, intent,
         hibernated_at)
       SELECT 'many-' || n, 'Cluster number ' || n, 'project',
         (CASE WHEN n % 5 = 0 THEN 'hibernated' ELSE 'active' END)::clusterstatus, 'support-desk', '1.1', 3, 16, 4, 4,
         '{"Writers": 4}', ARRAY['tag' || n % 50], now() - n * interval '1 second', now() - interval '1 hour',
         now() - n * interval '1 minute', (CASE WHEN n % 5 = 0 THEN 'asleep' ELSE 'running' END)::clusterintent,
         CASE WHEN n % 5 = 0 THEN now() - interval '2 hours' END
       FROM generate_series(1, :count) AS n""",
    """INSERT INTO cluster_agents (id, cluster_id, agent_id, role, group_name, status, blueprint_version, host_id,
         ready_at)
       SELECT gen_random_uuid(), 'many-' || n, 'many-' || n || '.writers.' || m, 'worker', 'Writers', 'idle', '1.1',
         'host-a', now() FROM generate_series(1, :count) AS n, generate_series(1, 4) AS m WHERE n % 5 <> 0""",
    """INSERT INTO cluster_metrics (cluster_id, timestamp, tasks_per_minute, error_rate, active_agents, idle_agents,
         busy_agents, failed_agents, queue_length, queue_wait_time)
       SELECT 'many-' || n, now() - m * interval '15 seconds', 20, 0, 4, 4, 0, 0, n % 7, 1
       FROM generate_series(1, :count) AS n, generate_series(1, 20) AS m""",
    """INSERT INTO usage (day, cluster_id, group_name, agent_id, blueprint_id, blueprint_version, idle_seconds)
       SELECT current_date, 'many-' || n, 'Writers', 'many-' || n || '.writers.' || m, 'support-desk', '1.1', 3600
       FROM generate_series(1, :count) AS n, generate_series(1, 4) AS m WHERE n % 5 <> 0""",
    """INSERT INTO events (cluster_id, kind, actor, reason)
       SELECT 'many-' || n, 'cluster.status', 'system', 'from spawning to active'
       FROM generate_series(1, :count) AS n, generate_series(1, 5) AS m""",
    """INSERT INTO jobs (id, cluster_id, group_name, status, error_key, finished_at, payload)
       SELECT 'job-' || n || '-' || m, 'many-' || n, 'Writers', 'dead', 'ValueError: no', now(), '{}'
       FROM generate_series(1, :count) AS n, generate_series(1, 10) AS m WHERE n % 100 = 0""",
    "ANALYZE",
)
_PAGES = (
    "/", "/clusters", "/clusters?q=number+77", "/clusters?sort=name&page=120", "/clusters?status=hibernated&sort=-load",
    "/clusters?tag=tag7", f"/clusters/{showcase.MAIN}", "/clusters/many-77", "/clusters/many-77/costs",
)  # fmt: skip


def main(count: int) -> None:
    """Fill an installation of its own, and print a line for each page."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        servers = EmbeddedServers(home, say=lambda _: None)
        try:
            servers.start()
            urls = running(home)
            assert urls is not None
            assert urls.database_url is not None
            engine = create_engine(urls.database_url)
            upgrade(engine, shipped("migrations"))
            control = Control.open(
                Settings(home=home, database_url=urls.database_url, redis_url=urls.redis_url, insecure_dev=True),
                application="benchmark",
            )
            showcase.build(control)
            with engine.begin() as connection:
                for statement in _FILL:
                    connection.execute(text(statement), {"count": count} if ":count" in statement else {})
            _measure(control)
            control.close()
            engine.dispose()
        finally:
            servers.remove()


def _measure(control: Control) -> None:
    app = create_app(control)
    dashboard.attach(app)
    client = app.test_client()
    for path in _PAGES:
        taken = []
        for number in range(17):
            begin = time.perf_counter()
            answered = client.get(path)
            taken.append(time.perf_counter() - begin)
            assert answered.status_code == 200, answered.text
            if number == 1:
                taken.clear()
        print(f"{statistics.median(taken) * 1000:7.1f} ms  {len(answered.data) / 1024:6.1f} KiB  {path}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
