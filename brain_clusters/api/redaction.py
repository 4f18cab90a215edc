"""What is shown to whom of what jobs are given and give back: to callers with the right ``payloads`` only.

Views call this, and nobody else decides it. What is masked is null, and ``redacted`` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flask


def may_read() -> bool:
    """Return whether the caller at hand may read payloads. Nobody may who is not known."""
    found = flask.g.get("identity")
    return found is not None and found.payloads


def sees_all() -> bool:
    """Return whether the caller at hand sees all clusters, and so may be told figures of all."""
    found = flask.g.get("identity")
    return found is not None and found.sees_all


def masked(shown: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return ``shown``, to callers who may not read it without what stands under ``names``."""
    if may_read():
        return dict(shown)
    return {**shown, **dict.fromkeys(names), "redacted": True}


def error(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a job's error; its message and its traceback may repeat the payload, so they are masked like it."""
    if found is None or may_read():
        return None if found is None else dict(found)
    return {"type": found.get("type"), "message": None, "redacted": True}
