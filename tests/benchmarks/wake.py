"""A job sent by REST to a sleeping cluster until its handler's first line, beside the cold start of a plain worker."""

from __future__ import annotations

import argparse
import statistics
import time
from datetime import datetime

import stage

from brain_clusters.cli.client import ApiClient, own_key

# Persistent: it sleeps when it is told to, and not while the peer is measured.
BLUEPRINT = """
metadata: {id: wake, name: Wake, version: "1"}
cluster: {type: persistent, min_workers: 1, max_workers: 9, default_workers: 1}
agents:
  - {role: supervisor, name: Editor, count: 1}
  - {role: worker, name: Readers, count: 0-8, handler: "brain_clusters.examples.source_files:digest"}
"""


def ours(runs: int) -> tuple[list[float], list[float]]:
    """Return milliseconds from the request to the handler, for us; and of plain workers from exec to their task."""
    mine, plain = [], []
    with stage.system() as system:
        api, url = ApiClient(system.api_url, key=own_key(system.settings)), system.settings.redis_url or ""
        api.post("/api/blueprints", {"yaml": BLUEPRINT})
        made = api.post("/api/clusters", {"blueprint_id": "wake", "name": "wake"}, wait_seconds=60)["cluster"]
        path = f"/api/clusters/{made['id']}"
        for _ in range(runs):
            api.post(f"{path}/hibernate", {}, wait_seconds=60)
            system.poll()
            mine.append(wake(api, path))
            plain.append(cold_start(url))
        api.close()
    return mine, plain


def wake(api: ApiClient, path: str) -> float:
    """Send a job to the sleeping cluster; return the milliseconds until its handler began."""
    sent = time.time()
    job = api.post(f"{path}/jobs", {"to": "Readers", "payload": {"path": __file__}})["job"]
    while job["status"] not in ("succeeded", "failed"):
        time.sleep(0.02)
        job = api.get(f"/api/jobs/{job['id']}")
    time.sleep(0.3)
    return (datetime.fromisoformat(job["started_at"]).timestamp() - sent) * 1000


def cold_start(url: str) -> float:
    """Return the milliseconds from exec of a plain worker until its task's first line; the task waits already."""
    stage.send_peer_task(url)
    began = time.time()
    with stage.plain_workers(url, 1):
        return (stage.wait_for_stamps(url, 1)[0] - began) * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    mine, plain = ours(parser.parse_args().runs)
    stage.figures("wake: request to handler", mine, "ms")
    stage.figures("plain celery worker -P solo: exec to task", plain, "ms")
    print(f"ratio of the medians: 1 to {statistics.median(plain) / statistics.median(mine):.1f}")


if __name__ == "__main__":
    main()
