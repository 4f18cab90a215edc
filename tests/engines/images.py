"""The image that the tests' agents run in: this checkout's own, built once on the engine of DOCKER_HOST."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_WHAT_GOES_IN = (
    "Dockerfile",
    "docker",
    "setup.cfg",
    "pyproject.toml",
    "brain_clusters",
    "workers",
    "migrations",
    "blueprints",
)
# Where this machine's pip is told that packages are elsewhere, the build is told so, too.
_PIP = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT")


def agent_image(extra: str = "") -> str:
    """Return the tag of an image of this very code: BRAIN_TEST_IMAGE or, without it, one that is built here.

    extra: what it has besides what agents need, an extra of setup.cfg.
    """
    given = os.environ.get("BRAIN_TEST_IMAGE")
    if given:
        return given
    tag = f"brain-clusters-test:{_digest()}{extra and f'-{extra}'}"
    if subprocess.run(["docker", "image", "inspect", tag], capture_output=True, check=False).returncode == 0:
        return tag
    given_to_pip = [name for name in _PIP if name in os.environ]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    arguments = [f"PYTHON_VERSION={python}", f"EXTRA={extra}", *given_to_pip]
    build = ["docker", "build", "--quiet", *(f"--build-arg={each}" for each in arguments), "--tag", tag, str(ROOT)]
    subprocess.run(build, check=True)
    return tag


def _digest() -> str:
    found = hashlib.sha256()
    for name in _WHAT_GOES_IN:
        place = ROOT / name
        for path in sorted([place] if place.is_file() else place.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                found.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return found.hexdigest()[:12]
