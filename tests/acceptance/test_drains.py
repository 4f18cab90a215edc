"""Drains on the real system: busy agents finish and leave, and stay when they are wanted again before that."""

from __future__ import annotations

from brain_clusters.domain.states import AgentStatus

from .brain import Brain, until


def scale(brain: Brain, cluster: str, **groups: int) -> str:
    """Ask for a size and return the path of the operation, which nobody waits for."""
    answer = brain.call("POST", f"/api/clusters/{cluster}/scale", {"groups": groups})
    assert answer.status == 202, answer
    return f"/api/operations/{answer.json['operation']['id']}"


def draining(brain: Brain, cluster: str) -> set[str]:
    return {agent["agent_id"] for agent in brain.agents(cluster) if agent["status"] == AgentStatus.DRAINING}


def drain_told(brain: Brain, agents: set[str], *, told: bool) -> bool:
    """Return whether every one of ``agents`` itself says that it drains, or that it does not."""
    with brain.redis() as client:
        beats = client.mget([f"brain:beat:{agent}" for agent in agents])
    return all(beat and (b'"draining": true' in beat) is told for beat in beats)


def test_busy_agents_that_are_wanted_again_before_they_are_done_stay(brain: Brain) -> None:
    cluster = brain.cluster(target_workers=1)
    brain.command("POST", f"/api/clusters/{cluster}/scale", {"groups": {"Hands": 4, "Twos": 2}})
    before = brain.until_agents(cluster, 7)
    gate = brain.gate()
    jobs = [brain.job(cluster, gate=str(gate)) for _ in range(4)]
    jobs += [brain.job(cluster, "Twos", gate=str(gate)) for _ in range(4)]
    for job in jobs:
        brain.until_begun(job)
    down = scale(brain, cluster, Hands=1, Twos=1)
    leaving = until(lambda: len(found := draining(brain, cluster)) == 4 and found, "four agents drain")
    until(lambda: drain_told(brain, leaving, told=True), "all four know")
    late = brain.job(cluster)  # nobody takes it now
    up = scale(brain, cluster, Hands=4, Twos=2)
    until(lambda: brain.get(up)["status"] == "succeeded", "the scale-up is done")
    assert brain.get(down)["status"] == "succeeded"  # the later command overtook it
    until(lambda: drain_told(brain, leaving, told=False), "all four know that they stay")
    gate.touch()
    assert {brain.outcome(job)["attempts"] for job in [*jobs, late]} == {1}
    for job in [brain.job(cluster) for _ in range(6)]:
        assert brain.outcome(job)["attempts"] == 1
    assert brain.until_agents(cluster, 7) == before
    assert len(brain.agents(cluster, "?ended=true")) == 7
    brain.command("DELETE", f"/api/clusters/{cluster}")


def test_a_drain_is_undone_though_the_host_that_began_it_is_gone(brain: Brain) -> None:
    cluster = brain.cluster(target_workers=1)
    brain.command("POST", f"/api/clusters/{cluster}/scale", {"groups": {"Hands": 2}})
    before = brain.until_agents(cluster, 3)
    gates = [brain.gate(), brain.gate()]
    jobs = [brain.job(cluster, gate=str(gate)) for gate in gates]
    for job in jobs:
        brain.until_begun(job)
    scale(brain, cluster, Hands=0)
    leaving = until(lambda: len(found := draining(brain, cluster)) == 2 and found, "two agents drain")
    until(lambda: drain_told(brain, leaving, told=True), "both know")
    brain.kill_child("host")
    scale(brain, cluster, Hands=1)
    until(lambda: len(draining(brain, cluster)) == 1, "one of them stays")
    staying = leaving - draining(brain, cluster)
    until(lambda: drain_told(brain, staying, told=False), "the next host has told it to go on")
    for gate in gates:
        gate.touch()
    assert {brain.outcome(job)["attempts"] for job in jobs} == {1}
    after = brain.until_agents(cluster, 2)
    assert staying < after.keys()
    assert all(before[agent] == pids for agent, pids in after.items())
    assert brain.outcome(brain.job(cluster))["attempts"] == 1
    assert not any(agent["status"] == "failed" for agent in brain.agents(cluster, "?ended=true"))
    brain.command("DELETE", f"/api/clusters/{cluster}")


def test_a_cluster_that_is_scaled_back_and_forth_loses_no_job_and_reports_no_death(brain: Brain) -> None:
    cluster = brain.cluster(target_workers=1)
    jobs = list[str]()
    for round_ in range(12):
        jobs += [brain.job(cluster, sleep=0.05) for _ in range(5)]
        scale(brain, cluster, Hands=1 + 3 * (round_ % 2))
    assert {brain.outcome(job)["status"] for job in jobs} == {"succeeded"}
    assert {len(brain.marks(job)) for job in jobs} == {1}
    until(lambda: brain.seen(cluster)["status"] == "active", "the cluster is active")
    brain.until_agents(cluster, 5)
    assert not any(agent["status"] == "failed" for agent in brain.agents(cluster, "?ended=true"))
    brain.command("DELETE", f"/api/clusters/{cluster}")
