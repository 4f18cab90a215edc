"""Posting an alert's event to the admin's web hook. Run by workers, never by the tick: a receiver may be slow.

At least once: who dies between the answer and its note posts again, with the same id.
"""

from __future__ import annotations

import json
import logging
from base64 import b64encode
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import unquote, urlsplit

from sqlalchemy import select

from brain_clusters.db.models import Event
from brain_clusters.errors import TemporaryError
from brain_clusters.services import history
from brain_clusters.services.control import Control

log = logging.getLogger(__name__)

ATTEMPTS = 10
_TIMEOUT_SECONDS = 5.0
# Besides 5xx, what asks for patience: timeout, too early, too many.
_PATIENCE = (408, 425, 429)


def send(control: Control, event_id: int, *, attempt: int) -> None:
    """Post an event, unless that was done. Raises TemporaryError when it is worth another attempt."""
    url = control.settings.admin_webhook_url
    with control.database.transaction() as session:
        event = session.get(Event, event_id)
        told = event is not None and _is_told(session, event)
    if url is None or event is None or told:
        return
    try:
        status = post(url, message(event), key=f"brain-alert-{event_id}")
        problem = None if 200 <= status < 300 else f"the web hook answered {status}"
        retry = status >= 500 or status in _PATIENCE
    except TemporaryError as exc:
        problem, retry = str(exc), True
    if problem and retry and attempt < ATTEMPTS:
        raise TemporaryError(problem)
    _write_down(control, event, problem, attempt)


def message(event: Event) -> dict[str, Any]:
    """Return what the web hook is told. id is the same at every attempt."""
    data = event.data
    shown = ("alert", "state", "severity", "condition", "value", "threshold", "since", "fired_at")
    return {"id": event.id, "cluster_id": event.cluster_id, **{key: data[key] for key in shown}, "text": event.reason}


def post(url: str, body: dict[str, Any], *, key: str) -> int:
    """POST ``body`` as JSON and return the status; redirects are not followed. Raises TemporaryError for no answer.

    No message holds the URL, since that is often a secret.
    """
    target = urlsplit(url)
    headers = {"Content-Type": "application/json", "User-Agent": "brain-clusters", "Idempotency-Key": key}
    if target.username is not None:
        account = f"{unquote(target.username)}:{unquote(target.password or '')}"
        headers["Authorization"] = f"Basic {b64encode(account.encode()).decode()}"
    kind = HTTPSConnection if target.scheme == "https" else HTTPConnection
    connection = kind(target.hostname or "", target.port, timeout=_TIMEOUT_SECONDS)
    path = (target.path or "/") + (f"?{target.query}" if target.query else "")
    try:
        connection.request("POST", path, json.dumps(body).encode(), headers)
        return connection.getresponse().status
    except (OSError, HTTPException) as exc:
        raise TemporaryError(f"the web hook does not answer ({type(exc).__name__})") from exc
    finally:
        connection.close()


def _is_told(session: Any, event: Event) -> bool:
    found = session.scalars(
        select(Event.id)
        .where(
            Event.cluster_id == event.cluster_id,
            Event.id > event.id,
            Event.kind.in_(("alert.notified", "alert.unsent")),
            Event.data["event"].astext == str(event.id),
        )
        .limit(1)
    ).first()
    return found is not None


def _write_down(control: Control, event: Event, problem: str | None, attempts: int) -> None:
    kind = "alert.unsent" if problem else "alert.notified"
    if problem:
        log.error("event %s was not told to the admin: %s", event.id, problem, extra={"cluster_id": event.cluster_id})
    told = f"after {attempts} attempts: {problem}" if problem else "the web hook took it"
    data = {"event": event.id, "alert": event.data["alert"], "attempts": attempts}
    with control.database.transaction() as session:
        history.record(session, kind, told, cluster_id=event.cluster_id, actor="alert", data=data)
