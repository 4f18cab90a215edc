"""What is done to many jobs at once: their count comes first, and a question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from brain_clusters.cli import options
from brain_clusters.cli.client import ApiClient, path_of
from brain_clusters.cli.output import show_data
from brain_clusters.cli.table import lines
from brain_clusters.cli.words import age, word


def cancel_all(
    api: ApiClient, cluster: str, wanted: dict[str, Any], told: dict[str, Any], *,
    yes: bool, dry_run: bool, output: str,
) -> None:  # fmt: skip
    """Cancel the unfinished jobs of a cluster that match. told: of the request, besides what they match."""
    path = path_of("clusters", cluster, "jobs")
    count = api.get(path, limit=1, **{"status": "queued,running", **wanted})["total"]
    if dry_run or not count:
        click.echo(f"{count} jobs would be cancelled")
        return
    options.confirm(f"Cancel {count} jobs of {cluster}?", yes=yes)
    total = {"cancelled": 0, "cancelling": 0, "more": True}
    while total["more"]:
        done = api.post(f"{path}/cancel", {**wanted, **told})
        total = {"cancelled": total["cancelled"] + done["cancelled"],
                 "cancelling": total["cancelling"] + done["cancelling"], "more": bool(done["more"])}  # fmt: skip
        if not done["cancelled"] and not done["cancelling"]:
            break
    if output in ("json", "yaml"):
        show_data(total, output)
    else:
        click.echo(f"{total['cancelled']} cancelled, {total['cancelling']} running ones asked to end")


def show_letters(letters: Sequence[Any], most: int | None) -> None:
    """Print a table of dead letters by error. most: the columns of the terminal."""
    titles = ("COUNT", "GROUP", "LAST", "ERROR", "EXAMPLE", "SAYS")
    rows = [
        (word(one["count"]), word(one["group"]), age(one["last_at"]), word(one["error_key"]), word(one["example_id"]),
         word(one["example_message"]))
        for one in letters
    ]  # fmt: skip
    for line in lines(titles, rows, most):
        click.echo(line)


def treat(
    api: ApiClient, cluster: str, treatment: str, wanted: dict[str, Any], *, yes: bool, dry_run: bool, output: str
) -> None:
    """Retry or discard the dead letters of a cluster that match."""
    path = path_of("clusters", cluster, "dead-letters")
    count = api.get(path, **wanted)["total"]
    if dry_run or not count:
        click.echo(f"{treatment} would find {count} jobs")
        return
    options.confirm(f"{treatment.capitalize()} {count} jobs of {cluster}?", yes=yes)
    word_of, total, kept = ("retried" if treatment == "retry" else "discarded"), 0, 0
    while True:
        done = api.post(f"{path}/{treatment}", wanted)
        total, kept = total + done[word_of], max(kept, done["without_payload"])
        if not done["left"] or not done[word_of]:
            break
    if output in ("json", "yaml"):
        show_data({word_of: total, "left": done["left"], "without_payload": kept}, output)
        return
    click.echo(f"{total} {word_of}" + (f", {kept} have no payload any more" if kept else ""))
