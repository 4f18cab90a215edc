"""Make the pictures of docs/images again: python -m tests.screenshots. Needs Chromium, and pngquant to make them small.

They show the rows of tests/integration/showcase.py in an installation of their own, which is gone afterwards.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import Browser
from sqlalchemy import create_engine

from brain_clusters.config import Settings
from brain_clusters.db.migrate import upgrade
from brain_clusters.db.models import Agent
from brain_clusters.embedded import EmbeddedServers, running
from brain_clusters.services.control import Control
from brain_clusters.shipped import shipped
from tests.integration import browsing, showcase, showcase_more
from tests.integration.browsing import PHONE, Visit
from tests.integration.served_api import ServedApi

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
_LOG = """\
[info] agent=AGENT ready group=Writers concurrency=1
[info] agent=AGENT job=job-55e0 begun attempt=1
[info] agent=AGENT job=job-55e0 succeeded seconds=2.31
[info] agent=AGENT job=job-8678 begun attempt=1
"""


def main() -> None:
    """Serve the showcase, and take every picture."""
    with tempfile.TemporaryDirectory() as folder:
        servers = EmbeddedServers(Path(folder) / "home", say=lambda _: None)
        try:
            servers.start()
            urls = running(Path(folder) / "home")
            assert urls is not None
            assert urls.database_url is not None
            engine = create_engine(urls.database_url)
            upgrade(engine, shipped("migrations"))
            engine.dispose()
            settings = Settings(home=Path(folder) / "home", database_url=urls.database_url, redis_url=urls.redis_url)
            control = Control.open(replace(settings, insecure_dev=True), application="screenshots")
            showcase.build(control)
            showcase_more.build(control)
            with ServedApi(replace(settings, insecure_dev=True), pages=True) as api:
                _take(f"http://127.0.0.1:{api.port}", _agent(control))
            with ServedApi(settings, pages=True) as api:
                _login(f"http://127.0.0.1:{api.port}")
            control.close()
        finally:
            servers.remove()


def _agent(control: Control) -> str:
    """Return an agent that works, with a log."""
    with control.database.transaction() as session:
        found = session.query(Agent).filter_by(cluster_id=showcase.MAIN, group_name="Writers", status="busy").first()
        assert found is not None
        log = control.settings.home / "logs" / "agents" / f"{found.agent_id}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(_LOG.replace("AGENT", found.agent_id))
        return str(found.agent_id)


def _take(base: str, agent_id: str) -> None:
    cluster = f"/clusters/{showcase.MAIN}"
    with browsing.opened() as browser:
        for scheme in ("light", "dark"):
            visit = Visit(browser, base, color_scheme=scheme, viewport={"width": 1280, "height": 860})
            _shoot(visit, "/", f"overview-{scheme}")
            _shoot(visit, cluster, f"cluster-{scheme}", whole=True)
            visit.close()
        visit = Visit(browser, base, color_scheme="dark", viewport={"width": 1280, "height": 760})
        _shoot(visit, "/clusters", "clusters-dark")
        _shoot(visit, f"{cluster}/scaling", "scaling-dark")
        visit.close()
        visit = Visit(browser, base, color_scheme="light", viewport={"width": 1280, "height": 760})
        _shoot(visit, f"{cluster}/costs", "costs-light")
        _shoot(visit, f"/agents/{agent_id}", "agent-light")
        visit.close()
        _take_more(browser, base)
        visit = Visit(browser, base, color_scheme="dark", viewport=PHONE)
        _shoot(visit, cluster, "phone-dark")
        visit.close()


def _take_more(browser: Browser, base: str) -> None:
    size = {"width": 1280, "height": 760}
    visit = Visit(browser, base, color_scheme="light", viewport=size)
    _shoot(visit, "/dead-letters", "dead-letters-light")
    _shoot(visit, "/jobs?status=failed,dead", "jobs-light")
    page = visit.to("/new-blueprint?of=support-desk")
    text = page.locator("#yaml")
    newer = text.input_value().replace('version: "1.1"', 'version: "1.2"').replace("max_workers: 16", "max_workers: 20")
    text.fill(newer.replace("count: 0-8", "count: 0-12"))
    page.get_by_label("Roll it out").check()
    _save(visit, "editor-light")
    visit.close()
    visit = Visit(browser, base, color_scheme="dark", viewport=size)
    _shoot(visit, f"/jobs/{showcase_more.ROOT}", "job-dark")
    _shoot(visit, "/audit", "audit-dark")
    visit.close()


def _login(base: str) -> None:
    with browsing.opened() as browser:
        visit = Visit(browser, base, color_scheme="light", viewport={"width": 900, "height": 560})
        visit.page.goto(f"{base}/login")
        _save(visit, "login-light")
        visit.close()


def _shoot(visit: Visit, path: str, name: str, *, whole: bool = False) -> None:
    visit.to(path)
    visit.page.wait_for_selector("#live[data-state=live]")
    visit.page.wait_for_timeout(600)  # charts are drawn
    if whole:  # the side bar is as high as the window
        height = visit.page.evaluate("document.documentElement.scrollHeight")
        visit.page.set_viewport_size({"width": 1280, "height": int(height)})
        visit.page.wait_for_timeout(300)
    _save(visit, name)
    if whole:
        visit.page.set_viewport_size({"width": 1280, "height": 860})


def _save(visit: Visit, name: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    file = IMAGES / f"{name}.png"
    visit.page.screenshot(path=file)
    if small := shutil.which("pngquant"):
        subprocess.run([small, "--force", "--quality=70-95", "--output", file, file], check=False)
    print(f"{file.stat().st_size / 1024:6.0f} KiB  {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
