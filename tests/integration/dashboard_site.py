"""A served dashboard, a browser, and visitors by role: the fixtures of the dashboard's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from playwright.sync_api import Browser
from sqlalchemy import text

from brain_clusters.config import Settings
from brain_clusters.db.models import Agent
from brain_clusters.domain.access import Role
from brain_clusters.services import access
from brain_clusters.services.access import NewKey
from brain_clusters.services.control import Control
from tests.integration import browsing, showcase
from tests.integration.browsing import PHONE, Visit
from tests.integration.served_api import ServedApi


@dataclass(frozen=True, slots=True)
class Site:
    """A served dashboard. keys: by role."""

    base: str
    control: Control
    keys: dict[Role, str]

    def agent(self, cluster_id: str, group: str) -> str:
        with self.control.database.transaction() as session:
            return str(session.query(Agent).filter_by(cluster_id=cluster_id, group_name=group).first().agent_id)

    def sql(self, statement: str, **values: Any) -> None:
        with self.control.database.transaction() as session:
            session.execute(text(statement), values)


@pytest.fixture(scope="module")
def site(settings: Settings, control: Control) -> Iterator[Site]:
    showcase.build(control)
    with control.database.transaction() as session:
        keys = {
            role: access.make(
                session, NewKey(name=f"the {role}", role=role, payloads=role is not Role.VIEWER), "tests"
            )[1]
            for role in Role
        }
    with ServedApi(replace(settings, insecure_dev=False), pages=True) as api:
        yield Site(f"http://127.0.0.1:{api.port}", control, keys)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing.opened() as browser:
        yield browser


@pytest.fixture(scope="module")
def signed_in(site: Site, browser: Browser) -> Callable[..., Any]:
    """What a signed-in browser keeps, by role: signing in once is enough for all tests."""
    kept: dict[Role, Any] = {}

    def state(role: Role) -> Any:
        if role not in kept:
            visit = Visit(browser, site.base)
            visit.sign_in(site.keys[role])
            kept[role] = visit.context.storage_state()
            visit.close()
        return kept[role]

    return state


@pytest.fixture
def visit(site: Site, browser: Browser, signed_in: Callable[[Role], Any]) -> Iterator[Callable[..., Visit]]:
    """A function that returns a visitor with a role. No page may complain."""
    visits: list[Visit] = []

    def make(role: Role | None = Role.ADMIN, **options: Any) -> Visit:
        if role is not None:
            options["storage_state"] = signed_in(role)
        visits.append(Visit(browser, site.base, **options))
        return visits[-1]

    yield make
    faults = [fault for one in visits for fault in one.faults]
    for one in visits:
        one.close()
    assert not faults


@pytest.fixture(scope="module")
def looker(site: Site, browser: Browser, signed_in: Callable[[Role], Any]) -> Iterator[Visit]:
    visit = Visit(browser, site.base, storage_state=signed_in(Role.ADMIN))
    yield visit
    visit.close()


def examined(looker: Visit, path: str) -> None:
    """Look at a page in both themes and on a phone."""
    looker.page.set_viewport_size(browsing.DESKTOP)
    page = looker.to(path)
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    assert looker.barriers() == []
    assert looker.overflow() == 0
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert looker.barriers("color-contrast") == []
    page.set_viewport_size(PHONE)
    # Charts are drawn anew when their script comes to it.
    page.wait_for_function("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert looker.barriers("color-contrast", "scrollable-region-focusable", "target-size") == []
    assert looker.faults == []
