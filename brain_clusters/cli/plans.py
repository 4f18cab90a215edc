"""Plans: asked for, carried out, and shown to a person."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import click

from brain_clusters.cli.client import ApiClient, path_of
from brain_clusters.cli.output import show_data
from brain_clusters.cli.progress import wait_for_operation
from brain_clusters.cli.words import NOTHING, plain, word
from brain_clusters.errors import InvalidInput, PermanentError

_SIGNS = {
    "create": ("+", "green"), "update": ("~", "yellow"), "unchanged": ("=", "bright_black"), "refused": ("!", "red"),
}  # fmt: skip
_POINTER = re.compile(r"/documents/([0-9]+)")


def ask_plan(api: ApiClient, sources: Mapping[str, str]) -> Any:
    """Return what texts would change; sources: by the names of their files, which faults are told with."""
    return _asked(api, "/api/plan", sources, {})


def apply_plan(api: ApiClient, sources: Mapping[str, str], plan: Any) -> Any:
    """Carry out a plan that was looked at; raise Conflict when it would be another one by now."""
    return _asked(api, "/api/apply", sources, {"fingerprint": plan["fingerprint"]})


def _asked(api: ApiClient, path: str, sources: Mapping[str, str], more: Mapping[str, Any]) -> Any:
    names = list(sources)

    def named(found: re.Match[str]) -> str:
        place = int(found[1])
        return f"{names[place]} " if place < len(names) else found[0]

    try:
        return api.post(path, {"documents": list(sources.values()), **more})
    except InvalidInput as exc:
        faults = [replace(fault, pointer=_POINTER.sub(named, fault.pointer).strip()) for fault in exc.faults]
        raise InvalidInput(str(exc), faults) from exc


def differs(plan: Any) -> bool:
    """Return whether a plan changes anything."""
    return bool(plan["changed"])


def refused(plan: Any) -> bool:
    """Return whether a part of a plan cannot be done, so that nothing of it will be."""
    return bool(plan["refused"])


def show_plan(plan: Any, output: str) -> None:
    """Show what is to be changed."""
    if output in ("json", "yaml"):
        show_data(plan, output)
    elif output == "name":
        for change in plan["changes"]:
            if change["action"] != "unchanged":
                click.echo(f"{change['kind']}/{change['id']}")
    else:
        for line in _lines(plan, wide=output == "wide"):
            click.echo(line)


def _lines(plan: Any, *, wide: bool) -> Iterator[str]:
    for change in plan["changes"]:
        sign, colour = _SIGNS[change["action"]]
        version = f" {change['version']}" if change["version"] else ""
        reason = f": {change['reason']}" if change["reason"] else ""
        yield click.style(plain(f"{sign} {change['kind']} {change['id']}{version}{reason}"), fg=colour)
        # All of what is new is in the file; what differs is news.
        if change["action"] == "update" or wide:
            for field in change["fields"]:
                yield f"    {word(field['field'])}: {word(field['before'])} -> {word(field['after'])}"
        for move in change["clusters"]:
            yield f"    {_move(move)}"
    yield _sum(plan)


def _move(move: Any) -> str:
    versions = f" from {move['from_version']}" if move["from_version"] not in (None, move["to_version"]) else ""
    reason = f": {move['reason']}" if move["reason"] else ""
    told = f"{move['action']} {move['cluster_id']}{versions} to {move['to_version']}{reason}"
    return plain(f"{told} ({_agents(move['agents'])}{_cost(move['cost_per_hour'])})")


def _agents(agents: Any) -> str:
    return ", ".join(f"{count} {name}" for name, count in agents.items() if count) or "no agent changes"


def _cost(cost: Any) -> str:
    if cost["before"] is None and cost["after"] is None:
        return ""
    return f"; cost per hour {_money(cost['before'])} -> {_money(cost['after'])}"


def _money(amount: float | None) -> str:
    return NOTHING if amount is None else f"{amount:.4g}"


def _sum(plan: Any) -> str:
    if refused(plan):
        return f"{plan['refused']} refused, so nothing would be done"
    if not differs(plan):
        return "nothing differs"
    return f"{plan['changed']} to change; agents: {_agents(plan['agents'])}{_cost(plan['cost_per_hour'])}"


def show_done(done: Any, output: str, *, waited: bool) -> None:
    """Show what was done of a plan; raise PermanentError when a part of it was not."""
    if output in ("json", "yaml", "name"):
        show_plan(done, output)
    else:
        begun = len(_operations(done))
        how = "ended" if waited else "began; 'brain-clusters get operations' shows them" if begun else "were needed"
        click.echo(f"{done['changed']} changed; {begun} operations {how}")
    failed = [change for change in done["changes"] if change["error"]]
    if failed:
        told = "; ".join(f"{one['kind']} {one['id']}: {one['error'].get('message')}" for one in failed)
        raise PermanentError(f"not all of it was done: {told}")


def show_diff(plan: Any) -> None:
    """Show what would become of texts and fields, line by line."""
    for change in plan["changes"]:
        lines = change["diff"].splitlines() or _field_lines(change)
        for line in lines:
            click.secho(plain(line), fg={"+": "green", "-": "red", "@": "cyan"}.get(line[:1]))


def _field_lines(change: Any) -> list[str]:
    found = [f"@@ {change['kind']} {change['id']} @@"] if change["fields"] else []
    for field in change["fields"]:
        found += [f"-{field['field']}: {word(field['before'])}"] if field["before"] is not None else []
        found += [f"+{field['field']}: {word(field['after'])}"] if field["after"] is not None else []
    return found


def _operations(done: Any) -> list[str]:
    """Return the ids of the operations that were begun, each once."""
    moves = [move["operation_id"] for change in done["changes"] for move in change["clusters"] if move["operation_id"]]
    return list(dict.fromkeys([*(one for change in done["changes"] for one in change["operations"]), *moves]))


def wait_for_changes(api: ApiClient, done: Any, timeout: float) -> None:
    """Wait for the operations that applying began; raise PermanentError when one fails."""
    for operation in _operations(done):
        wait_for_operation(api, api.get(path_of("operations", operation)), timeout)
