"""Tracing where it is off, or cannot be on. What it tells where it is on is in tests/acceptance/test_following.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import pytest

from brain_clusters import tracing
from brain_clusters.config import wants_traces

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
# What our processes import. (The client of Redis imports OpenTelemetry's metrics wherever they are installed.)
OFF = """
import sys
from brain_clusters import tracing
import brain_clusters.agent.zygote, brain_clusters.api.app, brain_clusters.client.queue, brain_clusters.services.hosting
tracing.preload(), tracing.start("agent"), tracing.join()
print(*[name for name in sys.modules if name.startswith(("opentelemetry.sdk.trace", "opentelemetry.exporter"))])
"""


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "True"}, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_opentelemetrys_own_variables_say_whether_there_are_traces(environ: Mapping[str, str], wanted: bool) -> None:
    assert wants_traces(environ) is wanted


def test_nothing_is_imported_where_it_is_off() -> None:
    told = subprocess.run(
        [sys.executable, "-P", "-c", OFF], check=True, capture_output=True, text=True, env={"HOME": "/"}
    )
    assert told.stdout.split() == []


def test_off_there_is_no_trace() -> None:
    with tracing.span("s", parent={"traceparent": f"00-{1:032x}-{1:016x}-01"}) as found:
        tracing.note(a=1)
        assert (found, tracing.carrier(), tracing.is_on()) == (None, {}, False)
    tracing.stop()


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", ENDPOINT["OTEL_EXPORTER_OTLP_ENDPOINT"])
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    tracing.start("api")
    assert not tracing.is_on()
    assert "pip install 'brain-clusters[tracing]'" in caplog.text
