"""``monitoring.alerts``: its Cerberus schema, what the schema cannot tell, and the rules that are made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any, get_args

from brain_clusters.blueprints.messages import clipped, nearest, shown
from brain_clusters.domain.alerts import (
    LONGEST_FOR_SECONDS,
    LONGEST_RESOLVE_AFTER_SECONDS,
    Action,
    AlertRule,
    Severity,
    default_name,
)
from brain_clusters.domain.conditions import MAX_LENGTH, Condition, overlap, parse_condition
from brain_clusters.domain.durations import parse_duration
from brain_clusters.errors import Fault

ACTIONS: tuple[Action, ...] = get_args(Action)
Report = Callable[[str, str], None]


def _check_condition(field: str, value: Any, report: Report) -> None:
    try:
        parse_condition(value)
    except ValueError as refusal:
        report(field, f"cannot be read: {refusal}")


def _check_action(field: str, value: Any, report: Report) -> None:
    """Judge a single word; the entries of a list are judged by the schema."""
    if isinstance(value, str) and value not in ACTIONS:
        known = ", ".join(ACTIONS)
        report(field, f"must be one of {known}, or a list of them, not {shown(value)}{nearest(value, ACTIONS)}")
    elif isinstance(value, list) and len({str(each) for each in value}) < len(value):
        report(field, "names an action twice; name each once")


def _check_up_to(longest: float) -> Callable[[str, Any, Report], None]:
    def check(field: str, value: Any, report: Report) -> None:
        try:
            if parse_duration(value) > longest:
                raise ValueError(f"must be a duration of at most {longest / 86_400:g} days")
        except ValueError as refusal:
            report(field, f"{refusal}, not {shown(value)}")

    return check


def _condition(description: str, **rules: Any) -> dict[str, Any]:
    checks = {"minlength": 1, "maxlength": MAX_LENGTH, "check_with": _check_condition}
    return {"type": "string", **checks, "meta": {"description": description}, **rules}


def _duration(description: str, longest: float, default: float) -> dict[str, Any]:
    rule = {"type": ["number", "string"], "check_with": _check_up_to(longest), "default": default}
    return {**rule, "meta": {"description": description}}


_DEFAULTS: dict[str, Any] = {one.name: one.default for one in fields(AlertRule)}

ALERT: dict[str, dict[str, Any]] = {
    "name": {
        "type": "string",
        "minlength": 1,
        "maxlength": 100,
        "meta": {"description": "What it is called; by default its condition and action. Unique in the blueprint."},
    },
    "condition": _condition("When it fires, such as error_rate > 10%.", required=True),
    "action": {
        "type": ["string", "list"],
        "required": True,
        "minlength": 1,
        "maxlength": 100,
        "check_with": _check_action,
        "schema": {"type": "string", "allowed": list(ACTIONS)},
        "meta": {"description": "What happens then, such as notify_admin; one or a list.", "words": list(ACTIONS)},
    },
    "for": _duration("The condition must hold for so long.", LONGEST_FOR_SECONDS, default=_DEFAULTS["for_seconds"]),
    "resolve": _condition("When it is over; by default when the condition is false by a tenth of its threshold."),
    "resolve_after": _duration(
        "It is over when that lasted for so long.",
        LONGEST_RESOLVE_AFTER_SECONDS,
        default=_DEFAULTS["resolve_after_seconds"],
    ),
    "severity": {
        "type": "string",
        "allowed": list(get_args(Severity)),
        "default": _DEFAULTS["severity"],
        "meta": {"description": "How bad it is."},
    },
}

ALERTS: dict[str, Any] = {
    "type": "list",
    "maxlength": 100,
    "schema": {"type": "dict", "schema": ALERT, "meta": {"description": "One alert."}},
    "meta": {"description": "What to do when a metric leaves its bounds."},
}


def alert_rules(entries: list[Mapping[str, Any]]) -> tuple[AlertRule, ...]:
    """Return sound entries (defaults filled in) as rules."""
    return tuple(_rule(entry) for entry in entries)


def _rule(entry: Mapping[str, Any]) -> AlertRule:
    condition, actions = parse_condition(entry["condition"]), _actions(entry["action"])
    return AlertRule(
        name=entry.get("name") or default_name(condition, actions),
        condition=condition,
        actions=actions,
        for_seconds=parse_duration(entry["for"]),
        resolve=parse_condition(entry["resolve"]) if "resolve" in entry else None,
        resolve_after_seconds=parse_duration(entry["resolve_after"]),
        severity=entry["severity"],
    )


def _actions(stated: Any) -> tuple[Action, ...]:
    return tuple([stated] if isinstance(stated, str) else stated)


def _is_whole(entry: Any) -> bool:
    """Tell whether an entry has its condition and its actions: what was refused was taken out, or became None."""
    if not isinstance(entry, dict) or not {"condition", "action"} <= entry.keys():
        return False
    return None not in _actions(entry["action"])


def alert_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what is wrong between the sound parts of ``monitoring.alerts``: repetitions and contradictions."""
    entries = document.get("monitoring", {}).get("alerts", [])
    names: dict[str, int] = {}
    meanings: dict[tuple[Condition, frozenset[str]], int] = {}
    for index, entry in enumerate(entries):
        if not _is_whole(entry):
            continue
        pointer = f"/monitoring/alerts/{index}"
        condition, actions = parse_condition(entry["condition"]), _actions(entry["action"])
        before = meanings.setdefault((condition, frozenset(actions)), index)
        name = entry.get("name") or default_name(condition, actions)
        named = names.setdefault(name, index)
        if before != index:
            yield Fault(f"{pointer}/condition", f"alert {before + 1} has this condition and action; remove one")
        elif named != index:
            told = f"the name '{clipped(name)}' is taken by alert {named + 1}; choose another"
            yield Fault(f"{pointer}/{'name' if 'name' in entry else 'condition'}", told)
        if "resolve" in entry and overlap(condition, parse_condition(entry["resolve"])):
            told = "resolve and condition can be true at once, so neither would last; let them exclude each other"
            yield Fault(f"{pointer}/resolve", told)
