"""Storing the outcomes of jobs, and how much of it counting them for monitors takes.

A batch of reports as the tick takes them is stored with the counters and, in turns, without them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import uuid
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import stage
import tick

from brain_clusters.broker.jobs import JobReport
from brain_clusters.config import Settings
from brain_clusters.domain.states import JobStatus
from brain_clusters.embedded import EmbeddedServers
from brain_clusters.services import outcomes
from brain_clusters.services.control import Control
from brain_clusters.services.counting import Counts
from brain_clusters.services.setup import prepare


def reports(number: int, clusters: int) -> list[JobReport]:
    """Return the outcomes of so many jobs of so many clusters."""
    now = time.time()
    return [
        JobReport(
            uuid.uuid4().hex, f"tick-{each % clusters}", "Left", "an agent", JobStatus.SUCCEEDED, 1,
            now - (each % 50) / 10, now, {"sum": each},
        )
        for each in range(number)
    ]  # fmt: skip


def store(control: Control, number: int, clusters: int) -> float:
    """Return the milliseconds that storing so many outcomes takes."""
    given = reports(number, clusters)
    began = time.perf_counter()
    with control.database.transaction() as session:
        outcomes.store(session, given)
    return (time.perf_counter() - began) * 1000


def measure(number: int, clusters: int, runs: int) -> None:
    """Fill servers of their own, measure, print, and leave nothing."""
    home = Path(tempfile.mkdtemp(prefix="brain-bench-"))
    servers = EmbeddedServers(home, say=lambda _line: None)
    try:
        settings = servers.start().fill(replace(Settings.from_env({}), home=home))
        prepare(settings)
        control = Control.open(settings, application="bench")
        tick.fill(control, clusters, all_work=False)
        counted, bare, write = [], [], Counts.write
        for _ in range(runs + 1):
            counted.append(store(control, number, clusters))
            Counts.write = lambda *_: None  # type: ignore[assignment, method-assign]
            bare.append(store(control, number, clusters))
            Counts.write = write  # type: ignore[method-assign]
        stage.figures(f"{number} outcomes of {clusters} clusters", counted[1:], "ms")
        stage.figures("  without the counters", bare[1:], "ms")
        control.close()
    finally:
        servers.remove()
        rmtree(home, ignore_errors=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--clusters", type=int, nargs="+", default=[10, 100])
    options = parser.parse_args()
    for clusters in options.clusters:
        measure(options.jobs, clusters, options.runs)


if __name__ == "__main__":
    main()
