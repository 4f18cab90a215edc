"""``explain`` and ``replay``: why a cluster has the size it has, and what another blueprint would have decided."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from brain_clusters.cli.client import ApiClient
from brain_clusters.cli.upfile import UpFile
from brain_clusters.config import Settings
from brain_clusters.errors import InvalidInput, PermanentError

_API = click.option("--api", "api_url", metavar="URL", help="The API to ask; the one of the running 'up' without it.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the API's answer as it is.")
# A gate that only says that an idle cluster has not been idle for long enough is no news.
_MARKS = {"scale": "->", "hibernate": "zz", "reactivate": "->", "destroy": "xx", "hold": "||", "none": "=="}


@click.command()
@click.argument("cluster")
@_API
@_JSON
def explain(cluster: str, api_url: str | None, as_json: bool) -> None:
    """Say what the autoscaler would do with CLUSTER now, why, and which gate holds what."""
    with _client(api_url) as client:
        found = client.get(f"/api/clusters/{quote(cluster, safe='')}/scaling/explain")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"{_MARKS[found['action']]} {found['cluster_id']} is {found['status']}: {found['reason']}")
    if not found["signals_known"]:
        click.secho("   Redis does not answer: nothing is known of what waits", fg="yellow")
    for name, signals in found["signals"].items():
        click.echo(f"   {_group(name, signals, found)}")
    if found["wake_in"] is not None:
        click.echo(f"   starts in {found['wake_in']:.0f} s for what is due then")


def _group(name: str, signals: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    before, after = found["before"].get(name, 0), found["after"].get(name, 0)
    sleeps = found["status"] == "hibernated"  # then the counts are those that it had
    size = "no" if sleeps and before == after else f"{before}" if before == after else f"{before} -> {after}"
    jobs = " ".join(f"{word} {_number(signals[word])}" for word in ("ready", "reserved", "running", "held"))
    age = "" if signals["oldest_age"] is None else f", the oldest for {signals['oldest_age']:.1f} s"
    seconds = signals["service_time"]
    service = "how long one takes is unknown" if seconds is None else f"one takes {seconds:.3g} s"
    gate = found["held"].get(name)
    held = f"  [held by {gate['gate']}]" if gate else ""
    rates = f"{signals['arrival_rate']:.2f} jobs/s come, {service}"
    return f"{name}: {size} {'agent' if size == '1' else 'agents'}; {jobs}{age}; {rates}{held}"


def _number(value: Any) -> str:
    return "unknown" if value is None else f"{value}"


@click.command()
@click.argument("cluster")
@click.option(
    "--blueprint", "file", required=True, metavar="FILE", type=click.Path(path_type=Path), help="The other blueprint."
)
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(1, 10_000), help="The newest so many.")
@_API
@_JSON
def replay(cluster: str, file: Path, limit: int, api_url: str | None, as_json: bool) -> None:
    """Make the stored decisions about CLUSTER again by another blueprint, and show where they differ.

    Each is made from its own stored inputs: what that blueprint would have decided in those moments.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        raise InvalidInput(f"{file} cannot be read: {exc}") from exc
    _check(file)
    with _client(api_url) as client:
        path = f"/api/clusters/{quote(cluster, safe='')}/scaling/replay"
        found = client.post(path, {"yaml": text, "limit": limit})
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for change in found["changes"]:
        click.echo(f"{change['at']}  #{change['id']}")
        for who in ("recorded", "replayed"):
            told = change[who]
            click.echo(f"  {who}: {told['action']} {_counts(told['after'])}: {told['reason']}")
    click.echo(f"{found['differing']} of {found['decisions']} decisions differ")


def _check(file: Path) -> None:
    """Refuse a blueprint with faults here, where its lines can be named."""
    from brain_clusters.blueprints.validator import load_blueprint  # here: YAML and Cerberus are slow to import

    load_blueprint(file)


def _counts(after: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in after.items())


@contextmanager
def _client(api_url: str | None) -> Iterator[ApiClient]:
    settings = Settings.from_env()
    if api_url is None:
        running = UpFile.of_running(settings.home)
        if running is None:
            raise PermanentError(f"no 'up' runs for {settings.home}; name the API to ask with --api URL")
        api_url = running.api_url
    client = ApiClient(api_url, key=next(iter(settings.api_keys), None))
    try:
        yield client
    finally:
        client.close()
