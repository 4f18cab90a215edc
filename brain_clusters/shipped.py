"""The files that come with the package but are no modules of it: migrations and example blueprints."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from brain_clusters.errors import PermanentError


def shipped(name: Literal["migrations", "blueprints"]) -> Path:
    """Return the folder ``name`` of the installed package, or of the checkout."""
    package = Path(__file__).parent
    for folder in (package / "_shipped" / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise PermanentError(f"the folder {name} is missing from this installation; install brain-clusters again")
