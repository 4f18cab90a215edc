"""``up --detach`` and ``down``, as somebody types them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from brain_clusters.cli.upfile import UpFile


def typed(home: Path, *arguments: str) -> list[str]:
    """Return what a command of ours prints."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BRAIN_")}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "brain_clusters", *arguments],
        env=environment | {"BRAIN_HOME": str(home)}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_both_tell_what_they_do(tmp_path: Path) -> None:
    home = tmp_path / "home"
    try:
        began = typed(home, "up", "--detach", "--no-host", "--port", "0")
        found = UpFile.of_running(home)
        assert found is not None
        assert began.count("preparing the database") == 1
        assert began[-1] == f"brain runs in the background (pid {found.up.pid}): {found.api_url}"
        assert typed(home, "up", "--detach") == [f"brain runs already (pid {found.up.pid}): {found.api_url}"]
    finally:
        ended = typed(home, "down")
    assert ended[0] == f"stopping brain (pid {found.up.pid})"
    assert ended[-1] == "stopped"
    assert UpFile.of_running(home) is None
    assert not any(running(child.pid) for child in found.children.values())


def running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
