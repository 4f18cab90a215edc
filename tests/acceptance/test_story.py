"""The main job through REST, with real agents."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from .brain import Brain, until


def test_cluster_test_001_from_marketing_v1_with_target_6_has_six_live_agents(brain: Brain) -> None:
    body = {"blueprint_id": "marketing-v1", "name": "Q1", "id": "cluster-test-001", "target_workers": 6}
    made = brain.command("POST", "/api/clusters", body)
    assert made["cluster"] | {"status": "active", "current_workers": 6, "target_workers": 6} == made["cluster"]
    agents = brain.agents("cluster-test-001")
    assert Counter(agent["role"] for agent in agents) == {"supervisor": 1, "specialist": 3, "worker": 2}
    assert {agent["beat"] for agent in agents} == {"fresh"}
    processes = brain.until_agents("cluster-test-001", 6)
    assert len({pid for pids in processes.values() for pid in pids}) == 6
    brain.command("DELETE", "/api/clusters/cluster-test-001")
    assert brain.agent_processes("cluster-test-001") == {}


def test_scaling_starts_and_stops_real_processes(brain: Brain) -> None:
    cluster = brain.cluster("marketing-v1", target_workers=6)
    for target in (12, 5):
        done = brain.command("POST", f"/api/clusters/{cluster}/scale", {"target_workers": target})
        assert done["operation"]["result"]["current_workers"] == target
        brain.until_agents(cluster, target)
    brain.command("POST", f"/api/clusters/{cluster}/scale", {"groups": {"Image Generator": 3}})
    groups = Counter(agent["group"] for agent in brain.agents(cluster))
    assert groups["Image Generator"] == 3
    assert groups["Marketing Director"] == 1
    brain.until_agents(cluster, brain.seen(cluster)["target_workers"])
    brain.command("DELETE", f"/api/clusters/{cluster}")


def test_a_hibernated_cluster_has_no_process_and_a_job_wakes_it(brain: Brain) -> None:
    cluster = brain.cluster("marketing-v1", target_workers=6)
    done = brain.command("POST", f"/api/clusters/{cluster}/hibernate")
    assert done["cluster"]["status"] == "hibernated"
    assert done["cluster"]["current_workers"] == 0
    assert brain.agents(cluster) == []
    assert brain.agent_processes(cluster) == {}
    body = {"capability": "market_report", "payload": {"digests": []}}
    job = brain.call("POST", f"/api/clusters/{cluster}/jobs", body).json["job"]
    assert brain.outcome(job["id"])["status"] == "succeeded"
    until(lambda: brain.seen(cluster)["status"] == "active", "it is awake")
    brain.until_agents(cluster, brain.seen(cluster)["target_workers"])
    brain.command("DELETE", f"/api/clusters/{cluster}")


def test_reactivating_restores_at_least_min_workers(brain: Brain) -> None:
    cluster = brain.cluster("marketing-v1", target_workers=6)
    brain.command("POST", f"/api/clusters/{cluster}/hibernate")
    woken = brain.command("POST", f"/api/clusters/{cluster}/reactivate")["cluster"]
    assert woken["status"] == "active"
    assert woken["current_workers"] >= woken["min_workers"] == 4
    brain.until_agents(cluster, woken["current_workers"])
    brain.command("DELETE", f"/api/clusters/{cluster}")


def test_narrower_bounds_move_the_size_with_them(brain: Brain) -> None:
    cluster = brain.cluster(target_workers=6)
    done = brain.command("PUT", f"/api/clusters/{cluster}", {"max_workers": 3, "name": "Small", "tags": ["tiny"]})
    assert done["cluster"] | {"name": "Small", "tags": ["tiny"], "current_workers": 3} == done["cluster"]
    brain.until_agents(cluster, 3)
    brain.command("DELETE", f"/api/clusters/{cluster}")


def test_a_destroyed_cluster_stays_as_history_and_takes_no_more_commands(brain: Brain) -> None:
    cluster = brain.cluster(target_workers=3)
    gone = brain.command("DELETE", f"/api/clusters/{cluster}")["cluster"]
    assert gone["status"] == "destroyed"
    assert gone["destroyed_at"]
    assert brain.agent_processes(cluster) == {}
    refused = brain.call("POST", f"/api/clusters/{cluster}/reactivate")
    assert refused.status == 409
    assert refused.json["cluster_status"] == "destroyed"
    assert brain.call("POST", f"/api/clusters/{cluster}/jobs", {"payload": {}}).status == 409


def test_clusters_are_listed_by_status_type_tag_and_name(brain: Brain) -> None:
    awake = brain.cluster(name="Painters north", tags=["paint"], type="persistent")
    asleep = brain.cluster(name="Painters south", tags=["paint"])
    brain.command("POST", f"/api/clusters/{asleep}/hibernate")

    def listed(query: str) -> set[str]:
        return {row["id"] for row in brain.get(f"/api/clusters?{query}")["clusters"]}

    assert listed("tag=paint") == {awake, asleep}
    assert listed("tag=paint&status=hibernated") == {asleep}
    assert listed("type=persistent") == {awake}
    assert listed("name=painters%20N") == {awake}
    for cluster in (awake, asleep):
        brain.command("DELETE", f"/api/clusters/{cluster}")


def test_the_events_tell_the_story(brain: Brain) -> None:
    cluster = brain.cluster(target_workers=2)
    brain.command("POST", f"/api/clusters/{cluster}/scale", {"target_workers": 3})
    brain.command("POST", f"/api/clusters/{cluster}/hibernate")
    brain.command("DELETE", f"/api/clusters/{cluster}")
    events = list(reversed(brain.get(f"/api/clusters/{cluster}/events?limit=200")["events"]))
    assert [event["id"] for event in events] == sorted(event["id"] for event in events)
    accepted = [event["data"]["kind"] for event in events if event["kind"] == "operation.accepted"]
    succeeded = [event["data"]["kind"] for event in events if event["kind"] == "operation.succeeded"]
    assert accepted == succeeded == ["create", "scale", "hibernate", "destroy"]
    moves = [(event["data"]["from"], event["data"]["to"]) for event in events if event["kind"] == "cluster.status"]
    assert moves[0] == ("planning", "spawning")
    assert moves[-1][1] == "destroyed"
    assert {"active", "scaling_up", "scaling_down", "hibernated"} <= {move[1] for move in moves}
    assert all(before[1] == after[0] for before, after in pairwise(moves))


def test_metrics_rows_appear_and_count_agents_and_jobs(brain: Brain) -> None:
    cluster = brain.cluster(target_workers=2)
    for _ in range(5):
        brain.job(cluster, say="hello")

    def row() -> bool:
        rows = brain.get(f"/api/clusters/{cluster}/metrics")["metrics"]
        return any(
            one["active_agents"] == 2 and one["tasks_per_minute"] == 5 and one["queue_length"] == 0 for one in rows
        )

    until(row, "a row with two agents and five jobs a minute")
    brain.command("DELETE", f"/api/clusters/{cluster}")


def test_two_clusters_live_side_by_side(brain: Brain) -> None:
    one, two = brain.cluster(target_workers=3), brain.cluster(target_workers=4)
    jobs = {brain.job(cluster, say=cluster): cluster for cluster in (one, two) for _ in range(5)}
    for job, cluster in jobs.items():
        done = brain.outcome(job)
        assert done["result"]["said"] == cluster
        assert done["agent_id"].startswith(f"{cluster}.")
    brain.command("DELETE", f"/api/clusters/{one}")
    brain.until_agents(two, 4)
    assert brain.outcome(brain.job(two, say="still here"))["status"] == "succeeded"
    brain.command("DELETE", f"/api/clusters/{two}")
