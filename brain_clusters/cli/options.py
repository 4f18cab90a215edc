"""Options that several commands have, each written once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from brain_clusters.cli.client import ApiClient
from brain_clusters.cli.kinds import KINDS
from brain_clusters.cli.target import Target, find
from brain_clusters.errors import BrainError, InvalidInput

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])
FORMATS = ("table", "wide", "json", "yaml", "name")
_COMPLETION_SECONDS = 0.5

output = click.option(
    "-o", "--output", type=click.Choice(FORMATS), default="table", show_default=True,
    help="How to show it; json and yaml have the API's names.",
)  # fmt: skip
watch = click.option("-w", "--watch", is_flag=True, help="Show it again whenever it changes, until Ctrl-C.")
yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be done.")
_WAITING = (
    click.option("--wait", is_flag=True, help="Wait until it is done; exits 1 when it fails."),
    click.option(
        "--timeout", default=120.0, show_default=True, type=click.FloatRange(min=0), metavar="SECONDS",
        help="How long --wait waits.",
    ),
)  # fmt: skip
_CONNECTION = (
    click.option("--api", "api_url", envvar="BRAIN_API_URL", metavar="URL", help="The API to talk to (BRAIN_API_URL)."),
    click.option(
        "--key", "api_key", envvar="BRAIN_API_KEY", metavar="KEY",
        help="The key to show (BRAIN_API_KEY, which no list of processes shows).",
    ),
    click.option(
        "--context", envvar="BRAIN_CONTEXT", metavar="NAME",
        help="The API named so by 'config set'; 'local' is the system of this machine (BRAIN_CONTEXT).",
    ),
)  # fmt: skip


def waiting(function: F) -> F:
    """Give a command --wait and --timeout."""
    return _with(function, _WAITING)


def connected(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an ApiClient as its first argument, and the options that say of which API."""

    @functools.wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        with client_of(take_target(given)) as api:
            return function(api, *args, **given)

    return _with(call, _CONNECTION)


def targeted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of an API; it takes them out of its arguments with ``take_target``."""
    return _with(function, _CONNECTION)


def take_target(given: dict[str, Any]) -> Target:
    """Return the API that the options name, which are taken out of ``given``."""
    return find(given.pop("api_url"), given.pop("api_key"), given.pop("context"))


def client_of(target: Target, **settings: Any) -> ApiClient:
    """Return a client of an API."""
    return ApiClient(target.url, key=target.key, key_from=target.key_from, **settings)


def complete_clusters(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Return the ids of clusters that begin so; none when the API does not answer at once."""
    from click.shell_completion import CompletionItem

    given = {name: ctx.params.get(name) for name in ("api_url", "api_key", "context")}
    try:
        with client_of(take_target(given), timeout=_COMPLETION_SECONDS) as api:
            found = api.get("/api/clusters", limit=200)["clusters"]
    except (BrainError, KeyError, TypeError):
        return []
    named = [(one["id"], f"{one['status']} {one['name']}") for one in found if one["status"] != "destroyed"]
    return [CompletionItem(one, help=told) for one, told in named if one.startswith(incomplete)]


cluster_argument = click.argument("cluster", metavar="CLUSTER", shell_complete=complete_clusters)
kind_argument = click.argument(
    "kind", metavar="KIND",
    type=click.Choice([name for kind in KINDS for name in (kind.plural, kind.singular, kind.short)], False),
)  # fmt: skip
cluster_option = click.option(
    "-c", "--cluster", shell_complete=complete_clusters, metavar="CLUSTER", help="Of this one."
)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before what cannot be undone; raise Abort, or InvalidInput where nobody can be asked."""
    import sys  # here: only for what is asked

    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidInput(f"{question} Nobody can be asked here; say --yes")
    click.confirm(question, abort=True, err=True)


def _with(function: F, options: Sequence[Callable[[F], F]]) -> F:
    for option in reversed(options):
        function = option(function)
    return function
