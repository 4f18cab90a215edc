"""From a spec to a consuming agent, in a process that has imported nothing for it yet."""

from __future__ import annotations

import sys
from collections.abc import Callable

from brain_clusters.agent import application, application_worker, worker
from brain_clusters.agent.config import AgentConfig
from brain_clusters.agent.handlers import for_spec
from brain_clusters.domain.agents import AgentSpec, Loads


def be_agent(spec: AgentSpec, config: AgentConfig, on_ready: Callable[[], None]) -> int:
    """Be the agent ``spec`` until told to stop; return the exit code. Raises PermanentError if it cannot load."""
    sys.path.extend(config.handler_path)
    if spec.celery is not None:
        app = application.load(Loads.of(spec), config.redis_url)
        return application_worker.run(app, spec, config, on_ready)
    own_app, runner = worker.prepare_app(config)
    return worker.run(own_app, runner, spec, for_spec(spec, config), config, on_ready)
