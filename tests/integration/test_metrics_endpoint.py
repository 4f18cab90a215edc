"""What monitors scrape: read back with Prometheus's own parser."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from brain_clusters.api.app import create_app
from brain_clusters.broker.jobs import JobReport
from brain_clusters.domain.commands import DestroyCluster, HibernateCluster, ReactivateCluster, ScaleCluster
from brain_clusters.domain.exposition import METRICS
from brain_clusters.domain.states import JobStatus
from brain_clusters.services import accruing, autoscale, blueprints, counting, metering, outcomes
from brain_clusters.services.control import Control
from brain_clusters.services.costs import MOST_ROWS
from tests.integration.stage import Stage

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(control: Control) -> Samples:
    answered = create_app(control).test_client().get("/metrics")
    assert answered.status_code == 200, answered.text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(answered.text)
        for sample in family.samples
    }


def of(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, tuple(sorted(labels.items()))))


def finish(stage: Stage, cluster: str, seconds: Mapping[float, JobStatus], group: str = "Packer") -> None:
    now = time.time()
    reports = [
        JobReport(uuid.uuid4().hex, cluster, group, "a", status, 1, now - took, now, {"sum": 3})
        for took, status in seconds.items()
    ]
    with stage.control.database.transaction() as session:
        outcomes.store(session, reports)


def test_a_cluster_is_told_by_group_and_state(stage: Stage) -> None:
    cluster = stage.active()
    found = scrape(stage.control)
    shop = {"cluster": cluster, "group": "Packer"}
    assert of(found, "brain_agents", **shop, state="idle") == of(found, "brain_agents_wanted", **shop) == 1
    assert of(found, "brain_jobs_ready", **shop) == 0
    assert of(found, "brain_clusters", status="active") == 1
    assert of(found, "brain_redis_up") == 1
    assert of(found, "brain_agent_start_seconds_count", **shop) == 1
    assert of(found, "brain_operations_total", cluster=cluster, kind="create", outcome="succeeded") == 1
    assert of(found, "brain_host_agents", host="host-1", driver="process") == 3
    assert of(found, "brain_host_up", host="host-1", driver="process") == 1
    assert of(found, "brain_host_asked_cpus", host="host-1", driver="process") == 0
    assert of(found, "brain_host_capacity_cpus", host="host-1", driver="process") is None, "it has no bound"
    assert of(found, "brain_groups_unknown") == 0


def test_an_age_that_nobody_knows_is_not_told(stage: Stage) -> None:
    cluster = stage.active()
    shop = {"cluster": cluster, "group": "Packer"}
    assert of(scrape(stage.control), "brain_jobs_oldest_age_seconds", **shop) == 0, "nothing waits"
    stage.control.broker.redis.rpush(f"brain.{cluster}.packer", '{"headers": {}}')  # without a stamp
    found = scrape(stage.control)
    assert of(found, "brain_jobs_ready", **shop) == 1
    assert of(found, "brain_jobs_oldest_age_seconds", **shop) is None


def test_jobs_count_once_by_outcome_however_often_they_are_stored_and_folded(stage: Stage) -> None:
    cluster = stage.active()
    finish(stage, cluster, {0.3: JobStatus.SUCCEEDED, 40.0: JobStatus.SUCCEEDED, 2.0: JobStatus.DEAD})
    before = scrape(stage.control)
    counting.fold(stage.control)
    shop = {"cluster": cluster, "group": "Packer"}
    for found in (before, scrape(stage.control)):
        assert of(found, "brain_jobs_total", **shop, outcome="succeeded") == 2
        assert of(found, "brain_jobs_total", **shop, outcome="dead") == 1
        assert of(found, "brain_job_seconds_bucket", **shop, le="0.25") == 0
        assert of(found, "brain_job_seconds_bucket", **shop, le="0.5") == 1
        assert of(found, "brain_job_seconds_bucket", **shop, le="+Inf") == 3
        assert of(found, "brain_job_seconds_sum", **shop) == pytest.approx(42.3, abs=0.1)
    finish(stage, cluster, {1.0: JobStatus.SUCCEEDED})
    assert of(scrape(stage.control), "brain_jobs_total", **shop, outcome="succeeded") == 3


def test_a_wake_up_is_timed(stage: Stage) -> None:
    cluster = stage.active()
    stage.do(HibernateCluster(cluster_id=cluster))
    stage.settle(cluster)
    stage.do(ReactivateCluster(cluster_id=cluster))
    stage.settle(cluster)
    found = scrape(stage.control)
    assert of(found, "brain_wake_seconds_count", cluster=cluster) == 1
    assert of(found, "brain_operation_seconds_count", kind="reactivate") >= 1


def test_a_command_that_a_later_one_overtook_is_told_apart_from_failures(stage: Stage) -> None:
    cluster = stage.active()
    stage.do(HibernateCluster(cluster_id=cluster))
    stage.do(ReactivateCluster(cluster_id=cluster))
    stage.settle(cluster)
    found = scrape(stage.control)
    assert of(found, "brain_operations_total", cluster=cluster, kind="hibernate", outcome="superseded") == 1
    assert of(found, "brain_operations_total", cluster=cluster, kind="hibernate", outcome="failed") is None


def test_decisions_are_told_by_action_and_gate_and_never_by_their_sentence(stage: Stage) -> None:
    cluster = stage.active()
    stage.control.broker.redis.rpush(f"brain.{cluster}.packer", *["x"] * 20)
    autoscale.tick(stage.control)
    found = [dict(labels) for (name, labels), _ in scrape(stage.control).items() if name == "brain_decisions_total"]
    assert all(" " not in one["action"] + one["gate"] for one in found)


def test_without_redis_jobs_are_not_told_and_that_is_told(cut_off: Stage, stage: Stage) -> None:
    cluster = stage.active()
    found = scrape(cut_off.control)
    assert of(found, "brain_redis_up") == 0
    assert of(found, "brain_groups_unknown") == 4
    assert of(found, "brain_jobs_ready", cluster=cluster, group="Packer") is None
    assert of(found, "brain_agents", cluster=cluster, group="Packer", state="idle") == 1


def test_clusters_beyond_the_bound_are_summed_up(stage: Stage) -> None:
    told = replace(stage.control, settings=replace(stage.control.settings, metrics_clusters=1))
    first, second, third = (stage.active() for _ in range(3))
    stage.do(ScaleCluster(cluster_id=third, groups={"Packer": 3}))
    stage.settle(third)
    finish(stage, second, {1.0: JobStatus.SUCCEEDED})
    finish(stage, third, {1.0: JobStatus.SUCCEEDED})
    found = scrape(told)
    clusters = {dict(labels).get("cluster") for _, labels in found}
    assert clusters == {None, first, "_other"}
    assert of(found, "brain_agents", cluster="_other", group="", state="idle") == 8
    assert of(found, "brain_jobs_total", cluster="_other", group="", outcome="succeeded") == 2
    assert of(found, "brain_job_seconds_count", cluster="_other", group="") == 2


def counted(found: Samples) -> float:
    return sum(value for (name, _), value in found.items() if name == "brain_jobs_total")


def test_no_counter_shrinks_when_clusters_go_and_others_take_their_places(stage: Stage) -> None:
    told = replace(stage.control, settings=replace(stage.control.settings, metrics_clusters=1))
    first, second = stage.active(), stage.active()
    finish(stage, first, {1.0: JobStatus.SUCCEEDED, 2.0: JobStatus.SUCCEEDED})
    finish(stage, second, {1.0: JobStatus.SUCCEEDED})
    stage.do(DestroyCluster(cluster_id=first))
    stage.settle(first)
    before = scrape(told)
    assert of(before, "brain_jobs_total", cluster=first, group="Packer", outcome="succeeded") == 2, "a while longer"
    with stage.control.database.transaction() as session:
        counting.forget(session, 1, timedelta(seconds=-1))
    after = scrape(told)
    assert of(after, "brain_jobs_total", cluster="_other", group="", outcome="succeeded") == 3
    assert counted(after) == counted(before) == 3
    assert of(after, "brain_agents", cluster=second, group="Packer", state="idle") == 1, "it is told apart now"
    finish(stage, second, {1.0: JobStatus.SUCCEEDED})
    assert of(scrape(told), "brain_jobs_total", cluster=second, group="Packer", outcome="succeeded") == 1
    stage.sql("DELETE FROM clusters WHERE id = :id", id=first)
    with stage.control.database.transaction() as session:
        counting.forget(session, 1)
    assert counted(scrape(told)) == 4


PAID = """
metadata: {id: paid, name: Paid, version: "1"}
cluster: {type: project, min_workers: 1, max_workers: 3}
agents:
  - {role: supervisor, name: Head, count: 1, cost: {per_hour: 36}}
"""


def test_more_clusters_than_a_report_of_costs_has_rows_are_told_of(stage: Stage) -> None:
    stage.sql(
        "INSERT INTO usage "
        "(day, cluster_id, group_name, agent_id, blueprint_id, blueprint_version, tags, idle_seconds) "
        "SELECT (now() AT TIME ZONE 'UTC')::date, 'many-' || n, 'Head', 'a', 'shop', '1', '{}', 1 "
        "FROM generate_series(1, :count) AS n",
        count=MOST_ROWS + 1,
    )
    assert of(scrape(stage.control), "brain_redis_up") == 1
    stage.sql("DELETE FROM usage WHERE cluster_id LIKE 'many-%'")


def test_costs_only_grow_whatever_is_deleted_and_however_often_they_are_summed_up(stage: Stage) -> None:
    blueprints.store(stage.control, PAID)
    cluster = stage.active(blueprint_id="paid", target_workers=1)
    labels = {"cluster": cluster, "currency": "USD"}
    stage.sql("UPDATE cluster_agents SET claimed_at = now() - interval '100 s', spawned_at = now() - interval '100 s'")

    def cost() -> float:
        stage.sql("DELETE FROM ticks WHERE name IN ('accruing', 'metering')")
        metering.keep(stage.control)
        accruing.accrue(stage.control)
        return of(scrape(stage.control), "brain_cost_total", **labels) or 0.0

    first = cost()
    assert first == pytest.approx(1.0, abs=0.2)  # 100 s of a hundredth each
    assert first <= cost() < first + 0.2
    stage.sql("DELETE FROM usage")
    assert of(scrape(stage.control), "brain_cost_total", **labels) >= first
    assert of(scrape(stage.control), "brain_cost_per_hour", **labels) == 36


def test_every_sample_is_declared_and_openmetrics_can_be_had(api: FlaskClient, stage: Stage) -> None:
    stage.active()
    plain = api.get("/metrics")
    assert {family.name for family in parse(plain.text)} == {name.removesuffix("_total") for name in METRICS}
    answered = api.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert answered.mimetype == "application/openmetrics-text"
    assert len(list(parse_openmetrics(answered.text))) == len(METRICS)


def test_keda_is_told_the_backlog_of_a_group_or_that_nobody_knows(stage: Stage, cut_off: Stage) -> None:
    cluster = stage.active()
    api = create_app(stage.control).test_client()
    assert api.get(f"/api/clusters/{cluster}/groups/Packer/backlog").json["value"] == 0
    assert api.get(f"/api/clusters/{cluster}/groups/Nobody/backlog").status_code == 404
    assert (
        create_app(cut_off.control).test_client().get(f"/api/clusters/{cluster}/groups/Packer/backlog").status_code
        == 503
    )
