"""The pages of the reference are what the code says."""

from __future__ import annotations

import re

from brain_clusters.api.problems import PROBLEMS
from brain_clusters.cli import faults
from brain_clusters.services.rollouts import RolloutStatus
from tests.documents import blueprint_page
from tests.documents.blocks import ROOT

ERRORS = (ROOT / "docs" / "reference" / "errors.md").read_text()


def section(title: str) -> list[list[str]]:
    """Return the rows of the tables below a heading, by cells."""
    text = ERRORS.split(f"## {title}\n")[1].split("\n## ")[0]
    tables = re.findall(r"^\|---.*\n((?:\|.*\n?)+)", text, re.MULTILINE)
    return [re.split(r"(?<!\\)\|", line)[1:-1] for table in tables for line in table.splitlines()]


def first(title: str) -> set[str]:
    """Return what the first cells below a heading name."""
    return {name for row in section(title) for name in re.findall(r"`([^`]+)`", row[0]) or [row[0].strip()]}


def sources(*folders: str) -> str:
    """Return all code of some folders of the package."""
    found = [path for folder in folders for path in (ROOT / "brain_clusters" / folder).rglob("*.py")]
    return "\n".join(path.read_text() for path in sorted(found))


def test_the_keys_of_blueprints_are_those_of_the_schema() -> None:
    written = blueprint_page.PAGE.read_text()
    assert written == blueprint_page.page(), "write it anew: python -m tests.documents.blueprint_page"


def test_every_problem_has_its_type_and_status() -> None:
    told = {(row[0].strip(" `"), int(row[1])) for row in section("Problems of the API") if "urn:" in row[0]}
    known = {(f"urn:brain:problem:{kind}", status) for status, kind, _ in PROBLEMS.values()}
    literal = set(re.findall(r'problem\((\d+), "(urn:brain:problem:[a-z-]+)"', sources("api")))
    assert told == known | {(kind, int(status)) for status, kind in literal}


def test_every_status_that_http_has_a_word_for_is_told() -> None:
    words = {
        "BadRequest": 400, "Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413,
        "UnsupportedMediaType": 415, "TooManyRequests": 429,
    }  # fmt: skip
    imported = re.findall(r"from werkzeug\.exceptions import ([\w, ]+)", sources("api"))
    used = {name for line in imported for name in line.split(", ")} - {"HTTPException"}
    told = {int(row[0]) for row in section("Problems of the API") if row[0].strip().isdigit()}
    assert used <= set(words)
    assert {words[name] for name in used} | {404, 405} == told  # what the map of URLs raises by itself


def test_every_exit_code_of_the_command_line_is_told() -> None:
    known = {0, faults.FAILED, faults.USAGE, faults.DIFFERS, faults.NOT_FOUND}
    assert {int(code) for code in first("Exit codes of the command line")} == known


def test_every_error_of_a_job_that_is_ours_is_told() -> None:
    code = sources("agent", "services", "broker")
    raised = set(re.findall(r"^class (\w+)\((?:BaseException|Exception|HandlerError)\)", code, re.MULTILINE))
    written = set(re.findall(r'(?:_over\(JobStatus\.\w+, |"type": )"([A-Z]\w+)"', code))
    assert first("Errors of jobs") - {"MemoryFull"} <= raised | written
    assert {"HandlerError", "BudgetExceeded", "Retry", "JobTimeout", "DelegationRefused", *written} <= first(
        "Errors of jobs"
    )
    assert "class MemoryFull(" in code


def test_every_error_of_an_operation_is_told() -> None:
    written = set(re.findall(r'FAILED, \{"type": "(\w+)"|return \{"type": "(\w+)"', sources("services")))
    known = {name for pair in written for name in pair if name} | {RolloutStatus.REVERTED, RolloutStatus.FAILED}
    assert {name for name in first("Errors of operations") if name[0].islower()} == {str(name) for name in known}


def test_every_end_of_an_agent_is_told() -> None:
    code = sources("agent")
    known = set(re.findall(r"^_?(?:EXIT|EX)_[A-Z_]+ = (\d+)", code, re.MULTILINE))
    known |= {
        {"EX_OK": "0", "EX_TEMPFAIL": "75", "EX_CONFIG": "78"}[name] for name in re.findall(r"os\.(EX_\w+)", code)
    }
    assert first("How agents end") == known | {"0", "-9"}
