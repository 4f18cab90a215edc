"""deploy/kubernetes as text, for what no server would notice."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from brain_clusters import __version__
from brain_clusters.config import Settings

MANIFESTS = Path(__file__).parents[2] / "deploy" / "kubernetes"
PROCESSES = ("api", "worker", "beat", "host")


def loaded(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((MANIFESTS / name).read_text()))


def settings_file() -> dict[str, str]:
    lines = (MANIFESTS / "base" / "settings.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_every_setting_is_one_that_there_is_and_holds() -> None:
    known = {item.metadata["variable"]: item.metadata["secret"] for item in fields(Settings)}
    [secret, agents] = loaded("secrets.example.yaml")
    assert not any(known[name] for name in settings_file())
    assert all(known[name] for name in [*secret["stringData"], *agents["stringData"]])
    assert Settings.from_env(settings_file()).kubernetes_namespace == agents["metadata"]["namespace"]
    assert Settings.from_env(settings_file()).kubernetes_secret == agents["metadata"]["name"]


def test_the_image_is_that_of_this_version() -> None:
    [kustomization] = loaded("base/kustomization.yaml")
    assert [image["newTag"] for image in kustomization["images"]] == [__version__]
    assert settings_file()["BRAIN_AGENT_IMAGE"].endswith(f":{__version__}")


@pytest.mark.parametrize("name", PROCESSES)
def test_every_process_is_confined_watched_and_begun_on_its_schema(name: str) -> None:
    pod = loaded(f"base/{name}.yaml")[0]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert [each["args"] for each in pod["initContainers"]] == [["migrate"]]
    for container in [*pod["initContainers"], *pod["containers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert container["resources"]["limits"]
    [process] = pod["containers"]
    assert process["livenessProbe"]
    assert process["readinessProbe"]
