"""What a blueprint says of the engine that runs a group: what is accepted, and how the rest is refused."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from brain_clusters.blueprints.validator import parse_blueprint
from brain_clusters.domain.agents import AgentSpec, Loads
from brain_clusters.domain.engines import Engine, Resources
from brain_clusters.errors import InvalidInput

BLUEPRINT = """\
metadata: {{id: small, name: Small, version: "1"}}
cluster: {{type: project, min_workers: 1, max_workers: 5{cluster}}}
agents:
  - {{role: supervisor, name: Boss}}
  - {{role: worker, name: Hands, count: 0-4{group}}}
"""


def engine(group: str = "", cluster: str = "") -> Engine:
    return parse_blueprint(BLUEPRINT.format(group=group, cluster=cluster)).groups[1].engine


def faults(group: str = "", cluster: str = "") -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        parse_blueprint(BLUEPRINT.format(group=group, cluster=cluster))
    return {fault.pointer: fault.message for fault in caught.value.faults}


def test_a_group_that_says_nothing_is_run_as_processes_without_limits() -> None:
    assert engine() == Engine("process", None, Resources(None, None), {}, {}, {})


def test_a_group_has_the_driver_of_its_cluster_unless_it_names_its_own() -> None:
    assert engine(cluster=", driver: docker").driver == "docker"
    assert engine(cluster=", driver: docker", group=", driver: kubernetes").driver == "kubernetes"


def test_all_that_a_group_says_of_its_engine_is_kept() -> None:
    found = engine(
        ", driver: docker, image: 'registry:5000/a/b@sha256:00', resources: {cpu: 500m, memory: 256Mi}, "
        "environment: {A: text, B: 'env:HOME', C: 'file:/run/secrets/c'}"
    )
    assert found.image == "registry:5000/a/b@sha256:00"
    assert found.resources == Resources(0.5, 256 * 1024**2)
    assert found.environment == {"A": "text", "B": "env:HOME", "C": "file:/run/secrets/c"}


@pytest.mark.parametrize(
    ("stated", "cores"), [("0.5", 0.5), ("2", 2.0), ("'2'", 2.0), ("500m", 0.5), ("1500m", 1.5), ("1m", 0.001)]
)
def test_cpu_is_cores_or_thousandths(stated: str, cores: float) -> None:
    assert engine(f", resources: {{cpu: {stated}}}").resources.cpu == cores


@pytest.mark.parametrize(
    ("stated", "size"), [("268435456", 2**28), ("256Mi", 2**28), ("256MiB", 2**28), ("1GB", 10**9), ("2Gi", 2**31)]
)
def test_memory_is_a_size(stated: str, size: int) -> None:
    assert engine(f", resources: {{memory: {stated}}}").resources.memory_bytes == size


@pytest.mark.parametrize(
    ("group", "pointer", "said"),
    [
        ("driver: dokcer", "/agents/1/driver", "did you mean docker?"),
        ("driver: nonsense", "/agents/1/driver", "must be a driver that is installed here (docker, "),
        ("driver: 5", "/agents/1/driver", "must be text"),
        ("image: 'two words'", "/agents/1/image", "must be the name of an image, without blanks"),
        ("image: ''", "/agents/1/image", ""),
        ("resources: {cpu: 0}", "/agents/1/resources/cpu", "must be between 0.001 and 1024 cores"),
        ("resources: {cpu: 5000}", "/agents/1/resources/cpu", "must be between 0.001 and 1024 cores"),
        ("resources: {cpu: .nan}", "/agents/1/resources/cpu", "NaN and infinity are not numbers here"),
        ("resources: {cpu: true}", "/agents/1/resources/cpu", ""),
        ("resources: {cpu: a lot}", "/agents/1/resources/cpu", 'must be a number of cores such as 0.5 or 2'),
        ("resources: {memory: 1024}", "/agents/1/resources/memory", "must be a size between 1MiB and 64TiB"),
        ("resources: {memory: much}", "/agents/1/resources/memory", "must be a size such as 256Mi, 256MiB or 1GB"),
        ("resources: {gpu: 1}", "/agents/1/resources/gpu", "unknown key"),
        ("environment: {BRAIN_REDIS_URL: x}", "/agents/1/environment/BRAIN_REDIS_URL", "not begin with BRAIN_"),
        ("environment: {'a-b': x}", "/agents/1/environment/a-b", "must be the name of a variable"),
        ("environment: {A: 5}", "/agents/1/environment/A", "must be text"),
        ("environment: [A]", "/agents/1/environment", ""),
    ],
)  # fmt: skip
def test_what_no_engine_understands_is_refused_with_its_place(group: str, pointer: str, said: str) -> None:
    told = faults(f", {group}")
    assert list(told) == [pointer]
    assert said in told[pointer]


def test_a_cluster_with_a_driver_that_is_not_installed_is_refused() -> None:
    assert list(faults(cluster=", driver: dokcer")) == ["/cluster/driver"]


def test_an_agent_takes_along_what_its_group_says_of_the_engine_through_json() -> None:
    spec = AgentSpec(
        agent_id="a", cluster_id="c", group_name="g", role="worker", queue="q",
        engine=engine(", driver: docker, resources: {cpu: 1}, environment: {A: x}"),
    )  # fmt: skip
    assert AgentSpec.from_dict(spec.as_dict()) == spec


def test_groups_with_other_variables_share_no_zygote_and_keys_tell_no_values() -> None:
    def loads(group: str) -> Loads:
        return Loads.of(parse_blueprint(BLUEPRINT.format(group=group, cluster="")).groups[1])

    plain, one, same, other = (
        loads(f", command: [cat]{more}")
        for more in (
            "",
            ", environment: {A: secret-one, B: x}",
            ", environment: {B: x, A: secret-one}",
            ", environment: {A: two}",
        )
    )
    assert plain.key == ""
    assert one.key == same.key
    assert len({plain.key, one.key, other.key}) == 3
    assert "secret" not in one.key
    assert Loads.from_dict(json.loads(json.dumps(asdict(one)))) == one
