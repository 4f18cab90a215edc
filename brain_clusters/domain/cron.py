"""Five-field cron expressions, as far as telling a sound one from a faulty one."""

from __future__ import annotations

import re

_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, start=1)}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _DAYS),
)
_PART = re.compile(r"(?:\*|(?P<first>[0-9a-z]{1,3})(?:-(?P<last>[0-9a-z]{1,3}))?)(?:/(?P<step>[1-9][0-9]?))?", re.ASCII)
_LONGEST_TEXT = 200


def check_cron(text: str) -> None:
    """Raise ValueError with a sentence unless ``text`` is minute, hour, day, month and weekday."""
    fields = text.lower().split() if len(text) <= _LONGEST_TEXT else []
    if len(fields) != len(_FIELDS):
        raise ValueError('must be a cron expression of five fields, such as "0 8 * * mon-fri"')
    for field, (name, lowest, highest, words) in zip(fields, _FIELDS, strict=True):
        if not all(_is_sound(part, lowest, highest, words) for part in field.split(",")):
            told = f"*, {lowest}-{highest}, lists and /steps"
            raise ValueError(f"must be a cron expression whose {name} is made of {told}")


def _is_sound(part: str, lowest: int, highest: int, words: dict[str, int]) -> bool:
    match = _PART.fullmatch(part)
    if match is None:
        return False
    ends = [words.get(end, int(end) if end.isdigit() else -1) for end in (match["first"], match["last"]) if end]
    return all(lowest <= end <= highest for end in ends) and ends == sorted(ends)
