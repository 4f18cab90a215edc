"""Text and JSON that PostgreSQL can store: without NUL, and without halves of surrogate pairs, which are no Unicode."""

from __future__ import annotations

import json
import re

# NUL as JSON writes it; a backslash before it that is itself escaped is part of the text.
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def storable_text(text: str) -> str:
    """Return ``text`` with what cannot be stored replaced."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def storable_json(text: str) -> str:
    """Return ``text``, JSON in ASCII, with what cannot be stored replaced; the same object where there is nothing."""
    if "\\u0000" not in text and "\\ud" not in text:
        return text
    sound = json.dumps(json.loads(_NUL.sub(r"\1\\ufffd", text)), ensure_ascii=False)
    return sound.encode(errors="replace").decode()
