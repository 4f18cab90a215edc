"""An agent that is started by itself, as the process of a container or a pod: ``python -m brain_clusters.agent.alone``.

BRAIN_AGENT holds {"spec": {...}, "config": {...}} as JSON, and BRAIN_AGENT_REDIS_URL the address of Redis where that
comes from a secret. Where many are started from one spec (``brain-clusters export``), their ids begin with
BRAIN_AGENT_ID. Handlers are found in the working directory. It writes to standard error, drains when the word for it is
in Redis, ends by SIGTERM once it has finished what it does, and exits with 0 then. It exits with 78 (EX_CONFIG) when it
can never be what it was asked to be, and with 75 (EX_TEMPFAIL) when something that it needs did not answer.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from brain_clusters import __version__
from brain_clusters.config import agent_environment
from brain_clusters.errors import BrainError, PermanentError


def main() -> int:
    """Be the agent; return its exit code."""
    try:
        return _be(agent_environment())
    except BrainError as exc:
        sys.stderr.write(f"{exc}\n")
        return os.EX_TEMPFAIL if exc.retryable else os.EX_CONFIG


def _be(given: Mapping[str, Any]) -> int:
    if given["spec"].get("pool") == "gevent":
        _patch()
    from brain_clusters.agent.config import AgentConfig
    from brain_clusters.agent.starting import be_agent
    from brain_clusters.domain.agents import AgentSpec

    try:
        spec, config = AgentSpec.from_dict(given["spec"]), AgentConfig.from_dict(given["config"])
    except (KeyError, TypeError, ValueError) as exc:
        raise PermanentError(
            f"BRAIN_AGENT comes from another version of brain-clusters than {__version__}, which this is: {exc}"
        ) from exc
    with tempfile.TemporaryDirectory(prefix="brain-agent-") as folder:
        # Paths of the host that made this mean nothing here.
        config = replace(config, run_dir=folder, log_dir=folder, handler_path=(os.getcwd(),), told_by_redis=True)
        return be_agent(spec, config, lambda: None)


def _patch() -> None:
    """Have gevent patch everything, before it is imported."""
    try:
        from gevent import monkey
    except ImportError:
        raise PermanentError("the group's pool is gevent, which is not installed in its image") from None
    monkey.patch_all()


if __name__ == "__main__":
    sys.exit(main())
