"""The way in: YAML text or a file to ``specs.Blueprint``, or InvalidInput with every fault, line and column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from brain_clusters.blueprints.alerts import alert_faults
from brain_clusters.blueprints.build import build
from brain_clusters.blueprints.crosschecks import cross_faults
from brain_clusters.blueprints.loader import load, read
from brain_clusters.blueprints.messages import KeyFault
from brain_clusters.blueprints.nodes import Document, unescape
from brain_clusters.blueprints.schema import BLUEPRINT
from brain_clusters.blueprints.validation import MAX_FAULTS, check
from brain_clusters.domain.specs import Blueprint
from brain_clusters.errors import Fault, InvalidInput


def parse_blueprint(text: str | bytes, *, source: str = "blueprint", stored: bool = False) -> Blueprint:
    """Return what ``text`` says. ``source`` names it in messages. Raise InvalidInput with all faults.

    stored: it was accepted before, maybe by an older version that refused fewer contradictions. Clusters run from it,
    so its parts are not checked against each other again.
    """
    document = load(text)
    faults = list(document.faults)
    checked: dict[str, Any] = {}
    if document.root is not None:
        checked, found = _checked(document, crossed=not stored)
        faults += (_located(fault, document) for fault in found if not _is_known(fault, document.faults))
    if faults:
        faults.sort(key=lambda fault: (fault.line or 0, fault.column or 0))
        number = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise InvalidInput(f"{source} is not a valid blueprint: {number}", faults)
    return build(checked)


def load_blueprint(path: Path) -> Blueprint:
    """Return what a file says. Raise NotFound when it cannot be read, InvalidInput with all faults."""
    return parse_blueprint(read(path), source=str(path))


def format_faults(source: str, faults: Iterable[Fault]) -> str:
    """Return one "file:line:column: message" a line, as compilers and editors have it."""
    return "\n".join(
        f"{source}: {fault.message}" if fault.line is None else f"{source}:{fault.line}:{fault.column}: {fault.message}"
        for fault in faults
    )


def _checked(document: Document, *, crossed: bool) -> tuple[dict[str, Any], list[Fault]]:
    """Return (document with defaults, faults of the schema and between the parts)."""
    stated = document.root.plain() if document.root else None
    _keep_version_text(stated, document)
    checked, faults = check(stated, BLUEPRINT, ignore_x_keys=True)
    # With more faults than are told, what is wrong beyond those is not known, so nothing else may be read.
    if not crossed or len(faults) > MAX_FAULTS:
        return checked, faults
    known = [*faults, *document.faults]
    sound = _without(checked, known)
    faults += cross_faults(sound, _without(stated if isinstance(stated, dict) else {}, known))
    faults += alert_faults(sound)
    return checked, faults


def _keep_version_text(stated: Any, document: Document) -> None:
    """Make ``version: 1.10`` the text "1.10", which the number is not."""
    metadata = stated.get("metadata") if isinstance(stated, dict) else None
    version = metadata.get("version") if isinstance(metadata, dict) else None
    if isinstance(metadata, dict) and isinstance(version, (int, float)) and not isinstance(version, bool):
        _, node = document.find("/metadata/version")
        metadata["version"] = node.text if node else version


def _without(stated: dict[str, Any], faults: Sequence[Fault]) -> dict[str, Any]:
    """Return a copy that lacks every value with a fault."""
    remaining: Any = deepcopy(stated)
    for fault in faults:
        *parents, last = unescape(fault.pointer) or [""]
        place = remaining
        for step in parents:
            place = _step(place, step)
        if isinstance(place, dict):
            place.pop(last, None)
        elif isinstance(place, list) and last.isdecimal() and int(last) < len(place):
            place[int(last)] = None
    return dict(remaining)


def _step(place: Any, step: str) -> Any:
    if isinstance(place, dict):
        return place.get(step)
    return place[int(step)] if isinstance(place, list) and step.isdecimal() and int(step) < len(place) else None


def _is_known(fault: Fault, known: Sequence[Fault]) -> bool:
    """Tell whether the loader has already said what is wrong there."""
    return any(fault.pointer == each.pointer for each in known)


def _located(fault: Fault, document: Document) -> Fault:
    line, column = document.position(fault.pointer, of_key=isinstance(fault, KeyFault))
    return replace(fault, line=line, column=column)
