"""``keys``: who may call the API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from brain_clusters.cli import options
from brain_clusters.cli.client import ApiClient, path_of
from brain_clusters.cli.kinds import KEYS
from brain_clusters.cli.output import show, show_data
from brain_clusters.errors import InvalidInput


@click.group()
def keys() -> None:
    """List, create, revoke and rotate keys of the API."""


@keys.command(name="list")
@click.option("--ended", is_flag=True, help="Those that were revoked or have expired, too.")
@options.output
@options.connected
def list_(api: ApiClient, ended: bool, output: str) -> None:
    """List the keys; none of them can be read again."""
    show(api.get("/api/keys", ended=ended or None), KEYS, output)


@keys.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["viewer", "operator", "admin"]), default="viewer", show_default=True,
              help="What it may do.")  # fmt: skip
@click.option("--payloads", is_flag=True, help="It may read what jobs are given and give back.")
@click.option("--tag", "tags", multiple=True, help="It sees only clusters with this tag; may be given several times.")
@click.option(
    "--expires", metavar="DURATION|TIME", help="Such as '90 days', or ISO 8601 with an offset; never without it."
)
@click.option("--direct", is_flag=True, help="Write it into the database, and ask no API: when no admin's key is left.")
@options.output
@options.targeted
def create(
    name: str, role: str, payloads: bool, tags: tuple[str, ...], expires: str | None, direct: bool, output: str,
    **given: Any,
) -> None:  # fmt: skip
    """Make a key that is called NAME, and show it: this once.

    \b
    brain-clusters keys create ci --role operator --expires '90 days'
    brain-clusters keys create rescue --role admin --direct     # where BRAIN_DATABASE_URL or the 'up' is
    """
    if direct:
        _show_new(_made_directly(name, role, payloads, tags, None if expires is None else _end(expires)), output)
        return
    body: dict[str, Any] = {"name": name, "role": role, "payloads": payloads, "tags": list(tags)}
    if expires is not None:
        body["expires"] = expires
    with options.client_of(options.take_target(given)) as api:
        _show_new(api.post("/api/keys", body), output)


@keys.command()
@click.argument("ids", nargs=-1, required=True, metavar="KEY...")
@options.yes
@options.connected
def revoke(api: ApiClient, ids: tuple[str, ...], yes: bool) -> None:
    """End KEYs, by their ids, at once and for good. Asks before."""
    options.confirm(f"Revoke {', '.join(ids)}?", yes=yes)
    for key in ids:
        api.delete(path_of("keys", key))
        click.echo(f"{key} revoked")


@keys.command()
@click.argument("key", metavar="KEY")
@click.option("--overlap", metavar="DURATION", help="How long the old one goes on; a day without it.")
@click.option(
    "--expires", metavar="DURATION|TIME", help="When the new one ends; without it, it lasts as long as the old one."
)
@options.output
@options.connected
def rotate(api: ApiClient, key: str, output: str, **given: Any) -> None:
    """Make a new key that may what KEY may, and show it: this once. The old one goes on for a while."""
    body = {name: value for name, value in given.items() if value is not None}
    _show_new(api.post(path_of("keys", key, "rotate"), body), output)


def _show_new(made: Any, output: str) -> None:
    """Print a new key alone on the output, so that it can be sent to a file, and what it is beside it."""
    if output in ("json", "yaml"):
        show_data(made, output)
        return
    click.echo(f"{made['key']['id']} ({made['key']['role']}) is made; it is shown this once:", err=True)
    click.echo(made["secret"])


def _end(text: str) -> datetime:
    """Return when a key ends; raise InvalidInput."""
    from brain_clusters.domain.durations import parse_end

    try:
        return parse_end(text, datetime.now(UTC))
    except ValueError as exc:
        raise InvalidInput(f"--expires: {text!r} {exc}") from exc


def _made_directly(name: str, role: str, payloads: bool, tags: tuple[str, ...], ends: datetime | None) -> Any:
    from brain_clusters.config import Settings
    from brain_clusters.domain.access import Role
    from brain_clusters.embedded import connected
    from brain_clusters.services import keys as managed
    from brain_clusters.services.access import NewKey
    from brain_clusters.services.control import Control

    control = Control.open(connected(Settings.from_env()), application="keys")
    try:
        # Whoever reaches the database may all; an admin that may less than others could not be mended by it.
        new = NewKey(name=name, role=Role(role), payloads=payloads or role == "admin", tags=tags, expires_at=ends)
        row, shown = managed.create_directly(control, new, "the command line, directly")
        told = {"id": row.id, "name": row.name, "role": str(row.role), "expires_at": ends and ends.isoformat()}
        return {"key": told, "secret": shown}
    finally:
        control.close()
