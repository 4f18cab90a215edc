"""Skills as tools of a model: what it is told of them, and the doing of its calls."""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pydantic

from brain_clusters.agent.context import JobContext
from brain_clusters.agent.errors import HandlerError
from brain_clusters.agent.handlers import skills
from brain_clusters.agent.handlers.functions import Handler
from brain_clusters.errors import PermanentError

_MOST_CHARACTERS = 100_000
_ANYTHING: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": True}


@dataclass(frozen=True, slots=True)
class Tool:
    """One skill. bare: its payload is no object, which arguments always are, and comes as the one argument payload."""

    name: str
    description: str
    schema: dict[str, Any]
    skill: Handler
    adapter: pydantic.TypeAdapter[Any]
    bare: bool

    def declaration(self) -> dict[str, Any]:
        """Return what the model is told."""
        told = {"name": self.name, "description": self.description, "parameters": self.schema}
        return {"type": "function", "function": told}

    def call(self, arguments: str, context: JobContext) -> str:
        """Do one call and return what the model is answered.

        That is the fault, in words, where its arguments are wrong or the skill raises HandlerError. All else that the
        skill raises is the job's.
        """
        try:
            payload = json.loads(arguments or "{}")
            if not isinstance(payload, dict):
                raise ValueError("they are no JSON object")
            payload = payload["payload"] if self.bare else payload
            self.adapter.validate_python(payload)
        except (ValueError, KeyError, RecursionError) as exc:
            return f"error: the arguments are wrong: {exc}"[:_MOST_CHARACTERS]
        try:
            found = self.skill(payload, context)
        except HandlerError as exc:
            return f"error: {exc}"[:_MOST_CHARACTERS]
        try:
            return (found if isinstance(found, str) else json.dumps(found))[:_MOST_CHARACTERS]
        except (TypeError, ValueError, RecursionError) as exc:
            raise HandlerError(f"the skill {self.name} returned what is not JSON: {exc}") from exc


def load(names: Sequence[str]) -> dict[str, Tool]:
    """Return the tools by the names that a model knows; raise PermanentError for a skill that cannot be had."""
    found = {tool.name: tool for tool in map(_tool, names)}
    if len(found) < len(set(names)):
        raise PermanentError(f"two tools have names that a model cannot tell apart: {', '.join(names)}")
    return found


def _tool(name: str) -> Tool:
    skill = skills.find(name)
    function: Any = inspect.unwrap(skill)
    annotation = _annotation(function)
    try:
        adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(annotation)
        schema = adapter.json_schema()
    except pydantic.PydanticUserError as exc:
        raise PermanentError(f"the payload of the skill {name!r} has no JSON schema: {exc}") from exc
    bare = schema.get("type") != "object"
    if annotation is Any:
        schema, bare = _ANYTHING, False
    elif bare:
        definitions = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
        schema = {"type": "object", "properties": {"payload": schema}, "required": ["payload"], **definitions}
    described = inspect.getdoc(function) or name
    # The only characters that names of functions may have [OpenAI's reference of chat completions].
    told = re.sub(r"[^a-zA-Z0-9_-]+", "_", name)[:64]
    return Tool(told, described, schema, skill, adapter, bare)


def _annotation(function: Any) -> Any:
    """Return the type of a function's first parameter; Any where it states none, or one that cannot be found.

    Only that one is looked at: the context's is often imported for type checkers alone.
    """
    try:
        first = next(iter(inspect.signature(function).parameters.values()))
    except (StopIteration, TypeError, ValueError):
        return Any
    if first.annotation is inspect.Parameter.empty:
        return Any
    alone = types.SimpleNamespace(__annotations__={first.name: first.annotation})
    known = getattr(function, "__globals__", {})
    try:
        return typing.get_type_hints(alone, globalns=known, include_extras=True)[first.name]
    except (NameError, TypeError):
        return Any
