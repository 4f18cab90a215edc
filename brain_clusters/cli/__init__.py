"""The command line: one module per group of commands, imported only when its command is called.

Says what it does in plain sentences; no business rule lives here.
"""

from __future__ import annotations

import keyword
from importlib import import_module
from typing import NamedTuple

import click

from brain_clusters import __version__
from brain_clusters.errors import BrainError, Fault, InvalidInput


class _Command(NamedTuple):
    """Where a command is, and its line in --help, which must not import it."""

    module: str
    help: str


_COMMANDS = {
    "demo": _Command("demo", "Run the whole main job once, show it and clean up."),
    "up": _Command("up", "Run the whole system until Ctrl-C."),
    "down": _Command("up", "Stop the system that runs for this BRAIN_HOME."),
    "blueprint": _Command("blueprint", "Check blueprints; print their JSON Schema."),
    "import": _Command("importing", "Write a blueprint for an existing application."),
    "export": _Command("exporting", "Write a cluster for something else to run, such as Kubernetes and KEDA."),
    "explain": _Command("scaling", "Say what the autoscaler would do with a cluster now, and why."),
    "replay": _Command("scaling", "Make stored scaling decisions again by another blueprint."),
    "config": _Command("config", "Show the settings in force and where they come from."),
    "migrate": _Command("run", "Bring the database's schema up to date."),
    "api": _Command("run", "Run the REST API."),
    "worker": _Command("run", "Run the worker of lifecycle commands."),
    "beat": _Command("run", "Run the clock of the autoscaler."),
    "host": _Command("run", "Run this machine's agents."),
    "genesis": _Command("run", "Start agents here for hosts elsewhere."),
}


class _LazyGroup(click.Group):
    """A group that imports a command when it is called, and shows our errors as sentences."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        found = _COMMANDS.get(cmd_name)
        if found is None:
            return None
        # A command's function cannot be called as a word of Python's own is.
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        command = getattr(import_module(f"brain_clusters.cli.{found.module}"), name)
        assert isinstance(command, click.Command)  # noqa: S101  (for mypy; a wrong table is our own fault)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrainError as exc:
            show_error(exc)
            ctx.exit(2 if isinstance(exc, InvalidInput) else 1)


def show_error(exc: BrainError) -> None:
    """Print an error of ours, with its faults one per line."""
    click.secho(f"error: {exc}", fg="red", err=True)
    for fault in exc.faults if isinstance(exc, InvalidInput) else ():
        click.secho(f"  {_where(fault)}: {fault.message}", fg="red", err=True)


def _where(fault: Fault) -> str:
    position = "" if fault.line is None else f"line {fault.line}, column {fault.column}: "
    return f"{position}{fault.pointer or 'the whole document'}"


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="brain-clusters")
def main() -> None:
    """BRAiN Clusters: Celery workers as clusters that scale, sleep and wake.

    Everything is set by BRAIN_* variables; see 'brain-clusters config'.
    """
