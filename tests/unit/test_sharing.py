"""``resources.memory``: sizes as people write them, and the blueprint's word about them."""

from __future__ import annotations

import pytest

from brain_clusters.agent.errors import HandlerError
from brain_clusters.agent.memory import memory_of
from brain_clusters.blueprints.validator import format_faults, parse_blueprint
from brain_clusters.domain.sharing import SharedMemory, parse_size, shared_memory
from brain_clusters.errors import InvalidInput

BLUEPRINT = """\
metadata: {id: small, name: Small, version: "1"}
cluster: {type: project, min_workers: 1, max_workers: 1}
agents:
  - {role: supervisor, name: Boss}
resources:
  memory: %s
"""


@pytest.mark.parametrize(
    ("text", "size"),
    [("10MB", 10_000_000), ("1.5 kb", 1500), ("64 MiB", 64 * 1024**2), ("1GB", 10**9), (" 7 ", 7), (500, 500),
     ("2KiB", 2048), ("3 bytes", 3)],
)  # fmt: skip
def test_sizes_are_read_as_people_write_them(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "big", "10 M", "-1", "1 2MB", True, None, float("nan"), [1], 0, "11GB", "9" * 70])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        (None, None),
        (False, None),
        ("shared", SharedMemory()),
        ({}, SharedMemory()),
        ({"engine": "any"}, SharedMemory()),
        ({"size": "2KB"}, SharedMemory(2000)),
        ({"size": 5, "retention": "1 hour"}, SharedMemory(5, 3600.0)),
    ],
)
def test_any_data_is_a_memory_with_its_bounds_or_the_usual_ones(stated: object, found: SharedMemory | None) -> None:
    assert shared_memory(stated) == found


@pytest.mark.parametrize(
    ("stated", "fault"),
    [
        ("{size: large}",
         "f:6:18: size is large; it must be a size such as 500KB, 10MB, 64MiB or 1GB (a bare number is bytes)"),
        ("{size: 1MB, retention: 0}",
         "f:6:34: retention is 0; it must be a duration of more than 0 seconds"),
    ],
)  # fmt: skip
def test_bounds_that_are_none_are_refused_where_they_stand(stated: str, fault: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_blueprint(BLUEPRINT % stated)
    assert format_faults("f", refused.value.faults).splitlines() == [fault]


@pytest.mark.parametrize("stated", ["shared", "true", "[a, b]", "{size: 10MB, retention: 7 days, engine: {any: 1}}"])
def test_sound_ones_are_taken(stated: str) -> None:
    assert shared_memory(parse_blueprint(BLUEPRINT % stated).resources["memory"]) is not None


def test_a_handler_is_told_what_to_add() -> None:
    with pytest.raises(HandlerError, match=r"has no memory; add `resources: \{memory: \{size: 10MB"):
        memory_of(None)
