"""Everyday background work: web hooks, mail and reports over CSV files."""

from __future__ import annotations

import csv
import hashlib
import hmac
import json
import smtplib
import statistics
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from email.message import EmailMessage
from email.utils import make_msgid
from pathlib import Path
from typing import Any, Protocol

_MAX_ROWS = 1_000_000


class Context(Protocol):
    """What these handlers use of the context: the ``config`` of their agent group, and the job's id."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The group's ``config:``."""

    @property
    def job_id(self) -> str:
        """The same at every attempt, so a receiver can tell a repetition."""


def deliver_webhook(payload: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """POST ``payload["body"]`` as JSON to ``payload["url"]``; raise when the receiver does not take it.

    config: secret (signs the body, header X-Signature-256), timeout_seconds, attempts.
    """
    body = json.dumps(payload["body"]).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": context.job_id}
    if secret := context.config.get("secret"):
        headers["X-Signature-256"] = "sha256=" + hmac.new(str(secret).encode(), body, hashlib.sha256).hexdigest()
    if urllib.parse.urlsplit(payload["url"]).scheme not in ("http", "https"):
        raise ValueError("url must begin with http:// or https://")
    request = urllib.request.Request(payload["url"], data=body, headers=headers, method="POST")  # noqa: S310
    attempts = int(context.config.get("attempts", 3))
    for attempt in range(1, attempts + 1):
        try:
            with urllib.request.urlopen(request, timeout=context.config.get("timeout_seconds", 10)) as answer:  # noqa: S310
                return {"status": answer.status, "attempts": attempt}
        except urllib.error.HTTPError as refusal:
            # 4xx is the sender's fault and stays one; only 429 asks for patience.
            if attempt == attempts or (refusal.code < 500 and refusal.code != 429):
                raise
        except OSError:
            if attempt == attempts:
                raise
        time.sleep(0.2 * 2**attempt)
    raise ValueError("attempts must be at least 1")


def send_mail(payload: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Send one mail: ``to``, ``subject``, ``text``.

    config: sender, smtp_host, smtp_port; without smtp_host the mail becomes a file in ``outbox``.
    """
    message = EmailMessage()
    message["From"] = context.config.get("sender", "reports@localhost")
    message["To"] = payload["to"]
    message["Subject"] = payload["subject"]
    message["Message-ID"] = make_msgid(context.job_id)
    message.set_content(payload["text"])
    if host := context.config.get("smtp_host"):
        with smtplib.SMTP(host, context.config.get("smtp_port", 25), timeout=30) as server:
            server.send_message(message)
        return {"sent": True, "to": payload["to"]}
    outbox = Path(context.config.get("outbox", "outbox"))
    outbox.mkdir(parents=True, exist_ok=True)
    # Named by the job: a second attempt replaces the first instead of sending twice.
    target = outbox / f"{context.job_id}.eml"
    target.write_bytes(bytes(message))
    return {"sent": False, "file": str(target)}


def summarise_csv(payload: Mapping[str, Any], _context: Context) -> dict[str, Any]:
    """Return rows, columns, and of each numeric column count, sum, mean, lowest and highest."""
    with Path(payload["path"]).open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        numbers: dict[str, list[float]] = {name: [] for name in reader.fieldnames or ()}
        rows = 0
        for rows, row in enumerate(reader, start=1):
            if rows > _MAX_ROWS:
                raise ValueError(f"{payload['path']} has more than {_MAX_ROWS} rows")
            for name, values in numbers.items():
                values.extend(_number(row[name]))
    return {
        "path": str(payload["path"]),
        "rows": rows,
        "columns": {name: _figures(values) for name, values in numbers.items()},
    }


def _number(cell: str | None) -> list[float]:
    try:
        value = float(cell or "")
    except ValueError:
        return []
    return [value] if value - value == 0 else []


def _figures(values: list[float]) -> dict[str, float]:
    if not values:
        return {"count": 0}
    return {
        "count": len(values),
        "sum": round(sum(values), 6),
        "mean": round(statistics.fmean(values), 6),
        "lowest": min(values),
        "highest": max(values),
    }
