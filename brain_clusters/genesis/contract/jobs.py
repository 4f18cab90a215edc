"""What agents do in the contract's tests. It is told by Redis, which agents on every engine reach."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from brain_clusters.broker.client import connect
from brain_clusters.config import user_environment

HANDLER = f"{__name__}:work"
EXIT_CODE = 3
_REDIS = "CONTRACT_REDIS"
# A child tells that it lives by a key that outlives it by so much at most.
_ALIVE_MILLISECONDS = 1000
_ALIVE_AGAIN_SECONDS = 0.1
# Longer than any test waits, so that none mistakes a lost connection for an open gate.
_GATE_SECONDS = 300


def work(payload: Mapping[str, Any], context: object) -> None:
    """Do what ``payload`` says. Its beginning and its end are told in two lists.

    payload: redis (the address), keys (what all keys begin with), job (its name), do (one of the names in ``_DOES``),
    text (what that needs).
    """
    with closing(connect(payload["redis"], timeout_seconds=_GATE_SECONDS + 5)) as client:
        client.rpush(f"{payload['keys']}:begun", payload["job"])
        _DOES[payload["do"]](client, payload)
        client.rpush(f"{payload['keys']}:done", payload["job"])


def _nothing(client: Any, payload: Mapping[str, Any]) -> None:
    pass


def _wait(client: Any, payload: Mapping[str, Any]) -> None:
    client.blpop(f"{payload['keys']}:gate:{payload['job']}", _GATE_SECONDS)


def _start_child(client: Any, payload: Mapping[str, Any]) -> None:
    environment = {**user_environment(), _REDIS: payload["redis"]}
    with subprocess.Popen([sys.executable, "-m", __name__, f"{payload['keys']}:child"], env=environment):
        _wait(client, payload)


def _die(client: Any, payload: Mapping[str, Any]) -> None:
    os._exit(EXIT_CODE)


def _write(client: Any, payload: Mapping[str, Any]) -> None:
    os.write(2, f"{payload['text']}\n".encode())


def _tell_variable(client: Any, payload: Mapping[str, Any]) -> None:
    # As a child of the job finds it: that is all that a job's code can do with a variable. Images may have no printenv.
    tell = "import os, sys; sys.stdout.write(os.environ.get(sys.argv[1], ''))"
    found = subprocess.run([sys.executable, "-c", tell, payload["text"]], capture_output=True, text=True, check=False)
    client.hset(f"{payload['keys']}:variables", payload["text"], found.stdout)


_DOES = {
    "nothing": _nothing,
    "wait": _wait,
    "start a child and wait": _start_child,
    "die": _die,
    "write": _write,
    "tell a variable": _tell_variable,
}


def _be_child(key: str) -> None:
    with closing(connect(user_environment()[_REDIS])) as client:
        while True:
            client.set(key, "alive", px=_ALIVE_MILLISECONDS)
            time.sleep(_ALIVE_AGAIN_SECONDS)


if __name__ == "__main__":
    _be_child(sys.argv[1])
