"""From nothing to consuming agents and back, on each driver: 1, 10 and 50 at once, beside what the engine does bare.

Ours is the time from the driver's ``start`` until all agents consume, and from ``stop`` until the end of all was told.
The peers are containers by ``docker run`` and pods by one ``kubectl create``, of the same image on the same engine,
which run a shell that only waits: until all run, and from ``docker stop`` or ``kubectl delete`` until none does. The
driver ``plain`` shows what an interpreter of its own costs: it starts what containers run as processes of this machine.

    .venv/bin/python -m tests.benchmarks.engines --drivers process,plain,docker,kubernetes --counts 1,10,50 --runs 3

docker needs DOCKER_HOST, kubernetes KUBECONFIG with nodes that have the image; see docs/drivers.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

from brain_clusters.domain.engines import Engine
from brain_clusters.embedded import EmbeddedServers
from brain_clusters.examples.plain_driver import PlainDriver
from brain_clusters.genesis.contract.ground import Ground
from brain_clusters.genesis.contract.stage import Stage
from brain_clusters.genesis.driver import Driver, Factory, Kit
from brain_clusters.genesis.process.driver import ProcessDriver
from tests.benchmarks.stage import figures
from tests.engines.images import agent_image
from tests.engines.kube import Kube

# Heeds SIGTERM, as an agent does.
WAITS = ["sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"]
PATIENCE_SECONDS = 900.0
DOCKER_RUNS_AT_ONCE = 8

Times = tuple[float, float]
Measure = Callable[[int], Times]


@contextmanager
def stage_on(factory: Factory, engine: Engine) -> Iterator[Stage]:
    """A driver that is open, with a Redis of its own."""
    home = Path(tempfile.mkdtemp(prefix="brain-bench-"))
    servers = EmbeddedServers(home / "servers", postgres=False, say=lambda _line: None)
    try:
        url = servers.start().redis_url
        assert url is not None
        ground = Ground(
            factory=factory, engine=engine, redis_url=url, agents_redis_url=url,
            home=home / "home", patience_seconds=PATIENCE_SECONDS,
        )  # fmt: skip
        stage = Stage(ground, "bench")
        try:
            yield stage
        finally:
            stage.clear()
    finally:
        servers.remove()
        rmtree(home, ignore_errors=True)


def ours(stage: Stage, count: int) -> Times:
    """Return the seconds until ``count`` agents consume, and until their ends are told."""
    begun = time.monotonic()
    agents = stage.start(*(stage.spec() for _ in range(count)))
    stage.until_consuming(agents)
    ready = time.monotonic()
    stage.call(stage.driver.stop, agents)
    stage.until(lambda: stage.ends.keys() >= set(agents), "all have ended")
    ended = time.monotonic()
    stage.call(stage.driver.remove, agents)
    stage.until(lambda: not set(agents) & stage.sighted().keys(), "all are removed")
    return ready - begun, ended - ready


def docker(*arguments: str) -> str:
    """Run the command docker; return what it printed."""
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def by_docker_run(image: str, count: int) -> Times:
    """Return the seconds until ``count`` containers run, and until they have stopped."""
    entry, *more = WAITS
    command = ["run", "--detach", "--network=host", f"--entrypoint={entry}", image, *more]
    begun = time.monotonic()
    with ThreadPoolExecutor(DOCKER_RUNS_AT_ONCE) as pool:
        containers = list(pool.map(lambda _: docker(*command), range(count)))
    try:
        running_at = time.monotonic()
        docker("stop", *containers)
        return running_at - begun, time.monotonic() - running_at
    finally:
        docker("rm", "--force", *containers)


def by_bare_pods(kube: Kube, image: str, count: int) -> Times:
    """Return the seconds until ``count`` pods are ready, and until they are gone."""
    box = {"name": "box", "image": image, "command": WAITS, "imagePullPolicy": "IfNotPresent"}
    spec = {"restartPolicy": "Never", "hostNetwork": True, "containers": [box]}
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "spec": spec, "metadata": {"name": f"bare-{n}", "labels": {"bare": "yes"}}}
        for n in range(count)
    ]
    begun = time.monotonic()
    kube.kubectl("create", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}))
    patience = f"--timeout={PATIENCE_SECONDS:g}s"
    kube.kubectl("wait", "--for=condition=Ready", "pod", "--selector=bare=yes", patience)
    ready = time.monotonic()
    kube.kubectl("delete", "pod", "--selector=bare=yes", "--wait=true", patience)
    return ready - begun, time.monotonic() - ready


def compare(name: str, counts: list[int], runs: int, ways: dict[str, Measure]) -> None:
    """Measure each way in turns, and print."""
    for count in counts:
        times: dict[str, list[Times]] = {way: [] for way in ways}
        for _ in range(runs):
            for way, measure in ways.items():
                times[way].append(measure(count))
        for way, found in times.items():
            figures(f"{name}: {count} by {way}, to ready", [start for start, _ in found], "s")
            figures(f"{name}: {count} by {way}, to stopped", [stop for _, stop in found], "s")


def on_docker(counts: list[int], runs: int) -> None:
    """Compare the driver with ``docker run``."""
    from brain_clusters.genesis.docker.driver import DockerDriver

    image = agent_image()
    with stage_on(DockerDriver.make, Engine("docker", image, docker={"network": "host"})) as stage:
        ways: dict[str, Measure] = {
            "the driver": lambda count: ours(stage, count), "docker run": lambda count: by_docker_run(image, count),
        }  # fmt: skip
        compare("docker", counts, runs, ways)


def on_kubernetes(counts: list[int], runs: int) -> None:
    """Compare the driver with bare pods."""
    from brain_clusters.genesis.kubernetes.driver import KubernetesDriver

    image = agent_image()
    with Kube.made() as kube:

        def make(kit: Kit) -> Driver:
            settings = replace(kit.settings, kubernetes_namespace=kube.namespace)
            return KubernetesDriver.make(replace(kit, settings=settings))

        with stage_on(make, Engine("kubernetes", image, pod={"host_network": True})) as stage:
            ways: dict[str, Measure] = {
                "the driver": lambda count: ours(stage, count),
                "bare pods": lambda count: by_bare_pods(kube, image, count),
            }
            compare("kubernetes", counts, runs, ways)


def on_this_machine(name: str, factory: Factory, counts: list[int], runs: int) -> None:
    """Measure a driver that needs no engine."""
    with stage_on(factory, Engine()) as stage:
        stage.agent()  # the base zygote has imported by then
        compare(name, counts, runs, {"the driver": lambda count: ours(stage, count)})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drivers", default="process,plain,docker,kubernetes")
    parser.add_argument("--counts", default="1,10,50")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    counts = [int(count) for count in options.counts.split(",")]
    known: dict[str, Callable[[list[int], int], None]] = {
        "process": lambda counts, runs: on_this_machine("process", ProcessDriver.make, counts, runs),
        "plain": lambda counts, runs: on_this_machine("plain", PlainDriver, counts, runs),
        "docker": on_docker,
        "kubernetes": on_kubernetes,
    }
    for driver in options.drivers.split(","):
        known[driver](counts, options.runs)


if __name__ == "__main__":
    main()
