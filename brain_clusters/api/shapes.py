"""The shapes of answers as JSON Schema 2020-12. A shape with a title is told once in the document, under that name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Shape = dict[str, Any]

ANY: Shape = {}
TEXT: Shape = {"type": "string"}
TIME: Shape = {"type": "string", "format": "date-time"}
DAY: Shape = {"type": "string", "format": "date"}
WHOLE: Shape = {"type": "integer"}
NUMBER: Shape = {"type": "number"}
TRUTH: Shape = {"type": "boolean"}
OBJECT: Shape = {"type": "object"}


def record(title: str, members: Mapping[str, Shape], maybe: Mapping[str, Shape] | None = None) -> Shape:
    """Return an object that has all ``members`` and none besides, but for those of ``maybe``. title: "" for none."""
    named = {"title": title} if title else {}
    properties = {**members, **(maybe or {})}
    required = {"required": list(members)} if members else {}
    return {**named, "type": "object", "properties": properties, **required, "additionalProperties": False}


def told(shape: Shape, description: str) -> Shape:
    """Return ``shape`` with what it means."""
    return {**shape, "description": description}


def words(found: Iterable[object]) -> Shape:
    """Return text that is one of a few words."""
    return {"type": "string", "enum": [str(one) for one in found]}


def or_null(shape: Shape) -> Shape:
    """Return ``shape``, or null where it is not known or there is none."""
    kind = shape.get("type")
    if isinstance(kind, str) and "enum" not in shape and "title" not in shape:
        return {**shape, "type": [kind, "null"]}
    return {"anyOf": [shape, {"type": "null"}]}


def listed(shape: Shape) -> Shape:
    """Return a list of ``shape``."""
    return {"type": "array", "items": shape}


def by_name(shape: Shape) -> Shape:
    """Return an object of any keys, each with ``shape``."""
    return {"type": "object", "additionalProperties": shape}


def page(name: str, shape: Shape, **more: Shape) -> Shape:
    """Return a page of a list: what matches in all, and where the next page begins, null at the end."""
    cursor = told(or_null(TEXT), "Give it as `cursor` for the next page; null at the end.")
    return record("", {name: listed(shape), "total": told(WHOLE, "All that match."), "next_cursor": cursor, **more})


def whole(name: str, shape: Shape) -> Shape:
    """Return a list without pages."""
    return record("", {name: listed(shape), "total": WHOLE})


@dataclass(frozen=True, slots=True)
class Media:
    """An answer by media type, for what is not only JSON."""

    shapes: Mapping[str, Shape]
