"""A browser for the tests of the dashboard: Chromium, driven by Playwright, with what its pages complain of."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_AXE = Path(__file__).parent / "axe" / "axe.min.js"
DESKTOP, PHONE = {"width": 1360, "height": 900}, {"width": 375, "height": 812}


def chromium() -> str | None:
    """Return where Chromium is."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


@contextmanager
def opened() -> Iterator[Browser]:
    """Yield a browser, which ends with the context."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """Somebody who looks at pages. faults: what the browser's console said that no page should make it say."""

    def __init__(self, browser: Browser, base: str, **options: Any) -> None:
        self.base = base
        self.context: BrowserContext = browser.new_context(
            viewport=options.pop("viewport", DESKTOP), reduced_motion="reduce", **options
        )
        self.context.set_default_timeout(10_000)
        self.page: Page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("console", lambda one: self.faults.append(one.text) if one.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda one: self.faults.append(str(one)))

    def sign_in(self, key: str, path: str = "/") -> None:
        """Sign in as whoever ``key`` is, and go to ``path``."""
        self.page.goto(f"{self.base}/login?next={path}")
        self.page.get_by_label("Key", exact=True).fill(key)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(f"{self.base}{path}")

    def to(self, path: str) -> Page:
        """Go to a page and wait until its scripts have begun."""
        self.page.goto(self.base + path)
        self.page.wait_for_selector("html.js")
        return self.page

    def barriers(self, *rules: str) -> list[str]:
        """Return what axe finds serious or critical in the page. rules: look for these only."""
        if not self.page.evaluate("Boolean(window.axe)"):
            # Not as a script element, which the pages' policy would refuse.
            self.page.evaluate(_AXE.read_text())
        options = {"runOnly": {"type": "rule", "values": list(rules)}} if rules else {}
        found = self.page.evaluate("options => axe.run(document, {resultTypes: ['violations'], ...options})", options)
        return [
            f"{one['id']}: {node['html'][:160]}"
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        width = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return int(width)

    def close(self) -> None:
        """Go away."""
        self.context.close()
