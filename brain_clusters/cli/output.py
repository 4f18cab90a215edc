"""How things are shown: a table, a wide one, JSON, YAML, or names only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

from brain_clusters.cli import table
from brain_clusters.cli.kinds import Kind, Row


def show(found: Any, kind: Kind, output: str) -> None:
    """Show a list as the API gives it, or one thing."""
    if output in ("json", "yaml"):
        show_data(found, output)
        return
    rows: Sequence[Row] = found.get(kind.plural, [found])
    if output == "name":
        for row in rows:
            click.echo(row[kind.key])
    elif rows:
        show_rows(rows, kind, output)
    else:
        click.echo(f"no {kind.plural}", err=True)


def show_rows(rows: Iterable[Row], kind: Kind, output: str) -> None:
    """Print a table of ``rows``."""
    for line in row_lines(rows, kind, output):
        click.echo(line)


def row_lines(rows: Iterable[Row], kind: Kind, output: str) -> list[str]:
    """Return the lines of a table. The wide one is for wide terminals, and is not cut."""
    columns = (*kind.columns, *kind.wide) if output == "wide" else kind.columns
    cells = [[column.read(row) for column in columns] for row in rows]
    most = None if output == "wide" else table.screen_width()
    return list(table.lines([column.title for column in columns], cells, most))


def show_data(found: Any, output: str) -> None:
    """Print what the API gave, as it gave it."""
    click.echo(as_yaml(found) if output == "yaml" else json.dumps(found, indent=2, ensure_ascii=False))


def as_yaml(found: Any) -> str:
    """Return data as YAML, in the API's order."""
    import yaml  # here: it is slow to import, and few ask for it

    text: str = yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=120)
    return text.rstrip("\n")


def show_fields(fields: Iterable[tuple[str, str]], *, indent: str = "") -> None:
    """Print names and values, one per line."""
    told = list(fields)
    widest = max((len(name) for name, _ in told), default=0)
    for name, value in told:
        click.echo(f"{indent}{click.style(f'{name}:'.ljust(widest + 1), bold=True)}  {value}".rstrip())
