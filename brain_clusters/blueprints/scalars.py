"""What a YAML scalar means: the core schema of YAML 1.2, so ``on`` and ``2024-01-01`` are text and 010 is ten."""

from __future__ import annotations

import re

PREFIX = "tag:yaml.org,2002:"
Scalar = str | int | float | bool | None

_WORDS: dict[str, Scalar] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "null": (type(None),)}
_LONGEST_NUMBER = 40
_LARGEST_INTEGER = 2**63


def resolve(text: str, tag: str | None, plain: bool) -> Scalar:
    """Return the value of a scalar. Raise ValueError with a sentence for a value or a tag we do not take."""
    if tag is None:
        return _plain(text) if plain else text
    name = tag.removeprefix(PREFIX)
    if tag == "!" or tag == PREFIX + "str":
        return text
    if name not in _TYPES or name == tag:
        raise ValueError("this tag is not allowed; remove it (only !!str, !!int, !!float, !!bool and !!null are known)")
    value = _plain(text)
    if not isinstance(value, _TYPES[name]) or (isinstance(value, bool) and name != "bool"):
        raise ValueError(f"the tag !!{name} does not fit this value; change one of the two")
    return value


def _plain(text: str) -> Scalar:
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _INFINITE.fullmatch(text):
        raise ValueError("NaN and infinity are not numbers here; give a finite number, or put the word in quotes")
    if _INTEGER.fullmatch(text):
        return _integer(text)
    return _float(text) if _FLOAT.fullmatch(text) else text


def _integer(text: str) -> int:
    if len(text) <= _LONGEST_NUMBER:
        # Base 0 would refuse a leading zero, which the core schema reads as decimal.
        value = int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if -_LARGEST_INTEGER <= value < _LARGEST_INTEGER:
            return value
    raise ValueError("this number does not fit into 64 bits; give a smaller one, or put it in quotes")


def _float(text: str) -> float:
    if len(text) <= _LONGEST_NUMBER:
        value = float(text)
        if abs(value) != float("inf"):
            return value
    raise ValueError("this number is too long or too large; give a shorter one, or put it in quotes")
