"""How a view function is declared: who may call it, what it reads, and what it answers.

    @routes.post("/clusters/<cluster_id>/scale")
    @endpoint(Role.OPERATOR, body=SCALE)
    def scale(cluster_id: str, body: Document) -> flask.Response:

The query is read by ``query`` and the body by ``body``, both before the function is called, which is given them under
these names when their schemas hold anything. A view that is not declared is refused to everybody. The OpenAPI document
is made from the same declarations.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flask

from brain_clusters.api.requests import read_body, read_query
from brain_clusters.domain.access import Role
from brain_clusters.services.requests import NOTHING, Schema, validated

View = Callable[..., flask.Response]
Document = dict[str, Any]
_NAME = "__endpoint__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What is declared of a view. role: None is everybody, without a key.

    body: what is read and given to the view; reads: what the view reads of the body by itself. everywhere: it concerns
    more than single clusters, so callers that see only some are refused. answers: shapes (``shapes``) by HTTP status,
    without the problems that any such endpoint may answer with; None is no body. headers: those of the request that it
    reads, besides Authorization. example: a body that makes sense. page: it answers a person with HTML, so who is not
    signed in is sent to sign in, and errors are pages, too (see ``pages``). probe: monitors ask it, so it counts for
    no limit, and by any name. payloads: it shows what jobs are given in a form that cannot be masked, so callers need
    the right to it. changes: a request by another verb than GET changes something, and has a line in the audit.
    """

    role: Role | None
    query: Schema = field(default_factory=dict)
    body: Schema | None = None
    reads: Any = None
    everywhere: bool = False
    answers: Mapping[int, Any] = field(default_factory=dict)
    page: bool = False
    probe: bool = False
    payloads: bool = False
    changes: bool = True
    headers: Sequence[str] = ()
    example: Any = None


def endpoint(role: Role | None, **declared: Any) -> Callable[[View], View]:
    """Return a decorator that declares a view; see ``Endpoint`` for what may be said."""
    told = Endpoint(role=role, **declared)

    def declare(view: View) -> View:
        @functools.wraps(view)
        def read(**arguments: Any) -> flask.Response:
            query = read_query(told.query)
            if told.query:
                arguments["query"] = query
            if told.body is not None:
                body = validated(read_body(), told.body, "the request body")
                arguments |= {} if told.body == NOTHING else {"body": body}
            return view(**arguments)

        setattr(read, _NAME, told)
        return read

    return declare


def declared(view: Callable[..., Any] | None) -> Endpoint | None:
    """Return what is declared of a view, None when nothing is."""
    found = getattr(view, _NAME, None)
    assert found is None or isinstance(found, Endpoint)  # noqa: S101 - for mypy
    return found
