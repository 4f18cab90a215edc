"""Places where a test can have this process killed: ``BRAIN_FAILPOINT=step:kill``. Without the variable, nothing."""

from __future__ import annotations

import os
import signal

from brain_clusters.config import failpoint_setting


def failpoint(step: str) -> None:
    """Die by SIGKILL here when the environment asks for it at ``step``; once, if a file named by it is still there.

    The form ``step:kill:FILE`` kills only while FILE exists, and removes it first: the next process survives.
    Several are separated by commas.
    """
    for setting in (failpoint_setting() or "").split(","):
        wanted, _, rest = setting.partition(":")
        action, _, once = rest.partition(":")
        if wanted == step and action == "kill" and _armed(once):
            os.kill(os.getpid(), signal.SIGKILL)


def _armed(once: str) -> bool:
    """Return whether to kill; a file that allows it once is used up."""
    if not once:
        return True
    try:
        os.unlink(once)
    except FileNotFoundError:
        return False
    return True
