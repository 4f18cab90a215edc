"""Systems for the tests to use up: one per module, shared, and one per test for those that end it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from .brain import Brain


@pytest.fixture(scope="module")
def brain_with(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Brain]]:
    """A function that starts a system with settings of one's own. Nothing of it is left after the module."""
    with ExitStack() as stack:

        def make(**variables: str) -> Brain:
            return stack.enter_context(_running(tmp_path_factory.mktemp("brain"), variables))

        yield make


@pytest.fixture(scope="module")
def brain(brain_with: Callable[..., Brain]) -> Brain:
    """A running system for one module."""
    return brain_with(BRAIN_START_TIMEOUT_SECONDS="15")


@pytest.fixture
def own_brain(tmp_path: Path) -> Iterator[Brain]:
    """A running system for one test."""
    with _running(tmp_path / "brain", {}) as brain:
        yield brain


@contextmanager
def _running(folder: Path, variables: dict[str, str]) -> Iterator[Brain]:
    """Run a system with the blueprint ``workshop`` stored."""
    if sys.platform != "linux":
        pytest.skip("these tests count processes in /proc")
    brain = Brain(folder, variables)
    try:
        brain.start()
        brain.store_workshop()
        yield brain
    finally:
        brain.remove()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the ends of the system's logs with a test that failed."""
    report: pytest.TestReport = yield
    for name in ("brain", "own_brain", "studio"):
        found = getattr(item, "funcargs", {}).get(name)
        found = getattr(found, "brain", found)
        if report.failed and found is not None and found.folder.exists():
            report.sections.append(("what the system told", found.told()))
    return report


_MEASURED = pytest.StashKey[list[str]]()


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str, float], None]:
    """A function that notes a figure for the end of the run: what it is, and seconds."""
    notes = request.config.stash.setdefault(_MEASURED, [])
    return lambda what, seconds: notes.append(f"{what}: {seconds:.2f} s")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what was measured."""
    if notes := config.stash.get(_MEASURED, []):
        terminalreporter.section("measured")
        for note in notes:
            terminalreporter.line(note)
