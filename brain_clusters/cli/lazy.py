"""The table of commands, and the group that imports one when it is called."""

from __future__ import annotations

import keyword
from importlib import import_module
from typing import NamedTuple

import click

from brain_clusters.cli.faults import exit_code, show_error, show_fault_of_ours
from brain_clusters.errors import BrainError


class Entry(NamedTuple):
    """Where a command is, and its line in --help, which must not import it.

    serves: it is a process that runs on, whose log is to have the traceback of what nobody expected.
    """

    module: str
    help: str
    serves: bool = False


SECTIONS: dict[str, dict[str, Entry]] = {
    "System": {
        "up": Entry("up", "Run the whole system until Ctrl-C.", serves=True),
        "down": Entry("up", "Stop the system that runs for this BRAIN_HOME."),
        "demo": Entry("demo", "Run the whole main job once, show it and clean up.", serves=True),
        "status": Entry("status", "What runs, and what needs attention."),
        "doctor": Entry("doctor", "Check everything that can be wrong, and say what to do."),
    },
    "Clusters": {
        "create": Entry("clusters", "Make a cluster from a blueprint."),
        "scale": Entry("clusters", "Set the number of agents of a cluster, or of its groups."),
        "hibernate": Entry("clusters", "Put clusters to sleep: no agent is left."),
        "wake": Entry("clusters", "Wake clusters."),
        "pause": Entry("clusters", "Have the autoscaler leave clusters alone."),
        "resume": Entry("clusters", "Have the autoscaler look after clusters again."),
        "destroy": Entry("clusters", "Stop all agents of clusters for good."),
        "apply": Entry("declare", "Make everything what files say; changes only what differs."),
        "plan": Entry("declare", "Show what 'apply' would change, and what that costs."),
        "diff": Entry("declare", "Show what 'apply' would change, line by line."),
        "rollout": Entry("rollout", "Bring a cluster to another version of its blueprint, or back."),
    },
    "Work": {
        "jobs": Entry("jobs", "Submit, list, retry and cancel jobs; dead letters."),
        "agents": Entry("agents", "List, drain and replace agents."),
    },
    "Look": {
        "get": Entry("look", "List clusters, agents, jobs, events, hosts, ..."),
        "describe": Entry("describe", "Tell all about one of them."),
        "logs": Entry("logs", "What agents wrote; -f follows."),
        "events": Entry("events", "Who or what did what, and why; -w follows."),
        "top": Entry("top", "Watch all clusters: backlog, oldest job, agents."),
        "explain": Entry("scaling", "Say what the autoscaler would do with a cluster now, and why."),
        "replay": Entry("scaling", "Make stored scaling decisions again by another blueprint."),
        "costs": Entry("costs", "What was used, what it cost, and what sleeping saved."),
    },
    "Blueprints": {
        "blueprint": Entry("blueprint", "Check, render and list blueprints; print their JSON Schema."),
        "import": Entry("importing", "Write a blueprint for an existing application."),
        "export": Entry("exporting", "Write a cluster for Kubernetes and KEDA to run."),
    },
    "Access": {
        "keys": Entry("keys", "List, create, revoke and rotate keys of the API."),
        "config": Entry("config", "Show the settings in force; name the APIs you talk to."),
        "completion": Entry("completion", "Print the completion script of a shell."),
    },
    "Processes of the system": {
        "migrate": Entry("run", "Bring the database's schema up to date."),
        "api": Entry("run", "Run the REST API.", serves=True),
        "worker": Entry("run", "Run the worker of lifecycle commands.", serves=True),
        "beat": Entry("run", "Run the clock of the autoscaler.", serves=True),
        "host": Entry("run", "Run this machine's agents.", serves=True),
        "genesis": Entry("run", "Start agents here for hosts elsewhere.", serves=True),
    },
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class LazyGroup(click.Group):
    """A group that imports a command when it is called, and shows errors as sentences."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command and return it; None when there is none of that name."""
        found = COMMANDS.get(cmd_name)
        if found is None:
            return None
        # A command's function cannot be called as a word of Python's own is.
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        command = getattr(import_module(f"brain_clusters.cli.commands.{found.module}"), name)
        assert isinstance(command, click.Command)  # noqa: S101  (for mypy; a wrong table is our own fault)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is called; say which name is near to one that does not exist."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            ctx.fail(f"No such command {args[0]!r}.{_nearest(args[0])}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands by purpose."""
        for title, section in SECTIONS.items():
            with formatter.section(title):
                # One column for all sections: short names are padded to the longest.
                formatter.write_dl([(name.ljust(_WIDEST), entry.help) for name, entry in section.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Call the command; show what goes wrong as a sentence, and give its exit code."""
        try:
            return super().invoke(ctx)
        except BrainError as exc:
            show_error(exc)
            ctx.exit(exit_code(exc))
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click has an end of its own for each, the last is a reader of ours that went away
        except Exception as exc:  # noqa: BLE001 - nobody is to see a traceback
            return self._unexpected(ctx, exc)

    def _unexpected(self, ctx: click.Context, exc: Exception) -> object:
        entry = COMMANDS.get(ctx.invoked_subcommand or "")
        if (entry is not None and entry.serves) or (ctx.obj or {}).get("traceback"):
            raise exc
        show_fault_of_ours(exc)
        ctx.exit(1)


_WIDEST = max(map(len, COMMANDS))


def _nearest(name: str) -> str:
    from difflib import get_close_matches  # here: seldom needed

    near = get_close_matches(name, COMMANDS, 1)
    return f" Did you mean {near[0]}?" if near else ""
