"""Following what happens through all processes: by the ids in their log lines, and by one trace."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from brain_clusters.logs import IDS

from .brain import Brain, until
from .collector import Collector, Span, collecting

# What each process of the system has to have told of, by the ids in its lines.
TOLD = {
    "api": {"operation_id", "cluster_id"},
    "worker": {"operation_id", "cluster_id"},
    "host": {"host_id", "cluster_id"},
    "agent": {"agent_id", "cluster_id", "job_id"},
}
PATH = "/api/clusters/<cluster_id>/jobs"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """A collector of traces."""
    with collecting() as found:
        yield found


@pytest.fixture(scope="module")
def traced(brain_with: Callable[..., Brain], collector: Collector) -> Brain:
    """A system that sends its traces there."""
    return brain_with(OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, OTEL_BSP_SCHEDULE_DELAY="100")


@dataclass(frozen=True)
class Followed:
    """What was done, by its ids. failed: another job."""

    trace: str
    cluster: str
    job: str
    failed: str


@pytest.fixture(scope="module")
def followed(traced: Brain) -> Followed:
    """A job that woke its cluster, sent within a trace; and one that failed."""
    cluster = traced.cluster()
    traced.command("POST", f"/api/clusters/{cluster}/hibernate")
    trace = secrets.token_hex(16)
    body = {"to": "Hands", "payload": {"say": "hello"}}
    sent = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
    job = traced.call("POST", f"/api/clusters/{cluster}/jobs", body, **sent).json["job"]["id"]
    assert traced.outcome(job)["status"] == "succeeded"
    body = {"to": "Hands", "payload": {"fail": "on purpose"}, "max_attempts": 1}
    failed = traced.call("POST", f"/api/clusters/{cluster}/jobs", body).json["job"]["id"]
    assert traced.outcome(failed)["status"] in ("failed", "dead")
    return Followed(trace, cluster, job, failed)


def lines(brain: Brain, process: str) -> list[dict[str, Any]]:
    """Return what a process logged; each line must be an object of JSON."""
    places = "logs/agents/*.log" if process == "agent" else f"logs/{process}.log"
    texts = [path.read_text() for path in brain.home.glob(places)]
    return [json.loads(line) for text in texts for line in text.splitlines()]


@pytest.mark.parametrize("process", ["api", "worker", "beat", "host", "agent"])
def test_each_process_logs_json_with_the_ids_of_what_it_does(traced: Brain, followed: Followed, process: str) -> None:
    found = lines(traced, process)
    assert {line["process"] for line in found} <= {process}
    assert all({"time", "level", "logger", "event", "message"} <= line.keys() for line in found)
    told = {name for line in found for name in line} & set(IDS)
    assert told >= TOLD.get(process, set())
    if process in TOLD:
        assert any(line.get("cluster_id") == followed.cluster for line in found)


def test_a_failed_job_can_be_found_in_its_agents_log(traced: Brain, followed: Followed) -> None:
    [line] = [line for line in lines(traced, "agent") if line.get("job_id") == followed.failed]
    assert line["event"] == "the job failed"
    assert line["cluster_id"] == followed.cluster
    assert "ValueError: on purpose" in line["exception"]


def test_one_trace_leads_from_the_request_to_the_agent_that_did_the_job(
    collector: Collector, followed: Followed
) -> None:
    wanted = {"POST /api/clusters/<cluster_id>/jobs", "job.submit", "operation reactivate", "agent.start", "job Hands"}
    until(lambda: wanted <= collector.of(followed.trace).keys(), "all spans are there")
    request, submit, operation, start, job = (
        collector.of(followed.trace)[name]
        for name in (f"POST {PATH}", "job.submit", "operation reactivate", "agent.start", "job Hands")
    )
    assert [one.service for one in (request, submit, operation, start, job)] == [
        "brain-api", "brain-api", "brain-worker", "brain-host", "brain-agent"
    ]  # fmt: skip
    assert (submit.parent, operation.parent) == (request.id, request.id)
    assert (start.parent, job.parent) == (operation.id, submit.id)
    assert job.attributes["brain.job_id"] == followed.job
    assert operation.attributes["brain.cluster_id"] == followed.cluster
    assert (request.attributes["http.route"], request.attributes["http.response.status_code"]) == (PATH, 202)


def test_a_failed_job_is_a_failed_span_and_its_lines_name_the_trace(
    traced: Brain, collector: Collector, followed: Followed
) -> None:
    def failed() -> list[Span]:
        of = followed.failed
        return [one for one in collector.spans if (one.name, one.attributes.get("brain.job_id")) == ("job Hands", of)]

    [span] = until(failed, "its span is there")
    assert span.failed
    [line] = [line for line in lines(traced, "agent") if line.get("job_id") == followed.failed]
    assert line["trace_id"] == span.trace
