"""Reading ``Prefer: wait``."""

from __future__ import annotations

import pytest

from brain_clusters.api.wait import preferred_wait


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("", 0),
        ("wait=5", 5),
        ("Wait = 5", 5),
        ('wait="5"', 5),
        ("respond-async, wait=10", 10),
        ("wait=10;foo=bar, respond-async", 10),
        ("wait=0", 0),
        ("wait=007", 7),
        ("wait=3600", 60),
        ("wait=" + "9" * 5000, 60),
        ("wait", 0),
        ("wait=", 0),
        ("wait=-1", 0),
        ("wait=1.5", 0),
        ("wait=soon, wait=3", 3),
        ("wait=4, wait=9", 4),
        ("wait=٣", 0),
        ("waiting=5", 0),
        ('foo="a, wait=5"', 0),
        (",,;=,", 0),
    ],
)
def test_a_wait_is_read_as_rfc_7240_has_it(header: str, seconds: int) -> None:
    assert preferred_wait(header) == seconds
