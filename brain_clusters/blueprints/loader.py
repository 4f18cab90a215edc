"""YAML text to plain data that remembers where each value stood, safe against hostile text.

The data is built from PyYAML's event stream, so no constructor of PyYAML ever runs: tags make no objects, nesting
costs no recursion, and an alias is counted before it is expanded. The caps hold while the text is being parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from brain_clusters.blueprints.builder import MAX_DEPTH, Builder, Unreadable
from brain_clusters.blueprints.nodes import Document
from brain_clusters.errors import NotFound

MAX_BYTES = 256 * 1024

# libyaml is far faster; PyYAML's own parser gives the same events where it is missing.
_Events = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
# libyaml takes quadratic time over many %TAG lines, and nothing here needs a directive.
_DIRECTIVE = re.compile("^%", re.MULTILINE)
_MARKS = {b"\xef\xbb\xbf": "UTF-8", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def load(text: str | bytes) -> Document:
    """Parse one YAML document; never raises for what the text says."""
    document = Document()
    try:
        builder = Builder(document)
        for event in _events(_decoded(text)):
            builder.take(event)
        if document.root is None:
            raise Unreadable("the document is empty; write at least metadata, cluster and agents")
    except Unreadable as unreadable:
        document.root = None
        document.faults.append(unreadable.fault)
    return document


def read(path: Path) -> bytes:
    """Return a file's bytes, no more than tell that it is too large. Raise NotFound when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path is not valid"
        raise NotFound(f"cannot read {path}: {reason}; check the path") from error


def _decoded(text: str | bytes) -> str:
    """Return clean text or raise: size, encoding, byte order mark, control characters."""
    if len(text) > MAX_BYTES or (isinstance(text, str) and len(text.encode("utf-8", "replace")) > MAX_BYTES):
        raise Unreadable(f"the document is larger than {MAX_BYTES // 1024} KiB; make it smaller")
    if isinstance(text, bytes):
        text = _from_utf8(text)
    if text.startswith("\ufeff"):
        raise Unreadable("the document begins with a UTF-8 byte order mark; save it as UTF-8 without one")
    if bad := _FORBIDDEN.search(text):
        name = f"U+{ord(bad[0]):04X}"
        raise Unreadable(f"the control character {name} is not allowed; remove it", *_place(text[: bad.start()]))
    if bad := _DIRECTIVE.search(text):
        raise Unreadable("directives (%) are not known here; begin no line with %", *_place(text[: bad.start()]))
    return text


def _from_utf8(raw: bytes) -> str:
    for mark, name in _MARKS.items():
        if raw.startswith(mark):
            raise Unreadable(f"the document begins with a {name} byte order mark; save it as UTF-8 without one")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        place = _place(raw[: error.start].decode("utf-8"))
        raise Unreadable("this byte is not UTF-8; save the document as UTF-8", *place) from error


def _place(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _events(text: str) -> Iterator[yaml.Event]:
    try:
        yield from yaml.parse(text, Loader=_Events)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        if "nesting depth" in said:  # libyaml reads ahead, and newer ones have a limit of their own
            deep = f"the document is nested more than {MAX_DEPTH} levels deep; make it flatter"
            raise Unreadable(deep, *place) from error
        raise Unreadable(f"this is not valid YAML: {said[:200]}", *place) from error
    except (yaml.YAMLError, RecursionError, UnicodeError, ValueError) as error:
        raise Unreadable(f"this is not valid YAML: {str(error)[:200]}") from error
