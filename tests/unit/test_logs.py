"""Lines of logs: JSON with ids where no person looks, and text where one does."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from brain_clusters import logs


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A logger, whose root is put back."""
    root = logging.getLogger()
    level = root.level
    yield logging.getLogger("brain_clusters.test")
    root.setLevel(level)


@contextmanager
def writing(stream: io.StringIO, form: str = "json", **ids: str) -> Iterator[None]:
    """Log to ``stream`` only; pytest's own handlers are put back."""
    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    try:
        logs.set_up(form, "INFO", stream=stream, **ids)
        yield
    finally:
        root.handlers = before


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_its_constant_text_its_message_and_the_ids_that_it_names(log: logging.Logger) -> None:
    stream = io.StringIO()
    with writing(stream, "auto", agent_id="a-1"):
        log.info("%d%% of cluster=%s and job=%r are done, queue=%s", 40, "shop", "j1", "q")
    [line] = lines(stream)
    assert line["event"] == "%d%% of cluster=%s and job=%r are done, queue=%s"
    assert line["message"] == "40% of cluster=shop and job='j1' are done, queue=q"
    assert (line["agent_id"], line["cluster_id"], line["job_id"]) == ("a-1", "shop", "j1")
    assert (line["level"], line["logger"]) == ("info", "brain_clusters.test")


def test_what_is_bound_is_in_every_line_of_its_thread_and_of_no_other(log: logging.Logger) -> None:
    stream = io.StringIO()
    with writing(stream):
        with logs.bound(operation_id=7, cluster_id=None):
            with logs.bound(cluster_id="shop"):
                log.info("inner")
            other = threading.Thread(target=log.info, args=("other",))
            other.start()
            other.join()
        log.info("after")
    found = {line["message"]: line for line in lines(stream)}
    assert (found["inner"]["operation_id"], found["inner"]["cluster_id"]) == ("7", "shop")
    assert not {"operation_id", "cluster_id"} & (found["other"].keys() | found["after"].keys())


def test_whatever_is_logged_is_one_line(log: logging.Logger) -> None:
    stream = io.StringIO()
    with writing(stream):
        log.info("two\nlines \ud800 %s", object())
        log.info({"no": "text"})
        try:
            raise ValueError("oh")
        except ValueError:
            log.exception("it failed")
    assert [line["message"] for line in lines(stream)][1:] == ["{'no': 'text'}", "it failed"]
    assert "ValueError: oh" in lines(stream)[2]["exception"]


def test_on_a_terminal_people_read_text_with_what_it_does_not_name_itself(log: logging.Logger) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with writing(stream, "auto"), logs.bound(cluster_id="shop", operation_id="o"):
        log.warning("cluster=%s stays", "shop")
    assert stream.getvalue().endswith("WARNING brain_clusters.test: cluster=shop stays  [operation_id=o]\n")
