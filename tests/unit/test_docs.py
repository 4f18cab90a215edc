"""The documents and the container files are true to the code."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from brain_clusters.config import Settings
from brain_clusters.domain.exposition import METRICS
from brain_clusters.setting import written

ROOT = Path(__file__).parents[2]
OPERATIONS = ROOT / "docs" / "operations.md"
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in ("build", "dist") for part in path.relative_to(ROOT).parts)
)
# An inline link, without the angle brackets and titles that nobody here uses.
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
OURS = {"migrate", "api", "worker", "beat", "host"}
SERVERS = {"postgres", "redis"}


# --- settings ---------------------------------------------------------------------------------------------------


def settings_table() -> str:
    """Return the table that docs/operations.md must hold."""
    rows = ["| variable | default | |", "|---|---|---|"]
    rows += [
        f"| `{one.metadata['variable']}` | {_default(one)} | {one.metadata['about']} |" for one in fields(Settings)
    ]
    return "\n".join(rows)


def metrics_table() -> str:
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.help} |"
        for metric in METRICS.values()
    ]
    return "\n".join(["| metric | kind | labels | |", "|---|---|---|---|", *rows])


def _default(setting: Field[Any]) -> str:
    shown = (
        ""
        if setting.default in (None, ())
        else f"{setting.default:g}"
        if isinstance(setting.default, float)
        else written(setting.default)
        if isinstance(setting.default, tuple)
        else str(setting.default)
    )
    return f"`{shown}`" if shown else "none"


def test_the_settings_table_is_what_the_code_says() -> None:
    expected = settings_table()
    assert expected in OPERATIONS.read_text(), f"put this table into docs/operations.md, under Settings:\n\n{expected}"


def test_the_table_of_metrics_is_what_the_code_says() -> None:
    assert metrics_table() in (ROOT / "docs/monitoring.md").read_text()


def test_dashboards_and_alerts_ask_only_for_what_is_told() -> None:
    told = {
        name + end: {*metric.labels, *(["le"] if metric.kind == "histogram" else [])}
        for name, metric in METRICS.items()
        for end in (("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",))
    }
    dashboard = json.loads((ROOT / "docs/monitoring/grafana-dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = yaml.safe_load((ROOT / "docs/monitoring/alerts.yaml").read_text())["groups"][0]["rules"]
    asked += [rule["expr"] for rule in rules]
    assert len(asked) > 20
    for query in asked:
        promql_parser.parse(query)
        names = set(re.findall(r"brain_[a-z_]+", query))
        assert names, query
        assert names <= told.keys(), query
        known = set.union(*(told[name] for name in names))
        used = re.findall(r"([a-z_]+)=~?\"", query) + re.findall(r"by \(([^)]*)\)", query)
        assert {label.strip() for one in used for label in one.split(",")} <= known, query


@pytest.mark.parametrize(
    "path", [*DOCUMENTS, ROOT / "docker-compose.yml", ROOT / "Dockerfile"], ids=lambda path: path.name
)
def test_every_variable_that_is_named_exists(path: Path) -> None:
    known = {one.metadata["variable"] for one in fields(Settings)}
    # What the command line, compose and tests read themselves, and what agents and their commands are given.
    known |= {
        "BRAIN_API_KEY",
        "BRAIN_API_URL",
        "BRAIN_CONTEXT",
        "BRAIN_AGENT",
        "BRAIN_AGENT_ID",
        "BRAIN_TEST_ENGINES",
        "BRAIN_TEST_IMAGE",
        "BRAIN_PUBLISHED_PORT",
        "BRAIN_TAG",
        "BRAIN_JOB_ID",
        "BRAIN_JOB_ATTEMPT",
        "BRAIN_JOB_DEADLINE",
        "BRAIN_JOB_CAPABILITY",
        "BRAIN_CLUSTER_ID",
        "BRAIN_GROUP",
    }
    named = set(re.findall(r"\bBRAIN_[A-Z][A-Z_]*[A-Z]\b", path.read_text()))
    assert named <= known


# --- links and words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_inside_the_project_leads_somewhere(path: Path) -> None:
    broken = []
    for target in LINK.findall(path.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name) if name else path
        if not found.exists() or (anchor and anchor not in _anchors(found)):
            broken.append(target)
    assert not broken


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_dependency_is_explained() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    names = {re.split(r"[\[<>=!~; ]", line)[0] for text in listed for line in text.split("\n") if line}
    table = "\n".join(line for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("| `"))
    explained = {re.split(r"\[", name)[0] for name in re.findall(r"`([^`]+)`", table)}
    assert names - explained == set()


def test_no_file_tells_of_the_machine_it_was_written_on() -> None:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listing.returncode:
        pytest.skip("not a git checkout")
    # In pieces, or this very file would be found.
    places = re.compile("|".join(rf"(?<![\w.-])/{name}/" for name in ("work", "root")))
    found = [
        name
        for name in listing.stdout.splitlines()
        if (ROOT / name).is_file() and places.search((ROOT / name).read_text(errors="replace"))
    ]
    assert not found


# --- containers -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """docker-compose.yml with its anchors and merge keys resolved, as Compose reads it."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return found


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    """The services by name."""
    found: dict[str, Any] = compose["services"]
    return found


def test_compose_has_all_services(services: dict[str, Any]) -> None:
    assert set(services) == OURS | SERVERS
    assert {name: services[name]["command"] for name in OURS} == {name: [name] for name in OURS}


@pytest.mark.parametrize("name", sorted(OURS | SERVERS))
def test_a_service_is_neither_root_nor_unwatched(services: dict[str, Any], name: str) -> None:
    service = services[name]
    uid = str(service.get("user", "0")).partition(":")[0]
    assert uid.isdigit()
    assert uid != "0"
    assert not service.get("privileged")
    if name == "migrate":
        assert service["restart"] == "no"
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
        assert "stop_grace_period" in service


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_process_of_ours_starts_after_what_it_needs(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["init"] is True
    assert service["depends_on"]["postgres"]["condition"] == "service_healthy"
    if name != "migrate":
        assert service["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
        assert service["depends_on"]["redis"]["condition"] == "service_healthy"
        assert service["healthcheck"]["test"][-1] == name


@pytest.mark.parametrize("name", ["worker", "host"])
def test_a_service_can_be_scaled_and_ends_in_order(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert not {"container_name", "hostname", "ports"} & set(service)
    grace = float(service["environment"]["BRAIN_STOP_GRACE_SECONDS"])
    assert float(service["stop_grace_period"].removesuffix("s")) >= grace + 10


def test_only_the_api_is_published_and_only_on_loopback(services: dict[str, Any]) -> None:
    assert [name for name in services if "ports" in services[name]] == ["api"]
    assert all(port.startswith("127.0.0.1:") for port in services["api"]["ports"])
    assert services["api"]["environment"]["BRAIN_API_KEYS"].startswith("${BRAIN_API_KEYS:-")


def test_volumes_are_named(compose: dict[str, Any], services: dict[str, Any]) -> None:
    used = {volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", ())}
    assert used == set(compose["volumes"])


def test_secrets_come_from_the_environment_and_the_example_names_them_all(services: dict[str, Any]) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    required = set(re.findall(r"\$\{([A-Z_]+):-only-for-trying-out\}", text))
    assert required == {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "BRAIN_API_KEYS"}
    example = dict(re.findall(r"^([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert {name: example[name] for name in required} == dict.fromkeys(required, "")
    known = {one.metadata["variable"] for one in fields(Settings)}
    set_here = {name for service in OURS for name in services[service]["environment"]}
    assert set_here <= known


def test_redis_is_set_to_lose_nothing(services: dict[str, Any]) -> None:
    command = " ".join(services["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_the_image_runs_without_root_and_carries_the_commit() -> None:
    text = (ROOT / "Dockerfile").read_text()
    last_stage = text[text.rindex("\nFROM ") :]
    assert re.search(r"^USER 10001:10001$", last_stage, re.MULTILINE)
    assert "ENV BRAIN_COMMIT=${BRAIN_COMMIT}" in last_stage
    assert 'ENTRYPOINT ["brain-clusters"]' in last_stage
    assert "pip" not in last_stage
