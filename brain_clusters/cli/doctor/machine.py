"""This machine: Python, the home and what lies in it, the processes of ``up``, ports, drivers."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from brain_clusters import drivers
from brain_clusters.cli.contexts import Contexts
from brain_clusters.cli.doctor import Finding, failed, ok, skipped, warning
from brain_clusters.cli.upfile import UpFile
from brain_clusters.cli.words import size
from brain_clusters.config import Settings
from brain_clusters.errors import PermanentError
from brain_clusters.ports import is_free

_LEAST_PYTHON = (3, 11)
_LITTLE_DISK, _LEAST_DISK = 2 << 30, 200 << 20


def look(settings: Settings) -> Iterator[Finding]:
    """Yield what is found on this machine."""
    yield _python()
    yield _disk(settings.home)
    yield _private("admin key", settings.admin_key_path)
    yield _contexts()
    running = UpFile.of_running(settings.home)
    yield from _processes(settings, running)
    yield _port(settings, running)
    yield from _drivers(settings)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _LEAST_PYTHON:
        return failed("Python", f"this is Python {version}", "install Python 3.11 or newer, and install into that")
    return ok("Python", f"{version} at {sys.executable}")


def _disk(home: Path) -> Finding:
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    says = f"{size(free)} free at {place}"
    do = "make room, or set BRAIN_HOME to a larger disk: data and logs lie there"
    if free < _LEAST_DISK:
        return failed("disk", says, do)
    if home.exists() and not os.access(home, os.W_OK):
        return failed("disk", f"{home} cannot be written by this user", f"chown it, or set BRAIN_HOME; it is {home}")
    return warning("disk", says, do) if free < _LITTLE_DISK else ok("disk", says)


def _private(name: str, path: Path) -> Finding:
    try:
        mode = path.stat().st_mode & 0o777
    except FileNotFoundError:
        return skipped(name, f"there is no {path}; keys of BRAIN_API_KEYS, or of another machine, need none")
    except OSError as exc:
        return warning(name, f"{path} cannot be looked at: {exc}", "call this as the user whose file it is")
    if mode & 0o077:
        return failed(name, f"{path} has the mode {mode:03o}: others may read it", f"chmod 600 {path}")
    return ok(name, f"{path} is its owner's only")


def _contexts() -> Finding:
    try:
        path = Contexts.load().path
    except PermanentError as exc:
        return failed("contexts", str(exc), "mend that file")
    return _private("contexts", path) if path.exists() else ok("contexts", "none are named")


def _processes(settings: Settings, running: UpFile | None) -> Iterator[Finding]:
    if running is None:
        yield skipped("up", f"no 'up' runs for {settings.home}; 'brain-clusters up' starts one")
        return
    log = settings.home / "logs"
    dead = [name for name, child in running.children.items() if not child.alive]
    if dead:
        yield failed("up", f"{', '.join(dead)} of it does not run", f"read {log}/{dead[0].replace(' ', '.')}.log")
    elif not running.ready:
        yield warning("up", f"it is starting (pid {running.up.pid})", f"wait a moment, or read {log}/up.log")
    else:
        yield ok("up", f"pid {running.up.pid}, with {', '.join(running.children)}")


def _port(settings: Settings, running: UpFile | None) -> Finding:
    where = f"{settings.api_host}:{settings.api_port}"
    if running is not None:
        return ok("port", f"the API listens at {running.api_url}")
    if settings.api_port and not is_free(settings.api_port, settings.api_host):
        return warning("port", f"{where} is taken by another program", "choose another: BRAIN_API_PORT, or up --port")
    return ok("port", f"{where} is free")


def _drivers(settings: Settings) -> Iterator[Finding]:
    for name in settings.drivers:
        try:
            drivers.check_usable(name)
        except PermanentError as exc:
            yield failed(f"driver {name}", str(exc), "install it, or take it out of BRAIN_DRIVERS")
        else:
            yield ok(f"driver {name}", "can be used")
