"""The import rules: imports point down, and each library has its rooms. See docs/architecture.md."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("brain_clusters", "workers", "migrations")
FILES = {path.relative_to(ROOT).with_suffix("").as_posix(): path for f in FOLDERS for path in (ROOT / f).rglob("*.py")}

# The rooms of the house, the lowest first. What is not listed serves several rooms and is judged by name below.
LEVELS = (
    {"errors", "domain"},
    {"db", "broker", "genesis", "blueprints"},
    {"services"},
    {"api", "agent", "workers"},
    {"dashboard"},  # pages beside the API's answers: it may use what those are made with
    {"cli"},
)
# Entry points never import each other: they meet on Celery by task name. cli starts them all, but only when asked.
ENTRY_POINTS = {"api", "agent", "workers"}
# The one library of the domain: cron's rules for summer time are too many to write them again, and cronsim is as pure
# as the domain: no I/O, no clock, no dependencies.
PURE = {"cronsim"}
ROOMS_OF = {
    "flask": {"api", "dashboard"},
    "werkzeug": {"api", "dashboard"},
    "gunicorn": {"api"},
    "celery": {"workers", "broker", "agent", "client"},
    "kombu": {"broker", "agent"},
    "billiard": {"agent"},
    "sqlalchemy": {"db", "services", "migrations"},
    "alembic": {"db", "migrations"},
    "psycopg2": {"db", "embedded"},
    "yaml": {"blueprints", "api", "cli"},  # cli prints what it exports
    "cerberus": {"blueprints", "api"},
    "cronsim": {"domain"},
    "docker": {"genesis"},
    "requests": {"genesis"},
    "redis": {"broker", "agent", "embedded", "client"},
    "httpx2": {"agent", "genesis"},
    "httpcore2": {"agent"},
    "kubernetes": {"genesis"},
    "urllib3": {"genesis"},
    "openai": {"agent"},
    "opentelemetry": {"tracing"},
    "pydantic": {"agent"},
    "prometheus_client": {"api"},
    "click": {"cli"},
    "rich": {"cli"},
}


def room(module: str) -> str:
    """Return the room of a dotted or slashed module name: brain_clusters.api.views -> api."""
    parts = module.replace("/", ".").split(".")
    return parts[1] if parts[0] == "brain_clusters" and len(parts) > 1 else parts[0]


def imports(tree: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    """Yield each imported name, dotted, with its statement."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            yield from ((f"{node.module}.{alias.name}", node) for alias in node.names)


def level(of: str) -> int | None:
    return next((number for number, rooms in enumerate(LEVELS) if of in rooms), None)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_module_imports_only_what_its_room_may(name: str) -> None:
    tree = ast.parse(FILES[name].read_text())
    here, at_start = room(name), set(ast.iter_child_nodes(tree))
    faults = []
    for imported, node in imports(tree):
        top, there = imported.split(".")[0], room(imported)
        ours = top in ("brain_clusters", "workers", "migrations")
        if not ours and here not in ROOMS_OF.get(top, {here}):
            faults.append(f"line {node.lineno}: {top} belongs to {sorted(ROOMS_OF[top])}")
        if ours and there != here:
            low, high = level(here), level(there)
            if low is not None and high is not None and high > low:
                faults.append(f"line {node.lineno}: {here} imports {there}, which lies above it")
            if here in ENTRY_POINTS | {"dashboard"} and there in ENTRY_POINTS - (
                {"api"} if here == "dashboard" else set()
            ):
                faults.append(f"line {node.lineno}: the entry point {here} imports the entry point {there}")
            if here == "cli" and there in ENTRY_POINTS | {"dashboard"} and node in at_start:
                faults.append(f"line {node.lineno}: cli imports {there} before it is asked to start it")
        if here == "domain" and not (there in ("domain", "errors") if ours else top in sys.stdlib_module_names | PURE):
            faults.append(f"line {node.lineno}: domain is pure and imports {imported}")
    assert not faults


@pytest.mark.parametrize("name", sorted(set(FILES) - {"brain_clusters/config"}))
def test_the_environment_is_read_in_config_only(name: str) -> None:
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr not in ("environ", "getenv", "environb", "putenv"), f"line {node.lineno}"


@pytest.mark.parametrize("name", sorted(name for name in FILES if name.startswith("brain_clusters/domain/")))
def test_the_domain_asks_no_clock_and_no_chance(name: str) -> None:
    found = {imported.split(".")[0] for imported, _ in imports(ast.parse(FILES[name].read_text()))}
    assert not found & {"time", "random", "secrets", "uuid", "os", "socket", "subprocess", "pathlib"}


def test_the_rules_see_the_code() -> None:
    assert {room(name) for name in FILES} >= set().union(*LEVELS)
