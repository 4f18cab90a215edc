"""The whole story on Kubernetes, in a namespace of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.brain import until
from tests.engines.kube import Kube
from tests.engines.story import EngineStory, EngineUnderTest, Story

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]


class TestStoryOnKubernetes(EngineStory):
    @pytest.fixture(scope="class")
    @classmethod
    def kube(cls, kubeconfig: str) -> Iterator[Kube]:
        assert kubeconfig
        with Kube.made() as kube:
            yield kube

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, image: str, kube: Kube) -> EngineUnderTest:
        def agents(cluster: str) -> set[str]:
            pods = kube.pods(f"brain-clusters/cluster={cluster}")
            return {agent for agent, pod in pods.items() if pod["status"]["phase"] == "Running"}

        return EngineUnderTest(
            driver="kubernetes",
            variables={
                "BRAIN_DRIVERS": "process,kubernetes",
                "BRAIN_AGENT_IMAGE": image,
                "BRAIN_KUBERNETES_NAMESPACE": kube.namespace,
                # The node is shared, and a deadline that is missed fails an operation.
                "BRAIN_START_TIMEOUT_SECONDS": "180",
            },
            group={"pod": {"host_network": True}},
            agents=agents,
            kill=kube.kill,
            leftovers=lambda: kube.left_after(seconds=30),
            unstartable=({"image": "brain-clusters-test:no-such-image"}, "no-such-image"),
        )

    def test_a_cordoned_node_is_told_as_the_reason_and_the_agents_start_once_it_is_open(
        self, story: Story, kube: Kube
    ) -> None:
        cluster = story.cluster(target_workers=1)
        with kube.cordoned():
            operation = cluster.scale(3)

            def told() -> bool:
                rows = story.brain.agents(cluster.id)
                return sum("nodes are available" in str(row["reason"]) for row in rows) == 2

            until(told, "the rows of both say that no node takes them")
        until(lambda: story.brain.get(operation)["status"] == "succeeded", "it is scaled")
        assert {row["reason"] for row in story.brain.agents(cluster.id)} == {None}
        assert cluster.ended() == {}
        cluster.until_agents(3)
        cluster.destroy()

    def test_a_pod_that_an_operator_deletes_finishes_its_job_and_is_replaced(self, story: Story, kube: Kube) -> None:
        cluster = story.cluster(target_workers=2)
        job, name = cluster.send("wait")
        cluster.until_begun(name)
        (busy,) = until(cluster.busy, "it is known to work")
        kube.delete_pod(busy)
        until(lambda: "deletionTimestamp" in kube.pods()[busy]["metadata"], "it is to end")
        cluster.open_gate(name)
        done = story.brain.outcome(job)
        assert done | {"status": "succeeded", "attempts": 1, "agent_id": busy} == done
        until(lambda: busy not in cluster.running(), "its pod has ended")
        cluster.until_agents(2)
        cluster.destroy()
