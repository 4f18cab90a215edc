"""What was used, what it cost and what sleeping saved: of one cluster, or of all."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import flask

from brain_clusters.api import answers
from brain_clusters.api.context import answer, control
from brain_clusters.api.endpoint import Document, endpoint
from brain_clusters.api.shapes import TEXT, Media
from brain_clusters.api.tables import answer_csv, wants_csv
from brain_clusters.domain.access import Role
from brain_clusters.errors import Fault, InvalidInput
from brain_clusters.services import costs
from brain_clusters.services.costs import Period, Report
from brain_clusters.services.requests import Schema

routes = flask.Blueprint("costs", __name__, url_prefix="/api")

_USUAL_DAYS = 30
_MOST_DAYS = 3660
_DAY = {"type": "string", "regex": r"[0-9]{4}-[0-9]{2}-[0-9]{2}", "meta": {"must": "be a day such as 2026-01-31"}}
_PERIOD: Schema = {"since": _DAY, "until": _DAY, "format": {"type": "string", "allowed": ["json", "csv"]}}
_OF_ONE: Schema = {
    **_PERIOD,
    "group_by": {"type": "string", "allowed": ["day", "group", "agent"], "default": "group"},
}
_OF_ALL: Schema = {
    **_PERIOD,
    "group_by": {
        "type": "string",
        "allowed": ["agent", "group", "cluster", "blueprint", "tag", "day"],
        "default": "cluster",
    },
}
_ANSWERS = {200: Media({"application/json": answers.COSTS, "text/csv": TEXT})}


@routes.get("/clusters/<cluster_id>/costs")
@endpoint(Role.VIEWER, query=_OF_ONE, answers=_ANSWERS)
def of_one(cluster_id: str, query: Document) -> flask.Response:
    """Tell what a cluster used and cost, also one that is gone, by group, agent or day."""
    return _told(query, cluster_id)


@routes.get("/costs")
@endpoint(Role.VIEWER, query=_OF_ALL, answers=_ANSWERS)
def of_all(query: Document) -> flask.Response:
    """Tell what all clusters used and cost."""
    return _told(query, None)


def _told(query: Mapping[str, Any], cluster_id: str | None) -> flask.Response:
    period = _period(query)
    with control().database.transaction() as session:
        report = costs.report(session, period, query["group_by"], cluster_id)
    currency = control().settings.currency
    if wants_csv(query.get("format")):
        return _as_csv(report, period, query["group_by"], currency)
    rows = [{**name, **tally.as_dict()} for name, tally in report.rows]
    about = {"since": period.since.isoformat(), "until": period.until.isoformat(), "group_by": query["group_by"]}
    about |= {"currency": currency} | ({} if cluster_id is None else {"cluster_id": cluster_id})
    return answer({**about, "rows": rows, "total": len(rows), "totals": report.totals.as_dict()})


def _period(query: Mapping[str, Any]) -> Period:
    """Return the days asked for, by default the last _USUAL_DAYS; raise InvalidInput with every fault."""
    faults: list[Fault] = []

    def read(name: str) -> date | None:
        try:
            return date.fromisoformat(query[name]) if name in query else None
        except ValueError:
            faults.append(Fault(f"/{name}", f"{query[name]!r} is no day of the calendar"))
            return None

    since, until = read("since"), read("until")
    until = until or max(datetime.now(UTC).date(), since or date.min)
    since = since or until - min(until - date.min, timedelta(days=_USUAL_DAYS - 1))
    if not faults and since > until:
        faults.append(Fault("/since", f"since {since} is after until {until}; both days are included"))
    if not faults and (until - since).days >= _MOST_DAYS:
        faults.append(Fault("/since", f"a report covers at most {_MOST_DAYS} days"))
    if faults:
        raise InvalidInput("the query parameters are not valid", faults)
    return Period(since, until)


def _as_csv(report: Report, period: Period, group_by: str, currency: str) -> flask.Response:
    rows = [_flat(name, tally.as_dict(), currency) for name, tally in report.rows]
    columns = [*costs.names_of(group_by), *_flat({}, report.totals.as_dict(), currency)]
    return answer_csv(f"costs-by-{group_by}-{period.since}-{period.until}", columns, rows)


def _flat(name: Mapping[str, Any], told: Mapping[str, Any], currency: str) -> dict[str, Any]:
    """Return a row with one figure a column. What handlers counted besides is in the JSON answer only."""
    return {
        **name,
        **{f"{state}_seconds": seconds for state, seconds in told["agent_seconds"].items() if state != "total"},
        "agent_seconds": told["agent_seconds"]["total"],
        "slot_seconds": told["slot_seconds"],
        "jobs_succeeded": told["jobs"]["succeeded"],
        "jobs_failed": told["jobs"]["failed"],
        "calls": told["calls"],
        "input_tokens": told["input_tokens"],
        "output_tokens": told["output_tokens"],
        "amount": told["amount"],
        "amount_known": told["amount_known"],
        "saved_agent_seconds": told["saved"]["agent_seconds"],
        "saved_amount": told["saved"]["amount"],
        "currency": currency,
    }
