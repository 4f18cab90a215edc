"""docs/reference/blueprint.md, made of the schema that blueprints are validated by. Run this module to write it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from brain_clusters.blueprints.schema import BLUEPRINT

from .blocks import ROOT

PAGE = ROOT / "docs" / "reference" / "blueprint.md"
_HEAD = """# Blueprint keys

Every key of a blueprint, with its type, its default and its meaning. For looking up; [the
format](../../blueprints/README.md) says how keys work together, what the kinds of values are, and what is refused.

Made of the schema that blueprints are validated by: `python -m tests.documents.blueprint_page` writes it, and a test
compares. A dash is no default: nothing is done without the key, or its meaning says what is. Keys that begin with `x-`
are free at every place. `brain-clusters blueprint schema` prints the same as JSON Schema, and
`brain-clusters blueprint render FILE` shows a blueprint with all defaults.
"""
# What a value is called that has a check of its own.
_CHECKS = {
    "duration": "duration", "positive_duration": "duration above 0", "percent": "percentage", "count": "count",
    "cron": "cron", "timezone": "time zone", "threshold": "number or percentage", "cpu": "cores", "memory": "size",
    "driver": "name of a driver", "gpus": "number or `all`", "max_parallel": "number or percentage",
}  # fmt: skip
_TYPES = {
    "string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "list": "list",
    "dict": "mapping",
}  # fmt: skip
_BOUNDS = {"min": "from {}", "max": "to {}"}


def page() -> str:
    """Return the whole page."""
    return "\n".join([_HEAD, *_sections("", BLUEPRINT)])


def _sections(path: str, keys: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of keys, then a section for each of them that has keys of its own."""
    yield from ("| key | type | default | meaning |", "|---|---|---|---|")
    yield from (_row(key, rule) for key, rule in keys.items())
    yield ""
    for key, rule in keys.items():
        inner = _inner(rule)
        if inner is not None:
            name = f"{path}.{key}" if path else key
            yield from (f"## `{name}`", "")
            yield from _sections(name, inner)


def _row(key: str, rule: Mapping[str, Any]) -> str:
    meta = rule["meta"]
    means = meta["description"] + (f" It must {meta['must']}." if "must" in meta else "")
    return f"| `{key}` | {_type(rule)} | {_default(rule)} | {_cell(means)} |"


def _inner(rule: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the keys below a rule; None where there are none, or any."""
    if "conditions" in rule:
        return dict(rule["conditions"])
    inner = rule.get("schema")
    if inner is not None and "list" in rule["type"]:
        inner = inner.get("schema") if inner.get("type") == "dict" else None
    return inner


def _type(rule: Mapping[str, Any]) -> str:
    words = [*rule.get("allowed", ()), *rule.get("meta", {}).get("words", ())]
    if words:
        return ", ".join(f"`{_shown(word)}`" for word in words) + (", or a list" if "list" in rule["type"] else "")
    check = rule.get("check_with")
    name = _CHECKS.get(check) if isinstance(check, str) else _named(check)
    return name or _plain(rule)


def _plain(rule: Mapping[str, Any]) -> str:
    stated = rule["type"]
    types = [stated] if isinstance(stated, str) else list(stated)
    if "conditions" in rule:
        return "list or mapping"
    if len(types) == len(_TYPES) - 1:
        return "anything"
    bounds = [form.format(_shown(rule[key])) for key, form in _BOUNDS.items() if key in rule]
    of = {"string": " of text", "dict": " of mappings"}.get(str(rule.get("schema", {}).get("type")), "")
    return " ".join([" or ".join(_TYPES[each] for each in types) + (of if types == ["list"] else ""), *bounds])


def _named(check: Any) -> str | None:
    """Return what a check that is a function wants; those of alerts are."""
    if check is None:
        return None
    return "condition" if "condition" in check.__qualname__ else "duration"


def _default(rule: Mapping[str, Any]) -> str:
    if rule.get("required"):
        return "required"
    if rule.get("default") in (None, {}, []):
        return "-"
    unit = " s" if "duration" in str(rule.get("check_with")) and not isinstance(rule["default"], str) else ""
    return f"`{_shown(rule['default'])}{unit}`"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    PAGE.write_text(page())
