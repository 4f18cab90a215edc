"""The conditions of alerts: text either is a condition, or is refused with a sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain_clusters.domain.conditions import (
    ALIASES,
    MAX_COMPARISONS,
    MAX_LENGTH,
    METRICS,
    Comparison,
    Condition,
    Unit,
    overlap,
    parse_condition,
)

README = Path(__file__).parents[2] / "blueprints" / "README.md"
OPERATORS = [">", ">=", "<", "<=", "==", "!="]
UNITS = {
    "percent": ["%", " %", ""], "seconds": ["s", "m", " hours", ""], "milliseconds": ["ms", "s", ""],
    "number": [""], "share": [""],
}  # fmt: skip


def test_every_kind_of_value_is_covered() -> None:
    assert set(UNITS) == set(get_args(Unit)) == {metric.unit for metric in METRICS.values()}


@pytest.mark.parametrize(
    ("text", "metric", "op", "threshold"),
    [
        ("error_rate > 10%", "error_rate", ">", 10),
        ("error_rate > 10", "error_rate", ">", 10),
        ("  ERROR_RATE>=0.5 %", "error_rate", ">=", 0.5),
        ("load_percentage >= 250%", "load", ">=", 250),
        ("failed_agents != 0", "worker_failure", "!=", 0),
        ("task_queue_length == 5", "queue_length", "==", 5),
        ("queue_wait_time > 300", "queue_latency", ">", 300),
        ("queue_latency > 1h30m", "queue_latency", ">", 5400),
        ("queue_latency > 1 hour, 30 minutes", "queue_latency", ">", 5400),
        ("avg_response_time > 2s", "avg_response_time", ">", 2000),
        ("avg_response_time > 250ms", "avg_response_time", ">", 250),
        ("avg_response_time > 2000", "avg_response_time", ">", 2000),
        ("health_score < 0.8", "health_score", "<", 0.8),
    ],
)
def test_a_comparison_is_read_with_its_unit(text: str, metric: str, op: str, threshold: float) -> None:
    assert parse_condition(text).comparisons == (Comparison(metric, op, threshold),)


def test_several_comparisons_are_joined_by_and() -> None:
    found = parse_condition("queue_latency > 1 hour  and  running == 0 AND error_rate<5%")
    assert found.metrics == ("queue_latency", "running", "error_rate")
    assert str(found) == "queue_latency > 1 hour and running == 0 AND error_rate<5%"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("error_rate > 10s", "error_rate is a percentage: write 10% or 10"),
        ("queue_length > 10%", "queue_length is a plain number: write 5"),
        ("queue_length > 1e3", "queue_length is a plain number: write 5"),
        ("queue_wait_time > 10%", "queue_wait_time is a time: write 30s, 5m or 1h30m (a bare number is seconds)"),
        ("avg_response_time > 1 parsec", "avg_response_time is a time: write 30s, 5m or 1h30m (a bare number is mill"),
        ("health_score < 80%", "health_score is a number from 0 to 1: write 0.8"),
        ("eror_rate > 1", "eror_rate is no metric; did you mean error_rate?"),
        ("temperature > 1", "temperature is no metric; known are error_rate, "),
        ("error_rate > 1 or load > 2", "for 'or' write two alerts"),
        ("error_rate = 1", "write == to compare for equality"),
        ("error_rate > 150%", "what is asked of error_rate is never true; it is from 0 to 100"),
        ("error_rate <= 100", "what is asked of error_rate is always true"),
        ("queue_length < 0", "what is asked of queue_length is never true; it is 0 or more"),
        ("queue_length >= 0 and error_rate > 1", "what is asked of queue_length is always true"),
        ("load > 80 and load < 20", "what is asked of load is never true"),
        ("queue_length > 999999999999999", "queue_length is a plain number"),
        ("error_rate", "write METRIC OPERATOR VALUE, such as error_rate > 10%"),
        ("", "a condition is text"),
        (" and ".join(["running > 1"] * (MAX_COMPARISONS + 1)), f"at most {MAX_COMPARISONS} comparisons"),
        ("running > " + "1" * MAX_LENGTH, f"at most {MAX_LENGTH} characters"),
        ("__import__('os').system('true') > 1", "write METRIC OPERATOR VALUE"),
        ("error_rate > 10% and", "error_rate is a percentage"),
        ("error_rate > \u0661", "write METRIC OPERATOR VALUE"),
    ],
)
def test_what_is_no_condition_is_refused_with_what_to_write(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        parse_condition(text)


WORDS = st.sampled_from([*METRICS, *ALIASES, *OPERATORS, "and", "or", "1", "10%", "5m", " ", "0.5", "99999999999999"])


def attempted(text: object) -> Condition | str:
    """Return the condition that ``text`` is, or the sentence that refuses it."""
    try:
        return parse_condition(text)
    except ValueError as refusal:
        return str(refusal)


@given(st.one_of(st.text(max_size=250), st.lists(WORDS, max_size=12).map(" ".join), st.none(), st.integers()))
def test_any_text_is_a_condition_or_is_refused_with_a_sentence(text: object) -> None:
    found = attempted(text)
    if isinstance(found, Condition):
        assert all(one.metric in METRICS and one.threshold >= 0 for one in found.comparisons)
        assert parse_condition(str(found)) == found
    else:
        assert 10 < len(found) < 500


@st.composite
def comparisons(draw: st.DrawFn) -> tuple[str, str, str]:
    name = draw(st.sampled_from([*METRICS, *ALIASES]))
    unit = METRICS[ALIASES.get(name, name)].unit
    number = draw(st.decimals(0, 1 if unit == "share" else 100, places=3))
    return name, draw(st.sampled_from(OPERATORS)), f"{number}{draw(st.sampled_from(UNITS[unit]))}"


@given(st.lists(comparisons(), min_size=1, max_size=4, unique_by=lambda one: ALIASES.get(one[0], one[0])))
def test_what_is_built_of_known_parts_is_read_back(parts: list[tuple[str, str, str]]) -> None:
    text = " and ".join(" ".join(part) for part in parts)
    found = attempted(text)
    if isinstance(found, str):
        assert "true; it is" in found
        return
    assert [(one.metric, one.op) for one in found.comparisons] == [(ALIASES.get(m, m), op) for m, op, _ in parts]
    assert parse_condition(text.replace(" > ", ">").replace(" and ", "   and\t")) == found


def test_a_long_hostile_text_is_refused_without_being_searched() -> None:
    for text in ("a" * 10**6, "running > " + "1 " * 10**6, " and " * 10**6):
        with pytest.raises(ValueError, match="at most 200 characters"):
            parse_condition(text)


# --- truth ------------------------------------------------------------------------------------------------------


def cond(text: str) -> Condition:
    return parse_condition(text)


@pytest.mark.parametrize(
    ("text", "values", "holds", "clear"),
    [
        ("error_rate > 10%", {"error_rate": 10.1}, True, False),
        ("error_rate > 10%", {"error_rate": 10.0}, False, False),
        ("error_rate > 10%", {"error_rate": 9.0}, False, True),
        ("error_rate >= 10%", {"error_rate": 9.0}, False, False),
        ("error_rate >= 10%", {"error_rate": 8.9}, False, True),
        ("worker_failure > 0", {"worker_failure": 0.0}, False, True),
        ("worker_failure >= 1", {"worker_failure": 0.0}, False, True),
        ("active_agents < 10", {"active_agents": 10.0}, False, False),
        ("active_agents < 10", {"active_agents": 11.0}, False, True),
        ("health_score < 0.95", {"health_score": 0.96}, False, False),
        ("health_score < 0.95", {"health_score": 1.0}, False, True),
        ("health_score <= 0.95", {"health_score": 1.0}, False, True),
        ("running == 0", {"running": 1.0}, False, True),
        ("running != 0", {"running": 0.0}, False, True),
        ("error_rate > 10%", {"error_rate": None}, None, None),
        ("error_rate > 10%", {}, None, None),
        ("error_rate > 10 and running == 0", {"error_rate": None, "running": 1.0}, False, True),
        ("error_rate > 10 and running == 0", {"error_rate": None, "running": 0.0}, None, None),
        ("error_rate > 10 and running == 0", {"error_rate": 9.5, "running": 0.0}, False, False),
    ],
)
def test_a_condition_is_true_false_or_unknown(
    text: str, values: dict[str, float | None], holds: bool | None, clear: bool | None
) -> None:
    assert (cond(text).holds(values), cond(text).is_clear(values)) == (holds, clear)


@given(st.sampled_from(OPERATORS), st.floats(0, 1), st.floats(0, 1))
def test_what_is_clear_does_not_hold_and_every_condition_can_become_clear(op: str, threshold: float, x: float) -> None:
    try:
        found = cond(f"health_score {op} {threshold:.3f}")
    except ValueError:
        return
    assert not (found.holds({"health_score": x}) and found.is_clear({"health_score": x}))
    ends = (0.0, 1.0, found.comparisons[0].threshold)
    assert any(found.is_clear({"health_score": end}) for end in ends)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("error_rate > 10%", "error_rate < 5%", False),
        ("error_rate > 10%", "error_rate > 10", True),
        ("error_rate > 10%", "error_rate < 20%", True),
        ("error_rate > 10%", "error_rate <= 10%", False),
        ("error_rate >= 10%", "error_rate <= 10%", True),
        ("error_rate > 10%", "load < 20%", False),
        ("load > 10 and running == 0", "running > 0 and load > 20", False),
    ],
)
def test_two_conditions_on_the_same_metrics_overlap_or_not(first: str, second: str, expected: bool) -> None:
    assert overlap(cond(first), cond(second)) is expected


def test_the_readme_tells_of_every_metric_and_alias() -> None:
    words = re.sub(r"```.*?```", "", README.read_text(), flags=re.DOTALL)
    told = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`]+)`", words))))
    assert {*METRICS, *ALIASES} - told == set()
