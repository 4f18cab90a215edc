"""Replay the loads against ours, the peers and the oracle, print the verdicts, and write the results down.

.venv/bin/python -m tests.benchmarks.scaling                       # all, printed
.venv/bin/python -m tests.benchmarks.scaling --write               # and written to docs/scaling
.venv/bin/python -m tests.benchmarks.scaling --seeds 2 --traces burst,square --start 2
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from tests.benchmarks.scaling import measure, oracle, plots, report, traces
from tests.benchmarks.scaling.celery_pool import CeleryPool
from tests.benchmarks.scaling.engine import simulate
from tests.benchmarks.scaling.judoscale import Judoscale
from tests.benchmarks.scaling.keda import Keda
from tests.benchmarks.scaling.knative import Knative
from tests.benchmarks.scaling.measure import Figures
from tests.benchmarks.scaling.ours import Ours
from tests.benchmarks.scaling.ray_serve import RayServe
from tests.benchmarks.scaling.records import Sample
from tests.benchmarks.scaling.report import Results
from tests.benchmarks.scaling.scaler import Scaler
from tests.benchmarks.scaling.step import Step

SCALERS: tuple[type[Scaler], ...] = (Ours, Keda, Knative, CeleryPool, RayServe, Step, Judoscale)
STARTS = (0.03, 2.0, 20.0)
SEEDS = 10
MAXIMUM = 20
DOCS = Path(__file__).parents[3] / "docs" / "scaling"
COMMAND = "python -m tests.benchmarks.scaling"
PICTURED = ("burst", "square")

Found = dict[tuple[float, str], Figures]


def replay(job: tuple[str, int], starts: Sequence[float], scaling: str = "{}") -> tuple[str, Found]:
    """Run every scaler over one trace of one seed; return the figures by start time and scaler.

    scaling: what our blueprint says of scaling.
    """
    name, seed = job
    trace = traces.make(name, seed)
    found: Found = {}
    for start in starts:
        for scaler in SCALERS:
            one = simulate(trace, _made(scaler, seed, scaling), start, seed)
            found[start, scaler.name] = measure.figures(trace, one)
        found[start, oracle.NAME] = measure.figures(trace, oracle.run(trace, start, MAXIMUM))
    return name, found


def _made(scaler: type[Scaler], seed: int, scaling: str) -> Scaler:
    return Ours(MAXIMUM, seed, scaling) if scaler is Ours else scaler(MAXIMUM, seed)


def replay_all(names: Sequence[str], starts: Sequence[float], seeds: int, scaling: str) -> Results:
    """Run everything on all cores."""
    jobs = [(name, seed) for seed in range(1, seeds + 1) for name in names]
    with multiprocessing.Pool(os.cpu_count()) as pool:
        return collect(pool.imap(partial(replay, starts=starts, scaling=scaling), jobs), names, starts)


def collect(replayed: Iterable[tuple[str, Found]], names: Sequence[str], starts: Sequence[float]) -> Results:
    """Bring what ``replay`` returned, seed by seed, together."""
    gathered: dict[tuple[float, str, str], list[Figures]] = defaultdict(list)
    for name, found in replayed:
        for (start, scaler), one in found.items():
            gathered[start, name, scaler].append(one)
    scalers = [*(scaler.name for scaler in SCALERS), oracle.NAME]
    return {
        start: {name: {scaler: measure.spreads(gathered[start, name, scaler]) for scaler in scalers} for name in names}
        for start in starts
    }


def pictures(results: Results, scaling: str) -> Iterator[tuple[str, str]]:
    """Yield (file name, SVG): the first seed's runs of some traces, and waits against costs."""
    for name in PICTURED:
        trace, samples = traces.make(name, 1), dict[str, Sequence[Sample]]()
        for scaler in SCALERS:
            samples[scaler.name] = simulate(trace, _made(scaler, 1, scaling), 2.0, 1, sample=2.0).samples
        yield f"{name.replace(' ', '-')}.svg", plots.timeline(f"{name}, starts of 2 s, the first seed", samples)
    clouds = {f"starts of {start:g} s": _clouds(results, start) for start in results}
    title = "p95 wait against agent-hours as a share of KEDA's, a point for each load"
    yield "wait-cost.svg", plots.scatter(title, clouds)


def _clouds(results: Results, start: float) -> dict[str, list[plots.Point]]:
    clouds: dict[str, list[plots.Point]] = defaultdict(list)
    for by_scaler in results[start].values():
        keda = by_scaler[Keda.name]["hours"].mean
        for scaler, found in by_scaler.items():
            clouds[scaler].append((found["hours"].mean / keda, found["p95"].mean))
    return clouds


def main() -> None:
    """Parse the command line, run, print, and write when asked."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.scaling", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--traces", default=",".join(traces.MAKERS), help="names, separated by commas")
    parser.add_argument("--start", default=",".join(map(str, STARTS)), help="start times in seconds")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--scaling", default="{}", help="our blueprint's cluster.scaling, to try keys (YAML)")
    parser.add_argument("--write", action="store_true", help=f"write {DOCS.name}/results.md and the pictures")
    given = parser.parse_args()
    names, starts = given.traces.split(","), [float(start) for start in given.start.split(",")]
    began = time.perf_counter()
    results = replay_all(names, starts, given.seeds, given.scaling)
    page = report.markdown(results, given.seeds, MAXIMUM, shlex.join([*COMMAND.split(), *sys.argv[1:]]))
    print(page[page.index("## The loads") :])
    print(f"{time.perf_counter() - began:.0f} s")
    if given.write:
        DOCS.mkdir(parents=True, exist_ok=True)
        (DOCS / "results.md").write_text(page)
        for file, picture in pictures(results, given.scaling):
            (DOCS / file).write_text(picture)


if __name__ == "__main__":
    main()
