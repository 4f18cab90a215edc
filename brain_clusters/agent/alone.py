"""An agent that is started by itself, as the process of a container or a pod: ``python -m brain_clusters.agent.alone``.

BRAIN_AGENT holds {"spec": {...}, "config": {...}} as JSON, and BRAIN_AGENT_REDIS_URL the address of Redis where that
comes from a secret. Where many are started from one spec (``brain-clusters export``), their ids begin with
BRAIN_AGENT_ID. Handlers are found in the working directory. It writes to standard error, drains when the word for it is
in Redis, ends by SIGTERM once it has finished what it does, and exits with 0 then.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import replace

from brain_clusters.config import agent_environment


def main() -> int:
    """Be the agent; return its exit code."""
    given = agent_environment()
    if given["spec"].get("pool") == "gevent":
        from gevent import monkey

        monkey.patch_all()
    from brain_clusters.agent.config import AgentConfig
    from brain_clusters.agent.starting import be_agent
    from brain_clusters.domain.agents import AgentSpec
    from brain_clusters.errors import PermanentError

    with tempfile.TemporaryDirectory(prefix="brain-agent-") as folder:
        # Paths of the host that made this mean nothing here.
        config = replace(
            AgentConfig(**given["config"]),
            run_dir=folder, log_dir=folder, handler_path=(os.getcwd(),), told_by_redis=True,
        )  # fmt: skip
        try:
            return be_agent(AgentSpec.from_dict(given["spec"]), config, lambda: None)
        except PermanentError as exc:
            sys.stderr.write(f"{exc}\n")
            return os.EX_CONFIG


if __name__ == "__main__":
    sys.exit(main())
