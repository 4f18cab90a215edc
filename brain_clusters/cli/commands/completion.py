"""``completion``: the scripts that let shells complete our commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

PROGRAM, VARIABLE = "brain-clusters", "_BRAIN_CLUSTERS_COMPLETE"
# The launcher of a checkout hands its arguments to the same command.
_ALSO = {
    "bash": "complete -o nosort -F _brain_clusters_completion ./brain\n",
    "zsh": "compdef _brain_clusters_completion brain\n",
    "fish": 'complete --no-files --command brain --arguments "(_brain_clusters_completion)"\n',
}


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash:  eval "$(brain-clusters completion bash)"            in ~/.bashrc
    zsh:   eval "$(brain-clusters completion zsh)"             in ~/.zshrc
    fish:  brain-clusters completion fish | source             in ~/.config/fish/config.fish

    Clusters are completed by asking the API, which has half a second to answer.
    """
    from brain_clusters.cli import main

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - all three are click's own
    click.echo(source(kind, main))
    click.echo(_ALSO[shell], nl=False)


def source(kind: type, command: click.Command) -> str:
    """Return click's script for a shell, without asking for the shell's version, as click itself does for bash."""
    made = kind(command, {}, PROGRAM, VARIABLE)
    return str(made.source_template % made.source_vars())
