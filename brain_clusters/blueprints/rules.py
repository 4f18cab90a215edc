"""The rules that the schemas are made of, each with a description for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Rule = dict[str, Any]


def text(description: str, longest: int = 200, *, must: str | None = None, **rules: Any) -> Rule:
    """Return the rule of text of 1 to ``longest`` characters; ``must`` says what its regex means."""
    meta = {"description": description} | ({"must": must} if must else {})
    return {"type": "string", "minlength": 1, "maxlength": longest, "meta": meta, **rules}


def optional_text(description: str, longest: int = 200) -> Rule:
    """Return the rule of text that may be left empty."""
    return {"type": "string", "nullable": True, "maxlength": longest, "meta": {"description": description}}


def whole(description: str, lowest: int, highest: int, **rules: Any) -> Rule:
    """Return the rule of a whole number."""
    return {"type": "integer", "min": lowest, "max": highest, "meta": {"description": description}, **rules}


def texts(description: str, most: int = 100, longest: int = 200) -> Rule:
    """Return the rule of a list of texts."""
    entry = {"type": "string", "minlength": 1, "maxlength": longest}
    return {"type": "list", "maxlength": most, "schema": entry, "meta": {"description": description}}


def free(description: str) -> Rule:
    """Return the rule of a mapping with any keys."""
    return {"type": "dict", "meta": {"description": description}}


def keys(description: str, known: Mapping[str, Rule], **rules: Any) -> Rule:
    """Return the rule of a mapping with known keys."""
    return {"type": "dict", "schema": dict(known), "meta": {"description": description}, **rules}


def conditions(description: str, known: Mapping[str, Rule]) -> Rule:
    """Return the rule of a list of conditions, or a mapping of them."""
    return {"type": ["list", "dict"], "conditions": dict(known), "meta": {"description": description}}


def flag(description: str) -> Rule:
    """Return the rule of a yes or no."""
    return {"type": "boolean", "meta": {"description": description}}


def duration(description: str, check_with: str = "duration", **rules: Any) -> Rule:
    """Return the rule of a duration."""
    return {"type": ["number", "string"], "check_with": check_with, "meta": {"description": description}, **rules}


def number(description: str, lowest: float, highest: float, **rules: Any) -> Rule:
    """Return the rule of a number."""
    return {"type": "number", "min": lowest, "max": highest, "meta": {"description": description}, **rules}
