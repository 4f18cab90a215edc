"""What callers may say about keys and sessions."""

from __future__ import annotations

from brain_clusters.domain.access import Role
from brain_clusters.services.requests import NAME, TAGS, Schema

LOGIN: Schema = {
    "key": {
        "type": "string", "required": True, "minlength": 1, "maxlength": 500,
        "meta": {"description": "A key of the API, which the session is opened with."},
    },
    "next": {
        "type": "string", "maxlength": 2000,
        "meta": {"description": "The path here that a form is led on to; / without it."},
    },
}  # fmt: skip
_EXPIRES = {
    "type": ["number", "string"], "check_with": "end",
    "meta": {"description": "When it ends: a duration from now, or ISO 8601 with an offset; never without it."},
}  # fmt: skip
KEY: Schema = {
    "name": {**NAME, "required": True, "meta": {"description": "Whose it is, for people; need not be unique."}},
    "role": {
        "type": "string", "required": True, "allowed": [str(role) for role in Role],
        "meta": {"description": "What it may do: each role may all that the one before it may."},
    },
    "payloads": {
        "type": "boolean", "default": False,
        "meta": {"description": "Whether it may read what jobs are given and give back."},
    },
    "tags": {**TAGS, "default": [], "meta": {"description": "It sees the clusters with one of them; all without."}},
    "expires": _EXPIRES,
}  # fmt: skip
ROTATE_KEY: Schema = {
    "overlap": {
        "type": ["number", "string"], "check_with": "duration", "default": 86_400,
        "meta": {"description": "How long the old key goes on: a duration, or seconds; a day without it."},
    },
    "expires": _EXPIRES,
}  # fmt: skip
