"""Handlers and the doing of jobs: real commands, a real Redis for the records, and no Celery worker around them."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from brain_clusters.agent.beats import EXIT_ORPHANED
from brain_clusters.agent.handlers import HandlerError, JobContext, for_spec, load
from brain_clusters.agent.handlers.commands import OUTPUT_LIMIT_BYTES
from brain_clusters.agent.job import RESULT_LIMIT_BYTES, JobFailed, JobRunner
from brain_clusters.agent.watch import Watch
from brain_clusters.broker import names
from brain_clusters.broker.client import connect
from brain_clusters.broker.jobs import JobRecords, JobReport
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.domain.states import JobStatus
from brain_clusters.errors import PermanentError
from brain_clusters.ports import free_port

CONTEXT = JobContext("job-1", 2, "cluster-1", "Group", "agent-1", {}, logging.getLogger("test"))


def spec(**fields: Any) -> AgentSpec:
    given = {"agent_id": "agent-1", "cluster_id": "cluster-1", "group_name": "Group", "role": "worker", "queue": "q"}
    return AgentSpec(**{**given, **fields})


def run(*argv: str, payload: Any = None) -> Any:
    return for_spec(spec(command=argv))(payload, CONTEXT)


def python(program: str, **options: Any) -> Any:
    return run(sys.executable, "-c", program, **options)


# --- handler: module:function -----------------------------------------------------------------------------------


def test_a_handler_is_the_function_that_the_reference_names() -> None:
    assert for_spec(spec(handler="os.path:join"))("a", "b") == "a/b"  # type: ignore[arg-type]
    assert load("collections:OrderedDict.fromkeys")("ab", 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("no.such.module:f", "cannot be imported: ModuleNotFoundError"),
        ("os:no_such_function", "cannot be imported: AttributeError"),
        ("os", "cannot be imported"),
        ("os:", "cannot be imported"),
        ("os:sep", "is a str, not a function"),
        ("this is not:a name", "cannot be imported"),
    ],
)
def test_a_handler_that_cannot_be_had_is_refused_by_name(reference: str, said: str) -> None:
    with pytest.raises(PermanentError, match=said) as raised:
        load(reference)
    assert reference in str(raised.value)


def test_a_module_that_leaves_while_it_is_imported_does_not_take_us_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaves_at_import.py").write_text("import sys; sys.exit(3)")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PermanentError, match="SystemExit: 3"):
        load("leaves_at_import:f")


def test_a_group_without_a_handler_says_what_to_add() -> None:
    with pytest.raises(HandlerError, match=r"'Group' has no handler; add `handler: package.module:function`"):
        for_spec(spec())({}, CONTEXT)


# --- command: [argv] --------------------------------------------------------------------------------------------


def test_a_command_reads_json_and_answers_json() -> None:
    doubled = python("import json, sys; print(json.dumps({'twice': json.load(sys.stdin)['n'] * 2}))", payload={"n": 21})
    assert doubled == {"twice": 42}


@pytest.mark.parametrize("payload", [None, 0, "text", [1, {"a": "\u00e4\U0001f600"}], {}])
def test_any_json_is_a_payload(payload: Any) -> None:
    assert run("cat", payload=payload) == payload


def test_what_is_not_json_is_text() -> None:
    assert run("echo", "hello", "there") == "hello there"
    assert python("print('NaN')") == "NaN"
    assert python("print('[' * 100_000, end='')") == "[" * 100_000
    assert python("import sys; sys.stdout.buffer.write(b'\\xff')") == "\ufffd"
    assert run("true") == ""


def test_a_command_is_told_its_job_and_no_secret_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAIN_DATABASE_URL", "postgresql://a-secret")
    monkeypatch.setenv("OF_THE_USER", "kept")
    told = python("import json, os; print(json.dumps(dict(os.environ)))")
    ours = {key: value for key, value in told.items() if key.startswith("BRAIN_")}
    assert ours == {
        "BRAIN_JOB_ID": "job-1", "BRAIN_JOB_ATTEMPT": "2", "BRAIN_CLUSTER_ID": "cluster-1", "BRAIN_GROUP": "Group",
    }  # fmt: skip
    assert told["OF_THE_USER"] == "kept"


def test_no_shell_reads_the_arguments(tmp_path: Path) -> None:
    words = ("$HOME", "; touch " + str(tmp_path / "made"), "*", "`id`", "a b", "'")
    assert run("echo", *words) == " ".join(words)
    assert list(tmp_path.iterdir()) == []


def test_an_exit_code_is_a_failure_with_the_end_of_standard_error() -> None:
    with pytest.raises(HandlerError, match=r"exited with 3: .*went wrong$") as raised:
        python("import sys; sys.stderr.write('x' * 10_000 + ' went wrong'); sys.exit(3)")
    assert len(str(raised.value)) < 5000
    with pytest.raises(HandlerError, match=r"false exited with 1: \(nothing on standard error\)"):
        run("false")


def test_a_signal_is_a_failure_that_names_it() -> None:
    with pytest.raises(HandlerError, match="was ended by signal 9"):
        python("import os; os.kill(os.getpid(), 9)")


def test_a_program_that_is_not_there_is_a_failure_that_names_it() -> None:
    with pytest.raises(HandlerError, match=r"no-such-program cannot be started: No such file or directory"):
        run("no-such-program")
    with pytest.raises(HandlerError, match=r"/ cannot be started: Permission denied"):
        run("/")


def test_a_command_that_does_not_read_its_input_is_fine() -> None:
    assert run("echo", "done", payload="x" * 1_000_000) == "done"


def test_output_beyond_the_limit_is_a_failure() -> None:
    with pytest.raises(HandlerError, match=f"wrote {OUTPUT_LIMIT_BYTES + 1} bytes; the limit is {OUTPUT_LIMIT_BYTES}"):
        python(f"print('x' * {OUTPUT_LIMIT_BYTES})")
    assert len(python(f"print('x' * {OUTPUT_LIMIT_BYTES - 1})")) == OUTPUT_LIMIT_BYTES - 1


FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[1] + ".new", "w") as found:
    found.write(str(child.pid))
os.rename(sys.argv[1] + ".new", sys.argv[1])
"""


def test_what_a_command_leaves_running_is_ended_with_it(tmp_path: Path, until: Callable[..., Any]) -> None:
    told = tmp_path / "pid"
    assert run(sys.executable, "-c", FAMILY, str(told)) == ""
    grandchild = told.read_text()
    until(lambda: _gone(grandchild), "the end of the grandchild")


def _gone(pid: str) -> bool:
    try:
        return ") Z" in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


# --- one job ----------------------------------------------------------------------------------------------------


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as found:
        found.flushdb()
        yield found


class Agent:
    """A JobRunner with a handler, and what it recorded."""

    def __init__(self, client: redis.Redis, handler: Callable[[Any, JobContext], Any], **fields: Any) -> None:
        self.records = JobRecords(client)
        self.runner = JobRunner()
        self.runner.bind(spec(**fields), handler, self.records, Watch(client))

    def do(self, job_id: str = "job-1", *args: Any, **kwargs: Any) -> Any:
        return self.runner(job_id, args, kwargs)

    def report(self, job_id: str = "job-1") -> JobReport:
        return self.records.get([job_id])[job_id]

    def failure(self, job_id: str = "job-1", *args: Any, **kwargs: Any) -> dict[str, Any]:
        with pytest.raises(JobFailed):
            self.do(job_id, *args, **kwargs)
        error = self.report(job_id).error
        assert error is not None
        return error


def test_a_job_is_recorded_with_its_result_and_times(client: redis.Redis) -> None:
    agent = Agent(client, lambda payload, context: {"got": payload, "attempt": context.attempt}, config={"k": 1})
    assert agent.do("job-1", [1, 2]) == {"got": [1, 2], "attempt": 1}
    report = agent.report()
    assert (report.status, report.result, report.error) == (JobStatus.SUCCEEDED, {"got": [1, 2], "attempt": 1}, None)
    assert (report.cluster_id, report.group_name, report.agent_id, report.attempts) == (
        "cluster-1", "Group", "agent-1", 1,
    )  # fmt: skip
    assert report.started_at is not None
    assert report.finished_at is not None
    assert report.started_at <= report.finished_at
    assert [found.id for _, found in agent.records.finished(10)] == ["job-1"]
    assert agent.runner.counters.snapshot()["completed"] == 1


def test_a_payload_may_be_named_or_left_out(client: redis.Redis) -> None:
    agent = Agent(client, lambda payload, _: payload)
    assert agent.do("named", payload={"a": 1}) == {"a": 1}
    assert agent.do("none") is None


@pytest.mark.parametrize(("args", "kwargs"), [((1, 2), {}), ((1,), {"payload": 2}), ((), {"other": 1})])
def test_other_arguments_fail_the_job_and_say_how_to_send_it(
    client: redis.Redis, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    error = Agent(client, lambda payload, _: payload).failure("job-1", *args, **kwargs)
    assert error["type"] == "HandlerError"
    assert "send one argument, the payload" in error["message"]


class Rude(Exception):
    def __str__(self) -> str:
        return "bad \0 and \ud800"


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (ValueError("no good"), "ValueError", "no good"),
        (ValueError(), "ValueError", "ValueError"),
        (SystemExit(3), "SystemExit", "3"),
        (RecursionError("deep"), "RecursionError", "deep"),
        (Rude(), "Rude", "bad \ufffd and ?"),
    ],
)
def test_an_exception_is_the_jobs_failure_and_not_the_agents(
    client: redis.Redis, raised: BaseException, kind: str, message: str
) -> None:
    def handler(_payload: Any, _context: JobContext) -> Any:
        raise raised

    agent = Agent(client, handler)
    error = agent.failure()
    assert (error["type"], error["message"]) == (kind, message)
    assert "handler" in error["traceback"]
    assert agent.report().status is JobStatus.FAILED
    assert agent.runner.counters.snapshot()["failed"] == 1
    json.dumps(error).encode()


def test_a_handlers_own_refusal_has_no_traceback(client: redis.Redis) -> None:
    error = Agent(client, for_spec(spec())).failure()
    assert set(error) == {"type", "message"}


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (object(), "not JSON"),
        ({1, 2}, "not JSON"),
        (float("nan"), "not JSON"),
        ([float("inf")], "not JSON"),
        (b"bytes", "not JSON"),
        ("x" * RESULT_LIMIT_BYTES, f"the limit is {RESULT_LIMIT_BYTES}"),
    ],
)
def test_a_result_that_cannot_be_kept_fails_the_job_and_says_why(client: redis.Redis, result: Any, said: str) -> None:
    assert said in Agent(client, lambda *_: result).failure()["message"]


def test_a_result_that_holds_itself_fails_the_job(client: redis.Redis) -> None:
    circle: list[Any] = []
    circle.append(circle)
    assert "not JSON" in Agent(client, lambda *_: circle).failure()["message"]


@pytest.mark.parametrize(
    ("result", "kept"),
    [
        ("a\0b", "a\ufffdb"),
        ({"k\0": ["\0"]}, {"k\ufffd": ["\ufffd"]}),
        ("lone \ud800", "lone ?"),
        ("\U0001f600 and \0", "\U0001f600 and \ufffd"),
        ("the text \\u0000", "the text \\u0000"),
        ("\\\0", "\\\ufffd"),
    ],
)
def test_what_postgresql_cannot_store_is_replaced_and_nothing_else(client: redis.Redis, result: Any, kept: Any) -> None:
    agent = Agent(client, lambda *_: result)
    assert agent.do() == kept
    assert agent.report().result == kept


def die(agent: Agent) -> None:
    """Do a delivery in a process of its own, which the handler takes along: nothing is recorded."""
    process = multiprocessing.get_context("fork").Process(target=agent.do)
    process.start()
    process.join(60)
    assert process.exitcode == 3


def test_every_delivery_counts_as_an_attempt(client: redis.Redis) -> None:
    def die_twice(_payload: Any, context: JobContext) -> str:
        client.rpush("seen", context.attempt)
        if context.attempt < 3:
            os._exit(3)
        return "at last"

    agent = Agent(client, die_twice)
    for _ in range(2):
        die(agent)
        assert agent.report().status is JobStatus.RUNNING
    assert agent.do() == "at last"
    assert client.lrange("seen", 0, -1) == [b"1", b"2", b"3"]
    assert agent.report().attempts == 3


def test_a_job_that_kills_every_agent_is_given_up_without_being_begun_again(client: redis.Redis) -> None:
    def deadly(_payload: Any, context: JobContext) -> None:
        client.rpush("begun", context.attempt)
        os._exit(3)

    agent = Agent(client, deadly, max_deliveries=2)
    for _ in range(2):
        die(agent)
    error = agent.failure()
    assert error["type"] == "AgentDied"
    assert client.lrange("begun", 0, -1) == [b"1", b"2"]


@pytest.mark.parametrize("outcome", ["succeeds", "fails"])
def test_a_finished_job_is_not_done_again(client: redis.Redis, outcome: str) -> None:
    runs = []

    def handler(_payload: Any, _context: JobContext) -> str:
        runs.append(1)
        if outcome == "fails":
            raise ValueError("once")
        return "result"

    agent = Agent(client, handler)
    if outcome == "fails":
        agent.failure()
    else:
        agent.do()
    before = agent.report()
    assert agent.do() is None
    assert runs == [1]
    assert agent.report() == before
    assert len(agent.records.finished(10)) == 1


def test_an_id_that_no_database_can_store_is_replaced_before_anything_keeps_it(client: redis.Redis) -> None:
    agent = Agent(client, lambda *_: "done")
    agent.do("bad\0id")
    assert [found.id for _, found in agent.records.finished(10)] == ["bad\ufffdid"]
    assert client.exists(names.job_key("bad\ufffdid"))


def test_the_service_time_is_learned_and_the_newest_jobs_weigh_most() -> None:
    counters = JobRunner().counters
    assert counters.snapshot()["service_time"] is None
    counters.begin()
    assert counters.snapshot()["state"] == "busy"
    counters.end(1.0, failed=False)
    counters.begin()
    counters.end(2.0, failed=True)
    snapshot = counters.snapshot()
    assert snapshot["service_time"] == pytest.approx(1.2)
    assert (snapshot["state"], snapshot["completed"], snapshot["failed"], snapshot["in_flight"]) == ("idle", 1, 1, 0)


BEATING = """
import time
import redis
from brain_clusters.agent.beats import Beats
from brain_clusters.agent.hearing import Hearing
client, broken, failures = redis.Redis.from_url({url!r}), False, 0
def figures():
    global failures
    if broken:
        failures += 1
        raise RuntimeError("broken")
    return {{}}
beats = Beats(client, "a", figures, Hearing(client, "a", [], int, deaf_after=9), host_id=None)
beats.start(interval=0.05, stale=60, orphan={orphan})
broken = True
{then}
"""


def beating(url: str, orphan: float, then: str) -> int:
    """Run a process that beats, and in which something breaks what its beats need; return its exit code."""
    return subprocess.run(
        [sys.executable, "-c", BEATING.format(url=url, orphan=orphan, then=then)], timeout=60, check=False,
        capture_output=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ).returncode  # fmt: skip


def test_an_agent_whose_beats_fail_for_long_ends(redis_url: str) -> None:
    assert beating(redis_url, 0.3, "time.sleep(50)") == EXIT_ORPHANED


def test_an_agent_beats_on_when_its_beats_failed_for_a_while(client: redis.Redis, redis_url: str) -> None:
    key = names.beat_key("a")
    then = f"while not failures: pass\nbroken = False; client.delete({key!r})\nwhile not client.exists({key!r}): pass"
    assert beating(redis_url, 50, then) == 0


def test_an_agent_that_lost_its_zygote_and_redis_ends_by_itself(tmp_path: Path) -> None:
    script = tmp_path / "orphan.py"
    script.write_text(
        "import os, sys, time\n"
        "import redis\n"
        "from brain_clusters.agent.beats import Beats\n"
        "from brain_clusters.agent.hearing import Hearing\n"
        f"nobody = redis.Redis(port={free_port()})\n"
        "reader, writer = os.pipe()\n"
        "if os.fork():\n"
        "    os.read(reader, 1)  # the zygote: dies as soon as its agent has begun\n"
        "    os._exit(0)\n"
        "hearing = Hearing(nobody, 'orphan', [], int, deaf_after=9)\n"
        "beats = Beats(nobody, 'orphan', dict, hearing, host_id='gone')\n"
        "os.write(writer, b'!')\n"
        "while os.getppid() == beats._zygote:\n"
        "    time.sleep(0.01)\n"
        "beats.start(interval=0.05, stale=1, orphan=0.2)\n"
        "time.sleep(60)\n"
    )
    # The agent inherits standard output, so that communicate returns when it, too, has ended.
    found = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=30, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert "Redis and the host are gone" in found.stderr


def test_an_agent_that_is_alone_ends_when_redis_is_away_for_long() -> None:
    script = (
        "import time\n"
        "import redis\n"
        "from brain_clusters.agent import beats\n"
        "from brain_clusters.agent.hearing import Hearing\n"
        "beats.ALONE_SECONDS = 0.2\n"
        f"nobody = redis.Redis(port={free_port()})\n"
        "hearing = Hearing(nobody, 'alone', [], int, deaf_after=9)\n"
        "found = beats.Beats(nobody, 'alone', dict, hearing, host_id='gone', alone=True)\n"
        "found.start(interval=0.05, stale=1, orphan=50)\n"
        "time.sleep(60)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30, check=False)
    assert ended.returncode == EXIT_ORPHANED, ended.stderr
