"""Single agents: looked at, drained, replaced, and what they wrote."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import flask

from brain_clusters.api import answers, views
from brain_clusters.api.auth import identity
from brain_clusters.api.context import answer, control, encoded, hub, waits
from brain_clusters.api.endpoint import Document, endpoint
from brain_clusters.api.shapes import TEXT, Media, listed, or_null, record, told
from brain_clusters.api.streaming.hub import Hub
from brain_clusters.db.models import Agent
from brain_clusters.db.scope import carried
from brain_clusters.domain.access import Identity, Role
from brain_clusters.domain.states import LIVE_AGENT_STATUSES
from brain_clusters.errors import TemporaryError
from brain_clusters.services import access, agent_logs, agents, clusters
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
# Whoever follows holds a thread, so not for ever: the client connects again.
_MOST_SECONDS = 3600.0
# Every so many looks it is asked whether the key that let somebody in still does.
_CHECK_EVERY = 10


class _NotAnyMore(Exception):
    """Who follows a log may not read it any more."""


@routes.get("/<agent_id>")
@endpoint(Role.VIEWER, answers={200: answers.WHOLE_AGENT})
def get(agent_id: str) -> flask.Response:
    """Show an agent, also one that is gone, its beat, and the jobs that it holds."""
    with control().database.transaction() as session:
        row = agents.get(session, agent_id)
    return answer(_shown(row))


@routes.post("/<agent_id>/drain")
@endpoint(Role.OPERATOR, body=NOTHING, answers={202: answers.WHOLE_AGENT, 409: answers.A_PROBLEM})
def drain(agent_id: str) -> flask.Response:
    """Have an agent finish what it does and leave. Its group's desired count brings a new one."""
    return answer(_shown(agents.drain(control(), agent_id, identity().name)), 202)


@routes.post("/<agent_id>/replace")
@endpoint(Role.OPERATOR, body=NOTHING, answers={202: answers.WHOLE_AGENT, 409: answers.A_PROBLEM})
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
    with _place():
        found = agent_logs.tail(control(), row, query["tail"])
    return answer({"agent_id": agent_id, "lines": found.lines, "reason": found.why})


def _shown(row: Agent) -> Document:
    beats = clusters.beats(control(), [row.agent_id])
    return views.whole_agent(row, beats, agents.jobs_of(control(), row))


@contextmanager
def _place() -> Iterator[None]:
    """Hold one of the places for those who wait: each has a thread."""
    places = waits()
    if not places.acquire(blocking=False):
        raise TemporaryError("all places for those who wait or follow are taken; try again in a moment")
    try:
        yield
    finally:
        places.release()


def _follow(row: Agent, lines: int) -> flask.Response:
    held = ExitStack()
    held.enter_context(_place())
    told = _messages(control(), hub(), identity(), row, lines)
    response = flask.Response(carried(told), mimetype="text/event-stream", headers={"X-Accel-Buffering": "no"})
    response.call_on_close(held.close)
    return response


def _messages(held: Control, ends: Hub, caller: Identity, row: Agent, lines: int) -> Iterator[bytes]:
    """Yield the log as messages, a line each, and ``event: end`` when the agent is gone.

    Without that end the client comes again: after _MOST_SECONDS, and where it may not read any more to be told so.
    """
    until, checks = time.monotonic() + _MOST_SECONDS, itertools.count()

    def goes_on() -> bool:
        with held.database.transaction() as session:
            lives = agents.get(session, row.agent_id).status in LIVE_AGENT_STATUSES
            if next(checks) % _CHECK_EVERY == 0 and not access.still_good(session, [caller]):
                raise _NotAnyMore
        return lives

    with suppress(_NotAnyMore):
        for batch in agent_logs.follow(held, row, lines, goes_on):
            yield b"".join(_message(line) for line in batch) or b": beat\n\n"
            if ends.closed or time.monotonic() > until:
                return
        yield b"event: end\ndata: {}\n\n"


def _message(line: str) -> bytes:
    return f"data: {encoded({'line': line})}\n\n".encode()
