"""The tree of a parsed YAML text: plain data that knows where it stood."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from brain_clusters.errors import Fault


@dataclass(slots=True)
class Node:
    """One YAML value. ``content`` is a scalar, a list of nodes, or a dict of key to (key node, value node).

    text: a scalar's source text. size, height: of the whole tree below, aliases expanded.
    """

    line: int
    column: int
    content: Any = None
    text: str = ""
    size: int = 1
    height: int = 1

    def plain(self) -> Any:
        """Return the tree as plain data."""
        if isinstance(self.content, dict):
            return {key: value.plain() for key, (_, value) in self.content.items()}
        return [item.plain() for item in self.content] if isinstance(self.content, list) else self.content

    def child(self, step: str) -> tuple[Node | None, Node] | None:
        """Return (key node, value node) one step down; an entry of a list has no key. None where there is none."""
        if isinstance(self.content, dict):
            return self.content.get(step)
        if isinstance(self.content, list) and step.isdecimal() and len(step) < 6 and int(step) < len(self.content):
            return None, self.content[int(step)]
        return None


@dataclass(slots=True)
class Document:
    """A parsed text: its tree (None where the text is too broken to have one) and what is wrong with it so far."""

    root: Node | None = None
    faults: list[Fault] = field(default_factory=list)

    def find(self, pointer: str) -> tuple[Node | None, Node | None]:
        """Return (key node, value node) at a JSON pointer, or of its nearest parent that is there."""
        key: Node | None = None
        node = self.root
        for step in unescape(pointer):
            below = node.child(step) if node else None
            if below is None:
                break
            key, node = below
        return key, node

    def position(self, pointer: str, *, of_key: bool = False) -> tuple[int, int]:
        """Return (line, column): where a scalar or a list's entry begins; for anything larger, where its key does."""
        key, node = self.find(pointer)
        if node is None:
            return 1, 1
        at = key if key is not None and (of_key or isinstance(node.content, (dict, list))) else node
        return at.line, at.column


def escape(*steps: str | int) -> str:
    """Return steps as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def unescape(pointer: str) -> list[str]:
    """Return the steps of a JSON pointer."""
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
