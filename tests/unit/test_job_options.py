"""What travels with a job in its message."""

from __future__ import annotations

from brain_clusters.domain.jobs import JobOptions


def test_what_is_stated_travels_and_nothing_else() -> None:
    assert JobOptions().as_header() == {}
    stated = JobOptions(max_attempts=3, backoff_seconds=0.0, timeout_seconds=2.5, capability="count", depth=2)
    header = stated.as_header()
    assert header == {
        "max_attempts": 3, "backoff_seconds": 0.0, "timeout_seconds": 2.5, "capability": "count", "depth": 2,
    }  # fmt: skip
    assert JobOptions.from_header(header) == stated
