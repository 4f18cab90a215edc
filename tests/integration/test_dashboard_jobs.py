"""The dashboard in a browser: jobs, dead letters, blueprints, operations, hosts, the audit, keys and sessions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from brain_clusters.db.models import ApiKey, Job, Operation, StoredBlueprint
from brain_clusters.domain.access import Role
from tests.integration import browsing, showcase_more
from tests.integration.browsing import Visit
from tests.integration.dashboard_site import Site, examined
from tests.integration.showcase import MAIN, SWARM
from tests.integration.showcase_more import FAILED, ROOT

pytestmark = pytest.mark.skipif(browsing.chromium() is None, reason="there is no Chromium in PATH")
Visits = Callable[..., Visit]


@pytest.fixture(scope="module", autouse=True)
def _more(site: Site) -> Iterator[None]:
    expect.set_options(timeout=20_000)
    showcase_more.build(site.control)
    return


SCREENS = {
    "jobs": "/jobs",
    "jobs that match": f"/jobs?status=failed,dead&cluster={SWARM}&since=1+day&error=TimeoutError",
    "a job that failed": f"/jobs/{FAILED}",
    "a job that runs": f"/jobs/{ROOT}",
    "dead letters of a cluster": f"/dead-letters?cluster={SWARM}",
    "blueprints": "/blueprints",
    "a blueprint": "/blueprints/support-desk",
    "editor": "/new-blueprint?of=support-desk",
    "operations": "/operations?kind=scale",
    "audit": "/audit",
    "keys": "/keys?ended=true",
    "sessions": "/sessions",
    "hosts": "/hosts",
}


@pytest.mark.parametrize("name", SCREENS)
def test_each_screen_holds_in_both_themes_and_on_a_phone(looker: Visit, name: str) -> None:
    examined(looker, SCREENS[name])


def test_a_viewer_reads_all_of_it_without_a_button_and_without_payloads(visit: Visits) -> None:
    viewer = visit(Role.VIEWER)
    for path in ("/jobs", f"/jobs/{FAILED}", "/dead-letters", "/blueprints/support-desk", "/operations", "/hosts"):
        page = viewer.to(path)
        assert page.locator("main [data-action]").count() == 0, path
    expect(viewer.to(f"/jobs/{FAILED}").get_by_text("ConnectionResetError").first).to_be_visible()
    for hidden in ("INBOX/77120", "handlers.py", "[Errno 104]"):
        assert hidden not in viewer.page.content()
    expect(viewer.page.locator("#nav")).not_to_contain_text("Keys")
    for path in ("/keys", "/audit", "/new-blueprint"):
        viewer.page.goto(viewer.base + path)
        expect(viewer.page.locator(".problem .code")).to_have_text("403")
    viewer.faults.clear()  # the browser's own lines about those


def test_jobs_are_found_by_id_and_by_what_they_are(visit: Visits) -> None:
    page = visit().to("/jobs")
    page.get_by_role("searchbox").fill(FAILED[:6])
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("link", name="b8d34f10").click()
    expect(page.get_by_label("Traceback")).to_contain_text("handlers.py")
    expect(page.locator(".node[aria-current]")).to_contain_text("Dead")
    page.get_by_role("link", name="All with this error").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Remove the filter error").click()
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_role("link", name="Older").click()
    expect(page.get_by_role("link", name="Newest")).to_be_visible()


def confirmed(page: Page, button: str, question: str) -> None:
    page.get_by_role("button", name=button).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(question)
    dialog.get_by_role("button", name="Confirm").click()


def test_all_that_match_are_treated_with_their_count_first(visit: Visits, site: Site) -> None:
    page = visit(Role.OPERATOR).to(f"/jobs?cluster={SWARM}&error=ValidationError:+ticket+has+no+language")
    confirmed(page, "Retry 9", "Retry 9 dead letters?")
    expect(page.locator("#toasts")).to_contain_text("9 queued again, 0 left")
    page.goto(f"{site.base}/jobs?cluster={SWARM}&status=queued,running")
    page.wait_for_selector("html.js")
    confirmed(page, "Cancel 9", "Cancel 9 jobs?")
    expect(page.locator("#toasts")).to_contain_text("9 cancelled, 0 asked to end")
    with site.control.database.transaction() as session:
        assert session.query(Job).filter_by(cluster_id=SWARM, status="cancelled").count() == 9


def test_dead_letters_of_one_error_are_discarded_and_others_stay(visit: Visits, site: Site) -> None:
    page = visit(Role.OPERATOR).to("/dead-letters")
    confirmed(page, "Discard all with TimeoutError", "Discard 4 dead letters?")
    expect(page.locator("#toasts")).to_contain_text("4 put aside, 0 left")
    expect(page.locator(".letters")).not_to_contain_text("TimeoutError")
    confirmed(page, "Retry all with SMTPServerDisconnected", "Retry 31 dead letters?")
    expect(page.locator("#toasts")).to_contain_text("31 queued again")


def test_a_job_is_retried_and_cancelled(visit: Visits) -> None:
    page = visit(Role.OPERATOR).to(f"/jobs/{FAILED}")
    confirmed(page, "Retry", "Retry this job?")
    expect(page.locator(".head .state")).to_have_text("Queued")
    confirmed(page, "Cancel", "Cancel this job?")
    expect(page.locator(".head .state")).to_have_text("Cancelled")


def test_a_blueprint_is_judged_while_it_is_typed_and_planned_before_it_is_stored(visit: Visits, site: Site) -> None:
    page = visit().to("/new-blueprint?of=support-desk")
    expect(page.locator("#plan")).to_contain_text("is stored with just this text")
    expect(page.get_by_role("button", name="Store")).to_be_hidden()
    yaml = page.locator("#yaml")
    sound = yaml.input_value().replace('version: "1.1"', 'version: "1.2"').replace("max_workers: 16", "max_workers: 20")
    yaml.fill(sound.replace("reports_to: Triage", "reports_to: Triag"))
    expect(page.locator("#faults")).to_contain_text("did you mean 'Triage'?")
    expect(page.locator(".gutter .at-fault")).to_have_text("15")
    page.locator("#faults button").click()
    expect(yaml).to_be_focused()
    yaml.fill(sound)
    expect(page.locator("#plan")).to_contain_text("cluster.max_workers16→20")
    expect(page.locator("#plan")).to_contain_text(MAIN)
    page.get_by_label("Roll it out").check()
    page.get_by_role("button", name="Store version 1.2 and roll it out").click()
    expect(page).to_have_url(re.compile("/blueprints/support-desk$"))
    expect(page.locator("#version-1\\.2")).to_contain_text("newest")
    with site.control.database.transaction() as session:
        assert session.get(StoredBlueprint, ("support-desk", "1.2")) is not None
        assert session.query(Operation).filter_by(kind="rollout", cluster_id=MAIN).count() == 1


def test_a_key_is_shown_once_renewed_and_revoked(visit: Visits, site: Site) -> None:
    page = visit().to("/keys")
    page.get_by_label("Name").fill("the robot")
    page.get_by_label("Role").select_option("operator")
    page.get_by_label("Only clusters tagged").fill("eu, media")
    page.get_by_role("button", name="Make key").click()
    shown = page.locator("#secret-text")
    expect(shown).to_have_text(re.compile("^brain_"))
    secret = shown.inner_text()
    page.get_by_role("button", name="I have it").click()
    row = page.locator("tr", has_text="the robot")
    expect(row).to_contain_text("media")
    assert secret not in page.content()
    confirmed(page, "Rotate the robot", "Rotate the robot?")
    expect(shown).to_have_text(re.compile("^brain_"))
    page.get_by_role("button", name="I have it").click()
    expect(row).to_have_count(2)
    row.first.get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("textbox").fill("the robot")
    page.get_by_role("dialog").get_by_role("button", name="Confirm").click()
    expect(row).to_have_count(1)
    with site.control.database.transaction() as session:
        found = session.query(ApiKey).filter_by(name="the robot").order_by(ApiKey.created_at).all()
    assert [(one.role, one.tags) for one in found] == [(Role.OPERATOR, ["eu", "media"])] * 2
    page = visit().to("/audit?action=keys.revoke")
    expect(page.locator("tbody tr").first).to_contain_text("'the robot'")


def test_a_session_is_ended_and_its_browser_led_to_the_sign_in(visit: Visits, site: Site) -> None:
    other = visit(None)
    other.sign_in(site.keys[Role.VIEWER], "/sessions")
    expect(other.page.get_by_text("this one")).to_be_visible()
    other.page.wait_for_selector("html.js")
    other.page.get_by_text("this one").locator("xpath=ancestor::tr").get_by_role("button").click()
    other.page.get_by_role("dialog").get_by_role("button", name="Confirm").click()
    expect(other.page).to_have_url(re.compile("/login"))
    other.faults.clear()  # a read of the page that came after the end


def test_an_operation_tells_why_it_failed(visit: Visits) -> None:
    page = visit(Role.VIEWER).to("/operations?status=failed")
    page.get_by_role("link", name="Scale", exact=True).first.click()
    expect(page.locator(".note.bad")).to_contain_text("2 of 9 agents were not ready")
    expect(page.get_by_role("heading", name="Events")).to_be_visible()
    expect(page.locator(".feed li")).to_have_count(2)


def test_the_new_screens_are_read_without_scripts(visit: Visits, site: Site) -> None:
    page = visit(java_script_enabled=False).page
    for path, told in (("/jobs", "Older"), (f"/jobs/{ROOT}", "Tree"), ("/keys", "grafana"), ("/blueprints", "Support")):
        page.goto(site.base + path)
        expect(page.get_by_text(told).first).to_be_visible()
        expect(page.locator("main button[data-action]:visible")).to_have_count(0)
