"""What is running, exactly: the version and the commit it was made from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import brain_clusters

_GIT_SECONDS = 5
# As many digits of a commit as git itself deems unique in the largest repositories.
_SHORT = 12


def commit(built: str | None) -> str | None:
    """Return the commit: ``built`` as the image was told, or that of the checkout this code lies in, or None."""
    return built or _checked_out(Path(brain_clusters.__file__).parents[1])


def tag(found: str | None) -> str:
    """Return the version with a commit behind it, as PEP 440 writes local versions: 0.1.0+b698cb3f1c2a."""
    return f"{brain_clusters.__version__}+{found[:_SHORT]}" if found else brain_clusters.__version__


def _checked_out(root: Path) -> str | None:
    """Return the commit that is checked out in ``root``; None where that is no checkout itself, or git is missing."""
    if not (root / ".git").exists():
        return None
    asked = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, timeout=_GIT_SECONDS, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
