"""The blueprint format as JSON Schema 2020-12, for editors, translated from the Cerberus schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brain_clusters.blueprints.schema import BLUEPRINT

_TYPES = {
    "string": "string",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "list": "array",
    "dict": "object",
}
_NUMBER_RULES = {"min": "minimum", "max": "maximum"}
_LENGTH_RULES = {
    "string": {"minlength": "minLength", "maxlength": "maxLength"},
    "list": {"minlength": "minItems", "maxlength": "maxItems"},
    "dict": {"minlength": "minProperties", "maxlength": "maxProperties"},
}


def json_schema() -> dict[str, Any]:
    """Return the schema of a whole blueprint."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "BRAiN Clusters blueprint",
        **_mapping(BLUEPRINT),
    }


def _mapping(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a mapping with known keys; keys that begin with x- are free."""
    translated: dict[str, Any] = {
        "type": "object",
        "properties": {key: _rule(rule) for key, rule in keys.items()},
        "patternProperties": {"^x-": True},
        "additionalProperties": False,
    }
    required = [key for key, rule in keys.items() if rule.get("required")]
    return translated | ({"required": required} if required else {})


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    stated = rule.get("type", [])
    types = [stated] if isinstance(stated, str) else list(stated)
    meta = rule.get("meta", {})
    translated: dict[str, Any] = {key: meta[key] for key in ("description",) if key in meta}
    names = [_TYPES[name] for name in types] + (["null"] if rule.get("nullable") else [])
    if names:
        translated["type"] = names[0] if len(names) == 1 else names
    for name in types:
        translated |= {ours: rule[key] for key, ours in _LENGTH_RULES.get(name, {}).items() if key in rule}
    translated |= {ours: rule[key] for key, ours in _NUMBER_RULES.items() if key in rule}
    translated |= {ours: rule[key] for key, ours in {"regex": "pattern", "default": "default"}.items() if key in rule}
    if "allowed" in rule:
        translated["enum"] = [*rule["allowed"], *([None] if rule.get("nullable") else [])]
    return translated | _inner(rule, types)


def _inner(rule: Mapping[str, Any], types: list[str]) -> dict[str, Any]:
    """Translate what a rule says about the values inside: schema, conditions, keysrules, valuesrules, anyof."""
    inner: dict[str, Any] = {}
    if "schema" in rule and "list" in types:
        inner["items"] = _rule(rule["schema"])
    elif "schema" in rule:
        inner |= _mapping(rule["schema"])
    if "conditions" in rule:
        inner |= _conditions(rule["conditions"])
    if "keysrules" in rule:
        inner["propertyNames"] = _rule(rule["keysrules"])
    if "valuesrules" in rule:
        inner["additionalProperties"] = _rule(rule["valuesrules"])
    if "words" in rule.get("meta", {}):  # one of these words, or a list
        inner["anyOf"] = [{"enum": rule["meta"]["words"]}, {"type": "array"}]
    if "anyof" in rule:
        inner["anyOf"] = [_rule(each) for each in rule["anyof"]]
    return inner


def _conditions(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Translate our rule ``conditions``: a mapping, or a list of mappings and bare words."""
    mapping = _mapping(keys)
    words = [key for key, rule in keys.items() if rule["type"] == "boolean"]
    return {"anyOf": [mapping, {"type": "array", "items": {"anyOf": [mapping, {"enum": words}]}}]}
