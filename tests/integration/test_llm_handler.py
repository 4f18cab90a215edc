"""``llm:`` against a real server that speaks the protocol, and goes wrong in every way."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from brain_clusters.agent.config import AgentConfig
from brain_clusters.agent.context import JobContext
from brain_clusters.agent.errors import BudgetExceeded, HandlerError, JobTimeout, Retry
from brain_clusters.agent.handlers import for_spec, llm_model, skills
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.domain.specs import Budget
from brain_clusters.domain.work import LlmCall
from brain_clusters.ports import free_port
from tests.integration.cancelling import ends_when_cancelled
from tests.integration.counted import CountedBudgets
from tests.integration.llm_endpoint import Endpoint, serving

CANARY = "canary-77aa01"
SKILLS = '''
from typing import TYPE_CHECKING
from typing_extensions import TypedDict
from brain_clusters.agent.errors import HandlerError
if TYPE_CHECKING:
    from nowhere import JobContext

class Sum(TypedDict):
    a: int
    b: int

def add(payload: Sum, context: "JobContext"):
    """Add two numbers."""
    return {"sum": payload["a"] + payload["b"], "job": context.job_id}

def shout(payload: str, context):
    return payload.upper()

def echo(payload, context):
    return payload["text"]

async def refuse(payload: dict, context):
    raise HandlerError("not today")

def crash(payload: dict, context):
    raise RuntimeError("a bug")
'''


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with serving() as found:
        yield found


@pytest.fixture(autouse=True)
def _fresh(endpoint: Endpoint) -> None:
    endpoint.requests.clear()


@pytest.fixture(scope="module", autouse=True)
def _skills(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A package that brings skills."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "llm_skills.py").write_text(SKILLS)
    told = folder / "llm_skills-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-skills\nVersion: 1.0\n")
    names = ("add", "shout", "echo", "refuse", "crash")
    (told / "entry_points.txt").write_text(
        "[brain_clusters.skills]\n" + "".join(f"{name} = llm_skills:{name}\n" for name in names)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        skills.installed.cache_clear()
        yield
    skills.installed.cache_clear()


def context(deadline: float | None = None, root_id: str | None = None) -> JobContext:
    made = JobContext("job-1", 1, "c1", "Group", "agent-1", {}, logging.getLogger("job"), deadline=deadline)
    made.root_id = root_id
    return made


def spec(call: dict[str, Any] | None = None, **fields: Any) -> AgentSpec:
    given = {"agent_id": "agent-1", "cluster_id": "c1", "group_name": "Group", "role": "worker", "queue": "q"}
    return AgentSpec(**{**given, "llm": LlmCall(**{"model": "small", **(call or {})}), **fields})


def config(endpoint: Endpoint | None, redis_url: str = "redis://127.0.0.1:1/0", **fields: Any) -> AgentConfig:
    url = endpoint and endpoint.url
    return AgentConfig(redis_url, None, ".", ".", **{"llm_base_url": url, **fields})


def ask(endpoint: Endpoint, payload: Any, within: JobContext | None = None, **call: Any) -> Any:
    return for_spec(spec(call), config(endpoint))(payload, within or context())


# --- a conversation ---------------------------------------------------------------------------------------------


def test_a_text_is_answered(endpoint: Endpoint) -> None:
    within = context()
    told = ask(endpoint, "hi", within, system_prompt="Be kind.", temperature=0.5, max_tokens=100)
    usage = {"calls": 1, "input_tokens": 10, "output_tokens": 12}
    assert told == {
        "text": "Hello, world", "finish_reason": "stop", "model": "small-0001", "tool_calls": [], "usage": usage,
    }  # fmt: skip
    assert within.usage.as_dict() == usage
    _, asked = endpoint.requests[0]
    assert asked["messages"] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}]
    assert (asked["model"], asked["temperature"], asked["max_tokens"]) == ("small", 0.5, 100)
    assert (asked["stream"], asked["stream_options"]) == (True, {"include_usage": True})


def test_a_prompt_and_messages_are_payloads_too(endpoint: Endpoint) -> None:
    assert ask(endpoint, {"prompt": "hi"})["text"] == "Hello, world"
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    ask(endpoint, {"messages": messages})
    assert endpoint.requests[-1][1]["messages"] == messages
    assert "temperature" not in endpoint.requests[-1][1]
    assert "max_tokens" not in endpoint.requests[-1][1]


@pytest.mark.parametrize("payload", [None, 3, {}, {"messages": []}, {"messages": ["hi"]}, {"prompt": 1}, ["hi"]])
def test_any_other_payload_is_refused_with_what_is_taken(endpoint: Endpoint, payload: Any) -> None:
    with pytest.raises(HandlerError, match="a model takes a text"):
        ask(endpoint, payload)
    assert endpoint.requests == []


def test_the_key_is_read_by_reference_and_never_told(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "key").write_text(f"{CANARY}\n")
    monkeypatch.setenv("MODEL_KEY", CANARY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-another")
    for reference in ("env:MODEL_KEY", f"file:{tmp_path / 'key'}"):
        for_spec(spec(), config(endpoint, llm_api_key=reference))("hi", context())
        headers = endpoint.requests[-1][0]
        assert headers["authorization"] == f"Bearer {CANARY}"
        assert "openai-organization" not in headers
    with pytest.raises(HandlerError, match=r"401: Incorrect API key provided: Bearer \*{8}") as raised:
        for_spec(spec(), config(endpoint, llm_api_key="env:MODEL_KEY"))("wrong", context())
    assert CANARY not in str(raised.getrepr())
    assert CANARY not in caplog.text


def test_a_key_that_is_missing_is_a_clear_fault_and_no_call(endpoint: Endpoint) -> None:
    within = context()
    with pytest.raises(HandlerError, match="the model's api_key refers to env:NOT_THERE is not set"):
        for_spec(spec({"api_key": "env:NOT_THERE"}), config(endpoint))("hi", within)
    assert within.usage.as_dict() is None
    assert endpoint.requests == []


def test_the_endpoint_of_a_blueprint_is_checked_and_not_given_the_key_of_the_installation(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_KEY", CANARY)
    stated = spec({"base_url": endpoint.url})
    with pytest.raises(HandlerError, match=r"127\.0\.0\.1, which is no public address"):
        for_spec(stated, config(None, llm_api_key="env:MODEL_KEY"))("hi", context())
    allowed = config(None, llm_api_key="env:MODEL_KEY", http_allowed_networks=("127.0.0.0/8",))
    assert for_spec(stated, allowed)("hi", context())["text"] == "Hello, world"
    assert endpoint.requests[-1][0]["authorization"] == "Bearer none"


def test_what_is_missing_is_said_by_the_jobs(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HandlerError, match="set BRAIN_LLM_BASE_URL, or base_url in the blueprint's llm"):
        for_spec(spec(), config(None))("hi", context())
    with pytest.raises(HandlerError, match="no skill 'fly' is installed; installed are: "):
        ask(endpoint, "hi", tools=("fly",))
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(HandlerError, match=r"pip install 'brain-clusters\[llm\]'"):
        ask(endpoint, "hi")


# --- tools ------------------------------------------------------------------------------------------------------


def test_a_skill_is_a_tool_with_the_schema_of_its_payload(endpoint: Endpoint) -> None:
    within = context()
    told = ask(endpoint, 'tool:add={"a": 2, "b": 3};shout={"payload": "hey"}', within, tools=("add", "shout", "echo"))
    assert told["text"] == "the tool says HEY"
    assert told["tool_calls"] == [
        {"name": "add", "arguments": '{"a": 2, "b": 3}', "answer": '{"sum": 5, "job": "job-1"}'},
        {"name": "shout", "arguments": '{"payload": "hey"}', "answer": "HEY"},
    ]
    assert told["usage"]["calls"] == 2
    add, shout, echo = (tool["function"] for tool in endpoint.requests[0][1]["tools"])
    assert add["description"] == "Add two numbers."
    assert add["parameters"]["properties"] == {
        "a": {"title": "A", "type": "integer"}, "b": {"title": "B", "type": "integer"},
    }  # fmt: skip
    assert add["parameters"]["required"] == ["a", "b"]
    assert shout["parameters"]["required"] == ["payload"]
    assert echo["parameters"] == {"type": "object", "properties": {}, "additionalProperties": True}
    second = endpoint.requests[1][1]["messages"]
    assert [message["role"] for message in second] == ["user", "assistant", "tool", "tool"]
    assert [call["id"] for call in second[1]["tool_calls"]] == ["id_0", "id_1"]
    assert second[2] == {"role": "tool", "tool_call_id": "id_0", "content": '{"sum": 5, "job": "job-1"}'}


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ('add={"a": 1}', "error: the arguments are wrong: 1 validation error"),
        ("add={broken", "error: the arguments are wrong: "),
        ("add=[1]", "error: the arguments are wrong: they are no JSON object"),
        ("shout={}", "error: the arguments are wrong: 'payload'"),
        ("refuse={}", "error: not today"),
        ("fly={}", "error: there is no tool 'fly'; there are: add, shout, refuse"),
    ],
)
def test_a_model_is_told_what_is_wrong_with_its_call(endpoint: Endpoint, asked: str, answer: str) -> None:
    told = ask(endpoint, f"tool:{asked}", tools=("add", "shout", "refuse"))
    assert told["tool_calls"][0]["answer"].startswith(answer)
    assert told["text"].startswith(f"the tool says {answer}")


def test_a_bug_in_a_skill_is_the_jobs(endpoint: Endpoint) -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        ask(endpoint, "tool:crash={}", tools=("crash",))


def test_tools_are_not_called_for_ever(endpoint: Endpoint) -> None:
    within = context()
    with pytest.raises(HandlerError, match="still asks for tools after 10 rounds"):
        ask(endpoint, "again", within, tools=("echo",))
    assert len(endpoint.requests) == 11
    assert (within.usage.as_dict() or {})["calls"] == 11
    with pytest.raises(HandlerError, match="more than 100 calls of tools"):
        ask(endpoint, "tool:" + ";".join(['echo={"text": "x"}'] * 101), tools=("echo",))


def test_tokens_have_a_bound(endpoint: Endpoint) -> None:
    within = context()
    within.usage.add(input_tokens=500_000)
    with pytest.raises(HandlerError, match=r"has used 1\.1.*e\+06 tokens, and may use 1000000"):
        ask(endpoint, "greedy", within, tools=("echo",))


# --- what goes wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("busy", "answered 429: too many requests"),
        ("broken", "answered 503: overloaded"),
        ("cut", "cannot be reached or broke off: "),
        ("short", "ended before it was finished"),
    ],
)
def test_what_may_go_better_later_is_tried_again(endpoint: Endpoint, asked: str, said: str) -> None:
    with pytest.raises(Retry, match=said) as raised:
        ask(endpoint, asked)
    assert raised.value.after == (9 if asked == "busy" else None)
    assert len(endpoint.requests) == 1  # the library's own retries are off


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("garbage", "sent what is no chat completion: "),
        ("odd:[1, 2]", "sent what is no chat completion: "),
        ("odd:7", "sent what is no chat completion: "),
        ('odd:{"choices": "none"}', "sent what is no chat completion: "),
        ('odd:{"choices": [{"delta": {"content": 7}}]}', "sent what is no chat completion: 7 is no text"),
        ('odd:{"choices": [{"delta": {"tool_calls": ["x"]}}]}', "sent what is no chat completion: "),
        ("page", "text/html and not a stream of events: <html>a login page"),
        ("failing", "answered with an error: the model fell over"),
    ],
)
def test_garbage_is_a_failure_that_says_what_came(endpoint: Endpoint, asked: str, said: str) -> None:
    with pytest.raises(HandlerError, match=said):
        ask(endpoint, asked)


def test_an_endpoint_that_is_away_or_silent_is_tried_again(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    within = context()
    away = config(None, llm_base_url=f"http://127.0.0.1:{free_port()}/v1")
    with pytest.raises(Retry, match="Connection refused"):
        for_spec(spec(), away)("hi", within)
    assert within.usage.as_dict() is None
    monkeypatch.setattr(llm_model, "IDLE_SECONDS", 0.2)
    with pytest.raises(Retry, match="nothing came for too long"):
        ask(endpoint, "hang", within)
    assert within.usage.as_dict() == {"calls": 1, "unmetered_calls": 1}


@pytest.mark.parametrize("asked", ["hang", "slow"])
def test_a_call_ends_at_the_deadline(endpoint: Endpoint, asked: str) -> None:
    within = context(deadline=time.time() + 0.4)
    with pytest.raises(JobTimeout):
        ask(endpoint, asked, within)
    assert within.usage.as_dict() == {"calls": 1, "unmetered_calls": 1}


@pytest.mark.parametrize("asked", ["hang", "slow"])
def test_a_call_ends_when_its_job_is_cancelled(endpoint: Endpoint, asked: str, until: Callable[..., Any]) -> None:
    within = context()
    ends_when_cancelled(within, until, endpoint.requests, lambda: ask(endpoint, asked, within))


# --- budgets ----------------------------------------------------------------------------------------------------

PRICES = {"per_1k_input_tokens": 1.0, "per_1k_output_tokens": 2.0, "per_call": 0.5}


def priced(endpoint: Endpoint, redis_url: str, budget: Budget, call: dict[str, Any] | None = None) -> Any:
    stated = {"max_tokens": 1000, **(call or {})}
    return for_spec(spec(stated, cost=PRICES, budget=budget), config(endpoint, redis_url))


def test_a_call_is_reserved_before_and_settled_after(
    endpoint: Endpoint, redis_url: str, budgets: CountedBudgets
) -> None:
    run = priced(endpoint, redis_url, Budget(per_day=10, per_tree=5, on_exceeded="stop"))
    run("costly:500", context(root_id="tree"))
    cost = 500_000 + 10 * 1000 + 500 * 2000
    assert budgets.of_day("c1") == (cost, 0)
    assert budgets.of_tree("tree") == (cost, 0)
    run("hi", context())
    assert budgets.of_tree("job-1") == (500_000 + 2 * 1000 + 12 * 2000, 0)


def test_a_call_that_may_cost_too_much_does_not_begin(
    endpoint: Endpoint, redis_url: str, budgets: CountedBudgets
) -> None:
    within = context()
    with pytest.raises(BudgetExceeded, match="budget of a day is 2; 0 is spent and 0 reserved"):
        priced(endpoint, redis_url, Budget(per_day=2, on_exceeded="hibernate"))("hi", within)
    assert endpoint.requests == []
    assert within.usage.as_dict() is None
    assert priced(endpoint, redis_url, Budget(per_day=2))("hi", within)["text"] == "Hello, world"
    assert budgets.of_day("c1") == (526_000, 0)


def test_what_nobody_counted_costs_what_it_was_estimated_at(
    endpoint: Endpoint, redis_url: str, budgets: CountedBudgets
) -> None:
    run = priced(endpoint, redis_url, Budget(per_day=100, on_exceeded="stop"))
    for asked in ("cut", "unmetered", "garbage"):
        before, _ = budgets.of_day("c1")
        with suppress(Retry, HandlerError):
            run(asked, context())
        spent, reserved = budgets.of_day("c1")
        assert reserved == 0
        assert 500_000 + 2_000_000 < spent - before < 500_000 + 2_000_000 + 50_000


def test_a_call_that_was_refused_costs_nothing(endpoint: Endpoint, redis_url: str, budgets: CountedBudgets) -> None:
    run = priced(endpoint, redis_url, Budget(per_day=100, on_exceeded="stop"))
    for asked in ("busy", "broken", "wrong"):
        within = context()
        with pytest.raises((Retry, HandlerError)):
            run(asked, within)
        assert within.usage.as_dict() is None
    assert budgets.of_day("c1") == (0, 0)


def test_where_a_budget_holds_an_answer_has_a_longest_length(
    endpoint: Endpoint, redis_url: str, budgets: CountedBudgets
) -> None:
    priced(endpoint, redis_url, Budget(per_day=100), {"max_tokens": None})("hi", context())
    assert endpoint.requests[-1][1]["max_tokens"] == 4096
    assert budgets.of_day("c1") == (526_000, 0)


def test_without_prices_there_is_nothing_to_reserve(endpoint: Endpoint) -> None:
    stated = spec(budget=Budget(per_day=0, on_exceeded="stop"), cost={"per_hour": 1})
    assert for_spec(stated, config(endpoint))("hi", context())["text"] == "Hello, world"


def test_a_budget_that_cannot_be_asked_lets_the_job_wait(endpoint: Endpoint) -> None:
    with pytest.raises(Retry, match="the budget cannot be asked"):
        priced(endpoint, f"redis://127.0.0.1:{free_port()}/0", Budget(per_day=100))("hi", context())
    assert endpoint.requests == []


def test_fifty_calls_at_once_cross_a_budget_by_no_more_than_what_was_in_flight(
    endpoint: Endpoint, redis_url: str, budgets: CountedBudgets
) -> None:
    run = priced(endpoint, redis_url, Budget(per_day=20, on_exceeded="stop"))

    def call(number: int) -> bool:
        try:
            run("costly:1200", context(root_id=f"tree-{number}"))  # 200 more than it was told
        except BudgetExceeded:
            return False
        return True

    with ThreadPoolExecutor(50) as pool:
        done = sum(pool.map(call, range(50)))
    spent, reserved = budgets.of_day("c1")
    assert (spent, reserved) == (done * (500_000 + 11_000 + 1200 * 2000), 0)
    assert 6 <= done <= 7  # seven estimates of 2.5 and a little fit
    assert spent <= 20_000_000 + 7 * 200 * 2000
