"""What differs between two states of a thing, and what that comes to in agents and money. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from brain_clusters.domain.specs import Blueprint

MOST_FIELDS = 500


@dataclass(frozen=True, slots=True)
class Field:
    """One field that differs. None is that there is none."""

    field: str
    before: Any
    after: Any


def differing(before: Any, after: Any) -> list[Field]:
    """Return the fields that differ between two documents, by dotted path; list entries with a name go by it."""
    old, new = dict(_flat(before)), dict(_flat(after))
    paths = [*old, *(path for path in new if path not in old)]
    found = [Field(path, old.get(path), new.get(path)) for path in paths if old.get(path) != new.get(path)]
    return found[:MOST_FIELDS]


def _flat(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(document, Mapping) and document:
        for key, value in document.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    elif isinstance(document, list) and any(isinstance(entry, Mapping) for entry in document):
        for place, entry in enumerate(document):
            name = entry.get("name", place) if isinstance(entry, Mapping) else place
            yield from _flat(entry, f"{path}[{name}]")
    else:
        yield path, document


def unified_diff(before: str, after: str, *, names: tuple[str, str]) -> str:
    """Return a unified diff of two texts, "" where they are the same."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), *names, lineterm="")
    return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class Agents:
    """How many agents go another way: replaced by one of the other version, started besides, or stopped."""

    replaced: int = 0
    started: int = 0
    stopped: int = 0


def agents_between(before: Mapping[str, int], after: Mapping[str, int], unchanged: Set[str]) -> Agents:
    """Return what becomes of agents when counts by group go from ``before`` to ``after``.

    unchanged: the groups whose agents stay as they are, where they are wanted.
    """
    replaced = started = stopped = 0
    for name in {**before, **after}:
        old, new = before.get(name, 0), after.get(name, 0)
        started, stopped = started + max(0, new - old), stopped + max(0, old - new)
        replaced += 0 if name in unchanged else min(old, new)
    return Agents(replaced, started, stopped)


@dataclass(frozen=True, slots=True)
class HourlyCost:
    """What agents cost an hour, as far as it is known. unpriced: groups with agents and without a price."""

    amount: Decimal = Decimal(0)
    unpriced: Sequence[str] = field(default_factory=tuple)

    @property
    def known(self) -> float | None:
        """The amount; None where nothing of it is known."""
        return None if self.unpriced and not self.amount else float(self.amount)


def hourly_cost(blueprint: Blueprint | None, counts: Mapping[str, int]) -> HourlyCost:
    """Return what ``counts`` agents by group cost an hour. No blueprint: no agents."""
    amount, unpriced = Decimal(0), []
    for group in blueprint.groups if blueprint else ():
        count = counts.get(group.name, 0)
        if count and "per_hour" in group.cost:
            amount += count * Decimal(str(group.cost["per_hour"]))
        elif count:
            unpriced.append(group.name)
    return HourlyCost(amount, tuple(unpriced))
