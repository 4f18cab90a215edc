"""Fifty agents from nothing to ready and the memory of each, beside fifty plain ``celery worker -P solo``."""

from __future__ import annotations

import argparse
import statistics
import time

import stage

from brain_clusters.cli.client import ApiClient, own_key

COUNT = 50
BLUEPRINT = """
metadata: {id: fifty, name: Fifty, version: "1"}
cluster: {type: persistent, min_workers: 1, max_workers: 60, default_workers: 1}
agents:
  - {role: supervisor, name: Head, count: 1}
  - {role: worker, name: Hands, count: 0-59, handler: "brain_clusters.examples.source_files:digest"}
"""


def ours(runs: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds until all were ready, and the mean PSS (MB) of an idle agent, of each run."""
    times, memory = [], []
    with stage.system() as system:
        api = ApiClient(system.api_url, key=own_key(system.settings))
        api.post("/api/blueprints", {"yaml": BLUEPRINT})
        made = api.post("/api/clusters", {"blueprint_id": "fifty", "name": "fifty"}, wait_seconds=60)["cluster"]
        path = f"/api/clusters/{made['id']}"
        for _ in range(runs):
            api.post(f"{path}/hibernate", {}, wait_seconds=60)
            api.post(f"{path}/reactivate", {}, wait_seconds=60)
            api.post(f"{path}/hibernate", {}, wait_seconds=60)
            system.poll()
            times.append(start_all(api, path))
            pids = [agent["pid"] for agent in api.get(f"{path}/agents")["agents"]]
            memory.append(statistics.mean(stage.pss_megabytes(pid) for pid in pids))
            api.post(f"{path}/scale", {"target_workers": 1}, wait_seconds=60)
        api.close()
    return times, memory


def start_all(api: ApiClient, path: str) -> float:
    """Wake the cluster with one agent's worth of target, then ask for all; return the milliseconds until ready."""
    api.post(f"{path}/reactivate", {}, wait_seconds=60)
    began = time.monotonic()
    done = api.post(f"{path}/scale", {"target_workers": COUNT + 1}, wait_seconds=60)
    if done["operation"]["status"] != "succeeded":
        raise SystemExit(f"the agents did not come: {done['operation']}")
    return (time.monotonic() - began) * 1000


def plain() -> tuple[float, float]:
    """Return the same of plain workers: until each had done one task, and the mean PSS."""
    with stage.system() as system:
        url = system.settings.redis_url or ""
        began = time.time()
        with stage.plain_workers(url, COUNT, "--without-gossip", "--without-mingle", "--without-heartbeat") as workers:
            for _ in range(COUNT):
                stage.send_peer_task(url)
            last = max(stage.wait_for_stamps(url, COUNT))
            time.sleep(5)
            return (last - began) * 1000, statistics.mean(stage.pss_megabytes(worker.pid) for worker in workers)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    times, memory = ours(parser.parse_args().runs)
    stage.figures(f"{COUNT} agents: request to all ready", times, "ms")
    stage.figures("PSS of an idle agent, mean", memory, "MB")
    plain_time, plain_memory = plain()
    print(
        f"{COUNT} plain celery worker -P solo: {COUNT} tasks done after {plain_time:.0f} ms, PSS {plain_memory:.1f} MB"
    )
    print(f"ratios: time 1 to {plain_time / statistics.median(times):.1f}, memory 1 to "
          f"{plain_memory / statistics.median(memory):.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
