"""One scrape of /metrics over thousands of clusters, beside a tick over the same, which reads as much and writes more.

The clusters are those of ``tick.py``. Each has finished jobs, so that there are histograms to tell.
"""

from __future__ import annotations

import argparse
import time

import stage
import tick

from brain_clusters.api.exposition import exposed
from brain_clusters.services import autoscale, counting
from brain_clusters.services.control import Control
from brain_clusters.services.counting import Counts, Key
from brain_clusters.services.monitoring import Monitor


def count_jobs(control: Control, clusters: int) -> None:
    """Let every cluster have finished jobs of several durations."""
    with control.database.transaction() as session:
        for number in range(clusters):
            counts, key = Counts(), Key(f"tick-{number}", "Left", "brain_jobs_total", "succeeded")
            for seconds in (0.02, 0.3, 4.0):
                counts.add(key)
                counts.observe(key._replace(metric="brain_job_seconds", label=""), seconds)
            counts.write(session)
    counting.fold(control)


def measure(count: int, runs: int) -> None:
    """Fill servers of their own, measure, print, and leave nothing."""
    with stage.collaborators(tick_interval_seconds=0.2) as control:
        tick.fill(control, count, all_work=False)
        count_jobs(control, count)
        monitor, scrapes, ticks, size = Monitor(control), [], [], 0
        autoscale.tick(control)
        for _ in range(runs):
            time.sleep(0.3)
            began = time.perf_counter()
            autoscale.tick(control)
            ticks.append((time.perf_counter() - began) * 1000)
            began = time.perf_counter()
            text, _ = exposed(monitor.gather(), "")
            scrapes.append((time.perf_counter() - began) * 1000)
            size = len(text)
        stage.figures(f"scrape of {count} clusters", scrapes, "ms")
        stage.figures("  a tick over the same", ticks, "ms")
        print(f"  size of the answer: {size / 1e6:.1f} MB", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--clusters", type=int, nargs="+", default=[1000])
    options = parser.parse_args()
    for count in options.clusters:
        measure(count, options.runs)


if __name__ == "__main__":
    main()
