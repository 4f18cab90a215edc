"""docs/cli.md holds the reference of the commands as click has them. Run this file to write it anew."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

from brain_clusters.cli import main, options
from brain_clusters.cli.lazy import SECTIONS

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
BEGIN, END = "<!-- REFERENCE: tests/unit/test_docs_cli.py writes it -->", "<!-- END OF THE REFERENCE -->"


def _shared() -> set[str]:
    """Return the options that are told once, above the reference."""

    @options.output
    @options.watch
    @options.waiting
    @options.yes
    @options.dry_run
    @options.targeted
    def command() -> None:
        pass

    made = click.command()(command)
    return {name for parameter in made.params for name in parameter.opts if name.startswith("--")}


SHARED = _shared()


def reference() -> str:
    """Return the reference: every command by purpose, with its usage, what it does, and the options of its own."""
    lines = []
    for title, section in SECTIONS.items():
        lines += [f"### {title}", ""]
        for name in section:
            with click.Context(main, info_name="brain-clusters") as root:
                command = main.get_command(root, name)
                assert command is not None
                lines += _told(command, click.Context(command, parent=root, info_name=name))
    return "\n".join(lines).rstrip()


def _told(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield from (f"#### {context.command_path.removeprefix('brain-clusters ')}", "", "```text", usage, "```", "")
    yield from _help(command.help or "")
    own = [one for one in command.get_params(context) if isinstance(one, click.Option) and not one.hidden]
    records = [one.get_help_record(context) for one in own if not SHARED & set(one.opts) and "--help" not in one.opts]
    rows = [f"- `{record[0]}`: {' '.join(record[1].split())}" for record in records if record]
    taken = [f"`{one.opts[-1]}`" for one in own if SHARED & set(one.opts) and "--context" not in one.opts]
    shared = [one for one in taken if one not in ("`--api`", "`--key`")]
    if rows or shared:
        yield from (*rows, *([f"- and {', '.join(shared)}"] if shared else []), "")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _told(below, click.Context(below, parent=context, info_name=name))


def _help(text: str) -> Iterator[str]:
    """Yield a help's paragraphs; those that click leaves as they are, which are examples, as code."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b\n"):
            yield "<!-- not run: the examples of --help; tests/integration/test_cli.py runs these commands -->"
            yield from ("```sh", *paragraph.split("\n")[1:], "```")
        else:
            yield paragraph
        yield ""


def written(page: str) -> str:
    """Return the page with the reference of now."""
    return re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n\n{reference()}\n\n{END}", page, flags=re.DOTALL)


def test_the_reference_is_what_the_commands_say() -> None:
    page = PAGE.read_text()
    assert page == written(page), "write docs/cli.md anew: python tests/unit/test_docs_cli.py"


def test_each_command_has_one_line_of_help_that_is_its_own() -> None:
    with click.Context(main, info_name="brain-clusters") as root:
        for name in main.list_commands(root):
            command = main.get_command(root, name)
            assert command is not None
            assert command.name == name or command.name == name + "-"
            assert command.help, name


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
