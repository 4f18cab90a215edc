"""Five-field cron expressions by the rules of Debian's cron, read by cronsim.

Summer time, as in Debian: an expression with a fixed hour and minute fires once a day, right after the gap where
its time is skipped, and the first time where its time comes twice. One whose minute or hour begins with ``*`` follows
the time that really passes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_FIELDS = (
    ("minute", "0-59"),
    ("hour", "0-23"),
    ("day of the month", "1-31"),
    ("month", "1-12"),
    ("day of the week", "0-7"),
)
_LONGEST_TEXT = 200
_ANY_DAY = datetime(2024, 1, 1, tzinfo=UTC)
# No zone turns its clocks back by more than that.
_LONGEST_REPETITION = timedelta(hours=3)


def check_cron(text: str) -> None:
    """Raise ValueError with a sentence unless ``text`` is minute, hour, day, month and weekday, and fires some day."""
    fields = text.split() if len(text) <= _LONGEST_TEXT else []
    if len(fields) != len(_FIELDS):
        raise ValueError('must be a cron expression of five fields, such as "0 8 * * mon-fri"')
    for place, (field, (name, numbers)) in enumerate(zip(fields, _FIELDS, strict=True)):
        alone = [field if each == place else "*" for each in range(len(_FIELDS))]
        # Letters are names of months and weekdays: cronsim's "L" and "fri#2" are no part of the format.
        if not field.isascii() or (place in (2, 4) and set(field.upper()) & set("L#")) or not _is_read(alone):
            raise ValueError(f"must be a cron expression whose {name} is made of *, {numbers}, lists and /steps")
    if not _is_read(fields):
        raise ValueError("must be a cron expression that fires: no month that it names has so many days")


def _is_read(fields: list[str]) -> bool:
    try:
        _read(" ".join(fields))
    except CronSimError:
        return False
    return True


def _read(expression: str) -> CronSim:
    return CronSim(expression, _ANY_DAY)


def covers(outer: str, inner: str) -> bool:
    """Return whether ``outer`` surely fires at every time at which ``inner`` does. Both are sound."""
    one, other = _read(outer), _read(inner)
    same_time = other.minutes <= one.minutes and other.hours <= one.hours and other.months <= one.months
    same_days = one.day_and == other.day_and and other.days <= one.days and _weekdays(other) <= _weekdays(one)
    return same_time and (same_days or _is_daily(one))


def _weekdays(simulated: CronSim) -> set[int]:
    return {day % 7 for day in simulated.weekdays if isinstance(day, int)}


def _is_daily(simulated: CronSim) -> bool:
    full = (len(simulated.days) == 31, len(_weekdays(simulated)) == 7)
    return all(full) if simulated.day_and else any(full)


def next_fire(expression: str, now: datetime, timezone: str = "UTC") -> datetime | None:
    """Return the first time after ``now`` (aware) at which ``expression`` fires, in UTC; None: not in 50 years."""
    now = now.astimezone(UTC)
    for found in CronSim(expression, now.astimezone(_zone(timezone))):
        # In an hour that comes twice, cronsim starts from its first pass.
        if (at := found.astimezone(UTC)) > now:
            return at
    return None


def last_fire(expression: str, now: datetime, timezone: str = "UTC") -> datetime | None:
    """Return the last time up to and including ``now`` at which ``expression`` fired, in UTC; None: not in 50 years."""
    now = now.astimezone(UTC)
    local = (now.replace(microsecond=0) + timedelta(seconds=1)).astimezone(_zone(timezone))
    if local.fold:
        # The second pass: what fired in the first one may be later by the clock.
        local = local.replace(fold=0) + _LONGEST_REPETITION
    for found in CronSim(expression, local, reverse=True):
        if (at := found.astimezone(UTC)) <= now:
            return at
    return None


def _zone(name: str) -> tzinfo:
    return UTC if name == "UTC" else ZoneInfo(name)
