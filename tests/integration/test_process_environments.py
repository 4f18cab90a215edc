"""``environment`` of a group on the process driver: where its texts come from, and who shares what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from brain_clusters.domain.engines import Engine
from brain_clusters.genesis.contract.ground import Ground
from brain_clusters.genesis.contract.stage import Stage
from brain_clusters.genesis.driver import Phase
from brain_clusters.genesis.process.driver import ProcessDriver

# Tells what the variable was when its module was imported, which is before the fork.
HANDLER = """
import os
AT_IMPORT = os.environ.get("WHO")

def work(payload, context):
    import redis
    redis.Redis.from_url(payload["redis"]).hset(payload["keys"] + ":imported", context.agent_id, AT_IMPORT or "nobody")
"""


@pytest.fixture
def stage(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    (tmp_path / "who_am_i.py").write_text(HANDLER)
    ground = Ground(
        factory=ProcessDriver.make, engine=Engine(), redis_url=redis_url, agents_redis_url=redis_url,
        home=tmp_path / "home", patience_seconds=60.0, environ={"PYTHONPATH": str(tmp_path), "OF_THE_HOST": "host"},
    )  # fmt: skip
    found = Stage(ground, "a")
    yield found
    found.clear()


def agent_with(stage: Stage, environment: Mapping[str, str], **fields: str) -> str:
    (agent,) = stage.start(stage.spec(engine=Engine(environment=environment), **fields))
    return agent


def test_texts_are_taken_as_they_are_or_from_the_host_or_from_a_file(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from a file\n")
    agent = agent_with(stage, {"A": "as: it is", "B": "env:OF_THE_HOST", "C": f"file:{tmp_path}/secret", "D": ""})
    stage.until_consuming([agent])
    for name in "ABCD":
        stage.does(agent, "tell a variable", name)
    told = stage.redis.hgetall(f"{stage.keys}:variables")
    assert told == {b"A": b"as: it is", b"B": b"host", b"C": b"from a file", b"D": b""}


@pytest.mark.parametrize("reference", ["env:NOT_THERE", "file:/not/there", "env:BRAIN_REDIS_URL"])
def test_a_reference_to_nothing_ends_the_agent_with_the_reason_and_no_other(stage: Stage, reference: str) -> None:
    bad, good = agent_with(stage, {"A": reference}), agent_with(stage, {})
    ended = stage.until_ended(bad)
    assert ended.reason is not None
    assert ended.reason.startswith(f"the group's environment: {reference} ")
    stage.until_consuming([good])
    # What was missing may be there now: the next one is tried anew.
    again = agent_with(stage, {"A": "env:OF_THE_HOST"})
    stage.until_consuming([again])


def test_groups_with_other_variables_share_no_zygote(stage: Stage) -> None:
    given: list[Mapping[str, str]] = [{"WHO": "one"}, {"WHO": "two"}, {}]
    agents = [agent_with(stage, environment, handler="who_am_i:work") for environment in given]
    stage.until_consuming(agents)
    for agent in agents:
        stage.send(agent)
    imported = f"{stage.keys}:imported"
    stage.until(lambda: stage.redis.hlen(imported) == 3, "all have told")
    told = stage.redis.hgetall(imported)
    assert [told[agent.encode()] for agent in agents] == [b"one", b"two", b"nobody"]
    assert {stage.told[agent].phase for agent in agents} == {Phase.RUNNING}
