"""How soon the command line answers, from a cold start, beside an empty Python and other programs in the same run.

    .venv/bin/python tests/benchmarks/cli.py --runs 20 [--http PATH-OF-HTTPIE]

Each run calls all of them in turn, so that what else the machine does meets them alike.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from brain_clusters.cli.client import ApiClient, own_key
from brain_clusters.cli.system import System
from brain_clusters.config import child_environment

if __name__ == "__main__":
    from stage import system

ROOT = Path(__file__).parents[2]
_CLUSTERS = 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--http", default=shutil.which("http"), help="HTTPie's program")
    chosen = parser.parse_args()
    with system() as running:
        _fill(running)
        environment = {**child_environment(running.settings), "BRAIN_API_URL": running.api_url}
        commands = _commands(running, chosen.http)
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(chosen.runs):
            for name, argv in commands.items():
                begin = time.perf_counter()
                subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)
                seconds[name].append(time.perf_counter() - begin)
    _tell(seconds)


def _fill(running: System) -> None:
    """Make clusters that sleep, so that there is a list and nothing else happens."""
    api = ApiClient(running.api_url, key=own_key(running.settings))
    for number in range(_CLUSTERS):
        api.post("/api/clusters", {"blueprint_id": "demo", "name": f"C{number}", "id": f"c{number}"}, wait_seconds=30)
        api.post(f"/api/clusters/c{number}/hibernate", {}, wait_seconds=30)
    api.close()


def _commands(running: System, http: str | None) -> dict[str, list[str]]:
    ours, key = str(Path(sys.executable).with_name("brain-clusters")), own_key(running.settings)
    found = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "brain-clusters --help": [ours, "--help"],
        "brain-clusters get clusters": [ours, "get", "clusters"],
        "brain-clusters get clusters -o json": [ours, "get", "clusters", "-o", "json"],
        "./brain get clusters": [str(ROOT / "brain"), "get", "clusters"],
    }
    if kubectl := shutil.which("kubectl"):
        found["kubectl version --client"] = [kubectl, "version", "--client"]
    if http:
        url = f"{running.api_url}/api/clusters?limit=200"
        found["http GET .../api/clusters"] = [http, "--ignore-stdin", url, f"Authorization:Bearer {key}"]
    return found


def _tell(seconds: dict[str, list[float]]) -> None:
    empty = statistics.median(seconds["python -c pass"])
    print("| | min | median | beside an empty Python |\n|---|---|---|---|")
    for name, found in seconds.items():
        median = statistics.median(found)
        print(f"| `{name}` | {min(found) * 1000:.0f} ms | {median * 1000:.0f} ms | {median / empty:.1f} |")


if __name__ == "__main__":
    main()
