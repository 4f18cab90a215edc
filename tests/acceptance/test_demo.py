"""``brain-clusters demo``: what a newcomer runs first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = """
def area(width, height):
    # A comment, so that there is something to count.
    return width * height
"""


@pytest.mark.timeout(300)
def test_the_demo_does_the_whole_main_job_and_leaves_nothing(tmp_path: Path) -> None:
    sources, home, temporary = (tmp_path / name for name in ("sources", "home", "temporary"))
    for folder in (sources, temporary):
        folder.mkdir()
    for number in range(70):
        (sources / f"part_{number}.py").write_text(f"NUMBER = {number}\n" + TEXT * 40)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("BRAIN_")}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "brain_clusters", "demo", str(sources), "--jobs", "60"],
        cwd=tmp_path, env={**environ, "BRAIN_HOME": str(home), "TMPDIR": str(temporary)},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("60 files digested, 0 of them refused", "with no agent left", "woken in", "python"):
        assert said in done.stdout.lower(), done.stdout
    assert not home.exists() or not list(home.iterdir())
    assert not list(temporary.iterdir())
    assert not [pid for pid in Path("/proc").iterdir() if pid.name.isdigit() and _belongs(pid, str(home))]


def _belongs(process: Path, home: str) -> bool:
    try:
        return home in (process / "cmdline").read_text() + (process / "environ").read_text(errors="replace")
    except OSError:
        return False
