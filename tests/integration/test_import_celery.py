"""``brain-clusters import celery``: a sound blueprint from an application's queues and routes, or a clear error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from brain_clusters.blueprints.validator import parse_blueprint

APP = """
from celery import Celery
from kombu import Exchange, Queue

print("importing says something")
app = Celery("My Shop", broker="redis://:secret@broker.example:6380/3")
app.conf.task_queues = [Queue("orders"), Queue("media", Exchange("media", "topic"), routing_key="media.#")]
app.conf.task_default_queue = "orders"
app.conf.task_routes = ([("shop.video.*", {"queue": "video"}), ("shop.mail", "mail")], "shop_app.router")
app.conf.worker_concurrency = 4
app.conf.worker_pool = "threads"

def router(name, args, kwargs, options, task=None, **kw):
    if name == "shop.odd":
        raise KeyError("needs its arguments")
    return None

@app.task(name="shop.buy")
def buy(): ...

@app.task(name="shop.video.cut")
def cut(): ...

@app.task(name="shop.mail")
def mail(): ...

@app.task(name="shop.odd")
def odd(): ...

@app.task(name="shop.own", queue="private")
def own(): ...
"""


def importing(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "brain_clusters", "import", "celery", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_blueprint_is_sound_and_names_every_queue(tmp_path: Path) -> None:
    (tmp_path / "shop_app.py").write_text(APP)
    done = importing(tmp_path, "shop_app:app", "-o", "shop.yaml")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "shop.yaml").read_text()
    found = parse_blueprint(text, source="shop.yaml")
    works = [group.celery for group in found.foreign if group.celery is not None]
    assert [work.queues for work in works] == [
        ("orders",), ("media",), ("video",), ("mail",), ("private",)
    ]  # fmt: skip
    assert {(work.app, work.broker) for work in works} == {("shop_app:app", "env:MY_SHOP_BROKER_URL")}
    assert {(group.concurrency, group.pool) for group in found.foreign} == {(4, "threads")}
    assert "# Tasks: shop.video.cut." in text
    assert "# Which queue shop.odd goes to is decided at each call: KeyError" in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("nowhere.app:app", "there is no module 'nowhere'"),
        ("other:missing", "has no 'missing' for the application other:missing; it has rabbit"),
        ("other:number", "is no Celery application but of the type int"),
        ("other:rabbit", "the application's broker is not Redis"),
        ("other", "write it as package.module:attribute"),
        ("broken:app", "importing broken failed: RuntimeError: no disk"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, reference: str, told: str) -> None:
    (tmp_path / "other.py").write_text(
        "from celery import Celery\nnumber = 1\nrabbit = Celery('r', broker='amqp://h//')\n"
    )
    (tmp_path / "broken.py").write_text("raise RuntimeError('no disk')\n")
    done = importing(tmp_path, reference)
    assert done.returncode != 0
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_the_application_is_found_where_handlers_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_app.py").write_text(APP)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("BRAIN_HANDLER_PATH", str(tmp_path))
    done = importing(tmp_path / "elsewhere", "shop_app:app")
    assert done.returncode == 0, done.stderr
