"""The dashboard in a browser: every screen, in both themes and on a phone; what buttons do; how pages stay live."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Page, expect

from brain_clusters.db.models import Operation
from brain_clusters.domain.access import Role
from brain_clusters.services import history, operations
from tests.integration import browsing, showcase
from tests.integration.browsing import Visit
from tests.integration.dashboard_site import Site, examined
from tests.integration.showcase import MAIN
from tests.integration.stage import Stage

pytestmark = pytest.mark.skipif(
    browsing.chromium() is None, reason="there is no Chromium in PATH; install it, with apt: apt-get install chromium"
)
expect.set_options(timeout=20_000)
ASLEEP, SWARM = "nightly-reports-77ab01", showcase.SWARM


def test_who_is_not_signed_in_is_led_to_the_sign_in_and_back(site: Site, browser: Browser) -> None:
    visit = Visit(browser, site.base)
    visit.page.goto(f"{site.base}/clusters/{MAIN}/scaling?action=hold")
    expect(visit.page).to_have_url(re.compile("/login"))
    assert visit.barriers() == []
    visit.page.get_by_label("Key", exact=True).fill("a wrong key")
    visit.page.keyboard.press("Enter")
    expect(visit.page.get_by_role("alert")).to_contain_text("unknown")
    visit.page.get_by_label("Key", exact=True).fill(site.keys[Role.VIEWER])
    visit.page.keyboard.press("Enter")
    expect(visit.page).to_have_url(f"{site.base}/clusters/{MAIN}/scaling?action=hold")
    expect(visit.page.get_by_text("the viewer")).to_be_visible()
    visit.page.get_by_role("button", name="Sign out").click()
    expect(visit.page).to_have_url(f"{site.base}/login")
    visit.page.goto(f"{site.base}/clusters")
    expect(visit.page).to_have_url(re.compile("/login"))
    visit.close()


SCREENS = {
    "overview": "/",
    "clusters": "/clusters",
    "a new cluster": "/new-cluster",
    "nothing found": "/clusters?q=no+such+thing",
    "cluster": f"/clusters/{MAIN}",
    "scaling": f"/clusters/{MAIN}/scaling",
    "jobs": f"/clusters/{SWARM}/jobs?status=dead,failed",
    "costs": f"/clusters/{MAIN}/costs",
    "events": f"/clusters/{SWARM}/events",
    "blueprint": f"/clusters/{MAIN}/blueprint",
    "difference": f"/clusters/{MAIN}/blueprint?version=1.1&against=1.0",
    "a cluster that sleeps": f"/clusters/{ASLEEP}",
}


@pytest.mark.parametrize("name", SCREENS)
def test_each_screen_holds_in_both_themes_and_on_a_phone(looker: Visit, name: str) -> None:
    examined(looker, SCREENS[name])


def test_the_screen_of_an_agent_holds_in_both_themes_and_on_a_phone(looker: Visit, site: Site) -> None:
    examined(looker, f"/agents/{site.agent(MAIN, 'Writers')}")


def test_what_is_not_there_is_a_page_that_says_so(site: Site, looker: Visit) -> None:
    looker.to("/clusters/none")
    expect(looker.page.get_by_role("heading")).to_be_visible()
    expect(looker.page.get_by_text("there is no cluster 'none'")).to_be_visible()
    assert len(looker.faults) == 1  # the browser's own line about the 404
    looker.faults.clear()


def test_buttons_are_shown_to_who_may_press_them(visit: Callable[..., Visit], site: Site) -> None:
    def buttons(role: Role, path: str) -> set[str]:
        page = visit(role).to(path)
        return set(page.locator("main button").all_inner_texts())

    cluster, agent = f"/clusters/{MAIN}", f"/agents/{site.agent(MAIN, 'Writers')}"
    assert buttons(Role.VIEWER, cluster) == buttons(Role.VIEWER, agent) == set()
    operators = buttons(Role.OPERATOR, cluster)
    assert {"Scale", "Hibernate", "Pause autoscaler"} <= operators
    assert "Destroy" not in operators
    assert "Destroy" in buttons(Role.ADMIN, cluster)
    assert buttons(Role.OPERATOR, agent) == {"Drain", "Replace"}


def test_waking_a_cluster_is_followed_to_its_end(visit: Callable[..., Visit], site: Site) -> None:
    page = visit(Role.OPERATOR).to(f"/clusters/{ASLEEP}")
    page.get_by_role("button", name="Wake").click()
    toasts = page.locator("#toasts")
    expect(toasts).to_contain_text("Reactivate: pending")
    with site.control.database.transaction() as session:
        operation = session.query(Operation).filter_by(cluster_id=ASLEEP).one()
    operations.run(site.control, operation.id)
    expect(toasts).to_contain_text("Reactivate: running")
    Stage(site.control).settle(ASLEEP)
    expect(toasts).to_contain_text("Nightly reports is awake")
    expect(page.locator(".head .state")).to_have_text("Active")
    expect(page.get_by_role("button", name="Hibernate")).to_be_visible()


def test_a_cluster_is_made_and_shown(visit: Callable[..., Visit], site: Site) -> None:
    page = visit(Role.OPERATOR).to("/clusters")
    page.get_by_role("link", name="New cluster").click()
    page.get_by_label("Name", exact=True).fill("Made here")
    page.get_by_label("Id").fill("made-here")
    page.get_by_label("Blueprint", exact=True).select_option("image-pipeline")
    page.get_by_role("button", name="Create").click()
    expect(page.locator("#toasts")).to_contain_text("Create: pending")
    with site.control.database.transaction() as session:
        operation = session.query(Operation).filter_by(cluster_id="made-here").one()
    operations.run(site.control, operation.id)
    Stage(site.control).settle("made-here")
    expect(page).to_have_url(re.compile("/clusters/made-here$"))
    expect(page.get_by_role("heading", name="Made here")).to_be_visible()


def test_a_refusal_is_told_in_the_words_of_the_api(visit: Callable[..., Visit], site: Site) -> None:
    visitor = visit(Role.OPERATOR)
    page = visitor.to(f"/clusters/{SWARM}")
    page.get_by_text("By group").click()
    page.get_by_role("button", name="Scale groups").click()
    expect(page.locator(".toast.bad")).to_contain_text("nothing to scale")
    page.get_by_role("button", name="Dismiss").click()
    expect(page.locator(".toast")).to_have_count(0)
    visitor.faults.clear()  # the browser's own line about the 400


def test_groups_are_scaled_one_by_one(visit: Callable[..., Visit], site: Site) -> None:
    page = visit(Role.OPERATOR).to(f"/clusters/{SWARM}")
    page.get_by_text("By group").click()
    page.get_by_label("Uploaders").fill("3")
    page.get_by_role("button", name="Scale groups").click()
    expect(page.locator("#toasts")).to_contain_text("Scale: pending")
    with site.control.database.transaction() as session:
        newest = session.query(Operation).filter_by(cluster_id=SWARM).order_by(Operation.created_at.desc()).first()
    assert newest is not None
    assert newest.request["groups"] == {"Uploaders": 3}
    assert newest.origin == "api"


def test_what_cannot_be_undone_asks_for_the_name(visit: Callable[..., Visit], site: Site) -> None:
    page = visit().to("/clusters/quarter-close-5d2a90")
    page.get_by_role("button", name="Destroy").click()
    dialog = page.get_by_role("dialog")
    confirm = dialog.get_by_role("button", name="Confirm")
    expect(confirm).to_be_disabled()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Destroy").click()
    dialog.get_by_role("textbox").fill("quarter-close-5d2a90")
    confirm.click()
    expect(page.locator("#toasts")).to_contain_text("Destroy: pending")


def test_an_agent_is_drained_by_a_button(visit: Callable[..., Visit], site: Site) -> None:
    agent_id = site.agent("image-pipeline-2b7d10", "Resizers")
    page = visit(Role.OPERATOR).to(f"/agents/{agent_id}")
    page.get_by_role("button", name="Drain").click()
    page.get_by_role("dialog").get_by_role("button", name="Confirm").click()
    expect(page.locator("#toasts")).to_contain_text("It leaves after its job")
    expect(page.locator(".head .state")).to_have_text("Draining")
    expect(page.get_by_text("It leaves, and another takes its place.")).to_be_visible()


def happens(site: Site, reason: str) -> None:
    with site.control.database.transaction() as session:
        history.record(session, "test.told", reason, cluster_id=MAIN, actor="tests")


def test_an_event_changes_the_page_and_leaves_the_reader_alone(visit: Callable[..., Visit], site: Site) -> None:
    page = visit(Role.OPERATOR, viewport={"width": 1000, "height": 500}).to(f"/clusters/{MAIN}")
    page.evaluate("document.getElementById('main').dataset.poll = '600'")  # only events, not the clock
    expect(page.locator("#live")).to_have_text("Live")
    page.get_by_text("By group").click()
    page.get_by_label("All agents").focus()
    page.evaluate("window.scrollTo(0, 300); window.here = document.querySelector('.plot canvas')")
    happens(site, "the first thing")
    expect(page.get_by_text("the first thing")).to_be_attached()
    assert page.evaluate("document.activeElement.id") == "target"
    assert page.evaluate("document.getElementById('by-group').open")
    assert page.evaluate("window.here === document.querySelector('.plot canvas')")
    assert page.evaluate("window.scrollY") == 300


def test_without_the_stream_pages_are_polled_and_without_the_server_they_say_so(
    visit: Callable[..., Visit], site: Site
) -> None:
    visitor = visit()
    visitor.page.route("**/api/events/stream*", lambda route: route.abort())
    page = visitor.to(f"/clusters/{MAIN}/events")
    page.evaluate("document.getElementById('main').dataset.poll = '1'")
    expect(page.locator("#live")).to_have_text("Polling")
    happens(site, "the second thing")
    page.keyboard.press("r")
    expect(page.get_by_text("the second thing")).to_be_visible()
    visitor.context.set_offline(True)
    expect(page.locator("#live")).to_have_text("Offline")
    visitor.context.set_offline(False)
    expect(page.locator("#live")).to_have_text("Polling")
    visitor.faults.clear()  # what the browser says of requests that were cut


def test_the_keyboard_goes_everywhere_and_the_theme_stays(visit: Callable[..., Visit]) -> None:
    page = visit().to("/")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to content")).to_be_focused()
    page.keyboard.press("g")
    page.keyboard.press("c")
    expect(page).to_have_url(re.compile("/clusters$"))
    page.wait_for_selector("html.js")
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("swarm")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.wait_for_selector("html.js")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    page.keyboard.press("Escape")
    for theme in ("light", "dark"):
        page.keyboard.press("t")
        expect(page.locator("html")).to_have_attribute("data-theme", theme)
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_charts_are_drawn_and_tell_the_newest_figures(visit: Callable[..., Visit]) -> None:
    page: Page = visit().to(f"/clusters/{MAIN}?window=6h")
    expect(page.locator("figure.chart canvas")).to_have_count(4)
    expect(page.locator("#chart-agents .legend")).to_contain_text("ready 12")


def test_pages_can_be_read_without_scripts(visit: Callable[..., Visit]) -> None:
    page = visit(java_script_enabled=False).page
    page.goto(f"{visit().base}/clusters/{MAIN}")
    expect(page.get_by_role("heading", name="Hierarchy")).to_be_visible()
    expect(page.locator("main button:visible")).to_have_count(0)
    page.locator("#chart-waiting-table summary").click()
    expect(page.locator("#chart-waiting-table tbody tr").first).to_be_visible()
