"""Durations, percentages, counts and cron expressions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain_clusters.domain.cron import check_cron
from brain_clusters.domain.durations import parse_duration, parse_instant, parse_percent
from brain_clusters.domain.specs import Count, parse_count


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (5, 5), (0, 0), (1.5, 1.5), ("5", 5), ("90s", 90), ("90 s", 90), ("1 hour", 3600), ("7 days", 604800),
        ("1h30m", 5400), ("1 hour, 30 minutes", 5400), ("500ms", 0.5), ("2 Weeks", 1209600), ("1.5h", 5400),
    ],
)  # fmt: skip
def test_durations_are_read_as_people_write_them(value: object, seconds: float) -> None:
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "", "soon", "5 parsecs", "-5s", "h", "1h30", "1 month", -1, True, None, [], float("nan"), 1e300, 10**400,
        "9" * 400, "99999 weeks", "1m " * 100,
    ],
)  # fmt: skip
def test_what_is_no_duration_gets_a_sentence(value: object) -> None:
    with pytest.raises(ValueError, match=r"^must be a duration"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("value", "percent"), [("10%", 10), (10, 10), ("10 %", 10), ("0.5%", 0.5), (100, 100), ("7", 7)]
)
def test_percentages_are_read(value: object, percent: float) -> None:
    assert parse_percent(value) == percent


@pytest.mark.parametrize("value", ["", "%", "110%", 101, -1, True, None, "ten", float("nan"), "10%%"])
def test_what_is_no_percentage_gets_a_sentence(value: object) -> None:
    with pytest.raises(ValueError, match=r"^must be a percentage"):
        parse_percent(value)


@pytest.mark.parametrize(
    "text", ["2026-10-01T08:00:00Z", "2026-10-01T10:00:00+02:00", "2026-10-01 08:00+00:00", "20261001T080000Z"]
)
def test_times_are_read_with_their_offset(text: str) -> None:
    assert parse_instant(text).timestamp() == 1790841600.0


@pytest.mark.parametrize("value", ["", "soon", "2026-10-01", "2026-10-01T08:00:00", "2026-13-01T08:00:00Z", 5, None,
                                   "2026-10-01T08:00:00Z" + " " * 60])  # fmt: skip
def test_what_is_no_time_gets_a_sentence(value: object) -> None:
    with pytest.raises(ValueError, match="must be a time with its offset"):
        parse_instant(value)


def test_counts_are_fixed_or_a_range() -> None:
    assert parse_count(2) == parse_count("2") == Count(2, 2, scalable=False)
    assert parse_count("0-5") == parse_count("0 - 5") == Count(0, 5, scalable=True)


@pytest.mark.parametrize("value", [True, -1, 10_001, "5-2", "a", "-5", "1-2-3", "0-99999", None, 1.0, [], "", "٣"])
def test_what_is_no_count_gets_a_sentence(value: object) -> None:
    with pytest.raises(ValueError, match=r"^must be a"):
        parse_count(value)


@pytest.mark.parametrize("text", ["* * * * *", "0 8 * * mon-fri", "*/5 0-6,22-23 1,15 jan-mar 7", "0 0 1 1 0"])
def test_cron_expressions_are_known(text: str) -> None:
    check_cron(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "5-1 * * * *",
        "*/0 * * * *", "a * * * *", "* * * * * *", "1, * * * *", "* " * 5000,
    ],
)  # fmt: skip
def test_what_is_no_cron_expression_gets_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a cron expression"):
        check_cron(text)


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans()))
def test_no_value_raises_anything_else(value: object) -> None:
    for parse in (parse_duration, parse_percent, parse_count):
        told = "must be"
        try:
            parse(value)
        except ValueError as refusal:
            told = str(refusal)
        assert told.startswith("must be")
