"""Functions of every kind without an agent around them, and skills that installed packages bring."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from brain_clusters.agent.context import CHECKPOINT_LIMIT_BYTES, JobContext
from brain_clusters.agent.errors import HandlerError, Retry
from brain_clusters.agent.handlers import commands, for_spec, functions, skills
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.errors import PermanentError

CONTEXT = JobContext("job-1", 1, "cluster-1", "Group", "agent-1", {}, logging.getLogger("test"))

# --- functions ----------------------------------------------------------------------------------------------------


def do(function: Any, payload: Any = None) -> Any:
    return functions.handler(function)(payload, CONTEXT)


async def later(payload: Any, context: JobContext) -> Any:
    return [payload, context.job_id]


async def leaves(_payload: Any, _context: JobContext) -> Any:
    sys.exit(3)


async def fails(_payload: Any, _context: JobContext) -> Any:
    raise ValueError("no good")


def test_a_coroutine_returns_raises_or_leaves_as_a_function_does() -> None:
    assert do(later, 1) == [1, "job-1"]
    with pytest.raises(ValueError, match="no good") as raised:
        do(fails)
    assert "fails" in {entry.name for entry in raised.traceback}
    with pytest.raises(SystemExit):
        do(leaves)
    assert do(later, 2) == [2, "job-1"]  # the loop lives on


def test_an_object_that_is_called_is_a_handler_too() -> None:
    class Callable:
        async def __call__(self, payload: Any, _context: JobContext) -> Any:
            return payload

    assert do(Callable(), 5) == 5


def test_a_generators_result_is_what_it_returns_or_says() -> None:
    def returns(_payload: Any, _context: JobContext) -> Iterator[Any]:
        yield 0.5
        return "returned"

    def says(_payload: Any, _context: JobContext) -> Iterator[Any]:
        yield {"result": "said"}
        yield 1

    async def says_later(_payload: Any, _context: JobContext) -> AsyncIterator[Any]:
        yield 0.1, "soon"
        yield {"result": {"result": 1}}

    assert [do(returns), do(says), do(says_later)] == ["returned", "said", {"result": 1}]


@pytest.mark.parametrize("step", ["half", (0.5,), (0.5, "a", "b"), {"message": "m"}, True, [0.5]])
def test_what_a_generator_yields_and_is_no_progress_fails_the_job_and_is_named(step: Any) -> None:
    ended = []

    def steps(_payload: Any, _context: JobContext) -> Iterator[Any]:
        try:
            yield step
        finally:
            ended.append(True)

    with pytest.raises(HandlerError, match="yield a fraction from 0 to 1"):
        do(steps)
    assert ended


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), float("inf")])
def test_progress_is_from_0_to_1(fraction: float) -> None:
    with pytest.raises(HandlerError, match="a number from 0 to 1"):
        CONTEXT.progress(fraction)


@pytest.mark.parametrize(
    ("value", "said"),
    [(object(), "not JSON"), (float("nan"), "not JSON"), ("x" * CHECKPOINT_LIMIT_BYTES, "the limit is")],
)
def test_a_checkpoint_that_cannot_be_kept_says_why(value: Any, said: str) -> None:
    with pytest.raises(HandlerError, match=said):
        CONTEXT.checkpoint(value)


def test_a_command_that_exits_with_75_asks_for_another_attempt() -> None:
    with pytest.raises(Retry, match="asks for another attempt: not now"):
        commands.handler(("sh", "-c", "echo not now >&2; exit 75"))(None, CONTEXT)


def test_a_command_is_told_its_deadline() -> None:
    told = replace(CONTEXT, deadline=1234.5, capability="drawing")
    printed = commands.handler(("sh", "-c", "echo $BRAIN_JOB_DEADLINE $BRAIN_JOB_CAPABILITY"))(None, told)
    assert printed == "1234.500 drawing"


# --- skills -------------------------------------------------------------------------------------------------------


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package as pip installs it, with three skills."""
    (tmp_path / "drawing_skills.py").write_text(
        "def draw(payload, context):\n    return ['drawn', payload]\n"
        "async def paint(payload, context):\n    return ['painted', payload]\n"
    )
    about = tmp_path / "drawing_skills-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: drawing-skills\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[brain_clusters.skills]\n"
        "drawing = drawing_skills:draw\n"
        "Oil Painting = drawing_skills:paint\n"
        "broken = drawing_skills:no_such\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    skills.installed.cache_clear()
    yield
    skills.installed.cache_clear()
    sys.modules.pop("drawing_skills", None)


def group(**fields: Any) -> AgentSpec:
    given = {"agent_id": "a", "cluster_id": "c", "group_name": "Artists", "role": "worker", "queue": "q"}
    return AgentSpec(**{**given, **fields})


@pytest.mark.usefixtures("distribution")
def test_a_group_is_served_by_the_one_skill_that_is_installed() -> None:
    handler = for_spec(group(capabilities=("drawing", "unheard of"), skills=("Python",)))
    assert handler(1, CONTEXT) == ["drawn", 1]
    assert handler(1, replace(CONTEXT, capability="unheard of")) == ["drawn", 1]


@pytest.mark.usefixtures("distribution")
def test_a_job_chooses_among_several_skills_by_its_capability() -> None:
    handler = for_spec(group(capabilities=("drawing",), skills=("oil-painting",)))
    assert handler(1, replace(CONTEXT, capability="drawing")) == ["drawn", 1]
    assert handler(1, replace(CONTEXT, capability="Oil Painting")) == ["painted", 1]
    with pytest.raises(HandlerError, match=r"several skills \(drawing, oil-painting\).*send it with one of them"):
        handler(1, CONTEXT)
    with pytest.raises(HandlerError, match="asked for 'broken'"):  # installed, but none of the group's
        handler(1, replace(CONTEXT, capability="broken"))


@pytest.mark.usefixtures("distribution")
def test_a_skill_that_is_missing_or_broken_says_what_is_installed() -> None:
    with pytest.raises(HandlerError, match=r"\(cooking\); installed skills are: drawing, oil-painting, broken"):
        for_spec(group(capabilities=("cooking",)))(1, CONTEXT)
    with pytest.raises(PermanentError, match=r"'drawing_skills:no_such' cannot be imported"):
        for_spec(group(skills=("broken",)))
    with pytest.raises(PermanentError, match="no skill 'cooking' is installed; installed are: drawing"):
        skills.find("cooking")


def test_a_stated_handler_comes_before_skills(distribution: None) -> None:
    assert for_spec(group(command=("echo", "done"), skills=("drawing",)))(1, CONTEXT) == "done"
