"""BRAiN Clusters: plain Celery workers as declared, scaled, sleeping and waking clusters.

Imports point down only: entry points (workers, api, cli, agent) -> services -> db, broker, genesis,
blueprints -> domain, errors. Nothing happens on import.
"""

__version__ = "0.1.0"
