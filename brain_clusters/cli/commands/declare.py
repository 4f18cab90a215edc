"""``apply``, ``plan`` and ``diff``: files that say what is to be."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from brain_clusters.cli import options
from brain_clusters.cli.client import ApiClient
from brain_clusters.cli.faults import DIFFERS, FAILED
from brain_clusters.cli.output import show_data
from brain_clusters.cli.plans import (
    apply_plan,
    ask_plan,
    differs,
    refused,
    show_diff,
    show_done,
    show_plan,
    wait_for_changes,
)
from brain_clusters.errors import Conflict, InvalidInput, NotFound

_SUFFIXES = (".yaml", ".yml")

_FILES = click.option(
    "-f", "--file", "files", multiple=True, required=True, metavar="FILE|DIR|-",
    help="A file of one or several documents, all files of a folder, or - for the input; may be given several times.",
)  # fmt: skip
_OUTPUT = click.option(
    "-o", "--output", type=click.Choice(options.FORMATS), default="table", show_default=True, help="How to show it."
)


@click.command()
@_FILES
@options.yes
@options.waiting
@options.dry_run
@_OUTPUT
@options.connected
def apply(
    api: ApiClient, files: tuple[str, ...], yes: bool, wait: bool, timeout: float, dry_run: bool, output: str
) -> None:
    """Make blueprints and clusters what files say, again and again; changes only what differs.

    A document is a blueprint, or a cluster: 'cluster: {id: shop, blueprint: shop-v1, max_workers: 9}'. On a terminal
    the plan is shown and confirmed; --yes does not ask.

    \b
    brain-clusters apply -f shop.yaml --wait
    kustomize build | brain-clusters apply -f - --yes
    """
    sources = read_files(files)
    found = ask_plan(api, sources)
    if output == "table":
        show_plan(found, output)
    if refused(found):
        raise Conflict("nothing was applied; mend what is refused, or leave it out")
    if dry_run or not differs(found):
        if output != "table":
            show_plan(found, output)
        return
    if sys.stdin.isatty() and not yes:
        options.confirm("Apply this?", yes=yes)
    done = apply_plan(api, sources, found)
    if wait:
        wait_for_changes(api, done, timeout)
    show_done(done, output, waited=wait)


@click.command()
@_FILES
@_OUTPUT
@options.connected
def plan(api: ApiClient, files: tuple[str, ...], output: str) -> None:
    """Show what 'apply' would change, with agents replaced and cost per hour. Exits 3 when something differs."""
    found = ask_plan(api, read_files(files))
    show_plan(found, output)
    _exit(found)


@click.command()
@_FILES
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", help="How to show it.")
@options.connected
def diff(api: ApiClient, files: tuple[str, ...], output: str) -> None:
    """Show what 'apply' would change, line by line. Exits 3 when something differs."""
    found = ask_plan(api, read_files(files))
    if output == "table":
        show_diff(found)
    else:
        show_data(found, output)
    _exit(found)


def _exit(found: Any) -> None:
    """End with 3 when a plan would change something, with 1 when a part of it is refused."""
    if refused(found):
        raise click.exceptions.Exit(FAILED)
    if differs(found):
        raise click.exceptions.Exit(DIFFERS)


def read_files(names: Sequence[str]) -> dict[str, str]:
    """Return the texts of files, of all files of folders, and of the input, by name. Raises NotFound, InvalidInput."""
    found = {path: text for name in names for path, text in _texts(name)}
    if not found:
        raise InvalidInput(f"{', '.join(names)}: there is no file that ends with {' or '.join(_SUFFIXES)}")
    return found


def _texts(name: str) -> Iterator[tuple[str, str]]:
    if name == "-":
        yield "the input", sys.stdin.read()
        return
    path = Path(name)
    if path.is_dir():
        paths = sorted(each for each in path.rglob("*") if each.suffix in _SUFFIXES and each.is_file())
    elif path.exists():
        paths = [path]
    else:
        raise NotFound(f"there is no file {name}")
    for each in paths:
        try:
            yield str(each), each.read_text(encoding="utf-8")
        except (OSError, ValueError) as exc:
            raise InvalidInput(f"{each} cannot be read: {exc}") from exc
