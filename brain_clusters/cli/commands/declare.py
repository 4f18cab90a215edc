"""``apply``, ``plan`` and ``diff``: files that say what is to be."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from brain_clusters.cli import options
from brain_clusters.cli.client import ApiClient
from brain_clusters.cli.faults import DIFFERS
from brain_clusters.cli.output import show_data
from brain_clusters.cli.plans import differs, show_diff, show_plan, wait_for_changes
from brain_clusters.errors import InvalidInput, NotFound

# In YAML, three hyphens at the start of a line always part documents, also within a block of text.
_BORDER = re.compile(r"^---(?:[ \t].*)?$", re.MULTILINE)
_EMPTY = re.compile(r"(?:\s*(?:#[^\n]*)?\n?)*")
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
    documents = read_documents(files)
    plan = api.post("/api/plan", {"documents": documents})
    if dry_run or not differs(plan):
        show_plan(plan, output)
        return
    if output == "table" and sys.stdin.isatty() and not yes:
        show_plan(plan, output)
        options.confirm("Apply this?", yes=yes)
    done = api.post("/api/apply", {"documents": documents})
    if wait:
        wait_for_changes(api, done, timeout)
    show_plan(done, output, done=True)


@click.command()
@_FILES
@_OUTPUT
@options.connected
def plan(api: ApiClient, files: tuple[str, ...], output: str) -> None:
    """Show what 'apply' would change, with agents replaced and cost per hour. Exits 3 when something differs."""
    found = api.post("/api/plan", {"documents": read_documents(files)})
    show_plan(found, output)
    if differs(found):
        raise click.exceptions.Exit(DIFFERS)


@click.command()
@_FILES
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", help="How to show it.")
@options.connected
def diff(api: ApiClient, files: tuple[str, ...], output: str) -> None:
    """Show what 'apply' would change, line by line. Exits 3 when something differs."""
    found = api.post("/api/plan", {"documents": read_documents(files)})
    if output == "table":
        show_diff(found)
    else:
        show_data(found, output)
    if differs(found):
        raise click.exceptions.Exit(DIFFERS)


def read_documents(files: Sequence[str]) -> list[str]:
    """Return the documents of files, of folders, and of the input; raise InvalidInput where there are none."""
    found = [document for name in files for text in _texts(name) for document in split(text)]
    if not found:
        raise InvalidInput(f"{', '.join(files)}: no document is in there; see 'brain-clusters apply --help'")
    return found


def split(text: str) -> list[str]:
    """Return the documents of a stream of YAML, without those that hold comments only.

    Each keeps its lines' numbers: what comes before it is replaced by empty lines.
    """
    found, begin = [], 0
    for border in [*_BORDER.finditer(text), None]:
        end = len(text) if border is None else border.start()
        document = text[begin:end]
        if not _EMPTY.fullmatch(document.removeprefix("---")):
            found.append("\n" * text.count("\n", 0, begin) + document)
        begin = end
    return found


def _texts(name: str) -> Iterator[str]:
    if name == "-":
        yield sys.stdin.read()
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
            yield each.read_text(encoding="utf-8")
        except (OSError, ValueError) as exc:
            raise InvalidInput(f"{each} cannot be read: {exc}") from exc
