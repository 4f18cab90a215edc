"""``export``: write clusters for those who want something else to run their agents."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from brain_clusters.cli import options
from brain_clusters.cli.client import path_of
from brain_clusters.config import Settings
from brain_clusters.domain.specs import Blueprint

_HEAD = """\
# Cluster {cluster}, blueprint {blueprint} {version}, written by `brain-clusters export kubernetes`.
#
# Its agents do jobs as those of a host do, and are started, counted and ended by Kubernetes and KEDA. Before:
#   - Have the cluster asleep in the control plane, or that starts agents of its own beside these; and have
#     `reactivate_triggers: [manual_trigger]` in its blueprint, or a job wakes it. Let the control plane run: it takes
#     jobs and outcomes, and returns what a dead agent held, {lease:g} s after its last beat.
#   - Make the Secret {secret} here, with the keys
#         BRAIN_AGENT_REDIS_URL         as agents reach Redis: redis://:PASSWORD@HOST:6379/{database}
#         address, username, password   the same for KEDA: HOST:6379, and "" for what there is none of
#
# What is lost against the driver `kubernetes`:
#   - Victims: a smaller Deployment ends any of its pods, busy ones too. SIGTERM lets each finish its job within
#     terminationGracePeriodSeconds; nothing undoes it, and a longer job is begun again by another agent.
#   - Counting: KEDA sees what waits and not what runs. It sees each priority by itself and takes the largest need, not
#     the sum. target_latency, service times, arrival rates, start times and learned windows count for nothing; of jobs
#     an agent should have, `queue_per_slot` says how many.
#   - Jobs with a due time keep one agent awake from when they are in Redis until they are done.
#   - The cluster as a whole: max_workers bounds each group and not their sum; groups with a fixed count never sleep;
#     alerts, budgets that put to sleep, pausing, `explain` and the costs of hours know nothing of these agents.
"""
_LEFT_OUT = """\
#
# Left out is {group}: its agents are workers of the application {app}, and a Deployment that runs
# `celery -A {app} worker -Q {queues}` is all that it takes.
"""
# Kubernetes reads YAML with more words for true and false, and more ways to write numbers, than PyYAML knows.
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9./_-]*")
_NO_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


@click.group()
def export() -> None:
    """Write a cluster for something else to run."""


@export.command()
@options.cluster_argument
@click.option("--image", help="The agents' image, where their group names none; BRAIN_AGENT_IMAGE without it.")
@click.option("--namespace", help="The namespace of all objects; without it, kubectl's.")
@click.option("--secret", default="brain-clusters-agent", show_default=True, help="The Secret with Redis's address.")
@click.option("--redis-database", default=0, show_default=True, type=click.IntRange(0), help="Its number.")
@click.option(
    "--blueprint", "file", metavar="FILE", type=click.Path(path_type=Path), help="Read this one, and ask no API."
)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="The file; without it, print it.")
@options.targeted
def kubernetes(
    cluster: str, file: Path | None, output: Path | None, image: str | None, secret: str, **where: Any,
) -> None:  # fmt: skip
    """Write CLUSTER as a Deployment for each group, with a ScaledObject of KEDA where it may have from some to many.

    What agents are told by BRAIN_* settings, such as BRAIN_LLM_BASE_URL, is what holds where this is called.
    """
    from brain_clusters.blueprints.validator import load_blueprint
    from brain_clusters.cli.commands.run import agent_config
    from brain_clusters.services.exporting import LEASE_SECONDS, Place, manifests

    given = {name: where.pop(name) for name in ("api_url", "api_key", "context")}
    settings = Settings.from_env()
    settings = replace(settings, agent_image=image or settings.agent_image, kubernetes_secret=secret)
    # No host, and nothing of this machine.
    alone: dict[str, object] = {
        "host_id": None,
        "run_dir": "",
        "log_dir": "",
        "handler_path": [],
        "beat_stale": LEASE_SECONDS,
    }
    agent = {**agent_config(settings, ""), **alone}
    place = Place(settings, agent, **where)
    blueprint, per_day = _asked(cluster, given) if file is None else (load_blueprint(file), None)
    objects = manifests(cluster, blueprint, place, budget_per_day=per_day)
    head = _head(cluster, blueprint, secret=secret, database=place.redis_database, lease=LEASE_SECONDS)
    text = head + "".join(f"---\n{_yaml(each)}" for each in objects)
    if output is None:
        click.echo(text, nl=False)
        return
    output.write_text(text, encoding="utf-8")
    click.echo(f"{output}: read what its head says, then kubectl apply -f {output}")


def _asked(cluster: str, given: dict[str, Any]) -> tuple[Blueprint, float | None]:
    """Return a cluster's blueprint, and its own budget of a day, from the API that the options name."""
    from brain_clusters.blueprints.validator import parse_blueprint

    with options.client_of(options.take_target(given)) as api:
        found = api.get(path_of("clusters", cluster))
        stored = api.get(path_of("blueprints", found["blueprint_id"]), version=found["blueprint_version"])
    return parse_blueprint(stored["blueprint_yaml"], source=stored["id"]), found["budget_per_day"]


def _head(cluster: str, blueprint: Blueprint, **told: Any) -> str:
    """Return what is to be done before, and what is lost."""
    left_out = "".join(
        _LEFT_OUT.format(group=group.name, app=group.celery.app, queues=",".join(group.celery.queues))
        for group in blueprint.foreign
        if group.celery is not None
    )
    return _HEAD.format(cluster=cluster, blueprint=blueprint.id, version=blueprint.version, **told) + left_out


def _yaml(document: Any) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes what occurs twice twice, and in quotes what another reader could take for something else than text."""

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's
            return True

        def text(self, data: str) -> Any:
            is_word = _WORD.fullmatch(data) and data.lower() not in _NO_WORDS
            return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if is_word else "'")

    Dumper.add_representer(str, Dumper.text)
    text: str = yaml.dump(document, Dumper=Dumper, sort_keys=False, width=120)
    return text
