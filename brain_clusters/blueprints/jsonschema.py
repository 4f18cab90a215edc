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
        **_mapping(BLUEPRINT, free=True),
    }


def mapping(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a mapping with known keys and no others, such as a request's body."""
    return _mapping(keys, free=False)


def rule(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of one value."""
    return _rule(stated, free=False)


def _mapping(keys: Mapping[str, Any], *, free: bool) -> dict[str, Any]:
    """Translate a mapping with known keys. free: any that begin with x- may be there, too."""
    translated: dict[str, Any] = {
        "type": "object",
        "properties": {key: _rule(rule, free=free) for key, rule in keys.items()},
        **({"patternProperties": {"^x-": True}} if free else {}),
        "additionalProperties": False,
    }
    required = [key for key, rule in keys.items() if rule.get("required")]
    return translated | ({"required": required} if required else {})


def _rule(rule: Mapping[str, Any], *, free: bool) -> dict[str, Any]:
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
    translated |= {"default": rule["default"]} if "default" in rule else {}
    # Cerberus matches the whole text, JSON Schema any part of it.
    translated |= {"pattern": f"^(?:{rule['regex']})$"} if "regex" in rule else {}
    if "allowed" in rule:
        translated["enum"] = [*rule["allowed"], *([None] if rule.get("nullable") else [])]
    return translated | _inner(rule, types, free=free)


def _inner(rule: Mapping[str, Any], types: list[str], *, free: bool) -> dict[str, Any]:
    """Translate what a rule says about the values inside: schema, conditions, keysrules, valuesrules, anyof."""
    inner: dict[str, Any] = {}
    if "schema" in rule and "list" in types:
        inner["items"] = _rule(rule["schema"], free=free)
    elif "schema" in rule:
        inner |= _mapping(rule["schema"], free=free)
    if "conditions" in rule:
        inner |= _conditions(rule["conditions"], free=free)
    if "keysrules" in rule:
        inner["propertyNames"] = _rule(rule["keysrules"], free=free)
    if "valuesrules" in rule:
        inner["additionalProperties"] = _rule(rule["valuesrules"], free=free)
    if "words" in rule.get("meta", {}):  # one of these words, or a list
        inner["anyOf"] = [{"enum": rule["meta"]["words"]}, {"type": "array"}]
    if "anyof" in rule:
        inner["anyOf"] = [_rule(each, free=free) for each in rule["anyof"]]
    return inner


def _conditions(keys: Mapping[str, Any], *, free: bool) -> dict[str, Any]:
    """Translate our rule ``conditions``: a mapping, or a list of mappings and bare words."""
    entry = _mapping(keys, free=free)
    words = [key for key, rule in keys.items() if rule["type"] == "boolean"]
    return {"anyOf": [entry, {"type": "array", "items": {"anyOf": [entry, {"enum": words}]}}]}
