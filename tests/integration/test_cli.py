"""The command line against the real API, with keys; most of it in this process, some of it as a process of its own."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from brain_clusters import __version__
from brain_clusters.cli import main
from brain_clusters.cli.client import ApiClient, own_key
from brain_clusters.cli.progress import wait_for_operation
from brain_clusters.config import Settings
from brain_clusters.domain.access import Role
from brain_clusters.domain.commands import HibernateCluster
from brain_clusters.errors import PermanentError
from brain_clusters.ports import free_port
from brain_clusters.services import access
from brain_clusters.services.control import Control
from tests.integration.served_api import ServedApi
from tests.integration.stage import SHOP, Stage

NEW_SHOP = SHOP.replace('version: "1"', 'version: "2"')


@pytest.fixture(scope="module")
def settings(database_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings on the module's servers; the API asks for keys."""
    return Settings(home=tmp_path_factory.mktemp("home"), database_url=database_url, redis_url=redis_url)


@pytest.fixture(scope="module")
def url(settings: Settings, control: Control) -> Iterator[str]:
    """A served API, whose first key lies in its home."""
    access.make_first(control)
    with ServedApi(settings) as api:
        yield f"http://127.0.0.1:{api.port}"


class Cli:
    """The command line of a user who has named the API by its URL."""

    def __init__(self, url: str, settings: Settings, folder: Path) -> None:
        self.environment = {
            "BRAIN_HOME": str(settings.home), "BRAIN_API_URL": url, "XDG_CONFIG_HOME": str(folder),
            "BRAIN_DATABASE_URL": settings.database_url or "", "BRAIN_REDIS_URL": settings.redis_url or "",
        }  # fmt: skip

    def __call__(self, *arguments: str, code: int = 0, given: str | None = None, **variables: str) -> Result:
        done = CliRunner().invoke(main, arguments, env={**self.environment, **variables}, input=given)
        assert done.exit_code == code, (done.exit_code, done.output, done.exception)
        assert "Traceback" not in done.output
        return done

    def json(self, *arguments: str) -> object:
        return json.loads(self(*arguments, "-o", "json").stdout)

    def process(self, *arguments: str, **kwargs: object) -> subprocess.Popen[bytes]:
        # Whoever runs the tests may state a terminal's size, which would count for more than that of ours.
        sizes = ("COLUMNS", "LINES")
        kept = {key: value for key, value in os.environ.items() if not key.startswith("BRAIN_") and key not in sizes}
        argv = [sys.executable, "-P", "-m", "brain_clusters", *arguments]
        return subprocess.Popen(argv, env=kept | self.environment, **kwargs)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def cli(url: str, settings: Settings, stage: Stage, tmp_path: Path) -> Cli:
    """The command line, and an empty system with the blueprint ``shop``."""
    return Cli(url, settings, tmp_path / "config")


# --- looking ----------------------------------------------------------------------------------------------------


def test_lists_and_single_things_are_the_apis_in_every_format(cli: Cli, stage: Stage) -> None:
    shop = stage.active(id="shop-1", tags=["new"])
    assert cli("get", "clusters").stdout.splitlines()[1].split()[:3] == [shop, "active", "3/3"]
    listed = cli.json("get", "clusters")
    assert isinstance(listed, dict)
    assert [one["id"] for one in listed["clusters"]] == [shop]
    assert listed["total"] == 1
    assert yaml.safe_load(cli("get", "clusters", "-o", "yaml").stdout)["clusters"][0]["tags"] == ["new"]
    assert cli("get", "c", "-o", "name").stdout == f"{shop}\n"
    one = cli.json("get", "cluster", shop)
    assert isinstance(one, dict)
    assert one["possible"] == ["update", "scale", "hibernate", "destroy", "rollout"]
    assert {"NAME", "TAGS"} <= set(cli("get", "clusters", "-o", "wide").stdout.splitlines()[0].split())
    for kind in ("blueprints", "hosts", "operations", "events", "agents"):
        cli("get", kind)
        cli("get", kind, "-o", "json")
    assert len(cli("get", "agents", "-c", shop, "-o", "name").stdout.split()) == 3
    assert cli("get", "clusters", "--tag", "old").stderr == "no clusters\n"


def test_all_pages_are_followed_into_a_pipe(cli: Cli, stage: Stage) -> None:
    for number in range(450):
        stage.sql(
            "INSERT INTO events (at, kind, actor, reason, data) VALUES (now(), 'test', 't', :reason, '{}')",
            reason=f"number {number}",
        )
    found = cli.json("get", "events", "--kind", "test")
    assert isinstance(found, dict)
    assert len(found["events"]) == found["total"] == 450
    assert found["next_cursor"] is None
    assert len(cli("events", "--kind", "test", "--limit", "7", "-o", "name").stdout.split()) == 7


def test_agents_and_blueprints_are_listed_to_the_last(cli: Cli, stage: Stage) -> None:
    shop = stage.active()
    stage.sql(
        "INSERT INTO cluster_agents (id, cluster_id, agent_id, role, group_name, blueprint_version, status) "
        "SELECT gen_random_uuid(), :shop, 'gone-' || number, 'worker', 'Packer', '1', 'stopped' "
        "FROM generate_series(1, 500) AS number",
        shop=shop,
    )
    stage.sql(
        "INSERT INTO cluster_blueprints (id, version, name, blueprint_yaml) "
        "SELECT 'many-' || number, '1', 'Many', '' FROM generate_series(1, 500) AS number"
    )
    assert len(cli("get", "agents", "-c", shop, "--ended", "-o", "name").stdout.split()) == 503
    assert len(cli("get", "agents", "--ended", "-o", "name").stdout.split()) == 503
    assert len(cli("blueprint", "list", "-o", "name").stdout.split()) > 500
    stage.sql("DELETE FROM cluster_blueprints WHERE id LIKE 'many-%'")


def test_describe_tells_what_belongs_to_a_thing(cli: Cli, stage: Stage) -> None:
    shop = stage.active()
    job = stage.post(shop, to="Packer", payload={"n": 1})
    told = cli("describe", "cluster", shop).stdout
    for word in ("Hierarchy", "Boss (supervisor, 1 wanted)", "Agents", "Events, newest first", "operation.accepted"):
        assert word in told
    assert '"n": 1' in cli("describe", "job", job.id).stdout
    assert "scale_up_threshold" in cli("describe", "blueprint", "shop@1").stdout
    agent = stage.agents(shop)[0].agent_id
    assert agent in cli("get", "agents", "-c", shop).stdout
    assert "cluster_id" in cli("describe", "operation", str(cli("get", "o", "-o", "name").stdout.split()[0])).stdout


def test_top_prints_one_picture_when_piped(cli: Cli, stage: Stage) -> None:
    shop = stage.active()
    stage.post(shop, to="Packer", payload=1)
    lines = cli("top").stdout.splitlines()
    assert "1 clusters awake, 0 asleep, 3 agents, 1 jobs waiting" in lines[0]
    assert lines[2].split()[:6] == [shop, "active", "3/3", *lines[2].split()[3:4], "1", "0"]


def test_status_tells_what_needs_attention(cli: Cli, stage: Stage) -> None:
    stage.active()
    told = cli("status").stdout
    assert "clusters:  1 active" in told
    assert f"version {__version__}" in told
    stage.earlier("hosts", "seen_at", 3600)
    assert "! the host says nothing any more" in cli("status").stdout


def test_doctor_finds_what_is_wrong_and_says_what_to_do(cli: Cli, stage: Stage) -> None:
    stage.tick()
    found = json.loads(cli("doctor", "-o", "json", code=1).stdout)
    states = {one["name"]: one["state"] for one in found["findings"]}
    ok = ("Python", "PostgreSQL", "schema", "beat", "Redis", "eviction", "API", "versions", "key", "admin key")
    assert {name: states[name] for name in ok} == dict.fromkeys(ok, "ok")
    assert [name for name, state in states.items() if state == "failed"] == ["worker"]
    told = cli("doctor", code=1).stdout
    assert "-> start 'brain-clusters up', or the process 'brain-clusters worker'" in told
    away = f"http://127.0.0.1:{free_port()}"
    assert "failed   API" in cli("doctor", code=1, BRAIN_API_URL=away).stdout


# --- doing ------------------------------------------------------------------------------------------------------


def test_commands_are_accepted_and_dry_runs_change_nothing(cli: Cli, stage: Stage) -> None:
    planned = yaml.safe_load(cli("create", "shop", "--name", "One", "--tag", "a", "--dry-run").stdout)
    assert planned == {"POST /api/clusters": {"blueprint_id": "shop", "name": "One", "tags": ["a"]}}
    assert cli("get", "clusters", "-a", "-o", "name").stdout == ""
    made = json.loads(cli("create", "shop", "--id", "one", "--workers", "3", "-o", "json").stdout)
    assert made["operation"]["kind"] == "create"
    shop = stage.active()
    assert cli("scale", shop, "Packer=2", "--dry-run").stdout.endswith("to Packer=2\n")
    assert cli("scale", shop, "4").stdout.startswith(f"{shop}: scale accepted (operation ")
    assert cli("scale", shop, "Packer=3", "-o", "name").stdout == f"{shop}\n"
    assert cli("hibernate", shop, "--dry-run").stdout.startswith(f"would hibernate {shop}, which is ")
    assert cli("hibernate", shop).stdout.startswith(f"{shop}: hibernate accepted")
    assert cli("wake", shop).stdout.startswith(f"{shop}: wake accepted")
    assert cli("destroy", shop, code=2).stderr.endswith("Nobody can be asked here; say --yes\n")
    assert cli("destroy", shop, "--yes").stdout.startswith(f"{shop}: destroy accepted")


def test_several_clusters_are_done_even_when_one_is_not_there(cli: Cli, stage: Stage) -> None:
    one, two = stage.active(), stage.active()
    done = cli("hibernate", one, "nobody", two, code=4)
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [one, two]
    assert done.stderr == "error: there is no cluster 'nobody'\n"


def test_wait_gives_up_after_its_time_and_says_how_to_go_on(cli: Cli, stage: Stage) -> None:
    done = cli("create", "shop", "--id", "slow", "--wait", "--timeout", "0", code=1)
    assert "create slow is not done after 0s and goes on; 'brain-clusters get operation " in done.stderr


def test_an_operation_that_failed_says_why(cli: Cli, stage: Stage, settings: Settings) -> None:
    shop = stage.active()
    failed = stage.submit(HibernateCluster(cluster_id=shop))
    stage.sql(
        "UPDATE operations SET status = 'failed', finished_at = now(), error = cast(:error AS jsonb) WHERE id = :id",
        error='{"type": "reverted", "message": "no room"}', id=failed.id,
    )  # fmt: skip
    told = {"id": str(failed.id), "cluster_id": shop, "kind": "hibernate"}
    why = f"hibernate {shop} failed: no room. 'brain-clusters describe"
    api = ApiClient(cli.environment["BRAIN_API_URL"], key=own_key(settings))
    with api, pytest.raises(PermanentError, match=why):
        wait_for_operation(api, told, 5)


def test_jobs_are_sent_listed_cancelled_and_retried(cli: Cli, stage: Stage, tmp_path: Path) -> None:
    shop = stage.active()
    sent = cli("jobs", "submit", "-c", shop, "--to", "Packer", '{"n": 1}').stdout
    job = sent.partition(":")[0]
    assert sent == f"{job}: queued for Packer of {shop}\n"
    file = tmp_path / "jobs.jsonl"
    file.write_text('1\n\n{"a": 2}\n')
    assert cli("jobs", "submit", "-c", shop, "--lines", str(file)).stdout == "2 jobs accepted\n"
    assert cli("jobs", "submit", "-c", shop, "-", given="[3]").exit_code == 0
    assert len(cli("jobs", "list", "-c", shop, "-o", "name").stdout.split()) == 4
    assert json.loads(cli("jobs", "get", job, "-o", "json").stdout)["payload"] == {"n": 1}
    assert job in cli("jobs", "tree", job).stdout
    late = cli("jobs", "get", job, "--wait", "--timeout", "0", code=1)
    assert f"job {job} is still queued after 0s; 'brain-clusters jobs get {job} --wait' goes on" in late.stderr
    assert cli("jobs", "cancel", "-c", shop, "--dry-run").stdout == "4 jobs would be cancelled\n"
    assert "say --yes" in cli("jobs", "cancel", "-c", shop, code=2).stderr
    assert cli("jobs", "cancel", job).stdout == f"{job}: cancelled for Packer of {shop}\n"
    assert cli("jobs", "cancel", "-c", shop, "-y").stdout.startswith("3 cancelled, 0 running ones")
    assert cli("jobs", "retry", job).stdout.startswith(f"{job}: queued")
    assert "is cancelled" in cli("jobs", "get", *_ids(cli, shop, "cancelled"), "--wait", code=1).stderr


def _ids(cli: Cli, cluster: str, status: str) -> list[str]:
    return cli("jobs", "list", "-c", cluster, "--status", status, "-o", "name").stdout.split()


def test_dead_letters_are_counted_before_they_are_treated(cli: Cli, stage: Stage) -> None:
    shop = stage.active()
    for number in range(3):
        stage.post(shop, to="Packer", payload=number)
    stage.sql(
        "UPDATE jobs SET status = 'failed', finished_at = now(), error_key = 'ValueError: no', "
        'error = \'{"type": "ValueError", "message": "no"}\''
    )
    shown = cli("jobs", "dead", shop).stdout.splitlines()
    assert shown[1].split()[:2] == ["3", "Packer"]
    assert cli("jobs", "dead", shop, "-o", "name").stdout == "ValueError: no\n"
    assert cli("jobs", "dead", shop, "--retry", "--dry-run").stdout == "retry would find 3 jobs\n"
    assert cli("jobs", "retry", "-c", shop, "--error", "ValueError: no", "-y").stdout == "3 retried\n"
    assert "ended without success" in cli("jobs", "dead", shop).stderr


def test_logs_of_agents_are_shown_and_followed_until_they_are_gone(cli: Cli, stage: Stage, settings: Settings) -> None:
    shop = stage.active()
    folder = settings.home / "logs" / "agents"
    folder.mkdir(parents=True, exist_ok=True)
    agents = cli("get", "agents", "-c", shop, "-o", "name").stdout.split()
    for agent in agents[:2]:
        (folder / f"{agent}.log").write_text("".join(f"line {number}\t!\n" for number in range(5)))
    assert cli("logs", agents[0], "--tail", "2").stdout == "line 3\t!\nline 4\t!\n"
    told = cli("logs", "-c", shop, "--tail", "1")
    assert told.stdout.splitlines() == [f"[{agent}] line 4\t!" for agent in agents[:2]]
    assert f"{agents[2]}: its log is kept by the host host-1, which does not answer now" in told.stderr
    followed = cli("logs", *agents[:2], "-f", "--tail", "1", "--count", "2").stdout.splitlines()
    assert sorted(followed) == sorted(told.stdout.splitlines())
    assert "has no agent in the group Nobody now" in cli("logs", "-c", shop, "--group", "Nobody", code=4).stderr
    assert "there is no agent 'nobody'" in cli("logs", "nobody", code=4).stderr


def test_agents_are_drained_and_replaced(cli: Cli, stage: Stage) -> None:
    shop = stage.active()
    one, two, _ = cli("agents", "list", shop, "-o", "name").stdout.split()
    assert cli("agents", "drain", one, "--dry-run").stdout.startswith(f"would drain {one}, which is ")
    assert cli("agents", "drain", one).stdout.startswith(f"{one}: drain accepted; it is draining")
    cli("agents", "replace", two)
    assert json.loads(cli("agents", "get", one, "-o", "json").stdout)["status"] == "draining"
    assert "there is no agent 'nobody'" in cli("agents", "drain", "nobody", code=4).stderr


def test_costs_explain_and_rendered_blueprints(cli: Cli, stage: Stage) -> None:
    shop = stage.active()
    assert "COST USD" in cli("costs", shop).stdout
    assert cli.json("costs", "--by", "day")
    assert f"{shop} is active" in cli("explain", shop).stdout
    rendered = yaml.safe_load(cli("blueprint", "render", "shop@1").stdout)
    assert [group["name"] for group in rendered["groups"]] == ["Boss", "Clerk", "Packer", "Driver"]
    assert "shop" in cli("blueprint", "list", "-o", "name").stdout.split()


def test_files_are_planned_compared_and_applied_until_nothing_differs(cli: Cli, stage: Stage, tmp_path: Path) -> None:
    shop = stage.active()
    (tmp_path / "shop.yaml").write_text(NEW_SHOP)
    (tmp_path / "more.yml").write_text(
        f"# two clusters\n---\ncluster: {{id: {shop}, blueprint: shop, version: '2', max_workers: 7}}\n---\n"
        "cluster: {id: other, blueprint: shop, tags: [x]}\n"
    )
    files = ("-f", str(tmp_path))
    planned = cli("plan", *files, code=3).stdout
    assert "+ cluster other" in planned
    assert "max_workers: 8 -> 7" in planned
    assert "to change; agents: " in planned
    assert {'+version: "2"', "-max_workers: 8", "+max_workers: 7"} & set(cli("diff", *files, code=3).stdout.split("\n"))
    assert cli("apply", *files, "--dry-run").stdout == planned
    assert cli("get", "clusters", "-o", "name").stdout == f"{shop}\n"
    assert "operations began" in cli("apply", *files, "--yes").stdout
    assert cli("get", "clusters", "-o", "name").stdout.split() == ["other", shop]
    assert cli("plan", *files).stdout.endswith("nothing differs\n")
    assert cli("apply", "-f", "-", given=NEW_SHOP).stdout.endswith("nothing differs\n")


def test_faults_of_files_are_told_by_file_and_line(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "faulty.yaml"
    file.write_text("---\ncluster: {id: x, blueprint: shop, max_workers: many}\n")
    told = cli("plan", "-f", str(file), code=2).stderr
    assert f"  line 2, column 48: {file} /cluster/max_workers: " in told
    assert cli("plan", "-f", str(tmp_path / "none"), code=4).stderr == f"error: there is no file {tmp_path / 'none'}\n"
    assert "there is no file that ends with .yaml" in cli("plan", "-f", str(_folder(tmp_path)), code=2).stderr
    file.write_text("cluster: {id: x, blueprint: nothing}\n")
    assert "! cluster x" in cli("plan", "-f", str(file), code=1).stdout
    assert "nothing was applied" in cli("apply", "-f", str(file), "--yes", code=1).stderr


def _folder(parent: Path) -> Path:
    folder = parent / "empty"
    folder.mkdir()
    return folder


def test_rollouts_are_begun_shown_and_undone(cli: Cli, stage: Stage, tmp_path: Path) -> None:
    shop = stage.active()
    assert "nothing was rolled out" in cli("rollout", "status", shop, code=4).stderr
    file = tmp_path / "shop.yaml"
    text = SHOP.replace('version: "1"', 'version: "3"').replace("capabilities: [sums]", "capabilities: [sums, more]")
    file.write_text(text)
    cli("apply", "-f", str(file), "--yes")
    shown = cli.json("rollout", "status", shop)
    assert isinstance(shown, dict)
    assert (shown["to_version"], shown["status"]) == ("3", "running")
    assert cli("rollout", "pause", shop).stdout.startswith(f"{shop}: accepted")
    assert "paused" in cli("rollout", "history", shop).stdout
    cli("rollout", "resume", shop)
    assert "is not done after 0s" in cli("rollout", "status", shop, "-w", "--timeout", "0", code=1).stderr
    cli("rollout", "undo", shop)
    assert [one.split()[1] for one in cli("rollout", "history", shop).stdout.splitlines()[1:]] == [
        "running",
        "superseded",
    ]
    cli("rollout", "start", shop, "--version", "3", "--max-parallel", "50%", "--no-auto-revert", "-o", "json")


def test_the_autoscaler_is_kept_from_a_cluster_and_let_back(cli: Cli, stage: Stage) -> None:
    shop = stage.active()
    assert cli("pause", shop).stdout == f"{shop} is left alone by the autoscaler\n"
    assert json.loads(cli("get", "cluster", shop, "-o", "json").stdout)["paused"] is True
    cli("resume", shop)
    assert json.loads(cli("get", "cluster", shop, "-o", "json").stdout)["paused"] is False


def test_keys_are_made_renewed_and_revoked(cli: Cli) -> None:
    made = cli("keys", "create", "ci", "--role", "operator", "--tag", "a", "--expires", "90 days")
    key = made.stderr.split()[0]
    assert made.stdout.startswith(f"brain_{key}_")
    cli("get", "clusters", BRAIN_API_KEY=made.stdout.strip())
    listed = {line.split()[0]: line for line in cli("keys", "list").stdout.splitlines()}
    assert "operator" in listed[key]
    renewed = json.loads(cli("keys", "rotate", key, "--overlap", "0", "-o", "json").stdout)
    cli("get", "clusters", BRAIN_API_KEY=renewed["secret"])
    assert "say --yes" in cli("keys", "revoke", renewed["key"]["id"], code=2).stderr
    assert cli("keys", "revoke", renewed["key"]["id"], "-y").stdout == f"{renewed['key']['id']} revoked\n"
    cli("get", "clusters", code=1, BRAIN_API_KEY=renewed["secret"])
    assert "revoked" in cli("keys", "list", "--ended").stdout


# --- what goes wrong --------------------------------------------------------------------------------------------


def test_faults_are_told_by_their_place_with_the_exit_code_of_usage(cli: Cli) -> None:
    done = cli("create", "shop", "--name", "x", "--min", "-1", "--max", "0", code=2)
    assert done.stderr.startswith("error: the request body is not valid\n")
    assert "  /min_workers: " in done.stderr
    assert "  /max_workers: " in done.stderr
    assert cli("jobs", "submit", "-c", "shop", "nonsense", code=2).stderr.startswith("error: the payload is no JSON")
    assert "--tag; their filters: --status, --group" in cli("get", "jobs", "--tag", "x", code=2).stderr
    assert "Did you mean scale?" in cli("scael", code=2).output


def test_what_is_not_there_and_what_is_not_possible_now(cli: Cli, stage: Stage) -> None:
    assert cli("get", "cluster", "nobody", code=4).stderr == "error: there is no cluster 'nobody'\n"
    assert "'brain-clusters get hosts' lists them" in cli("describe", "host", "x", code=4).stderr
    shop = stage.active()
    stage.do(HibernateCluster(cluster_id=shop))
    assert "possible now: update, reactivate, destroy" in cli("scale", shop, "3", code=1).stderr
    assert "possible now: update, wake, destroy" in cli("scale", shop, "3", "--dry-run", code=1).stderr


def test_an_api_that_is_away_or_another_program_is_told(cli: Cli) -> None:
    away = cli("get", "clusters", code=1, BRAIN_API_URL=f"http://127.0.0.1:{free_port()}").stderr
    assert "does not answer: [Errno 111] Connection refused. Is it running ('brain-clusters up'" in away
    assert "is no URL such as" in cli("get", "clusters", code=2, BRAIN_API_URL="nonsense").stderr
    assert "cannot" not in cli("get", "clusters", "--api", cli.environment["BRAIN_API_URL"], BRAIN_API_URL="").stderr


@pytest.mark.parametrize(
    ("head", "body", "told"),
    [
        ("301 Moved\r\nLocation: https://x.example/\x1b[2J", "", "it leads to https://x.example/\\x1b[2J; use"),
        ("200 OK\r\nContent-Type: application/json", "[]", "that is not the API of BRAiN Clusters"),
        ("200 OK\r\nContent-Type: text/html", "<p>", "that is not the API of BRAiN Clusters"),
        ("200 OK\r\nContent-Type: application/json", '{"cut', "does not answer: Unterminated string"),
    ],
)
def test_what_answers_otherwise_is_told_and_is_no_fault_of_ours(cli: Cli, head: str, body: str, told: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            peer, _ = other.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

        thread = threading.Thread(target=answer)
        thread.start()
        shown = cli("get", "clusters", code=1, BRAIN_API_URL=f"http://127.0.0.1:{other.getsockname()[1]}").stderr
        thread.join()
    assert told in shown
    assert "fault of brain-clusters" not in shown


def test_a_key_that_is_missing_unknown_or_too_weak_is_told(cli: Cli, control: Control, settings: Settings) -> None:
    assert "does not know the key of --key or BRAIN_API_KEY" in cli("get", "c", code=1, BRAIN_API_KEY="x" * 20).stderr
    elsewhere = cli("get", "c", code=1, BRAIN_HOME=str(settings.home / "elsewhere")).stderr
    assert "asks for a key, and there is none: name one by BRAIN_API_KEY" in elsewhere
    with control.database.transaction() as session:
        _, shown = access.make(session, access.NewKey(name="looker", role=Role.VIEWER), "a test")
    assert cli("get", "clusters", BRAIN_API_KEY=shown).exit_code == 0
    weak = cli("create", "shop", code=1, BRAIN_API_KEY=shown).stderr
    assert "this needs the role operator, and the key 'looker' has the role viewer" in weak
    assert "Ask an admin for a key that may" in weak


def test_a_fault_of_ours_is_two_lines_and_no_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brain_clusters.cli.fetch.listing", lambda *_, **__: 1 / 0)
    told = cli("get", "clusters", code=1).stderr.splitlines()
    assert told[0].startswith("error: ZeroDivisionError: division by zero (")
    assert "--traceback" in told[1]


def test_an_api_that_is_older_is_told(cli: Cli) -> None:
    from brain_clusters.cli.client import ApiClient
    from brain_clusters.errors import PermanentError

    key = (Path(cli.environment["BRAIN_HOME"]) / "admin.key").read_text().strip()
    with ApiClient(cli.environment["BRAIN_API_URL"], key=key) as api, pytest.raises(PermanentError, match="older than"):
        api.get("/api/of-the-future")


# --- whom to talk to --------------------------------------------------------------------------------------------


def test_contexts_name_apis_and_keep_their_keys(cli: Cli, settings: Settings, url: str) -> None:
    cli.environment.pop("BRAIN_API_URL")
    cli.environment["BRAIN_HOME"] = str(settings.home / "elsewhere")
    key = (settings.home / "admin.key").read_text()
    assert "no 'up' runs for" in cli("get", "clusters", code=1).stderr
    assert (
        "commands talk to it now" in cli("config", "set", "prod", "--api", url, "--key", "-", "--use", given=key).stdout
    )
    cli("get", "clusters")
    listed = cli("config", "list").stdout
    assert key.strip() not in listed
    assert ["prod", "*", url, "********"] in [line.split() for line in listed.splitlines()]
    cli("config", "use", "local")
    cli("get", "clusters", code=1)
    cli("get", "clusters", "--context", "prod")
    assert "there are local, prod" in cli("config", "use", "test", code=4).stderr
    cli("config", "remove", "prod")
    cli("config", "set", "x", "--api", "ftp://x", code=2)


def test_a_key_can_be_made_without_the_api(cli: Cli) -> None:
    made = cli("keys", "create", "rescue", "--role", "admin", "--direct", BRAIN_API_URL="http://127.0.0.1:9")
    assert made.stderr.endswith("it is shown this once:\n")
    cli("get", "clusters", BRAIN_API_KEY=made.stdout.strip())
    ended = json.loads(cli("keys", "create", "x", "--direct", "--expires", "1 day", "-o", "json").stdout)
    assert ended["key"]["role"] == "viewer"
    assert "must be a duration" in cli("keys", "create", "x", "--direct", "--expires", "soon", code=2).stderr


def test_ids_of_clusters_are_completed(cli: Cli, stage: Stage) -> None:
    stage.active(id="shop-a")
    stage.active(id="shop-b")
    given = {"_BRAIN_CLUSTERS_COMPLETE": "bash_complete", "COMP_WORDS": "brain-clusters scale shop", "COMP_CWORD": "2"}
    done = CliRunner().invoke(main, [], env={**cli.environment, **given}, prog_name="brain-clusters")
    assert sorted(done.output.split()) == ["plain,shop-a", "plain,shop-b"]
    away = {**cli.environment, **given, "BRAIN_API_URL": "http://127.0.0.1:9"}
    assert CliRunner().invoke(main, [], env=away, prog_name="brain-clusters").output.strip() == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_one_of_that_shell(shell: str, tmp_path: Path) -> None:
    script = CliRunner().invoke(main, ["completion", shell]).output
    assert "_BRAIN_CLUSTERS_COMPLETE" in script
    if shutil.which(shell):
        file = tmp_path / "script"
        file.write_text(script)
        subprocess.run([shell, "-n", str(file)], check=True)


# --- as a process -----------------------------------------------------------------------------------------------


def _in_a_terminal(cli: Cli, *arguments: str, keys: bytes = b"", columns: int = 60, **variables: str) -> str:
    """Run the command line on a terminal of its own; return what it shows there."""
    mine, its = pty.openpty()
    termios.tcsetwinsize(its, (24, columns))
    cli.environment |= {"TERM": "xterm-256color", **variables}
    process = cli.process(*arguments, stdin=its, stdout=its, stderr=its, start_new_session=True)
    os.close(its)
    os.write(mine, keys)
    shown = b""
    try:
        while chunk := _line_within(mine, 30):
            shown += chunk
    except OSError:  # so Linux says that nobody has the terminal any more
        pass
    finally:
        os.close(mine)
    _end(process)
    assert process.returncode == 0, shown
    return shown.decode()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process; kill it when it does not end."""
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def test_a_terminal_gets_colours_and_tables_of_its_width(cli: Cli, stage: Stage) -> None:
    stage.active(id="shop-with-a-name-that-is-long", tags=["x"])
    shown = _in_a_terminal(cli, "get", "clusters", columns=52)
    assert "\x1b[32mactive\x1b[0m" in shown
    assert "…" in shown
    plain = _in_a_terminal(cli, "get", "clusters", NO_COLOR="1")
    assert "\x1b" not in plain
    cli.environment.pop("NO_COLOR")
    assert "\x1b" not in _in_a_terminal(cli, "--no-color", "get", "clusters")


def test_top_fills_a_terminal_and_takes_keys(cli: Cli, stage: Stage) -> None:
    shop = stage.active()
    shown = _in_a_terminal(cli, "top", keys=b"srq", columns=100)
    assert "\x1b[?1049h" in shown  # the other screen
    assert "\x1b[?1049l" in shown  # and back
    assert shop in shown
    assert "by oldest" in shown


def test_events_are_followed_and_a_pipe_that_closes_ends_quietly(cli: Cli, stage: Stage) -> None:
    process = cli.process("events", "-w", "-o", "json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        for _ in range(60):  # it begins to listen when it is ready
            stage.create()
            if line := _line_within(process.stdout.fileno(), 0.5):
                break
        assert json.loads(line.splitlines()[0])["kind"]
        process.stdout.close()
        stage.create()
        stage.create()
    finally:
        _end(process)
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()


def test_a_list_is_watched_until_ctrl_c(cli: Cli, stage: Stage) -> None:
    stage.create(id="first")
    process = cli.process("get", "clusters", "-w", "-o", "name", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        assert _line_within(process.stdout.fileno(), 30) == b"first\n"
        stage.create(id="second")
        shown = _line_within(process.stdout.fileno(), 30)
        assert b"second\n" in shown
    finally:
        process.send_signal(signal.SIGINT)
        _end(process)
        process.stdout.close()
    assert process.returncode == 0


def _line_within(file: int, seconds: float) -> bytes:
    """Return what can be read, nothing when there is none in time."""
    ready, _, _ = select.select([file], [], [], seconds)
    return os.read(file, 65536) if ready else b""


def test_exit_codes_and_streams_of_a_process(cli: Cli) -> None:
    process = cli.process("get", "cluster", "nobody", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, told = process.communicate(timeout=60)
    assert (process.returncode, out, told) == (4, b"", b"error: there is no cluster 'nobody'\n")
