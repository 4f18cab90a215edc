"""What work costs, by the prices of its group."""

from __future__ import annotations

from decimal import Decimal

import pytest

from brain_clusters.domain.pricing import UNMETERED, UNMETERED_ATTEMPTS, job_price, micros, time_price, use_price

USED = {"calls": 2, "input_tokens": 1500, "output_tokens": 500}


@pytest.mark.parametrize(
    ("cost", "price"),
    [
        ({"per_call": 0.01}, "0.02"),
        ({"per_1k_tokens": 0.1}, "0.2"),
        ({"per_1k_input_tokens": 0.1}, "0.15"),
        ({"per_1k_output_tokens": 0.3}, "0.15"),
        ({"per_call": 0.01, "per_1k_input_tokens": 0.1, "per_1k_output_tokens": 0.3, "per_job": 7}, "0.32"),
        ({"per_call": 0}, "0"),
    ],
)
def test_calls_and_tokens_have_their_price(cost: dict[str, float], price: str) -> None:
    assert use_price(cost, USED) == Decimal(price)


@pytest.mark.parametrize(
    ("cost", "usage"),
    [
        ({}, USED),
        ({"per_hour": 1, "per_job": 1}, USED),
        ({"per_call": 1}, None),
        ({"per_call": 1}, {"input_tokens": 5}),
        ({"per_1k_tokens": 1}, {"input_tokens": 5}),
        ({"per_1k_input_tokens": 1}, {**USED, UNMETERED: 1}),
        ({"per_call": 1}, {**USED, UNMETERED_ATTEMPTS: 1}),
    ],
)
def test_a_price_that_nobody_can_know_is_none(cost: dict[str, float], usage: dict[str, float] | None) -> None:
    assert use_price(cost, usage) is None


def test_calls_without_tokens_have_the_price_of_calls() -> None:
    assert use_price({"per_call": 0.5}, {"calls": 3, UNMETERED: 3}) == Decimal("1.5")


def test_a_job_costs_its_own_price_and_what_it_used() -> None:
    assert job_price({"per_job": 0.25}, None) == Decimal("0.25")
    assert job_price({"per_job": 0.25, "per_call": 0.1}, USED) == Decimal("0.45")
    assert job_price({"per_call": 0.1}, USED) == Decimal("0.2")
    assert job_price({"per_job": 0.25, "per_call": 0.1}, None) is None
    assert job_price({"per_hour": 3}, USED) is None


def test_time_costs_by_the_hour() -> None:
    assert time_price({"per_hour": 0.36}, 10) == Decimal("0.001")
    assert time_price({"per_job": 1}, 10) is None


def test_amounts_are_counted_in_millionths_rounded_up() -> None:
    assert micros(Decimal("0.0000001")) == 1
    assert micros(0.1) == 100_000
    assert micros(1e9) == 10**15
    assert micros(0) == 0
