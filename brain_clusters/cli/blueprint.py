"""``blueprint``: check blueprints and print their JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path

import click

from brain_clusters.errors import InvalidInput, NotFound


@click.group()
def blueprint() -> None:
    """Work with blueprint files."""


@blueprint.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
def validate(files: tuple[Path, ...]) -> None:
    """Check blueprint files and report every fault with its line and column. Exits 2 when there is one."""
    faulty = [file for file in files if not _is_valid(file)]
    if faulty:
        raise click.exceptions.Exit(2)


@blueprint.command()
def schema() -> None:
    """Print the JSON Schema of blueprints, for editors."""
    from brain_clusters.blueprints.jsonschema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


def _is_valid(file: Path) -> bool:
    """Check one file and say how it stands with it."""
    from brain_clusters.blueprints.validator import format_faults, load_blueprint  # here: YAML and Cerberus are slow

    try:
        found = load_blueprint(file)
    except NotFound as exc:
        click.secho(f"error: {exc}", fg="red", err=True)
        return False
    except InvalidInput as exc:
        click.secho(format_faults(str(file), exc.faults), fg="red", err=True)
        return False
    click.echo(f"{file}: {found.id} {found.version} is valid, with {len(found.groups)} agent groups")
    return True
