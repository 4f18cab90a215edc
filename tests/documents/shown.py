"""Whether a command printed what its document shows: ``...`` stands for anything, and blanks do not count."""

from __future__ import annotations

import re


def missing(shown: str, printed: str, language: str) -> str | None:
    """Return the first part of ``shown`` that ``printed`` does not have, in its order; None when all is there.

    JSON is compared as a whole, other text by lines, between which there may be others.
    """
    if language == "json":
        wanted = _pattern("".join(shown.split()))
        return None if re.search(wanted, "".join(printed.split())) else shown
    lines = iter([" ".join(line.split()) for line in printed.splitlines()])
    for line in shown.splitlines():
        words = " ".join(line.split())
        if words.strip(".") and not any(re.fullmatch(_pattern(words), found) for found in lines):
            return line
    return None


def _pattern(text: str) -> str:
    return r".*".join(re.escape(part) for part in re.split(r" ?\.\.\. ?", text))
