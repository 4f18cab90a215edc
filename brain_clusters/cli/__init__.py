"""The command line. The table of commands is in ``lazy``; a command's module is imported when it is called.

Says what it does in plain sentences; no business rule lives here. Commands that look at clusters and change them ask
the API, as any other program does, so they work from another machine too.
"""

from __future__ import annotations

import click

from brain_clusters import __version__
from brain_clusters.cli.lazy import LazyGroup


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="brain-clusters")
@click.option("--no-color", is_flag=True, help="No colours; there are none either when piped, or with NO_COLOR set.")
@click.option("--traceback", is_flag=True, help="Show where an error that is a fault of ours came from.")
# What another program has set, whatever it is: it is no flag of ours, which would have to be true or false.
@click.option("--no-color-variable", envvar="NO_COLOR", hidden=True, expose_value=True)
@click.pass_context
def main(ctx: click.Context, no_color: bool, traceback: bool, no_color_variable: str | None) -> None:
    """BRAiN Clusters: Celery workers as clusters that scale, sleep and wake.

    Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 the plan differs from what is there, 4 not found.
    """
    if no_color or no_color_variable:
        ctx.color = False
    ctx.obj = {"traceback": traceback}
