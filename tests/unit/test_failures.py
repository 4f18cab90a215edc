"""What failed jobs are grouped by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain_clusters.domain.failures import LONGEST_KEY, error_key


@pytest.mark.parametrize(
    ("messages", "key"),
    [
        (["no row 5", "no row 17", "no row 1,000.5"], "E: no row <n>"),
        (["no file 'a.txt'", 'no file "b 2.txt"', "no file `c`"], "E: no file <text>"),
        (["can't open /srv/a/1.txt", "can't open /tmp/x", "can't open C:\\data\\x"], "E: can't open <path>"),
        (["GET https://a.example/x?y=1 failed", "GET http://10.0.0.1:80 failed"], "E: GET <url> failed"),
        (
            ["job 6f1c0f5e-9a77-4a0e-8a3d-0b6d3d1e2f3a is gone", "job 9f86d081884c7d65 is gone"],
            "E: job <id> is gone",
        ),
        (["<object at 0x7f00aa>", "<object at 0x1>"], "E: <object at <id>>"),
        (["two\n lines ", "two lines"], "E: two lines"),
        (["", "E"], "E"),
        (["don't, won't", "don't, won't"], "E: don't, won't"),
    ],
)
def test_what_differs_from_job_to_job_is_left_out(messages: list[str], key: str) -> None:
    assert {error_key({"type": "E", "message": message}) for message in messages} == {key}


@pytest.mark.parametrize("error", [None, {}, {"type": None, "message": None}])
def test_an_error_that_tells_nothing_has_a_key_too(error: dict[str, object] | None) -> None:
    assert error_key(error) == "Error"


@given(st.text(max_size=300), st.text())
def test_a_key_is_never_long_and_does_not_change_when_it_is_made_again(kind: str, message: str) -> None:
    key = error_key({"type": kind, "message": message})
    assert 0 < len(key) <= LONGEST_KEY
    assert key == error_key({"type": kind, "message": message})


def test_a_long_message_takes_no_long_time() -> None:
    for part in ("'", "/", "a/", "0x", "1.", "http://"):
        assert len(error_key({"type": "E", "message": part * 10_000})) <= LONGEST_KEY
