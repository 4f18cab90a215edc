"""What a job uses, as its handler counts it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from brain_clusters.agent.errors import HandlerError
from brain_clusters.agent.usage import Usage


def test_what_was_never_counted_is_unknown() -> None:
    usage = Usage()
    assert usage.as_dict() is None
    usage.add(calls=1)
    assert usage.as_dict() == {"calls": 1}
    usage.add(calls=1, input_tokens=0, pages=2.5)
    assert usage.as_dict() == {"calls": 2, "input_tokens": 0, "pages": 2.5}


def test_many_threads_count_together() -> None:
    usage = Usage()
    threads = [
        threading.Thread(target=lambda: [usage.add(calls=1, output_tokens=2) for _ in range(500)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert usage.as_dict() == {"calls": 4000, "output_tokens": 8000}


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "3", True, [1]])
def test_what_cannot_be_counted_is_refused_and_changes_nothing(value: Any) -> None:
    usage = Usage()
    with pytest.raises(HandlerError, match="numbers from 0, and pages was"):
        usage.add(calls=1, pages=value)
    assert usage.as_dict() is None


def test_kinds_of_usage_have_a_bound() -> None:
    with pytest.raises(HandlerError, match="at most 50 kinds"):
        Usage().add(**{f"kind_{number}": 1 for number in range(51)})
    with pytest.raises(HandlerError, match="at most 100 characters"):
        Usage().add(**{"k" * 101: 1})
