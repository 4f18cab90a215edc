"""``config``: the settings in force, and the APIs that have a name."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import urlsplit

import click

from brain_clusters.cli import options
from brain_clusters.cli.contexts import LOCAL, Context, Contexts
from brain_clusters.cli.output import show_data
from brain_clusters.cli.table import lines, screen_width
from brain_clusters.config import SECRET_MASK, Settings
from brain_clusters.errors import InvalidInput

_COLUMNS = ("variable", "value", "source", "about")


@click.group(invoke_without_command=True)
@options.output
@click.pass_context
def config(ctx: click.Context, output: str) -> None:
    """Show every setting, its value and where that comes from; secrets are masked. Name the APIs you talk to."""
    if ctx.invoked_subcommand is None:
        settings = Settings.from_env()
        rows = [row | _embedded(row["variable"], settings) for row in settings.describe()]
        _show(rows, _COLUMNS, output)


@config.command(name="list")
@options.output
def list_(output: str) -> None:
    """List the contexts: the APIs that have a name."""
    found = Contexts.load()
    rows = [{"name": LOCAL, "current": found.current is None, "api": "(the 'up' of this machine)", "key": "admin.key"}]
    for name, one in found.known.items():
        key = one.key_file or (SECRET_MASK if one.key else "")
        rows.append({"name": name, "current": found.current == name, "api": one.api, "key": key})
    _show(rows, ("name", "current", "api", "key"), output)


@config.command()
@click.argument("name")
def use(name: str) -> None:
    """Talk to the API that is called NAME from now on; 'local' is the system of this machine."""
    found = Contexts.load()
    if name != LOCAL:
        found.get(name)
    found.current = None if name == LOCAL else name
    found.save()
    click.echo(f"commands talk to {name} now")


@config.command(name="set")
@click.argument("name")
@click.option("--api", required=True, metavar="URL", help="Where the API is, such as https://brain.example.org.")
@click.option("--key", metavar="KEY|-", help="The key; with -, it is asked for, or read from the input.")
@click.option("--key-file", metavar="PATH", help="The file that holds the key, read when it is needed.")
@click.option("--use", "uses", is_flag=True, help="Talk to it from now on.")
def set_(name: str, api: str, key: str | None, key_file: str | None, uses: bool) -> None:
    """Give an API a name, and remember the key for it in a file that only you may read."""
    parts = urlsplit(api)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(f"{api!r} is no URL such as https://brain.example.org")
    if key and key_file:
        raise InvalidInput("give --key or --key-file, not both")
    found = Contexts.load()
    found.put(name, Context(api.rstrip("/"), _read_key() if key == "-" else key, key_file))
    if uses:
        found.current = name
    found.save()
    click.echo(f"{name} is {api}, kept in {found.path}{'; commands talk to it now' if uses else ''}")


@config.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget the API that is called NAME, and its key."""
    found = Contexts.load()
    found.get(name)
    del found.known[name]
    if found.current == name:
        found.current = None
    found.save()
    click.echo(f"{name} is forgotten; commands talk to {found.current or LOCAL}")


def _read_key() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Key", hide_input=True, err=True))
    return sys.stdin.readline().strip()


def _show(rows: list[dict[str, Any]], columns: tuple[str, ...], output: str) -> None:
    if output in ("json", "yaml"):
        show_data(rows, output)
    elif output == "name":
        for row in rows:
            click.echo(row[columns[0]])
    else:
        cells = [
            [str(row[name]) if not isinstance(row[name], bool) else "*" * row[name] for name in columns] for row in rows
        ]
        for line in lines([name.upper() for name in columns], cells, None if output == "wide" else screen_width()):
            click.echo(line)


def _embedded(variable: str, settings: Settings) -> dict[str, str]:
    """Return the value to show for the URL of an embedded server that runs."""
    from brain_clusters.embedded import running  # here: it is slow to import, and contexts have no use for it

    servers = running(settings.home)
    if servers is None:
        return {}
    urls = {
        "BRAIN_DATABASE_URL": None if settings.database_url else servers.database_url,
        "BRAIN_REDIS_URL": None if settings.redis_url else servers.redis_url,
    }
    url = urls.get(variable)
    return {"value": f"(embedded, running on 127.0.0.1:{urlsplit(url).port})"} if url else {}
