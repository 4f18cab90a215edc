"""Answers as comma-separated values (RFC 4180), for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flask

# A spreadsheet takes text that begins like this for a formula, and runs it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def wants_csv(format_asked: str | None) -> bool:
    """Return whether the answer is to be CSV: by ``format``, else by the Accept header where it prefers that."""
    if format_asked is not None:
        return format_asked == "csv"
    accepted = flask.request.accept_mimetypes
    return accepted.best_match(["application/json", "text/csv"]) == "text/csv"


def answer_csv(name: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> flask.Response:
    """Return ``rows`` as a file ``name``.csv with a line of names; what is unknown is empty."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\r\n")
    writer.writerow([_cell(column) for column in columns])
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in columns])
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return flask.Response(written.getvalue(), 200, headers, content_type="text/csv; charset=utf-8; header=present")


def _cell(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for more than what it says."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
