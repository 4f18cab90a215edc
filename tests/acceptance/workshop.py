"""The handlers of the tests: they do what the payload says, and write down every run that begins."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

MARKS = Path(__file__).with_name("marks")


def work(payload: dict[str, Any], context: Any) -> dict[str, Any]:
    """Do what ``payload`` says: sleep (s), gate (wait for that file), kill, exit, fail (with that message)."""
    line = {"job": context.job_id, "attempt": context.attempt, "agent": context.agent_id, "pid": os.getpid()}
    with MARKS.open("a") as marks:  # one short write: lines of several agents do not mix
        marks.write(json.dumps({**line, "at": time.time()}) + "\n")
    time.sleep(payload.get("sleep", 0))
    while "gate" in payload and not os.path.exists(payload["gate"]):
        time.sleep(0.02)
    if payload.get("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if "exit" in payload:
        sys.exit(payload["exit"])
    if "fail" in payload:
        raise ValueError(payload["fail"])
    return {**line, "group": context.group, "said": payload.get("say")}
