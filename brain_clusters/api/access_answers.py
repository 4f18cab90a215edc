"""What the views of keys, sessions and the audit answer, and those of plans, as shapes."""

from __future__ import annotations

from brain_clusters.api.shapes import (
    ANY,
    NUMBER,
    OBJECT,
    TEXT,
    TIME,
    TRUTH,
    WHOLE,
    by_name,
    listed,
    or_null,
    page,
    record,
    told,
    whole,
    words,
)
from brain_clusters.domain.access import Role

_IDENTITY = {
    "name": TEXT, "role": words(Role), "payloads": TRUTH, "tags": listed(TEXT), "key_id": or_null(TEXT), "method": TEXT,
}  # fmt: skip
_SESSION = {"session": or_null(record("", {"id": TEXT, "expires_at": TIME})), "csrf_token": or_null(TEXT)}
ME = record("Me", {**_IDENTITY, **_SESSION})
SIGNED_IN = record("SignedIn", {"identity": record("Identity", _IDENTITY), **_SESSION})
SESSIONS = whole(
    "sessions",
    record(
        "Session",
        {
            "id": TEXT, "key_id": TEXT, "key_name": TEXT, "created_at": TIME, "expires_at": TIME, "seen_at": TIME,
            "address": or_null(TEXT), "user_agent": or_null(TEXT), "current": TRUTH,
        },
    ),
)  # fmt: skip
_KEY = record(
    "Key",
    {
        "id": TEXT, "name": TEXT, "role": words(Role), "payloads": TRUTH, "tags": listed(TEXT),
        "created_at": or_null(TIME),
        "created_by": TEXT, "expires_at": or_null(TIME), "revoked_at": or_null(TIME), "last_used_at": or_null(TIME),
        "last_used_from": or_null(TEXT), "status": words(("active", "expired", "revoked")),
        "source": told(words(("made", "environment")), "environment: of BRAIN_API_KEYS, and to be changed there."),
    },
)  # fmt: skip
_SHOWN_ONCE = told(TEXT, "The key's text, which nobody can read again.")
KEYS = whole("keys", _KEY)
ONE_KEY = record("", {"key": _KEY})
NEW_KEY = record("MadeKey", {"key": _KEY, "secret": _SHOWN_ONCE})
ROTATED = record("RenewedKey", {"key": _KEY, "replaces": _KEY, "secret": _SHOWN_ONCE})
AUDIT = page(
    "audit",
    record(
        "AuditLine",
        {
            "id": WHOLE, "at": TIME, "actor": TEXT, "key_id": or_null(TEXT),
            "method": told(TEXT, "How the actor proved itself: key, session, token, local, queue, none."),
            "address": or_null(TEXT), "action": TEXT, "verb": TEXT, "path": TEXT, "cluster_id": or_null(TEXT),
            "operation_id": or_null(TEXT), "status": WHOLE, "result": words(("done", "refused", "failed")),
            "detail": or_null(TEXT),
        },
    ),
)  # fmt: skip
_CHANGE = record(
    "Change",
    {
        "document": ANY, "kind": TEXT, "id": or_null(TEXT), "version": or_null(TEXT), "action": TEXT,
        "reason": or_null(TEXT), "diff": ANY, "fields": listed(OBJECT), "clusters": listed(OBJECT),
        "operations": listed(TEXT), "error": ANY,
    },
)  # fmt: skip
PLAN = record(
    "Plan",
    {
        "fingerprint": told(TEXT, "Give it to apply, which then does this and nothing else."), "changed": WHOLE,
        "refused": WHOLE, "changes": listed(_CHANGE), "agents": by_name(WHOLE),
        "cost_per_hour": record("", {"before": or_null(NUMBER), "after": or_null(NUMBER), "unpriced": listed(TEXT)}),
    },
)  # fmt: skip
