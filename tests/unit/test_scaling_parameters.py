"""Every parameter of ``cluster.scaling``: its unit is kept, and what is none is refused by a message that names it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from brain_clusters.blueprints.schema_scaling import FIELDS, SCALING
from brain_clusters.blueprints.validation import check
from brain_clusters.blueprints.validator import format_faults, parse_blueprint
from brain_clusters.errors import InvalidInput

NAN, INFINITE = float("nan"), float("inf")
NEVER = [True, False, None, NAN, INFINITE, [], {}]
NO_DURATION = [*NEVER, "soon", "", -1, "-5s", "5 parsecs", "11 years", "10%"]
NO_COUNT = [*NEVER, "5", -1, 1.5, 10_001, "0-5"]

# key: (good, what it becomes, bad values)
DURATION = ("1m30s", 90.0, NO_DURATION)
POSITIVE = (1.5, 1.5, [*NO_DURATION, 0, "0 s"])
COUNT = (3, 3, NO_COUNT)
POSITIVE_COUNT = (3, 3, [*NO_COUNT, 0])
THRESHOLD = ("80%", 80.0, [*NEVER, -1, -0.5, "110%", "many", "", "5s"])
NO_CHOICE = [*NEVER, "", "other", 5]
PARAMETERS: dict[str, tuple[Any, Any, list[Any]]] = {
    "metric": ("cpu_usage", "cpu_usage", NO_CHOICE),
    "policy": ("step", "step", NO_CHOICE),
    "scale_up_threshold": THRESHOLD,
    "scale_down_threshold": THRESHOLD,
    "cooldown_period": DURATION,
    "target_latency": POSITIVE,
    "target_utilization": (0.5, 0.5, [*NEVER, 0, 1.1, "80%"]),
    "queue_per_slot": (3, 3, [*NEVER, 0, 1.5, "5", 100_001]),
    "payback": DURATION,
    "activation_threshold": (3, 3, [*NEVER, -1, 1.5, "5", 1_000_001]),
    "polling_interval": POSITIVE,
    "windows.stable": ("2m", 120.0, [*NO_DURATION, 0]),
    "windows.panic": POSITIVE,
    "windows.panic_threshold": (1.5, 1.5, [*NEVER, 0.9, 101, "2"]),
    "tolerance": (0.2, 0.2, [*NEVER, -0.1, 1.1, "10%"]),
    "scale_up.stabilization": DURATION,
    "scale_up.max_percent": (50, 50, [*NEVER, 0, 10_001, "100%"]),
    "scale_up.max_workers": POSITIVE_COUNT,
    "scale_up.period": POSITIVE,
    "scale_down.stabilization": DURATION,
    "scale_down.consecutive": (5, 5, [*NEVER, 0, 101, 1.5, "3"]),
    "scale_down.drain_timeout": DURATION,
    "scale_down.on_timeout": ("stop", "stop", NO_CHOICE),
    "idle_workers": COUNT,
    "buffer_workers": COUNT,
    "fallback.failure_threshold": (5, 5, [*NEVER, 0, 1001, 1.5, "3"]),
    "fallback.workers": COUNT,
    "hibernate.after": DURATION,
    "hibernate.eta_horizon": DURATION,
    "dry_run": (True, True, [None, NAN, 0, 1, "yes", "true", [], {}]),
}
OTHERS: dict[str, list[Any]] = {
    "paused": [None, NAN, 0, 1, 0.0, "both", "yes", [], {}],
    "windows": [True, NAN, 5, "1m", []],
    "schedule": [True, NAN, 5, "0 8 * * *", {}],
}
ENTRY = {"timezone": "Europe/Berlin", "start": "0 8 * * *", "end": "0 18 * * *", "min_workers": 2}
NO_CRON = [*NEVER, "", "08:00", "0 8 * *", "0 8 * * * *", "@daily", "0 8 30 2 *", "60 8 * * *"]
ENTRY_FAULTS: dict[str, list[Any]] = {
    "timezone": [*NEVER, "", "Berlin", "+01:00", "../etc", "CEST"],
    "start": NO_CRON,
    "end": NO_CRON,
    "min_workers": NO_COUNT,
}
TEXT = """\
metadata: {{id: small, name: Small, version: 1.10}}
cluster: {{type: project, min_workers: 1, max_workers: 9, scaling: {}}}
agents:
  - {{role: supervisor, name: Boss}}
  - {{role: worker, name: Hands, count: 0-4}}
"""


def nested(key: str, value: Any) -> dict[str, Any]:
    for step in reversed(key.split(".")):
        value = {step: value}
    return dict(value)


def bad() -> Iterator[tuple[str, dict[str, Any]]]:
    for key, (_, _, values) in PARAMETERS.items():
        yield from ((key, nested(key, value)) for value in values)
    for key, values in OTHERS.items():
        yield from ((key, {key: value}) for value in values)
    for key, values in ENTRY_FAULTS.items():
        yield from ((key, {"schedule": [{**ENTRY, key: value}]}) for value in values)


def test_the_tables_hold_every_parameter() -> None:
    assert set(PARAMETERS) == set(FIELDS)
    assert {key.partition(".")[0] for key in FIELDS} | {"paused", "schedule"} == set(SCALING)
    assert set(ENTRY_FAULTS) == set(SCALING["schedule"]["schema"]["schema"])


@pytest.mark.parametrize("key", PARAMETERS)
def test_a_good_value_is_kept_in_its_unit(key: str) -> None:
    value, expected, _ = PARAMETERS[key]
    text = str(value).lower()
    for step in reversed(key.split(".")):
        text = f"{{{step}: {text}}}"
    if key.endswith("threshold") and "%" in text:
        down = ", scale_down_threshold: 1" if key == "scale_up_threshold" else ", scale_up_threshold: 90%"
        text = text.replace("}", f"{down}, metric: cpu_usage}}")
    policy = parse_blueprint(TEXT.format(text)).scaling
    assert getattr(policy, FIELDS[key]) == expected


@pytest.mark.parametrize(
    ("key", "stated"), [*bad()], ids=lambda value: value if isinstance(value, str) else repr(value)
)
def test_a_bad_value_is_refused_by_name(key: str, stated: dict[str, Any]) -> None:
    _, faults = check(stated, SCALING)
    assert len(faults) == 1
    assert f"'{key.split('.')[-1]}'" in faults[0].message


@pytest.mark.parametrize(("paused", "expected"), [("false", "no"), ("true", "both"), ("in", "in"), ("out", "out")])
def test_each_way_to_pause_is_known(paused: str, expected: str) -> None:
    assert parse_blueprint(TEXT.format(f"{{paused: {paused}}}")).scaling.paused == expected


def test_what_yaml_calls_nan_is_refused_in_its_place() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_blueprint(TEXT.format("{tolerance: .nan, windows: {panic: .inf}}"))
    told = format_faults("f", caught.value.faults).splitlines()
    assert [line.split(" ")[0] for line in told] == ["f:2:79:", "f:2:102:"]
    assert all("NaN and infinity are not numbers" in line for line in told)
