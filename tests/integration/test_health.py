"""Health and samples of clusters, where agents die, jobs end in every way, and agents come while a tick looks."""

from __future__ import annotations

from sqlalchemy import select

from brain_clusters.broker import names
from brain_clusters.db.models import Metrics
from brain_clusters.domain.commands import DestroyCluster
from brain_clusters.domain.states import AgentStatus, JobStatus
from brain_clusters.genesis.desk import Ended
from tests.integration.stage import Stage
from tests.integration.test_costs import done


def newest(stage: Stage, cluster_id: str) -> Metrics:
    with stage.control.database.transaction() as session:
        query = select(Metrics).where(Metrics.cluster_id == cluster_id).order_by(Metrics.id.desc()).limit(1)
        return session.scalars(query).one()


def test_a_sample_counts_agents_whose_first_beat_came_with_the_same_look(stage: Stage) -> None:
    cluster_id = stage.create()
    stage.desk().claim(10)
    starting = stage.agents(cluster_id, AgentStatus.STARTING)
    stage.beat(*starting)
    stage.tick()
    found = newest(stage, cluster_id)
    assert (found.active_agents, found.idle_agents, found.busy_agents) == (3, 3, 0)
    stage.redis.hset(names.unacked_key(starting[0].agent_id), "tag", "message")
    stage.tick()
    found = newest(stage, cluster_id)
    assert (found.active_agents, found.idle_agents, found.busy_agents) == (3, 2, 1)


def test_a_death_lowers_health_for_a_minute(stage: Stage) -> None:
    cluster_id = stage.active()
    stage.beat(*stage.agents(cluster_id))
    victim = stage.agents(cluster_id)[-1]
    stage.desk().ended([Ended(victim.agent_id, asked=False, error="killed")])
    assert stage.cluster(cluster_id).health_score == round(2 / 3 * 3 / 4, 3)  # one of three is away, and one died
    stage.settle(cluster_id)
    assert stage.cluster(cluster_id).health_score == 0.75
    stage.beat(*stage.agents(cluster_id))
    stage.tick()
    assert (stage.cluster(cluster_id).health_score, newest(stage, cluster_id).failed_agents) == (0.75, 1)
    stage.sql("UPDATE cluster_agents SET stopped_at = stopped_at - interval '61 seconds'")
    stage.tick()
    assert (stage.cluster(cluster_id).health_score, newest(stage, cluster_id).failed_agents) == (1.0, 0)


def test_dead_jobs_count_as_failed_and_cancelled_ones_as_neither(stage: Stage) -> None:
    cluster_id = stage.active()
    ways = ["succeeded"] * 5 + ["failed", "dead", "dead"] + ["cancelled"] * 2
    for way in ways:
        done(stage, cluster_id, "Packer", way)
    stage.beat(*stage.agents(cluster_id))
    stage.tick()
    found, cluster = newest(stage, cluster_id), stage.cluster(cluster_id)
    assert (cluster.tasks_completed, cluster.tasks_failed) == (5, 3)
    assert (found.tasks_per_minute, found.error_rate, found.avg_response_time) == (8.0, 37.5, 2000.0)


def test_jobs_that_their_cluster_did_not_live_to_do_have_failed(stage: Stage) -> None:
    cluster_id = stage.active()
    job = stage.post(cluster_id, to="Packer", payload={})
    stage.do(DestroyCluster(cluster_id=cluster_id))
    stage.settle(cluster_id)
    assert stage.job(job.id).status is JobStatus.FAILED
    assert stage.cluster(cluster_id).tasks_failed == 1
