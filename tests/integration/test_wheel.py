"""The wheel: everything is in it, and it works in an empty environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from brain_clusters.db.schema import Schema

ROOT = Path(__file__).parents[2]
FOLDERS = ("brain_clusters", "workers", "migrations", "blueprints")
FILES = ("setup.cfg", "pyproject.toml", "LICENSE", "README.md")


def run(*argv: str | Path, cwd: Path) -> str:
    # Without PYTHONPATH and the like, which would lead the installed program back to the checkout.
    foreign = ("BRAIN_", "PYTHON", "VIRTUAL_ENV")
    env = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    done = subprocess.run([str(word) for word in argv], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def uv() -> str:
    found = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    assert found, "uv is missing; ./brain installs it"
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, since building leaves files in the tree."""
    work = tmp_path_factory.mktemp("wheel")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, work / "tree" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        shutil.copy(ROOT / file, work / "tree" / file)
    run(uv(), "build", "--quiet", "--wheel", "--out-dir", work / "out", work / "tree", cwd=work)
    (built,) = (work / "out").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that holds the wheel and what it requires."""
    work = tmp_path_factory.mktemp("environment")
    run(uv(), "venv", "--quiet", "--python", sys.executable, work / "venv", cwd=work)
    run(uv(), "pip", "install", "--quiet", "--python", work / "venv" / "bin" / "python", wheel, cwd=work)
    return work / "venv" / "bin"


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        _place_in_wheel(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert not expected - inside


def _place_in_wheel(path: Path) -> str:
    return f"brain_clusters/_shipped/{path}" if path.parts[0] in ("migrations", "blueprints") else str(path)


def test_the_command_answers(programs: Path, tmp_path: Path) -> None:
    assert run(programs / "brain-clusters", "--version", cwd=tmp_path).startswith("brain-clusters, version ")
    assert "BRAIN_DATABASE_URL" in run(programs / "brain-clusters", "config", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_shipped_blueprints_are_valid(programs: Path, tmp_path: Path) -> None:
    ask = "from brain_clusters.shipped import shipped; print(shipped('blueprints'))"
    folder = Path(run(programs / "python", "-c", ask, cwd=tmp_path).strip())
    assert folder.is_relative_to(programs.parent)
    files = sorted(folder.glob("*.yaml"))
    assert files
    said = run(programs / "brain-clusters", "blueprint", "validate", *files, cwd=tmp_path)
    assert said.count(" is valid") == len(files)


def test_the_shipped_migrations_are_found(programs: Path, tmp_path: Path) -> None:
    ask = "from brain_clusters.shipped import shipped; from brain_clusters.db.schema import Schema; "
    assert (
        run(programs / "python", "-c", ask + "print(Schema(shipped('migrations')).head)", cwd=tmp_path).strip()
        == Schema(ROOT / "migrations").head
    )
