"""More hosts beside the one of ``brain-clusters up``: as processes of this machine, or in a network of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from brain_clusters.processes import ProcessId

from .brain import Brain, until
from .forwarding import Forwarder


@dataclass
class OtherHost:
    """A host of its own id on the servers of ``brain``. Its agents' processes are counted with those of ``brain``."""

    brain: Brain
    host_id: str
    process: subprocess.Popen[bytes]

    def lease(self) -> str | None:
        """Return what the API says of its lease; None when it is not there."""
        found = {host["id"]: host["lease"] for host in self.brain.get("/api/hosts")["hosts"]}
        return found.get(self.host_id)

    def rows(self, cluster: str) -> dict[str, int]:
        """Return the agents that run here by the rows, with their pids."""
        rows = [agent for agent in self.brain.agents(cluster) if agent["host_id"] == self.host_id]
        return {agent["agent_id"]: agent["pid"] for agent in rows}

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the host, not to its agents."""
        os.kill(self.process.pid, number)

    def kill_all(self, cluster: str) -> None:
        """Kill it and all its agents with -9, and delete what it knew of them, as the loss of its machine would."""
        agents = self.rows(cluster).values()
        self.process.kill()
        self.process.wait()
        for pid in agents:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        until(lambda: not any(ProcessId.of(pid) for pid in agents), "its agents are gone")
        shutil.rmtree(self.brain.home / "run" / self.host_id)

    def end(self) -> None:
        """End it in an orderly way, if it runs."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                self.send(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(60)


@contextmanager
def another_host(brain: Brain, host_id: str, **variables: str) -> Iterator[OtherHost]:
    """Run another host on this machine until the end of the block."""
    process = brain.spawn("host", log=f"{host_id}.log", BRAIN_HOST_ID=host_id, **variables)
    host = OtherHost(brain, host_id, process)
    try:
        until(lambda: host.lease() == "held", f"the host {host_id} runs")
        yield host
    finally:
        host.end()


@dataclass
class Network:
    """A network namespace whose only way out is a pair of virtual Ethernet devices, and two servers at its end."""

    name: str
    device: str
    database_url: str
    redis_url: str

    def cut(self) -> None:
        """Take the way out down: nothing comes through any more, and nobody is told."""
        _ip("link", "set", self.device, "down")

    def heal(self) -> None:
        """Bring it up again."""
        _ip("link", "set", self.device, "up")

    def spawn_host(self, brain: Brain, host_id: str) -> OtherHost:
        """Start a host in here."""
        command = [sys.executable, "-P", "-m", "brain_clusters", "host"]
        variables = {"BRAIN_DATABASE_URL": self.database_url, "BRAIN_REDIS_URL": self.redis_url}
        with (brain.folder / f"{host_id}.log").open("ab") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command],
                cwd=brain.folder, env=brain.environment(BRAIN_HOST_ID=host_id, **variables), stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        return OtherHost(brain, host_id, process)


@contextmanager
def network(database_url: str, redis_url: str) -> Iterator[Network]:
    """Make a namespace from which the servers at these URLs, on loopback, are reached at an address of their own."""
    mark = uuid.uuid4().hex[:8]
    name, ours, theirs = f"brain-{mark}", f"bo{mark}", f"bi{mark}"
    net = f"10.213.{int(mark[:2], 16)}"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
        _ip("addr", "add", f"{net}.1/24", "dev", ours)
        _ip("link", "set", ours, "up")
        _ip("-n", name, "addr", "add", f"{net}.2/24", "dev", theirs)
        _ip("-n", name, "link", "set", theirs, "up")
        _ip("-n", name, "link", "set", "lo", "up")
        with Forwarder(f"{net}.1", database_url) as database, Forwarder(f"{net}.1", redis_url) as valkey:
            yield Network(name, ours, database.url, valkey.url)
    finally:
        with suppress(subprocess.CalledProcessError):
            _ip("link", "del", ours)
        _ip("netns", "del", name)


def why_no_networks() -> str | None:
    """Return why namespaces cannot be made here; None when they can."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    name = f"brain-{uuid.uuid4().hex[:8]}"
    try:
        _ip("netns", "add", name)
        _ip("netns", "del", name)
    except FileNotFoundError:
        return "the command ip (package iproute2) is not installed"
    except subprocess.CalledProcessError as exc:
        return f"network namespaces cannot be made here: {exc.stderr.strip()}"
    return None


def _ip(*arguments: str) -> Any:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
