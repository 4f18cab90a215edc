"""Trees of jobs in PostgreSQL and over HTTP: their rows, how they are shown, cancelled, and not taken for lost."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select

from brain_clusters.agent.delegation import child_id
from brain_clusters.api.app import create_app
from brain_clusters.broker import names
from brain_clusters.broker.delegating import Child, Joins, Parent
from brain_clusters.broker.jobs import Delivery, JobRecords, JobReport
from brain_clusters.broker.messages import Messages
from brain_clusters.db.models import Job, Operation
from brain_clusters.domain.commands import DestroyCluster
from brain_clusters.domain.jobs import JobOptions, Priority
from brain_clusters.domain.states import ClusterStatus, Intent, JobStatus, OperationStatus
from brain_clusters.services import cancelling, operations, outcomes, trees
from tests.integration.stage import Stage


class Play:
    """Plays the agents of a cluster of the blueprint ``shop``: Boss hands down to Clerk, and Clerk to Packer."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.redis = stage, stage.redis
        self.cluster_id = stage.active()
        self.records, self.joins = JobRecords(stage.redis), Joins(stage.redis)
        self.api = create_app(stage.control).test_client()

    def queue(self, group: str) -> str:
        return names.group_queue(self.cluster_id, group.lower())

    def take(self, group: str, owner: str = "agent") -> dict[str, Any]:
        """Take the next job of a group, as an agent does; return its message."""
        raw: Any = self.redis.rpop(self.queue(group))
        assert raw is not None, f"{group} has nothing to do"
        message: dict[str, Any] = json.loads(raw)
        tag = message["properties"]["delivery_tag"]
        self.redis.hset(names.unacked_key(owner), tag, f'[{raw.decode()},"",{json.dumps(self.queue(group))}]')
        message["begun"] = self.records.begin(message["headers"]["id"], owner)
        return message

    def hand_down(self, message: dict[str, Any], group: str, to: str, *payloads: Any, owner: str = "agent") -> str:
        """Hand down and wait; return what came of it."""
        job_id, options = message["headers"]["id"], JobOptions.from_header(message["headers"][names.OPTIONS_HEADER])
        root_id = options.root_id or job_id
        stated = JobOptions(parent_id=job_id, root_id=root_id, depth=options.depth + 1).as_header()
        children = [
            Child(child_id(job_id, 1, n), to, self.queue(to), payload, stated, Priority.NORMAL)
            for n, payload in enumerate(payloads)
        ]
        delivery = Delivery(1, tag=message["properties"]["delivery_tag"])
        parent = Parent(job_id, self.cluster_id, group, owner, options, delivery, 1, 1e9, {"calls": 2})
        return self.joins.hand_down(parent, children, None, most=1000).what

    def finish(
        self, message: dict[str, Any], group: str, status: JobStatus = JobStatus.SUCCEEDED, **fields: Any
    ) -> None:
        report = JobReport(
            message["headers"]["id"], self.cluster_id, group, "agent", status, 1, time.time(), time.time(), **fields
        )
        delivery = Delivery(1, tag=message["properties"]["delivery_tag"])
        parent = JobOptions.from_header(message["headers"][names.OPTIONS_HEADER]).parent_id
        self.records.finish(report, delivery, parent_id=parent)

    def planted(self) -> tuple[str, list[str], list[str]]:
        """Return a tree of which all but the lowest wait: its root, the two below it, and the two below the first."""
        root = self.stage.post(self.cluster_id, payload="root").id
        self.hand_down(self.take("Boss"), "Boss", "Clerk", {"n": 1}, {"n": 2})
        middle = [child_id(root, 1, n) for n in range(2)]
        self.hand_down(self.take("Clerk"), "Clerk", "Packer", "a", "b")
        return root, middle, [child_id(middle[0], 1, n) for n in range(2)]

    def tree(self, job_id: str, query: str = "") -> dict[str, Any]:
        response = self.api.get(f"/api/jobs/{job_id}/tree{query}")
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json
        return found


@pytest.fixture
def play(stage: Stage) -> Play:
    return Play(stage)


def shape(node: dict[str, Any]) -> Any:
    return node["id"], node["status"], [shape(child) for child in node["children"]]


def all_jobs(stage: Stage) -> dict[str, Job]:
    with stage.control.database.transaction() as session:
        return {job.id: job for job in session.query(Job)}


# --- rows -------------------------------------------------------------------------------------------------------


def test_what_is_handed_down_gets_its_rows(play: Play) -> None:
    root, middle, lowest = play.planted()
    assert trees.collect(play.stage.control) == 4
    assert trees.collect(play.stage.control) == 0
    found = all_jobs(play.stage)
    assert set(found) == {root, *middle, *lowest}
    child = found[lowest[0]]
    assert (child.group_name, child.status, child.payload, child.priority) == ("Packer", "queued", "a", "normal")
    assert (child.parent_id, child.root_id, child.options["depth"]) == (middle[0], root, 2)
    assert child.published_at == child.created_at


def test_brothers_stand_in_the_order_of_their_payloads(play: Play) -> None:
    roots = [play.stage.post(play.cluster_id).id for _ in range(20)]  # times near the half of a microsecond, too
    for _ in roots:
        play.hand_down(play.take("Boss"), "Boss", "Clerk", *range(50))
    trees.collect(play.stage.control)
    for root in roots:
        children = [job for job in all_jobs(play.stage).values() if job.parent_id == root]
        found = {job.created_at: job.payload for job in children}
        assert [found[at] for at in sorted(found)] == list(range(50))


def test_an_outcome_that_came_first_stays(play: Play) -> None:
    _, _, lowest = play.planted()
    play.finish(play.take("Packer"), "Packer", result=7)
    play.finish(play.take("Packer"), "Packer", JobStatus.FAILED, error={"type": "Oops", "message": "no"})
    outcomes.collect(play.stage.control)
    trees.collect(play.stage.control)
    first, second = (play.stage.job(job_id) for job_id in lowest)
    assert (first.status, first.result, first.payload, first.root_id) == ("succeeded", 7, None, second.root_id)
    assert (second.status, second.payload) == ("failed", "b"), "it may be tried again, and needs its payload for that"


def test_a_row_of_what_failed_and_is_handed_down_again_begins_anew(play: Play) -> None:
    _, middle, lowest = play.planted()
    trees.collect(play.stage.control)
    for _ in range(2):
        play.finish(play.take("Packer"), "Packer", JobStatus.FAILED, error={"type": "Oops", "message": "no"})
    outcomes.collect(play.stage.control)
    play.redis.delete(names.join_key(middle[0]), names.job_key(middle[0]))
    again = play.stage.job(middle[0])
    play.stage.control.broker.publish_jobs(play.queue("Clerk"), [again])
    while (message := play.take("Clerk"))["headers"]["id"] != middle[0]:
        pass
    assert play.hand_down(message, "Clerk", "Packer", "a", "b") == "waits"
    trees.collect(play.stage.control)
    job = play.stage.job(lowest[0])
    assert (job.status, job.error, job.error_key, job.finished_at, job.payload) == ("queued", None, None, None, "a")


def test_nul_and_lone_surrogates_in_a_payload_do_not_keep_the_others(play: Play) -> None:
    root = play.stage.post(play.cluster_id).id
    play.hand_down(play.take("Boss"), "Boss", "Clerk", "a\0b", "\ud800", r"kept \u0000")
    play.redis.xadd(names.ACCEPTED_STREAM, {"job": "nonsense"})
    trees.collect(play.stage.control)
    found = [play.stage.job(child_id(root, 1, n)).payload for n in range(3)]
    assert found == ["a\ufffdb", "?", r"kept \u0000"]
    assert play.redis.xlen(names.ACCEPTED_STREAM) == 0


# --- shown ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [True, False])
def test_a_tree_is_shown_from_any_of_its_members(play: Play, stored: bool) -> None:
    root, middle, lowest = play.planted()
    if stored:
        trees.collect(play.stage.control)
    play.finish(play.take("Packer"), "Packer", usage={"calls": 2, "amount": 0.25})
    below = [(lowest[0], "succeeded", []), (lowest[1], "queued", [])]
    whole = (root, "running", [(middle[0], "running", below), (middle[1], "queued", [])])
    found = play.tree(root)
    assert shape(found["tree"]) == whole
    totals = {"jobs": 5, "by_status": {"running": 2, "queued": 2, "succeeded": 1}, "amount": 0.25}
    assert (found["totals"], found["truncated"]) == (totals, False)
    assert [found["tree"][key] for key in ("group", "attempts", "waiting_for", "amount")] == ["Boss", 1, 2, None]
    part = play.tree(middle[0])
    assert shape(part["tree"]) == whole[2][0]
    assert part["tree"]["waiting_for"] == 1
    leaf = part["tree"]["children"][0]
    assert (leaf["usage"], leaf["amount"], leaf["waiting_for"]) == ({"calls": 2, "amount": 0.25}, 0.25, None)
    assert shape(play.tree(lowest[1])["tree"]) == below[1]
    assert shape(play.tree(lowest[1], "?root=true")["tree"]) == whole


def test_a_tree_without_costs_has_no_amount_and_an_unknown_job_no_tree(play: Play) -> None:
    job_id = play.stage.post(play.cluster_id).id
    found = play.tree(job_id)
    assert shape(found["tree"]) == (job_id, "queued", [])
    assert found["totals"] == {"jobs": 1, "by_status": {"queued": 1}, "amount": None}
    assert play.api.get("/api/jobs/unknown/tree").status_code == 404
    assert play.api.get(f"/api/jobs/{job_id}/tree?root=maybe").status_code == 422


def test_the_tree_of_a_foreign_job_is_shown_too(play: Play) -> None:
    play.redis.lpush(play.queue("Boss"), Messages(play.queue("Boss")).build(_foreign("theirs"), 1.0))
    play.hand_down(play.take("Boss"), "Boss", "Clerk", 1)
    trees.collect(play.stage.control)
    assert shape(play.tree("theirs")["tree"]) == ("theirs", "running", [(child_id("theirs", 1, 0), "queued", [])])


def _foreign(job_id: str) -> Child:
    return Child(job_id, "Boss", "any", None, {})


# --- cancelled --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [True, False])
def test_cancelling_a_job_cancels_all_below_it(play: Play, stored: bool) -> None:
    root, middle, lowest = play.planted()
    if stored:
        trees.collect(play.stage.control)
    works = play.take("Packer")
    response = play.api.post(f"/api/jobs/{root}/cancel", json={})
    assert (response.status_code, response.json["job"]["status"]) == (202, "cancelled")
    assert play.redis.exists(names.join_key(root), names.join_key(middle[0])) == 0
    assert play.redis.exists(*map(names.cancel_key, [*middle, *lowest])) == 4
    play.finish(works, "Packer", result="late")
    for group in ("Packer", "Clerk"):
        message = play.take(group)
        assert message["begun"].cancelled
        play.finish(message, group, JobStatus.CANCELLED)
    assert sum(play.stage.waiting(play.cluster_id, group) for group in ("boss", "clerk", "packer")) == 0
    trees.collect(play.stage.control)
    outcomes.collect(play.stage.control)
    stood = {job_id: str(job.status) for job_id, job in all_jobs(play.stage).items()}
    assert stood.pop(lowest[0]) == "succeeded"
    assert set(stood.values()) == {"cancelled"}


def test_a_job_that_is_cancelled_while_it_waits_keeps_what_it_did(play: Play) -> None:
    root, *_ = play.planted()
    cancelling.cancel(play.stage.control, root)
    found = play.stage.job(root)
    assert (found.status, found.attempts, found.agent_id) == ("cancelled", 1, "agent")
    assert found.started_at == datetime.fromtimestamp(1e9, UTC)
    assert found.usage == {"calls": 2}
    assert (found.error or {}).get("type") == "JobCancelled"


def test_cancelling_a_part_lets_its_parent_go_on(play: Play) -> None:
    root, middle, _ = play.planted()
    play.finish(play.take("Clerk"), "Clerk", result=2)
    cancelling.cancel(play.stage.control, middle[0])
    message = play.take("Boss")
    assert (message["headers"]["id"], message["begun"].attempt) == (root, 1)
    join = play.joins.read(root)
    assert join is not None
    assert [found["status"] for found in join.results] == ["cancelled", "succeeded"]


@pytest.mark.parametrize("again", [False, True])
def test_cancelling_what_waits_in_a_queue_lets_its_parent_go_on_at_once_and_once(play: Play, again: bool) -> None:
    _, middle, lowest = play.planted()
    trees.collect(play.stage.control)
    cancelling.cancel(play.stage.control, lowest[0])
    join = play.joins.read(middle[0])
    assert join is not None
    assert [found["status"] for found in join.results] == ["cancelled", None]
    assert play.stage.waiting(play.cluster_id, "clerk") == 1  # the other of the middle
    cancelling.cancel(play.stage.control, lowest[1])
    cancelling.cancel(play.stage.control, lowest[1])
    assert play.stage.waiting(play.cluster_id, "clerk") == 2
    if again:
        assert play.api.post(f"/api/jobs/{lowest[0]}/retry", json={}).status_code == 202
    messages = [play.take("Packer"), play.take("Packer")]
    assert [one["begun"].cancelled for one in messages] == [not again, True]
    for message in messages:
        play.finish(message, "Packer", JobStatus.CANCELLED)
    assert [play.stage.waiting(play.cluster_id, group) for group in ("packer", "clerk")] == [0, 2]
    join = play.joins.read(middle[0])
    assert join is not None
    assert [(found["status"], found["error"]["type"]) for found in join.results] == [("cancelled", "JobCancelled")] * 2
    assert play.take("Clerk")["headers"]["id"] == middle[0]  # who goes on comes before what was not begun


def test_what_is_handed_down_below_a_cancelled_job_does_not_escape(play: Play) -> None:
    root, middle, _ = play.planted()
    works = play.take("Clerk")
    assert works["headers"]["id"] == middle[1]
    cancelling.cancel(play.stage.control, root)
    assert play.hand_down(works, "Clerk", "Packer", "late") == "cancelled"


def test_a_cancelled_tree_that_is_tried_again_is_done_anew(play: Play) -> None:
    root, middle, _ = play.planted()
    trees.collect(play.stage.control)
    cancelling.cancel(play.stage.control, root)
    outcomes.collect(play.stage.control)
    assert play.api.post(f"/api/jobs/{root}/retry", json={}).status_code == 202
    assert play.hand_down(play.take("Boss"), "Boss", "Clerk", {"n": 1}, {"n": 2}) == "waits"
    trees.collect(play.stage.control)
    assert [str(play.stage.job(job_id).status) for job_id in middle] == ["queued", "queued"]
    begun = [play.take("Clerk")["begun"] for _ in range(2)]
    assert [(one.cancelled, one.attempt > 0) for one in begun] == [(False, True)] * 2


# --- lost, and asleep -------------------------------------------------------------------------------------------


def test_a_job_that_waits_for_others_is_not_lost_and_after_a_loss_in_redis_it_is_sent_again(play: Play) -> None:
    root, middle, _ = play.planted()
    trees.collect(play.stage.control)
    play.stage.earlier("jobs", "published_at", 60)
    idle = {(play.cluster_id, "Boss"): play.queue("Boss")}
    assert outcomes.sweep(play.stage.control, lambda: idle) == 0
    play.redis.flushdb()
    play.stage.earlier("jobs", "published_at", 60)
    assert outcomes.sweep(play.stage.control, lambda: idle) == 1
    again = play.take("Boss")
    assert (again["headers"]["id"], again["begun"].attempt) == (root, 1)
    assert play.hand_down(again, "Boss", "Clerk", {"n": 1}, {"n": 2}) == "waits"
    assert play.take("Clerk")["headers"]["id"] == middle[0]


def test_a_cluster_whose_tree_waits_for_a_retry_sleeps_and_is_woken_by_it(play: Play) -> None:
    stage, cluster_id = play.stage, play.cluster_id
    root, middle, _ = play.planted()
    for message, group in ((play.take("Clerk"), "Clerk"), (play.take("Packer"), "Packer")):
        play.finish(message, group)
    parked: Any = play.redis.rpop(play.queue("Packer"))
    now = play.redis.time()[0]  # type: ignore[index]
    play.redis.zadd(names.eta_key(play.queue("Packer")), {parked: now + 5000})
    trees.collect(stage.control)
    outcomes.collect(stage.control)
    for column in ("last_active", "started_at", "created_at", "scaled_at"):
        stage.earlier("clusters", column, 7200)
    stage.beat(*stage.agents(cluster_id), idle_since=now - 7200)
    stage.tick()
    assert stage.cluster(cluster_id).intent is Intent.ASLEEP
    assert play.joins.pending([root, middle[0]]) == {root: 1, middle[0]: 1}
    pending = select(Operation.id).where(Operation.status == OperationStatus.PENDING)
    with stage.control.database.transaction() as session:
        [operation_id] = session.scalars(pending)
    operations.run(stage.control, operation_id)
    stage.settle(cluster_id)
    assert stage.cluster(cluster_id).status is ClusterStatus.HIBERNATED
    play.redis.zadd(names.eta_key(play.queue("Packer")), {parked: now - 1})
    stage.tick()
    assert stage.cluster(cluster_id).intent is Intent.RUNNING
    assert stage.cluster(cluster_id).group_targets["Packer"] == 1


def test_a_destroyed_cluster_leaves_nobody_waiting(play: Play) -> None:
    root, middle, _ = play.planted()
    trees.collect(play.stage.control)
    play.stage.do(DestroyCluster(cluster_id=play.cluster_id))
    play.stage.settle(play.cluster_id)
    assert play.redis.exists(names.join_key(root), names.join_key(middle[0])) == 0
    ttl = play.stage.control.settings.job_ttl_seconds
    assert 0 < int(play.redis.ttl(names.tree_key(root))) <= ttl  # type: ignore[arg-type]
