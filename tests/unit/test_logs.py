"""Log lines: JSON for programs, text for people, with the ids of what is being done."""

from __future__ import annotations

import json
import logging
import sys
import threading
from typing import Any

import pytest
from celery import Celery

from brain_clusters.agent.application_worker import _bind_job_ids
from brain_clusters.logs import JsonLines, TextLines, bound, readable


def record(text: str, *given: object, **extra: Any) -> logging.LogRecord:
    return logging.getLogger("there").makeRecord("there", logging.WARNING, "f.py", 1, text, given, None, extra=extra)


def as_json(found: logging.LogRecord, **own: str) -> dict[str, Any]:
    return dict(json.loads(JsonLines("worker", own).format(found)))


def test_a_line_has_constant_text_as_its_event_and_the_whole_as_its_message() -> None:
    line = as_json(record("%d jobs are late", 3))
    assert line | {"event": "%d jobs are late", "message": "3 jobs are late"} == line
    assert line | {"level": "warning", "logger": "there", "process": "worker"} == line
    assert as_json(record("%s: %s", "agent.died", "killed", event="agent.died"))["event"] == "agent.died"


def test_ids_are_those_of_the_process_then_of_what_is_done_then_of_the_line() -> None:
    with bound(cluster_id="c1", operation_id="o1"):
        with bound(cluster_id="c2", job_id=None):
            inner = as_json(record("x", job_id="j"), agent_id="a")
        outer = as_json(record("x"))
    assert {name: inner.get(name) for name in ("agent_id", "operation_id", "cluster_id", "job_id")} == {
        "agent_id": "a", "operation_id": "o1", "cluster_id": "c2", "job_id": "j",
    }  # fmt: skip
    assert outer["cluster_id"] == "c1"
    assert "cluster_id" not in as_json(record("x"))


def test_what_a_handler_adds_is_a_field_and_takes_no_place_of_ours() -> None:
    line = as_json(record("x", customer="smith", level="mine", odd={1}))
    assert (line["customer"], line["level"], line["odd"]) == ("smith", "warning", "{1}")


def test_an_error_is_one_line_with_its_traceback() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        found = record("it failed")
        found.exc_info = sys.exc_info()
    text = JsonLines("worker", {}).format(found)
    assert "\n" not in text
    assert "ValueError: two\nlines" in json.loads(text)["exception"]


def test_a_person_reads_the_ids_that_the_message_does_not_name() -> None:
    with bound(cluster_id="shop", job_id="j1"):
        text = TextLines({"agent_id": "a1"}).format(record("nobody does j1"))
    assert text.endswith("WARNING there: nobody does j1 cluster=shop agent=a1")


@pytest.mark.parametrize("text", ["printed by a handler", '{"a": 1}', "[1]", "{", ""])
def test_what_is_no_line_of_ours_is_shown_as_it_is(text: str) -> None:
    assert readable(text) == text


def test_a_line_of_json_is_made_readable() -> None:
    line = JsonLines("agent", {"agent_id": "a1"}).format(record("%s begun", "it", job_id="j1"))
    shown = readable(line)
    assert shown.endswith("Z WARNING there: it begun agent=a1 job=j1")


def test_what_is_bound_is_in_the_lines_of_its_thread_and_of_no_other() -> None:
    found: list[dict[str, Any]] = []
    with bound(operation_id=7):
        other = threading.Thread(target=lambda: found.append(as_json(record("x"))))
        other.start()
        other.join()
    assert "operation_id" not in found[0]


def test_whatever_is_logged_is_one_line_that_can_be_written() -> None:
    for text in ("two\nlines \ud800", {"no": "text"}):
        line = JsonLines("agent", {}).format(record(text))  # type: ignore[arg-type]
        assert "\n" not in line
        assert line.isascii()


def test_a_task_of_another_application_gives_its_id_to_its_lines_also_where_it_calls_another() -> None:
    app = Celery("theirs", broker="memory://", set_as_current=False)
    seen: list[str | None] = []

    def note() -> None:
        seen.append(as_json(record("x")).get("job_id"))

    inner = app.task(note, name="inner")

    def call() -> None:
        note()
        inner.apply(task_id="inner")
        note()

    outer = app.task(call, name="outer")
    _bind_job_ids()
    outer.apply(task_id="outer")
    note()
    assert seen == ["outer", "inner", "outer", None]
