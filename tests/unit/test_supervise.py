"""The supervisor, with real child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brain_clusters.errors import PermanentError
from brain_clusters.processes import ProcessId
from brain_clusters.supervise import Child, Supervisor

SLEEP = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP
WITH_A_CHILD_OF_ITS_OWN = "import subprocess, sys; subprocess.Popen(['sleep', '600']); " + SLEEP


class Told(list[str]):
    """What the supervisor said."""

    def __call__(self, text: str) -> None:
        self.append(text)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def supervisor(told: Told) -> Iterator[Supervisor]:
    supervisor = Supervisor(told)
    yield supervisor
    supervisor.stop(hurried=lambda: True)


def child(tmp_path: Path, code: str, name: str = "one", *, stop_seconds: float = 10.0, heirs: bool = False) -> Child:
    argv = (sys.executable, "-I", "-S", "-c", code)
    log = tmp_path / f"{name}.log"
    return Child(name=name, argv=argv, env=dict(os.environ), log=log, stop_seconds=stop_seconds, heirs=heirs)


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def log_has(tmp_path: Path, name: str = "one") -> bool:
    return "up" in (tmp_path / f"{name}.log").read_text()


def members(group: int) -> list[int]:
    """The live processes of a process group."""
    found = subprocess.run(["ps", "-eo", "pgid=,pid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in found.splitlines()]
    return [int(pid) for pgid, pid, state in rows if int(pgid) == group and not state.startswith("Z")]


def test_a_child_that_is_killed_is_started_again(supervisor: Supervisor, told: Told, tmp_path: Path) -> None:
    supervisor.start(child(tmp_path, SLEEP))
    first = supervisor.processes()["one"]
    os.kill(first.pid, signal.SIGKILL)

    def replaced() -> bool:
        supervisor.poll()
        return supervisor.processes().get("one", first) != first

    until(replaced)
    assert told == ["one ended (killed by SIGKILL); starting it again in 0.2 s"]


def test_the_pause_grows_with_every_death(supervisor: Supervisor, told: Told, tmp_path: Path) -> None:
    supervisor.start(child(tmp_path, "raise SystemExit(7)"))
    until(lambda: (supervisor.poll(), len(told) >= 3)[1])
    assert [text.rpartition(" in ")[2] for text in told[:3]] == ["0.2 s", "0.4 s", "0.8 s"]


def test_a_child_that_fails_at_every_start_is_an_error_with_the_end_of_its_log(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain_clusters.supervise._LONGEST_PAUSE_SECONDS", 0.05)
    supervisor.start(child(tmp_path, "raise SystemExit('the reason')"))
    with pytest.raises(PermanentError, match=r"(?s)one ends at every start \(exit code 1\).*the reason"):
        until(lambda: supervisor.poll())


def test_children_are_stopped_last_started_first(supervisor: Supervisor, told: Told, tmp_path: Path) -> None:
    for name in ("first", "second"):
        supervisor.start(child(tmp_path, SLEEP, name))
    pids = list(supervisor.processes().values())
    supervisor.stop()
    assert told == ["stopping second", "stopping first"]
    assert not any(process.alive for process in pids)


def test_a_child_that_ignores_sigterm_is_killed_after_its_time(
    supervisor: Supervisor, told: Told, tmp_path: Path
) -> None:
    supervisor.start(child(tmp_path, STUBBORN, stop_seconds=0.3))
    until(lambda: log_has(tmp_path))
    process = supervisor.processes()["one"]
    supervisor.stop()
    assert not process.alive
    assert told == ["stopping one", "one does not stop; killing it"]


def test_hurrying_cuts_the_time_that_a_child_has(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain_clusters.supervise._HURRIED_SECONDS", 0.2)
    supervisor.start(child(tmp_path, STUBBORN, stop_seconds=600))
    until(lambda: log_has(tmp_path))
    process = supervisor.processes()["one"]
    supervisor.stop(hurried=lambda: True)
    assert not process.alive


def test_stopping_also_ends_what_a_child_started(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(child(tmp_path, WITH_A_CHILD_OF_ITS_OWN))
    until(lambda: log_has(tmp_path))
    group = supervisor.processes()["one"].pid
    assert len(members(group)) == 2
    supervisor.stop()
    until(lambda: not members(group))


@pytest.mark.parametrize("heirs", [True, False])
def test_what_a_killed_child_started_survives_only_for_its_heir(
    supervisor: Supervisor, tmp_path: Path, heirs: bool
) -> None:
    supervisor.start(child(tmp_path, WITH_A_CHILD_OF_ITS_OWN, heirs=heirs))
    until(lambda: log_has(tmp_path))
    first = supervisor.processes()["one"]
    (orphan,) = set(members(first.pid)) - {first.pid}
    os.kill(first.pid, signal.SIGKILL)
    try:
        until(lambda: (supervisor.poll(), supervisor.processes().get("one", first) != first)[1])
        until(lambda: (ProcessId.of(orphan) is not None) == heirs)
    finally:
        if ProcessId.of(orphan):
            os.kill(orphan, signal.SIGKILL)


def test_the_hook_runs_at_every_poll(told: Told) -> None:
    calls: list[int] = []
    Supervisor(told, on_poll=lambda: calls.append(1)).poll()
    assert calls == [1]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from brain_clusters.supervise import Child, Supervisor
        supervisor = Supervisor(print)
        argv = (sys.executable, "-I", "-S", "-c", {SLEEP!r})
        supervisor.start(Child(name="one", argv=argv, env={{}}, log=Path({str(tmp_path)!r}) / "one.log"))
        print(supervisor.processes()["one"].pid, flush=True)
        time.sleep(600)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        process = ProcessId.of(int(owner.stdout.readline()))
        until(lambda: (tmp_path / "one.log").exists() and log_has(tmp_path))
        owner.kill()
    assert process is not None
    assert process.wait(10)


def test_a_pid_that_was_used_again_is_another_process() -> None:
    me = ProcessId.current()
    assert me.alive
    assert not ProcessId(me.pid, "another start").alive
