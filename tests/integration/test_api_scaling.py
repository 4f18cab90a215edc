"""The API and the command line of the autoscaler: its ledger, what it would do now, and replays."""

from __future__ import annotations

import json
import os
import re
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask.testing import FlaskClient
from werkzeug.serving import make_server

from brain_clusters.api.app import create_app
from brain_clusters.cli import main
from brain_clusters.cli.upfile import UpFile
from brain_clusters.config import Settings
from brain_clusters.domain.commands import DestroyCluster, HibernateCluster
from brain_clusters.genesis.desk import Ended
from brain_clusters.ports import free_port
from brain_clusters.processes import ProcessId
from brain_clusters.services import blueprints
from brain_clusters.services.control import Control
from tests.integration.stage import Stage

DEPOT = """
metadata: {{id: {id}, name: A depot, version: "1"}}
cluster: {{type: project, min_workers: 1, max_workers: 9, default_workers: 1, scaling: {{{scaling}}}}}
agents:
  - {{role: supervisor, name: Boss, count: 1}}
  - {{role: worker, name: Packer, count: 0-8}}
lifecycle: {{destroy_conditions: [hibernated_duration: 7 days]}}
"""


def depot(scaling: str = "activation_threshold: 3", name: str = "depot") -> str:
    return DEPOT.format(id=name, scaling=scaling)


@pytest.fixture
def api(stage: Stage) -> FlaskClient:
    """A client of the API in this process, on the stage."""
    return create_app(stage.control).test_client()


@pytest.fixture
def away(cut_off: Stage) -> FlaskClient:
    """A client of an API whose Redis does not answer."""
    return create_app(cut_off.control).test_client()


def new(stage: Stage, scaling: str = "activation_threshold: 3") -> str:
    name = f"depot-{uuid.uuid4().hex[:8]}"
    blueprints.store(stage.control, depot(scaling, name))
    return stage.active(blueprint_id=name)


def push(stage: Stage, cluster_id: str, jobs: int) -> None:
    stage.redis.lpush(f"brain.{cluster_id}.packer", *["{}"] * jobs)


def storied(stage: Stage) -> str:
    """Return a cluster with a hold, a scale and a hibernation in its ledger."""
    cluster_id = new(stage)
    push(stage, cluster_id, 2)
    stage.tick()
    push(stage, cluster_id, 18)
    stage.tick()
    stage.redis.delete(f"brain.{cluster_id}.packer")
    pending = 'UPDATE clusters SET group_targets = \'{"Boss": 1, "Packer": 0}\', target_workers = 1 WHERE id = :id'
    stage.sql(pending, id=cluster_id)
    for column in ("last_active", "scaled_at", "created_at"):
        stage.earlier("clusters", column, 7200)
    stage.tick()
    return cluster_id


def path(cluster_id: str, *more: str) -> str:
    return "/".join(["/api/clusters", cluster_id, "scaling", *more])


# --- the ledger -------------------------------------------------------------------------------------------------


def test_decisions_are_listed_newest_first_in_pages_and_by_action(stage: Stage, api: FlaskClient) -> None:
    cluster_id = storied(stage)
    whole = api.get(path(cluster_id)).json
    assert [row["action"] for row in whole["decisions"]] == ["hibernate", "scale", "hold"]
    assert whole["total"] == 3
    hibernation, scale, hold = whole["decisions"]
    assert hold["held"]["Packer"]["gate"] == "activation_threshold"
    assert (hold["operation_id"], hold["before"]["Packer"], hold["after"]["Packer"]) == (None, 0, 1)
    assert api.get(f"/api/operations/{scale['operation_id']}").json["kind"] == "scale"
    assert hibernation["after"] == {"Boss": 0, "Packer": 0}
    assert all("inputs" not in row and row["blueprint_version"] == "1" for row in whole["decisions"])
    first = api.get(path(cluster_id), query_string={"limit": 2}).json
    rest = api.get(path(cluster_id), query_string={"limit": 2, "cursor": first["next_cursor"]}).json
    assert first["decisions"] + rest["decisions"] == whole["decisions"]
    assert rest["next_cursor"] is None
    holds = api.get(path(cluster_id), query_string={"action": "hold", "inputs": "true"}).json["decisions"]
    assert [row["id"] for row in holds] == [hold["id"]]
    assert holds[0]["inputs"]["signals"]["Packer"] == {"ready": 2, "running": 0}


def test_what_cannot_be_listed_is_refused(stage: Stage, api: FlaskClient) -> None:
    cluster_id = new(stage)
    assert api.get(path(cluster_id)).json["decisions"] == []
    assert api.get(path("nobody")).status_code == 404
    for query in ({"action": "dance"}, {"inputs": "perhaps"}, {"limit": 0}, {"cursor": "x"}, {"sort": "at"}):
        assert api.get(path(cluster_id), query_string=query).status_code == 422, query


# --- explain ----------------------------------------------------------------------------------------------------


def test_explain_tells_what_would_be_done_with_a_running_cluster_and_does_nothing(
    stage: Stage, api: FlaskClient
) -> None:
    cluster_id = new(stage)
    quiet = api.get(path(cluster_id, "explain")).json
    assert (quiet["action"], quiet["status"], quiet["held"], quiet["wake_in"]) == ("none", "active", {}, None)
    assert quiet["reason"]
    push(stage, cluster_id, 20)
    before, remembered = stage.cluster(cluster_id).generation, stage.redis.get("brain:scaling")
    busy = api.get(path(cluster_id, "explain")).json
    assert (busy["action"], busy["before"]) == ("scale", {"Boss": 1, "Packer": 0})
    assert busy["signals_known"] is True
    assert (busy["signals"]["Packer"]["ready"], busy["signals"]["Packer"]["backlog"]) == (20, 20)
    assert (busy["policy"]["policy"], busy["blueprint"]["version"]) == ("target", "1")
    assert (stage.cluster(cluster_id).generation, stage.redis.get("brain:scaling")) == (before, remembered)
    assert api.get(path(cluster_id)).json["decisions"] == []
    stage.tick()
    [done] = api.get(path(cluster_id)).json["decisions"]
    assert {key: done[key] for key in ("action", "reason", "before", "after")} == {
        key: busy[key] for key in ("action", "reason", "before", "after")
    }


def test_explain_names_the_gate_that_holds(stage: Stage, api: FlaskClient) -> None:
    cluster_id = new(stage)
    push(stage, cluster_id, 2)
    found = api.get(path(cluster_id, "explain")).json
    assert (found["action"], found["held"]["Packer"]["gate"]) == ("hold", "activation_threshold")
    assert "activation_threshold 3" in found["reason"]
    assert (found["before"]["Packer"], found["after"]["Packer"]) == (0, 1)


def test_explain_tells_a_sleeper_and_when_it_wakes(stage: Stage, api: FlaskClient) -> None:
    cluster_id = new(stage)
    stage.do(HibernateCluster(cluster_id=cluster_id))
    stage.settle(cluster_id)
    found = api.get(path(cluster_id, "explain")).json
    assert (found["action"], found["status"], found["wake_in"]) == ("none", "hibernated", None)
    stage.post(cluster_id, to="Packer", delay=600)
    found = api.get(path(cluster_id, "explain")).json
    assert (found["action"], found["signals"]["Packer"]["held"]) == ("none", 1)
    assert 500 < found["wake_in"] < 600
    stage.earlier("jobs", "eta", 700)
    found = api.get(path(cluster_id, "explain")).json
    assert (found["action"], found["wake_in"], found["after"]["Packer"]) == ("reactivate", 0, 1)


def test_explain_says_that_nothing_is_known_while_redis_is_away(stage: Stage, away: FlaskClient) -> None:
    running, sleeper = new(stage), new(stage)
    stage.do(HibernateCluster(cluster_id=sleeper))
    stage.settle(sleeper)
    stage.earlier("clusters", "hibernated_at", 30 * 86_400)
    for cluster_id, name in ((running, "Packer"), (sleeper, "cluster")):
        found = away.get(path(cluster_id, "explain")).json
        assert (found["action"], found["signals_known"]) == ("hold", False)
        assert found["held"][name]["gate"] == "unknown"
        assert found["signals"]["Packer"]["ready"] is None
        assert found["signals"]["Packer"]["load_percent"] is None


def test_there_is_nothing_to_explain_about_what_is_gone_or_was_never_there(stage: Stage, api: FlaskClient) -> None:
    cluster_id = new(stage)
    stage.do(DestroyCluster(cluster_id=cluster_id))
    stage.settle(cluster_id)
    gone = api.get(path(cluster_id, "explain"))
    assert (gone.status_code, gone.json["cluster_status"]) == (409, "destroyed")
    assert api.get(path("nobody", "explain")).status_code == 404


def test_a_cluster_that_is_being_destroyed_is_explained_as_gone(stage: Stage, api: FlaskClient) -> None:
    cluster_id = new(stage)
    stage.do(DestroyCluster(cluster_id=cluster_id))
    assert stage.cluster(cluster_id).status == "destroying"
    gone = api.get(path(cluster_id, "explain"))
    assert (gone.status_code, gone.json["cluster_status"]) == (409, "destroying")


# --- replay -----------------------------------------------------------------------------------------------------


def replay(api: FlaskClient, cluster_id: str, text: str, **more: Any) -> Any:
    return api.post(path(cluster_id, "replay"), json={"yaml": text, **more})


def test_a_replay_by_the_same_blueprint_differs_nowhere(stage: Stage, api: FlaskClient) -> None:
    cluster_id = storied(stage)
    found = replay(api, cluster_id, depot()).json
    assert {key: found[key] for key in ("cluster_id", "decisions", "differing", "changes")} == {
        "cluster_id": cluster_id, "decisions": 3, "differing": 0, "changes": [],
    }  # fmt: skip
    assert found["blueprint"] == {"id": "depot", "version": "1"}


def test_a_replay_shows_where_another_blueprint_would_have_decided_differently(stage: Stage, api: FlaskClient) -> None:
    cluster_id = storied(stage)
    before = stage.cluster(cluster_id).generation
    found = replay(api, cluster_id, depot("idle_workers: 2")).json
    assert found["differing"] == len(found["changes"]) > 0
    hold = found["changes"][0]
    assert (hold["recorded"]["action"], hold["replayed"]["action"]) == ("hold", "scale")
    assert hold["replayed"]["after"]["Packer"] == 2
    assert hold["replayed"]["reason"]
    assert [change["id"] for change in found["changes"]] == sorted(change["id"] for change in found["changes"])
    assert found["changes"][-1]["recorded"]["action"] == "hibernate"  # a reserve does not sleep
    newest = replay(api, cluster_id, depot("idle_workers: 2"), limit=1).json
    assert (newest["decisions"], newest["changes"][0]["recorded"]["action"]) == (1, "hibernate")
    assert len(api.get(path(cluster_id)).json["decisions"]) == 3
    assert stage.cluster(cluster_id).generation == before


def test_a_replay_takes_a_blueprint_with_other_groups_and_bounds(stage: Stage, api: FlaskClient) -> None:
    cluster_id = storied(stage)
    other = depot("activation_threshold: 3").replace("max_workers: 9", "max_workers: 2").replace("0-8", "0-1")
    other = other.replace("name: Packer", "name: Porter")
    found = replay(api, cluster_id, other)
    assert found.status_code == 200, found.text
    assert found.json["decisions"] == 3
    smaller = replay(api, cluster_id, depot().replace("max_workers: 9", "max_workers: 3")).json
    [scale] = [change for change in smaller["changes"] if change["recorded"]["action"] == "scale"]
    assert sum(scale["replayed"]["after"].values()) <= 3


def test_what_cannot_be_replayed_is_refused_with_every_fault(stage: Stage, api: FlaskClient) -> None:
    cluster_id = storied(stage)
    faulty = replay(api, cluster_id, depot("activation_threshold: -3, tolerance: much"))
    assert faulty.status_code == 422
    pointers = {fault["pointer"] for fault in faulty.json["errors"]}
    assert pointers == {"/cluster/scaling/activation_threshold", "/cluster/scaling/tolerance"}
    assert all(fault["line"] == 3 for fault in faulty.json["errors"])
    for body, pointer in [
        ({}, "/yaml"),
        ({"yaml": ""}, "/yaml"),
        ({"yaml": depot(), "limit": 0}, "/limit"),
        ({"yaml": depot(), "limit": 10_001}, "/limit"),
        ({"yaml": depot(), "by": 1}, "/by"),
    ]:
        refused = api.post(path(cluster_id, "replay"), json=body)
        assert refused.status_code == 422, body
        assert [fault["pointer"] for fault in refused.json["errors"]] == [pointer]
    assert replay(api, "nobody", depot()).status_code == 404


# --- the command line -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(settings: Settings, control: Control) -> Iterator[str]:
    """An API that answers on a port, as that of the running ``up`` of this home."""
    served = make_server("127.0.0.1", 0, create_app(control), threaded=True)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    me, url = ProcessId.of(os.getpid()), f"http://127.0.0.1:{served.server_port}"
    assert me is not None
    UpFile(up=me, api_url=url, ready=True).write(settings.home)
    yield url
    (settings.home / "up.json").unlink()
    served.shutdown()
    thread.join()
    served.server_close()


def cli(settings: Settings, *arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"BRAIN_HOME": str(settings.home)})


def test_the_command_explain_says_it_in_lines(stage: Stage, settings: Settings, server: str) -> None:
    cluster_id = new(stage)
    push(stage, cluster_id, 2)
    held = cli(settings, "explain", cluster_id)
    assert held.exit_code == 0, held.output
    first, *groups = held.output.splitlines()
    assert first.startswith(f"HOLD {cluster_id} is active: ")
    assert "activation_threshold 3" in first
    assert [line.split(":")[0].strip() for line in groups] == ["Boss", "Packer"]
    assert "0 agents, 1 without the gate activation_threshold; jobs: 2 waiting, 0 taken, 0 running, 0 not" in groups[1]
    stage.redis.delete(f"brain.{cluster_id}.packer")
    stage.do(HibernateCluster(cluster_id=cluster_id))
    stage.settle(cluster_id)
    stage.post(cluster_id, to="Packer", delay=600)
    asleep = cli(settings, "explain", cluster_id, "--api", server)
    assert asleep.exit_code == 0
    assert re.fullmatch(r"   starts in (59\d|600) s for what is due then", asleep.output.splitlines()[-1])


def test_the_command_explain_prints_the_apis_answer(stage: Stage, settings: Settings, server: str) -> None:
    cluster_id = new(stage)
    push(stage, cluster_id, 20)
    done = cli(settings, "explain", cluster_id, "-o", "json")
    assert done.exit_code == 0
    found = json.loads(done.output)
    assert (found["cluster_id"], found["action"]) == (cluster_id, "scale")


def test_the_command_replay_shows_what_differs(stage: Stage, settings: Settings, server: str, tmp_path: Path) -> None:
    cluster_id, file = storied(stage), tmp_path / "depot.yaml"
    file.write_text(depot("idle_workers: 2"))
    done = cli(settings, "replay", cluster_id, "--blueprint", str(file))
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[1].startswith("  recorded: hold, or else Boss 1, Packer 1: ")
    assert lines[2].startswith("  replayed: scale Boss 1, Packer 2: ")
    assert lines[-1] == f"{(len(lines) - 1) // 3} of 3 decisions differ"
    found = json.loads(
        cli(settings, "replay", cluster_id, "--blueprint", str(file), "-o", "json", "--limit", "1").output
    )
    assert (found["decisions"], found["differing"]) == (1, 1)
    file.write_text(depot())
    assert cli(settings, "replay", cluster_id, "--blueprint", str(file)).output == "0 of 3 decisions differ\n"


def test_a_replay_follows_the_schedules_of_the_other_blueprint_and_names_groups_that_it_lacks(
    stage: Stage, settings: Settings, server: str, tmp_path: Path
) -> None:
    cluster_id, file = storied(stage), tmp_path / "depot.yaml"
    always = "{start: '* * * * *', end: '30 3 1 1 *', min_workers: 4}"
    file.write_text(depot(f"schedule: [{always}]"))
    found = json.loads(cli(settings, "replay", cluster_id, "--blueprint", str(file), "-o", "json").output)
    assert found["differing"] > 0
    assert any("a schedule asks for" in change["replayed"]["reason"] for change in found["changes"])
    file.write_text(depot().replace("Packer", "Sorter"))
    told = cli(settings, "replay", cluster_id, "--blueprint", str(file)).output
    assert f"{file} has no group 'Packer'" in told


def test_explain_tells_of_agents_that_died(stage: Stage, settings: Settings, server: str) -> None:
    cluster_id = new(stage)
    [boss] = stage.agents(cluster_id)
    stage.desk().ended([Ended(boss.agent_id, asked=False, error="no such module")])
    assert "1 died in the last minute, the last one: no such module" in cli(settings, "explain", cluster_id).output


def test_the_commands_say_what_is_wrong(stage: Stage, settings: Settings, server: str, tmp_path: Path) -> None:
    file = tmp_path / "depot.yaml"
    file.write_text(depot("activation_threshold: -3"))
    faulty = cli(settings, "replay", "shop", "--blueprint", str(file))
    assert faulty.exit_code == 2
    assert "line 3" in faulty.output
    assert "/cluster/scaling/activation_threshold" in faulty.output
    missing = cli(settings, "replay", "shop", "--blueprint", str(tmp_path / "none.yaml"))
    assert (missing.exit_code, "none.yaml cannot be read" in missing.output) == (2, True)
    assert cli(settings, "replay", "shop").exit_code == 2
    assert cli(settings, "replay", "shop", "--blueprint", str(file), "--limit", "0").exit_code == 2
    unknown = cli(settings, "explain", "nobody")
    assert unknown.exit_code == 4
    assert "there is no cluster 'nobody'" in unknown.output


def test_without_a_system_the_commands_say_what_to_name(tmp_path: Path) -> None:
    environ = {"BRAIN_HOME": str(tmp_path)}
    done = CliRunner().invoke(main, ["explain", "shop"], env=environ)
    assert done.exit_code == 1
    assert done.output.startswith(f"error: no 'up' runs for {tmp_path}. Start one with 'brain-clusters up', or name ")
    nobody = CliRunner().invoke(main, ["explain", "shop", "--api", f"http://127.0.0.1:{free_port()}"], env=environ)
    assert nobody.exit_code == 1
    assert nobody.output.startswith("error: the API at http://127.0.0.1:")
