"""Places where a test can have this process killed: ``BRAIN_FAILPOINT=step:kill``. Without the variable, nothing."""

from __future__ import annotations

import os
import signal

from brain_clusters.config import failpoint_setting


def failpoint(step: str) -> None:
    """Die by SIGKILL here when the environment asks for it at ``step``; once, if a file named by it is still there.

    The form ``step:kill:FILE`` kills only while FILE exists, and removes it first: the next process survives.
    """
    setting = failpoint_setting()
    if setting is None or not setting.startswith(f"{step}:kill"):
        return
    _, _, once = setting.split(":", 2) if setting.count(":") == 2 else (step, "kill", "")
    if once:
        try:
            os.unlink(once)
        except FileNotFoundError:
            return
    os.kill(os.getpid(), signal.SIGKILL)
