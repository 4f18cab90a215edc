"""An agent that lives and beats and hears nothing of its queue ends, and one that has a reason for it does not."""

from __future__ import annotations

import select
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from brain_clusters.agent.hearing import EXIT_DEAF
from tests.integration.agents import AgentStage, Until

WORK = "deaf_work:work"
# SIGWINCH: as if the main loop were stuck in something that no job is counted for; threads go on.
HANDLER = """
import signal, time
import redis

client = redis.Redis.from_url({url!r})
signal.signal(signal.SIGWINCH, lambda *_: time.sleep(600))

def work(payload, context):
    client.rpush("begun", payload["say"])
    if "gate" in payload:
        client.blpop(payload["gate"], 30)
    client.rpush("done", payload["say"])
"""
DEAF_AFTER = 1.0


class Proxy:
    """Stands before Redis. ``mute`` makes it swallow, from then on, what the server sends on connections that block."""

    def __init__(self, url: str) -> None:
        self._server = urlsplit(url)
        self._listening = socket.create_server(("127.0.0.1", 0))
        port = self._listening.getsockname()[1]
        self.url = f"redis://{self._server.netloc.rpartition('@')[0]}@127.0.0.1:{port}{self._server.path}"
        self._muted = False
        self._blocking: set[socket.socket] = set()
        self._peers: dict[socket.socket, socket.socket] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def mute(self) -> None:
        self._muted = True

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        for one in (self._listening, *self._peers):
            one.close()

    def _run(self) -> None:
        while not self._closed.is_set():
            for one in select.select([self._listening, *self._peers], [], [], 0.1)[0]:
                self._take(one)

    def _take(self, one: socket.socket) -> None:
        if one is self._listening:
            client, _ = self._listening.accept()
            server = socket.create_connection((self._server.hostname, self._server.port))
            self._peers |= {client: server, server: client}
            return
        other = self._peers.get(one)
        if other is None:
            return
        data = b""
        with suppress(OSError):
            data = one.recv(65536)
        if not data:
            for gone in (one, other):
                self._peers.pop(gone, None)
                gone.close()
        elif b"BLMOVE" in data:
            self._blocking |= {one, other}
        if data and not (self._muted and one in self._blocking):
            with suppress(OSError):
                other.sendall(data)


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    found = Proxy(redis_url)
    yield found
    found.close()


@pytest.fixture
def stage(redis_url: str, tmp_path: Path, until: Until) -> Iterator[AgentStage]:
    modules = {"deaf_work": HANDLER.format(url=redis_url)}
    found = AgentStage(redis_url, tmp_path, until, modules, deaf_after=DEAF_AFTER)
    yield found
    found.close()


def test_an_agent_whose_connection_is_half_dead_ends_and_says_why(
    redis_url: str, proxy: Proxy, tmp_path: Path, until: Until
) -> None:
    """Its beats come through: only what blocks hears nothing."""
    modules = {"deaf_work": HANDLER.format(url=redis_url)}
    stage = AgentStage(proxy.url, tmp_path, until, modules, deaf_after=DEAF_AFTER)
    try:
        agent = stage.agent(handler=WORK)
        stage.send(agent, "heard")
        until(lambda: stage.list("done") == ["heard"])
        proxy.mute()
        beat = agent.beat
        stage.send(agent, "unheard")
        assert agent.until_ended() == EXIT_DEAF
        assert beat["at"] < agent.beat["at"]
        assert "deaf: it heard nothing of its queue for" in agent.log
        assert stage.waiting(agent) == 1
    finally:
        stage.close()


@pytest.mark.parametrize("slots", [1, 2], ids=["solo", "threads"])
def test_an_agent_whose_main_loop_is_stuck_ends(stage: AgentStage, slots: int) -> None:
    agent = stage.agent(slots, handler=WORK)
    agent.signal(signal.SIGWINCH)
    stage.send(agent, "unheard")
    assert agent.until_ended() == EXIT_DEAF
    assert stage.waiting(agent) == 1


def test_an_agent_that_is_busy_drains_or_has_nothing_to_do_is_not_deaf(stage: AgentStage, until: Until) -> None:
    idle, busy, draining = (stage.agent(handler=WORK) for _ in range(3))
    stage.send(busy, "long", gate="gate")
    stage.send(draining, "other", gate="gate")
    until(lambda: len(stage.list("begun")) == 2)
    draining.tell(True)
    for agent in (busy, draining):
        stage.send(agent, "waits")
    began = idle.beat["at"]
    until(lambda: idle.beat["at"] > began + 2 * DEAF_AFTER, "twice the time has passed")
    stage.look()
    assert (idle.code, busy.code, draining.code) == (None, None, None)
    for _ in range(2):
        stage.redis.rpush("gate", "open")
    until(lambda: stage.list("done").count("waits") == 1)
