"""The fenced blocks of a document, with the notes before them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in ("build", "dist") for part in path.relative_to(ROOT).parts)
)
COMMANDS = ("sh", "console")
LANGUAGES = {
    *COMMANDS,
    "python",
    "yaml",
    "json",
    "text",
    "ini",
    "nginx",
    "caddyfile",
    "mermaid",
    "toml",
    "redis",
    "http",
}
NOTES = {"not run", "engines", "given", "file", "run", "shows", "exit", "refused", "until shown"}
_NOTE = re.compile(r"<!-- ([a-z ]+?)(?:: (.+?))? -->")
_FENCE = re.compile(r"^(```+)(\w*)$")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. line: of its fence, from 1. notes: those before it, by name."""

    path: Path
    line: int
    language: str
    text: str
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """Where it is, for people."""
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    @property
    def is_run(self) -> bool:
        """Whether a test runs it as it stands."""
        asked = self.language in COMMANDS or "run" in self.notes
        return asked and not {"not run", "engines"} & set(self.notes)


def blocks(path: Path) -> list[Block]:
    """Return the blocks of a document in order. Raises ValueError with the line of what cannot be read."""
    return list(_read(path, path.read_text().splitlines()))


def _read(path: Path, lines: list[str]) -> Iterator[Block]:
    notes: dict[str, str] = {}  # other comments are among them until something else comes than a block
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if note := _NOTE.fullmatch(line):
            notes[note[1]] = note[2] or ""
        elif fence := _FENCE.match(line):
            if unknown := set(notes) - NOTES:
                raise ValueError(f"{path}:{number}: unknown notes {unknown}; known are {sorted(NOTES)}")
            end = lines.index(fence[1], number)
            yield Block(path, number, fence[2], "\n".join(lines[number:end]) + "\n", notes)
            number, notes = end + 1, {}
        elif line.strip() and notes.keys() & NOTES:
            raise ValueError(f"{path}:{number}: a note has to stand right before its block")
        elif line.strip():
            notes = {}


def unfenced(path: Path) -> list[str]:
    """Return where code is indented and not fenced: nobody could say what it is."""
    found, fenced, blank, in_list = [], False, True, False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced and line.strip():
            if line.startswith("    ") and blank and not in_list:
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
            in_list = bool(re.match(r"\s*([-*]|\d+\.) ", line)) or (in_list and line.startswith(" "))
        blank = not line.strip()
    return found
