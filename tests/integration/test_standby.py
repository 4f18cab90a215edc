"""Zygotes that are kept warm: started before anybody needs them, never retired, and told with their memory."""

from __future__ import annotations

import os
import selectors
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from brain_clusters.agent.config import AgentConfig
from brain_clusters.domain.agents import AgentSpec, Loads
from brain_clusters.domain.work import LlmCall
from brain_clusters.genesis.process import nursery as nursery_module
from brain_clusters.genesis.process.nursery import Nursery

HEAVY = Loads(handler="heavy:work")
MODULE = """
import os
with open({imports!r}, "a") as imports:
    imports.write("once\\n")
DATA = bytes(1024 * 1024 * {megabytes})
DATA = bytearray(DATA)

def work(payload, context):
    return os.getppid()
"""

SKILL = Loads(skills=("heavy-lifting", "not installed"))
SPEC = AgentSpec(agent_id="a", cluster_id="c", group_name="g", role="worker", queue="q")


class Keeper:
    def __init__(self, url: str, folder: Path) -> None:
        self.imports = folder / "imports"
        (folder / "heavy.py").write_text(MODULE.format(imports=str(self.imports), megabytes=64))
        (folder / "faulty.py").write_text(f"open({str(self.imports)!r}, 'a').write('x')\nraise OSError('no licence')\n")
        about = folder / "heavy-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: heavy\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text("[brain_clusters.skills]\nHeavy Lifting = heavy:work\n")
        config = AgentConfig(url, None, str(folder), str(folder), (str(folder),))
        environ = {key: value for key, value in os.environ.items() if not key.startswith("BRAIN_")}
        self.nursery = Nursery(asdict(config), environ, folder / "zygote.log")
        self.nursery.attach(selectors.DefaultSelector())
        self.seen: list[dict[str, Any]] = []

    def told(self, kind: str) -> dict[str, Any] | None:
        self.seen += self.nursery.reports()
        return next((report for report in self.seen if report["is"] == kind), None)


@pytest.fixture
def keeper(redis_url: str, tmp_path: Path) -> Iterator[Keeper]:
    found = Keeper(redis_url, tmp_path)
    yield found
    found.nursery.close()


@pytest.mark.parametrize(
    ("loads", "spec"),
    [
        pytest.param(HEAVY, replace(SPEC, handler="heavy:work"), id="handler"),
        pytest.param(SKILL, replace(SPEC, capabilities=("not installed", "heavy-lifting")), id="skill"),
    ],
)
def test_what_is_kept_is_imported_once_and_agents_are_forked_from_it(
    keeper: Keeper, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, loads: Loads, spec: AgentSpec
) -> None:
    keeper.nursery.keep([loads])
    loaded = until(lambda: keeper.told("loaded"), "the handler is imported")
    keeper.nursery.note_loaded(loaded["key"], loaded["pid"])
    assert keeper.nursery.memory()[loads.key] > 64 * 1024 * 1024
    monkeypatch.setattr(nursery_module, "_IDLE_SECONDS", 0.0)
    keeper.nursery.retire_idle()
    keeper.nursery.keep([loads])
    keeper.nursery.spawn(spec)
    born = until(lambda: keeper.told("ready") and keeper.told("spawned"), "the agent is born")
    status = Path(f"/proc/{born['pid']}/status").read_text()
    os.kill(born["pid"], 9)
    assert f"PPid:\t{loaded['pid']}" in status
    assert keeper.imports.read_text() == "once\n"


def test_what_nobody_wants_any_more_is_retired(
    keeper: Keeper, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper.nursery.keep([HEAVY])
    loaded = until(lambda: keeper.told("loaded"), "the handler is imported")
    keeper.nursery.note_loaded(loaded["key"], loaded["pid"])
    monkeypatch.setattr(nursery_module, "_IDLE_SECONDS", 0.0)
    keeper.nursery.keep([])
    keeper.nursery.retire_idle()
    assert keeper.nursery.memory() == {}
    until(lambda: keeper.told("exited") or not Path(f"/proc/{loaded['pid']}/smaps_rollup").exists(), "it ends")


def test_what_cannot_be_imported_is_not_tried_again_at_each_beat(keeper: Keeper, until: Callable[..., Any]) -> None:
    faulty = Loads(handler="faulty:work")
    keeper.nursery.keep([faulty])
    refused = until(lambda: keeper.told("unloadable"), "the import fails")
    assert "no licence" in refused["error"]
    keeper.nursery.refuse(refused["key"])
    keeper.nursery.keep([faulty])
    keeper.nursery.keep([HEAVY, faulty])
    until(lambda: keeper.told("loaded"), "the other one is imported")
    assert keeper.imports.read_text() == "xonce\n"


def test_the_library_for_models_is_imported_before_the_fork(keeper: Keeper, until: Callable[..., Any]) -> None:
    keeper.nursery.spawn(replace(SPEC, llm=LlmCall(model="m", tools=("heavy-lifting",))))
    loaded = until(lambda: keeper.told("loaded"), "the library is imported")
    libraries = Path(f"/proc/{loaded['pid']}/maps").read_text()
    born = until(lambda: keeper.told("ready") and keeper.told("spawned"), "the agent is born")
    status = Path(f"/proc/{born['pid']}/status").read_text()
    os.kill(born["pid"], 9)
    assert f"PPid:\t{loaded['pid']}" in status
    assert "/jiter" in libraries  # the last that openai needs, only for completions
    assert keeper.imports.read_text() == "once\n"


def test_groups_whose_skills_are_not_installed_share_the_base_zygote(keeper: Keeper, until: Callable[..., Any]) -> None:
    spec = replace(SPEC, capabilities=("not installed",))
    assert keeper.nursery.loads_of(spec) == Loads()
    keeper.nursery.keep([Loads.of(spec)])
    keeper.nursery.spawn(spec)
    born = until(lambda: keeper.told("ready") and keeper.told("spawned"), "the agent is born")
    os.kill(born["pid"], 9)
    assert keeper.told("loaded") is None
