"""The lifecycle commands as any Celery client sends them: by task name, in JSON, to the queue brain.lifecycle."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

from celery import Celery

from .brain import Brain, until


def send(app: Celery, kind: str, **arguments: Any) -> dict[str, Any]:
    """Queue a command and return what its task answered."""
    sent = app.send_task(f"brain.lifecycle.{kind}", kwargs=arguments, queue="brain.lifecycle")
    answer: dict[str, Any] = sent.get(timeout=60)
    return answer


def until_done(brain: Brain, answer: dict[str, Any]) -> Any:
    """Wait for the operation that a task's answer names; it must succeed."""
    assert answer["status"] == "accepted", answer
    path = f"/api/operations/{answer['operation_id']}"
    until(lambda: brain.get(path)["status"] in ("succeeded", "failed"), f"{path} is done")
    operation = brain.get(path)
    assert operation | {"status": "succeeded", "origin": "celery"} == operation
    return operation


def test_a_whole_life_by_queued_commands(brain: Brain) -> None:
    cluster = f"queued-{uuid.uuid4().hex[:6]}"
    with brain.celery() as app:
        made = send(app, "create", blueprint_id="workshop", name="Queued", id=cluster, target_workers=2)
        until_done(brain, made)
        brain.until_agents(cluster, 2)
        until_done(brain, send(app, "update", cluster_id=cluster, name="Renamed", tags=["queued"]))
        assert brain.seen(cluster)["name"] == "Renamed"
        until_done(brain, send(app, "scale", cluster_id=cluster, target_workers=4))
        brain.until_agents(cluster, 4)
        until_done(brain, send(app, "hibernate", cluster_id=cluster))
        assert brain.agent_processes(cluster) == {}
        until_done(brain, send(app, "reactivate", cluster_id=cluster))
        assert brain.seen(cluster)["status"] == "active"
        until_done(brain, send(app, "destroy", cluster_id=cluster))
        assert brain.seen(cluster)["status"] == "destroyed"


def test_a_message_that_is_delivered_twice_is_one_operation(brain: Brain) -> None:
    cluster, message_id = f"twice-{uuid.uuid4().hex[:6]}", str(uuid.uuid4())
    arguments = {"blueprint_id": "workshop", "name": "Twice", "id": cluster, "target_workers": 1}
    with brain.celery() as app:
        answers = [
            app.send_task("brain.lifecycle.create", kwargs=arguments, queue="brain.lifecycle", task_id=message_id)
            for _ in range(3)
        ]
        until_done(brain, answers[0].get(timeout=60))
        send(app, "destroy", cluster_id="there-is-none")  # behind the three in the queue
    operations = brain.get(f"/api/operations?cluster_id={cluster}")["operations"]
    assert [operation["kind"] for operation in operations] == ["create"]
    brain.command("DELETE", f"/api/clusters/{cluster}")


def test_an_invalid_command_becomes_a_failed_operation_with_every_reason(brain: Brain) -> None:
    with brain.celery() as app:
        answer = send(app, "create", blueprint_id="workshop", target_workers="many", colour="red")
        impossible = send(app, "scale", cluster_id="there-is-none", target_workers=2)
        positional = app.send_task("brain.lifecycle.scale", ["c", 2], queue="brain.lifecycle").get(timeout=60)
    failed = brain.get(f"/api/operations/{answer['operation_id']}")
    assert failed["status"] == "failed"
    assert {fault["pointer"] for fault in failed["error"]["errors"]} == {"/name", "/target_workers", "/colour"}
    assert "there is no cluster" in brain.get(f"/api/operations/{impossible['operation_id']}")["error"]["message"]
    assert "keyword arguments" in brain.get(f"/api/operations/{positional['operation_id']}")["error"]["message"]


def test_an_impossible_command_leaves_the_cluster_as_it_is(brain: Brain) -> None:
    cluster = brain.cluster(target_workers=2)
    with brain.celery() as app:
        refused = send(app, "reactivate", cluster_id=cluster)
    assert refused["status"] == "failed"
    error = brain.get(f"/api/operations/{refused['operation_id']}")["error"]
    assert "cannot reactivate a cluster that is active" in error["message"]
    brain.until_agents(cluster, 2)
    brain.command("DELETE", f"/api/clusters/{cluster}")


def test_junk_does_not_stop_the_queue(brain: Brain) -> None:
    cluster = brain.cluster(target_workers=1)
    worker = brain.child("worker")
    with brain.redis() as client, brain.celery() as app:
        client.lpush("brain.lifecycle", b"\x80\x04junk", b"{}", b'{"body": 1, "headers": {}}', b"[" * 10_000)
        app.send_task("brain.lifecycle.explode", kwargs={}, queue="brain.lifecycle")
        app.send_task("brain.lifecycle.scale", kwargs={}, queue="brain.lifecycle", serializer="pickle")
        app.send_task("brain.operations.run", ["no-uuid"], queue="brain.lifecycle")
        client.lpush("brain.lifecycle", broken_body())
        until_done(brain, send(app, "scale", cluster_id=cluster, target_workers=2))
        until(lambda: client.llen("brain.lifecycle") == 0, "the queue is empty")
    assert brain.child("worker") == worker
    brain.until_agents(cluster, 2)
    brain.command("DELETE", f"/api/clusters/{cluster}")


def broken_body() -> str:
    """A message whose envelope is Celery's and whose body is no JSON."""
    message_id = str(uuid.uuid4())
    return json.dumps(
        {
            "body": base64.b64encode(b'[[], {"cluster_id": ').decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"task": "brain.lifecycle.scale", "id": message_id, "lang": "py"},
            "properties": {
                "correlation_id": message_id,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": "brain.lifecycle"},
                "delivery_tag": str(uuid.uuid4()),
                "body_encoding": "base64",
            },
        }
    )
