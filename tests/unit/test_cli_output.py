"""What the command line prints: words, tables, formats, plans, trees; and what it reads."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from brain_clusters.broker.diagnosis import RedisFacts
from brain_clusters.cli import words
from brain_clusters.cli.commands.clusters import _sizes
from brain_clusters.cli.contexts import Context, Contexts
from brain_clusters.cli.doctor import State, machine
from brain_clusters.cli.doctor.servers import judge_clock, judge_database, judge_redis
from brain_clusters.cli.jobtree import tree_lines
from brain_clusters.cli.kinds import AGENTS, CLUSTERS, EVENTS, HOSTS, JOBS, KINDS, OPERATIONS, kind_of
from brain_clusters.cli.output import row_lines, show
from brain_clusters.cli.payloads import read_payload
from brain_clusters.cli.table import lines
from brain_clusters.cli.target import find
from brain_clusters.config import Settings
from brain_clusters.errors import InvalidInput, NotFound, PermanentError
from brain_clusters.services.diagnosis import DatabaseFacts

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
AGO = (NOW - timedelta(hours=3, minutes=20)).isoformat()
CLUSTER = {
    "id": "cluster-test-001", "name": "Q1", "status": "active", "current_workers": 6, "target_workers": 12,
    "load_percentage": 83.3, "blueprint_id": "marketing-v1", "blueprint_version": "1.0.0", "created_at": AGO,
    "tags": ["a", "b"], "type": "department", "health_score": 1.0,
}  # fmt: skip
ROWS: list[tuple[Any, dict[str, Any]]] = [
    (CLUSTERS, CLUSTER),
    (AGENTS, {"agent_id": "cluster-test-001.image-generator.903b4e09", "group": "Image Generator", "status": "busy",
              "tasks_completed": 123, "cpu": 43.2, "memory": 75_497_472, "spawned_at": AGO}),
    (JOBS, {"id": "f1fbd8f2-8f57-4f51-9c0f-0f6b7cf7f2b5", "status": "succeeded", "group": "Campaign Figures",
            "attempts": 1, "started_at": AGO, "finished_at": AGO, "created_at": AGO}),
    (OPERATIONS, {"id": "f1fbd8f2-8f57-4f51-9c0f-0f6b7cf7f2b5", "kind": "reactivate", "status": "succeeded",
                  "cluster_id": "shop", "created_at": AGO}),
    (HOSTS, {"id": "node-1", "driver": "kubernetes", "lease": "held", "agents": 12, "capacity": 200, "cpus_used": 3.5,
             "memory_bytes_used": 4 << 30, "seen_at": AGO}),
]  # fmt: skip


def invoke(function: Any, *arguments: Any) -> str:
    """Return what a function prints where no terminal is."""

    @click.command()
    def command() -> None:
        function(*arguments)

    done = CliRunner().invoke(command)
    assert done.exit_code == 0, done.output
    return done.output


# --- words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "0s"), (0.25, "0.2s"), (9.96, "10s"), (45, "45s"), (60, "1m"), (200, "3m20s"), (2000, "33m"),
     (12_000, "3h20m"), (86_400 * 5, "5d"), (86_400 * 400, "1y35d")],
)  # fmt: skip
def test_lengths_of_time_are_short(seconds: float | None, text: str) -> None:
    assert words.span(seconds) == text


def test_an_age_is_counted_from_now_and_never_negative() -> None:
    assert words.age(AGO, NOW) == "3h20m"
    assert words.age((NOW + timedelta(seconds=5)).isoformat(), NOW) == "0s"
    assert words.age(None) == "-"


def test_a_foreign_text_cannot_move_the_cursor_or_change_colours() -> None:
    assert words.word("a\x1b[2Jb\nc\u202e") == "a\\x1b[2Jb\\nc\\u202e"
    assert words.word({"a": [1, True, None]}) == "a=1,yes,-"


def test_wide_characters_count_twice_and_are_not_cut_in_half() -> None:
    assert words.width("世界") == 4
    assert words.cut("世界世界", 5) == "世界…"
    assert words.cut("abc", 3) == "abc"
    assert words.size(75_497_472) == "72M"


# --- tables -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "row"), ROWS, ids=[kind.plural for kind, _ in ROWS])
def test_a_table_of_usual_things_fits_80_columns(kind: Any, row: dict[str, Any]) -> None:
    assert max(map(words.width, map(click.unstyle, row_lines([row], kind, "table")))) <= 80


def test_a_narrow_terminal_cuts_the_first_column_last_and_a_pipe_cuts_nothing() -> None:
    titles, rows = ["ID", "STATUS", "TEXT"], [["x" * 20, "active", "y" * 60]]
    assert click.unstyle(list(lines(titles, rows, 40))[1]) == f"{'x' * 20}  active  {'y' * 9}…"
    assert click.unstyle(list(lines(titles, rows, 30))[1]) == f"{'x' * 11}…  active  {'y' * 7}…"
    assert click.unstyle(list(lines(titles, rows))[1]) == f"{'x' * 20}  active  {'y' * 60}"


def test_states_have_colours_on_a_terminal_and_none_when_piped() -> None:
    told = list(lines(["STATUS", "NAME"], [["failed", "x"]]))
    assert told[1].startswith("\x1b[31mfailed\x1b[0m")
    assert invoke(show, CLUSTER, CLUSTERS, "table").startswith("ID                STATUS  AGENTS")
    assert "\x1b" not in invoke(show, CLUSTER, CLUSTERS, "table")


def test_wide_shows_all_columns() -> None:
    titles = click.unstyle(row_lines([CLUSTER], CLUSTERS, "wide")[0]).split()
    assert {"NAME", "TYPE", "MIN", "MAX", "HEALTH", "TAGS", "BUDGET"} <= set(titles)


# --- formats ----------------------------------------------------------------------------------------------------


def test_json_and_yaml_are_what_the_api_gave() -> None:
    found = {"clusters": [CLUSTER], "total": 1, "next_cursor": None}
    assert json.loads(invoke(show, found, CLUSTERS, "json")) == found
    assert yaml.safe_load(invoke(show, found, CLUSTERS, "yaml")) == found
    assert list(json.loads(invoke(show, CLUSTER, CLUSTERS, "json"))) == list(CLUSTER)


def test_names_are_ids_alone() -> None:
    assert invoke(show, {"clusters": [CLUSTER, {**CLUSTER, "id": "b"}]}, CLUSTERS, "name") == "cluster-test-001\nb\n"


def test_an_empty_list_says_so_beside_the_output() -> None:
    done = CliRunner().invoke(click.Command("x", callback=lambda: show({"events": []}, EVENTS, "table")))
    assert (done.stdout, done.stderr) == ("", "no events\n")


def test_kinds_have_short_and_single_names() -> None:
    assert kind_of("c") is kind_of("cluster") is kind_of("Clusters") is CLUSTERS
    assert len({name for kind in KINDS for name in (kind.plural, kind.singular, kind.short)}) == 3 * len(KINDS)
    with pytest.raises(InvalidInput, match="use clusters, agents"):
        kind_of("pods")


def test_a_tree_of_jobs_is_drawn() -> None:
    def node(name: str, *children: Any, **fields: Any) -> dict[str, Any]:
        told = {"id": name, "status": "queued", "group": "G", "waiting_for": 0, "error": None, "children": children}
        return told | fields

    error = {"type": "ValueError", "message": "no\x1b"}
    found = node("a", node("b", node("c")), node("d", status="dead", error=error), waiting_for=2)
    assert [click.unstyle(line) for line in tree_lines(found)] == [
        "queued G a, waits for 2",
        "├─ queued G b",
        "│  └─ queued G c",
        "└─ dead G d: ValueError: no\\x1b",
    ]
    assert list(tree_lines(found, names_only=True)) == ["a", "b", "c", "d"]


# --- what is read -----------------------------------------------------------------------------------------------


def test_payloads_are_json_of_a_text_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text('{"n": 1}')
    assert read_payload('["a"]') == ["a"]
    assert read_payload(f"@{file}") == {"n": 1}
    assert read_payload(None) is None
    with pytest.raises(InvalidInput, match=r"no JSON.*text is written in quotes"):
        read_payload("hello")
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_payload(f"@{tmp_path / 'none'}")


def test_sizes_are_a_number_or_groups() -> None:
    assert _sizes(["9"]) == {"target_workers": 9}
    assert _sizes(["Image Generator=3", "a=b=2"]) == {"groups": {"Image Generator": 3, "a=b": 2}}
    for wrong in (["9", "8"], ["x"], ["=1"], ["a=-1"]):
        with pytest.raises(InvalidInput, match="is no size"):
            _sizes(wrong)


# --- contexts ---------------------------------------------------------------------------------------------------


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without contexts, and a home without a system."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("BRAIN_HOME", str(tmp_path / "home"))
    return tmp_path


def test_contexts_are_kept_in_a_file_of_the_user_alone(user: Path) -> None:
    found = Contexts.load()
    found.put("prod", Context("https://brain.example.org", key="k" * 20))
    found.current = "prod"
    found.save()
    path = user / "config" / "brain-clusters" / "config.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    again = Contexts.load()
    assert (again.current, again.known) == ("prod", found.known)
    with pytest.raises(NotFound, match="there are local, prod"):
        again.get("test")
    with pytest.raises(InvalidInput, match="cannot be a context's name"):
        again.put("local", Context("http://x"))


def test_a_broken_file_of_contexts_is_told_with_its_path(user: Path) -> None:
    path = user / "config" / "brain-clusters" / "config.json"
    path.parent.mkdir(parents=True)
    path.write_text("[]")
    with pytest.raises(PermanentError, match=r"config\.json cannot be read"):
        Contexts.load()


def test_an_option_comes_before_a_context_and_that_before_the_system_of_this_machine(user: Path) -> None:
    file = user / "key"
    file.write_text("from-a-file\n")
    found = Contexts.load()
    found.put("prod", Context("https://prod", key_file=str(file)))
    found.current = "prod"
    found.save()
    assert (find(None, None, None).url, find(None, None, None).key) == ("https://prod", "from-a-file")
    assert find(None, "mine", None).key == "mine"
    assert find("http://other:1", None, "prod").url == "http://other:1"
    with pytest.raises(PermanentError, match=r"no 'up' runs for .*home"):
        find(None, None, "local")


def test_the_key_of_this_machine_is_sent_to_this_machine_only(user: Path) -> None:
    (user / "home").mkdir()
    (user / "home" / "admin.key").write_text("secret\n")
    assert find("http://127.0.0.1:8080", None, None).key == "secret"
    assert find("https://brain.example.org", None, None).key is None
    assert find("http://127.0.0.1.example.org", None, None).key is None


# --- doctor -----------------------------------------------------------------------------------------------------

REDIS = RedisFacts(
    version="9.1", policy="noeviction", appendonly="yes", save="", memory=1, memory_limit=0, workers=1,
    commands_waiting=0,
)  # fmt: skip


def _redis(**facts: Any) -> dict[str, State]:
    told = {name: getattr(REDIS, name) for name in REDIS.__slots__} | facts
    return {one.name: one.state for one in judge_redis(RedisFacts(**told))}


def test_a_redis_that_may_lose_jobs_is_found() -> None:
    assert set(_redis().values()) == {State.OK}
    assert _redis(policy="allkeys-lru")["eviction"] is State.FAILED
    assert _redis(appendonly="no", save="3600 1")["persistence"] is State.OK
    assert _redis(appendonly="no")["persistence"] is State.WARNING
    assert _redis(appendonly=None, save=None)["persistence"] is State.SKIPPED
    assert _redis(memory=95, memory_limit=100)["Redis memory"] is State.FAILED
    assert _redis(workers=0)["worker"] is State.FAILED


def _database(**facts: Any) -> dict[str, State]:
    told: dict[str, Any] = {"version": "18", "clock_lead": 0.0, "schema": None, "tick_age": 1.0, "hosts": {"h": 1.0}}
    settings = Settings(home=Path("/nowhere"))
    return {one.name: one.state for one in judge_database(DatabaseFacts(**told | facts), settings)}


def test_a_silent_beat_worker_or_host_is_found() -> None:
    assert set(_database().values()) == {State.OK}
    assert _database(tick_age=None)["beat"] is State.WARNING
    assert _database(tick_age=100.0)["beat"] is State.FAILED
    assert _database(waiting=3, waiting_age=100.0)["commands"] is State.FAILED
    assert _database(hosts={})["hosts"] is State.WARNING
    assert _database(hosts={"h": 60.0})["host h"] is State.FAILED


@pytest.mark.parametrize(("lead", "state"), [(0.2, State.OK), (-2.0, State.WARNING), (30.0, State.FAILED)])
def test_clocks_that_disagree_are_found(lead: float, state: State) -> None:
    assert judge_clock("PostgreSQL", lead).state is state


def test_a_key_that_others_may_read_is_found(user: Path) -> None:
    home = user / "home"
    home.mkdir()
    key = home / "admin.key"
    key.write_text("x")
    key.chmod(0o644)
    found = {one.name: one for one in machine.look(Settings(home=home))}
    assert found["admin key"].state is State.FAILED
    assert found["admin key"].do == f"chmod 600 {key}"
    assert found["Python"].state is State.OK
    assert found["up"].state is State.SKIPPED
