"""Cerberus' errors as sentences that say what is wrong and what to do. No message grows with the input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from cerberus import errors

from brain_clusters.blueprints.nodes import escape
from brain_clusters.errors import Fault

MAX_POINTER_LENGTH = 500
_LONGEST_SHOWN = 40
_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "list": "a list",
    "dict": "a mapping",
}
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class KeyFault(Fault):
    """A fault of a key itself, not of its value."""

    key: str = ""


def pointer_to(path: Iterable[str | int]) -> str:
    """Return a JSON pointer, cut where hostile keys would make it endless."""
    return escape(*(str(step)[:MAX_POINTER_LENGTH] for step in path))[:MAX_POINTER_LENGTH]


def clipped(text: str) -> str:
    """Return ``text``, cut and without line breaks, so that it fits into a message."""
    flat = " ".join(text[: _LONGEST_SHOWN + 1].split())
    return flat if len(text) <= _LONGEST_SHOWN else f"{flat[:_LONGEST_SHOWN]}..."


def shown(value: object) -> str:
    """Return a value as a message shows it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{clipped(value)}'" if value else "empty text"
    if isinstance(value, (int, float)):
        return str(value) if abs(value) < 10**18 else "so large a number"
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else "this"


def name_of(path: Path) -> str:
    """Return how a message calls the value at ``path``: its key, or "entry 2 of 'tags'"."""
    words = [step for step in path if isinstance(step, str)]
    key = f"'{clipped(words[-1])}'" if words else "the document"
    return f"entry {path[-1] + 1} of {key}" if path and isinstance(path[-1], int) else key


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?", or nothing where no known word comes near."""
    words = {each.lower(): each for each in known}
    found = get_close_matches(word.lower(), words, n=1, cutoff=0.6) if len(word) <= _LONGEST_SHOWN else []
    return f"; did you mean '{words[found[0]]}'?" if found else ""


def faults_of(found: Iterable[Any], *, ignore_x_keys: bool) -> Iterator[Fault]:
    """Yield one fault for each of Cerberus' errors, those inside groups included."""
    for error in found:
        if error.is_group_error:
            yield from faults_of(error.child_errors, ignore_x_keys=ignore_x_keys)
        elif error.code != errors.UNKNOWN_FIELD.code:
            yield Fault(pointer_to(error.document_path), f"{name_of(error.document_path)} {_told(error)}")
        elif not (ignore_x_keys and str(error.field).startswith("x-")):
            yield _unknown_key(error.document_path, error.info[0])


def _unknown_key(path: Path, known: Sequence[str]) -> KeyFault:
    key = str(path[-1])
    few = f"; known here: {', '.join(known)}" if 0 < len(known) <= 8 else "; remove it"
    hint = nearest(key, known) or few
    return KeyFault(pointer_to(path), f"unknown key '{clipped(key)}'{hint}", key=key)


def _told(error: Any) -> str:
    """Return the rest of the sentence that begins with the value's name."""
    limit, value = error.constraint, error.value
    unit = "characters" if isinstance(value, str) else "entries"
    match error.code:
        case errors.CUSTOM.code:
            return str(error.info[0])
        case errors.REQUIRED_FIELD.code:
            return "is missing; add it"
        case errors.NOT_NULLABLE.code:
            return "is empty; give it a value, or remove the key"
        case errors.BAD_TYPE.code:
            return _mistyped(limit, value)
        case errors.MIN_VALUE.code:
            return f"must be at least {limit}, not {shown(value)}"
        case errors.MAX_VALUE.code:
            return f"must be at most {limit}, not {shown(value)}"
        case errors.MIN_LENGTH.code if limit == 1:
            return "must not be empty; give it a value, or remove it"
        case errors.MIN_LENGTH.code:
            return f"must have at least {limit} {unit}, not {len(value)}"
        case errors.MAX_LENGTH.code:
            return f"must have at most {limit} {unit}, not {len(value)}"
        case errors.UNALLOWED_VALUE.code:
            hint = nearest(value, [each for each in limit if isinstance(each, str)]) if isinstance(value, str) else ""
            known = ", ".join(each if isinstance(each, str) else shown(each) for each in limit)
            return f"must be one of {known}, not {shown(value)}{hint}"
        case errors.EXCLUDES_FIELD.code:
            others = [limit] if isinstance(limit, str) else limit
            return f"and {' and '.join(repr(each) for each in others)} exclude each other; give one of them"
        case _:
            return f"breaks the rule '{error.rule}'"


def _mistyped(wanted: str | Sequence[str], value: object) -> str:
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    told = f"must be {' or '.join(_TYPES[name] for name in names)}, not {shown(value)}"
    is_number_or_bool = isinstance(value, (bool, int, float))
    return f"{told}; put it in quotes to make it text" if "string" in names and is_number_or_bool else told
