"""The API's latency while many listen to events, beside the same API with nobody listening, in turns.

    python tests/benchmarks/listeners.py [--listeners 300] [--requests 400] [--runs 5] [--rate 20]

Requests are GET /api/clusters?limit=1 over one kept connection. Events are written at ``--rate`` a second in all turns,
so that only the listeners differ. They read in a process of their own. Also measured: the time from INSERT to arrival.
"""

from __future__ import annotations

import argparse
import multiprocessing
import selectors
import socket
import statistics
import threading
import time
from multiprocessing.synchronize import Event as Flag
from urllib.parse import urlsplit

import stage
from sqlalchemy import create_engine, text

from brain_clusters.cli.client import ApiClient, own_key
from brain_clusters.cli.system import System
from brain_clusters.client import Client

WRITE = text("INSERT INTO events (kind, actor, reason, data) VALUES ('bench.tick', 'bench', :about, '{}')")


def listen(url: str, key: str | None, count: int, ready: Flag, done: Flag) -> None:
    """Hold ``count`` listeners and read what comes until ``done``."""
    parts, selector = urlsplit(url), selectors.DefaultSelector()
    head = f"GET /api/events/stream HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
    for _ in range(count):
        peer = socket.create_connection((parts.hostname, parts.port), timeout=30)
        peer.sendall(head)
        if not peer.recv(65536).startswith(b"HTTP/1.1 200"):
            raise SystemExit("a listener was refused")
        selector.register(peer, selectors.EVENT_READ)
    ready.set()
    while not done.is_set():
        for chosen, _ in selector.select(0.2):
            if not chosen.fileobj.recv(65536):  # type: ignore[union-attr]
                raise SystemExit("the API hung up on a listener")


def write(url: str, rate: float, done: threading.Event) -> None:
    """Write events, each in a transaction of its own."""
    engine = create_engine(url)
    while rate and not done.wait(1 / rate):
        with engine.begin() as connection:
            connection.execute(WRITE, {"about": "x" * 150})
    engine.dispose()


def latencies(api: ApiClient, requests: int) -> list[float]:
    """Return the milliseconds of each request."""
    found = []
    for _ in range(requests):
        begun = time.perf_counter()
        api.get("/api/clusters?limit=1")
        found.append((time.perf_counter() - begun) * 1000)
    return found


def with_listeners(url: str, key: str | None, count: int, api: ApiClient, requests: int) -> list[float]:
    """Return the same while ``count`` listen."""
    ready, done = multiprocessing.Event(), multiprocessing.Event()
    process = multiprocessing.Process(target=listen, args=(url, key, count, ready, done))
    process.start()
    ready.wait(120)
    try:
        return latencies(api, requests)
    finally:
        done.set()
        process.join()


def arrivals(found: System, key: str | None, count: int) -> list[float]:
    """Return the milliseconds from the INSERT of an event to its arrival at a client."""
    engine, client, taken = create_engine(found.settings.database_url or ""), Client(found.api_url, key=key), []
    told = client.events(kind="bench.one", after=client._rest.get("/api/events?limit=1")["position"])
    for number in range(count):
        begun = time.perf_counter()
        with engine.begin() as connection:
            statement = "INSERT INTO events (kind, actor, reason) VALUES ('bench.one', 'bench', :about)"
            connection.execute(text(statement), {"about": str(number)})
        next(told)
        taken.append((time.perf_counter() - begun) * 1000)
    told.close()
    engine.dispose()
    return taken


def measure(found: System, chosen: argparse.Namespace) -> None:
    """Measure in turns, and print the figures and the ratio."""
    key, done = own_key(found.settings), threading.Event()
    api = ApiClient(found.api_url, key=key)
    latencies(api, 50)
    writer = threading.Thread(target=write, args=(found.settings.database_url, chosen.rate, done))
    writer.start()
    alone: list[list[float]] = []
    heard: list[list[float]] = []
    for _ in range(chosen.runs):
        alone.append(latencies(api, chosen.requests))
        heard.append(with_listeners(found.api_url, key, chosen.listeners, api, chosen.requests))
    done.set()
    writer.join()
    for name, runs in (("nobody listens", alone), (f"{chosen.listeners} listen", heard)):
        stage.figures(f"{name}, median", [statistics.median(run) for run in runs], "ms")
        stage.figures(f"{name}, p95", [statistics.quantiles(run, n=20)[18] for run in runs], "ms")
    for what, place in (("median", 9), ("p95", 18)):
        ratios = [statistics.quantiles(b, n=20)[place] / statistics.quantiles(a, n=20)[place]
                  for a, b in zip(alone, heard, strict=True)]  # fmt: skip
        stage.figures(f"ratio of the {what}", ratios, "x")
    stage.figures("INSERT to arrival", arrivals(found, key, 200), "ms")


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listeners", type=int, default=300)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rate", type=float, default=20.0)
    chosen = parser.parse_args()
    with stage.system() as found:
        measure(found, chosen)


if __name__ == "__main__":
    main()
