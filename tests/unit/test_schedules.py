"""Cron expressions, and which schedule is in force."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brain_clusters.domain import cron
from brain_clusters.domain.schedules import Floor, fired, floor, next_fire, next_floor
from brain_clusters.domain.specs import ScalingSchedule

BERLIN = ZoneInfo("Europe/Berlin")
MONDAY = datetime(2026, 5, 4, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def entry(start: str, end: str, min_workers: int = 1, timezone: str = "UTC") -> ScalingSchedule:
    return ScalingSchedule(start, end, min_workers, timezone)


OFFICE = entry("0 8 * * mon-fri", "0 18 * * mon-fri", 4, "Europe/Berlin")


# --- cron -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "before", "fires"),
    [
        # On 29 March 2026 Berlin goes from 02:00 to 03:00: what is skipped fires right after the gap, once.
        ("30 2 * * *", "2026-03-28T12:00+01:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        ("0,30 2 * * *", "2026-03-28T12:00+01:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:00+02:00"]),
        ("*/30 2 * * *", "2026-03-28T12:00+01:00", ["2026-03-30T02:00+02:00"]),
        ("0 * * * *", "2026-03-29T01:30+01:00", ["2026-03-29T03:00+02:00", "2026-03-29T04:00+02:00"]),
        # On 25 October 2026 it goes from 03:00 back to 02:00: fixed times fire in the first pass, wildcards in both.
        ("30 2 * * *", "2026-10-24T12:00+02:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        ("30 2 * * *", "2026-10-25T02:10+01:00", ["2026-10-26T02:30+01:00"]),
        ("30 * * * *", "2026-10-25T02:00+02:00", ["2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00"]),
    ],
)  # fmt: skip
def test_clocks_that_change_are_followed_as_in_debian(expression: str, before: str, fires: list[str]) -> None:
    now = at(before)
    for expected in fires:
        found = cron.next_fire(expression, now, "Europe/Berlin")
        assert found == at(expected)
        assert cron.last_fire(expression, found, "Europe/Berlin") == found
        now = found


def test_in_an_hour_that_comes_twice_the_last_time_may_be_later_by_the_clock() -> None:
    second_pass = at("2026-10-25T02:10+01:00")
    assert cron.last_fire("30 2 * * *", second_pass, "Europe/Berlin") == at("2026-10-25T02:30+02:00")


FIELD = {
    place: st.one_of(
        st.just("*"),
        st.integers(2, 7).map("*/{}".format),
        st.lists(st.integers(0, highest), min_size=1, max_size=3).map(lambda found: ",".join(map(str, found))),
        st.tuples(st.integers(0, highest), st.integers(0, highest)).map(lambda two: f"{min(two)}-{max(two)}"),
    )
    for place, highest in (("minute", 59), ("hour", 23), ("weekday", 6))
}
CRONS = st.tuples(FIELD["minute"], FIELD["hour"], FIELD["weekday"]).map(lambda f: f"{f[0]} {f[1]} * * {f[2]}")
CHANGES = [datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)]


@settings(max_examples=300, deadline=None)
@given(CRONS, st.sampled_from(CHANGES), st.integers(-2000 * 60, 2000 * 60))
def test_looking_back_and_looking_ahead_see_the_same_times(expression: str, change: datetime, offset: int) -> None:
    now, zone = change + timedelta(seconds=offset), "Europe/Berlin"
    last, following = cron.last_fire(expression, now, zone), cron.next_fire(expression, now, zone)
    assert last is not None
    assert following is not None
    assert last <= now < following
    assert cron.next_fire(expression, last - timedelta(seconds=1), zone) == last
    assert cron.next_fire(expression, last, zone) == following
    assert cron.last_fire(expression, following - timedelta(microseconds=1), zone) == last


def test_the_rarest_expression_is_found() -> None:
    assert cron.next_fire("0 0 29 2 */7", MONDAY) == at("2032-02-29T00:00+00:00")
    assert cron.last_fire("0 0 29 2 */7", MONDAY) == at("2004-02-29T00:00+00:00")
    assert cron.next_fire("0 0 29 2 */7", at("2088-03-01T00:00+00:00")) == at("2128-02-29T00:00+00:00")


@pytest.mark.parametrize("text", ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "* * 31 2 */2"])
def test_what_never_fires_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a cron expression that fires"):
        cron.check_cron(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("x 0 * * *", "minute"), ("0 24 * * *", "hour"), ("0 0 L * *", "day of the month"), ("0 0 32 2 *", "day of"),
        ("0 0 * 13 *", "month"), ("0 0 * mon *", "month"), ("0 0 * * fri#2", "day of the week"),
        ("0 0 * * 5L", "day of the week"), ("0 0 * * fr\u0131", "day of the week"), ("\u0663 0 * * *", "minute"),
    ],
)  # fmt: skip
def test_a_faulty_field_is_named(text: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"whose {name}"):
        cron.check_cron(text)


@settings(deadline=None)
@given(st.text(alphabet="0123456789*/,-#LWlw? monfebMON", max_size=40))
def test_no_text_raises_anything_else_and_a_sound_one_fires(text: str) -> None:
    told = None
    try:
        cron.check_cron(text)
    except ValueError as refusal:
        told = str(refusal)
    if told is None:
        assert cron.next_fire(text, MONDAY) is not None
    else:
        assert told.startswith("must be a cron expression")


def test_an_expression_covers_another_when_it_surely_fires_with_it() -> None:
    assert cron.covers("0 8 * * 0-6", "0 8 * * *")
    assert cron.covers("0 8 * * 7", "0 8 * * sun")
    assert cron.covers("* * * * *", "0 0 1,15 * fri")
    assert not cron.covers("0 8 * * mon-fri", "0 8 * * *")
    # Of a day of the month and a weekday either is enough; with a star both are needed.
    assert not cron.covers("0 8 * * mon", "0 8 1 * mon")


@settings(max_examples=60, deadline=None)
@given(CRONS, st.sets(st.integers(0, 4)), CRONS)
def test_what_is_covered_never_fires_alone(inner: str, opened: set[int], other: str) -> None:
    wider = " ".join("*" if place in opened else field for place, field in enumerate(inner.split()))
    assert cron.covers(wider, inner)
    for outer in (wider, other):
        now = MONDAY
        for _ in range(20 if cron.covers(outer, inner) else 0):
            found = cron.next_fire(inner, now)
            assert found is not None
            assert cron.last_fire(outer, found) == found
            now = found


# --- the floor --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-05-04T07:59:59.9+02:00", Floor(0, at("2026-05-04T08:00+02:00"))),
        ("2026-05-04T08:00+02:00", Floor(4, at("2026-05-04T18:00+02:00"), "from '0 8 * * mon-fri' to "
         "'0 18 * * mon-fri' (Europe/Berlin)")),
        ("2026-05-04T18:00+02:00", Floor(0, at("2026-05-05T08:00+02:00"))),
        ("2026-05-09T12:00+02:00", Floor(0, at("2026-05-11T08:00+02:00"))),
    ],
)  # fmt: skip
def test_a_schedule_is_in_force_from_its_start_up_to_its_end(now: str, expected: Floor) -> None:
    assert floor((OFFICE,), datetime.fromisoformat(now)) == expected


def test_without_a_schedule_the_floor_is_nothing_for_ever() -> None:
    assert floor((), MONDAY) == Floor(0, None, None)
    assert next_floor((), MONDAY) is None


def test_the_highest_of_the_schedules_in_force_counts() -> None:
    peak = entry("0 12 * * *", "0 13 * * *", 9, "Europe/Berlin")
    noon = floor((OFFICE, peak), at("2026-05-04T12:30+02:00"))
    assert (noon.min_workers, noon.until) == (9, at("2026-05-04T13:00+02:00"))
    assert noon.schedule == "from '0 12 * * *' to '0 13 * * *' (Europe/Berlin)"
    assert floor((peak, OFFICE), at("2026-05-04T13:30+02:00")).min_workers == 4


def test_where_start_and_end_fall_on_one_time_the_end_counts() -> None:
    sundays = entry("0 0 * * *", "0 0 * * mon-sat", 2)
    assert floor((sundays,), MONDAY).min_workers == 0
    assert next_floor((sundays,), MONDAY) == (MONDAY + timedelta(days=6), 2)


def test_a_start_in_a_skipped_hour_counts_after_the_gap() -> None:
    night = entry("30 2 * * *", "0 6 * * *", 3, "Europe/Berlin")
    before = floor((night,), at("2026-03-29T01:59:59+01:00"))
    assert (before.min_workers, before.until) == (0, at("2026-03-29T03:00+02:00"))
    assert floor((night,), at("2026-03-29T03:00+02:00")).min_workers == 3


def test_an_end_in_a_repeated_hour_counts_in_its_first_pass() -> None:
    evening = entry("0 20 * * *", "30 2 * * *", 3, "Europe/Berlin")
    assert floor((evening,), at("2026-10-25T02:29+02:00")).until == at("2026-10-25T02:30+02:00")
    for now in ("2026-10-25T02:30+02:00", "2026-10-25T02:00+01:00", "2026-10-25T02:30+01:00"):
        assert floor((evening,), at(now)).min_workers == 0


def test_the_next_rise_is_told_also_from_within_a_schedule() -> None:
    assert next_floor((OFFICE,), at("2026-05-04T07:00+02:00")) == (at("2026-05-04T08:00+02:00"), 4)
    assert next_floor((OFFICE,), at("2026-05-08T09:00+02:00")) == (at("2026-05-11T08:00+02:00"), 4)


def test_schedules_that_relieve_each_other_never_rise() -> None:
    by_day, by_night = entry("0 8 * * *", "0 20 * * *", 3), entry("0 20 * * *", "0 8 * * *", 3)
    assert next_floor((by_day, by_night), MONDAY) is None
    assert next_floor((by_day, entry("0 20 * * *", "0 8 * * *", 5)), MONDAY) == (MONDAY + timedelta(hours=20), 5)


def test_an_entry_of_no_workers_never_raises_the_floor() -> None:
    assert next_floor((entry("* * * * *", "*/2 * * * *", 0),), MONDAY) is None


# --- against a brute-force evaluation, minute by minute ---------------------------------------------------------


def numbers(field: str, highest: int) -> set[int]:
    if field.startswith("*"):
        return set(range(0, highest + 1, int(field.partition("/")[2] or 1)))
    first, _, last = field.partition("-")
    return set(range(int(first), int(last) + 1)) if last else {int(each) for each in field.split(",")}


def firing(expression: str, minutes: list[datetime]) -> list[bool]:
    minute, hour, _, _, weekday = expression.split()
    sets = numbers(minute, 59), numbers(hour, 23), numbers(weekday, 6)
    return [m.minute in sets[0] and m.hour in sets[1] and m.isoweekday() % 7 in sets[2] for m in minutes]


def heights(schedules: tuple[ScalingSchedule, ...], minutes: list[datetime]) -> Iterator[int]:
    """Yield the floor of each minute. The first week is needed to know what was in force before."""
    columns = [(each.min_workers, firing(each.start, minutes), firing(each.end, minutes)) for each in schedules]
    on = [False] * len(columns)
    for place in range(len(minutes)):
        for number, (_, starts, ends) in enumerate(columns):
            on[number] = not ends[place] and (starts[place] or on[number])
        yield max((workers for (workers, _, _), is_on in zip(columns, on, strict=True) if is_on), default=0)


WEEK = 7 * 24 * 60
SCHEDULES = st.lists(st.builds(entry, CRONS, CRONS, st.integers(0, 5)), min_size=1, max_size=3).map(tuple)


@settings(max_examples=40, deadline=None)
@given(SCHEDULES, st.integers(0, WEEK - 1))
def test_floor_until_and_next_rise_agree_with_a_minute_by_minute_evaluation(
    schedules: tuple[ScalingSchedule, ...], first: int
) -> None:
    minutes = [MONDAY + MINUTE * number for number in range(-WEEK, 2 * WEEK)]
    expected = list(heights(schedules, minutes))[WEEK:]
    rises = [n for n in range(first + 1, 2 * WEEK) if expected[n] > expected[n - 1]]
    found = next_floor(schedules, MONDAY + MINUTE * first + timedelta(seconds=20))
    if found is not None and found[0] < MONDAY + MINUTE * 2 * WEEK:
        assert found == (MONDAY + MINUTE * rises[0], expected[rises[0]])
    elif found is not None:
        assert not rises
    place = first
    for _ in range(50):
        told = floor(schedules, MONDAY + MINUTE * place)
        ends = 2 * WEEK if told.until is None else min(2 * WEEK, (told.until - MONDAY) // MINUTE)
        assert set(expected[place:ends]) == {told.min_workers}
        if ends == 2 * WEEK:
            break
        place = ends


# --- triggers ---------------------------------------------------------------------------------------------------


def test_the_last_time_within_a_span_is_told_its_end_included() -> None:
    crons, eight = ("0 8 * * *", "30 8 * * *"), MONDAY + timedelta(hours=8)
    assert fired(crons, eight - MINUTE, eight) == eight
    assert fired(crons, eight, eight + MINUTE) is None
    assert fired(crons, eight - MINUTE, eight + timedelta(hours=1)) == eight + timedelta(minutes=30)
    assert fired((), eight - MINUTE, eight) is None
    assert fired(("0 8 * * *",), MONDAY, eight, "Europe/Berlin") == eight - timedelta(hours=2)


def test_the_next_time_of_several_expressions_is_the_earliest() -> None:
    assert next_fire(("0 9 * * *", "0 8 * * *"), MONDAY) == MONDAY + timedelta(hours=8)
    assert next_fire(("0 8 * * *",), MONDAY, "Europe/Berlin") == MONDAY + timedelta(hours=6)
    assert next_fire((), MONDAY) is None


@settings(max_examples=50, deadline=None)
@given(CRONS, st.integers(0, WEEK), st.integers(0, 3000))
def test_an_expression_fired_in_a_span_exactly_when_its_next_time_lies_in_it(
    expression: str, start: int, length: int
) -> None:
    after = MONDAY + MINUTE * start
    until = after + MINUTE * length
    following = next_fire((expression,), after)
    assert following is not None
    assert (fired((expression,), after, until) is not None) == (following <= until)
