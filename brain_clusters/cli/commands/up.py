"""``up`` and ``down``: the whole system on one machine."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType

import click

from brain_clusters.cli.system import POLL_SECONDS, System
from brain_clusters.cli.upfile import UpFile, clear_left_over, only_one
from brain_clusters.config import Settings
from brain_clusters.embedded import make_home
from brain_clusters.errors import PermanentError
from brain_clusters.processes import ProcessId, open_log

_DETACHED_READY_SECONDS = 120.0
_LOCKED_SECONDS = 5.0
_DOWN_STEP_SECONDS = 60.0


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), help="The API's port instead of BRAIN_API_PORT; 0: a free one.")
@click.option("--detach", is_flag=True, help="Run in the background; stop it with 'down'.")
@click.option("--no-host", is_flag=True, help="Run no agents on this machine.")
def up(port: int | None, detach: bool, no_host: bool) -> None:
    """Run the whole system: servers if none are set, API, worker, beat and this machine's agents."""
    settings = Settings.from_env()
    if port is not None:
        settings = replace(settings, api_port=port)
    make_home(settings.home)
    if detach:
        _detach(settings, no_host)
        return
    with only_one(settings.home) as first:
        if first:
            clear_left_over(settings.home, click.echo)
            _run(System(settings, say=click.echo, host=not no_host))
        else:
            _show_running(settings.home)


@click.command()
def down() -> None:
    """Stop the system that runs for this BRAIN_HOME, with its agents and servers."""
    home = Settings.from_env().home
    found = UpFile.of_running(home)
    if found:
        click.echo(f"stopping brain (pid {found.up.pid})")
        _stop(found.up, _Following(_log(home)))
    left = _clear(home)
    click.echo("stopped" if found or left else f"nothing runs for {home}")


def _clear(home: Path) -> bool:
    """Stop what a killed ``up`` left, unless a new one has begun; return whether there was any."""
    if not home.is_dir():
        return False
    with only_one(home) as first:
        return first and clear_left_over(home, click.echo)


class _Interrupts:
    """Counts Ctrl-C, SIGTERM and SIGHUP: the first asks to stop, a second to hurry."""

    def __init__(self) -> None:
        self.count = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._received)

    # A flag and no exception: an exception could arrive between the start of a child and the note of its pid.
    def _received(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1

    def stopping(self) -> bool:
        return self.count > 0

    def hurried(self) -> bool:
        return self.count > 1


def _run(system: System) -> None:
    """Start the system, keep it until a signal comes, and stop it."""
    interrupts = _Interrupts()
    home = system.settings.home
    state = UpFile(up=ProcessId.current(), api_url=system.api_url)
    state.write(home)
    try:
        system.start()
        state = _noted(state, system)
        if system.wait_ready(cancelled=interrupts.stopping):
            _show(system)
            state = replace(state, ready=True)
            state.write(home)
        while not interrupts.stopping():
            system.poll()
            state = _noted(state, system)
            time.sleep(POLL_SECONDS)
        click.echo("stopping; Ctrl-C again hurries")
    finally:
        system.stop(interrupts.hurried)
    click.echo("stopped")


def _noted(state: UpFile, system: System) -> UpFile:
    """Write down the children when others run than before."""
    children = system.processes
    if children == state.children:
        return state
    state = replace(state, children=children)
    state.write(system.settings.home)
    return state


def _show(system: System) -> None:
    for name, pid in system.pids.items():
        click.echo(f"  {name:<9} pid {pid}")
    click.echo(f"  logs      {system.settings.home / 'logs'}")
    click.echo(f"brain runs: {system.api_url}  (stop it with Ctrl-C or 'brain-clusters down')")


def _show_running(home: Path) -> None:
    """Say which ``up`` holds the lock; it writes its file right after taking it."""
    deadline = time.monotonic() + _LOCKED_SECONDS
    while not (found := UpFile.of_running(home)):
        if time.monotonic() > deadline:
            raise PermanentError(f"another 'up' holds {home / 'up.lock'} and does not say who it is")
        time.sleep(POLL_SECONDS)
    click.echo(f"brain runs already (pid {found.up.pid}): {found.api_url}")


def _log(home: Path) -> Path:
    return home / "logs" / "up.log"


class _Following:
    """What is written to a log from now on."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._place = log.stat().st_size if log.exists() else 0

    def show(self) -> bool:
        """Print what is new; return whether there was any."""
        if not self._log.exists():
            return False
        with self._log.open("rb") as file:
            file.seek(self._place)
            new = file.read()
        self._place += len(new)
        click.echo(new.decode(errors="replace"), nl=False)
        return bool(new)


def _detach(settings: Settings, no_host: bool) -> None:
    """Start ``up`` in a session of its own, and wait until it is ready."""
    if UpFile.of_running(settings.home):
        _show_running(settings.home)
        return
    log = _log(settings.home)
    argv = [sys.executable, "-P", "-m", "brain_clusters", "up", f"--port={settings.api_port}"]
    with open_log(log) as output:
        following = _Following(log)
        process = subprocess.Popen(
            argv + ["--no-host"] * no_host,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    found = _wait_detached(settings.home, process, log, following)
    click.echo(f"brain runs in the background (pid {found.up.pid}): {found.api_url}")


def _wait_detached(home: Path, process: subprocess.Popen[bytes], log: Path, following: _Following) -> UpFile:
    deadline = time.monotonic() + _DETACHED_READY_SECONDS
    while True:
        found = UpFile.of_running(home)
        following.show()
        if found and found.ready:
            process.returncode = 0  # it stays; without this, Popen warns about a child that was not waited for
            return found
        if process.poll() is not None:
            following.show()  # its last words, and not those of the one before, which the log has, too
            raise PermanentError(f"brain did not start; what it said is above, and the end of {log}")
        if time.monotonic() > deadline:
            process.terminate()
            raise PermanentError(f"brain is not ready after {_DETACHED_READY_SECONDS:g} s; see {log}")
        time.sleep(POLL_SECONDS)


def _stop(process: ProcessId, following: _Following) -> None:
    """Ask it to stop; then to hurry; then kill it: its children end with it or are stopped afterwards."""
    begin = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + _DOWN_STEP_SECONDS
        process.send(number)
        while time.monotonic() < end:
            if process.wait(2.0):
                return
            if not following.show():
                click.echo(f"still stopping ({time.monotonic() - begin:.0f} s)")
