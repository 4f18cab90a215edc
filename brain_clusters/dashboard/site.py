"""What all screens share: their routes, the frame around them, and the files that browsers load."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import flask

from brain_clusters.api import auth, release
from brain_clusters.api.context import commit
from brain_clusters.api.endpoint import declared, endpoint
from brain_clusters.dashboard import words
from brain_clusters.domain.access import Identity, Role

HERE = Path(__file__).parent
THEMES = ("auto", "light", "dark")
THEME_COOKIE = "brain_theme"
_YEAR = 31_536_000

routes = flask.Blueprint("page_site", __name__, template_folder="templates")


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the navigation. key: pressed after ``g``, it goes there."""

    endpoint: str
    name: str
    icon: str
    key: str


# Only what is there, and what its reader may see, is shown: an entry may name a screen that is not mounted.
NAV = (
    Entry("page_overview.show", "Overview", "overview", "o"),
    Entry("page_clusters.listing", "Clusters", "clusters", "c"),
    Entry("page_jobs.listing", "Jobs", "jobs", "j"),
    Entry("page_blueprints.listing", "Blueprints", "blueprints", "b"),
    Entry("page_operations.listing", "Operations", "operations", "p"),
    Entry("page_hosts.listing", "Hosts", "hosts", "h"),
    Entry("page_audit.listing", "Audit", "audit", "a"),
    Entry("page_keys.listing", "Keys", "keys", "k"),
    Entry("page_keys.signed_in", "Sessions", "sessions", "s"),
)
# Screens that belong to the entry of another one.
_SECTIONS = {"page_cluster": "page_clusters", "page_agent": "page_clusters"}


def screen(name: str) -> flask.Blueprint:
    """Return the routes of one screen; their endpoints are ``page_NAME.function``."""
    return flask.Blueprint(f"page_{name}", f"{__package__}.{name}")


def page(template: str, *, title: str, poll: int = 5, http_status: int = 200, **shown: Any) -> flask.Response:
    """Return a page. poll: after how many seconds it is read again when no event says so earlier; 0: never."""
    html = flask.render_template(template, title=title, poll=poll, **frame(), **shown)
    return flask.Response(html, http_status, mimetype="text/html")


def frame() -> dict[str, Any]:
    """Return what the frame of every page shows."""
    who: Identity | None = flask.g.get("identity")
    theme = flask.request.cookies.get(THEME_COOKIE, "auto")
    endpoint_name = flask.request.endpoint or ""
    section = endpoint_name.split(".")[0]
    return {
        "who": who,
        "csrf": auth.csrf_token() if who else None,
        "may_operate": who is not None and who.role.covers(Role.OPERATOR),
        "may_manage": who is not None and who.role.covers(Role.ADMIN),
        "theme": theme if theme in THEMES else "auto",
        "nav": [entry for entry in NAV if who is not None and _may_open(entry, who)],
        "here": _SECTIONS.get(section, section),
        "at": endpoint_name if any(entry.endpoint == endpoint_name for entry in NAV) else None,
        "build": release.tag(commit()),
    }


def _may_open(entry: Entry, who: Identity) -> bool:
    found = declared(flask.current_app.view_functions.get(entry.endpoint))
    if found is None or found.role is None:
        return False
    return who.role.covers(found.role) and (who.sees_all or not found.everywhere)


def problem(status: int, title: str, detail: str) -> flask.Response:
    """Return the page that shows an error."""
    return page("problem.html", title=title, poll=0, http_status=status, code=status, detail=detail)


# --- files ------------------------------------------------------------------------------------------------------


@functools.cache
def digest() -> str:
    """Return what names the static files as they are: browsers keep them until it changes."""
    found = sha256()
    for file in sorted((HERE / "static").rglob("*")):
        if file.is_file():
            found.update(file.read_bytes())
    return found.hexdigest()[:12]


def asset(name: str) -> str:
    """Return the URL of a static file. Modules that it imports by relative paths lie under the same digest."""
    return flask.url_for("page_site.static_file", version=digest(), name=name)


# As probes are, they are no part of what a caller may ask for in a minute.
@routes.get("/static/<version>/<path:name>")
@endpoint(None, probe=True)
def static_file(version: str, name: str) -> flask.Response:
    """Send a file that pages load."""
    response = flask.send_from_directory(HERE / "static", name)
    kept = f"public, max-age={_YEAR}, immutable" if version == digest() else "no-cache"
    response.headers["Cache-Control"] = kept
    return response


def query_url(**changed: Any) -> str:
    """Return the URL of the page at hand with some query parameters changed; None removes one."""
    given: dict[str, Any] = {**flask.request.args.to_dict(), **changed}
    kept: Mapping[str, Any] = {name: value for name, value in given.items() if value not in (None, "")}
    return flask.url_for(str(flask.request.endpoint), **(flask.request.view_args or {}), **kept)


def prepare(app: flask.Flask) -> None:
    """Give the templates of ``app`` their functions and filters."""
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.globals.update(asset=asset, query_url=query_url, now=lambda: datetime.now(UTC))
    app.jinja_env.filters.update(words.FILTERS)
