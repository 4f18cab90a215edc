"""The commit that runs: as the image was told, or as the checkout says, and never that of somebody else's checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from brain_clusters import __version__
from brain_clusters.api import release


def checkout(folder: Path) -> str:
    """Make a repository with one commit in ``folder``, and return that."""
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "first"], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def test_what_the_image_was_told_counts() -> None:
    assert release.commit("c0ffee") == "c0ffee"
    assert release.tag("0123456789abcdef0123456789abcdef01234567") == f"{__version__}+0123456789ab"
    assert release.tag(None) == __version__


def code_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let our package seem to lie in ``folder``."""
    monkeypatch.setattr("brain_clusters.__file__", str(folder / "brain_clusters" / "__init__.py"))


def test_a_checkout_says_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code_in(tmp_path, monkeypatch)
    assert release.commit(None) is None
    made = checkout(tmp_path)
    assert release.commit(None) == made


def test_an_installation_inside_another_project_does_not_take_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout(tmp_path)
    site = tmp_path / "venv" / "site-packages"
    site.mkdir(parents=True)
    code_in(site, monkeypatch)
    assert release.commit(None) is None


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout(tmp_path)
    code_in(tmp_path, monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert release.commit(None) is None
