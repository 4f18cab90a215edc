"""Single agents: looked at, drained, replaced, and what they wrote."""

from __future__ import annotations

import time
from collections.abc import Iterator

import flask

from brain_clusters.api import answers, views
from brain_clusters.api.auth import identity
from brain_clusters.api.context import answer, control, encoded, waits
from brain_clusters.api.endpoint import Document, endpoint
from brain_clusters.api.shapes import TEXT, Media, listed, or_null, record, told
from brain_clusters.db.models import Agent
from brain_clusters.domain.access import Role
from brain_clusters.domain.states import LIVE_AGENT_STATUSES
from brain_clusters.errors import NotFound, TemporaryError
from brain_clusters.services import agent_logs, agents, clusters
from brain_clusters.services.control import Control
from brain_clusters.services.requests import NOTHING, Schema

routes = flask.Blueprint("agents", __name__, url_prefix="/api/agents")

_LOG: Schema = {
    "tail": {"type": "integer", "min": 0, "max": agent_logs.MOST_LINES, "default": 100},
    "follow": {"type": "boolean", "default": False},
}
_LOG_SHAPE = record(
    "AgentLog",
    {
        "agent_id": TEXT, "lines": listed(TEXT),
        "reason": told(or_null(TEXT), "Why there are none that can be read here, and where they are."),
    },
)  # fmt: skip
_LOOK_SECONDS = 0.5
# Whoever follows holds a thread, so not for ever: the client connects again.
_MOST_LOOKS = 7200


@routes.get("/<agent_id>")
@endpoint(Role.VIEWER, answers={200: answers.AGENT})
def get(agent_id: str) -> flask.Response:
    """Show an agent, also one that is gone."""
    with control().database.transaction() as session:
        row = agents.get(session, agent_id)
    return answer(_shown(row))


@routes.post("/<agent_id>/drain")
@endpoint(Role.OPERATOR, body=NOTHING, answers={202: answers.AGENT, 409: answers.A_PROBLEM})
def drain(agent_id: str) -> flask.Response:
    """Have an agent finish what it does and leave. Its group's desired count brings a new one."""
    return answer(_shown(agents.drain(control(), agent_id, identity().name)), 202)


@routes.post("/<agent_id>/replace")
@endpoint(Role.OPERATOR, body=NOTHING, answers={202: answers.AGENT, 409: answers.A_PROBLEM})
def replace(agent_id: str) -> flask.Response:
    """Have a new agent started in place of one, which leaves then; where there is no room for both, it leaves first."""
    return answer(_shown(agents.replace(control(), agent_id, identity().name)), 202)


@routes.get("/<agent_id>/logs")
@endpoint(
    Role.VIEWER, query=_LOG, payloads=True,
    answers={200: Media({"application/json": _LOG_SHAPE, "text/event-stream": TEXT}), 503: answers.A_PROBLEM},
)  # fmt: skip
def logs(agent_id: str, query: Document) -> flask.Response:
    """Show what an agent wrote last; with ``follow=true`` also what it writes from now on, as Server-Sent Events."""
    with control().database.transaction() as session:
        row = agents.get(session, agent_id)
    if query["follow"]:
        return _follow(row, query["tail"])
    found = agent_logs.tail(control(), row, query["tail"])
    return answer({"agent_id": agent_id, "lines": found.lines, "reason": found.why})


def _shown(row: Agent) -> Document:
    return views.agent(row, clusters.beats(control(), [row.agent_id]))


def _follow(row: Agent, lines: int) -> flask.Response:
    path = agent_logs.path_of(control(), row)
    if path is None or not path.exists():
        raise NotFound(agent_logs.tail(control(), row, 0).why or "the agent has no log here")
    places = waits()
    if not places.acquire(blocking=False):
        raise TemporaryError("all places for those who wait or follow are taken; try again in a moment")
    response = flask.Response(
        _messages(control(), row, lines), mimetype="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )
    response.call_on_close(places.release)
    return response


def _messages(held: Control, row: Agent, lines: int) -> Iterator[bytes]:
    """Yield the log as messages, a line each, and ``event: end`` when the agent is gone."""
    path = agent_logs.path_of(held, row)
    assert path is not None  # noqa: S101 - _follow() looked
    begin = path.stat().st_size
    looks = iter(range(_MOST_LOOKS))

    def goes_on() -> bool:
        if (number := next(looks, None)) is None:
            return False
        time.sleep(_LOOK_SECONDS if number else 0)
        with held.database.transaction() as session:
            return number == 0 or agents.get(session, row.agent_id).status in LIVE_AGENT_STATUSES

    yield b"".join(_message(line) for line in agent_logs.tail(held, row, lines).lines)
    for batch in agent_logs.follow(path, begin, goes_on):
        yield b"".join(_message(line) for line in batch) or b": beat\n\n"
    yield b"event: end\ndata: {}\n\n"


def _message(line: str) -> bytes:
    return f"data: {encoded({'line': line})}\n\n".encode()
