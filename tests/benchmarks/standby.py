"""A job sent by REST to a sleeping cluster until its handler's first line, where its module is heavy to import.

With ``standby: warm`` and with ``standby: cold``, in turns. The module is a generated package of 400 modules with
40,000 functions and 200 MB of data; with ``--import NAME`` one that imports an installed package instead. All is
compiled beforehand. Each cold start has a copy of its own, as a zygote that was used stays for ten minutes.
"""

from __future__ import annotations

import argparse
import compileall
import statistics
import tempfile
import time
from pathlib import Path
from shutil import rmtree
from typing import Any

import stage
from wake import wake

from brain_clusters.cli.client import ApiClient, own_key

MODULES, FUNCTIONS, MEGABYTES = 400, 100, 200
BLUEPRINT = """
metadata: {{id: {name}, name: {name}, version: "1"}}
cluster: {{type: persistent, min_workers: 1, max_workers: 2, default_workers: 1}}
agents:
  - {{role: supervisor, name: Editor, count: 1}}
  - {{role: worker, name: Readers, count: 0-1, standby: {standby}, handler: "{module}:work"}}
"""


def generate(folder: Path, name: str, instead: str | None) -> None:
    """Write a package that is as heavy as it is said above."""
    package = folder / name
    package.mkdir()
    lines = [f"import {instead}", "DATA = b''"]
    if instead is None:
        functions = "\n".join(
            f"def f{number}(a, b=1, *c, **d):\n    return [a, b, c, {number}]\n" for number in range(FUNCTIONS)
        )
        for number in range(MODULES):
            (package / f"part{number}.py").write_text(functions)
        lines = [f"from {name} import part{number}" for number in range(MODULES)]
        lines.append(f"DATA = b'x' * ({MEGABYTES} * 2**20)")
    lines += ["def work(payload, context):", "    return len(DATA)", ""]
    (package / "__init__.py").write_text("\n".join(lines))
    compileall.compile_dir(package, quiet=1)


def create(api: ApiClient, module: str, standby: str) -> str:
    """Create a cluster that sleeps; return its path."""
    name = module.replace("_", "-")
    api.post("/api/blueprints", {"yaml": BLUEPRINT.format(name=name, standby=standby, module=module)})
    made = api.post("/api/clusters", {"blueprint_id": name, "name": name}, wait_seconds=60)["cluster"]
    path = f"/api/clusters/{made['id']}"
    api.post(f"{path}/hibernate", {}, wait_seconds=60)
    return path


def kept(api: ApiClient, path: str) -> dict[str, Any]:
    """Wait until the host tells of the group's zygote; return that."""
    while True:
        found: dict[str, Any] = api.get(path)["standby"]["Readers"]
        if found["memory_bytes"]:
            return found
        time.sleep(0.1)


def measure(runs: int, instead: str | None) -> tuple[list[float], list[float], float]:
    """Return the milliseconds of warm and of cold wakes, and the megabytes that warm keeps."""
    folder = Path(tempfile.mkdtemp(prefix="brain-heavy-"))
    try:
        for name in ("heavy_warm", *(f"heavy_cold_{number}" for number in range(runs))):
            generate(folder, name, instead)
        with stage.system(handler_path=(str(folder),), start_timeout_seconds=120.0) as system:
            api = ApiClient(system.api_url, key=own_key(system.settings))
            path = create(api, "heavy_warm", "warm")
            megabytes = kept(api, path)["memory_bytes"] / 2**20
            warm, cold = [], []
            for number in range(runs):
                warm.append(wake(api, path))
                api.post(f"{path}/hibernate", {}, wait_seconds=60)
                cold.append(wake(api, create(api, f"heavy_cold_{number}", "cold")))
                system.poll()
            api.close()
        return warm, cold, megabytes
    finally:
        rmtree(folder, ignore_errors=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--import", dest="instead", help="an installed package to import instead")
    options = parser.parse_args()
    warm, cold, megabytes = measure(options.runs, options.instead)
    stage.figures("standby: warm, request to handler", warm, "ms")
    stage.figures("standby: cold, request to handler", cold, "ms")
    print(f"ratio of the medians: 1 to {statistics.median(cold) / statistics.median(warm):.1f}")
    print(f"kept in memory by standby: warm: {megabytes:.0f} MB")


if __name__ == "__main__":
    main()
