"""The Python client: by REST against the API over real sockets, and past it into Redis."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.serving import make_server

from brain_clusters.broker import names
from brain_clusters.broker.jobs import JobRecords, JobReport
from brain_clusters.client import ApiError, Client, JobCancelled, JobFailed, Queue, Unreachable
from brain_clusters.domain.states import JobStatus
from brain_clusters.ports import free_port
from brain_clusters.services.control import Control

NewCluster = Callable[..., str]


@contextmanager
def serving(server: Any) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, kwargs={}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def url(api_app: Flask) -> Iterator[str]:
    with serving(make_server("127.0.0.1", 0, api_app, threaded=True)) as found:
        yield found


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as found:
        yield found


def end(control: Control, cluster_id: str, job_id: str, status: JobStatus, **told: Any) -> None:
    now = time.time()
    JobRecords(control.broker.redis).finish(
        JobReport(job_id, cluster_id, "Clerks", "agent-1", status, 1, now - 1, now, **told)
    )


def messages(control: Control, cluster_id: str) -> list[Any]:
    entries: Any = control.broker.redis.lrange(names.group_queue(cluster_id, "clerks"), 0, -1)
    return [json.loads(entry)["headers"] for entry in reversed(entries)]


def test_a_result_is_waited_for(client: Client, new_cluster: NewCluster, control: Control) -> None:
    cluster_id = new_cluster()
    job = client.submit(cluster_id, {"n": 1}, to="Clerks", priority="low")
    assert (job.status(), job.info()["payload"], job.info()["priority"]) == ("queued", {"n": 1}, "low")
    with pytest.raises(TimeoutError, match="still queued after 0 s"):
        job.result(timeout=0)
    threading.Timer(0.05, end, (control, cluster_id, job.id, JobStatus.SUCCEEDED), {"result": [1, "x"]}).start()
    assert job.result(timeout=30) == [1, "x"]
    assert client.job(job.id).result() == [1, "x"]


def test_a_job_that_did_not_succeed_raises(client: Client, new_cluster: NewCluster, control: Control) -> None:
    cluster_id = new_cluster()
    failed, dead, cancelled = (client.submit(cluster_id, to="Clerks") for _ in range(3))
    end(control, cluster_id, failed.id, JobStatus.FAILED, error={"type": "ValueError", "message": "odd"})
    end(control, cluster_id, dead.id, JobStatus.DEAD, error={"type": "AgentDied", "message": "3"})
    cancelled.cancel(grace="1 s")
    with pytest.raises(JobFailed, match="ValueError: odd") as caught:
        failed.result()
    assert caught.value.error["type"] == "ValueError"
    with pytest.raises(JobFailed, match="AgentDied"):
        dead.result()
    with pytest.raises(JobCancelled):
        cancelled.result()
    cancelled.retry()
    assert cancelled.status() == "queued"


def test_many_jobs_are_sent_in_few_requests(client: Client, new_cluster: NewCluster, control: Control) -> None:
    cluster_id = new_cluster()
    sent = client.submit_many(cluster_id, ({"n": n} for n in range(10_005)), capability="filing", max_attempts=2)
    assert len({job.id for job in sent}) == 10_005
    found = messages(control, cluster_id)
    assert [one["id"] for one in found] == [job.id for job in sent]
    assert found[0]["brain"] == {"capability": "filing", "max_attempts": 2}
    keys = ["a", "b", "a"]
    again = [client.submit_many(cluster_id, [1, 2, 3], to="Clerks", keys=keys) for _ in range(2)]
    assert [job.id for job in again[0]] == [job.id for job in again[1]]
    assert again[0][0].id == again[0][2].id
    assert client.submit_many(cluster_id, []) == []


def test_large_payloads_are_sent_in_more_requests(client: Client, new_cluster: NewCluster) -> None:
    assert len(client.submit_many(new_cluster(), ["x" * 1_000_000] * 14, to="Clerks")) == 14


def test_a_job_for_any_cluster_says_where_it_went(client: Client, new_cluster: NewCluster) -> None:
    new_cluster()
    job = client.submit_to("filing", 1)
    assert job.routing is not None
    assert job.routing["cluster_id"] == job.info()["cluster_id"]


def test_a_refusal_tells_every_fault(client: Client, new_cluster: NewCluster) -> None:
    with pytest.raises(ApiError, match="/1/to: there is no group 'Nobody'") as caught:
        client.submit_many(new_cluster(), [1, 2], to="Nobody")
    assert caught.value.status == 422
    assert [fault["pointer"] for fault in caught.value.faults] == ["/0/to", "/1/to"]
    with pytest.raises(ApiError, match="404"):
        client.job("nobody").status()
    with pytest.raises(ApiError, match="409"):
        client.job(client.submit(new_cluster()).id).retry()


class Unwell(BaseHTTPRequestHandler):
    """An API that first closes, then is busy, then answers garbage, then well."""

    protocol_version = "HTTP/1.1"
    seen: list[str | None]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append(self.headers["Idempotency-Key"])
        if len(self.seen) == 1:
            self.close_connection = True
            return
        status, body = {2: (503, b"{}"), 3: (202, b"{"), 4: (409, b"{}")}.get(
            len(self.seen), (202, b'{"job": {"id": "x"}}')
        )
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 409:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_a_request_that_finds_no_good_answer_is_repeated_with_the_same_key() -> None:
    seen: list[str | None] = []
    handler = type("Handler", (Unwell,), {"seen": seen})
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as url, Client(url) as client:
        assert client.submit("shop").id == "x"
    assert len(seen) == 5
    assert len(set(seen)) == 1


def test_where_nobody_answers_the_client_says_so() -> None:
    port = free_port()
    with Client(f"http://127.0.0.1:{port}", timeout=0.3) as client, pytest.raises(Unreachable, match=str(port)):
        client.submit("shop")
    with pytest.raises(ValueError, match="no URL"):
        Client("127.0.0.1:8080")


def test_a_key_is_sent_along(control: Control) -> None:
    keys: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.append(self.headers["Authorization"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"status": "queued"}')

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as url, Client(f"{url}/", key="k" * 16) as client:
        assert client.job("x").status() == "queued"
    assert keys == ["Bearer " + "k" * 16]


def test_a_queue_takes_jobs_past_the_api(
    api: FlaskClient, new_cluster: NewCluster, control: Control, redis_url: str
) -> None:
    cluster_id = new_cluster()
    with Queue(redis_url, cluster_id, "Clerks") as queue:
        one = queue.submit({"n": 1}, timeout=5, max_attempts=2, expires=60)
        many = queue.submit_many(range(1200))
        later = queue.submit(1, delay=60)
        queue.submit(1, priority="high")
        with pytest.raises(TypeError):
            queue.submit(1, colour="red")
        with pytest.raises(ValueError, match="urgent"):
            queue.submit(1, priority="urgent")
    found = messages(control, cluster_id)
    assert [message["id"] for message in found] == [one, *many, later]
    assert found[0]["brain"] | {"timeout_seconds": 5, "max_attempts": 2} == found[0]["brain"]
    assert found[-1]["eta"] is not None
    assert control.broker.redis.llen(names.high_list(queue.name)) == 1


def test_the_client_needs_neither_flask_nor_sqlalchemy_nor_celery() -> None:
    code = (
        "import sys\nfrom brain_clusters.client import Client\nClient('http://127.0.0.1:1')\n"
        "sys.exit(bool({'flask', 'sqlalchemy', 'celery', 'kombu', 'redis', 'cerberus'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
