"""docs/genesis-openapi.yaml tells the routes that there are, and real answers are as it says."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from brain_clusters.agent.config import AgentConfig
from brain_clusters.api.genesis.app import create_app
from brain_clusters.api.genesis.attached import Answers, Attached
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.domain.engines import Engine
from brain_clusters.genesis.driver import Driver
from brain_clusters.genesis.remote.forms import sent_config
from brain_clusters.genesis.remote.keepers import Keepers
from tests.integration.genesis_service import Service, running_service

ROOT = Path(__file__).parents[2]
OPENAPI: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "genesis-openapi.yaml").read_text())


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, until: Callable[..., Any], redis_url: str) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("service"), until, BRAIN_REDIS_URL=redis_url) as found:
        yield found


def schema(part: Any) -> Draft202012Validator:
    """Return a validator of a part of the document, in which references lead into the whole."""
    return Draft202012Validator({**part, "components": OPENAPI["components"]})


def resolved(part: Any) -> Any:
    while "$ref" in part:
        found: Any = OPENAPI
        for step in part["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        part = found
    return part


def check_answer(method: str, template: str, status: int, body: Any, content_type: str) -> None:
    """Fail where the document does not allow an answer."""
    operation = OPENAPI["paths"][template][method.lower()]
    answers = operation["responses"]
    answer = resolved(answers.get(str(status)) or answers["default"])
    if "content" not in answer:
        assert body is None
        return
    media = answer["content"][content_type]
    schema(media["schema"]).validate(body)


def no_driver(host_id: str, config: Any) -> Driver:
    raise AssertionError("no driver is made here")


def test_every_route_is_in_the_document_and_no_other() -> None:
    attached = Attached("process", (), {}, Keepers(no_driver), threading.Semaphore(), None, {}, Answers())
    rules = create_app(attached).url_map.iter_rules()
    served = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in rules
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    told = {(path, method) for path, item in OPENAPI["paths"].items() for method in item if method != "parameters"}
    assert served == told


def test_every_schema_is_one_and_every_reference_leads_somewhere() -> None:
    for part in OPENAPI["components"]["schemas"].values():
        Draft202012Validator.check_schema(part)
    for reference in re.findall(r'\$ref: "([^"]+)"', (ROOT / "docs" / "genesis-openapi.yaml").read_text()):
        assert resolved({"$ref": reference})


def test_what_is_told_of_agents_is_told_whole() -> None:
    told = OPENAPI["components"]["schemas"]
    config = AgentConfig("redis://there", None, "run", "logs")
    fields = {name: getattr(config, name) for name in AgentConfig.__slots__}
    assert set(told["AgentConfig"]["properties"]) == set(sent_config(fields))
    spec = AgentSpec(agent_id="a", cluster_id="c", group_name="g", role="worker", queue="q", engine=Engine())
    schema({"$ref": "#/components/schemas/AgentSpec"}).validate(spec.as_dict())
    required = set(told["AgentSpec"]["required"])
    assert required <= set(spec.as_dict())
    assert set(told["AgentSpec"]["properties"]) <= set(spec.as_dict())
    assert told["AgentConfig"]["properties"]["redis_url"]["x-secret"] is True


def test_real_answers_are_as_the_document_says(service: Service, redis_url: str, until: Callable[..., Any]) -> None:
    host = "/v1/hosts/{host_id}"

    def ask(method: str, template: str, body: Any = None, *, query: str = "", agent: str = "clerk") -> Any:
        path = template.replace("{host_id}", "reader").replace("{agent_id}", agent) + query
        status, found, headers = service.exchange(method, path, body)
        check_answer(method, template, status, found, headers.get("Content-Type", ""))
        return found

    ask("GET", "/healthz")
    ask("GET", f"{host}/agents")  # 404: it is not open
    ask("PUT", host, {"agent": {"redis_url": redis_url}})
    ask("PUT", host, {"agent": {"redis_url": f"{redis_url}1"}})  # 409
    spec = AgentSpec(agent_id="clerk", cluster_id="c", group_name="g", role="worker", queue="q", command=("cat",))
    cursor = ask("GET", f"{host}/agents")["cursor"]
    ask("POST", f"{host}/agents", {"agents": [spec.as_dict(), {"agent_id": "half"}]})
    ask("GET", f"{host}/changes", query=f"?after={cursor}&wait=1")
    ask("GET", f"{host}/changes", query="?after=before.0")
    ask("GET", f"{host}/agents/{{agent_id}}/logs")
    for verb in ("drain", "resume"):
        ask("POST", f"{host}/agents/{verb}", {"agent_ids": ["clerk"]})
    ask("POST", f"{host}/agents/stop", {"agent_ids": ["clerk"], "now": True})
    ask("POST", f"{host}/agents/stop", {"agent_ids": "clerk"})  # 422
    ask("PUT", f"{host}/warm", {"warm": None})

    def ended() -> bool:
        return all(one["phase"] == "ended" for one in ask("GET", f"{host}/agents")["agents"])

    until(ended, "the agent has ended")
    ask("POST", f"{host}/agents/remove", {"agent_ids": ["clerk", "half"]})
    assert ask("GET", f"{host}/agents")["agents"] == []
    ask("POST", "/api/genesis/spawn", {"blueprint_id": "nowhere", "agent_id": "clerk"})
    ask("DELETE", "/api/genesis/agents/{agent_id}")
