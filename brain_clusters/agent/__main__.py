"""An agent with an interpreter of its own, which nothing was imported into before gevent patched it.

``python -m brain_clusters.agent GIVEN_FD REPORT_FD``: exec'd by a zygote in place of the agent that it forked. GIVEN_FD
holds {"spec": {...}, "config": {...}} as JSON. Only for the pool gevent; forked agents start faster.
"""

from __future__ import annotations

import json
import sys


def main(given_fd: int, report_fd: int) -> int:
    """Be the agent; return its exit code."""
    from gevent import monkey

    monkey.patch_all()
    from brain_clusters.agent.config import AgentConfig
    from brain_clusters.agent.starting import be_agent
    from brain_clusters.agent.zygote import Reports
    from brain_clusters.domain.agents import AgentSpec

    with open(given_fd, encoding="utf-8") as given:
        given.seek(0)
        found = json.load(given)
    spec, reports = AgentSpec.from_dict(found["spec"]), Reports(report_fd)
    return be_agent(
        spec, AgentConfig.from_dict(found["config"]), lambda: reports.send(**{"is": "ready", "agent": spec.agent_id})
    )


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
