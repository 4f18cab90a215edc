"""What jobs are given and give back, on the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from brain_clusters.cli.client import ApiClient, path_of
from brain_clusters.cli.output import show_data
from brain_clusters.cli.progress import poll
from brain_clusters.cli.words import plain, span
from brain_clusters.errors import InvalidInput, PermanentError

_ENDED = ("succeeded", "failed", "dead", "cancelled")


def read_payload(text: str | None) -> Any:
    """Return the payload that is meant: JSON, @FILE, - for the input, nothing for null; raise InvalidInput."""
    if text is None:
        return None
    what = "the payload"
    if text == "-":
        text, what = _read("-"), "the input"
    elif text.startswith("@"):
        text, what = _read(text[1:]), text[1:]
    return _json(text, what)


def read_lines(name: str) -> list[Any]:
    """Return the payloads of a file, one per line; raise InvalidInput with the line that is none."""
    found = [
        _json(line, f"line {number} of {name}")
        for number, line in enumerate(_read(name).splitlines(), 1)
        if line.strip()
    ]
    if not found:
        raise InvalidInput(f"{name} holds no line with a payload")
    return found


def wait_for_jobs(api: ApiClient, ids: Sequence[str], timeout: float) -> list[Any]:
    """Wait until all have ended and return them; raise PermanentError when one has not."""
    ended = []
    for job in ids:
        found = poll(
            lambda job=job: api.get(path_of("jobs", job)),  # type: ignore[misc]
            lambda one: one["status"] in _ENDED,
            lambda one: f"job {one['id']} is {one['status']}{_progress(one)}",
            timeout,
        )
        if found["status"] not in _ENDED:
            raise PermanentError(
                f"job {job} is still {found['status']} after {span(timeout)}; "
                f"'brain-clusters jobs get {job} --wait' goes on"
            )
        ended.append(found)
    return ended


def show_result(ended: Sequence[Any], output: str, *, listed: bool) -> None:
    """Print the results of jobs that have ended, one per line, and exit 1 when one has none."""
    if output in ("json", "yaml"):
        show_data({"jobs": list(ended), "total": len(ended)} if listed else ended[0], output)
    for job in ended:
        if output == "name":
            click.echo(job["id"])
        elif job["status"] == "succeeded" and output in ("table", "wide"):
            click.echo(json.dumps(job["result"], ensure_ascii=False))
    sys.stdout.flush()
    failed = [job for job in ended if job["status"] != "succeeded"]
    for job in failed:
        _tell(job)
    if failed:
        raise click.exceptions.Exit(1)


def _tell(job: Any) -> None:
    error = job["error"] or {}
    why = f": {error.get('type')}: {error.get('message')}" if error else ""
    click.secho(f"error: job {job['id']} is {job['status']}{why}", fg="red", err=True)
    if job["status"] in ("failed", "dead"):
        click.echo(
            f"  'brain-clusters describe job {job['id']}' has the traceback; 'jobs retry' queues it again", err=True
        )


def _progress(job: Any) -> str:
    told = job.get("progress")
    if not isinstance(told, dict):
        return "" if told is None else f" ({plain(json.dumps(told, ensure_ascii=False))})"
    share = told.get("fraction")
    parts = [f"{share:.0%}"] if isinstance(share, int | float) and not isinstance(share, bool) else []
    parts += [plain(str(told["message"]))] if told.get("message") is not None else []
    return f" ({', '.join(parts)})" if parts else ""


def _read(name: str) -> str:
    if name == "-":
        return sys.stdin.read()
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        raise InvalidInput(f"{name} cannot be read: {exc}") from exc


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise InvalidInput(f"{what} is no JSON: {exc}; text is written in quotes, as '\"text\"'") from exc
