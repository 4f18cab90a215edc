"""Groups with ``llm`` and ``http`` in real agents: what comes of their jobs, and what a kill leaves behind."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from brain_clusters.broker.jobs import JobRecords
from brain_clusters.domain.pricing import job_price
from brain_clusters.domain.specs import Budget
from brain_clusters.domain.work import HttpCall, LlmCall
from tests.integration.agents import AgentStage
from tests.integration.counted import CountedBudgets
from tests.integration.llm_endpoint import Endpoint, serving

Until = Callable[..., Any]
LLM = LlmCall(model="small", max_tokens=1000)
PRICES = {"per_1k_output_tokens": 1.0}
BUDGET = Budget(per_day=2.02, on_exceeded="stop")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with serving() as found:
        yield found


@pytest.fixture(scope="module")
def shared_stage(
    endpoint: Endpoint, redis_url: str, tmp_path_factory: pytest.TempPathFactory, until: Until
) -> Iterator[AgentStage]:
    settings: dict[str, Any] = {"llm_base_url": endpoint.url, "http_allowed_networks": ("127.0.0.0/8",)}
    found = AgentStage(redis_url, tmp_path_factory.mktemp("agents"), until, {}, **settings)
    yield found
    found.close()


@pytest.fixture
def stage(shared_stage: AgentStage, endpoint: Endpoint) -> AgentStage:
    shared_stage.clear()
    endpoint.requests.clear()
    return shared_stage


def ended(stage: AgentStage, job_id: str) -> dict[str, Any]:
    """Wait for the end of a job and return its record."""
    stage.until(lambda: stage.record(job_id).get("status") in ("succeeded", "failed", "dead"), "the job ends")
    return stage.record(job_id)


def test_an_agent_has_conversations_until_its_budget_is_spent(stage: AgentStage) -> None:
    agent = stage.agent(llm=LLM, cost=PRICES, budget=BUDGET, backoff_seconds=0.01)
    job_id = stage.post(agent.queue, "cut_at_first")
    told = ended(stage, job_id)
    assert (told["status"], told["attempts"]) == ("succeeded", "2"), told
    # With what the attempt used that failed: nobody counted its tokens, so it costs what it was estimated at.
    used = JobRecords(stage.redis).get([job_id])[job_id].usage
    assert used == {"calls": 2, "unmetered_calls": 1, "input_tokens": 12, "output_tokens": 12}
    assert CountedBudgets(stage.redis).of_day("c") == (1_012_000, 0)
    told = ended(stage, stage.post(agent.queue, {"prompt": "hi"}))
    assert json.loads(told["result"])["text"] == "Hello, world"
    assert json.loads(told["usage"]) == {"calls": 1, "input_tokens": 2, "output_tokens": 12}
    refused = ended(stage, stage.post(agent.queue, "hi"))
    assert refused["status"] == "failed"
    assert json.loads(refused["error"])["type"] == "BudgetExceeded"
    assert CountedBudgets(stage.redis).of_day("c") == (1_024_000, 0)


def test_a_job_whose_agent_is_killed_in_the_middle_of_an_answer_is_done_by_another(
    stage: AgentStage, endpoint: Endpoint
) -> None:
    agent = stage.agent(llm=LLM, cost=PRICES, budget=BUDGET)
    job_id = stage.post(agent.queue, "slow_at_first")
    stage.until(lambda: "characters" in stage.record(job_id).get("progress", ""), "the answer streams in")
    agent.signal(signal.SIGKILL)
    assert agent.until_ended() == -9
    assert stage.waiting(agent) == 1
    # What the dead agent had reserved stays reserved until its call must be over: the model may still be at work.
    assert CountedBudgets(stage.redis).of_day("c") == (0, 1_000_000)
    stage.agent(llm=LLM, cost=PRICES, budget=BUDGET, queue=agent.queue)
    told = ended(stage, job_id)
    assert (told["status"], told["attempts"]) == ("succeeded", "2")
    used = json.loads(told["usage"])
    assert used == {"calls": 1, "input_tokens": 13, "output_tokens": 12, "unmetered_attempts": 1}
    assert job_price(PRICES, used) is None
    assert len(endpoint.requests) == 2
    assert CountedBudgets(stage.redis).of_day("c") == (12_000, 1_000_000)


def test_without_the_library_each_job_says_what_to_install(
    endpoint: Endpoint, redis_url: str, tmp_path: Path, until: Until
) -> None:
    (tmp_path / "openai.py").write_text("raise ModuleNotFoundError('No module named openai')")
    variables = {"PYTHONPATH": str(tmp_path)}
    lacking = AgentStage(redis_url, tmp_path, until, {}, variables, llm_base_url=endpoint.url)
    try:
        told = ended(lacking, lacking.post(lacking.agent(llm=LLM).queue, "hi"))
        assert told["status"] == "failed"
        assert r"pip install 'brain-clusters[llm]'" in told["error"]
    finally:
        lacking.close()


class BusyAtFirst(BaseHTTPRequestHandler):
    """Is busy when it is asked for the first time, and then says what it was sent."""

    server: Any

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        first, self.server.asked = not self.server.asked, True
        self.send_response(429 if first else 200)
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def test_a_request_that_finds_a_busy_server_is_sent_again(stage: AgentStage) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BusyAtFirst) as server:
        server.asked = False  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            agent = stage.agent(http=HttpCall(url=f"http://127.0.0.1:{server.server_port}/"))
            told = ended(stage, stage.post(agent.queue, {"n": 1}))
            assert (told["status"], told["attempts"], json.loads(told["result"])) == ("succeeded", "2", {"n": 1})
        finally:
            server.shutdown()
            thread.join()
