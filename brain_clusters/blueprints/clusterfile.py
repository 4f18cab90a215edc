"""The cluster file: one cluster as it is wanted, in YAML. And texts that hold several YAML documents.

    cluster: {id: shop-1, blueprint: shop, version: "2", name: The shop, max_workers: 8, tags: [team-a]}

What is not stated is left as it is; of a new cluster it is what the blueprint says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from brain_clusters.blueprints.loader import load
from brain_clusters.blueprints.messages import KeyFault
from brain_clusters.blueprints.nodes import Document
from brain_clusters.blueprints.rules import flag, free, keys, number, optional_text, text, texts, whole
from brain_clusters.blueprints.schema import METADATA
from brain_clusters.blueprints.validation import check
from brain_clusters.blueprints.validator import parse_blueprint
from brain_clusters.domain.specs import MAX_COUNT, Blueprint
from brain_clusters.domain.states import ClusterType
from brain_clusters.errors import Fault, InvalidInput

MOST_PARTS = 500
_ID = METADATA["id"]
# At the beginning of a line these are marks of YAML wherever they stand, even in quotes.
_BEGINS, _ENDS = re.compile(r"---(?=\s|$)"), re.compile(r"\.\.\.(?=\s|$)")

CLUSTER_FILE = {
    "cluster": keys(
        "The cluster, as it is wanted.",
        {
            "id": {**_ID, "meta": {**_ID["meta"], "description": "Its id."}},
            "blueprint": {**_ID, "meta": {**_ID["meta"], "description": "The blueprint that it is made of, by id."}},
            "version": text("The blueprint's version; without it the newest when it is made, and later as it is.", 100),
            "name": text("The name that people read; the id without it."),
            "type": text("What it is for; the blueprint's without it.", allowed=[str(each) for each in ClusterType]),
            "min_workers": whole("The fewest agents while it is awake.", 0, MAX_COUNT),
            "max_workers": whole("The most agents.", 1, MAX_COUNT),
            "description": optional_text("For people.", 10_000),
            "tags": texts("Words to filter by.", 50, 100),
            "budget_per_day": number("The most that it may spend in a day (UTC).", 0, 1_000_000_000),
            "config": free("Any JSON of yours, kept with it."),
            "paused": flag("Whether the autoscaler is to leave it alone."),
        },
        required=True,
    )
}


@dataclass(frozen=True, slots=True)
class DeclaredCluster:
    """A cluster file. fields: what it states besides, by the names that clusters have for it."""

    id: str
    blueprint: str
    version: str | None
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """One YAML document of a text. document: the place of the text; lines: how many lines come before the part."""

    document: int
    lines: int
    text: str
    said: Blueprint | DeclaredCluster

    @property
    def kind(self) -> Literal["blueprint", "cluster"]:
        """What it is."""
        return "blueprint" if isinstance(self.said, Blueprint) else "cluster"


def parse_documents(documents: list[str]) -> list[Part]:
    """Return what texts say, each one or several YAML documents. Raise InvalidInput with all faults.

    A fault's pointer begins with /documents/N; its line and column are those of that text.
    """
    parts, faults = list[Part](), list[Fault]()
    split = [list(_split(whole_text)) for whole_text in documents]
    # Before any is parsed: splitting is cheap, and a body of 1 MiB can hold a quarter of a million of them.
    if (count := sum(map(len, split))) > MOST_PARTS:
        told = f"hold {count} YAML documents; give at most {MOST_PARTS} at once"
        raise InvalidInput("the documents are not valid: 1 fault", [Fault("/documents", told)])
    for place, found in enumerate(split):
        if not found:
            faults.append(Fault(f"/documents/{place}", "is empty; write a blueprint or a cluster file", 1, 1))
        for lines, part in found:
            try:
                parts.append(Part(place, lines, part, _parse(part)))
            except InvalidInput as exc:
                faults += [
                    replace(
                        fault, pointer=f"/documents/{place}{fault.pointer}",
                        line=None if fault.line is None else fault.line + lines,
                    )
                    for fault in exc.faults
                ]  # fmt: skip
    faults += _repeated(parts)
    if faults:
        raise InvalidInput(f"the documents are not valid: {len(faults)} fault{'s' * (len(faults) > 1)}", faults)
    return parts


def _split(whole_text: str) -> Iterator[tuple[int, str]]:
    """Yield (lines before it, text) of each YAML document, without those of blanks and comments only."""
    begin, lines = 0, list[str]()
    for number_, line in enumerate([*whole_text.splitlines(keepends=True), "---"]):
        mark = _BEGINS.match(line) or _ENDS.match(line)
        if not mark:
            lines.append(line)
            continue
        if any(one.strip() and not one.lstrip().startswith("#") for one in lines):
            yield begin, "".join(lines)
        rest = line[3:].strip()
        # What stands behind a mark keeps its column.
        inline = rest and not rest.startswith("#") and _BEGINS.match(line)
        begin, lines = (number_, ["   " + line[3:]]) if inline else (number_ + 1, [])


def _parse(part: str) -> Blueprint | DeclaredCluster:
    document = load(part)
    stated = document.root.plain() if document.root else None
    if isinstance(stated, dict) and "cluster" in stated and not {"agents", "metadata"} & stated.keys():
        return _parse_cluster(document, stated)
    return parse_blueprint(part)


def _parse_cluster(document: Document, stated: dict[str, Any]) -> DeclaredCluster:
    cluster = stated["cluster"]
    version = cluster.get("version") if isinstance(cluster, dict) else None
    if isinstance(version, (int, float)) and not isinstance(version, bool):  # 1.10 is the text that was written
        _, node = document.find("/cluster/version")
        cluster["version"] = node.text if node else version
    checked, found = check(stated, CLUSTER_FILE, ignore_x_keys=True)
    known = {fault.pointer for fault in document.faults}
    faults = [*document.faults, *(_located(one, document) for one in found if one.pointer not in known)]
    if faults:
        raise InvalidInput("this is not a valid cluster file", sorted(faults, key=lambda one: one.line or 0))
    fields = {key: value for key, value in checked["cluster"].items() if not key.startswith("x-")}
    return DeclaredCluster(fields.pop("id"), fields.pop("blueprint"), fields.pop("version", None), fields)


def _located(fault: Fault, document: Document) -> Fault:
    line, column = document.position(fault.pointer, of_key=isinstance(fault, KeyFault))
    return replace(fault, line=line, column=column)


def _repeated(parts: list[Part]) -> Iterator[Fault]:
    seen = set[tuple[str, ...]]()
    for part in parts:
        said = part.said
        key = ("cluster", said.id) if isinstance(said, DeclaredCluster) else ("blueprint", said.id, said.version)
        if key in seen:
            told = f"the {' '.join(key)} is declared twice; keep one of the two"
            yield Fault(f"/documents/{part.document}", told, part.lines + 1, 1)
        seen.add(key)
