"""What ``export kubernetes`` writes: read again as Kubernetes and KEDA would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from brain_clusters.blueprints.validator import parse_blueprint
from brain_clusters.broker import names
from brain_clusters.cli import main
from brain_clusters.config import Settings
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.errors import InvalidInput
from brain_clusters.services.exporting import LEASE_SECONDS, Place, manifests

SHOP = """
metadata: {id: shop, name: Shop, version: "1"}
cluster:
  type: team
  min_workers: 1
  max_workers: 8
  scaling:
    queue_per_slot: 4
    activation_threshold: 2
    scale_up: {max_percent: 50, max_workers: 3, period: 30}
    scale_down: {stabilization: 2 minutes}
    schedule:
      - {start: "0 8 * * 1-5", end: "0 18 * * 1-5", min_workers: 4, timezone: Europe/Berlin}
agents:
  - {role: supervisor, name: Desk, handler: "shop.orders:confirm_all", config: {costs: "$(HOME) and $5"}}
  - role: worker
    name: Confirmations & More
    count: 1-20
    concurrency: 2
    handler: shop.orders:confirm
    image: shop:7
    resources: {cpu: 500m, memory: 256Mi}
    environment: {PLAIN: "y", KEY: "secret:mail/key", TOKEN: "env:MAIL_TOKEN"}
    pod: {labels: {team: mail}, node_selector: {disk: fast}}
  - role: worker
    name: Mail
    count: 0-2
    celery: {app: "proj.celery:app", queues: [mail, letters]}
lifecycle:
  hibernate_conditions: [idle_time: 10 minutes, task_queue_empty: true]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.yaml"
    path.write_text(SHOP)
    return path


def exported(file: Path, *options: str) -> tuple[str, list[dict[str, Any]]]:
    """Return what is written, and the objects in it."""
    done = CliRunner().invoke(main, ["export", "kubernetes", "shop-1", "--blueprint", str(file), *options])
    assert done.exit_code == 0, done.output
    return done.output, list(yaml.safe_load_all(done.output))


def by_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def test_each_group_is_a_deployment_and_each_range_a_scaled_object(file: Path) -> None:
    _, objects = exported(file)
    assert [each["kind"] for each in objects] == ["TriggerAuthentication", "Deployment", "Deployment", "ScaledObject"]
    deployments = by_kind(objects, "Deployment")
    desk = deployments["brain-shop-1-desk"]
    assert desk["spec"]["replicas"] == 1
    [scaled] = by_kind(objects, "ScaledObject").values()
    target = deployments[scaled["spec"]["scaleTargetRef"]["name"]]
    assert "replicas" not in target["spec"]  # KEDA's
    assert {"minReplicaCount": 1, "maxReplicaCount": 8, "cooldownPeriod": 600}.items() <= scaled["spec"].items()


def test_a_deployment_selects_its_own_pods_and_no_others(file: Path) -> None:
    _, objects = exported(file)
    chosen = []
    for each in by_kind(objects, "Deployment").values():
        selector, labels = each["spec"]["selector"]["matchLabels"], each["spec"]["template"]["metadata"]["labels"]
        assert selector.items() <= labels.items()
        assert not any(key.startswith("brain-clusters/") for key in labels)  # by which a host knows its own pods
        chosen.append(frozenset(selector.items()))
    assert len(set(chosen)) == 2


def test_an_agent_is_given_its_spec_as_it_is_in_spite_of_what_kubernetes_replaces(file: Path) -> None:
    _, objects = exported(file)
    pod = by_kind(objects, "Deployment")["brain-shop-1-desk"]["spec"]["template"]["spec"]
    variables = {each["name"]: each for each in pod["containers"][0]["env"]}
    given = json.loads(variables["BRAIN_AGENT"]["value"].replace("$$", "$"))
    spec = AgentSpec.from_dict(given["spec"])
    assert (spec.queue, spec.config) == ("brain.shop-1.desk", {"costs": "$(HOME) and $5"})
    assert list(spec.delegates) == ["Confirmations & More"]
    assert (given["config"]["host_id"], given["config"]["beat_stale"]) == (None, LEASE_SECONDS)
    assert variables["BRAIN_AGENT_ID"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert "restartPolicy" not in pod


def test_a_groups_engine_is_in_its_pods(file: Path) -> None:
    _, objects = exported(file, "--secret", "place", "--image", "ours:1")
    [scaled] = by_kind(objects, "ScaledObject")
    template = by_kind(objects, "Deployment")[scaled]["spec"]["template"]
    container = template["spec"]["containers"][0]
    assert container["image"] == "shop:7"
    assert container["resources"]["limits"] == {"cpu": "500m", "memory": str(256 * 1024**2)}
    assert (template["metadata"]["labels"]["team"], template["spec"]["nodeSelector"]) == ("mail", {"disk": "fast"})
    variables = {each["name"]: each for each in container["env"]}
    assert variables["PLAIN"]["value"] == "y"
    secrets = {name: each["valueFrom"]["secretKeyRef"] for name, each in variables.items() if "KeyRef" in str(each)}
    assert secrets == {
        "KEY": {"name": "mail", "key": "key"},
        "TOKEN": {"name": "place", "key": "MAIL_TOKEN"},  # what a host has in its environment
        "BRAIN_AGENT_REDIS_URL": {"name": "place", "key": "BRAIN_AGENT_REDIS_URL"},
    }
    desk = by_kind(objects, "Deployment")["brain-shop-1-desk"]
    assert desk["spec"]["template"]["spec"]["containers"][0]["image"] == "ours:1"


def test_what_no_pod_has_is_refused_with_its_place(tmp_path: Path) -> None:
    text = SHOP.replace("env:MAIL_TOKEN", "file:/etc/token")
    place = Place(Settings(home=tmp_path, kubernetes_secret="s"), {})
    with pytest.raises(InvalidInput, match="'Confirmations & More': TOKEN is file:/etc/token"):
        list(manifests("shop-1", parse_blueprint(text, source="shop"), place))


def test_keda_is_asked_for_all_lists_of_the_queue_and_for_what_waits_for_its_time(file: Path) -> None:
    """By https://keda.sh/docs/latest/scalers/redis-lists and /cron: metadata is text, and has these keys."""
    _, objects = exported(file, "--redis-database", "3")
    [scaled] = by_kind(objects, "ScaledObject").values()
    *lists, cron = scaled["spec"]["triggers"]
    queue = names.group_queue("shop-1", "confirmations-more")
    asked = {each["metadata"]["listName"]: each["metadata"] for each in lists}
    assert list(asked) == [*names.priority_lists(queue), names.eta_key(queue)]
    for key in names.priority_lists(queue):
        assert asked[key] == {
            "listName": key, "listLength": "8", "activationListLength": "2", "databaseIndex": "3",
        }  # fmt: skip
    assert asked[names.eta_key(queue)]["activationListLength"] == "0"
    [authentication] = by_kind(objects, "TriggerAuthentication")
    assert {each["authenticationRef"]["name"] for each in lists} == {authentication}
    assert cron == {
        "type": "cron",
        "metadata": {
            "timezone": "Europe/Berlin", "start": "0 8 * * 1-5", "end": "0 18 * * 1-5", "desiredReplicas": "2",
        },
    }  # fmt: skip


def test_the_bounds_on_change_are_those_of_the_blueprint(file: Path) -> None:
    _, objects = exported(file)
    [scaled] = by_kind(objects, "ScaledObject").values()
    behavior = scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"] == {"stabilizationWindowSeconds": 120}
    assert behavior["scaleUp"]["policies"] == [
        {"type": "Percent", "value": 50, "periodSeconds": 30},
        {"type": "Pods", "value": 3, "periodSeconds": 30},
    ]


def test_the_head_says_what_is_left_out_and_what_is_lost(file: Path) -> None:
    text, _ = exported(file)
    assert "Left out is Mail" in text
    assert "celery -A proj.celery:app worker -Q mail,letters" in text
    assert "What is lost against the driver `kubernetes`:" in text


def test_a_file_is_written_and_no_secret_and_no_path_of_this_machine_is_in_it(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAIN_REDIS_URL", "redis://:a-password@there:6379/0")
    monkeypatch.setenv("MAIL_TOKEN", "a-token")
    monkeypatch.setenv("BRAIN_HOME", str(tmp_path / "home"))
    written = tmp_path / "shop-1.yaml"
    exported(file, "-o", str(written))
    text = written.read_text()
    assert not any(word in text for word in ("a-password", "a-token", str(tmp_path), str(Path.cwd())))


@pytest.mark.parametrize("cluster_id", ["Shop_1", "s" * 100, "shop.1"])
def test_names_are_such_as_kubernetes_takes_and_tell_clusters_apart(cluster_id: str, tmp_path: Path) -> None:
    place = Place(Settings(home=tmp_path, kubernetes_secret="s"), {}, namespace="there")
    blueprint = parse_blueprint(SHOP, source="shop")
    found = [each["metadata"] for each in manifests(cluster_id, blueprint, place)]
    other = [each["metadata"] for each in manifests(f"{cluster_id}x", blueprint, place)]
    assert not {each["name"] for each in found} & {each["name"] for each in other}
    for each in found:
        assert each["namespace"] == "there"
        assert len(each["name"]) <= 52
        assert all(part.isalnum() for part in each["name"].split("-"))
        assert each["name"] == each["name"].lower()
        assert all(len(value) <= 63 for value in each["labels"].values())
