"""Traces of a running system, as a collector gets them; and what its processes log meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from brain_clusters.processes import ProcessId

from .brain import Brain, until
from .collector import Collector, Span, collecting

# Boss hands work down to Hands, which start with the first job for them. It fails where the payload says so.
HANDLERS = """
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
BLUEPRINT = """
metadata: {id: traced, name: Traced, version: "1"}
cluster: {type: project, min_workers: 1, max_workers: 6}
agents:
  - {role: supervisor, name: Boss, handler: "traced_team:lead"}
  - {role: worker, name: Hands, count: 0-1, handler: "traced_team:work"}
  # These send nothing before they end.
  - {role: worker, name: threads, count: 0-1, handler: "traced_team:work", concurrency: 2, environment: &late
     {OTEL_BSP_SCHEDULE_DELAY: "600000"}}
  - {role: worker, name: prefork, count: 0-1, handler: "traced_team:work", pool: prefork, environment: *late}
  - {role: worker, name: gevent, count: 0-1, handler: "traced_team:work", pool: gevent, environment: *late}
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


@dataclass(frozen=True)
class Traced:
    """A system that sends its traces to ``collector``, with one cluster."""

    brain: Brain
    collector: Collector
    cluster: str

    def until_spans(self, trace_id: str, *names: str) -> dict[str, Span]:
        """Wait until the trace has a span of each name; return them all by name."""

        def found() -> dict[str, Span] | None:
            spans = {span.name: span for span in self.collector.trace(trace_id)}
            seen.append(sorted(spans))
            return spans if spans.keys() >= set(names) else None

        seen: list[list[str]] = [[]]
        try:
            return until(found, f"spans {names} came") or {}
        except AssertionError as exc:
            raise AssertionError(f"{exc}; {seen[-1]} came") from None

    @property
    def hands(self) -> str:
        return f"brain.{self.cluster}.hands"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture(scope="module")
def traced(collector: Collector, brain_with: Callable[..., Brain]) -> Traced:
    brain = brain_with(
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="100", BRAIN_LOG_LEVEL="DEBUG"
    )
    (brain.workshop / "traced_team.py").write_text(HANDLERS)
    assert brain.call("POST", "/api/blueprints", {"yaml": BLUEPRINT}).status == 201
    return Traced(brain, collector, brain.cluster("traced"))


def parent_of_ours(number: int) -> tuple[str, str]:
    """A traceparent as another program sends it, and its trace's id."""
    return f"00-{number:032x}-00000000000000aa-01", f"{number:032x}"


def test_one_trace_goes_from_the_request_over_the_worker_and_the_host_to_the_agent(traced: Traced) -> None:
    brain, (parent, trace_id) = traced.brain, parent_of_ours(1)
    body = {"to": "Hands", "payload": "hello"}
    job = brain.call("POST", f"/api/clusters/{traced.cluster}/jobs", body, traceparent=parent).json["job"]["id"]
    route = "POST /api/clusters/<cluster_id>/jobs"
    spans = traced.until_spans(
        trace_id, route, "run scale", "start agent", f"send {traced.hands}", f"process {traced.hands}"
    )
    request, run, start = spans[route], spans["run scale"], spans["start agent"]
    sent, done = spans[f"send {traced.hands}"], spans[f"process {traced.hands}"]
    assert [(span.service, span.kind) for span in (request, run, start, sent, done)] == [
        ("brain-api", "SERVER"), ("brain-worker", "CONSUMER"), ("brain-host", "INTERNAL"), ("brain-api", "PRODUCER"),
        ("brain-agent", "CONSUMER"),
    ]  # fmt: skip
    parents = [request.span_id, run.span_id, request.span_id, sent.span_id]
    assert [request.parent, *(span.parent for span in (run, start, sent, done))] == [parent[36:52], *parents]
    assert request.attributes["http.route"] == "/api/clusters/<cluster_id>/jobs"
    assert request.attributes["http.request.method"] == "POST"
    assert request.attributes["http.response.status_code"] == 202
    assert done.attributes["messaging.message.id"] == job
    assert done.attributes["messaging.destination.name"] == traced.hands
    assert done.attributes["brain.job.outcome"] == "succeeded"
    assert start.seconds > 0
    [agent] = [agent["agent_id"] for agent in brain.agents(traced.cluster) if agent["group"] == "Hands"]
    assert start.attributes["brain.agent.id"] == agent
    told = [json.loads(line) for line in (brain.home / f"logs/agents/{agent}.log").read_text().splitlines()]
    [line] = [line for line in told if line["event"] == "at it" and line["job_id"] == job]
    assert (line["trace_id"], line["span_id"]) == (trace_id, done.span_id)


def test_what_a_job_hands_down_is_in_its_trace_and_a_failure_is_told(traced: Traced) -> None:
    parent, trace_id = parent_of_ours(2)
    body = {"to": "Boss", "payload": "fail"}
    traced.brain.call("POST", f"/api/clusters/{traced.cluster}/jobs", body, traceparent=parent)
    boss = f"process brain.{traced.cluster}.boss"
    spans = traced.until_spans(trace_id, boss, f"process {traced.hands}")
    until(lambda: sum(span.name == boss for span in traced.collector.trace(trace_id)) == 2, "the boss went on")
    below = spans[f"process {traced.hands}"]
    assert below.parent in {span.span_id for span in traced.collector.trace(trace_id) if span.name == boss}
    assert (below.failed, below.attributes["error.type"]) == (True, "HandlerError")
    assert not any(span.failed for span in traced.collector.trace(trace_id) if span.name == boss)


def test_other_programs_send_jobs_and_commands_in_their_own_traces(traced: Traced) -> None:
    brain, (parent, trace_id) = traced.brain, parent_of_ours(3)
    with brain.celery() as app:
        app.send_task("brain.job", ["plain"], queue=traced.hands, headers={"traceparent": parent})
        command = {"cluster_id": traced.cluster, "groups": {"Hands": 1}}
        app.send_task("brain.lifecycle.scale", kwargs=command, queue="brain.lifecycle", headers={"traceparent": parent})
    spans = traced.until_spans(trace_id, f"process {traced.hands}", "accept scale", "run scale")
    assert spans["run scale"].parent == spans["accept scale"].span_id
    arguments = [sys.executable, "-P", "-c", SENDER, brain.redis_url, traced.cluster, "Hands"]
    theirs = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.strip()
    traced.until_spans(theirs, f"process {traced.hands}")


def test_an_agent_that_ends_has_sent_its_spans_whatever_its_pool(traced: Traced) -> None:
    brain, (parent, trace_id) = traced.brain, parent_of_ours(4)
    pools = ["threads", "prefork", *(["gevent"] if find_spec("gevent") else [])]
    for pool in pools:
        body = {"to": pool, "payload": "hello"}
        answer = brain.call("POST", f"/api/clusters/{traced.cluster}/jobs", body, traceparent=parent)
        assert brain.outcome(answer.json["job"]["id"])["status"] == "succeeded"
    brain.command("POST", f"/api/clusters/{traced.cluster}/scale", {"groups": dict.fromkeys(pools, 0)})
    traced.until_spans(trace_id, *(f"process brain.{traced.cluster}.{pool}" for pool in pools))


def test_every_line_of_the_api_is_json_gunicorns_own_too(traced: Traced) -> None:
    """Its arbiter tells of a worker that was killed, and of the next one that it starts."""
    brain, log = traced.brain, traced.brain.home / "logs/api.log"
    [worker] = children_of(brain.child("api"))
    os.kill(worker, signal.SIGKILL)
    until(lambda: children_of(brain.child("api")) not in ([worker], []), "gunicorn started another worker")
    until(lambda: brain.call("GET", "/readyz").status == 200, "it answers")
    told = [json.loads(line) for line in log.read_text().splitlines()]
    said = [line["message"] for line in told if line["logger"] == "gunicorn.error"]
    assert any("SIGKILL" in line for line in said)
    assert sum("Booting worker" in line for line in said) == 2


def children_of(process: ProcessId) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
