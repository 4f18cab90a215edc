"""``config``: the settings in force."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import click

from brain_clusters.config import Settings
from brain_clusters.embedded import running

_COLUMNS = ("variable", "value", "source", "about")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
def config(as_json: bool) -> None:
    """Show every setting, its value and where that comes from. Secrets are masked."""
    settings = Settings.from_env()
    rows = [row | _embedded(row["variable"], settings) for row in settings.describe()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    widths = [max(len(column), *(len(row[column]) for row in rows)) for column in _COLUMNS]
    for line in ({column: column.upper() for column in _COLUMNS}, *rows):
        cells = (line[column].ljust(width) for column, width in zip(_COLUMNS, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _embedded(variable: str, settings: Settings) -> dict[str, str]:
    """Return the value to show for the URL of an embedded server that runs."""
    servers = running(settings.home)
    if servers is None:
        return {}
    urls = {
        "BRAIN_DATABASE_URL": None if settings.database_url else servers.database_url,
        "BRAIN_REDIS_URL": None if settings.redis_url else servers.redis_url,
    }
    url = urls.get(variable)
    return {"value": f"(embedded, running on 127.0.0.1:{urlsplit(url).port})"} if url else {}
