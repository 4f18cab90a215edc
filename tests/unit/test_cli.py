"""The command line's own behaviour: quick help, lazy commands, errors as sentences."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from brain_clusters import __version__
from brain_clusters.cli import main
from brain_clusters.errors import BrainError, Fault, InvalidInput, PermanentError


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BrainError]:
    """A command ``config`` that raises what the test puts in this list."""
    errors: list[BrainError] = []

    @click.command()
    def config() -> None:
        raise errors[0]

    monkeypatch.setattr("brain_clusters.cli.lazy.LazyGroup.get_command", lambda *_: config)
    return errors


def test_help_and_version_import_no_command_and_no_library() -> None:
    script = (
        "import sys; from click.testing import CliRunner; from brain_clusters.cli import main\n"
        "print(CliRunner().invoke(main, ['--help']).output, CliRunner().invoke(main, ['--version']).output)\n"
        "print('heavy:', {'sqlalchemy', 'celery', 'yaml', 'brain_clusters.cli.commands.up'} & set(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "Run the whole system until Ctrl-C." in output
    assert __version__ in output
    assert "heavy: set()" in output


def test_commands_that_ask_the_api_import_nothing_slow() -> None:
    script = (
        "import sys; from click.testing import CliRunner; from brain_clusters.cli import main\n"
        "done = CliRunner().invoke(main, ['get', 'clusters', '--api', 'http://127.0.0.1:9'])\n"
        "print(done.output, 'slow:', {'sqlalchemy', 'celery', 'yaml', 'cerberus', 'rich', 'redis'} & set(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "does not answer" in output
    assert "slow: set()" in output


def test_an_unknown_command_is_a_usage_error() -> None:
    done = CliRunner().invoke(main, ["upp"])
    assert done.exit_code == 2
    assert "No such command" in done.output


def test_an_error_of_ours_is_one_line_and_exit_code_1(failing: list[BrainError]) -> None:
    failing.append(PermanentError("the disk is full; make room"))
    done = CliRunner().invoke(main, ["config"])
    assert (done.exit_code, done.output) == (1, "error: the disk is full; make room\n")


def test_a_faulty_input_lists_every_fault_and_exits_2(failing: list[BrainError]) -> None:
    failing.append(InvalidInput("x.yaml is faulty", [Fault("/a", "is missing"), Fault("", "too large", 3, 4)]))
    done = CliRunner().invoke(main, ["config"])
    assert done.exit_code == 2
    assert done.output.splitlines() == [
        "error: x.yaml is faulty",
        "  /a: is missing",
        "  line 3, column 4: the whole document: too large",
    ]


def test_config_shows_values_sources_and_no_secrets(tmp_path: Path) -> None:
    environ = {
        "BRAIN_HOME": str(tmp_path / "home"),
        "BRAIN_REDIS_URL": "redis://:hunter2@there/0",
        "BRAIN_DATABASE_URL": "",
        "BRAIN_API_PORT": "",
    }
    done = CliRunner().invoke(main, ["config", "-o", "json"], env=environ)
    rows = {row["variable"]: row for row in json.loads(done.output)}
    assert rows["BRAIN_REDIS_URL"]["source"] == "environment"
    assert rows["BRAIN_DATABASE_URL"]["value"] == "(embedded)"
    assert "hunter2" not in done.output
    table = CliRunner().invoke(main, ["config"], env=environ).output
    assert all(variable in table for variable in rows)
    assert not (tmp_path / "home").exists(), "looking changes nothing"


def test_a_bad_variable_is_an_error_that_names_it() -> None:
    done = CliRunner().invoke(main, ["config"], env={"BRAIN_API_PORT": "many"})
    assert done.exit_code == 1
    assert done.output.startswith("error: BRAIN_API_PORT: 'many' is not a whole number")


def test_down_without_a_system_says_so_and_succeeds(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["down"], env={"BRAIN_HOME": str(tmp_path / "home")})
    assert (done.exit_code, done.output) == (0, f"nothing runs for {tmp_path / 'home'}\n")


def test_blueprint_validate_reports_every_file(tmp_path: Path) -> None:
    faulty = tmp_path / "faulty.yaml"
    faulty.write_text("nonsense: 1\n")
    done = CliRunner().invoke(main, ["blueprint", "validate", str(faulty), str(tmp_path / "missing.yaml")])
    assert done.exit_code == 2
    assert f"{faulty}:1:1: " in done.output
    assert "missing.yaml" in done.output


def test_blueprint_schema_is_json() -> None:
    assert json.loads(CliRunner().invoke(main, ["blueprint", "schema"]).output)["type"] == "object"
