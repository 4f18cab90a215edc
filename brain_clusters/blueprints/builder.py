"""YAML events to nodes, under caps on depth, on the number of values and on alias expansion."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from brain_clusters.blueprints.nodes import Document, Node, escape
from brain_clusters.blueprints.scalars import PREFIX, resolve
from brain_clusters.errors import Fault

MAX_DEPTH = 32
MAX_NODES = 5_000
MAX_KEY_LENGTH = 200
MAX_FAULTS = 100


class Unreadable(Exception):
    """The text cannot be read any further; carries the fault that says why."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.fault = Fault("", message, line, column)


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not come yet; ``key`` is the one that waits for its value."""

    node: Node
    anchor: str | None
    key: Node | None = None

    @property
    def step(self) -> str | int:
        """Where the next value goes."""
        return self.key.text if self.key else len(self.node.content)


class Builder:
    """Takes events one by one; ``document`` has its root when the last one was taken."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._nodes = 0

    def take(self, event: yaml.Event) -> None:
        """Add one event to the tree. Raise Unreadable where a cap or the format ends it."""
        mark = event.start_mark
        at = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        match event:
            case yaml.DocumentStartEvent() if self._document.root is not None:
                raise Unreadable("a second document begins here; keep one per file", *at)
            case yaml.ScalarEvent():
                self._scalar(event, at)
            case yaml.CollectionStartEvent():
                self._start(event, at)
            case yaml.CollectionEndEvent():
                done = self._open.pop()
                self._add(done.node, done.anchor)
            case yaml.AliasEvent():
                self._alias(event.anchor or "", at)

    def _scalar(self, event: yaml.ScalarEvent, at: tuple[int, int]) -> None:
        self._count(1, at)
        node = Node(*at, event.value, event.value)
        if self._expects_key():
            self._key(node, is_text=not event.implicit[0] or _is_text(event.value))
            return
        try:
            node.content = resolve(event.value, event.tag, event.implicit[0])
        except ValueError as error:
            self._fault(str(error), at)
        self._add(node, event.anchor)

    def _start(self, event: yaml.CollectionStartEvent, at: tuple[int, int]) -> None:
        self._count(1, at)
        if self._expects_key():
            raise Unreadable("a key must be text, not a mapping or a list; check the brackets and '?' here", *at)
        if len(self._open) >= MAX_DEPTH:
            raise Unreadable(f"the document is nested more than {MAX_DEPTH} levels deep; make it flatter", *at)
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in (None, "!", PREFIX + ("map" if is_mapping else "seq")):
            self._fault("this tag is not allowed; remove it", at)
        self._open.append(_Open(Node(*at, {} if is_mapping else []), event.anchor))

    def _alias(self, name: str, at: tuple[int, int]) -> None:
        if self._expects_key():
            raise Unreadable("a key must be text, not an alias; write the key itself", *at)
        if any(container.anchor == name for container in self._open):
            raise Unreadable("this alias refers to the value it stands in; a value cannot contain itself", *at)
        node = self._anchors.get(name)
        if node is None:
            raise Unreadable("this alias has no anchor before it; define it with & first", *at)
        if len(self._open) + node.height > MAX_DEPTH:
            raise Unreadable(f"with this alias the document is nested more than {MAX_DEPTH} levels deep", *at)
        self._count(node.size, at)
        self._add(node, None)

    def _add(self, node: Node, anchor: str | None) -> None:
        """Put a finished value where it belongs."""
        if anchor:
            self._anchors[anchor] = node
        if not self._open:
            self._document.root = node
            return
        container = self._open[-1]
        parent = container.node
        parent.size += node.size
        parent.height = max(parent.height, node.height + 1)
        if container.key is None:
            parent.content.append(node)
            return
        first = parent.content.setdefault(container.key.text, (container.key, node))
        if first[1] is not node or first[0] is not container.key:
            told = f"the key '{container.key.text}' is already stated in line {first[0].line}; keep one of the two"
            self._fault(told, (container.key.line, container.key.column))
        container.key = None

    def _key(self, key: Node, *, is_text: bool) -> None:
        at = (key.line, key.column)
        if len(key.text) > MAX_KEY_LENGTH:
            raise Unreadable(f"this key is longer than {MAX_KEY_LENGTH} characters; shorten it", *at)
        self._open[-1].key = key
        if key.text == "<<":
            self._fault("merge keys (<<) are not known here; repeat the keys, or use an alias for a whole value", at)
        elif not is_text:
            self._fault(f"the key {key.text or 'is empty and'} is not text; put it in quotes", at)

    def _expects_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].node.content, dict) and self._open[-1].key is None

    def _count(self, more: int, at: tuple[int, int]) -> None:
        self._nodes += more
        if self._nodes > MAX_NODES:
            raise Unreadable(f"the document holds more than {MAX_NODES} values, aliases expanded; make it smaller", *at)

    def _fault(self, message: str, at: tuple[int, int]) -> None:
        if len(self._document.faults) >= MAX_FAULTS:
            raise Unreadable("there are more faults from here on; mend the others first", *at)
        pointer = escape(*(container.step for container in self._open))
        self._document.faults.append(Fault(pointer, message, *at))


def _is_text(key: str) -> bool:
    try:
        return isinstance(resolve(key, None, True), str)
    except ValueError:
        return False
