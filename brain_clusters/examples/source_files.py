"""Reads source files: what one file holds, and what a pile of them holds together."""

from __future__ import annotations

import ast
import hashlib
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MAX_BYTES = 2 * 1024 * 1024
_LONGEST_SUMMARY = 160
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{2,}")
# suffix: (language, how a comment line begins)
_LANGUAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    ".c": ("C", ("//", "/*", "*")), ".h": ("C", ("//", "/*", "*")),
    ".cpp": ("C++", ("//", "/*", "*")), ".hpp": ("C++", ("//", "/*", "*")),
    ".css": ("CSS", ("/*", "*")), ".go": ("Go", ("//", "/*", "*")),
    ".html": ("HTML", ("<!--",)), ".java": ("Java", ("//", "/*", "*")),
    ".js": ("JavaScript", ("//", "/*", "*")), ".ts": ("TypeScript", ("//", "/*", "*")),
    ".json": ("JSON", ()), ".md": ("Markdown", ()), ".rst": ("reStructuredText", ("..",)),
    ".py": ("Python", ("#",)), ".pyi": ("Python", ("#",)), ".rb": ("Ruby", ("#",)),
    ".rs": ("Rust", ("//", "/*", "*")), ".sh": ("Shell", ("#",)), ".sql": ("SQL", ("--",)),
    ".toml": ("TOML", ("#",)), ".cfg": ("INI", ("#", ";")), ".ini": ("INI", ("#", ";")),
    ".yaml": ("YAML", ("#",)), ".yml": ("YAML", ("#",)), ".txt": ("Text", ()),
}  # fmt: skip


def digest(payload: Mapping[str, Any], _context: object) -> dict[str, Any]:
    """Read the file ``payload["path"]`` and return what it holds. Raises OSError or ValueError with the reason."""
    path = Path(payload["path"])
    raw = _read(path)
    text = raw.decode("utf-8", "replace")
    language, marks = _LANGUAGES.get(path.suffix.lower(), ("other", ("#", "//")))
    lines = [line.strip() for line in text.splitlines()]
    found: dict[str, Any] = {
        "path": str(path),
        "bytes": len(raw),
        "sha256": hashlib.sha256(raw).hexdigest(),
        "language": language,
        "lines": len(lines),
        "blank": lines.count(""),
        "comments": sum(1 for line in lines if marks and line.startswith(marks)),
        "identifiers": [list(each) for each in Counter(_WORD.findall(text)).most_common(10)],
        "summary": _first_words(lines),
    }
    return found | (_python(text) if language == "Python" else {})


def summarise(payload: Mapping[str, Any], _context: object) -> dict[str, Any]:
    """Return totals per language, files that are the same, and the largest ones of ``payload["digests"]``."""
    digests: Sequence[Mapping[str, Any]] = payload.get("digests", ())
    totals: dict[str, Counter[str]] = defaultdict(Counter)
    same: dict[str, list[str]] = defaultdict(list)
    for each in digests:
        totals[each["language"]].update({"files": 1, "lines": each["lines"], "bytes": each["bytes"]})
        same[each["sha256"]].append(each["path"])
    largest = sorted(digests, key=lambda each: each["bytes"], reverse=True)[:10]
    return {
        "files": len(digests),
        "languages": {language: dict(totals[language]) for language in sorted(totals)},
        "duplicates": [sorted(paths) for paths in same.values() if len(paths) > 1],
        "largest": [{"path": each["path"], "bytes": each["bytes"]} for each in largest],
        "unparsable": [each["path"] for each in digests if each.get("syntax_error")],
    }


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES // 1024 // 1024} MiB")
    return raw


def _python(text: str) -> dict[str, Any]:
    """Return what the syntax tree tells."""
    try:
        with warnings.catch_warnings():
            # A file's own invalid escapes are not this agent's warnings.
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
        nodes = list(ast.walk(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return {"syntax_error": str(error)[:_LONGEST_SUMMARY]}
    imports = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imports |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    told = (ast.get_docstring(tree) or "").splitlines()
    return {
        "functions": sum(isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) for node in nodes),
        "classes": sum(isinstance(node, ast.ClassDef) for node in nodes),
        "imports": sorted(imports),
        "syntax_error": None,
    } | ({"summary": told[0][:_LONGEST_SUMMARY]} if told else {})


def _first_words(lines: Sequence[str]) -> str:
    """Return the first line that says something: a heading, a comment or the text itself."""
    said = (line.strip("#/*-;<!>=. \t") for line in lines if not line.startswith("#!"))
    return next((words[:_LONGEST_SUMMARY] for words in said if words), "")
