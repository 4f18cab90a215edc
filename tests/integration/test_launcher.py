"""./brain, run from copies of the tree."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PARTS = (
    "brain", "setup.cfg", "pyproject.toml", "README.md", "LICENSE",
    "brain_clusters", "workers", "migrations", "blueprints",
)  # fmt: skip
TOOLS = ("awk", "cat", "cksum", "dirname", "ls", "mkdir", "mv", "ps", "readlink", "rm", "sh", "sleep")
A_TEST = """
import pytest
def test_plain(): pass
@pytest.mark.engines
def test_with_an_engine(): pass
"""

pytestmark = pytest.mark.timeout(300)


def copy_tree(target: Path) -> None:
    target.mkdir()
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / part)
    (target / "tests" / "unit").mkdir(parents=True)
    (target / "tests" / "unit" / "test_it.py").write_text(A_TEST)


def environment(**changes: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("BRAIN_", "PYTHON", "VIRTUAL_ENV"))}
    return kept | changes


def start(brain: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    options.setdefault("env", environment())
    return subprocess.Popen(
        [str(brain), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/", **options
    )


def call(brain: Path, *arguments: str, **options: Any) -> tuple[int, str, str]:
    process = start(brain, *arguments, **options)
    output, errors = process.communicate()
    return process.returncode, output, errors


@pytest.fixture(scope="module")
def first_calls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, str]]]:
    """A copy in a folder with a space in its name, and what its first two calls, made at once, said."""
    tree = tmp_path_factory.mktemp("launcher") / "a checkout"
    copy_tree(tree)
    calls = [start(tree / "brain", "--version") for _ in range(2)]
    return tree / "brain", [call.communicate() for call in calls]


@pytest.fixture(scope="module")
def brain(first_calls: tuple[Path, list[tuple[str, str]]]) -> Path:
    return first_calls[0]


def test_two_first_calls_at_once_install_once_and_both_answer(
    first_calls: tuple[Path, list[tuple[str, str]]],
) -> None:
    _, said = first_calls
    assert [output.startswith("brain-clusters, version ") for output, _ in said] == [True, True], said
    errors = "".join(errors for _, errors in said)
    assert errors.count("brain: making ") == errors.count("brain: ready") == 1
    assert errors.count("is installing; waiting for it") == 1


def test_a_later_call_installs_nothing_and_says_nothing_of_its_own(brain: Path) -> None:
    code, output, errors = call(brain, "--version")
    assert (code, errors) == (0, "")
    assert output.startswith("brain-clusters, version ")


def test_it_works_through_links_and_keeps_its_home_beside_itself(brain: Path, tmp_path: Path) -> None:
    (tmp_path / "first").symlink_to(brain)
    (tmp_path / "second").symlink_to("first")
    code, output, _ = call(tmp_path / "second", "config")
    assert code == 0
    assert str(brain.parent / ".brain") in output


def test_a_home_that_the_user_set_is_kept(brain: Path, tmp_path: Path) -> None:
    _, output, _ = call(brain, "config", env=environment(BRAIN_HOME=str(tmp_path / "mine")))
    assert str(tmp_path / "mine") in output


def test_exit_codes_and_arguments_are_handed_on(brain: Path) -> None:
    code, _, errors = call(brain, "blueprint", "validate", "/no such file.yaml")
    assert code == 2
    assert "/no such file.yaml" in errors


def test_a_changed_setup_is_installed_again_also_past_a_lock_that_was_left(brain: Path) -> None:
    with (brain.parent / "setup.cfg").open("a") as file:
        file.write("# changed\n")
    lock = brain.parent / ".brain-setup.lock"
    lock.mkdir()
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    (lock / "pid").write_text(f"{ended.pid}\n")
    _, _, errors = call(brain, "--version")
    assert "brain: installing" in errors
    assert "brain: making" not in errors
    assert not lock.exists()
    assert call(brain, "--version")[2] == ""


def test_tests_are_run_without_engines_unless_these_are_asked_for(brain: Path) -> None:
    code, output, _ = call(brain, "test", "-q")
    assert (code, "1 passed, 1 deselected" in output.splitlines()[-1]) == (0, True), output
    _, output, errors = call(brain, "test", "-q", "--engines")
    assert "2 passed" in output.splitlines()[-1]
    assert errors == "", "nothing is installed again"
    assert call(brain, "--version")[2] == "", "the tests' environment serves the command, too"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_moved_checkout_is_set_up_anew_by_an_ordinary_user(brain: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(prefix="brain ") as work:  # not pytest's: that is closed to others
        tree = Path(work) / "a copy"
        shutil.copytree(brain.parent, tree, symlinks=True)
        for path in (Path(work), tree, *tree.rglob("*")):
            os.lchown(path, nobody.pw_uid, nobody.pw_gid)
        options = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        code, output, errors = call(tree / "brain", "--version", env=environment(HOME=work), **options)
    if code and ("Python 3.11 or newer is needed" in errors or "venv module is missing" in errors):
        pytest.skip("this machine has no complete Python 3.11+ that an ordinary user can run")
    assert code == 0, errors
    assert "brain: making" in errors
    assert output.startswith("brain-clusters, version ")


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A copy that was never called, and a folder of tools without any Python to use as PATH."""
    copy_tree(tmp_path / "tree")
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        if found:
            (tmp_path / "bin" / tool).symlink_to(found)
    yield tmp_path / "tree" / "brain", tmp_path / "bin"
    assert not (tmp_path / "tree" / ".venv").exists()
    assert not (tmp_path / "tree" / ".brain-setup.lock").exists()


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_without_a_new_enough_python_one_sentence_says_so(bare: tuple[Path, Path]) -> None:
    brain, tools = bare
    script(tools / "python3", "exit 1")
    code, output, errors = call(brain, "up", env={"PATH": str(tools)})
    assert (code, output) == (1, "")
    assert errors.count("\n") == 1
    assert "Python 3.11 or newer is needed" in errors


def test_without_the_venv_module_one_sentence_says_what_to_install(bare: tuple[Path, Path]) -> None:
    brain, tools = bare
    script(tools / "python3", f'case "$*" in *ensurepip*) exit 1 ;; esac; exec "{sys.executable}" "$@"')
    code, _, errors = call(brain, "up", env={"PATH": str(tools)})
    assert code == 1
    assert errors.count("\n") == 1
    assert "apt install python3." in errors


def test_it_is_plain_posix_sh() -> None:
    for shell in filter(shutil.which, ("sh", "dash")):
        subprocess.run([shell, "-n", str(ROOT / "brain")], check=True)
