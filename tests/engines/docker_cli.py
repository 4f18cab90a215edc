"""Docker's own command, by which tests look at an engine past our code."""

from __future__ import annotations

import json
import subprocess
from typing import Any


def docker(*arguments: str) -> list[str]:
    """Return the lines that a docker command writes."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[:-1]


def inspect(container: str) -> Any:
    """Return what the engine tells of a container."""
    return json.loads("\n".join(docker("inspect", container)))[0]
