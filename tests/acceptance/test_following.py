"""Following what happens through all processes: by the ids in their log lines, and by one trace."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from brain_clusters.logs import IDS
from brain_clusters.processes import ProcessId

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


# Boss hands work down to Hands, which start with the first job for them. It fails where the payload says so.
TEAM = """
from brain_clusters.agent.errors import HandlerError

def lead(payload, context):
    if context.results is not None:
        return [each["result"] for each in context.results]
    return context.delegate("Hands", [payload])

def work(payload, context):
    context.log.info("at it")
    if payload == "fail":
        raise HandlerError("no good")
    return payload
"""
TEAM_BLUEPRINT = """
metadata: {id: followed, name: Followed, version: "1"}
cluster: {type: project, min_workers: 1, max_workers: 6}
agents:
  - {role: supervisor, name: Boss, handler: "followed_team:lead"}
  - {role: worker, name: Hands, count: 0-1, handler: "followed_team:work"}
  # These send nothing before they end.
  - {role: worker, name: threads, count: 0-1, handler: "followed_team:work", concurrency: 2, environment: &late
     {OTEL_BSP_SCHEDULE_DELAY: "600000"}}
  - {role: worker, name: prefork, count: 0-1, handler: "followed_team:work", pool: prefork, environment: *late}
  - {role: worker, name: gevent, count: 0-1, handler: "followed_team:work", pool: gevent, environment: *late}
lifecycle: {hibernate_conditions: [idle_time: 1 day]}
"""
SENDER = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from brain_clusters.client.queue import Queue

trace.set_tracer_provider(TracerProvider())
with trace.get_tracer("theirs").start_as_current_span("theirs") as span, Queue(*sys.argv[1:]) as queue:
    queue.submit("by Redis")
print(format(span.get_span_context().trace_id, "032x"))
"""


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


# --- a team -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def team(traced: Brain) -> str:
    """A cluster of the blueprint above."""
    (traced.workshop / "followed_team.py").write_text(TEAM)
    assert traced.call("POST", "/api/blueprints", {"yaml": TEAM_BLUEPRINT}).status == 201
    return traced.cluster("followed")


def new_trace() -> tuple[str, str]:
    """A trace's id, and what another program sends within it."""
    trace = secrets.token_hex(16)
    return trace, f"00-{trace}-{secrets.token_hex(8)}-01"


def named(collector: Collector, trace: str, *wanted: str) -> dict[str, Span]:
    """Wait until a trace has spans of these names; return all of its by name."""
    until(lambda: set(wanted) <= collector.of(trace).keys(), f"{wanted} are there")
    return collector.of(trace)


def test_what_a_job_hands_down_is_in_its_trace_and_only_its_failure_is_one(
    traced: Brain, collector: Collector, team: str
) -> None:
    trace, sent = new_trace()
    traced.call("POST", f"/api/clusters/{team}/jobs", {"to": "Boss", "payload": "fail"}, traceparent=sent)

    def parts() -> list[Span]:
        return [span for span in collector.spans.copy() if (span.trace, span.name) == (trace, "job Boss")]

    named(collector, trace, "job Boss", "job Hands")
    until(lambda: len(parts()) == 2, "the boss went on")
    below = collector.of(trace)["job Hands"]
    assert below.parent in {span.id for span in parts()}
    assert (below.failed, below.attributes["error.type"]) == (True, "HandlerError")
    assert below.attributes["messaging.destination.name"] == f"brain.{team}.hands"
    assert not any(span.failed for span in parts())


def test_other_programs_send_jobs_and_commands_within_their_own_traces(
    traced: Brain, collector: Collector, team: str
) -> None:
    trace, sent = new_trace()
    with traced.celery() as app:
        app.send_task("brain.job", ["plain"], queue=f"brain.{team}.hands", headers={"traceparent": sent})
        command = {"cluster_id": team, "groups": {"Hands": 1}}
        app.send_task("brain.lifecycle.scale", kwargs=command, queue="brain.lifecycle", headers={"traceparent": sent})
    spans = named(collector, trace, "job Hands", "brain.lifecycle.scale", "operation scale")
    assert spans["operation scale"].parent == spans["brain.lifecycle.scale"].id
    arguments = [sys.executable, "-P", "-c", SENDER, traced.redis_url, team, "Hands"]
    theirs = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.strip()
    named(collector, theirs, "job Hands")


def test_an_agent_that_ends_has_sent_its_spans_whatever_its_pool(
    traced: Brain, collector: Collector, team: str
) -> None:
    trace, sent = new_trace()
    pools = ["threads", "prefork", *(["gevent"] if find_spec("gevent") else [])]
    for pool in pools:
        body = {"to": pool, "payload": "hello"}
        answer = traced.call("POST", f"/api/clusters/{team}/jobs", body, traceparent=sent)
        assert traced.outcome(answer.json["job"]["id"])["status"] == "succeeded"
    traced.command("POST", f"/api/clusters/{team}/scale", {"groups": dict.fromkeys(pools, 0)})
    named(collector, trace, *(f"job {pool}" for pool in pools))


def test_gunicorns_own_lines_are_json_too(traced: Brain) -> None:
    """Its arbiter tells of a worker that was killed."""
    api = traced.child("api")
    [worker] = children_of(api)
    os.kill(worker, signal.SIGKILL)
    until(lambda: children_of(api) not in ([worker], []), "gunicorn started another worker")
    said = [line["message"] for line in lines(traced, "api") if line["logger"] == "gunicorn.error"]
    assert any("SIGKILL" in line for line in said)
    until(lambda: traced.call("GET", "/readyz").status == 200, "it answers")


def children_of(process: ProcessId) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
