"""``jobs``: sent, read, retried and cancelled; one or all that match, with their count first."""

from __future__ import annotations

from typing import Any

import click

from brain_clusters.cli import fetch, options
from brain_clusters.cli.bulk import cancel_all, show_letters, treat
from brain_clusters.cli.client import ApiClient, path_of
from brain_clusters.cli.commands.look import limit_for_reader, tell_rest
from brain_clusters.cli.jobtree import tree_lines
from brain_clusters.cli.kinds import JOBS
from brain_clusters.cli.output import show, show_data
from brain_clusters.cli.payloads import read_lines, read_payload, show_result, wait_for_jobs
from brain_clusters.cli.table import screen_width
from brain_clusters.cli.watching import watch_rows
from brain_clusters.errors import InvalidInput

_JOB_IDS = click.argument("ids", nargs=-1, metavar="[JOB]...")
_PER_REQUEST = 1000


@click.group()
def jobs() -> None:
    """Submit, list, retry and cancel jobs; dead letters."""


@jobs.command()
@click.argument("payload", required=False, metavar="[JSON|@FILE|-]")
@click.option(
    "-c",
    "--cluster",
    metavar="CLUSTER",
    shell_complete=options.complete_clusters,
    help="Where to; without it, to the cluster that offers the capability and will begin it first.",
)
@click.option("--to", metavar="GROUP", help="The agent group; the supervisor without it, or --capability.")
@click.option("--capability", help="What the group must be capable of.")
@click.option("--lines", "lines_of", metavar="FILE|-", help="A job for each line, which is its payload in JSON.")
@click.option("--priority", type=click.Choice(["high", "normal", "low"]), help="Before or after what waits.")
@click.option("--delay", metavar="DURATION", help="Not before it has passed, such as '5 minutes'.")
@click.option("--eta", metavar="TIME", help="Not before; ISO 8601 with an offset.")
@click.option("--expires", metavar="DURATION|TIME", help="Not after.")
@click.option("--job-timeout", "timeout", metavar="DURATION", help="The longest that one attempt may take.")
@click.option("--max-attempts", type=click.IntRange(1), help="How often it is tried.")
@click.option("--backoff", metavar="DURATION", help="The wait before the second attempt.")
@click.option("--job-key", "key", metavar="KEY", help="Of jobs with the same key there is one in a cluster.")
@click.option("--wait", "--follow", "wait", is_flag=True, help="Wait for the result and print it; exits 1 without one.")
@click.option(
    "--timeout", "patience", default=600.0, show_default=True, metavar="SECONDS", help="How long --wait waits."
)
@options.dry_run
@options.output
@options.connected
def submit(
    api: ApiClient, payload: str | None, cluster: str | None, lines_of: str | None, wait: bool, patience: float,
    dry_run: bool, output: str, **given: Any,
) -> None:  # fmt: skip
    """Send a job with a payload: JSON, the JSON of @FILE, or of the input with '-'.

    \b
    brain-clusters jobs submit -c shop '{"order": 7}' --wait
    brain-clusters jobs submit -c shop --to Readers --lines orders.jsonl
    brain-clusters jobs submit --capability source_digest @job.json
    """
    terms = {name: value for name, value in given.items() if value is not None}
    if lines_of is not None:
        if payload is not None or cluster is None:
            raise InvalidInput("--lines takes the place of a payload, and needs --cluster")
        bodies = [{**terms, "payload": one} for one in read_lines(lines_of)]
    else:
        bodies = [{**terms, "payload": read_payload(payload)}]
    if cluster is None and "capability" not in terms:
        raise InvalidInput("say where to: --cluster CLUSTER, or --capability WORD for whichever cluster offers it")
    path = "/api/jobs" if cluster is None else path_of("clusters", cluster, "jobs")
    if dry_run:
        show_data({f"POST {path}": bodies if lines_of else bodies[0]}, "json" if output == "json" else "yaml")
        return
    sent = _send_list(api, path, bodies) if lines_of else api.post(path, bodies[0])
    if wait:
        ended = wait_for_jobs(api, [one["id"] for one in sent.get("jobs") or [sent["job"]]], patience)
        show_result(ended, output, listed=lines_of is not None)
        return
    _show_sent(sent, output)


def _send_list(api: ApiClient, path: str, bodies: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"jobs": [], "accepted": 0}
    for place in range(0, len(bodies), _PER_REQUEST):
        sent = api.post(path, bodies[place : place + _PER_REQUEST])
        found["jobs"] += sent["jobs"]
        found["accepted"] += sent["accepted"]
    return found


def _show_sent(sent: Any, output: str) -> None:
    if output in ("json", "yaml"):
        show_data(sent, output)
    elif output == "name":
        for one in sent.get("jobs") or [sent["job"]]:
            click.echo(one["id"])
    elif "jobs" in sent:
        click.echo(f"{sent['accepted']} jobs accepted")
    else:
        job = sent["job"]
        click.echo(f"{job['id']}: {job['status']} for {job['group']} of {job['cluster_id']}")


@jobs.command(name="list")
@options.cluster_option
@click.option("--status", help="queued, running, succeeded, failed, dead or cancelled; several by commas.")
@click.option("--group", help="The agent group.")
@click.option("--capability", help="What was asked for.")
@click.option("--priority", type=click.Choice(["high", "normal", "low"]), help="Of that priority.")
@click.option("--error", help="The key of an error, as 'jobs dead' shows it.")
@click.option("--parent", metavar="JOB", help="Handed down by this job.")
@click.option("--since", metavar="TIME", help="Made since; ISO 8601 with an offset.")
@click.option("--until", metavar="TIME", help="Made until.")
@click.option("--limit", type=click.IntRange(1), help="The newest so many; all into a pipe, 100 on a terminal.")
@options.output
@options.watch
@options.connected
def list_(api: ApiClient, cluster: str | None, limit: int | None, output: str, watch: bool, **filters: Any) -> None:
    """List jobs, newest first."""
    given = {name: value for name, value in filters.items() if value is not None}

    def found() -> Any:
        return fetch.listing(api, JOBS, cluster, given, limit_for_reader(limit))

    if watch:
        watch_rows(found, JOBS, output)
        return
    answer = found()
    show(answer, JOBS, output)
    tell_rest(answer, "jobs")


@jobs.command(name="get")
@click.argument("ids", nargs=-1, required=True, metavar="JOB...")
@click.option("--wait", "--follow", "wait", is_flag=True, help="Wait for the result and print it; exits 1 without one.")
@click.option(
    "--timeout", "patience", default=600.0, show_default=True, metavar="SECONDS", help="How long --wait waits."
)
@options.output
@options.connected
def get(api: ApiClient, ids: tuple[str, ...], wait: bool, patience: float, output: str) -> None:
    """Show JOBs; with --wait, their results once they have one."""
    if wait:
        show_result(wait_for_jobs(api, ids, patience), output, listed=len(ids) > 1)
    else:
        show(fetch.these(api, JOBS, ids), JOBS, output)


@jobs.command()
@click.argument("job", metavar="JOB")
@click.option("--root", is_flag=True, help="The whole tree that it belongs to.")
@options.output
@options.connected
def tree(api: ApiClient, job: str, root: bool, output: str) -> None:
    """Show what JOB handed down, and what that handed down."""
    found = api.get(path_of("jobs", job, "tree"), root=root)
    if output in ("json", "yaml"):
        show_data(found, output)
        return
    for line in tree_lines(found["tree"], names_only=output == "name"):
        click.echo(line)
    if found["truncated"]:
        click.echo("the tree is larger than what the API shows", err=True)


@jobs.command()
@_JOB_IDS
@options.cluster_option
@click.option("--error", "error_key", help="With --cluster: only dead letters of this error.")
@click.option("--group", help="With --cluster: only those of this agent group.")
@click.option("--since", metavar="TIME", help="With --cluster: only those that ended since.")
@options.yes
@options.dry_run
@options.output
@options.connected
def retry(
    api: ApiClient, ids: tuple[str, ...], cluster: str | None, yes: bool, dry_run: bool, output: str, **letters: Any
) -> None:
    """Queue JOBs again, or all dead letters of a cluster that match, whose count is shown first."""
    wanted = {name: value for name, value in letters.items() if value is not None}
    if bool(ids) == bool(cluster) or (ids and wanted):
        raise InvalidInput("name JOBs, or a --cluster whose dead letters are meant, and what narrows those")
    if cluster:
        treat(api, cluster, "retry", wanted, yes=yes, dry_run=dry_run, output=output)
        return
    if dry_run:
        show(fetch.these(api, JOBS, ids), JOBS, output)
        return
    for job in ids:
        _show_sent(api.post(path_of("jobs", job, "retry"), {}), output)


@jobs.command()
@_JOB_IDS
@options.cluster_option
@click.option("--status", type=click.Choice(["queued", "running"]), help="With --cluster: only those.")
@click.option("--group", help="With --cluster: only those of this agent group.")
@click.option("--since", metavar="TIME", help="With --cluster: only those made since.")
@click.option("--grace", metavar="DURATION", help="How long a running one has to end by itself; 10 s without it.")
@options.yes
@options.dry_run
@options.output
@options.connected
def cancel(
    api: ApiClient, ids: tuple[str, ...], cluster: str | None, grace: str | None, yes: bool, dry_run: bool,
    output: str, **filters: Any,
) -> None:  # fmt: skip
    """Cancel JOBs, or all unfinished ones of a cluster that match, whose count is shown first."""
    wanted = {name: value for name, value in filters.items() if value is not None}
    if bool(ids) == bool(cluster) or (ids and wanted):
        raise InvalidInput("name JOBs, or a --cluster whose unfinished jobs are meant, and what narrows those")
    told = {} if grace is None else {"grace": grace}
    if cluster:
        cancel_all(api, cluster, wanted, told, yes=yes, dry_run=dry_run, output=output)
        return
    if dry_run:
        show(fetch.these(api, JOBS, ids), JOBS, output)
        return
    for job in ids:
        _show_sent(api.post(path_of("jobs", job, "cancel"), told), output)


@jobs.command()
@options.cluster_argument
@click.option("--error", "error_key", help="Only this error, by its key.")
@click.option("--group", help="Only those of this agent group.")
@click.option("--since", metavar="TIME", help="Only those that ended since.")
@click.option("--retry", "treatment", flag_value="retry", help="Queue them again.")
@click.option("--discard", "treatment", flag_value="discard", help="Put them aside, and drop their payloads.")
@options.yes
@options.dry_run
@options.output
@options.connected
def dead(
    api: ApiClient, cluster: str, treatment: str | None, yes: bool, dry_run: bool, output: str, **letters: Any
) -> None:
    """Show the jobs of CLUSTER that ended without success, by their error; retry or discard them."""
    wanted = {name: value for name, value in letters.items() if value is not None}
    if treatment is not None:
        treat(api, cluster, treatment, wanted, yes=yes, dry_run=dry_run, output=output)
        return
    found = api.get(path_of("clusters", cluster, "dead-letters"), **wanted)
    if output in ("json", "yaml"):
        show_data(found, output)
    elif output == "name":
        for one in found["dead_letters"]:
            click.echo(one["error_key"])
    elif found["total"]:
        show_letters(found["dead_letters"], None if output == "wide" else screen_width())
    else:
        click.echo(f"no job of {cluster} ended without success", err=True)
